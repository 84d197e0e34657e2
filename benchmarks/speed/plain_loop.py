"""The plain loop with which scoring is compared: only pyarrow and torch, in as many processes as there are scorers."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import embedding, linear, relu

HIDDEN = (400, 400, 400)
BATCH = 8192


def plain_loop(checkpoints: list[Path], shards: list[Path]) -> float:
    """The plain loop in one process: EL2N and mean probability of every row, without diet_ray. Returns the sum of the scores."""
    torch.set_num_threads(1)
    weights, total = [load_file(path) for path in checkpoints], 0.0
    with torch.inference_mode():
        for path in shards:
            table = pq.read_table(path, columns=["ids", "labels"])
            columns = [table[name].combine_chunks() for name in ("ids", "labels")]
            ids, labels = (torch.tensor(column.flatten().to_numpy().reshape(len(table), -1)) for column in columns)
            for batch, label in zip(ids.split(BATCH), labels.split(BATCH), strict=True):
                probabilities = torch.stack([torch.sigmoid(_net(weight, batch)) for weight in weights])
                probabilities.mean(dim=0)  # the soft label
                total += float((math.sqrt(2) * (probabilities - label).abs().mean(dim=0)).double().sum())
    return total


def _net(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    x = embedding(ids, weights["table"]).flatten(1)
    for layer in range(len(HIDDEN)):
        name = f"net.members.0.net.mlp.hidden.{layer}"
        x = relu(linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return linear(x, weights["net.members.0.net.mlp.out.weight"], weights["net.members.0.net.mlp.out.bias"])


def score_plainly(paths: list[Path], checkpoints: list[Path], workers: int) -> float:
    """The plain loop in W processes; each takes every W-th shard."""
    shares = [paths[rank::workers] for rank in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(partial(plain_loop, checkpoints), shares))
