"""The figures of speed in docs/results.md; their only source is benchmarks/results.

    python -m benchmarks.speed.speed_table

Each row is one claim: the measure, the result, the target and the machine. The page also has the detailed figures of the claims. A
benchmark that has not been run has no rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.machine import Machine
from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.fidelity.pages import README
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed import backfills, bilevel, break_even, gpu, ingest, passes, plain, start, students
from benchmarks.speed.plain import TARGET, PlainResult
from benchmarks.speed.scoring_figures import Figures, ScoringResult
from benchmarks.speed.stream import EARLY, LATE, StreamResult, at
from diet_ray.figures import listed

PAGE = README.parent / "docs" / "results.md"
COMMAND = "python -m benchmarks.speed.speed_table"
COLUMNS = ["claim", "measured", "aim", "machine"]


class Claim(NamedTuple):
    """One row of the table."""

    claim: str
    measured: str
    aim: str
    machine: Machine
    gpu: str = ""

    def row(self) -> list[str]:
        """The cells of the row."""
        where = f"{self.machine.hardware}, load {self.machine.load:.1f} before"
        return [self.claim, self.measured, self.aim, f"{self.gpu}; {where}" if self.gpu else where]


def claims(results: Path) -> list[Claim]:
    """All claims for which there are figures."""
    rows: list[Claim] = []
    if rounds := parsed(bilevel.Result, results / "bilevel.json"):
        rows += of_rounds(rounds)
    if scores := parsed(ScoringResult, results / "scoring.json"):
        rows += of_scoring(scores)
    if stages := parsed(StreamResult, results / "stream.json"):
        rows += of_stages(stages)
    if ways := parsed(PlainResult, results / "plain.json"):
        rows += of_ways(ways)
    if pays := parsed(break_even.BreakEvenResult, results / "break_even.json"):
        rows += of_break_even(pays)
    if learned := parsed(passes.PassesResult, results / "passes.json"):
        rows += of_passes(learned)
    if trained := parsed(students.StudentsResult, results / "students.json"):
        rows += of_students(trained)
    if filled_up := parsed(backfills.BackfillsResult, results / "backfills.json"):
        rows.append(of_backfills(filled_up))
    if ingests := parsed(ingest.IngestResult, results / "ingest.json"):
        rows += of_ingests(ingests)
    if starts := parsed(start.StartResult, results / "start.json"):
        rows += of_starts(starts)
    if devices := parsed(gpu.GpuResult, results / "gpu.json"):
        rows += of_devices(devices)
    return rows


def of_rounds(result: bilevel.Result) -> Iterator[Claim]:
    """A bi-level round, compared with `higher`."""
    by = {(figure.net, figure.window, figure.by): figure for figure in result.figures}
    for net, window in dict.fromkeys((figure.net, figure.window) for figure in result.figures):
        ours, theirs = by[net, window, "diet_ray"], by[net, window, "higher"]
        what = f"a bi-level round of {net}, W = {window}, over the same with `higher`: seconds, peak memory"
        ratios = f"{ours.seconds / theirs.seconds:.2f}, {ours.peak / theirs.peak:.2f}"
        yield Claim(what, ratios, "<= 0.25, <= 0.33", result.machine)


def of_scoring(result: ScoringResult) -> Iterator[Claim]:
    """Scoring, compared with a plain loop."""
    for what, ratio, aim in Figures(result).ratios():
        yield Claim(f"scoring: {what}", ratio, aim, result.machine)


def of_stages(result: StreamResult) -> Iterator[Claim]:
    """Late stages, compared with early ones."""
    for figure, title in (("cpu", "CPU seconds"), ("seconds", "seconds"), ("peak", "peak memory")):
        ratio = at(result.cap, LATE, figure) / at(result.cap, EARLY, figure)
        what = f"under a cap, stages {LATE.start}-{LATE.stop - 1} over stages {EARLY.start}-{EARLY.stop - 1}: {title}"
        yield Claim(what, f"{ratio:.2f}", "0.9 to 1.1", result.machine)


def of_ways(result: PlainResult) -> Iterator[Claim]:
    """`diet-ray distill`, compared with the plain script, and a candidate on a memory, compared with a pass over the full log."""
    for case in result.cases:
        for timing in case.timings[1:]:
            what = f"`{timing.way}` on {case.rows:,} rows of KuaiRand ({case.case}), over a plain script: seconds"
            yield Claim(what, f"{case.ratio(timing):.2f}", f"<= {TARGET}", result.machines["cases"])
    if result.costs:
        horizons = sorted({cost.steps for cost in result.costs}, reverse=True)
        ratios = "; ".join(_cost(result, steps) for steps in dict.fromkeys(horizons[:1] + horizons[-1:]))
        what = "a candidate on all of Complete Journey over one on a memory of 1 %: CPU seconds (AUC won)"
        yield Claim(what, ratios, ">= 60", result.machines["costs"])


def _cost(result: PlainResult, steps: int) -> str:
    costs = [cost for cost in result.costs if cost.steps == steps]
    ratios, gains = [cost.ratio() for cost in costs], [cost.memory_auc - cost.full_auc for cost in costs]
    return f"{min(ratios):.0f} to {max(ratios):.0f} ({min(gains):+.4f} to {max(gains):+.4f}) at {steps} steps"


def of_break_even(result: break_even.BreakEvenResult) -> Iterator[Claim]:
    """After how many candidates a memory pays."""
    for way in dict.fromkeys(making.way for one in result.logs for making in one.makings):
        found = [(one, making) for one in result.logs for making in one.makings if making.way == way]
        what = (
            f"candidates of {break_even.SEEDS} seeds (of one) after which `{way}` by its defaults pays, in CPU seconds"
        )
        pays = "; ".join(
            f"{one.log} {one.pays_after(making, break_even.SEEDS):.1f} ({one.pays_after(making, 1):.1f})"
            for one, making in found
        )
        yield Claim(what, pays, f"<= {break_even.TARGET}", found[0][0].machine)


def of_passes(result: passes.PassesResult) -> Iterator[Claim]:
    """A pass over a log, compared with an earlier build and with FuxiCTR."""
    for one in result.compared:
        what = f"a pass of {one.net} on one core, over {one.other}: rows a second"
        yield Claim(what, f"{one.ratio():.2f}", f">= {passes.AIMS[one.other]}", result.machine)


def of_students(result: students.StudentsResult) -> Iterator[Claim]:
    """A student's steps, compared with a plain loop and with an earlier build."""
    for one in result.trained:
        kind = "launch with a table" if one.launched else "student"
        what = f"200 steps of a {kind}, {one.net} on one core, over {one.other}: CPU seconds"
        aim = f"<= {students.TARGET}" if one.other == students.PLAIN else ""
        yield Claim(what, f"{one.ratio():.2f}", aim, result.machine)


def of_backfills(result: backfills.BackfillsResult) -> Claim:
    """A backfill, compared with a launch and a tenth of a block."""
    figures = result.figures
    ratios = sorted(map(backfills.ratio, figures.candidates))
    what = (
        f"a backfill of {result.weeks - 1} weeks of Complete Journey ({figures.rows:,} rows) over a launch, both with a tenth of the next "
        f"week live, {len(ratios)} candidates: CPU seconds"
    )
    return Claim(what, f"{ratios[0]:.0f} to {ratios[-1]:.0f}", f">= {backfills.TARGET}", figures.machine)


def of_ingests(result: ingest.IngestResult) -> Iterator[Claim]:
    """`diet-ray ingest`, compared with a plain polars script, with an earlier build, and with itself on fewer rows."""
    sizes = sorted({figure.rows for figure in result.figures if figure.way == ingest.LOCAL})
    for way, other, aim in (
        (ingest.LOCAL, ingest.POLARS, f">= {ingest.TARGET}"),
        (ingest.WITH_RAY, ingest.BASE, ""),
    ):
        for rows in sizes:
            ours, theirs = result.of(way, rows), result.of(other, rows)
            if ours and theirs:
                what = (
                    f"`diet-ray ingest` ({way}) of {rows:,} made-up rows over {other}: rows per CPU second, peak memory"
                )
                ratios = f"{ours.rate() / theirs.rate():.2f}, {ours.peak / theirs.peak:.2f}"
                yield Claim(what, ratios, aim, result.machine)
    if len(sizes) > 1:
        few, many = (result.of(ingest.LOCAL, rows) for rows in (sizes[0], sizes[-1]))
        if few and many:
            what = f"`diet-ray ingest` (local), {many.rows:,} rows over {few.rows:,}: peak memory"
            yield Claim(what, f"{many.peak / few.peak:.2f}", "1", result.machine)


def of_starts(result: start.StartResult) -> Iterator[Claim]:
    """The start of commands: CPU seconds, or seconds to the first row, and how many the earlier build takes."""
    for ours in result.commands:
        if ours.build != start.THIS or ours.aim is None:
            continue
        theirs = result.of(ours.command, start.EARLIER)
        before = f" (before {theirs.aimed_at:.2f})" if theirs else ""
        unit = "CPU seconds" if ours.first_row is None else "seconds to the first row"
        yield Claim(
            f"`diet-ray {ours.command}`: {unit}", f"{ours.aimed_at:.2f}{before}", f"<= {ours.aim:g}", result.machine
        )


def of_devices(result: gpu.GpuResult) -> Iterator[Claim]:
    """A GPU, compared with the CPU."""
    base = {part.what: part.seconds for part in result.parts if (part.device, part.precision) == ("cpu", "float32")}
    for part in (part for part in result.parts if part.device != "cpu"):
        what = f"{part.what}: seconds of {result.threads} threads of the CPU over those of the GPU in {part.precision}"
        ratio = f"{base[part.what] / part.seconds:.1f}"
        yield Claim(what, ratio, "", result.machine, result.gpu or "")


def behind(results: Path) -> Iterator[str]:
    """The detailed tables of the claims, where no other page has them."""
    if rounds := parsed(bilevel.Result, results / "bilevel.json"):
        yield f"### A bi-level round\n\n{bilevel.title(rounds)}.\n\n{markdown(*bilevel.table(rounds))}"
    if ways := parsed(PlainResult, results / "plain.json"):
        for case in ways.cases:
            lead = f"{case.rows:,} rows to {case.units:,} units. {ways.machines['cases']}."
            table = markdown(*plain.case_table(case))
            yield f"### With and without Ray: {case.case}\n\n{lead}\n\n{table}"
        if ways.costs:
            table = markdown(*plain.cost_table(ways.costs))
            yield f"### A candidate on the full log and on a memory of 1 %\n\nComplete Journey. {ways.machines['costs']}.\n\n{table}"
    if pays := parsed(break_even.BreakEvenResult, results / "break_even.json"):
        tables = "\n\n".join(markdown(*part(pays)) for part in (break_even.table, break_even.step_table))
        machines = "; ".join(f"{one.log}: {one.machine}" for one in pays.logs)
        controls = [f"{one.control:.2f} ({one.log})" for one in pays.logs if one.control]
        control = f"; a whole pass of dnn took {listed(controls)} times as long as the scaled one" if controls else ""
        counts = listed([f"{len(one.candidates)} ({one.log})" for one in pays.logs])
        lead = (
            "Making is the steps of a finished run and the start of a whole process; for candidates the training alone, the mean "
            f"over {counts} of the default pool. A pass over the full log is measured on its last distilled block and scaled by "
            f"rows{control}. {machines}."
        )
        yield f"### After how many candidates a memory pays\n\n{lead}\n\n{tables}"
    if learned := parsed(passes.PassesResult, results / "passes.json"):
        lead = (
            f"{learned.rows:,} made rows of the shape of {learned.shape}, one thread each, in turns. {learned.machine}."
        )
        yield f"### A pass over a log\n\n{lead}\n\n{markdown(*passes.table(learned))}"
    if trained := parsed(students.StudentsResult, results / "students.json"):
        lead = f"{students.made_steps(trained)}, one thread each, in turns. {trained.machine}."
        yield f"### A student's steps\n\n{lead}\n\n{markdown(*students.table(trained))}"
    if filled_up := parsed(backfills.BackfillsResult, results / "backfills.json"):
        one = filled_up.figures
        lead = (
            f"{one.rows:,} rows distilled to {one.units:,} units. A backfill is measured on {backfills.MEASURED} weeks and scaled by rows; "
            f"a whole pass of dnn took {one.control or math.nan:.2f} times as long as the scaled one. {one.machine}."
        )
        yield f"### A launch and a backfill\n\n{lead}\n\n{markdown(*backfills.table(filled_up))}"
    if ingests := parsed(ingest.IngestResult, results / "ingest.json"):
        yield f"### Ingest\n\n{ingests.machine}.\n\n{markdown(*ingest.table(ingests))}"
    if starts := parsed(start.StartResult, results / "start.json"):
        lead = f"Medians of {len(starts.commands[0].cpu)} turns, whole commands on a tiny log. {starts.machine}."
        yield f"### Start of commands\n\n{lead}\n\n{markdown(*start.table(starts))}"
    if devices := parsed(gpu.GpuResult, results / "gpu.json"):
        yield f"### GPU\n\n{gpu.title(devices)}.\n\n{markdown(*gpu.table(devices))}"


def page(text: str, results: Path = RESULTS) -> str:
    """docs/results.md with all claims and their detailed tables."""
    rows = [claim.row() for claim in claims(results)]
    parts = [markdown(COLUMNS, rows), *behind(results)] if rows else [NOT_YET]
    return filled(text, "speed", COMMAND, "\n\n".join(parts))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
