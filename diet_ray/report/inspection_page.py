"""An inspection as tables for a terminal and as one HTML page with plots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Column, Table

from diet_ray.figures import formatted, size
from diet_ray.report.inspection import BINS, Inspection, Spread
from diet_ray.report.page import Panel, Section, panel, write_page

COLOURS = ("#7f8fa6", "#d1603d")
"""Colours of label 0 and label 1."""

MOST_NAMES = 50
"""Blocks that are named below a plot; of more, every second or third one is, and so on."""


def sections(inspection: Inspection) -> list[Section]:
    """The tables, each with a note that explains it."""
    names = {part.block: part.name or str(part.block) for part in inspection.blocks}
    influence, weight = inspection.influence, inspection.weight
    return [
        Section(
            "Composition by block",
            columns=[
                "block",
                "rows",
                "units",
                "share",
                *(f"{task} = 1" for task in inspection.tasks),
                "mean influence",
            ],
            rows=[
                [
                    names[part.block],
                    f"{part.rows:,}" if part.rows is not None else "-",
                    f"{part.units:,}",
                    f"{part.share:.1%}",
                    *(
                        f"{part.positives[task]:,} ({part.positives[task] / part.units:.0%})"
                        for task in inspection.tasks
                    ),
                    formatted(part.influence, ".2e"),
                ]
                for part in inspection.blocks
            ],
        ),
        Section(
            "Labels and soft labels",
            columns=["task, label", "units", "share", "mean", "5 %", "median", "95 %"],
            rows=[
                [f"{part.task} = {part.label}", f"{part.units:,}", f"{part.share:.1%}", *_middle(part.soft_label)]
                for part in inspection.labels
            ],
            note="The label is that of the row from which the unit was made. Mean and quantiles are of the soft label, the target.",
        ),
        Section(
            "Fields",
            columns=[
                "field",
                "ids",
                "|E|",
                "|delta|, median",
                "|delta|, largest",
                "moved",
                "ids before",
                "cosine",
                "drift",
            ],
            rows=[
                [
                    part.field,
                    f"{part.ids:,}",
                    formatted(part.embedding_norm, ".4f"),
                    formatted(part.delta_norm.median, ".2e"),
                    formatted(part.delta_norm.high, ".2e"),
                    f"{part.moved:.0%}",
                    f"{part.drift_ids:,}",
                    formatted(part.cosine, ".4f"),
                    formatted(part.drift, ".1%"),
                ]
                for part in inspection.fields
            ],
            note="|E| is the mean norm of the units' embeddings and |delta| the norm of the delta added to them; moved is the share of "
            "units whose delta is not zero. Cosine and drift compare the table's rows with those of the stage before, for the ids that "
            "both have: the mean cosine, and the rms of the change divided by the rms now.",
        ),
        Section(
            "Weight and influence",
            columns=["", "mean", "least", "5 %", "median", "95 %", "largest"],
            rows=[
                [
                    name,
                    *(
                        formatted(value, form)
                        for value in (values.mean, values.low, values.q05, values.median, values.q95, values.high)
                    ),
                ]
                for name, values, form in (("weight", weight, ".4f"), ("influence", influence, ".2e"))
            ],
            note="Influence measures how much a training step on the unit lowers the loss on held-out rows, when last measured; positive "
            f"helps. It is positive for {inspection.helping:.1%} of the units, negative for {inspection.harming:.1%}, and zero where it "
            "was not measured.",
        ),
        Section(
            "Most influential units",
            columns=["unit", "block", "influence", *(f"{task}\nlabel, soft" for task in inspection.tasks), "ids"],
            rows=[
                [
                    str(line.unit_id),
                    names[line.block],
                    formatted(line.influence, "+.2e"),
                    *(f"{line.labels[task]}, {line.soft_labels[task]:.3f}" for task in inspection.tasks),
                    ", ".join(f"{name} {'+'.join(map(str, ids)) or '-'}" for name, ids in line.ids.items()),
                ]
                for line in inspection.top
            ],
            note="By absolute influence. All fields of the log share one id space.",
        ),
    ]


def lead(inspection: Inspection) -> str:
    """The summary of the memory in one paragraph."""
    guard = ""
    if inspection.refined is not None:
        verdict = "was kept" if inspection.refined else "was not kept"
        before, after = formatted(inspection.guard_before, ".4f"), formatted(inspection.guard_after, ".4f")
        guard = f" Refinement of the last stage {verdict} (guard loss {before} before, {after} after)."
    return (
        f"{inspection.units:,} units for {inspection.rows_seen:,} rows of {inspection.log}, up to block {inspection.block} "
        f"(stage {inspection.stage}): {size(inspection.memory_bytes)} on disk, {size(inspection.column_bytes)} uncompressed; "
        f"the embedding table beside it takes {size(inspection.table_bytes)}.{guard}{_pruned(inspection)}"
    )


def _pruned(inspection: Inspection) -> str:
    if not inspection.pruned_bytes:
        return ""
    return f" The stages up to it keep {size(inspection.kept_bytes or 0)}; {size(inspection.pruned_bytes)} were pruned."


def tables_to_print(inspection: Inspection) -> list[str | Table]:
    """The lead and the tables for a terminal; the ids of the most influential units are on the page and in the JSON."""
    printed: list[str | Table] = [lead(inspection)]
    for section in sections(inspection):
        n = len(section.columns) - (section.columns[-1] == "ids")
        first, *figures = section.columns[:n]
        table = Table(
            Column(first, no_wrap=True), *(Column(text, justify="right") for text in figures), title=section.heading
        )
        for row in section.rows:
            table.add_row(*row[:n])
        printed.append(table)
    return printed


def write_inspection(path: Path, inspection: Inspection) -> list[Path]:
    """Write the page, which needs no other file and no network, and its plots as PNG beside it.

    Args:
        path: the page to write; its folder is made.
        inspection: what to show.

    Returns:
        The files, the page first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path]

    def drawn(figure: Figure, name: str, alt: str) -> Panel:
        written.append(path.with_name(f"{path.stem}-{name}.png"))
        return panel(figure, written[-1], alt)

    by_block, labels, fields, weights, top = sections(inspection)
    by_block.panels = [
        drawn(plot_blocks(inspection, task), f"blocks-{t}", f"Units of each block by label of {task}")
        for t, task in enumerate(inspection.tasks)
    ]
    labels.panels = [
        drawn(
            plot_soft_labels(inspection, task), f"soft-labels-{t}", f"Histogram of the soft labels of {task} by label"
        )
        for t, task in enumerate(inspection.tasks)
    ]
    fields.panels = [drawn(plot_fields(inspection), "fields", "Length of delta and drift of the table, by field")]
    write_page(path, f"Memory of {inspection.log}", lead(inspection), [by_block, labels, fields, weights, top])
    return written


def plot_blocks(inspection: Inspection, task: str) -> Figure:
    """Units of each block: a bar of those with label 0, stacked with those of label 1."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axis = figure.subplots()
    names = [part.name or str(part.block) for part in inspection.blocks]
    ones = np.array([part.positives[task] for part in inspection.blocks])
    zeros = np.array([part.units for part in inspection.blocks]) - ones
    at = np.arange(len(names))
    axis.bar(at, zeros, color=COLOURS[0], label=f"{task} = 0")
    axis.bar(at, ones, bottom=zeros, color=COLOURS[1], label=f"{task} = 1")
    axis.set_ylabel("units")
    every = -(-len(names) // MOST_NAMES)
    axis.set_xticks(at[::every], names[::every], rotation=90)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def plot_soft_labels(inspection: Inspection, task: str) -> Figure:
    """Histogram of the soft label, one outline per label of the row."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axis = figure.subplots()
    edges = np.linspace(0, 1, BINS + 1)
    for part in inspection.labels:
        if part.task == task:
            axis.stairs(
                part.histogram,
                edges,
                fill=True,
                alpha=0.6,
                color=COLOURS[part.label],
                label=f"rows with {task} = {part.label}",
            )
    axis.set_xlabel("soft label")
    axis.set_ylabel("units")
    axis.legend(frameon=False)
    return figure


def plot_fields(inspection: Inspection) -> Figure:
    """Norm of delta relative to that of the embedding, and drift of the table, by field."""
    names = [part.field for part in inspection.fields]
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    relative = [
        100 * part.delta_norm.mean / part.embedding_norm if part.embedding_norm else 0 for part in inspection.fields
    ]
    left.barh(names, relative, color=COLOURS[1])
    left.set_xlabel("mean |delta|, % of the mean |E|")
    right.barh(names, [100 * part.drift for part in inspection.fields], color=COLOURS[0])
    right.set_xlabel("drift since the stage before, % of rms")
    left.invert_yaxis()
    return figure


def _middle(spread: Spread) -> list[str]:
    return [formatted(value, ".3f") for value in (spread.mean, spread.q05, spread.median, spread.q95)]
