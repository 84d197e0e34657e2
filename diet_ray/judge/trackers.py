"""Sends the figures of a sweep to trackers of experiments: TensorBoard, MLflow and Weights & Biases.

A tracker has a copy of the figures, never the only record. A tracker that fails during a sweep is not used any more; the sweep continues,
and its result names the tracker. A tracker that cannot be reached at the start is an error, because the user is still there to read it.
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

from diet_ray.errors import ConfigError, ResourceError, install_extra
from diet_ray.settings import Settings

KNOCK_SECONDS = 5.0
"""How long a tracking server may take to accept a connection."""


class MLflowConfig(Settings):
    """A tracking server of MLflow."""

    uri: str
    """Where it is, such as `http://mlflow:5000`."""
    experiment: str = "diet-ray"
    """Name of the experiment. It is created where it does not exist."""


class WandbConfig(Settings):
    """Weights & Biases. It finds its key itself (`wandb login` or WANDB_API_KEY)."""

    project: str
    """Name of the project."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the folder `wandb` of the sweep, for `wandb sync` later."""


class TrackersConfig(Settings):
    """The trackers that get the figures of each trial. The sweep's own files are always written."""

    tensorboard: Path | None = None
    """Folder for TensorBoard's event files, one folder in it per trial."""
    mlflow: MLflowConfig | None = None
    """Needs the extra `mlflow`."""
    wandb: WandbConfig | None = None
    """Needs the extra `wandb`."""


class Tracker(Protocol):
    """Gets the figures of trials, each under the trial's name."""

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Record that a trial begins."""
        ...

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """Record the figures of a trial, all finite, after `step` steps."""
        ...

    def end(self, trial: str, status: str) -> None:
        """Record the end of a trial, which is `finished`, `stopped` or `failed`."""
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
        """Write the figures as scalars."""
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
        # By default the client retries for minutes, which would delay the sweep.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=config.uri)
        existing = self.client.get_experiment_by_name(config.experiment)
        self.experiment = existing.experiment_id if existing else self.client.create_experiment(config.experiment)
        self._runs: dict[str, str] = {}

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Create the run."""
        from mlflow.entities import Param

        self._runs[trial] = self.client.create_run(self.experiment, run_name=trial).info.run_id
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
        self.client.log_batch(self._runs[trial], params=[Param(name, text[:6000]) for name, text in texts.items()])

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        """Send the figures in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self._runs[trial], metrics=batch)

    def end(self, trial: str, status: str) -> None:
        """End the run; one that the scheduler stopped is `KILLED`, as MLflow calls it."""
        statuses = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
        self.client.set_terminated(self._runs.pop(trial), status=statuses[status])


class Wandb:
    """One run per trial in a project."""

    def __init__(self, config: WandbConfig, folder: Path, group: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.wandb, self.config, self.folder, self.group = wandb, config, folder, group
        if config.mode == "online" and not wandb.api.api_key:
            raise ResourceError("no key; run `wandb login`, set WANDB_API_KEY, or set mode: offline")
        folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, Any] = {}

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        """Open the run. Several runs can be open at once."""
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
        """Send the figures."""
        self._runs[trial].log(metrics, step=step)

    def end(self, trial: str, status: str) -> None:
        """End the run; a failed one has the exit code 1."""
        run = self._runs.pop(trial)
        run.summary["status"] = status
        run.finish(exit_code=int(status == "failed"))


class Trackers:
    """All trackers of a sweep at once."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self.trackers = trackers
        self.lost: dict[str, str] = {}
        """Trackers that failed during the sweep, and why."""
        self._open: set[str] = set()

    def log(self, trial: str, params: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        """Send a report to all trackers. The first report of a trial begins it. Figures that are not finite are left out."""
        if trial not in self._open:
            self._open.add(trial)
            self._tell(lambda tracker: tracker.begin(trial, params))
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            self._tell(lambda tracker: tracker.log(trial, step, finite))

    def end(self, trial: str, params: dict[str, Any], status: str) -> None:
        """Send the end of a trial to all trackers."""
        if trial not in self._open:
            self.log(trial, params, 0, {})
        self._open.discard(trial)
        self._tell(lambda tracker: tracker.end(trial, status))

    def end_open(self, trial: str, status: str) -> None:
        """Send the end of a trial that has begun and not ended; others are left alone."""
        if trial in self._open:
            self.end(trial, {}, status)

    def close(self) -> None:
        """End the trials that are still open because the sweep was interrupted."""
        for trial in sorted(self._open):
            self.end(trial, {}, "failed")

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # an error of another program, of any kind, must not end the sweep
                self.lost[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                del self.trackers[name]


def open_trackers(config: TrackersConfig, out: Path) -> Trackers:
    """Connect to the trackers of a sweep into `out`.

    Raises:
        ResourceError: an extra is missing, a server does not answer, or a key is missing; the message names the tracker.
        ConfigError: TensorBoard's folder cannot be made.
    """
    trackers: dict[str, Tracker] = {}
    if config.tensorboard is not None:
        try:
            trackers["tensorboard"] = TensorBoard(config.tensorboard)
        except OSError as error:
            raise ConfigError(f"key 'trackers.tensorboard': the folder cannot be made ({error})") from error
    mlflow, wandb = config.mlflow, config.wandb
    if mlflow is not None:
        trackers["mlflow"] = _reach("mlflow", mlflow.uri, lambda: MLflow(mlflow))
    if wandb is not None:
        trackers["wandb"] = _reach("wandb", f"project {wandb.project!r}", lambda: Wandb(wandb, out / "wandb", out.name))
    return Trackers(trackers)


def _reach(name: str, where: str, make: Callable[[], Tracker]) -> Tracker:
    key = f"key 'trackers.{name}'"
    try:
        return make()
    except ImportError as error:
        raise ResourceError(f"{key}: {error}; {install_extra(name)}") from error
    except ResourceError as error:
        raise ResourceError(f"{key}: {error}") from error
    except Exception as error:  # sockets, HTTP and the tracker's own errors
        raise ResourceError(f"{key}: {where} does not answer as it should ({error}); fix it or leave it out") from error
