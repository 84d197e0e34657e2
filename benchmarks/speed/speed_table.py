"""The figures of speed in README.md and docs/results.md, from benchmarks/results alone.

    python -m benchmarks.speed.speed_table

One row per claim: what was asked, what was found, what was aimed at, and where. The page also has the figures behind a claim. A benchmark
that has not been run has no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.machine import Machine
from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.fidelity.published_logs import README, RESULTS
from benchmarks.speed import bilevel, gpu, plain
from benchmarks.speed.plain import TARGET, PlainResult
from benchmarks.speed.scoring_figures import Figures, ScoringResult
from benchmarks.speed.stream import EARLY, LATE, StreamResult, at

PAGE = README.parent / "docs" / "results.md"
COMMAND = "python -m benchmarks.speed.speed_table"
COLUMNS = ["what", "found", "aim", "on"]

WINDOW = 20
"""The round that is shown first: the default window."""


class Claim(NamedTuple):
    """One row."""

    what: str
    found: str
    aim: str
    machine: Machine
    gpu: str = ""
    first: bool = False
    """Whether it is in the README, too."""

    def row(self) -> list[str]:
        """Of the table."""
        where = f"{self.machine.cores} cores of {self.machine.processor}, load {self.machine.load:.1f} before"
        return [self.what, self.found, self.aim, f"{self.gpu}; {where}" if self.gpu else where]


def claims(results: Path) -> list[Claim]:
    """All that there are figures of."""
    found: list[Claim] = []
    if rounds := parsed(bilevel.Result, results / "bilevel.json"):
        found += of_rounds(rounds)
    if scores := parsed(ScoringResult, results / "scoring.json"):
        found += of_scoring(scores)
    if stages := parsed(StreamResult, results / "stream.json"):
        found += of_stages(stages)
    if ways := parsed(PlainResult, results / "plain.json"):
        found += of_ways(ways)
    if devices := parsed(gpu.GpuResult, results / "gpu.json"):
        found += of_devices(devices)
    return found


def of_rounds(result: bilevel.Result) -> Iterator[Claim]:
    """A bi-level round, beside `higher`."""
    by = {(figure.net, figure.window, figure.by): figure for figure in result.figures}
    for net, window in dict.fromkeys((figure.net, figure.window) for figure in result.figures):
        ours, theirs = by[net, window, "diet_ray"], by[net, window, "higher"]
        what = f"a bi-level round of {net}, W = {window}, over the same with `higher`: seconds, peak memory"
        ratios = f"{ours.seconds / theirs.seconds:.2f}, {ours.peak / theirs.peak:.2f}"
        yield Claim(what, ratios, "<= 0.25, <= 0.33", result.machine, first=window == WINDOW)


def of_scoring(result: ScoringResult) -> Iterator[Claim]:
    """Scoring, beside a plain loop."""
    for number, (what, found, aim) in enumerate(Figures(result).ratios()):
        yield Claim(f"scoring: {what}", found, aim, result.machine, first=number == 0)


def of_stages(result: StreamResult) -> Iterator[Claim]:
    """Late stages, beside early ones."""
    for what, title in (("cpu", "CPU seconds"), ("seconds", "seconds"), ("peak", "peak memory")):
        ratio = at(result.cap, LATE, what) / at(result.cap, EARLY, what)
        asked = f"under a cap, stages {LATE.start}-{LATE.stop - 1} over stages {EARLY.start}-{EARLY.stop - 1}: {title}"
        yield Claim(asked, f"{ratio:.2f}", "0.9 to 1.1", result.machine, first=what == "cpu")


def of_ways(result: PlainResult) -> Iterator[Claim]:
    """`diet-ray distill`, beside the plain script, and a candidate, beside a pass over the full log."""
    for number, case in enumerate(result.cases):
        what = f"`diet-ray distill` on {case.rows:,} rows of KuaiRand ({case.case}), over a script without Ray: seconds"
        yield Claim(
            what, f"{case.ratio(case.timings[-1]):.2f}", f"<= {TARGET}", result.machines["cases"], first=number == 0
        )
    if result.costs:
        horizons = sorted({cost.steps for cost in result.costs}, reverse=True)
        found = "; ".join(_cost(result, steps) for steps in dict.fromkeys(horizons[:1] + horizons[-1:]))
        what = "a candidate on all of Complete Journey over one on a memory of 1 %: CPU seconds (AUC won)"
        yield Claim(what, found, ">= 60", result.machines["costs"], first=True)


def _cost(result: PlainResult, steps: int) -> str:
    some = [cost for cost in result.costs if cost.steps == steps]
    ratios, won = [one.ratio() for one in some], [one.memory_auc - one.full_auc for one in some]
    return f"{min(ratios):.0f} to {max(ratios):.0f} ({min(won):+.4f} to {max(won):+.4f}) at {steps} steps"


def of_devices(result: gpu.GpuResult) -> Iterator[Claim]:
    """A GPU, beside the CPU."""
    base = {part.what: part.seconds for part in result.parts if (part.device, part.precision) == ("cpu", "float32")}
    for number, one in enumerate(part for part in result.parts if part.device != "cpu"):
        what = f"{one.what}: seconds of {result.threads} threads of the CPU over those of the GPU in {one.precision}"
        found = f"{base[one.what] / one.seconds:.1f}"
        yield Claim(what, found, "", result.machine, result.gpu or "", first=number == 0)


def behind(results: Path) -> Iterator[str]:
    """The tables behind the claims, where no other page has them."""
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
    if devices := parsed(gpu.GpuResult, results / "gpu.json"):
        yield f"### GPU\n\n{gpu.title(devices)}.\n\n{markdown(*gpu.table(devices))}"


def readme(text: str, results: Path = RESULTS) -> str:
    """The README with the first claims between the marks."""
    rows = [claim.row() for claim in claims(results) if claim.first]
    return filled(text, "speed", COMMAND, markdown(COLUMNS, rows) if rows else NOT_YET, gap="\n")


def page(text: str, results: Path = RESULTS) -> str:
    """docs/results.md with all of them, and what is behind them."""
    rows = [claim.row() for claim in claims(results)]
    parts = [markdown(COLUMNS, rows), *behind(results)] if rows else [NOT_YET]
    return filled(text, "speed", COMMAND, "\n\n".join(parts))


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
