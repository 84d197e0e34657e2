"""Where a run is distilled: on Ray, or in this process where Ray would have nothing more to do than this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from diet_ray.engine.workplace import OnCluster
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import write_log


class Joined(Exception):
    """Ray was asked for."""


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not connected, with no cluster in its environment; to connect it raises `Joined`."""

    def join(place: OnCluster) -> None:
        raise Joined

    monkeypatch.setattr(OnCluster, "join", join)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=2, n=200)


def test_one_worker_and_no_cluster_need_no_ray(no_ray: None, log: Path, tmp_path: Path) -> None:
    stream, run = config(log, memory_shards=2), tmp_path / "run"
    with OnCluster() as place:
        with place.telemetry(run, stream) as hear:
            place.distil(run, stream)
        assert hear is None
    assert stage_bytes(run) == stage_bytes(local_run(tmp_path / "local", stream))


@pytest.mark.parametrize(
    ("asked", "cluster"),
    [
        ({"cpus": 2}, {}),
        ({"address": "127.0.0.1:6379"}, {}),
        ({}, {"workers": 2}),
        ({}, {"scorers": 1}),
        ({}, {"max_failures": 1}),
    ],
)
def test_what_asks_for_ray_gets_it(
    asked: dict[str, Any], cluster: dict[str, Any], no_ray: None, log: Path, tmp_path: Path
) -> None:
    stream = config(log, **cluster)
    with OnCluster(**asked) as place:
        with pytest.raises(Joined):
            place.telemetry(tmp_path / "run", stream)
        with pytest.raises(Joined):
            place.distil(tmp_path / "run", stream)
    assert not (tmp_path / "run").exists()


def test_a_cluster_of_the_environment_or_of_this_process_is_asked_for(
    no_ray: None, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with OnCluster() as place, pytest.raises(Joined):
        place.distil(tmp_path / "run", config(log))
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with OnCluster() as place, pytest.raises(Joined):
        place.distil(tmp_path / "run", config(log))


@pytest.mark.parametrize(
    ("asked", "cluster", "where"),
    [
        ({"cpus": 2}, {}, "driver"),
        ({}, {"scorers": 1}, "driver"),
        ({}, {"workers": 2}, "train"),
        ({}, {"max_failures": 1}, "train"),
        ({"cpus": 2}, {"gpus_per_worker": 1}, "train"),
        ({"address": "127.0.0.1:6379"}, {}, "train"),
    ],
)
def test_the_driver_of_a_private_ray_is_its_only_worker(
    asked: dict[str, Any],
    cluster: dict[str, Any],
    where: str,
    no_ray: None,
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OnCluster, "join", lambda place: None)
    monkeypatch.setattr("diet_ray.engine.driver.distil_in_driver", lambda *args, **options: ["driver"])
    monkeypatch.setattr("diet_ray.engine.train.distil", lambda *args, **options: ["train"])
    with OnCluster(**asked) as place:
        assert place.distil(tmp_path / "run", config(log, **cluster)) == [where]
