"""The result of the protocol `live` from the kept losses. It only reads the cache."""

from __future__ import annotations

import os
import platform
from functools import cached_property, partial

import numpy as np

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.fidelity.live.measures import (
    Draws,
    Losses,
    Replicates,
    another_seed,
    blind,
    compare,
    intervals,
    minus,
    summed,
    whole_means,
)
from diet_ray.judge.fidelity.live.plan import FULL, LivePlan, LiveTraining
from diet_ray.judge.fidelity.live.result import (
    BLIND,
    OTHER_SEED,
    SAME_ROWS,
    CandidateLiveCost,
    JudgingBlock,
    LiveCost,
    LiveResult,
    LiveScores,
    StartCost,
    StartDifference,
    StartResult,
)
from diet_ray.judge.fidelity.live.trainings import kept, losses
from diet_ray.judge.fidelity.live.words import live_verdict, memory_of
from diet_ray.judge.fidelity.measures import Noise, seed_noise
from diet_ray.judge.live import rows_met
from diet_ray.logs.blocks import BlockManifest
from diet_ray.memory.run_folder import read_stage
from diet_ray.report.summary import summarise
from diet_ray.storage.hashes import versions


def assemble(plan: LivePlan) -> LiveResult:
    """The part of the result that does not depend on the clock. All trainings must be in the cache."""
    return _Assembly(plan).result()


def losses_of(plan: LivePlan, start: str, block: BlockManifest) -> np.ndarray:
    """`[C, S, n, T]` float32: the kept losses of all candidates and seeds from a start, on the rows of a judging block that they met."""
    return np.stack(
        [
            np.stack([losses(plan, training_of(plan, start, spec, seed, block), block) for seed in plan.bench.seeds])
            for spec in plan.bench.pool
        ]
    )


class _Assembly:
    """The losses of all trainings, and what is made of them."""

    def __init__(self, plan: LivePlan) -> None:
        self.plan, self.bench, self.live = plan, plan.bench, plan.live
        self.tasks, self.shares = self.bench.log.schema.tasks, self.live.shares
        draws = partial(Draws, [block.rows for block in plan.judged], self.shares, seed=self.bench.config.stream.seed)
        self.draws, self.once = draws(replicates=self.bench.config.replicates), draws(replicates=0)

    def result(self) -> LiveResult:
        measured = self._measured_result()
        return measured.model_copy(update={"verdicts": [live_verdict(measured, task) for task in self.tasks]})

    def _measured_result(self) -> LiveResult:
        bench, live = self.bench, self.live
        replicates = {task: [self._measured(task, share) for share in range(len(self.shares))] for task in self.tasks}
        names = list(replicates[self.tasks[0]][0])
        pairs = [("memory", name) for name in names if name != "memory"]
        pairs += [("refined", name) for name in (SAME_ROWS, "random", "scratch") if {"refined", name} <= {*names}]
        last = self.plan.judged[-1].index
        return LiveResult(
            made_of=bench.made_of(self.plan.distillation(memory_of(names), bench.seeds[0]), last + 1),
            log=bench.log.schema.name,
            tasks=self.tasks,
            blocks=[self._block(block) for block in self.plan.judged],
            shares=self.shares,
            ratio=bench.ratio,
            seeds=bench.config.seeds,
            replicates=bench.config.replicates,
            recipe=live.recipe,
            candidates=bench.pool,
            noise={task: self.noise[task].sd for task in self.tasks},
            starts=[
                StartResult(
                    name=name,
                    measured={task: [intervals(part[name]) for part in parts] for task, parts in replicates.items()},
                )
                for name in names
            ],
            differences=[
                StartDifference(
                    first=first,
                    second=second,
                    measured={
                        task: [minus(part[first], part[second]) for part in parts] for task, parts in replicates.items()
                    },
                )
                for first, second in pairs
            ],
            scores=[score for start in (FULL, *live.starts) for score in self._scores(start)],
        )

    @cached_property
    def losses(self) -> dict[str, dict[str, list[Losses]]]:
        """`{start: {task: [Losses, one per judging block]}}`."""
        by_start = {}
        for start in (FULL, *self.live.starts):
            blocks = [losses_of(self.plan, start, block) for block in self.plan.judged]
            by_start[start] = {
                task: [
                    summed(of_block[..., number], block.rows, self.shares)
                    for of_block, block in zip(blocks, self.plan.judged, strict=True)
                ]
                for number, task in enumerate(self.tasks)
            }
        return by_start

    @cached_property
    def noise(self) -> dict[str, Noise]:
        """Per task, of one seed's mean loss over a whole block on the full log."""
        return {task: seed_noise(list(whole_means(self.losses[FULL][task]))) for task in self.tasks}

    def _measured(self, task: str, share: int) -> dict[str, Replicates]:
        full, noise, draws = self.losses[FULL][task], self.noise[task], self.draws
        measured = {
            SAME_ROWS: compare(full, full, share, noise, draws),
            OTHER_SEED: another_seed(full, share, noise, draws),
        }
        for start in self.live.starts:
            measured[start] = compare(full, self.losses[start][task], share, noise, draws)
        return measured | {BLIND: blind(full, draws)}

    def _scores(self, start: str) -> list[LiveScores]:
        scores = []
        for number, block in enumerate(self.plan.judged):
            means = {
                task: [
                    self.once.means(self.losses[start][task][number], number, share)[:, :, 0]
                    for share in range(len(self.shares))
                ]
                for task in self.tasks
            }
            for c, spec in enumerate(self.bench.pool):
                of_candidate = {task: [share[c].tolist() for share in parts] for task, parts in means.items()}
                scores.append(LiveScores(start=start, candidate=spec.name, block=block.name, losses=of_candidate))
        return scores

    def _block(self, block: BlockManifest) -> JudgingBlock:
        run = self.bench.keys.run_folder(self.plan.distillation("memory", self.bench.seeds[0]))
        return JudgingBlock(
            name=block.name,
            rows=block.rows,
            rows_before=sum(earlier.rows for earlier in self.bench.log.blocks[: block.index]),
            units=read_stage(run, block.index - 1).units,
        )


def training_of(plan: LivePlan, start: str, spec: CandidateSpec, seed: int, block: BlockManifest) -> LiveTraining:
    """The training that met a judging block."""
    index = plan.judged[-1].index if start == FULL else block.index
    return LiveTraining(start=start, candidate=spec, seed=seed, block=index)


def costs(plan: LivePlan) -> LiveCost:
    """The costs of a candidate from each start, and of the memory."""
    bench, share = plan.bench, plan.live.shares[0]

    def seconds(start: str, spec: CandidateSpec) -> np.ndarray:
        """`[2]`: before and live, the mean over seeds and blocks."""
        both = []
        for seed in bench.seeds:
            for block in plan.judged:
                timed = kept(plan, training_of(plan, start, spec, seed, block)).blocks[block.name]
                # Each live row takes the same time, so the first share takes its part of what all rows took.
                both.append([timed.before, timed.live * rows_met(block.rows, share) / timed.rows])
        return np.asarray(np.mean(both, axis=0))

    by_start = {start: [seconds(start, spec) for spec in bench.pool] for start in (FULL, *plan.live.starts)}
    runs = [bench.keys.run_folder(plan.distillation("memory", seed)) for seed in bench.seeds]
    summaries, last = [summarise(run) for run in runs], bench.log.blocks[plan.judged[-1].index - 1]
    return LiveCost(
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        versions=versions(),
        starts=[
            StartCost(start=start, before=round(float(before), 4), live=round(float(live), 4))
            for start, parts in by_start.items()
            for before, live in [np.mean(parts, axis=0)]
        ],
        candidates=[
            CandidateLiveCost(
                candidate=spec.name,
                full=round(float(by_start[FULL][c].sum()), 4),
                memory=round(float(by_start["memory"][c].sum()), 4),
            )
            for c, spec in enumerate(bench.pool)
        ],
        memory_seconds=round(float(np.mean([summary.seconds for summary in summaries])), 2),
        memory_bytes=round(float(np.mean([summary.memory_bytes for summary in summaries]))),
        table_bytes=4 * bench.config.stream.reference.dim * last.n_ids,
    )
