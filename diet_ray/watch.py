"""What a sweep's driver hears from its trials: kept by content hash, told to trackers and to a progress display."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from diet_ray.candidates import CandidateSpec, architectures, sources
from diet_ray.judge import Verdict
from diet_ray.leaderboard import Failed
from diet_ray.logs.blocks import BlockManifest, Log, block_sha256
from diet_ray.memory.dataset import Memory
from diet_ray.memory.layout import stage_folder
from diet_ray.search import SweepConfig
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.storage.hashes import content_hash, sha256, versions
from diet_ray.trackers import Trackers
from diet_ray.trial import Outcome, Score

RECIPE = 1
"""Raised whenever the same trial would give another outcome, so that older ones are not taken for it."""


class Work(Settings):
    """What a trial is to do."""

    spec: dict[str, Any]
    """The candidate as plain data: only the trial can tell whether what was drawn goes together."""
    seeds: list[int]

    @property
    def name(self) -> str:
        """The candidate's."""
        return str(self.spec["name"])

    @property
    def trial(self) -> str:
        """The trial's name for trackers."""
        return f"{self.name}-seed{self.seeds[0]}" if len(self.seeds) == 1 else self.name


@dataclass(frozen=True)
class Identity:
    """The content hash of a trial's outcome: of all on which it depends and nothing else, so not of the candidate's name."""

    shared: dict[str, Any]
    code: list[str]
    """Checksums of the user's modules."""

    @staticmethod
    def of(path: Path, memory: Memory, log: Log, judged_on: BlockManifest, config: SweepConfig) -> Identity:
        """That of a sweep on the memory at `path`."""
        stage = path if (path / "manifest.json").is_file() else stage_folder(path, memory.stage.index)
        shared = {
            "recipe": RECIPE,
            "versions": versions(),
            "memory": sha256(stage / "manifest.json"),
            "judged_on": block_sha256(log, judged_on),
            "scores": [config.search.guided, config.search.scheduler],
            "threads": threads_of(config),
            "gpu": config.resources.gpus > 0,
        }
        return Identity(shared, [sha256(file) for file in sources(config.modules)])

    def __call__(self, work: Work) -> str:
        """The hash of one trial."""
        own = not architectures()[work.spec["arch"]].__module__.startswith("diet_ray.")
        try:
            params = CandidateSpec.model_validate(work.spec).hyper_parameters().model_dump(mode="json")
        except ValueError:  # it will fail in its trial
            params = work.spec["params"]
        spec = {key: value for key, value in work.spec.items() if key != "name"} | {"params": params}
        body = {**self.shared, "spec": spec, "seeds": work.seeds, "code": self.code if own else []}
        return content_hash(body)[:32]


def threads_of(config: SweepConfig) -> int:
    """torch threads of a trial."""
    return max(1, int(config.resources.cpus))


class Watch(tune.Callback):
    """Hears in the driver what every trial reports: keeps it, tells the trackers and a progress display."""

    def __init__(
        self,
        folder: Path,
        key: Identity,
        trackers: Trackers,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.folder, self.key, self.trackers, self.on_progress = folder, key, trackers, on_progress
        self.outcomes = {path.stem: parse_json(Outcome, path) for path in sorted(folder.glob("*.json"))}
        self.failed: dict[str, Failed] = {}
        self.done, self.total = 0, 0
        self._told = set(self.outcomes)
        self._scores: dict[str, dict[int, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps a pickle of all that it is given, which nobody reads; trackers hold sockets.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Tune calls this in the driver, as it does the others."""
        work, key = self._of(trial)
        if key in self._told:
            return
        if result["failure"]:
            self.failed[key] = Failed(candidate=work.name, seeds=work.seeds, why=result["failure"])
            return
        scores = self._scores.setdefault(key, {})
        verdicts = [Verdict.model_validate(one) for one in json.loads(result["verdicts"])]
        if not math.isnan(result["score"]):
            scores[result["step"]] = result["score"]
        self.trackers.log(work.trial, _params(work), result["step"], {"score": result["score"], **_figures(verdicts)})
        if verdicts:
            self._keep(key, verdicts)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It came to its end, or its scheduler stopped it."""
        work, key = self._of(trial)
        if key not in self.outcomes and key not in self.failed:
            self._keep(key, [])
        status = "failed" if key in self.failed else "finished" if self.outcomes[key].verdicts else "stopped"
        self._end(work, key, status)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process died twice."""
        work, key = self._of(trial)
        lines = str(trial.get_error() or "its process died").strip().splitlines()
        self.failed[key] = Failed(candidate=work.name, seeds=work.seeds, why=lines[-1].strip())
        self._end(work, key, "failed")

    def _of(self, trial: Any) -> tuple[Work, str]:
        work = Work.model_validate(trial.config["work"])
        return work, self.key(work)

    def _keep(self, key: str, verdicts: list[Verdict]) -> None:
        scores = [Score(step=step, score=score) for step, score in sorted(self._scores.get(key, {}).items())]
        self.outcomes[key] = Outcome(scores=scores, verdicts=verdicts)
        write_json(self.folder / f"{key}.json", self.outcomes[key])

    def _end(self, work: Work, key: str, status: str) -> None:
        if key not in self._told:
            self.trackers.end(work.trial, _params(work), status)
        self.done += 1
        if self.on_progress:
            self.on_progress(self.done, self.total)


def _params(work: Work) -> dict[str, Any]:
    """A candidate's settings for a tracker, its hyper-parameters by themselves."""
    spec = {key: value for key, value in work.spec.items() if key not in ("name", "params")}
    return {**spec, **{f"params.{key}": value for key, value in work.spec["params"].items()}, "seeds": work.seeds}


def _figures(verdicts: list[Verdict]) -> dict[str, float]:
    """`{task/metric: mean over seeds}`."""
    if not verdicts:
        return {}
    return {
        f"{task}/{metric}": float(np.mean([one.metrics[task][metric] for one in verdicts]))
        for task, metrics in verdicts[0].metrics.items()
        for metric in metrics
    }
