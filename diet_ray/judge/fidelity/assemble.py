"""Computes the result of the bench from the kept verdicts: scores, measures with intervals, costs. It only reads the cache."""

from __future__ import annotations

import os
import platform
from functools import partial

import numpy as np

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.fidelity.config import FULL, MEMORIES, Method
from diet_ray.judge.fidelity.measures import (
    Bootstrap,
    Noise,
    Results,
    bootstrap,
    difference,
    pooled_pearson,
    seed_means,
    seed_noise,
)
from diet_ray.judge.fidelity.plan import Bench, Training, TrainingSet
from diet_ray.judge.fidelity.reduced_sets import sample
from diet_ray.judge.fidelity.result import (
    CEILING,
    GROUPS,
    CandidateCost,
    CostResult,
    Difference,
    Distillation,
    FidelityResult,
    Scores,
    SetResult,
    StagePoint,
    Values,
)
from diet_ray.judge.fidelity.verdicts import read_verdict
from diet_ray.judge.fidelity.words import frozen_verdicts
from diet_ray.judge.verdict import Verdict
from diet_ray.memory.run_folder import read_stage
from diet_ray.report.summary import summarise
from diet_ray.storage.hashes import versions

METRICS = ("auc", "logloss", "gauc", "calibration")


def assemble(bench: Bench) -> FidelityResult:
    """The part of the result that does not depend on the clock. All trainings must be in the cache."""
    config, log, tasks = bench.config, bench.log, bench.log.schema.tasks
    truth = _scores(bench, str(FULL), bench.sets(FULL), bench.pool)
    named = bench.main_sets()
    scores = {name: _scores(bench, name, sets, bench.pool) for name, sets in named}
    noise = {task: seed_noise([_table(part, task).auc for part in (truth, scores[CEILING])]) for task in tasks}
    measured = {name: _measured(bench, truth, of_set, noise) for name, of_set in scores.items()}
    results = []
    for name, sets in named:
        method = None if name == CEILING else sets[0].method
        results.append(
            SetResult(
                name=name,
                method=method,
                ratio=sets[0].ratio,
                units=min(_units(bench, training_set) for training_set in sets),
                fidelity={
                    task: {group: fidelity.intervals() for group, fidelity in groups.items()}
                    for task, groups in measured[name].items()
                },
            )
        )
    memory_set = config.memory_set
    memory = bench.sets(memory_set)[0] if memory_set.of_memory else None
    result = FidelityResult(
        made_of=bench.made_of(bench.distillation(memory), bench.blocks + config.test_blocks) if memory else None,
        log=log.schema.name,
        tasks=tasks,
        blocks=[block.name for block in log.blocks[: bench.blocks]],
        rows=sum(block.rows for block in log.blocks[: bench.blocks]),
        test_blocks=[block.name for block in log.blocks[bench.blocks : bench.blocks + config.test_blocks]],
        test_rows=sum(block.rows for block in log.blocks[bench.blocks : bench.blocks + config.test_blocks]),
        seeds=config.seeds,
        students=config.students,
        student=config.stream.student,
        ratio=bench.ratio,
        replicates=config.replicates,
        candidates=bench.pool,
        noise={task: spread.sd for task, spread in noise.items()},
        full=truth,
        sets=results,
        scores=[score for of_set in scores.values() for score in of_set],
        stages=_stages(bench),
        differences=[_difference(str(first), str(second), measured) for first, second in config.compared],
        pooled_pearson={
            name: pooled_pearson([seed_means(_table(truth, task), _table(of_set, task)) for task in tasks])
            for name, of_set in scores.items()
        },
    )
    return result.model_copy(update={"verdicts": frozen_verdicts(result, str(memory_set))})


def costs(bench: Bench, memory_set: Method) -> CostResult:
    """The costs of training on the full log and on the set that stands for the memory, and the cost of distilling."""

    def mean(method: Method, spec: CandidateSpec, key: str) -> float:
        verdicts = [verdict for part in bench.sets(method) for verdict in _verdicts(bench, part, spec)]
        return round(float(np.mean([getattr(verdict, key) for verdict in verdicts])), 4)

    candidates = [
        CandidateCost(
            candidate=spec.name,
            full_cpu=mean(FULL, spec, "train_seconds"),
            full_wall=mean(FULL, spec, "train_wall_seconds"),
            memory_cpu=mean(memory_set, spec, "train_seconds"),
            memory_wall=mean(memory_set, spec, "train_wall_seconds"),
            parameters=int(mean(memory_set, spec, "parameters")),
        )
        for spec in bench.pool
    ]
    saved = float(np.mean([candidate.full_cpu - candidate.memory_cpu for candidate in candidates]))
    blocks = bench.log.blocks[: bench.blocks]
    return CostResult(
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        versions=versions(),
        memory_set=str(memory_set),
        candidates=candidates,
        distillations=[
            _distillation(bench, rows, saved)
            for rows in MEMORIES
            if any(method.rows == rows for method in bench.config.methods)
        ],
        log_bytes=sum(shard.bytes for block in blocks for shard in block.shards),
        table_bytes=4 * bench.config.stream.reference.dim * blocks[-1].n_ids,
    )


def _distillation(bench: Bench, rows: str, saved: float) -> Distillation:
    method = next(method for method in bench.config.methods if method.rows == rows)
    runs = [bench.keys.run_folder(bench.distillation(training_set)) for training_set in bench.sets(method)]
    summaries = [summarise(run) for run in runs]
    seconds = float(np.mean([summary.seconds for summary in summaries]))
    return Distillation(
        set=rows,
        reference_seconds=round(
            float(np.mean([sum(stage.steps["reference"] for stage in summary.stages) for summary in summaries])), 2
        ),
        seconds=round(seconds, 2),
        units=round(float(np.mean([summary.units for summary in summaries]))),
        bytes=round(float(np.mean([summary.memory_bytes for summary in summaries]))),
        pays_after=float(np.ceil(seconds / saved)) if saved > 0 else float("nan"),
    )


def _verdicts(bench: Bench, training_set: TrainingSet, spec: CandidateSpec) -> list[Verdict]:
    return [
        read_verdict(bench, Training(set=training_set, candidate=spec, student=n)) for n in bench.students(training_set)
    ]


def _values(bench: Bench, sets: list[TrainingSet], spec: CandidateSpec) -> Values:
    verdicts = [_verdicts(bench, training_set, spec) for training_set in sets]
    return {
        task: {
            metric: [float(np.mean([verdict.metrics[task][metric] for verdict in students])) for students in verdicts]
            for metric in METRICS
        }
        for task in bench.log.schema.tasks
    }


def _scores(bench: Bench, name: str, sets: list[TrainingSet], pool: list[CandidateSpec]) -> list[Scores]:
    return [Scores(set=name, candidate=spec.name, values=_values(bench, sets, spec)) for spec in pool]


def _table(scores: list[Scores], task: str) -> Results:
    auc, logloss = (
        np.array([score.values[task][metric] for score in scores], np.float64) for metric in ("auc", "logloss")
    )
    return Results(auc, logloss)


def _measured(
    bench: Bench, truth: list[Scores], scores: list[Scores], noise: dict[str, Noise]
) -> dict[str, dict[str, Bootstrap]]:
    draw = partial(bootstrap, seed=bench.config.stream.seed, replicates=bench.config.replicates)
    groups = {"all": bench.pool, "architectures": [spec for spec in bench.pool if is_architecture(spec)]}
    assert tuple(groups) == GROUPS
    names = {group: {spec.name for spec in specs} for group, specs in groups.items()}
    return {
        task: {
            group: draw(
                _table([score for score in truth if score.candidate in members], task),
                _table([score for score in scores if score.candidate in members], task),
                noise[task],
            )
            for group, members in names.items()
        }
        for task in bench.log.schema.tasks
    }


def is_architecture(spec: CandidateSpec) -> bool:
    """Whether a candidate uses every field and the run's own learning rate."""
    return not spec.drop_fields and spec.lr_scale == 1


def _difference(first: str, second: str, measured: dict[str, dict[str, dict[str, Bootstrap]]]) -> Difference:
    of_first, of_second = measured[first], measured[second]
    return Difference(
        first=first,
        second=second,
        fidelity={
            task: {group: difference(fidelity, of_second[task][group]) for group, fidelity in groups.items()}
            for task, groups in of_first.items()
        },
    )


def _stages(bench: Bench) -> list[StagePoint]:
    stage_pool = [spec for spec in bench.pool if spec.name in bench.config.stages.candidates]
    return [
        StagePoint(
            set=str(method),
            candidate=spec.name,
            stage=stage,
            block=bench.log.blocks[stage].name,
            values=_values(bench, sets, spec),
        )
        for method, stage, sets in bench.stage_sets()
        for spec in stage_pool
    ]


def _units(bench: Bench, training_set: TrainingSet) -> int:
    if training_set.method.of_full_log:
        return sum(block.rows for block in bench.seen(training_set))
    if training_set.method.of_memory:
        return read_stage(bench.keys.run_folder(bench.distillation(training_set)), training_set.blocks - 1).units
    return len(sample(bench, training_set))
