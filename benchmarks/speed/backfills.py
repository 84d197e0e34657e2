"""A candidate launched from a memory and live on a tenth of a block, compared with its backfill of the whole log, in CPU seconds.

    python -m benchmarks.speed.backfills --work WORK [--every 3] [--run RUN]

It ingests all weeks of Complete Journey and distils all but the last by the shipped defaults. Then it judges the default pool, or every
n-th candidate of it, as `diet-ray --local sweep` does, with one seed: launched from the memory, and live on the first tenth of the last
week. A backfill learns all weeks but the last and the same live rows; it is measured on the last distilled weeks and scaled by rows, and
a whole pass of `dnn` shows how exact this is. It takes about 15 minutes on one core. Figures go to benchmarks/results/backfills.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.break_even import BreakEven, Candidate, measure
from diet_ray.settings import Settings, write_json

RESULT = RESULTS / "backfills.json"
LOG, WEEKS = "complete-journey", 53
TARGET = 60
"""How many times the CPU seconds a backfill is to take, for every candidate."""
MEASURED = 2
"""Weeks on which a backfill is measured."""


class BackfillsResult(Settings):
    """The results of this benchmark."""

    weeks: int
    """Of the log; all but the last are distilled."""
    figures: BreakEven


def ratio(candidate: Candidate) -> float:
    """CPU seconds of the backfill over those of the launch and the live tenth."""
    return candidate.full / candidate.memory


def table(result: BackfillsResult) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    rows = [
        [one.candidate, f"{one.memory:.2f}", f"{one.full:.1f}", f"{ratio(one):.0f}"]
        for one in sorted(result.figures.candidates, key=ratio)
    ]
    return ["candidate", "launch and live, CPU s", "backfill and live", "ratio"], rows


def main() -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the runs")
    parser.add_argument("--every", type=int, default=1, help="judge every so many candidates of the pool")
    parser.add_argument("--run", type=Path, help="a run of this log that `diet-ray --local distill` made")
    parser.add_argument("--weeks", type=int, default=WEEKS, help="weeks of the log")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    figures = measure(
        LOG,
        None,
        options.work,
        ray=False,
        pass_blocks=MEASURED,
        every=options.every,
        before=options.run,
        control=True,
        blocks=options.weeks,
    )
    result = BackfillsResult(weeks=options.weeks, figures=figures)
    write_json(options.out, result)
    show(*table(result), f"Target: {TARGET} for every candidate; control {figures.control}; {figures.machine}")


if __name__ == "__main__":
    main()
