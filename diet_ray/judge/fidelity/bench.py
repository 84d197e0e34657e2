"""`diet-ray fidelity`: does the missing work of the bench, then writes its result.

Every partial result is written to the cache at once, one file each, so that a killed bench loses only the work in progress. On a cluster
every node must see the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diet_ray.judge.fidelity.assemble import assemble, costs
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.plan import Bench, Training
from diet_ray.judge.fidelity.result import CostResult, FidelityResult
from diet_ray.judge.fidelity.verdicts import train_set
from diet_ray.judge.fidelity.work import OnProgress, distil_all, groups_of, runs_of, select_for, selected_of
from diet_ray.mapper import Mapper, in_turn
from diet_ray.settings import write_json
from diet_ray.training.device import torch_threads

Train = Callable[[Bench, list[list[Training]], OnProgress], None]
"""Does groups of trainings, each group of one set, and counts them for a progress display."""


def train_here(bench: Bench, groups: list[list[Training]], on_progress: OnProgress) -> None:
    """Do the trainings in this process, one after another."""
    done, total = 0, sum(len(group) for group in groups)
    with torch_threads(1):
        for group in groups:
            for _ in train_set(bench, group):
                done += 1
                on_progress("trainings", done, total)


def measure_fidelity(
    config: FidelityConfig,
    out: Path,
    on_progress: OnProgress,
    *,
    each: Mapper = in_turn,
    train: Train = train_here,
) -> tuple[FidelityResult, CostResult]:
    """Train every candidate on the full log and on each reduced set, and measure how well the sets stand for the log.

    Work whose result is in the cache is not done again, so a killed bench continues when it is run again. Writes `fidelity.json` and
    `cost.json` to `out`; `diet_ray.judge.fidelity.page.write_report` makes a page of them.

    Args:
        config: the config of the bench.
        out: folder for the results, and for the cache, unless the config names another folder for it.
        on_progress: called with the kind of work, the number done, and the total.
        each: runs the distillations and the selections of rows: in this process, or on a cluster (`diet_ray.engine.fan_out`).
        train: runs the trainings.

    Raises:
        ConfigError: the config contradicts itself or the log.
        DietError: the log, a given file or something in the cache is damaged.
        KeyboardInterrupt: Ctrl-C came before the end; the finished work is kept.
    """
    config = config.absolute()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench.open(config, config.cache or out / "cache")
    do_missing(bench, on_progress, each=each, train=train)
    result, cost = assemble(bench), costs(bench, config.memory_set)
    write_json(out / "fidelity.json", result)
    write_json(out / "cost.json", cost)
    return result, cost


def do_missing(bench: Bench, on_progress: OnProgress, *, each: Mapper = in_turn, train: Train = train_here) -> None:
    """Do the work of a bench whose results are not in its cache yet (see `measure_fidelity`)."""
    bench.cache.mkdir(parents=True, exist_ok=True)
    todo = [training for training in bench.trainings() if not bench.keys.verdict_path(training).is_file()]
    runs, chosen = runs_of(bench, todo), selected_of(bench, todo)
    distil_all(runs, on_progress, each=each)
    selected = each(
        select_for,
        [training_set.model_dump_json() for training_set in chosen],
        config=bench.config.model_dump_json(),
        cache=str(bench.cache),
    )
    for done, _ in enumerate(selected, start=1):
        on_progress("selections", done, len(chosen))
    if todo:
        train(bench, groups_of(todo), on_progress)
