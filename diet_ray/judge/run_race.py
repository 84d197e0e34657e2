"""Runs a race: launches all candidates from a memory, and lets those that may be the best meet more and more live rows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from diet_ray.candidates import CandidateFile
from diet_ray.errors import ConfigError, DietError
from diet_ray.judge.backfill import Backfill
from diet_ray.judge.decision import CONFIDENCE, decide, diverged
from diet_ray.judge.early import TRIALS, check_out, rung_folder
from diet_ray.judge.fidelity.proof import verdicts_for
from diet_ray.judge.live import distinct_rungs, rungs_of_rows
from diet_ray.judge.live_trial import STATES, LiveContext, kept_losses
from diet_ray.judge.outcomes import Outcomes
from diet_ray.judge.race_page import write_race
from diet_ray.judge.race_rules import (
    RUNGS,
    Budget,
    Confirmation,
    Left,
    Race,
    Rung,
    leaving,
    look_level,
    sentence,
    winner,
    write_lines,
)
from diet_ray.judge.runner import InProcess, Runner
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.sweep_plan import Identity, Inputs, Work, judged_with, planned_works, start_of, trial_context
from diet_ray.judge.trackers import Trackers, open_trackers
from diet_ray.judge.trial import TrialContext
from diet_ray.judge.verdict import Verdict
from diet_ray.memory.download import OnFetch
from diet_ray.report.cost import cost_of, full_by_examples, making
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import locked

FILE = "race.json"
"""The result, in the race's folder."""

LEAST_SEEDS = 2
"""With one seed nothing is known about the noise between seeds, and nobody leaves beyond doubt."""

CONFIRMED = "confirmed"
"""The folder of the trials of the confirmation."""


def race(
    memory: str | Path,
    candidates: CandidateFile | SweepConfig,
    *,
    out: Path,
    log: Path | None = None,
    block: str | None = None,
    rungs: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
    budget: Budget | None = None,
    seeds: int = 2,
    confirm: int = 0,
    restore: bool = False,
    fidelity: Path | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    on_fetch: OnFetch | None = None,
    runner: Runner | None = None,
) -> Race:
    """Launch every candidate from the memory, and find the best one on live rows.

    Writes `race.json`, the page `race.html`, a line per candidate as `race.csv` and `race.parquet`, and per rung the outcome of each trial
    and the losses of single rows to `out/rung-N`. A candidate that diverges or fails leaves; the others race on.

    Args:
        memory: a run folder or one of its stages, or the URI of an archive or of one of its stages.
        candidates: the pool, or a whole config. A search scores launches on held-out rows of the memory's last block; all candidates that
            it has launched race.
        out: folder for the results.
        log: the ingested log; by default the one that was distilled.
        block: the block whose rows the candidates meet first; by default the one after the memory's last.
        rungs: how many blocks they have met after each rung, ascending. By default `RUNGS`, without those that end after the same row as
            the next.
        confidence: of every statement, over all rungs together.
        budget: what the race may cost; the rung that would exceed it is not run. By default there is none.
        seeds: seeds per candidate, two or more.
        confirm: the last `confirm` candidates are trained again by a full backfill, and compared once more; 0 for none.
        restore: continue the race in `out`. Trials whose outcome is there do not run again, and candidates go on from where they stand.
        fidelity: folder of a fidelity bench, whose verdict on the order after as many rows the result then shows.
        on_progress: called with the name of the rung, the number of its trials done and their total.
        on_line: called with a line of text after each rung: who is in, who left and why.
        on_fetch: called with a line of text about the progress of an archive's download.
        runner: runs the trials; by default in this process.

    Raises:
        ConfigError: there are fewer than two candidates, an argument is out of its range, the budget is smaller than the first rung, the
            log ends before the last rung, or see `judge_pool`.
        ResourceError: the resources of a trial do not exist, an extra is missing, or a tracker cannot be reached.
        DietError: the memory or the log is damaged, or no candidate finished the first rung.
    """
    runner = runner or InProcess()
    _check(RUNGS if rungs is None else rungs, confidence, seeds, confirm)
    inputs = Inputs.read(memory, candidates, log=log, block=block, moments=True, on_fetch=on_fetch)
    config = inputs.config
    names = [work.name for work in planned_works(config, 1)]
    if len(names) < 2:
        raise ConfigError(
            f"candidates: {', '.join(names)} alone cannot race; name two or more, or use `diet-ray sweep`"
        )
    if config.resources.gpus:
        raise ConfigError("key 'resources.gpus': live candidates use the CPU; set it to 0")
    check_out(out, "race", restore=restore)
    if rungs is None:
        rungs = distinct_rungs(inputs.log, inputs.judged_on, RUNGS, inputs.memory.stage.config.reference.batch_size)
    proof = verdicts_for(fidelity, inputs.memory.stage.config, inputs.log, live=rungs[-1]) if fidelity else []
    plan = _Plan.of(inputs, rungs, confidence, seeds, budget, out)
    plan.check_budget(len(names))
    runner.check(config)  # the first use of a cluster: what the user may have mistaken has been checked
    trackers = open_trackers(config.trackers, out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        try:
            running = _Running(plan, runner, trackers, on_progress or (lambda *_: None), on_line or (lambda _: None))
            running.run()
            confirmation = running.confirm(confirm) if confirm else None
        finally:
            trackers.close()
            shutil.rmtree(out / "tune", ignore_errors=True)  # Ray's own record; the outcomes are in the rungs' folders
        result = running.result(confirmation).model_copy(update={"fidelity": proof})
        write_json(out / FILE, result)
        write_lines(out, result)
        write_race(out, result, inputs.source(seeds))
        if result.ended != "budget":  # with a larger budget they go on from there
            shutil.rmtree(out / STATES, ignore_errors=True)
    return result


def read_race(out: Path) -> Race:
    """The result in a race's folder. Raises CorruptArtefactError where it is missing or damaged."""
    return parse_json(Race, out / FILE)


def _check(rungs: Sequence[float], confidence: float, seeds: int, confirm: int) -> None:
    if not rungs or any(not 0 < rung < math.inf for rung in rungs) or sorted(set(rungs)) != list(rungs):
        shown = ",".join(f"{rung:g}" for rung in rungs)
        raise ConfigError(f"--rungs {shown}: must be numbers of blocks above 0, each larger than the one before")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"--confidence {confidence:g}: must be at least 0.5 and less than 1, such as 0.95")
    if seeds < LEAST_SEEDS:
        raise ConfigError(
            f"--seeds {seeds}: a race needs {LEAST_SEEDS} or more, because one seed says nothing about the noise between seeds"
        )
    if confirm == 1 or confirm < 0:
        raise ConfigError(
            f"--confirm {confirm}: must be 0, or 2 or more candidates, because one alone is compared with nothing"
        )


@dataclass(frozen=True)
class _Plan:
    """What a race is to do."""

    inputs: Inputs
    shares: list[float]
    confidence: float
    seeds: int
    budget: Budget | None
    contexts: list[TrialContext]
    """Per rung: what its trials share."""
    backfill: Backfill
    """A full training: all blocks before the first live one."""
    identity: Identity
    out: Path

    @staticmethod
    def of(
        inputs: Inputs, rungs: Sequence[float], confidence: float, seeds: int, budget: Budget | None, out: Path
    ) -> _Plan:
        start = start_of(inputs)
        rows = rungs_of_rows(inputs.log, inputs.judged_on, rungs, start.reference.batch_size)
        lives = [
            LiveContext(start, met, [], rung_folder(out, number).resolve(), states=out.resolve() / STATES, keep=True)
            for number, met in enumerate(rows, start=1)
        ]
        first = trial_context(inputs, lives[0])
        # Launches are scored in the first rung alone: later, candidates have learned rows that are newer than the held-out ones.
        later = [
            replace(first, live=live, rows=live.rows.rows, held=None, steps=[first.student.steps]) for live in lives[1:]
        ]
        whole = inputs.identity(lives[-1])
        identity = replace(whole, shared={**whole.shared, "rungs": [len(met.rows) for met in rows]})
        backfill = Backfill(inputs.log, inputs.log.blocks[: inputs.judged_on.index], start.reference)
        return _Plan(inputs, list(rungs), confidence, seeds, budget, [first, *later], backfill, identity, out)

    @property
    def launch(self) -> int:
        """Examples that a student learns in its launch."""
        student = self.contexts[0].student
        return student.steps * student.batch_size

    @property
    def rows_of_log(self) -> int:
        """Rows of a full training."""
        return self.backfill.rows

    def new_rows(self, number: int) -> int:
        """Rows that are met first in a rung."""
        before = len(self.contexts[number - 2].rows) if number > 1 else 0
        return len(self.contexts[number - 1].rows) - before

    def check_budget(self, candidates: int) -> None:
        """Raise ConfigError where the budget is smaller than the first rung; one in seconds is known only after it."""
        cost = candidates * self.seeds * (self.launch + self.new_rows(1)) / self.rows_of_log
        if self.budget and self.budget.unit == "x" and cost > self.budget.amount:
            raise ConfigError(
                f"--budget {self.budget}: {candidates} launches with {self.seeds} seeds and the first rung cost what {cost:.1f} full "
                "trainings cost; raise it, or name fewer candidates"
            )


@dataclass
class _Running:
    """A race that runs."""

    plan: _Plan
    runner: Runner
    trackers: Trackers
    on_progress: Callable[[str, int, int], None]
    on_line: Callable[[str], None]
    rungs: list[Rung] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    """Of the candidates that are in, the first rung's order."""
    specs: dict[str, Work] = field(default_factory=dict)
    """A work of each candidate, the first rung's order."""
    standing: list[str] = field(default_factory=list)
    """The candidates that are in, the best first."""

    def run(self) -> None:
        """Run rung by rung until the race ends."""
        for number in range(1, len(self.plan.contexts) + 1):
            if number > 1 and (len(self.standing) == 1 or self._too_dear(number)):
                break
            self._rung(number)
        for work in self.works:
            self.trackers.end_open(work.trial, "finished")

    def _rung(self, number: int) -> None:
        plan, context = self.plan, self.plan.contexts[number - 1]
        folder = rung_folder(plan.out, number)
        outcomes = self._outcomes(folder, f"rung {number}/{len(plan.contexts)}", rows=len(context.rows))
        if number == 1:
            self.works = self.runner.run(plan.inputs.config, context, plan.seeds, outcomes, plan.out)
            for work in self.works:
                self.specs.setdefault(work.name, work)
        else:
            self.runner.run_works(self.works, plan.inputs.config, context, outcomes, plan.out)
        entered = list(dict.fromkeys(work.name for work in self.works))
        verdicts, unfinished = _collected(self.works, outcomes, number)
        losses = _losses(folder, verdicts, unfinished, plan.inputs.log.schema.tasks)
        level = look_level(plan.confidence, len(plan.contexts))
        decision = decide(losses, context.rows.user, confidence=level)
        wild = [
            Left(candidate=name, rung=number, how="diverged", why="its loss is not finite") for name in diverged(losses)
        ]
        left = [*leaving(decision, number), *wild, *unfinished.values()]
        gone = {one.candidate for one in left}
        order = [part.candidate for part in decision.candidates] if decision else entered
        self.standing = [name for name in order if name not in gone]
        if not self.standing:
            raise DietError(
                f"rung {number}: no candidate is left; {left[0].candidate} {left[0].how}: {left[0].why}; fix it and run the race "
                "again with --restore"
            )
        entered_works, self.works = self.works, [work for work in self.works if work.name in self.standing]
        rung = Rung(
            share=plan.shares[number - 1],
            rows=len(context.rows),
            entered=len(entered),
            decision=decision,
            left=left,
            examples=self._examples(outcomes, number, entered_works),
            cpu_seconds=_cpu_seconds(verdicts),
        )
        self.rungs.append(rung)
        for work in entered_works:
            if work.name in gone:
                self.trackers.end_open(work.trial, "stopped")
                self._forget(work)
        self.on_line(_line(rung, number, len(plan.contexts), self.standing))

    def _examples(self, outcomes: Outcomes, number: int, works: list[Work]) -> int:
        """The examples that the trials of a rung have learned; what a failed one learned is not known, and not counted."""
        plan, examples = self.plan, 0
        whole = plan.new_rows(number) + (plan.launch if number == 1 else 0)
        for work in works:
            outcome = outcomes.of(work)
            if outcome:
                steps = outcome.scores[-1].step if not outcome.verdicts else 0
                examples += len(work.seeds) * (steps * plan.contexts[0].student.batch_size or whole)
        return examples

    def _too_dear(self, number: int) -> bool:
        """Whether the next rung would cost more than the budget leaves."""
        plan, budget = self.plan, self.plan.budget
        if budget is None:
            return False
        students = sum(len(work.seeds) for work in self.works)
        examples, spent = students * plan.new_rows(number), sum(rung.examples for rung in self.rungs)
        if budget.unit == "x":
            return (spent + examples) / plan.rows_of_log > budget.amount
        seconds = sum(rung.cpu_seconds for rung in self.rungs)
        return seconds + examples * seconds / spent > budget.amount

    def _forget(self, work: Work) -> None:
        """Remove where a candidate stands that has left: a table with its moments."""
        store, begin = FolderStore(self.plan.out), f"{self.plan.identity(work)}-"
        for name in store.names(STATES):
            if name.startswith(begin):
                store.delete(f"{STATES}/{name}")

    def confirm(self, count: int) -> Confirmation:
        """Train the last `count` candidates again by a full backfill, and compare them on the rows of the last planned rung."""
        plan, inputs = self.plan, self.plan.inputs
        latest = [one.candidate for rung in reversed(self.rungs) for one in rung.left if one.decided]
        names = [*self.standing, *latest][:count]
        works = [self.specs[name].model_copy(update={"seeds": [seed]}) for name in names for seed in range(plan.seeds)]
        context, folder = plan.contexts[-1], plan.out / CONFIRMED
        assert context.live is not None, "a race is live"
        states = folder.resolve() / STATES
        live = replace(context.live, out=folder.resolve(), states=states, keep=False, backfill=plan.backfill)
        outcomes = self._outcomes(folder, "full backfills")
        self.runner.run_works(works, inputs.config, replace(context, live=live), outcomes, plan.out)
        verdicts, unfinished = _collected(works, outcomes, len(self.rungs))
        losses = _losses(folder, verdicts, unfinished, inputs.log.schema.tasks)
        return Confirmation(
            decision=decide(losses, context.rows.user, confidence=plan.confidence),
            failed={name: one.why for name, one in unfinished.items()},
            rows=len(context.rows),
            examples=len(verdicts) * (plan.rows_of_log + len(context.rows)),
            cpu_seconds=_cpu_seconds(verdicts),
        )

    def result(self, confirmation: Confirmation | None) -> Race:
        """What the race has found."""
        plan, inputs = self.plan, self.plan.inputs
        all_run = len(self.rungs) == len(plan.contexts)
        parts: list[Rung | Confirmation] = [*self.rungs, *([confirmation] if confirmation else [])]
        cpu_seconds, examples = sum(part.cpu_seconds for part in parts), sum(part.examples for part in parts)
        trainings, rows = len(self.specs) * plan.seeds, plan.rows_of_log + self.rungs[-1].rows
        stage = inputs.memory.stage
        made = making(inputs.folder, stage.index, stage.config.cluster.model_dump())
        race = Race(
            memory=inputs.name,
            units=len(inputs.memory),
            stage=inputs.memory.stage.index,
            log=str(inputs.log.path),
            block=inputs.judged_on.name,
            tasks=inputs.log.schema.tasks,
            confidence=plan.confidence,
            seeds=plan.seeds,
            shares=plan.shares,
            budget=str(plan.budget) if plan.budget else None,
            rungs=self.rungs,
            full_trainings=round(examples / plan.rows_of_log, 4),
            cpu_seconds=round(cpu_seconds, 4),
            ended="winner" if len(self.standing) == 1 else "rungs" if all_run else "budget",
            winner=winner(self.standing, confirmation),
            standing=self.standing,
            confirmation=confirmation,
            rows_of_log=plan.rows_of_log,
            cost=cost_of(
                cpu_seconds,
                full_by_examples(cpu_seconds, trainings=trainings, examples=examples, rows=rows),
                trainings=trainings,
                candidates=len(self.specs),
                memory=made.seconds if made else None,
            ),
            candidates={name: work.spec for name, work in self.specs.items()},
            untracked=self.trackers.lost,
            versions=judged_with(inputs.config),
        )
        return race.model_copy(update={"sentence": sentence(race)})

    def _outcomes(self, folder: Path, name: str, *, rows: int | None = None) -> Outcomes:
        """The outcomes of a rung after so many rows, or of the confirmation."""
        FolderStore(self.plan.out).make(f"{folder.name}/{TRIALS}")  # refuses a link

        def on_progress(done: int, total: int) -> None:
            self.on_progress(name, done, total)

        trackers = (
            self.trackers if rows is not None else Trackers({})
        )  # a backfill is another training than the one they show
        return Outcomes(folder / TRIALS, self.plan.identity, trackers, on_progress, rung=rows)


def _collected(works: list[Work], outcomes: Outcomes, rung: int) -> tuple[list[Verdict], dict[str, Left]]:
    """The verdicts of works, and by name the candidates that did not finish all of theirs."""
    verdicts: list[Verdict] = []
    unfinished: dict[str, Left] = {}
    for work in works:
        outcome = outcomes.of(work)
        if outcome is None:
            why = outcomes.failed[outcomes.identity(work)].why
            unfinished[work.name] = Left(candidate=work.name, rung=rung, how="failed", why=why)
        elif not outcome.verdicts:
            why = f"after {outcome.scores[-1].step} steps"
            unfinished[work.name] = Left(candidate=work.name, rung=rung, how="stopped", why=why)
        verdicts += (
            [verdict.model_copy(update={"candidate": work.name}) for verdict in outcome.verdicts] if outcome else []
        )
    return verdicts, unfinished


def _losses(
    folder: Path, verdicts: list[Verdict], unfinished: dict[str, Left], tasks: list[str]
) -> dict[str, np.ndarray]:
    """See `kept_losses`; of the candidates that finished."""
    return kept_losses(folder, [verdict for verdict in verdicts if verdict.candidate not in unfinished], tasks)


def _cpu_seconds(verdicts: list[Verdict]) -> float:
    return round(sum(verdict.train_seconds for verdict in verdicts), 4)


def _line(rung: Rung, number: int, rungs: int, standing: list[str]) -> str:
    """Who is in after a rung, who left and why."""
    left = "; ".join(f"{one.candidate} left, {one.how}: {one.why}" for one in rung.left)
    line = f"rung {number}/{rungs}, {rung.rows:,} rows: {len(standing)} in, {standing[0]} ahead"
    return f"{line}; {left}" if left else line
