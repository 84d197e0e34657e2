"""The part of the fidelity report that shows the protocol `live`."""

from __future__ import annotations

from diet_ray.judge.fidelity.live.measures import MEASURES
from diet_ray.judge.fidelity.live.pictures import LivePictures
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.live.words import KEY, MEANINGS, cell, meaning
from diet_ray.judge.fidelity.names import start_name
from diet_ray.judge.fidelity.words import NEXT
from diet_ray.report.page import Section


def live_sections(pictures: LivePictures, cost: LiveCost) -> list[Section]:
    """The sections of the report; draws their pictures."""
    result = pictures.result
    sections = [
        Section(
            "Live: agreement against the share of the block",
            intro="How well the candidates' losses on the first rows of a block predict their order on the full log over the whole block. "
            "The bands are 95 % intervals of the memory and of the ceiling.",
            panels=[pictures.curve(task) for task in result.tasks],
        ),
        Section(
            "Live: every candidate",
            intro="One mark per candidate; bars are one standard deviation over seeds. Losses are relative to the median of the candidates "
            "in each block. Lower is better on both axes.",
            panels=[panel for task in result.tasks for panel in pictures.scatters(task)],
        ),
    ]
    for task in result.tasks:
        for number, share in enumerate(result.shares):
            sections.append(
                Section(
                    f"Live: {task} after {100 * share:.3g} % of the block",
                    columns=["start", *_titles(tuple(MEASURES))],
                    rows=[
                        [start_name(start.name), *(cell(name, start.measured[task][number][name]) for name in MEASURES)]
                        for start in result.starts
                    ],
                    level=3,
                )
            )
    sections += [
        Section(
            "Live: the memory minus other starts",
            columns=["difference", "task", *_titles(KEY)],
            rows=differences(result, NEXT),
            note=f"After {100 * result.shares[0]:.3g} % of a block, from the same bootstrap draws. An interval that contains 0 shows no "
            "difference.",
        ),
        Section("Live: cost", columns=["start", "CPU s before", "CPU s live"], rows=cost_rows(cost)),
        Section(
            "Live: what the starts are",
            columns=["start", "what a candidate has before its first live row"],
            rows=[[start_name(start.name), meaning(start.name)] for start in result.starts],
        ),
        Section(
            "Live: what the measures mean",
            columns=["measure", "in plain words"],
            rows=[list(pair) for pair in MEANINGS],
        ),
    ]
    return sections


def differences(result: LiveResult, separator: str) -> list[list[str]]:
    """The lines of the table of differences, after the first share."""
    return [
        [
            f"{start_name(difference.first)} minus {start_name(difference.second)}",
            task,
            *(cell(name, difference.measured[task][0][name], separator, signed=True) for name in KEY),
        ]
        for difference in result.differences
        for task in result.tasks
    ]


def cost_rows(cost: LiveCost) -> list[list[str]]:
    """The lines of the table of costs."""
    return [[start_name(start.start), f"{start.before:.2f}", f"{start.live:.2f}"] for start in cost.starts]


def _titles(names: tuple[str, ...]) -> list[str]:
    return [MEASURES[name].title for name in names]
