"""The plots of an inspection: units by block, soft labels, and how far fields were moved."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from diet_ray.report.drawing import INK, SERIES, WIDTH, by_block, styled
from diet_ray.report.inspection import BINS, Inspection
from diet_ray.report.page import COLOURS

OF_LABEL = (COLOURS["slate"][0], SERIES[1])
"""Colours of label 0 and label 1."""


@styled
def plot_shares(inspection: Inspection, task: str) -> Figure:
    """Share of positives of each block: of its units, and of its rows in the log where they are known."""
    figure, axis = by_block([part.name or str(part.block) for part in inspection.blocks])
    of_units = [100 * part.positives[task] / part.units for part in inspection.blocks]
    of_log = [
        100 * part.log_positives[task] / part.rows if part.log_positives and part.rows else math.nan
        for part in inspection.blocks
    ]
    axis.plot(of_units, "o-", color=SERIES[0], label="units")
    axis.plot(of_log, "s--", color=INK, label="rows of the log")
    axis.set_ylim(bottom=0)
    axis.set_ylabel(f"{task} = 1, %")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def plot_blocks(inspection: Inspection, task: str) -> Figure:
    """Units of each block: a bar of those with label 0, stacked with those of label 1."""
    figure, axis = by_block([part.name or str(part.block) for part in inspection.blocks])
    ones = np.array([part.positives[task] for part in inspection.blocks])
    zeros = np.array([part.units for part in inspection.blocks]) - ones
    at = np.arange(len(ones))
    axis.bar(at, zeros, color=OF_LABEL[0], label=f"{task} = 0")
    axis.bar(at, ones, bottom=zeros, color=OF_LABEL[1], label=f"{task} = 1")
    axis.set_ylabel("units")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def plot_soft_labels(inspection: Inspection, task: str) -> Figure:
    """Histogram of the soft label, one outline per label of the row."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis = figure.subplots()
    edges = np.linspace(0, 1, BINS + 1)
    for part in inspection.labels:
        if part.task == task:
            axis.stairs(
                part.histogram,
                edges,
                fill=True,
                alpha=0.6,
                color=OF_LABEL[part.label],
                label=f"rows with {task} = {part.label}",
            )
    axis.set_xlabel("soft label")
    axis.set_ylabel("units")
    figure.legend(loc="outside upper center")
    return figure


def plot_deltas(inspection: Inspection) -> Figure:
    """Norm of delta relative to that of the embedding, by field."""
    relative = [
        100 * part.delta_norm.mean / part.embedding_norm if part.embedding_norm else 0 for part in inspection.fields
    ]
    return _by_field(inspection, relative, OF_LABEL[1], "mean |delta|, % of the mean |E|")


def plot_drift(inspection: Inspection) -> Figure:
    """Drift of the table since the stage before, by field."""
    drifts = [100 * part.drift for part in inspection.fields]
    return _by_field(inspection, drifts, OF_LABEL[0], "drift since the stage before, % of rms")


@styled
def _by_field(inspection: Inspection, values: list[float], colour: str, label: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.0 + 0.27 * len(values)), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(values)), values, color=colour)
    axis.set_xlim(left=0)
    axis.set_yticks(range(len(values)), [part.field for part in inspection.fields])
    axis.set_xlabel(label)
    axis.invert_yaxis()
    return figure
