"""The page of a sweep: who is best and how sure that is, the plot that shows it, and the tables. It holds nothing of the clock."""

from __future__ import annotations

import math
from pathlib import Path

from diet_ray.figures import listed, mean_sd, number, times
from diet_ray.judge.decision import Decided, Decision
from diet_ray.judge.forest_plot import forest_alt, percent, plot_forest
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.standings import Standing, on_memories
from diet_ray.judge.standings_plot import standing_panels
from diet_ray.report.drawing import panel
from diet_ray.report.page import Section, Source, write_page

PAGE = "leaderboard.html"
"""The page's file; its plots are beside it."""

METRICS = {"auc": "AUC", "logloss": "LogLoss", "gauc": "GAUC", "calibration": "calibration"}


def write_leaderboard(out: Path, board: Leaderboard, source: Source) -> None:
    """Write `leaderboard.html`, which needs no other file, and its plots as SVG; the same result gives the same bytes."""
    sections = _compared(out, board.decision) if board.decision else []
    sections += _standings(out, board)
    remarks = [f"{line}." for line in board.remarks(cost=False)]
    verdict = remarks.pop(0) if board.decision else _first(board)
    how = (
        f"They were launched from {board.units:,} units and met the same {board.rows:,} rows from {board.block} on, each predicted just "
        "before it was learned."
        if board.live
        else f"They were trained on {board.units:,} units, and then judged on {board.rows:,} rows of {board.block}, which no candidate "
        "has learned."
    )
    if board.decision and board.decision.diverged:
        remarks.append(f"Diverged, and left out: {', '.join(board.decision.diverged)}.")
    title = f"{times(len(board.standings), 'candidate')} on {source.log}, {board.block}"
    write_page(out / PAGE, title, verdict, sections, source, remarks=[how, *remarks])


def _compared(out: Path, decision: Decision) -> list[Section]:
    """The difference of every candidate to the best."""
    rows = [
        [
            part.candidate,
            number(part.mean, 4),
            part.against_best("\n"),
            part.group,
            f"{100 * part.best:.0f}\u00a0%",
            number(part.adjusted, 4),
            _rows_needed(part),
        ]
        for part in decision.candidates
    ]
    columns = ["candidate", "loss, nats", "minus the best", "group", "probability\nof being best", "p, corrected"]
    figure = plot_forest(decision.candidates, {*decision.undecided}, percent(decision.confidence))
    return [
        Section(
            "Difference to the best",
            intro="To the right is worse. Candidates on the shaded ground cannot be told from the best.",
            panels=[panel(figure, out / "decision.svg", forest_alt(decision.candidates))],
            columns=[*columns, "rows\nto decide"],
            rows=rows,
            note=f"Intervals and groups hold for all pairs together with {100 * decision.confidence:g} % confidence. Candidates that share "
            "a letter cannot be told apart. Rows to decide: as many would tell the candidate from the best, if the difference stays.",
        )
    ]


def _standings(out: Path, board: Leaderboard) -> list[Section]:
    """The metrics of every candidate, a section per task."""
    if not board.standings:
        return []
    seeds = max(line.seeds for line in board.standings)
    on = on_memories(board.standings)
    note = (
        f"Mean and standard deviation over {seeds} seeds of the candidates, on {on}"
        if seeds > 1
        else f"One seed, on {on}: another seed may change the order"
    )
    if seeds > 1 and not board.memories:
        note += ": another memory of the same log may move all of them"
    lines = [*board.standings, *board.yardsticks]
    return [
        Section(
            f"{task}: all metrics",
            panels=standing_panels(board.standings, task, out, f"standings-{number}"),
            columns=["candidate", *METRICS.values(), "parameters"],
            rows=[[line.candidate, *_cells(line, task), f"{line.parameters:,}"] for line in lines],
            note=note
            + ". Calibration is the mean prediction over the share of positives: 1 is right."
            + (" Names in brackets are no candidates, but what to compare them with." if board.yardsticks else ""),
        )
        for number, task in enumerate(board.tasks)
    ]


def _cells(line: Standing, task: str) -> list[str]:
    """Mean over sd of each metric; an undefined one has its reason instead."""
    reasons = line.undefined.get(task, {})
    return [
        f"undefined\n{reasons[metric]}"
        if metric in reasons
        else mean_sd(line.mean[task][metric], line.sd[task][metric], "\n")
        for metric in METRICS
    ]


def _first(board: Leaderboard) -> str:
    """Who is first, where nothing tells how sure that is."""
    if not board.standings:
        return "No candidate has a result."
    first, *others = board.standings
    several = len(board.tasks) > 1
    values = listed([f"{task} {number(first.mean[task]['auc'], 4)}" for task in board.tasks])
    auc = f"AUC {values}" if several else f"AUC {number(first.mean[board.tasks[0]]['auc'], 4)}"
    sentence = f"{first.candidate} is first of {times(len(board.standings), 'candidate')}, {auc}."
    if others:
        gaps = [first.mean[task]["auc"] - others[0].mean[task]["auc"] for task in board.tasks]
        gap = number(sum(gaps) / len(gaps), 4)
        sentence += f" {others[0].candidate} is second, {gap} below{' on average' if several else ''}."
    return f"{sentence} How sure this order is, is not known: judged on {on_memories(board.standings)}, row by row nothing was compared."


def _rows_needed(part: Decided) -> str:
    if part.rows_needed == 0:
        return "-"
    return number(part.rows_needed, 0) if math.isfinite(part.rows_needed) else "more seeds"
