"""The protocol `live` of `diet-ray fidelity`: does the missing trainings, then writes the result (see `diet_ray.judge.fidelity.bench`)."""

from __future__ import annotations

import json
from pathlib import Path

from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.assemble import assemble, costs
from diet_ray.judge.fidelity.live.plan import LivePlan
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.live.trainings import train_group
from diet_ray.judge.fidelity.work import OnProgress, distil_all
from diet_ray.mapper import Mapper, in_turn
from diet_ray.memory.layout import stage_folder
from diet_ray.settings import write_json


def measure_live(
    config: FidelityConfig, out: Path, on_progress: OnProgress, *, each: Mapper = in_turn
) -> tuple[LiveResult, LiveCost]:
    """Let every candidate meet the judging blocks live from each start, and measure how well its first rows predict the full log's order.

    Trainings whose results are in the cache are not done again. Writes `live.json` and `live_cost.json` to `out`.

    Args:
        config: the config of the bench.
        out: folder for the results, and for the cache, unless the config names another folder for it.
        on_progress: called with the kind of work, the number done, and the total.
        each: runs the distillations and the trainings: in this process, or on a cluster (`diet_ray.engine.fan_out`).

    Raises:
        ConfigError: the config contradicts itself or the log.
        DietError: the log or something in the cache is damaged.
        KeyboardInterrupt: Ctrl-C came before the end; the finished work is kept.
    """
    config, out = config.absolute(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    plan = LivePlan.open(config, config.cache or out / "cache")
    do_missing(plan, on_progress, each=each)
    result, cost = assemble(plan), costs(plan)
    write_json(out / "live.json", result)
    write_json(out / "live_cost.json", cost)
    return result, cost


def do_missing(plan: LivePlan, on_progress: OnProgress, *, each: Mapper = in_turn) -> None:
    """Do the trainings whose results are not in the cache yet, and before them the distillations that they need."""
    bench = plan.bench
    bench.cache.mkdir(parents=True, exist_ok=True)
    groups = [[training for training in group if not plan.is_done(training)] for group in plan.trainings()]
    groups = [group for group in groups if group]
    last = plan.judged[-1].index - 1
    runs = [
        (run, stream)
        for run, stream in plan.runs([training for group in groups for training in group])
        if not stage_folder(run, last).is_dir()
    ]
    distil_all(runs, on_progress, each=each)
    done, total = 0, sum(map(len, groups))
    finished = each(
        train_group,
        [json.dumps([training.model_dump(mode="json") for training in group]) for group in groups],
        config=bench.config.model_dump_json(),
        cache=str(bench.cache),
    )
    for group, _ in zip(groups, finished, strict=True):
        done += len(group)
        on_progress("live trainings", done, total)
