"""The figures of speed in README.md and docs/results.md; their only source is benchmarks/results.

    python -m benchmarks.speed.speed_table

Each row is one claim: the measure, the result, the target and the machine. The page also has the detailed figures of the claims. A
benchmark that has not been run has no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.machine import Machine
from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.fidelity.published_logs import README, RESULTS
from benchmarks.speed import bilevel, gpu, ingest, plain
from benchmarks.speed.plain import TARGET, PlainResult
from benchmarks.speed.scoring_figures import Figures, ScoringResult
from benchmarks.speed.stream import EARLY, LATE, StreamResult, at

PAGE = README.parent / "docs" / "results.md"
COMMAND = "python -m benchmarks.speed.speed_table"
COLUMNS = ["claim", "measured", "aim", "machine"]

WINDOW = 20
"""The window of the round that the README shows: the default."""


class Claim(NamedTuple):
    """One row of the table."""

    claim: str
    measured: str
    aim: str
    machine: Machine
    gpu: str = ""
    first: bool = False
    """Whether the row is in the README too."""

    def row(self) -> list[str]:
        """The cells of the row."""
        where = f"{self.machine.cores} cores of {self.machine.processor}, load {self.machine.load:.1f} before"
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
    if ingests := parsed(ingest.IngestResult, results / "ingest.json"):
        rows += of_ingests(ingests)
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
        yield Claim(what, ratios, "<= 0.25, <= 0.33", result.machine, first=window == WINDOW)


def of_scoring(result: ScoringResult) -> Iterator[Claim]:
    """Scoring, compared with a plain loop."""
    for number, (what, ratio, aim) in enumerate(Figures(result).ratios()):
        yield Claim(f"scoring: {what}", ratio, aim, result.machine, first=number == 0)


def of_stages(result: StreamResult) -> Iterator[Claim]:
    """Late stages, compared with early ones."""
    for figure, title in (("cpu", "CPU seconds"), ("seconds", "seconds"), ("peak", "peak memory")):
        ratio = at(result.cap, LATE, figure) / at(result.cap, EARLY, figure)
        what = f"under a cap, stages {LATE.start}-{LATE.stop - 1} over stages {EARLY.start}-{EARLY.stop - 1}: {title}"
        yield Claim(what, f"{ratio:.2f}", "0.9 to 1.1", result.machine, first=figure == "cpu")


def of_ways(result: PlainResult) -> Iterator[Claim]:
    """`diet-ray distill`, compared with the plain script, and a candidate on a memory, compared with a pass over the full log."""
    for number, case in enumerate(result.cases):
        what = f"`diet-ray distill` on {case.rows:,} rows of KuaiRand ({case.case}), over a script without Ray: seconds"
        yield Claim(
            what, f"{case.ratio(case.timings[-1]):.2f}", f"<= {TARGET}", result.machines["cases"], first=number == 0
        )
    if result.costs:
        horizons = sorted({cost.steps for cost in result.costs}, reverse=True)
        ratios = "; ".join(_cost(result, steps) for steps in dict.fromkeys(horizons[:1] + horizons[-1:]))
        what = "a candidate on all of Complete Journey over one on a memory of 1 %: CPU seconds (AUC won)"
        yield Claim(what, ratios, ">= 60", result.machines["costs"], first=True)


def _cost(result: PlainResult, steps: int) -> str:
    costs = [cost for cost in result.costs if cost.steps == steps]
    ratios, gains = [cost.ratio() for cost in costs], [cost.memory_auc - cost.full_auc for cost in costs]
    return f"{min(ratios):.0f} to {max(ratios):.0f} ({min(gains):+.4f} to {max(gains):+.4f}) at {steps} steps"


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


def of_devices(result: gpu.GpuResult) -> Iterator[Claim]:
    """A GPU, compared with the CPU."""
    base = {part.what: part.seconds for part in result.parts if (part.device, part.precision) == ("cpu", "float32")}
    for number, part in enumerate(part for part in result.parts if part.device != "cpu"):
        what = f"{part.what}: seconds of {result.threads} threads of the CPU over those of the GPU in {part.precision}"
        ratio = f"{base[part.what] / part.seconds:.1f}"
        yield Claim(what, ratio, "", result.machine, result.gpu or "", first=number == 0)


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
    if ingests := parsed(ingest.IngestResult, results / "ingest.json"):
        yield f"### Ingest\n\n{ingests.machine}.\n\n{markdown(*ingest.table(ingests))}"
    if devices := parsed(gpu.GpuResult, results / "gpu.json"):
        yield f"### GPU\n\n{gpu.title(devices)}.\n\n{markdown(*gpu.table(devices))}"


def readme(text: str, results: Path = RESULTS) -> str:
    """The README with the first claims between the marks."""
    rows = [claim.row() for claim in claims(results) if claim.first]
    return filled(text, "speed", COMMAND, markdown(COLUMNS, rows) if rows else NOT_YET, gap="\n")


def page(text: str, results: Path = RESULTS) -> str:
    """docs/results.md with all claims and their detailed tables."""
    rows = [claim.row() for claim in claims(results)]
    parts = [markdown(COLUMNS, rows), *behind(results)] if rows else [NOT_YET]
    return filled(text, "speed", COMMAND, "\n\n".join(parts))


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
