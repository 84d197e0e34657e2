"""Runs the trials of a sweep or a race: in this process, one after another, or on Ray Tune (`diet_ray.engine.sweep_driver`)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import torch

from diet_ray.errors import ResourceError
from diet_ray.judge.attempt import attempt
from diet_ray.judge.outcomes import Outcomes
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.sweep_plan import Work, planned_works, threads_of
from diet_ray.judge.trial import TrialContext
from diet_ray.training.device import device_of


class Runner(Protocol):
    """Runs the trials of a sweep."""

    def check(self, config: SweepConfig) -> None:
        """Raise ResourceError where the trials of a config can never run. It is called before anything is written."""
        ...

    def run(self, config: SweepConfig, context: TrialContext, seeds: int, outcomes: Outcomes, out: Path) -> list[Work]:
        """Run the trials whose outcome is not kept yet and report them to `outcomes`; returns all work of the sweep, in order."""
        ...

    def run_works(
        self, works: list[Work], config: SweepConfig, context: TrialContext, outcomes: Outcomes, out: Path
    ) -> None:
        """Run those of `works` whose outcome is not kept yet, as `run` does, without a search: a later rung of a race."""
        ...


class InProcess:
    """Runs trials in this process, one after another."""

    def check(self, config: SweepConfig) -> None:
        """See `Runner.check`. A search that uses scores to choose candidates, or to stop them early, needs Ray Tune; a limit of time needs
        the main thread, because it is a signal that ends a trial."""
        for key, value, plain in (
            ("algorithm", config.search.algorithm, "random"),
            ("scheduler", config.search.scheduler, "none"),
        ):
            if value != plain:
                raise ResourceError(
                    f"key 'search.{key}': {value!r} needs Ray Tune; leave out --local, or set it to {plain!r}"
                )
        if config.resources.timeout is not None and threading.current_thread() is not threading.main_thread():
            raise ResourceError(
                "key 'resources.timeout': without Ray it needs the main thread, because a signal ends a trial; leave the key out"
            )
        self._device(config)

    def run(self, config: SweepConfig, context: TrialContext, seeds: int, outcomes: Outcomes, out: Path) -> list[Work]:
        """See `Runner.run`."""
        works = planned_works(config, seeds)
        self.run_works(works, config, context, outcomes, out)
        return works

    def run_works(
        self, works: list[Work], config: SweepConfig, context: TrialContext, outcomes: Outcomes, out: Path
    ) -> None:
        """See `Runner.run_works`."""
        device = self._device(config)
        for work in outcomes.to_run(works):
            key, seconds = outcomes.identity(work), config.resources.timeout
            for result in attempt(work, context, device, key=key, threads=threads_of(config), seconds=seconds):
                if isinstance(result, str):
                    outcomes.fail(work, result)
                else:
                    outcomes.report(work, result)
            outcomes.end(work)

    def _device(self, config: SweepConfig) -> torch.device:
        return device_of(config.resources.gpus, "float32")
