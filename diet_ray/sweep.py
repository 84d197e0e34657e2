"""Judging a pool of candidates on a memory with Ray Tune: one trial per candidate and seed, a leaderboard at the end."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from diet_ray.candidates import CandidateFile, CandidateSpec, import_modules
from diet_ray.config import StudentConfig
from diet_ray.errors import ConfigError, DietError, ResourceError
from diet_ray.judge import Verdict, standings
from diet_ray.leaderboard import Failed, Leaderboard, Stopped, leaderboard_table, write_tables
from diet_ray.logs.blocks import BlockManifest, Log, open_log
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.download import OnFetch, fetched, name_of
from diet_ray.search import REDUCTION, RUNGS, Suggest, SweepConfig, rungs
from diet_ray.seeds import derive_seed
from diet_ray.settings import parse, write_json
from diet_ray.storage.lock import locked
from diet_ray.trackers import open_trackers
from diet_ray.trial import Outcome, Task, held_rows, run_trial
from diet_ray.tuning import run_trials
from diet_ray.watch import Identity, Watch, Work, threads_of

__all__ = ["Leaderboard", "leaderboard_table", "sweep"]


def sweep(
    memory: str | Path,
    candidates: CandidateFile | SweepConfig,
    *,
    out: Path,
    log: Path | None = None,
    block: str | None = None,
    seeds: int = 2,
    restore: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_fetch: OnFetch | None = None,
) -> Leaderboard:
    """Train every candidate on the memory with each seed and judge it on a block that the memory has not seen.

    Writes `leaderboard.json` and, as CSV and as Parquet, `leaderboard` and `verdicts` to `out`, and keeps what each trial found in
    `out/trials`; needs a connected Ray. A trial that fails leaves the others alone (`Leaderboard.failed`).

    Args:
        memory: a run folder or one of its stages, or the URI of an archive or of one of its stages.
        candidates: the pool, or a whole config.
        out: where the results go.
        log: the ingested log; by default the one that was distilled.
        block: the block to judge on; by default the one after the memory's last.
        seeds: seeds per candidate, 0 to `seeds - 1`.
        restore: go on with the sweep in `out`: what its trials have found is not found again, as far as it is still asked for.
        on_progress: called with the number of trials done and their total.
        on_fetch: told how far an archive is fetched.

    Raises:
        ConfigError: an unknown field is dropped, or there is no such block, or it is not later than the memory, or `out` holds a sweep.
        ResourceError: the cluster lacks what a trial asks for, an extra is missing, or a tracker cannot be reached.
        DietError: the memory or the log is damaged, or every trial failed.
    """
    config = candidates if isinstance(candidates, SweepConfig) else SweepConfig.of(candidates)
    folder = fetched(memory, on_fetch=on_fetch)
    loaded = load_memory(folder)
    opened = open_log(log or loaded.stage.config.log)
    judged_on = _block_to_judge_on(loaded, opened, block)
    for spec in config.candidates:
        spec.kept_fields(loaded.field_names)
    if (out / "trials").is_dir() and not restore:
        raise ConfigError(f"{out}: holds a sweep; go on with it by --restore, or choose another folder")
    _check_resources(config)
    task = _task(config, loaded, opened, judged_on)
    trackers = open_trackers(config.trackers, out)
    (out / "trials").mkdir(parents=True, exist_ok=True)
    with locked(out):
        watch = Watch(out / "trials", Identity.of(folder, loaded, opened, judged_on, config), trackers, on_progress)
        try:
            works = _run(config, task, seeds, watch, out)
        finally:
            trackers.close()
            shutil.rmtree(out / "tune", ignore_errors=True)  # Ray's own record; what the trials found is kept
        board = _leaderboard(name_of(memory), loaded, opened, judged_on, works, watch)
        write_json(out / "leaderboard.json", board)
        write_tables(out, board)
    return board


def _block_to_judge_on(memory: Memory, log: Log, name: str | None) -> BlockManifest:
    names = [block.name for block in log.blocks]
    last = memory.stage.block
    if last not in names:
        raise ConfigError(
            f"log {log.path}: has no block {last!r}, which the memory has seen last; name the log that was distilled"
        )
    later = log.blocks[names.index(last) + 1 :]
    if name is None:
        if not later:
            raise ConfigError(
                f"log {log.path}: no block after {last!r} to judge on; distil fewer blocks or ingest the next one"
            )
        return later[0]
    for block in later:
        if block.name == name:
            return block
    raise ConfigError(
        f"block {name!r}: {'the memory has learned from it' if name in names else 'the log has no such block'}; "
        f"blocks to judge on: {', '.join(block.name for block in later) or 'none'}"
    )


def _check_resources(config: SweepConfig) -> None:
    asked, has = config.resources, ray.cluster_resources()
    for key, kind, need in (("cpus", "CPU", asked.cpus), ("gpus", "GPU", asked.gpus)):
        if need > has.get(kind, 0):
            raise ResourceError(
                f"key 'resources.{key}': a trial asks for {need:g}, the cluster has {has.get(kind, 0):g}; lower it"
            )
    if config.search.algorithm == "optuna":
        try:
            import optuna
        except ImportError as error:
            raise ResourceError(f"key 'search.algorithm': {error}; pip install 'diet_ray[optuna]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def _task(config: SweepConfig, memory: Memory, log: Log, judged_on: BlockManifest) -> Task:
    student, search = memory.stage.config.student, config.search
    return Task(
        examples=memory.examples(),
        table=memory.table,
        rows=log.read_block(judged_on),
        held=held_rows(memory, log) if search.guided else None,
        schema=memory.stage.log_schema,
        student=student,
        steps=rungs(student.steps) if search.scheduler == "asha" else [student.steps],
    )


def _run(config: SweepConfig, task: Task, seeds: int, watch: Watch, out: Path) -> list[Work]:
    """Run what is not kept yet; returns all of the sweep's work, in order."""
    search, resources = config.search, config.resources
    # A guided trial trains all seeds side by side, so that a candidate is given up as a whole.
    together = [list(range(seeds))] if search.guided else [[seed] for seed in range(seeds)]
    drawn = [spec for one in config.candidates for spec in one.drawn(search.seed)]
    works = [Work(spec=spec, seeds=part) for spec in drawn for part in together]
    suggest = Suggest(config.candidates, search.seed, seeds, out / "suggested.json")
    grid: dict[str, list[Any]] = {}
    searcher = None
    if search.algorithm == "optuna":
        searcher, watch.total = _optuna(suggest, search.seed), len(suggest.order)
    else:
        # What is kept is told to ASHA again, because it measures the others by it.
        asha = search.scheduler == "asha"
        todo = [work for work in works if asha or watch.key(work) not in watch.outcomes]
        if not todo:
            return works
        grid, watch.total = {"work": [work.model_dump() for work in todo]}, len(todo)
    trainable = partial(
        _trial, modules=config.modules, folder=str(Path.cwd()), threads=threads_of(config), gpu=resources.gpus > 0
    )
    run_trials(
        tune.with_parameters(trainable, shared=[ray.put((task, watch.outcomes if search.guided else {}, watch.key))]),
        grid,
        name="sweep",
        storage=out / "tune",
        cpus=resources.cpus,
        gpus=resources.gpus,
        callback=watch,
        scheduler=_asha(task.student) if search.scheduler == "asha" else None,
        searcher=searcher,
        samples=watch.total if searcher else 1,
        concurrent=search.concurrent,
        tolerant=True,
    )
    return [Work.model_validate(work) for work in suggest.works] if searcher else works


def _asha(student: StudentConfig) -> ASHAScheduler:
    first = student.steps / REDUCTION ** (RUNGS - 1)
    return ASHAScheduler(
        time_attr="step",
        metric="score",
        mode="max",
        max_t=student.steps,
        grace_period=first,
        reduction_factor=REDUCTION,
    )


def _optuna(suggest: Suggest, seed: int) -> Any:
    from optuna.samplers import TPESampler
    from ray.tune.search.optuna import OptunaSearch

    before = suggest.before()
    # What was suggested before is given again without a draw; with the first seed the draws would begin anew with the same values.
    sampler = TPESampler(seed=derive_seed(seed, "optuna", len(before)) % 2**32)
    return OptunaSearch(suggest, metric="score", mode="max", sampler=sampler, points_to_evaluate=before)


def _trial(
    trial: dict[str, Any], *, shared: list[Any], modules: list[str], folder: str, threads: int, gpu: bool
) -> None:
    torch.set_num_threads(threads)
    work = Work.model_validate(trial["work"])
    try:
        import_modules(modules, Path(folder))
        task, outcomes, key = ray.get(shared[0])
        kept: Outcome | None = outcomes.get(key(work))
        if kept:  # told again to whoever decides by scores
            for one in kept.scores:
                tune.report({"step": one.step, "score": one.score, "verdicts": "[]", "failure": ""})
            return
        spec = parse(CandidateSpec, work.spec, where="drawn")
        for report in run_trial(spec, work.seeds, task, torch.device("cuda" if gpu else "cpu")):
            verdicts = json.dumps([one.model_dump(mode="json") for one in report.verdicts])
            tune.report({"step": report.step, "score": report.score, "verdicts": verdicts, "failure": ""})
    except Exception as error:  # of a candidate's own code anything may come, and the other candidates go on
        tune.report({"step": 0, "score": 0.0, "verdicts": "[]", "failure": _why(error)})


def _why(error: Exception) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, DietError):
        return " ".join(str(error).split())
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({Path(last.filename).name}, line {last.lineno})"


def _leaderboard(
    memory: str, loaded: Memory, log: Log, judged_on: BlockManifest, works: list[Work], watch: Watch
) -> Leaderboard:
    verdicts: list[Verdict] = []
    scores: dict[str, float] = {}
    stopped: list[Stopped] = []
    failed: list[Failed] = []
    for work in works:
        key = watch.key(work)
        outcome = watch.outcomes.get(key)
        if outcome is None:
            failed += [watch.failed[key].model_copy(update={"candidate": work.name})]
        elif outcome.verdicts:
            verdicts += [one.model_copy(update={"candidate": work.name}) for one in outcome.verdicts]
            if outcome.scores:
                scores[work.name] = outcome.scores[-1].score
        else:
            last = outcome.scores[-1]
            stopped.append(Stopped(candidate=work.name, step=last.step, score=last.score))
    if not verdicts:
        first = failed[0]
        raise DietError(f"no trial came to its end; candidate {first.candidate!r}: {first.why}")
    return Leaderboard(
        memory=memory,
        units=len(loaded),
        stage=loaded.stage.index,
        log=str(log.path),
        block=judged_on.name,
        rows=judged_on.rows,
        tasks=log.schema.tasks,
        student=loaded.stage.config.student,
        standings=standings(verdicts),
        verdicts=verdicts,
        candidates={work.name: work.spec for work in works},
        scores=scores,
        stopped=stopped,
        failed=failed,
        untracked=watch.trackers.lost,
    )
