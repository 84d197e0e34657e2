"""The missing work of a bench, its parts, and the functions that do one part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from diet_ray.config import CheckpointsConfig, StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.plan import Bench, Training, TrainingSet
from diet_ray.judge.fidelity.reduced_sets import select_rows
from diet_ray.mapper import Mapper
from diet_ray.memory.layout import holds_run, stage_folder
from diet_ray.training.device import torch_threads

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of work, the number done, and the total."""


def runs_of(bench: Bench, todo: list[Training]) -> list[tuple[Path, StreamConfig]]:
    """The distillations that some trainings need and that are not done yet, the refined ones first, because they take longest."""
    streams = [bench.distillation(training.set) for training in todo if bench.needs_run(training.set)]
    runs = {bench.keys.run_folder(stream): stream for stream in streams}
    runs = {run: stream for run, stream in runs.items() if not stage_folder(run, bench.blocks - 1).is_dir()}
    return sorted(runs.items(), key=lambda pair: (-pair[1].refine.rounds, pair[1].seed, str(pair[0])))


def selected_of(bench: Bench, todo: list[Training]) -> list[TrainingSet]:
    """The sets of some trainings whose rows are chosen with a reference and are not stored yet; one set for each choice of rows."""
    sets = [training.set for training in todo]
    chosen = [
        training_set
        for training_set in sets
        if training_set.method.selection is not None and training_set.method.selection.needs_reference
    ]
    by_path = {bench.keys.rows_path(training_set): training_set for training_set in chosen}
    return [training_set for path, training_set in by_path.items() if not path.is_file()]


def groups_of(todo: list[Training]) -> list[list[Training]]:
    """Trainings in groups, each done as one piece: one candidate on the full log, or all of another set; the longest first."""
    groups: dict[str, list[Training]] = {}
    for training in todo:
        alone = training.candidate.name if training.set.method.of_full_log else ""
        groups.setdefault(f"{training.set.model_dump_json()} {alone}", []).append(training)
    return sorted(groups.values(), key=lambda group: (not group[0].set.method.of_full_log, -group[0].set.blocks))


def distil_all(runs: list[tuple[Path, StreamConfig]], on_progress: OnProgress, *, each: Mapper) -> None:
    """Do distillations, each described by its run folder and its config."""
    descriptions = [json.dumps({"run": str(run), "stream": stream.model_dump_json()}) for run, stream in runs]
    for done, _ in enumerate(each(distil_run, descriptions), start=1):
        on_progress("distillations", done, len(runs))


def distil_run(description: str) -> bytes:
    """The function for the mapper: do the distillation that the JSON describes by its run folder and its config."""
    work = json.loads(description)
    run = Path(work["run"])
    stream = StreamConfig.model_validate_json(work["stream"])
    # Rows are selected later, with the checkpoints along the pass over each block.
    stream = stream.model_copy(update={"checkpoints": CheckpointsConfig(keep="all")})
    distil_locally(run, stream, resume=holds_run(run))
    return b""


def select_for(description: str, *, config: str, cache: str) -> bytes:
    """The function for the mapper: choose the rows of a `TrainingSet` and write their ids."""
    bench = Bench.open(FidelityConfig.model_validate_json(config), Path(cache))
    with torch_threads(1):
        select_rows(bench, TrainingSet.model_validate_json(description))
    return b""
