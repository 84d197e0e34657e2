"""The distributed engine against the one without Ray, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.train import RunConfig
from ray.train.torch import TorchTrainer

from diet_ray.config import ReferenceConfig, StreamConfig, TableConfig
from diet_ray.engine.driver import distil_in_driver
from diet_ray.engine.owners import OwnedShards
from diet_ray.engine.ray_engine import check_cluster
from diet_ray.engine.train import Trainer, distil
from diet_ray.errors import BrokenOffError, ConfigError, CorruptArtefactError, ResourceError
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.units import Units
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import write_log

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=3, n=400)


@pytest.fixture(scope="module")
def local(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return local_run(tmp_path_factory.mktemp("local") / "run", config(log, memory_shards=2))


@pytest.fixture(scope="module")
def two_workers(ray_cluster: int, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("two") / "run"
    stages = distil(run, config(log, workers=2, memory_shards=1))
    assert [stage.block for stage in stages] == ["block-000", "block-001"]
    return run


def test_one_worker_gives_the_bytes_of_the_local_engine(
    ray_cluster: int, log: Path, local: Path, tmp_path: Path
) -> None:
    stream = config(log, memory_shards=3, scorers=2)
    distil(tmp_path / "ray", stream)
    assert stage_bytes(tmp_path / "ray") == stage_bytes(local_run(tmp_path / "local", stream))
    assert not (tmp_path / "ray" / "ray").exists()
    three, two = load_memory(tmp_path / "ray"), load_memory(local)
    assert [len(three.stage.memory), len(two.stage.memory)] == [3, 2]
    for part in fields(Units):  # the layout of the memory matters to nothing but rounding
        mine, its = getattr(three.units, part.name), getattr(two.units, part.name)
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-5 if mine.dtype.kind == "f" else 0, err_msg=part.name)
    assert three.stage.refine is not None
    assert len(three) == 40
    assert bool((three.units.delta != 0).any())  # refinement took place, or equality says little


def test_a_driver_that_is_the_only_worker_gives_the_bytes_of_the_local_engine(
    ray_cluster: int, log: Path, tmp_path: Path
) -> None:
    stream = config(log, memory_shards=3, scorers=1)
    stages = distil_in_driver(tmp_path / "ray", stream)
    assert [stage.block for stage in stages] == ["block-000", "block-001"]
    assert stage_bytes(tmp_path / "ray") == stage_bytes(local_run(tmp_path / "local", stream))
    resumed = distil_in_driver(tmp_path / "ray", stream, resume=True)
    assert resumed == stages


def test_a_driver_whose_memory_dies_says_that_the_run_can_go_on(
    ray_cluster: int, log: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, begun = config(log, memory_shards=2), []

    class Dies(OwnedShards):
        """Its first owner dies before the second stage ends."""

        def call(self, method: str, *arguments: Any, each: list[tuple[Any, ...]] | None = None) -> list[Any]:
            begun.extend([method] if method == "write" else [])
            if len(begun) == 2:
                ray.kill(self.owners[0])
            return super().call(method, *arguments, each=each)

    monkeypatch.setattr("diet_ray.engine.driver.OwnedShards", Dies)
    with pytest.raises(BrokenOffError, match=r"a process of the run has died .* go on with --resume"):
        distil_in_driver(tmp_path / "run", stream)
    monkeypatch.undo()
    distil_in_driver(tmp_path / "run", stream, resume=True)
    assert stage_bytes(tmp_path / "run") == stage_bytes(local)


def test_two_actors_of_ray_train_are_not_started(tmp_path: Path) -> None:
    """Ray Train still names them so, or they would start unnoticed."""

    def made(kind: type[TorchTrainer]) -> list[str]:
        trainer = kind(print, run_config=RunConfig(name="run", storage_path=str(tmp_path)))
        return [type(callback).__name__ for callback in trainer._create_default_callbacks()]

    dropped = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    assert [name for name in made(TorchTrainer) if name not in dropped] == made(Trainer)
    assert dropped < {*made(TorchTrainer)}


def test_two_workers_give_what_one_gives(two_workers: Path, local: Path) -> None:
    two, one = load_memory(two_workers), load_memory(local)
    assert np.array_equal(two.units.unit_id, one.units.unit_id)
    assert np.array_equal(two.units.ids, one.units.ids)
    np.testing.assert_allclose(two.units.delta, one.units.delta, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.units.logit, one.units.logit, rtol=0, atol=1e-5)
    torch.testing.assert_close(two.table, one.table, rtol=0, atol=1e-5)
    assert two.stage.reference_logloss == pytest.approx(one.stage.reference_logloss, abs=1e-5)


def test_two_workers_with_shards_of_the_table_give_the_bytes_of_whole_tables(
    log: Path, two_workers: Path, tmp_path: Path
) -> None:
    """Two stages, between which the worker group ends: the second reads its shards from the files of the first."""
    stream, run = config(log, workers=2, memory_shards=1), tmp_path / "run"
    sharded = stream.model_copy(update={"reference": with_table(stream, shards="auto")})
    distil(run, sharded.model_copy(update={"blocks": 1}))
    raw = json.loads((run / "run.json").read_text())  # it was begun to one block
    raw["config"]["blocks"] = None
    (run / "run.json").write_text(json.dumps(raw))
    on_disk = stream.model_copy(update={"reference": with_table(stream, shards=2, on="mmap")})
    distil(run, on_disk, resume=True)

    def tensors(of: Path) -> dict[str, str]:  # a manifest names the key, and its successor's its checksum
        return {name: value for name, value in stage_bytes(of).items() if not name.endswith("manifest.json")}

    assert tensors(run) == tensors(two_workers)


def with_table(stream: StreamConfig, **table: Any) -> ReferenceConfig:
    return stream.reference.model_copy(update={"table": TableConfig.model_validate(table)})


@contextmanager
def truncated(log: Path, block: str) -> Iterator[Path]:
    """The last shard of a block, cut in half for the length of the body."""
    shard = log / "blocks" / block / "shard-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    try:
        yield shard
    finally:
        shard.write_bytes(whole)


def test_a_run_of_two_workers_stops_at_a_truncated_shard_and_resumes_to_the_same_bytes(
    log: Path, two_workers: Path, tmp_path: Path
) -> None:
    run, stream = tmp_path / "run", config(log, workers=2, memory_shards=1)
    with truncated(log, "block-001") as shard, pytest.raises(CorruptArtefactError) as caught:
        distil(run, stream)
    assert str(caught.value).startswith(f"{shard}: not the file that the manifest names")
    # The stage before is whole and the same as in the other run; of the broken one nothing can be seen.
    assert sorted(path.name for path in (run / "stages").glob("[!.]*")) == ["0000"]
    expected = stage_bytes(two_workers)
    begun = stage_bytes(run)
    assert {name: begun[name] for name in begun if name.startswith("0000")} == {
        name: expected[name] for name in expected if name.startswith("0000")
    }

    with pytest.raises(ConfigError, match="--resume"):
        distil(run, stream)
    with pytest.raises(ConfigError, match="key 'seed' differs"):
        distil(run, stream.model_copy(update={"seed": 4}), resume=True)
    assert len(distil(run, stream, resume=True)) == 2
    assert stage_bytes(run) == expected
    (run / "ray" / "train-0").mkdir(parents=True)  # by a driver that was killed behind its last commit
    assert len(distil(run, stream, resume=True)) == 2  # nothing is left to do
    assert not (run / "ray").exists()


def test_one_worker_names_a_truncated_shard(ray_cluster: int, log: Path, tmp_path: Path) -> None:
    with truncated(log, "block-000") as shard, pytest.raises(CorruptArtefactError) as caught:
        distil(tmp_path / "run", config(log, memory_shards=1))
    assert str(caught.value).startswith(f"{shard}: not the file that the manifest names")
    assert list((tmp_path / "run" / "stages").glob("[!.]*")) == []
    assert not (tmp_path / "run" / "ray").exists()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"workers": 5, "cpus_per_worker": 1}, "need 5 CPUs, the cluster has 4"),
        ({"workers": 3, "cpus_per_worker": 1, "scorers": 3, "cpus_per_scorer": 0.5}, "need 4.5 CPUs"),
        ({"gpus_per_worker": 1}, "need 1 GPUs, the cluster has 0"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused_at_once(
    ray_cluster: int, log: Path, tmp_path: Path, cluster: dict[str, float], said: str
) -> None:
    with pytest.raises(ResourceError, match=said):
        distil(tmp_path / "run", config(log, **cluster))
    assert not (tmp_path / "run").exists()


def test_a_net_that_does_not_fit_the_log_is_refused_before_the_cluster_is_asked(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.engine.train.check_cluster", lambda cluster: pytest.fail("asked"))
    stream = config(log)
    stream.refine.proxies[0].drop_fields.append("usr")
    with pytest.raises(ConfigError, match=r"key 'refine\.proxies': candidate 'dnn', key 'drop_fields': .*'usr'"):
        distil(tmp_path / "run", stream)
    assert not (tmp_path / "run").exists()


def test_all_of_the_cluster_may_be_used(ray_cluster: int, log: Path) -> None:
    check_cluster(config(log, workers=3, cpus_per_worker=1, scorers=2, cpus_per_scorer=0.5).cluster)
