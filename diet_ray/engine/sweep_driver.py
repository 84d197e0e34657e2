"""Runs the trials of a sweep or a race on Ray Tune, with Optuna's search or early stopping by ASHA where the config says so."""

from __future__ import annotations

import faulthandler
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from diet_ray.candidates import CandidateFile, import_modules
from diet_ray.engine.deciders import asha, optuna_search
from diet_ray.engine.tune import run_trials
from diet_ray.errors import ResourceError, install_extra, one_line
from diet_ray.judge import run_race
from diet_ray.judge.attempt import attempt, hanging, reason
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.outcomes import Outcomes
from diet_ray.judge.race_rules import Race
from diet_ray.judge.run_sweep import judge_pool
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.suggest import Suggest
from diet_ray.judge.sweep_plan import Work, planned_works, threads_of
from diet_ray.judge.trial import Outcome, Report, TrialContext
from diet_ray.judge.verdict import Verdict
from diet_ray.training.device import device_of


def sweep(memory: str | Path, candidates: CandidateFile | SweepConfig, *, out: Path, **options: Any) -> Leaderboard:
    """`judge_pool`, with its other options, with the trials on the cluster to which this process is connected."""
    return judge_pool(memory, candidates, out=out, runner=OnTune(), **options)


def race(memory: str | Path, candidates: CandidateFile | SweepConfig, *, out: Path, **options: Any) -> Race:
    """`diet_ray.judge.run_race.race`, with its other options, with the trials on the cluster to which this process is connected."""
    return run_race.race(memory, candidates, out=out, runner=OnTune(), **options)


class OnTune:
    """The `Runner` on a cluster: each trial is a trial of Ray Tune."""

    def check(self, config: SweepConfig) -> None:
        """See `Runner.check`."""
        resources, available = config.resources, ray.cluster_resources()
        for key, kind, need in (("cpus", "CPU", resources.cpus), ("gpus", "GPU", resources.gpus)):
            if need > available.get(kind, 0):
                raise ResourceError(
                    f"key 'resources.{key}': a trial asks for {need:g}, the cluster has {available.get(kind, 0):g}; lower it"
                )
        if config.search.algorithm == "optuna":
            try:
                import optuna
            except ImportError as error:
                raise ResourceError(f"key 'search.algorithm': {error}; {install_extra('optuna')}") from error
            optuna.logging.set_verbosity(optuna.logging.WARNING)

    def run(self, config: SweepConfig, context: TrialContext, seeds: int, outcomes: Outcomes, out: Path) -> list[Work]:
        """See `Runner.run`."""
        search = config.search
        works, scheduler = planned_works(config, seeds), asha(context.student) if search.scheduler == "asha" else None
        if search.algorithm == "optuna":
            suggest = Suggest(config.candidates, search.seed, seeds, out / "suggested.json")
            outcomes.total = len(suggest.order)
            searcher = optuna_search(suggest, search.seed)
            self._tune({}, config, context, outcomes, out, scheduler=scheduler, searcher=searcher)
            return [Work.model_validate(work) for work in suggest.works]
        if scheduler:
            # Kept outcomes are reported to ASHA again, because it compares the other trials with them.
            outcomes.total = len(works)
            self._tune(_grid(works), config, context, outcomes, out, scheduler=scheduler)
        else:
            self.run_works(works, config, context, outcomes, out)
        return works

    def run_works(
        self, works: list[Work], config: SweepConfig, context: TrialContext, outcomes: Outcomes, out: Path
    ) -> None:
        """See `Runner.run_works`."""
        todo = outcomes.to_run(works)
        if todo:
            self._tune(_grid(todo), config, context, outcomes, out)

    def _tune(
        self,
        grid: dict[str, list[Any]],
        config: SweepConfig,
        context: TrialContext,
        outcomes: Outcomes,
        out: Path,
        *,
        scheduler: Any = None,
        searcher: Any = None,
    ) -> None:
        """Run the trials of a grid, or those that a searcher suggests."""
        search, resources = config.search, config.resources
        trainable = partial(
            _trial,
            modules=config.modules,
            folder=str(Path.cwd()),
            threads=threads_of(config),
            gpu=resources.gpus > 0,
            seconds=resources.timeout,
        )
        kept = outcomes.kept if scheduler or searcher else {}
        run_trials(
            tune.with_parameters(trainable, shared=[ray.put((context, kept, outcomes.identity))]),
            grid,
            name="sweep",
            storage=out / "tune",
            cpus=resources.cpus,
            gpus=resources.gpus,
            callback=Listener(outcomes, resources.timeout),
            scheduler=scheduler,
            searcher=searcher,
            samples=outcomes.total if searcher else 1,
            concurrent=search.concurrent,
            tolerant=True,
        )


class Listener(tune.Callback):
    """Gets the reports of all trials in the driver, and passes them to the sweep's outcomes."""

    def __init__(self, outcomes: Outcomes, seconds: float | None = None) -> None:
        """Report to `outcomes`; `seconds` is the limit of time of a trial."""
        self.outcomes, self.seconds = outcomes, seconds
        self._began: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and nobody reads the pickle; trackers have sockets, which cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune calls this method in the driver, and also the next ones."""
        self._began[trial.trial_id] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """The trial has reported."""
        if result["failure"]:
            self.outcomes.fail(_work(trial), result["failure"])
            return
        verdicts = [Verdict.model_validate(verdict) for verdict in json.loads(result["verdicts"])]
        self.outcomes.report(_work(trial), Report(result["step"], result["score"], verdicts))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial finished, or its scheduler stopped it."""
        self.outcomes.end(_work(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial's process died twice."""
        lines = str(trial.get_error() or "its process died").strip().splitlines()
        why = one_line(Exception(lines[-1]))
        if self.seconds is not None and time.monotonic() - self._began.get(trial.trial_id, math.inf) >= self.seconds:
            why = hanging(self.seconds)
        self.outcomes.fail(_work(trial), why)
        self.outcomes.end(_work(trial))


def _grid(works: list[Work]) -> dict[str, list[Any]]:
    return {"work": [work.model_dump() for work in works]}


def _work(trial: Any) -> Work:
    return Work.model_validate(trial.config["work"])


def _trial(
    trial: dict[str, Any],
    *,
    shared: list[Any],
    modules: list[str],
    folder: str,
    threads: int,
    gpu: bool,
    seconds: float | None,
) -> None:
    work = Work.model_validate(trial["work"])
    # Reported here, not in the generator: Tune ends a trial by an exception in `report`, which is no fault of the candidate.
    for result in _results(work, shared, modules, Path(folder), threads, gpu, seconds):
        if isinstance(result, str):
            tune.report({"step": 0, "score": 0.0, "verdicts": "[]", "failure": result})
        else:
            verdicts = json.dumps([verdict.model_dump(mode="json") for verdict in result.verdicts])
            tune.report({"step": result.step, "score": result.score, "verdicts": verdicts, "failure": ""})


def _results(
    work: Work, shared: list[Any], modules: list[str], folder: Path, threads: int, gpu: bool, seconds: float | None
) -> Iterator[Report | str]:
    """The reports of a trial, and where it fails why."""
    try:
        import_modules(modules, folder)
        context, outcomes, identity = ray.get(shared[0])
        key, device = identity(work), device_of(float(gpu), "float32")
    except Exception as error:  # the user's modules may raise anything; the other candidates continue
        yield reason(error)
        return
    outcome: Outcome | None = outcomes.get(key)
    if outcome:  # reported again to the scheduler or searcher that decides by scores
        yield from (Report(score.step, score.score, []) for score in outcome.scores)
        return
    yield from attempt(work, context, device, key=key, threads=threads, seconds=seconds, limit=_killed)


@contextmanager
def _killed(seconds: float) -> Iterator[None]:
    """End this process if the body takes so long. A thread in C does it, so that nothing in the body can hold it up; it writes to the log
    of the worker where the body was."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
