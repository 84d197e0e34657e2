"""Trackers of experiments against the real ones: TensorBoard's reader, a local MLflow server, W&B's offline files."""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diet_ray.errors import ConfigError, ResourceError
from diet_ray.judge.run_sweep import judge_pool as sweep
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.trackers import MLflowConfig, Trackers, TrackersConfig, open_trackers

SERVER = os.environ.get("DIET_RAY_MLFLOW_SERVER") or str(Path(sysconfig.get_path("scripts")) / "mlflow")
"""The executable `mlflow`; the variable names one of another environment."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server of its own, on this machine alone."""
    if shutil.which(SERVER) is None:
        pytest.skip(f"no MLflow server: {SERVER} is no executable (set DIET_RAY_MLFLOW_SERVER)")
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [SERVER, "server", "--backend-store-uri", f"sqlite:///{home}/runs.db", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(home / "artifacts")]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": ""}
    with (home / "log").open("w") as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said, cwd=home)
    try:
        until = time.monotonic() + 150
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    number = client.get_experiment_by_name(experiment).experiment_id
    return {run.info.run_name: run for run in client.search_runs([number])}


def test_mlflow_gets_params_metrics_by_step_and_ends(mlflow_uri: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    config = TrackersConfig(mlflow=MLflowConfig(uri=mlflow_uri, experiment="by-hand"))
    trackers = open_trackers(config, tmp_path)
    for step, value in ((3, 0.5), (9, 0.625)):
        trackers.log("a", {"arch": "dnn", "params.hidden": [8, 4]}, step, {"score": value, "gauc": math.nan})
    trackers.end("a", {}, "finished")
    trackers.log("b", {}, 3, {"score": 0.25})
    trackers.end("b", {}, "stopped")
    trackers.end("c", {"arch": "fm"}, "failed")  # before its first report
    trackers.log("d", {}, 3, {"score": 0.25})
    trackers.close()
    assert trackers.lost == {}
    runs = runs_of(mlflow_uri, "by-hand")
    assert {name: run.info.status for name, run in runs.items()} == {
        "a": "FINISHED",
        "b": "KILLED",
        "c": "FAILED",
        "d": "FAILED",
    }
    assert runs["a"].data.params == {"arch": "dnn", "params.hidden": "[8, 4]"}
    assert runs["c"].data.params == {"arch": "fm"}
    assert runs["a"].data.metrics == {"score": 0.625}  # what is not finite is left out
    history = MlflowClient(tracking_uri=mlflow_uri).get_metric_history(runs["a"].info.run_id, "score")
    assert [(one.step, one.value) for one in history] == [(3, 0.5), (9, 0.625)]
    # A second sweep adds to the same experiment.
    open_trackers(config, tmp_path).log("e", {}, 1, {"score": 0.5})
    assert set(runs_of(mlflow_uri, "by-hand")) == {"a", "b", "c", "d", "e"}


def test_a_sweep_tells_mlflow_and_tensorboard(mlflow_uri: str, finished: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    raw = {
        "candidates": [
            {"name": "fm", "arch": "fm"},
            {
                "name": "odd",
                "arch": "finalmlp",
                "params": {"second_hidden": {"choice": [[100]]}, "heads": 3},
                "samples": 1,
            },
        ],
        "trackers": {"tensorboard": str(tmp_path / "boards"), "mlflow": {"uri": mlflow_uri, "experiment": "swept"}},
    }
    board = sweep(finished, SweepConfig.model_validate(raw), out=tmp_path / "sweep", seeds=1)
    assert board.untracked == {}
    (verdict,) = board.verdicts
    runs = runs_of(mlflow_uri, "swept")
    assert {name: run.info.status for name, run in runs.items()} == {"fm-seed0": "FINISHED", "odd.000-seed0": "FAILED"}
    expected = {f"label_0/{name}": value for name, value in verdict.metrics["label_0"].items() if math.isfinite(value)}
    assert runs["fm-seed0"].data.metrics == pytest.approx(expected)
    assert runs["fm-seed0"].data.params["arch"] == "fm"
    events = EventAccumulator(str(tmp_path / "boards" / "fm-seed0")).Reload()
    (one,) = events.Scalars("label_0/auc")
    assert (one.step, one.value) == (200, pytest.approx(expected["label_0/auc"]))
    assert (tmp_path / "boards" / "odd.000-seed0").is_dir()
    # What is kept is not told a second time.
    config = SweepConfig.model_validate({**raw, "candidates": raw["candidates"][:1]})
    again = sweep(finished, config, out=tmp_path / "sweep", seeds=1, restore=True)
    assert again.verdicts == board.verdicts
    assert len(runs_of(mlflow_uri, "swept")) == 2


def test_wandb_offline_writes_what_can_be_synced(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    config = TrackersConfig.model_validate({"wandb": {"project": "p", "mode": "offline"}})
    trackers = open_trackers(config, tmp_path)
    trackers.log("a", {"params.hidden": [8]}, 3, {"label_0/auc": 0.71875})
    trackers.log("b", {}, 3, {"score": 0.5})  # beside the first, in the same process
    trackers.log("a", {}, 9, {"label_0/auc": 0.8125})
    trackers.end("a", {}, "finished")
    trackers.end("b", {}, "stopped")
    wandb.teardown()
    assert trackers.lost == {}
    files = [path.read_bytes() for path in sorted((tmp_path / "wandb" / "wandb").glob("offline-run-*/*.wandb"))]
    assert len(files) == 2
    (first,) = [data for data in files if b"label_0/auc" in data]
    assert all(value in first for value in (b"0.71875", b"0.8125", b"params.hidden", b"finished"))
    (second,) = [data for data in files if data is not first]
    assert b"stopped" in second


def test_wandb_online_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ResourceError, match=r"key 'trackers\.wandb': no key; run `wandb login`"):
        open_trackers(TrackersConfig.model_validate({"wandb": {"project": "p"}}), tmp_path)


def test_a_server_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ResourceError, match=rf"key 'trackers\.mlflow': {uri} does not answer as it should .*refused"):
        open_trackers(TrackersConfig(mlflow=MLflowConfig(uri=uri)), tmp_path)
    assert time.monotonic() - began < 10


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        ResourceError, match=r"key 'trackers\.wandb': .*wandb.*; run pip install .* '\.\[wandb\]' in your clone"
    ):
        open_trackers(TrackersConfig.model_validate({"wandb": {"project": "p"}}), tmp_path)


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"key 'trackers\.tensorboard': the folder cannot be made"):
        open_trackers(TrackersConfig(tensorboard=tmp_path / "file" / "boards"), tmp_path)


class Frail:
    """Fails at its second report."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        self.heard.append(f"begin {trial}")

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        if step > 1:
            raise OSError("disk\nfull")
        self.heard.append(f"log {trial} {step} {metrics}")

    def end(self, trial: str, status: str) -> None:
        self.heard.append(f"end {trial} {status}")


class Sound(Frail):
    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        self.heard.append(f"log {trial} {step} {metrics}")


def test_a_tracker_that_fails_is_left_alone_and_the_others_go_on() -> None:
    frail, sound = Frail(), Sound()
    trackers = Trackers({"frail": frail, "sound": sound})
    trackers.log("a", {}, 1, {"x": 1.0, "y": math.inf})
    trackers.log("a", {}, 2, {"x": 2.0})
    trackers.log("a", {}, 3, {"x": math.nan})
    trackers.end("a", {}, "finished")
    assert frail.heard == ["begin a", "log a 1 {'x': 1.0}"]
    assert sound.heard == ["begin a", "log a 1 {'x': 1.0}", "log a 2 {'x': 2.0}", "end a finished"]
    assert trackers.lost == {"frail": "OSError: disk full"}
