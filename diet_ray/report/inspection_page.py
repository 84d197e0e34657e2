"""An inspection as tables for a terminal and as one HTML page with plots."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Column, Table

from diet_ray.figures import formatted, listed, number, size
from diet_ray.memory.facts import NO_DIFFERENCE, effect
from diet_ray.report.drawing import panel
from diet_ray.report.inspection import BlockPart, Inspection, Spread
from diet_ray.report.inspection_plots import plot_blocks, plot_deltas, plot_drift, plot_shares, plot_soft_labels
from diet_ray.report.page import Panel, Section, Source, write_page
from diet_ray.report.tables import narrow_table

VALUES = "values"
"""Heading of the column that only the page has."""


def sections(inspection: Inspection) -> list[Section]:
    """The tables, each with a note that explains it. What only refinement measures or moves is left out where it has not."""
    names = {part.block: part.name or str(part.block) for part in inspection.blocks}
    influence, weight, in_log = inspection.influence, inspection.weight, inspection.no_log is None
    measured, moved = _measured(inspection), _moved(inspection)
    return [
        Section(
            "Composition by block",
            columns=[
                "block",
                "rows",
                "units",
                "share",
                *(f"{task} = 1{of}" for task in inspection.tasks for of in (["", "\nin the log"] if in_log else [""])),
                *(["mean influence"] if measured else []),
            ],
            rows=[
                [
                    names[part.block],
                    f"{part.rows:,}" if part.rows is not None else "-",
                    f"{part.units:,}",
                    f"{part.share:.1%}",
                    *(cell for task in inspection.tasks for cell in _positives(part, task, in_log=in_log)),
                    *([formatted(part.influence, ".2e")] if measured else []),
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
                *(["|delta|, median", "|delta|, largest", "moved"] if moved else []),
                "ids before",
                "cosine",
                "drift",
            ],
            rows=[
                [
                    part.field,
                    f"{part.ids:,}",
                    formatted(part.embedding_norm, ".4f"),
                    *(
                        [
                            formatted(part.delta_norm.median, ".2e"),
                            formatted(part.delta_norm.high, ".2e"),
                            f"{part.moved:.0%}",
                        ]
                        if moved
                        else []
                    ),
                    f"{part.drift_ids:,}",
                    formatted(part.cosine, ".4f"),
                    formatted(part.drift, ".1%"),
                ]
                for part in inspection.fields
            ],
            note="|E| is the mean norm of the units' embeddings"
            + (
                " and |delta| the norm of the delta added to them; moved is the share of units whose delta is not zero. "
                if moved
                else ". "
            )
            + "Cosine and drift compare the table's rows with those of the stage before, for the ids that "
            "both have: the mean cosine, and the rms of the change divided by the rms now.",
        ),
        Section(
            "Weight and influence" if measured else "Weight",
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
                if measured or name == "weight"
            ],
            note="Influence measures how much a training step on the unit lowers the loss on held-out rows, when last measured; positive "
            f"helps. It is positive for {inspection.helping:.1%} of the units, negative for {inspection.harming:.1%}, and zero where it "
            "was not measured."
            if measured
            else "",
        ),
        Section(
            "Most influential units" if measured else "Some units",
            columns=[
                "unit",
                "block",
                *(["influence"] if measured else []),
                *(f"{task}\nlabel, soft" for task in inspection.tasks),
                VALUES,
            ],
            rows=[
                [
                    str(line.unit_id),
                    names[line.block],
                    *([formatted(line.influence, "+.2e")] if measured else []),
                    *(f"{line.labels[task]}, {line.soft_labels[task]:.3f}" for task in inspection.tasks),
                    "\n".join(
                        f"{name}: {' + '.join(map(str, ids)) or '-'}"
                        for name, ids in (line.ids if line.values is None else line.values).items()
                    ),
                ]
                for line in inspection.top
            ],
            note=("By absolute influence. " if measured else "The first by number. ")
            + (
                "Values are those of the log; a unit's input is the embedding of these values, moved by delta."
                if in_log
                else f"Fields are shown as ids, which all fields share: {inspection.no_log}."
            ),
        ),
    ]


def _measured(inspection: Inspection) -> bool:
    """Whether the influence of any unit was measured."""
    return inspection.helping > 0 or inspection.harming > 0


def _moved(inspection: Inspection) -> bool:
    """Whether refinement or alignment moved any unit."""
    return any(part.moved for part in inspection.fields)


def lead(inspection: Inspection) -> str:
    """The summary of the memory in one paragraph."""
    parts = [
        _counts(inspection),
        _size(inspection),
        *_pruned(inspection),
        *_shares(inspection),
        *_refinement(inspection),
    ]
    return " ".join(parts)


def _counts(inspection: Inspection) -> str:
    return (
        f"{inspection.units:,} units for {inspection.rows_seen:,} rows of {inspection.log}, up to block {inspection.block} "
        f"(stage {inspection.stage})."
    )


def _size(inspection: Inspection) -> str:
    return (
        f"The units take {size(inspection.memory_bytes)} on disk, {size(inspection.column_bytes)} uncompressed; "
        f"the embedding table beside it takes {size(inspection.table_bytes)}."
    )


def _pruned(inspection: Inspection) -> list[str]:
    if not inspection.pruned_bytes:
        return []
    return [
        f"The stages up to it keep {size(inspection.kept_bytes or 0)}; {size(inspection.pruned_bytes)} were pruned."
    ]


def _shares(inspection: Inspection) -> list[str]:
    """The shares of positives of the memory and of the log, which differ where the selection takes more of the rare label."""
    blocks = [part for part in inspection.blocks if part.log_positives is not None and part.rows]
    rows = sum(part.rows or 0 for part in blocks)
    if not rows:
        return []
    parts = []
    for task in inspection.tasks:
        of_units = sum(part.positives[task] for part in blocks) / sum(part.units for part in blocks)
        of_log = sum(part.log_positives[task] for part in blocks if part.log_positives) / rows
        parts.append(f"{task} is 1 in {of_units:.1%} of the units and in {of_log:.1%} of the log's rows")
    return [f"{listed(parts)}."]


def _refinement(inspection: Inspection) -> list[str]:
    """What refinement did, as its guard, fresh students on rows of the log, saw it."""
    if inspection.refined is None:
        if _measured(inspection) or _moved(inspection):
            return []
        return ["Nothing was refined, so no unit was moved and no influence measured."]
    before, after = number(inspection.guard_before, 4), number(inspection.guard_after, 4)
    done = effect(inspection.refined, inspection.guard_before, inspection.guard_after)
    if done == NO_DIFFERENCE:
        return [
            f"Refinement of the last stage made no difference that its guard can see (loss {before} before and after)."
        ]
    return [f"Refinement of the last stage was {done} (guard loss {before} before, {after} after)."]


def _positives(part: BlockPart, task: str, *, in_log: bool) -> list[str]:
    cells = [f"{part.positives[task]:,} ({part.positives[task] / part.units:.0%})"]
    if in_log:
        cells.append(f"{part.log_positives[task] / part.rows:.0%}" if part.log_positives and part.rows else "-")
    return cells


def tables_to_print(inspection: Inspection) -> list[str | Table]:
    """The lead and the tables for a terminal; the values of the most influential units are on the page and in the JSON."""
    printed: list[str | Table] = [lead(inspection)]
    for section in sections(inspection):
        n = len(section.columns) - (section.columns[-1] == VALUES)
        first, *figures = section.columns[:n]
        note = section.note if n == len(section.columns) else ""  # one on values, which are not printed
        table = narrow_table(
            Column(first, no_wrap=True),
            *(Column(text, justify="right") for text in figures),
            title=section.heading,
            caption=note or None,
            caption_justify="left",
        )
        for row in section.rows:
            table.add_row(*row[:n])
        printed.append(table)
    return printed


def write_inspection(path: Path, inspection: Inspection) -> list[Path]:
    """Write the page, which needs no other file and no network, and its plots as SVG beside it.

    Args:
        path: the page to write; its folder is made.
        inspection: what to show.

    Returns:
        The files, the page first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path]

    def drawn(figure: Figure, name: str, alt: str) -> Panel:
        written.append(path.with_name(f"{path.stem}-{name}.svg"))
        return panel(figure, written[-1], alt)

    by_block, labels, fields, weights, top = sections(inspection)
    if inspection.no_log is None:
        by_block.panels = [
            drawn(
                plot_shares(inspection, task),
                f"shares-{t}",
                f"Share of {task} = 1 by block, of the units and of the log",
            )
            for t, task in enumerate(inspection.tasks)
        ]
    by_block.panels += [
        drawn(plot_blocks(inspection, task), f"blocks-{t}", f"Units of each block by label of {task}")
        for t, task in enumerate(inspection.tasks)
    ]
    labels.panels = [
        drawn(
            plot_soft_labels(inspection, task), f"soft-labels-{t}", f"Histogram of the soft labels of {task} by label"
        )
        for t, task in enumerate(inspection.tasks)
    ]
    if _moved(inspection):
        figure = plot_deltas(inspection)
        fields.panels.append(drawn(figure, "deltas", "Mean length of delta by field, % of that of the embedding"))
    if any(part.drift_ids for part in inspection.fields):
        figure = plot_drift(inspection)
        fields.panels.append(drawn(figure, "drift", "Drift of the table since the stage before, by field"))
    write_page(
        path,
        f"Memory of {inspection.log}, up to {inspection.block}",
        " ".join([_counts(inspection), *_shares(inspection), *_refinement(inspection)]),
        [by_block, labels, fields, weights, top],
        Source(inspection.log, str(inspection.seed), f"memory {inspection.memory}, stage {inspection.stage}"),
        remarks=[_size(inspection)],
    )
    return written


def _middle(spread: Spread) -> list[str]:
    return [formatted(value, ".3f") for value in (spread.mean, spread.q05, spread.median, spread.q95)]
