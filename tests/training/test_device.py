"""Where tensors are put, what bfloat16 does to scores, and what is said where no GPU can be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diet_ray.config import ClusterConfig, StreamConfig
from diet_ray.distill.score import ScoreJob, Scorer
from diet_ray.errors import ConfigError, ResourceError
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import Log, open_log
from diet_ray.settings import parse
from diet_ray.storage.tensors import save_tensors
from diet_ray.training.device import CPU, autocast, device_of, draws_on, forked, gpu_fault, put
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference
from diet_ray.training.workers import Solo
from tests.support.small_nets import VARIANT_IDS, VARIANTS, make
from tests.support.small_run import config
from tests.support.synthetic import write_log

META = torch.device("meta")
"""Stands for a GPU where nothing is computed: it holds no numbers."""


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, as if it had a GPU without bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")


def test_a_process_is_on_the_gpu_only_where_ray_has_given_it_one(a_gpu: None) -> None:
    assert device_of(0, "float32") == device_of(0, "bfloat16") == CPU  # though there is one
    assert device_of(1, "float32") == device_of(0.25, "float32") == torch.device("cuda")


def test_a_gpu_without_bfloat16_is_named(a_gpu: None) -> None:
    with pytest.raises(ResourceError, match=r"Old GPU has no bfloat16 products: set cluster\.precision to float32"):
        device_of(1, "bfloat16")


def test_a_gpu_that_torch_cannot_use_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"sees no CUDA GPU here: install a CUDA build .* cluster\.gpus_per_worker"):
        device_of(0.5, "float32")
    assert device_of(0, "float32") == CPU


def test_values_go_to_a_gpu_by_way_of_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    pinned = SimpleNamespace(to=lambda device, non_blocking: calls.append((device, non_blocking)))
    here = SimpleNamespace(is_cuda=False, pin_memory=lambda: pinned)
    put(here, torch.device("cuda"))  # type: ignore[arg-type]
    assert calls == [(torch.device("cuda"), True)]
    values = torch.arange(3)
    assert put(values, CPU) is values


def test_only_a_gpu_needs_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, rng, seeds = torch.device("cuda"), torch.Generator().manual_seed(1), []
    assert draws_on(CPU, rng) is rng
    made = SimpleNamespace(manual_seed=lambda seed: seeds.append(seed) or seed)
    monkeypatch.setattr(torch, "Generator", lambda device: made)
    assert draws_on(cuda, rng) != draws_on(cuda, rng)  # each seeded by the next number of the CPU's
    assert len(set(seeds)) == 2
    assert (forked(CPU), forked(cuda)) == ([], [cuda])


def checkpoint_of(log: Log, stream: StreamConfig, seed: int = 0) -> dict[str, Tensor]:
    reference = Reference(log.schema, stream.reference.nets, stream.reference, n_ids=log.blocks[0].n_ids, seed=seed)
    return {name: 5 * value for name, value in reference.checkpoint().items()}


def test_a_predictor_works_where_it_is_put(log: Path) -> None:
    opened, stream = open_log(log), config(log)
    predictor = Predictor(opened.schema, stream.reference.nets, checkpoint_of(opened, stream), device=META)
    parts = [predictor.table, predictor.field_of_slot, *predictor.net.parameters(), *predictor.net.buffers()]
    assert {part.device for part in parts} == {META}
    assert len(parts) > 4


@pytest.mark.parametrize(("arch", "params"), VARIANTS, ids=VARIANT_IDS)
def test_bfloat16_moves_a_probability_little(arch: str, params: dict[str, Any]) -> None:
    net = make(arch, params, n_tasks=2).eval()
    x = torch.randn(2000, 5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = net(x)
        scale = 2.5 / float(exact.std())  # a steeper net than training gives: most logits between -5 and 5
        exact = torch.sigmoid(scale * exact)
        with autocast(CPU, "bfloat16"):
            rough = torch.sigmoid(scale * net(x).float())
        with autocast(CPU, "float32"):
            assert torch.equal(torch.sigmoid(scale * net(x)), exact)
    difference = (rough - exact).abs()
    assert 0 < float(difference.mean()) < 0.004
    assert float(difference.quantile(0.99)) < 0.02


def test_scores_in_bfloat16_choose_nearly_the_same_rows(tmp_path: Path) -> None:
    log = open_log(write_log(tmp_path / "log", blocks=1, n=2000))
    paths = [tmp_path / f"{k}.safetensors" for k in range(2)]
    plain, rough = config(tmp_path / "log"), config(tmp_path / "log", precision="bfloat16")
    for seed, path in enumerate(paths):
        save_tensors(path, checkpoint_of(log, plain, seed))
    rows = log.read_block(log.blocks[0])
    one, two = (
        Scorer(ScoreJob.of(log, log.blocks[0], paths, stream, keep=10, seed=0)).score(rows) for stream in (plain, rough)
    )
    assert two.score.dtype == two.probability.dtype == np.float32
    assert 0 < np.abs(one.probability - two.probability).max() < 0.02
    assert np.abs(one.score - two.score).max() < 0.02 * np.sqrt(2)
    best = [set(np.argsort(-scored.score[:, 0], kind="stable")[:100].tolist()) for scored in (one, two)]
    assert len(best[0] & best[1]) >= 95


def test_a_worker_that_scores_does_so_on_its_device(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diet_ray.distill import score as scoring
    from diet_ray.engine import ray_engine as engine

    seen: list[torch.device] = []

    class Seen(Exception):
        pass

    def scorer(*arguments: Any, device: torch.device, **more: Any) -> None:
        seen.append(device)
        raise Seen

    monkeypatch.setattr(scoring, "Scorer", scorer)
    opened = open_log(log)
    job = scoring.ScoreJob.of(opened, opened.blocks[0], [], config(log), keep=10, seed=0)
    for device in (CPU, META):
        with pytest.raises(Seen):
            engine.RayEngine(Solo(device), None).score(job, BlockRows(opened, opened.blocks[0]))  # type: ignore[arg-type]
    assert seen == [CPU, META]


def test_keys_that_change_nothing_are_not_written() -> None:
    """What was kept under the hash of a config before these keys existed is still found."""
    assert set(ClusterConfig().model_dump()) == {
        "workers",
        "cpus_per_worker",
        "gpus_per_worker",
        "threads_per_worker",
        "scorers",
        "cpus_per_scorer",
        "memory_shards",
        "max_failures",
    }
    changed = ClusterConfig(precision="bfloat16", scorers=1, gpus_per_scorer=0.5)
    assert changed.model_dump()["precision"] == "bfloat16"
    assert ClusterConfig.model_validate_json(changed.model_dump_json()) == changed
    assert ClusterConfig.model_validate_json(ClusterConfig().model_dump_json()) == ClusterConfig()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"precision": "float16"}, "cluster.precision"),
        ({"gpus_per_worker": 1.5}, "cluster.gpus_per_worker: 1.5 is neither a share of one GPU nor a whole number"),
        ({"gpus_per_scorer": 2.5}, "cluster.gpus_per_scorer: 2.5 is neither"),
        ({"gpus_per_scorer": -1}, "cluster.gpus_per_scorer"),
        ({"gpus_per_scorer": 1}, "cluster.gpus_per_scorer: there are no scorers"),
    ],
)
def test_bad_keys_are_named(tmp_path: Path, cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(StreamConfig, {"log": tmp_path, "cluster": cluster}, where="run.yaml")
    assert said in str(caught.value)


class Rays:
    """Ray as `check_cluster` sees it, with tasks that run here."""

    def __init__(self, **resources: float) -> None:
        self.resources = resources
        self.asked: list[dict[str, float]] = []

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, **options: float) -> Any:
        self.asked.append(options)
        return lambda function: SimpleNamespace(remote=function)

    @staticmethod
    def get(value: Any) -> Any:
        return value


@pytest.mark.parametrize(
    ("cluster", "have", "said"),
    [
        (
            {"gpus_per_worker": 1},
            0,
            r"need 1 GPUs, the cluster has 0: set cluster\.gpus_per_worker and gpus_per_scorer to 0",
        ),
        ({"gpus_per_scorer": 0.5, "scorers": 3}, 1, r"3 scorers x 0\.5 GPUs need 1\.5 GPUs, the cluster has 1: lower"),
        ({"gpus_per_worker": 1, "scorers": 1, "gpus_per_scorer": 0.5}, 1, r"need 1\.5 GPUs, the cluster has 1: lower"),
    ],
)
def test_a_cluster_without_enough_gpus_is_refused(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any], have: float, said: str
) -> None:
    from diet_ray.engine import ray_engine as engine

    monkeypatch.setattr(engine, "ray", Rays(CPU=8, GPU=have))
    with pytest.raises(ResourceError, match=said):
        engine.check_cluster(ClusterConfig(**cluster))


def test_torch_is_asked_where_the_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from diet_ray.engine import ray_engine as engine

    rays = Rays(CPU=8, GPU=2)
    monkeypatch.setattr(engine, "ray", rays)
    monkeypatch.setattr(engine, "gpu_fault", lambda precision: f"no {precision} there")
    with pytest.raises(ResourceError, match="no bfloat16 there"):
        engine.check_cluster(ClusterConfig(gpus_per_worker=1, scorers=1, gpus_per_scorer=0.25, precision="bfloat16"))
    assert rays.asked == [{"num_cpus": 0, "num_gpus": 0.25}]
    monkeypatch.setattr(engine, "gpu_fault", lambda precision: None)
    engine.check_cluster(ClusterConfig(gpus_per_worker=1))
    rays.asked.clear()
    engine.check_cluster(ClusterConfig())
    assert rays.asked == []


@pytest.mark.skipif(gpu_fault("bfloat16") is not None, reason="needs a GPU")
def test_a_gpu_scores_as_the_cpu_does(log: Path, tmp_path: Path) -> None:
    opened, stream = open_log(log), config(log)
    save_tensors(tmp_path / "phi.safetensors", checkpoint_of(opened, stream))
    rows = opened.read_block(opened.blocks[0])
    here, there = (
        Scorer(
            ScoreJob.of(opened, opened.blocks[0], [tmp_path / "phi.safetensors"], stream, keep=10, seed=0),
            device=device,
        ).score(rows)
        for device in (CPU, torch.device("cuda"))
    )
    np.testing.assert_allclose(there.score, here.score, rtol=0, atol=1e-4)
