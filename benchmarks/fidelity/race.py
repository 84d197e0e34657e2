"""Races replayed from the kept losses of the fidelity bench, against other ways to choose a candidate at equal cost.

    python -m benchmarks.fidelity.race kuairand-live --work WORK
    python -m benchmarks.fidelity.race complete-journey-live --work WORK
    python -m benchmarks.fidelity.race docs

WORK is the folder in which `benchmarks.fidelity.published_logs` measured the log: its losses of single rows are all that a race needs. The
first command trains what ASHA looks at besides: candidates from scratch on the blocks before a judging block. The figures go to
benchmarks/results; the last command writes docs/race.md from them.

Every replay is one judging block, two of the three seeds, and a pool drawn from all candidates. What a choice costs a team is its regret:
the full-log loss of the chosen candidate over the whole block, all seeds merged, minus that of the best of the pool.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common.tables import filled, markdown, parsed
from benchmarks.fidelity.published_logs import LOGS, config
from diet_ray.candidates import CandidateSpec
from diet_ray.figures import number
from diet_ray.judge.baselines import learn_blocks, own_model
from diet_ray.judge.decision import decide
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.assemble import losses_of
from diet_ray.judge.fidelity.live.plan import FULL, LivePlan
from diet_ray.judge.fidelity.measures import seed_noise
from diet_ray.judge.live import rungs_of_rows
from diet_ray.judge.metrics import auc
from diet_ray.judge.race_rules import RUNGS, TO_CONFIRM, leaving, look_level
from diet_ray.logs.blocks import BlockManifest
from diet_ray.mapper import Mapper
from diet_ray.seeds import derive_seed
from diet_ray.settings import Metric, Settings, parse_json, write_json
from diet_ray.training.device import torch_threads

RESULTS = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[2] / "docs" / "race.md"
COMMAND = "python -m benchmarks.fidelity.race docs"

CONFIDENCE = 0.95
SEEDS = 2
"""Seeds of a candidate in a race, of the bench's three."""
POOLS = 20
"""Pools drawn at random, beside the one of all candidates."""
POOL_SHARE = 2 / 3
"""Share of the candidates in a drawn pool."""
ORDERS = 5
"""Orders of the candidates in which ASHA sees a pool."""
WORKERS = 4
"""Trials that ASHA trains at a time."""
REDUCTION = 3
"""ASHA's reduction factor, as in `diet_ray.judge.search`."""

WINDOWS = {"kuairand-live": 13, "complete-journey-live": 9}
"""Most blocks before a judging block on which candidates are trained for ASHA, from scratch, with one seed."""


class Choice(Settings):
    """One way to choose a candidate, over all replays."""

    name: str
    regret: Metric
    """Mean, nats."""
    low: Metric
    """2.5 % quantile over pools of the mean regret in a pool."""
    high: Metric
    worst: Metric
    """Largest regret of a replay, nats."""
    auc_regret: Metric
    """Mean, AUC: that of the pool's candidate with the largest full-log AUC minus that of the chosen one."""
    within_noise: Metric
    """Share of the replays whose choice is not significantly worse than the best."""
    cost: Metric
    """Mean, in full trainings of one candidate with one seed, counted in examples learned."""
    saved: Metric
    """How many times less than training every candidate of the pool once with each of the race's seeds."""
    standing: Metric
    """Candidates that are left at the end, mean; nan where the way chooses one alone."""
    kept_best: Metric
    """Share of the replays in which the pool's best on the full log is among those that are left, or one that is not significantly worse;
    nan as `standing`."""
    replays: int


class Replayed(Settings):
    """The replays on one log."""

    log: str
    candidates: list[str]
    blocks: list[str]
    """The judging blocks."""
    rungs: list[float]
    confidence: float
    noise: float
    """Standard deviation of one seed's full-log loss over a block, nats."""
    choices: list[Choice]


# What the choices read.


@dataclass(frozen=True)
class Judged:
    """The losses of all candidates on one judging block: `[K, S, n]`, the mean over the tasks, nats."""

    block: BlockManifest
    users: np.ndarray
    full: np.ndarray
    memory: np.ndarray
    recent: np.ndarray
    auc: np.ndarray
    """`[K]`: full-log AUC over the block, the mean over tasks and seeds."""
    ends: list[int]
    """Rows met after each rung."""
    rows_of_log: int
    """Rows before the block."""
    curves: np.ndarray
    """`[K, W]`: progressive loss of each block of the window."""
    window: np.ndarray
    """`[W]`: rows of each block of the window."""


def judged(plan: LivePlan, name: str, block: BlockManifest) -> Judged:
    """Everything about one judging block, from the bench's cache."""
    bench = plan.bench
    rows, tasks = bench.log.read_block(block), bench.log.schema.tasks

    full = losses_of(plan, FULL, block)
    aucs = np.array(
        [
            [
                [auc(rows.labels[:, t], logits(part[:, t], rows.labels[:, t])) for t in range(len(tasks))]
                for part in of_spec
            ]
            for of_spec in full
        ]
    )
    batch = bench.config.stream.reference.batch_size
    window = bench.log.blocks[max(0, block.index - WINDOWS[name]) : block.index]
    return Judged(
        block=block,
        users=rows.user,
        full=full.mean(axis=3),
        memory=losses_of(plan, "memory", block).mean(axis=3),
        recent=losses_of(plan, "recent", block).mean(axis=3),
        auc=aucs.mean(axis=(1, 2)),
        ends=[len(met.rows) for met in rungs_of_rows(bench.log, block, RUNGS, batch)],
        rows_of_log=sum(earlier.rows for earlier in bench.log.blocks[: block.index]),
        curves=np.array([parse_json(Curve, curve_file(plan, spec, block)).losses for spec in bench.pool]),
        window=np.array([earlier.rows for earlier in window]),
    )


def logits(losses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logits whose cross entropy with the labels the losses are."""
    # loss = log(1 + exp(-z)) for label 1, so z = -log(exp(loss) - 1); for label 0 with the other sign.
    z = -np.log(np.maximum(np.expm1(losses.astype(np.float64)), 1e-300))
    return np.where(labels == 1, z, -z)


class Curve(Settings):
    """The progressive loss of a candidate on each block of a window, learned from scratch."""

    losses: list[Metric]


def curve_file(plan: LivePlan, spec: CandidateSpec, block: BlockManifest) -> Path:
    """Where a curve is kept."""
    return plan.bench.cache / "curves" / f"{spec.name}-0-{block.index}.json"


def train_curve(description: str, *, config: str, cache: str) -> bytes:
    """The function for the mapper: train a candidate on the window before a block, and keep its curve."""
    todo = json.loads(description)
    plan = LivePlan.open(FidelityConfig.model_validate_json(config), Path(cache))
    log, reference = plan.bench.log, plan.bench.config.stream.reference
    spec = CandidateSpec.model_validate(todo["spec"])
    block = log.blocks[todo["block"]]
    path = curve_file(plan, spec, block)
    if not path.exists():
        window = log.blocks[max(0, block.index - todo["window"]) : block.index]
        with torch_threads(1):
            model = own_model(spec, log.schema, reference, n_ids=window[0].n_ids, seed=derive_seed(0, "curve"))
            curve = Curve(losses=learn_blocks(model, log, window))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, curve)
    return b""


def train_curves(plan: LivePlan, name: str, each: Mapper, on_progress: Callable[[str, int, int], None]) -> None:
    """Train what is not kept yet."""
    todo = [
        {"spec": spec.model_dump(mode="json"), "block": block.index, "window": WINDOWS[name]}
        for block in plan.judged
        for spec in plan.bench.pool
        if not curve_file(plan, spec, block).exists()
    ]
    finished = each(
        train_curve,
        [json.dumps(one) for one in todo],
        config=plan.bench.config.model_dump_json(),
        cache=str(plan.bench.cache),
    )
    for done, _ in enumerate(finished, start=1):
        on_progress("curves", done, len(todo))


# The choices.


@dataclass(frozen=True)
class Chosen:
    """What a way has chosen."""

    candidate: int
    examples: float
    """Its cost."""
    standing: list[int] | None = None
    """Those that it could not tell apart, the chosen one with them."""
    ranked: tuple[int, ...] = ()
    """The best candidates, the chosen one first."""


@dataclass(frozen=True)
class Setting:
    """A replay: a block, seeds, and a pool."""

    on: Judged
    pool: np.ndarray
    """Indices of candidates."""
    seeds: tuple[int, ...]
    launch: int
    """Examples of a launch."""
    number: int
    """Of the replay, which seeds its random draws."""


def raced(setting: Setting, *, last: int | None = None) -> Chosen:
    """`diet-ray race`, with the rungs up to `last`."""
    on, ends = setting.on, setting.on.ends[:last]
    losses = {str(k): on.memory[k][list(setting.seeds)] for k in setting.pool}
    examples = len(losses) * len(setting.seeds) * setting.launch
    level, before, leader = look_level(CONFIDENCE, len(ends)), 0, ""
    for rung, end in enumerate(ends, start=1):
        examples += len(losses) * len(setting.seeds) * (end - before)
        before = end
        decision = decide({name: part[:, :end] for name, part in losses.items()}, on.users[:end], confidence=level)
        if decision is None:
            break
        leader = decision.candidates[0].candidate
        gone = {*decision.diverged} | {one.candidate for one in leaving(decision, rung)}
        losses = {name: part for name, part in losses.items() if name not in gone}
        if len(losses) == 1:
            break
    standing = [int(name) for name in losses]
    ranked = sorted(standing, key=lambda k: float(on.memory[k][list(setting.seeds), :before].mean()))
    return Chosen(int(leader), examples, standing, tuple(ranked))


def confirmed(setting: Setting, chosen: Chosen) -> Chosen:
    """The best `TO_CONFIRM` of a choice, trained by full backfills, with the race's seeds, and compared on the whole block."""
    on, seeds, last = setting.on, list(setting.seeds), chosen.ranked[:TO_CONFIRM]
    best = min(last, key=lambda k: float(on.full[k][seeds].mean()))
    return Chosen(best, chosen.examples + len(last) * len(seeds) * (on.rows_of_log + on.ends[-1]))


def at_rung(setting: Setting, losses: np.ndarray, rung: int) -> Chosen:
    """The smallest mean loss of `losses` `[K, S, n]` after a rung, without a race."""
    end = setting.on.ends[rung]
    means = losses[setting.pool][:, list(setting.seeds), :end].mean(axis=(1, 2))
    cost = len(setting.pool) * len(setting.seeds) * (setting.launch + end)
    return Chosen(int(setting.pool[np.nanargmin(means)]), cost)


def asha(setting: Setting, *, budget: float, brackets: int) -> list[Chosen]:
    """Ray Tune's own scheduler on trainings from scratch, on the last blocks of the window, at about the cost `budget` in examples.

    Of all first rungs, that is taken whose mean cost over the orders is the largest that is not above the budget; where all are above it,
    the cheapest.
    """
    options = []
    for grace in range(1, len(setting.on.window) + 1):
        generators = (np.random.default_rng((setting.number, order)) for order in range(ORDERS))
        runs = [_asha_once(setting, grace, brackets, rng) for rng in generators]
        options.append((float(np.mean([run.examples for run in runs])), runs))
    affordable = [option for option in options if option[0] <= budget]
    return (max if affordable else min)(affordable or options, key=lambda option: option[0])[1]


def _asha_once(setting: Setting, grace: int, brackets: int, rng: np.random.Generator) -> Chosen:
    from ray.tune.schedulers import ASHAScheduler

    on = setting.on
    length = len(on.window)
    possible = max(1, min(brackets, 1 + int(np.log(length / grace) / np.log(REDUCTION))))
    np.random.seed(int(rng.integers(2**31)))
    scheduler: Any = ASHAScheduler(
        time_attr="block",
        metric="loss",
        mode="min",
        max_t=length,
        grace_period=grace,
        reduction_factor=REDUCTION,
        brackets=possible,
    )
    waiting = [int(k) for k in rng.permutation(setting.pool)]
    running: dict[int, int] = {}
    reached: dict[int, tuple[int, float]] = {}
    cost = 0
    while waiting or running:
        while waiting and len(running) < WORKERS:
            k = waiting.pop(0)
            running[k] = 0
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(k)))
        for k in list(running):
            loss = float(on.curves[k, running[k]])
            cost += int(on.window[running[k]])
            running[k] += 1
            reached[k] = running[k], loss
            trial, result = (
                SimpleNamespace(trial_id=str(k)),
                {"block": running[k], "loss": loss if np.isfinite(loss) else 1e9},
            )
            if scheduler.on_trial_result(None, trial, result) == "STOP":
                del running[k]
    ranked = tuple(sorted(reached, key=lambda k: (-reached[k][0], reached[k][1])))
    return Chosen(ranked[0], cost, ranked=ranked)


# The figures.


def replay(name: str, work: Path) -> Replayed:
    """All replays on one log."""
    plan = LivePlan.open(config(name, work, 3), work / "report" / "cache")
    blocks = [judged(plan, name, block) for block in plan.judged]
    names = [spec.name for spec in plan.bench.pool]
    student = plan.live.recipe.student
    noise = seed_noise([on.full.mean(axis=2) for on in blocks])
    rng = np.random.default_rng(0)
    size = round(POOL_SHARE * len(names))
    pools = [np.arange(len(names)), *(np.sort(rng.choice(len(names), size, replace=False)) for _ in range(POOLS))]
    least = noise.significant(blocks[0].full.shape[1])
    chosen: dict[str, list[tuple[float, ...]]] = {}
    for p, pool in enumerate(pools):
        for b, on in enumerate(blocks):
            truth, aucs = on.full.mean(axis=(1, 2)), on.auc
            for seeds in combinations(range(on.memory.shape[1]), SEEDS):
                number = derive_seed(p, "replay", b, *seeds) % 2**31
                setting = Setting(on, pool, seeds, student.steps * student.batch_size, number)
                for way, choices in _ways(setting):
                    for one in choices:
                        k, best = one.candidate, np.nanmin(truth[pool])
                        saved = len(pool) * SEEDS * on.rows_of_log / one.examples if one.examples else np.nan
                        left = len(one.standing) if one.standing else np.nan
                        kept = float(np.nanmin(truth[one.standing]) - best <= least) if one.standing else np.nan
                        lost = np.nanmax(aucs[pool]) - aucs[k]
                        row = (p, truth[k] - best, lost, one.examples / on.rows_of_log, saved, left, kept)
                        chosen.setdefault(way, []).append(row)
    return Replayed(
        log=LOGS[name].title,
        candidates=names,
        blocks=[on.block.name for on in blocks],
        rungs=list(RUNGS),
        confidence=CONFIDENCE,
        noise=noise.sd,
        choices=[_choice(way, np.array(rows), least) for way, rows in chosen.items()],
    )


def _ways(setting: Setting) -> Iterator[tuple[str, list[Chosen]]]:
    on = setting.on
    race = raced(setting)
    yield "race", [race]
    yield "race, up to a quarter of a block", [raced(setting, last=3)]
    yield f"race, then full backfills of the best {TO_CONFIRM}", [confirmed(setting, race)]
    yield "memory, a fiftieth of a block, no race", [at_rung(setting, on.memory, 0)]
    yield "memory, a tenth of a block, no race", [at_rung(setting, on.memory, 1)]
    yield "memory, the whole block, no race", [at_rung(setting, on.memory, 3)]
    yield "latest rows, from scratch, a tenth of a block", [at_rung(setting, on.recent, 1)]
    halved = asha(setting, budget=race.examples, brackets=1)
    yield "ASHA, from scratch", halved
    yield f"ASHA, then full backfills of the best {TO_CONFIRM}", [confirmed(setting, run) for run in halved]
    yield "asynchronous Hyperband, from scratch", asha(setting, budget=race.examples, brackets=3)
    cost = len(setting.pool) * len(setting.seeds) * on.rows_of_log
    yield "full backfills of all, a tenth of a block", [Chosen(at_rung(setting, on.full, 1).candidate, cost)]
    yield "blind", [Chosen(int(k), 0) for k in setting.pool]


def _choice(name: str, rows: np.ndarray, least: float) -> Choice:
    """The figures of one way; `rows` hold pool, regret, AUC lost, cost, saved, standing, kept best."""
    pool, regret = rows[:, 0], rows[:, 1]
    of_pools = np.array([np.nanmean(regret[pool == p]) for p in np.unique(pool)])
    return Choice(
        name=name,
        regret=float(np.nanmean(regret)),
        low=float(np.quantile(of_pools, 0.025)),
        high=float(np.quantile(of_pools, 0.975)),
        worst=float(np.nanmax(regret)),
        auc_regret=float(np.nanmean(rows[:, 2])),
        within_noise=float(np.mean(regret <= least)),
        cost=float(np.mean(rows[:, 3])),
        saved=float(np.mean(rows[:, 4])),
        standing=float(np.mean(rows[:, 5])),
        kept_best=float(np.mean(rows[:, 6])),
        replays=len(rows),
    )


COLUMNS = [
    "way to choose",
    "regret, nats",
    "worst",
    "regret, AUC",
    "within seed noise",
    "cost, full trainings",
    "less than training all",
    "left at the end",
    "the best is among them",
]


def document(text: str) -> str:
    """docs/race.md with its tables, made from the figures, between the two marks."""
    parts = []
    for name in WINDOWS:
        result = parsed(Replayed, RESULTS / f"race_{name}.json")
        if result is None:
            continue
        replays = next(choice.replays for choice in result.choices if choice.name == "race")
        parts += [
            f"### {result.log}",
            f"{len(result.candidates)} candidates, {replays} replays: judging blocks {', '.join(result.blocks)}, two of three seeds, all "
            f"candidates and {POOLS} drawn pools of {round(POOL_SHARE * len(result.candidates))}. One seed's full-log loss varies by "
            f"{result.noise:.4f} nats (sd).",
            markdown(COLUMNS, [_cells(choice) for choice in result.choices]),
        ]
    return filled(text, "replays", COMMAND, "\n\n".join(parts))


def _cells(choice: Choice) -> list[str]:
    def percent(share: float) -> str:
        return f"{100 * share:.0f} %" if np.isfinite(share) else "-"

    return [
        choice.name,
        f"{choice.regret:.5f} ({choice.low:.5f} to {choice.high:.5f})",
        number(choice.worst, 4),
        number(choice.auc_regret, 5),
        percent(choice.within_noise),
        number(choice.cost, 1) if choice.cost else "-",
        f"{choice.saved:.1f}x" if np.isfinite(choice.saved) else "-",
        number(choice.standing, 1),
        percent(choice.kept_best),
    ]


def main() -> None:
    """Replay on a log, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*WINDOWS, "docs"])
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.task == "docs":
        PAGE.write_text(document(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    if options.work is None:
        parser.error("--work: missing; give the folder in which benchmarks.fidelity.published_logs measured the log")
    from diet_ray.engine.cluster import connect
    from diet_ray.report.progress import Counted, display

    with display(quiet=False) as shown, connect():
        from diet_ray.engine.data import fan_out

        plan = LivePlan.open(config(options.task, options.work, 3), options.work / "report" / "cache")
        train_curves(plan, options.task, fan_out, Counted(shown))
    result = replay(options.task, options.work)
    write_json(RESULTS / f"race_{options.task}.json", result)


if __name__ == "__main__":
    main()
