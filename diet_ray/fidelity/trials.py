"""The bench's work on a Ray cluster: distillations and selections as Ray Data tasks, trainings as Ray Tune trials.

All that a trial finds it writes into the cache at once, file by file, so that a killed bench has lost only what was under way. The cache
must lie where every node sees it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from diet_ray.config import StreamConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.errors import DietError, describe, restore
from diet_ray.fan_out import fan_out
from diet_ray.fidelity.config import DRAWN, SELECTIONS, FidelityConfig
from diet_ray.fidelity.plan import Bench, Training, TrainingSet
from diet_ray.fidelity.reduced import select_rows
from diet_ray.fidelity.training import train_set
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.run_folder import open_run
from diet_ray.storage.lock import locked
from diet_ray.tuning import run_trials

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total."""


def do_all(bench: Bench, scratch: Path, on_progress: OnProgress) -> None:
    """Do whatever is not in the cache yet.

    Args:
        bench: what there is to do.
        scratch: folder for Ray's own records, removed at the end.
        on_progress: see `OnProgress`.

    Raises:
        DietError: the log, the config, a given file or something in the cache is at fault.
        KeyboardInterrupt: Ctrl-C came before all was done; what is done is kept.
    """
    bench.cache.mkdir(parents=True, exist_ok=True)
    todo = [training for training in bench.trainings() if not bench.verdict_path(training).is_file()]
    runs, chosen = runs_of(bench, todo), selected_of(bench, todo)
    distilled = fan_out(_distil, [json.dumps({"run": str(run), "stream": one.model_dump_json()}) for run, one in runs])
    for done, _ in enumerate(distilled, start=1):
        on_progress("distillations", done, len(runs))
    selected = fan_out(
        _select,
        [one.model_dump_json() for one in chosen],
        config=bench.config.model_dump_json(),
        cache=str(bench.cache),
    )
    for done, _ in enumerate(selected, start=1):
        on_progress("selections", done, len(chosen))
    _train(bench, todo, scratch, on_progress)


def runs_of(bench: Bench, todo: list[Training]) -> list[tuple[Path, StreamConfig]]:
    """The distillations behind some trainings that are not done yet, the refined ones first, because they take longest."""
    streams = [bench.distillation(training.set) for training in todo if bench.needs_run(training.set)]
    runs = {bench.run_folder(stream): stream for stream in streams}
    runs = {run: stream for run, stream in runs.items() if not stage_folder(run, bench.blocks - 1).is_dir()}
    return sorted(runs.items(), key=lambda pair: (-pair[1].refine.rounds, pair[1].seed, str(pair[0])))


def selected_of(bench: Bench, todo: list[Training]) -> list[TrainingSet]:
    """The sets of some trainings whose rows are chosen with a reference and are not kept yet, one for each choice of rows."""
    sets = [training.set for training in todo]
    chosen = [one for one in sets if one.method.rows in SELECTIONS and one.method.rows not in DRAWN]
    return [one for path, one in {bench.rows_path(one): one for one in chosen}.items() if not path.is_file()]


def trials(todo: list[Training]) -> list[list[Training]]:
    """Trainings shared out to trials: one candidate to a trial on the full log, all of a set to a trial elsewhere, the longest first."""
    groups: dict[str, list[Training]] = {}
    for training in todo:
        alone = training.candidate.name if training.set.method.rows == "full" else ""
        groups.setdefault(f"{training.set.model_dump_json()} {alone}", []).append(training)
    return sorted(groups.values(), key=lambda group: (group[0].set.method.rows != "full", -group[0].set.blocks))


def _train(bench: Bench, todo: list[Training], scratch: Path, on_progress: OnProgress) -> None:
    if not todo:
        return
    groups = trials(todo)
    trainable = partial(_trial, config=bench.config.model_dump_json(), cache=str(bench.cache.resolve()))
    try:
        found = run_trials(
            tune.with_parameters(trainable, groups=[[one.model_dump_json() for one in group] for group in groups]),
            # The trials are named by their place in `groups`, so that Tune keeps no long parameters.
            {"group": list(range(len(groups)))},
            name="fidelity",
            storage=scratch,
            cpus=bench.config.cpus_per_trial,
            callback=_Counter([len(group) for group in groups], on_progress),
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for metrics in found:
        if metrics.get("failure"):
            raise restore(metrics["failure"])


class _Counter(tune.Callback):
    """Counts finished trainings for a progress display."""

    def __init__(self, sizes: list[int], on_progress: OnProgress) -> None:
        self.sizes, self.on_progress, self.done = sizes, on_progress, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune calls this in the driver."""
        self.done += self.sizes[trial.config["group"]]
        self.on_progress("trainings", self.done, sum(self.sizes))


def _trial(trial: dict[str, Any], *, config: str, cache: str, groups: list[list[str]]) -> None:
    torch.set_num_threads(1)
    try:
        bench = Bench.open(FidelityConfig.model_validate_json(config), Path(cache))
        trainings = [Training.model_validate_json(text) for text in groups[trial["group"]]]
        done = sum(1 for _ in train_set(bench, trainings))
        tune.report({"done": done, "failure": None})
    except DietError as error:
        # As an exception it would come back as a traceback in a string.
        tune.report({"done": 0, "failure": describe(error)})


def _distil(description: str) -> bytes:
    work = json.loads(description)
    distil_here(Path(work["run"]), StreamConfig.model_validate_json(work["stream"]))
    return b""


def distil_here(run: Path, stream: StreamConfig) -> None:
    """A distillation in this process, from where it was left; with one worker the distributed engine gives the same bytes."""
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):  # two benches may share a cache
        committed = open_run(run, stream, resume=(run / "run.json").is_file())
        run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)


def _select(description: str, *, config: str, cache: str) -> bytes:
    torch.set_num_threads(1)
    bench = Bench.open(FidelityConfig.model_validate_json(config), Path(cache))
    select_rows(bench, TrainingSet.model_validate_json(description))
    return b""
