"""Telling trackers of experiments what a sweep finds: TensorBoard, MLflow and Weights & Biases.

A tracker is a mirror, never the record: where one fails while a sweep runs it is left alone from then on, the sweep goes on, and its result
says so. One that cannot be reached at the beginning is an error, because then there is still somebody there to read it.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from diet_ray.errors import ConfigError, ResourceError
from diet_ray.settings import Settings

KNOCK_SECONDS = 5.0
"""How long a tracking server may take to accept a connection."""


class MLflowConfig(Settings):
    """A tracking server of MLflow."""

    uri: str
    """Where it is, such as `http://mlflow:5000`."""
    experiment: str = "diet-ray"
    """Name of the experiment, which is made where there is none."""


class WandbConfig(Settings):
    """Weights & Biases; the key is its own affair (`wandb login` or WANDB_API_KEY)."""

    project: str
    """Name of the project."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the folder `wandb` of the sweep, for `wandb sync` later."""


class TrackersConfig(Settings):
    """The trackers that are told of each trial; the sweep's own files are written in any case."""

    tensorboard: Path | None = None
    """Folder for TensorBoard's event files, one folder in it per trial."""
    mlflow: MLflowConfig | None = None
    """Needs the extra `mlflow`."""
    wandb: WandbConfig | None = None
    """Needs the extra `wandb`."""


class Tracker(Protocol):
    """Where trials are told of, each by its name."""

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """A trial begins."""
        ...

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """It has reached these figures, all finite, after so many steps."""
        ...

    def end(self, trial: str, status: str) -> None:
        """It is `finished`, `stopped` or `failed`."""
        ...


class TensorBoard:
    """Event files, written by tensorboardX, which comes with Ray Tune."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Open the trial's folder."""
        from tensorboardX import SummaryWriter

        self._writers[trial] = SummaryWriter(str(self.folder / trial))
        self._writers[trial].add_text("params", json.dumps(params, sort_keys=True))

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """Scalars."""
        for name, value in metrics.items():
            self._writers[trial].add_scalar(name, value, step)
        self._writers[trial].flush()

    def end(self, trial: str, status: str) -> None:
        """Close the file."""
        self._writers[trial].add_text("status", status)
        self._writers.pop(trial).close()


class MLflow:
    """One run per trial on a tracking server."""

    def __init__(self, config: MLflowConfig) -> None:
        place = urlsplit(config.uri)
        if place.scheme in ("http", "https"):
            port = place.port or (443 if place.scheme == "https" else 80)
            socket.create_connection((place.hostname or "", port), timeout=KNOCK_SECONDS).close()
        # The client's own habit is to try for minutes, which would hold up the sweep.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=config.uri)
        there = self.client.get_experiment_by_name(config.experiment)
        self.experiment = there.experiment_id if there else self.client.create_experiment(config.experiment)
        self._runs: dict[str, str] = {}

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Create the run."""
        from mlflow.entities import Param

        self._runs[trial] = self.client.create_run(self.experiment, run_name=trial).info.run_id
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
        self.client.log_batch(self._runs[trial], params=[Param(name, text[:6000]) for name, text in texts.items()])

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """Metrics, in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self._runs[trial], metrics=batch)

    def end(self, trial: str, status: str) -> None:
        """End the run; one that the scheduler stopped is `KILLED`, as MLflow calls it."""
        of = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
        self.client.set_terminated(self._runs.pop(trial), status=of[status])


class Wandb:
    """One run per trial in a project."""

    def __init__(self, config: WandbConfig, folder: Path, group: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.wandb, self.config, self.folder, self.group = wandb, config, folder, group
        if config.mode == "online" and not wandb.api.api_key:
            raise ResourceError("no key; run `wandb login`, set WANDB_API_KEY, or say mode: offline")
        folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, Any] = {}

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Open the run, beside others."""
        self._runs[trial] = self.wandb.init(
            project=self.config.project,
            name=trial,
            group=self.group,
            mode=self.config.mode,
            dir=str(self.folder),
            config=params,
            reinit="create_new",
            settings=self.wandb.Settings(silent=True, console="off", disable_git=True),
        )

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """Metrics."""
        self._runs[trial].log(metrics, step=step)

    def end(self, trial: str, status: str) -> None:
        """End the run; only what failed ends with a code that says so."""
        run = self._runs.pop(trial)
        run.summary["status"] = status
        run.finish(exit_code=int(status == "failed"))


class Trackers:
    """All trackers of a sweep at once."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self.trackers = trackers
        self.lost: dict[str, str] = {}
        """Trackers that failed on the way, and why."""
        self._open: set[str] = set()

    def log(self, trial: str, params: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        """Tell of a report; the trial begins with its first. Figures that are not finite are left out."""
        if trial not in self._open:
            self._open.add(trial)
            self._tell(lambda tracker: tracker.begin(trial, params))
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            self._tell(lambda tracker: tracker.log(trial, step, finite))

    def end(self, trial: str, params: dict[str, Any], status: str) -> None:
        """Tell of a trial's end."""
        if trial not in self._open:
            self.log(trial, params, 0, {})
        self._open.discard(trial)
        self._tell(lambda tracker: tracker.end(trial, status))

    def close(self) -> None:
        """End what is still open, because the sweep was interrupted."""
        for trial in sorted(self._open):
            self.end(trial, {}, "failed")

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                what(tracker)
            except Exception as error:  # another program's trouble, of whatever kind, must not end the sweep
                self.lost[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                del self.trackers[name]


def open_trackers(config: TrackersConfig, out: Path) -> Trackers:
    """The trackers of a sweep into `out`, reached for already.

    Raises:
        ResourceError: an extra is missing, a server does not answer, or a key is missing; the message names the tracker.
        ConfigError: TensorBoard's folder cannot be made.
    """
    found: dict[str, Tracker] = {}
    if config.tensorboard is not None:
        try:
            found["tensorboard"] = TensorBoard(config.tensorboard)
        except OSError as error:
            raise ConfigError(f"key 'trackers.tensorboard': the folder cannot be made ({error})") from error
    mlflow, wandb = config.mlflow, config.wandb
    if mlflow is not None:
        found["mlflow"] = _reach("mlflow", mlflow.uri, lambda: MLflow(mlflow))
    if wandb is not None:
        found["wandb"] = _reach("wandb", f"project {wandb.project!r}", lambda: Wandb(wandb, out / "wandb", out.name))
    return Trackers(found)


def _reach(name: str, where: str, make: Callable[[], Tracker]) -> Tracker:
    key = f"key 'trackers.{name}'"
    try:
        return make()
    except ImportError as error:
        raise ResourceError(f"{key}: {error}; pip install 'diet_ray[{name}]'") from error
    except ResourceError as error:
        raise ResourceError(f"{key}: {error}") from error
    except Exception as error:  # sockets, HTTP and the tracker's own errors
        raise ResourceError(
            f"{key}: {where} does not answer as it should ({error}); mend it or leave it out"
        ) from error
