"""Judges a pool of candidates on a memory: one trial per candidate and seed, and a leaderboard at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from diet_ray.candidates import CandidateFile
from diet_ray.errors import ConfigError, DietError
from diet_ray.judge.decision import Decision, decide
from diet_ray.judge.early import TRIALS, check_out
from diet_ray.judge.fidelity.proof import verdicts_for
from diet_ray.judge.leaderboard import Failed, Leaderboard, Stopped, write_tables
from diet_ray.judge.leaderboard_page import write_leaderboard
from diet_ray.judge.live_trial import STATES, kept_losses
from diet_ray.judge.outcomes import Outcomes
from diet_ray.judge.runner import InProcess, Runner
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.standings import rank
from diet_ray.judge.sweep_plan import Inputs, Work, judged_with, live_context, trial_context
from diet_ray.judge.trackers import open_trackers
from diet_ray.judge.trial import TrialContext
from diet_ray.judge.verdict import Verdict
from diet_ray.judge.yardsticks import yardsticks
from diet_ray.memory.download import OnFetch
from diet_ray.report.cost import Cost, cost_of, full_by_examples, making
from diet_ray.settings import write_json
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import locked


def judge_pool(
    memory: str | Path | Sequence[str | Path],
    candidates: CandidateFile | SweepConfig,
    *,
    out: Path,
    log: Path | None = None,
    block: str | None = None,
    live: float = 0.1,
    slices: Sequence[str] = (),
    seeds: int = 2,
    restore: bool = False,
    fidelity: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_fetch: OnFetch | None = None,
    runner: Runner | None = None,
) -> Leaderboard:
    """Train every candidate on the memory with each seed and judge it on a block that the memory has not seen.

    Writes `leaderboard.json` and, as CSV and as Parquet, `leaderboard` and `verdicts` to `out`, and the outcome of each trial to
    `out/trials`; of live candidates also the losses of single rows to `out/losses`; and the page `leaderboard.html`. A trial that fails
    does not stop the others (`Leaderboard.failed`).

    Args:
        memory: a run folder or one of its stages, or the URI of an archive or of one of its stages; or several such memories of the same
            log and config, made with other seeds. Candidates are then judged on each, and what is said of them holds for other memories.
        candidates: the pool, or a whole config.
        out: folder for the results.
        log: the ingested log; by default the one that was distilled.
        block: the block to judge on; by default the one after the memory's last.
        live: how many blocks the candidates meet live from `block` on; 0.1 for its first tenth. They are launched from the memory with a
            table of their own, judged by progressive validation and ranked by LogLoss. With 0, frozen students are judged.
        slices: fields by whose values the live rows are divided.
        seeds: seeds per candidate, 0 to `seeds - 1`.
        restore: continue the sweep in `out`. Trials whose outcome is there do not run again.
        fidelity: folder of a fidelity bench, whose verdict on the order the leaderboard then shows.
        on_progress: called with the number of trials done and their total.
        on_fetch: called with a line of text about the progress of an archive's download.
        runner: runs the trials; by default in this process.

    Raises:
        ConfigError: several memories differ in more than their seed, or are given to a search that decides by scores; a candidate drops an
            unknown field, the block does not exist or is not later than the memory, the log has fewer blocks than `live` asks for, the
            bench is of another log or memory, or `out` holds a sweep.
        ResourceError: the resources of a trial do not exist, an extra is missing, or a tracker cannot be reached.
        DietError: the memory or the log is damaged, or every trial failed.
    """
    runner = runner or InProcess()
    memories = [memory] if isinstance(memory, str | Path) else list(memory)
    every = [
        Inputs.read(one, candidates, log=log, block=block, moments=live > 0, on_fetch=on_fetch) for one in memories
    ]
    inputs, config = every[0], every[0].config
    for number, other in enumerate(every[1:], start=1):
        for one in every[:number]:
            one.check_alike(other)
    if len(every) > 1 and config.search.guided:
        raise ConfigError(
            "key 'search': a search that decides by scores takes one --memory; name its best candidates in a pool"
        )
    check_out(out, "sweep", restore=restore)
    proof = verdicts_for(fidelity, inputs.memory.stage.config, inputs.log, live=live) if fidelity else []
    met = [live_context(one, share=live, slices=slices, out=out.resolve()) for one in every]
    runner.check(config)  # the first use of a cluster: what the user may have mistaken has been checked
    contexts = [trial_context(one, rows) for one, rows in zip(every, met, strict=True)]
    context = contexts[0]
    trackers = open_trackers(config.trackers, out)
    for name in (TRIALS, *([STATES] if live else [])):
        FolderStore(out).make(name)  # refuses a link
    with locked(out):
        progress = _Progress(on_progress, len(every))
        ran: list[tuple[list[Work], Outcomes]] = []
        try:
            for number, (one, rows, shared) in enumerate(zip(every, met, contexts, strict=True)):
                outcomes = Outcomes(out / TRIALS, one.identity(rows), trackers, progress, memory=number)
                ran.append((runner.run(config, shared, seeds, outcomes, out), outcomes))
                progress.next(outcomes.total)
        finally:
            trackers.close()
            shutil.rmtree(out / "tune", ignore_errors=True)  # Ray's own record; the outcomes are in out/trials
            with suppress(OSError):  # it holds states of trials that did not end
                (out / STATES).rmdir()
        board = _leaderboard(every, ran)
        board = board.model_copy(
            update={
                "rows": len(context.rows),
                "live": live,
                "decision": _decision(out, board, context) if live else None,
                "fidelity": proof,
                "cost": _cost(every, context, board, met_live=len(context.rows) if live else 0),
                "yardsticks": yardsticks(inputs, context.rows),
            }
        )
        write_json(out / "leaderboard.json", board)
        write_tables(out, board)
        write_leaderboard(out, board, inputs.source(seeds))
    return board


class _Progress:
    """Trials done and their total, over all memories; those of a memory that is not yet begun count as many as those of the present one."""

    def __init__(self, on_progress: Callable[[int, int], None] | None, memories: int) -> None:
        self.on_progress, self.left, self.before = on_progress, memories, 0

    def __call__(self, done: int, total: int) -> None:
        if self.on_progress:
            self.on_progress(self.before + done, self.before + total * self.left)

    def next(self, total: int) -> None:
        """A memory is done."""
        self.before, self.left = self.before + total, self.left - 1


def _decision(out: Path, board: Leaderboard, context: TrialContext) -> Decision | None:
    """The candidates compared row by row; where there are several memories, with the noise between them."""
    started: dict[str, list[int]] = {}
    for verdict in board.verdicts:
        started.setdefault(verdict.candidate, []).append(verdict.memory)
    memories = {name: np.array(numbers) for name, numbers in started.items()} if len(board.memories) > 1 else None
    return decide(kept_losses(out, board.verdicts, board.tasks), context.rows.user, memories=memories)


def _cost(every: list[Inputs], context: TrialContext, board: Leaderboard, *, met_live: int) -> Cost:
    """What the sweep cost. A search stops some candidates early; those that were trained to the end are compared."""
    trainings, stage = len(board.verdicts), every[0].memory.stage
    judged = sum(verdict.train_seconds for verdict in board.verdicts)
    learned = context.student.steps * context.student.batch_size + met_live
    made = [making(one.folder, stage.index, one.memory.stage.config.cluster.model_dump()) for one in every]
    known = [one.seconds for one in made if one]
    full = full_by_examples(
        judged / len(every),  # the full log is one, and is learned once with each seed
        trainings=trainings,
        examples=learned * trainings,
        rows=stage.rows_seen + met_live,
    )
    return cost_of(
        judged,
        full,
        trainings=trainings,
        candidates=len(board.standings),
        memory=sum(known) if len(known) == len(every) else None,
        memories=len(every),
    )


def _leaderboard(every: list[Inputs], ran: list[tuple[list[Work], Outcomes]]) -> Leaderboard:
    """The leaderboard of the trials that ran on each memory."""
    inputs = every[0]
    verdicts: list[Verdict] = []
    scores: dict[str, float] = {}
    stopped: list[Stopped] = []
    failed: list[Failed] = []
    for number, (works, outcomes) in enumerate(ran):
        for work in works:
            outcome = outcomes.of(work)
            if outcome is None:
                lost = outcomes.failed[outcomes.identity(work)]
                on = f"on memory {every[number].name}: " if number else ""
                failed.append(lost.model_copy(update={"candidate": work.name, "why": f"{on}{lost.why}"}))
            elif outcome.verdicts:
                own = {"candidate": work.name, "memory": number}
                verdicts += [verdict.model_copy(update=own) for verdict in outcome.verdicts]
                if outcome.scores:
                    scores[work.name] = outcome.scores[-1].score
            else:
                last = outcome.scores[-1]
                stopped.append(Stopped(candidate=work.name, step=last.step, score=last.score))
    if not verdicts:
        first = failed[0]
        raise DietError(f"no trial finished; candidate {first.candidate!r}: {first.why}")
    return Leaderboard(
        memory=inputs.name,
        memories=[one.name for one in every] if len(every) > 1 else [],
        units=len(inputs.memory),
        stage=inputs.memory.stage.index,
        log=str(inputs.log.path),
        block=inputs.judged_on.name,
        rows=inputs.judged_on.rows,
        tasks=inputs.log.schema.tasks,
        student=inputs.memory.stage.config.student,
        standings=rank(verdicts),
        verdicts=verdicts,
        candidates={work.name: work.spec for work in ran[0][0]},
        scores=scores,
        stopped=stopped,
        failed=failed,
        untracked=ran[0][1].trackers.lost,
        versions=judged_with(inputs.config),
    )
