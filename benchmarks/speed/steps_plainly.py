"""A process that trains plain torch modules on the same units in a plain loop, with torch's fused Adam: see `benchmarks.speed.students`.

It reads the name of a net per line, and answers with the CPU seconds of the loop; after the word `launched` the loop also moves a table,
by torch's SparseAdam.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import CosineAnnealingLR

sys.path.insert(0, str(Path(__file__).parent))
made_rows: Any = importlib.import_module("made_rows")
made_units: Any = importlib.import_module("made_units")
plain_nets: Any = importlib.import_module("plain_nets")


def loop(net: nn.Module, units: Any, table: nn.Embedding | None) -> None:
    """Train a net for the steps of a student, on given inputs or on what a table makes of the ids."""
    rate = made_units.LR if table is None else made_units.LAUNCH_LR
    optimisers: list[torch.optim.Optimizer] = [torch.optim.Adam(net.parameters(), lr=rate, fused=True)]
    if table is not None:
        optimisers.append(torch.optim.SparseAdam(table.parameters(), lr=made_units.TABLE_LR))
    schedulers = [CosineAnnealingLR(optimiser, made_units.STEPS) for optimiser in optimisers]
    soft, rng, done = torch.sigmoid(units.logit), torch.Generator().manual_seed(1), 0
    while done < made_units.STEPS:
        for pick in torch.randperm(len(soft), generator=rng).split(made_units.BATCH):
            if len(pick) < made_units.BATCH or done == made_units.STEPS:
                break
            target = torch.lerp(soft[pick], torch.bernoulli(soft[pick], generator=rng), made_units.DRAW)
            x = units.x[pick] if table is None else table(units.ids[pick])
            loss = binary_cross_entropy_with_logits(net(x), target, weight=units.weight[pick, None])
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            for scheduler in schedulers:
                scheduler.step()
            done += 1


def seconds(name: str, launched: bool, units: Any) -> float:
    """CPU seconds of the loop."""
    net = plain_nets.net(name, units.ids.shape[1], made_units.DIM, adapted=not launched)
    table = nn.Embedding(made_units.IDS, made_units.DIM, sparse=True) if launched else None
    began = time.process_time()
    loop(net, units, table)
    return time.process_time() - began


if __name__ == "__main__":
    made_units.answer(made_rows, seconds)
