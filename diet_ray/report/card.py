"""The card of an export: what it is, how it was made, how far it is to be trusted, and what it gives away. Plain Markdown."""

from __future__ import annotations

import yaml

from diet_ray.memory.lineage import Lineage
from diet_ray.report.export_manifest import ExportManifest


def card(about: ExportManifest, lineage: Lineage, trust: str | None) -> str:
    """The card of an export, with the header by which data set hubs read it.

    Args:
        about: the export.
        lineage: the memory and its stages.
        trust: what a bench on the same log says of how far to trust the memory, if there was one.
    """
    # Hubs know licences by a list of their own; what was given is free text.
    licence = {"license": "other", "license_name": about.licence} if about.licence else {"license": "unknown"}
    header = {
        "pretty_name": f"Synthetic memory of {about.log}",
        **licence,
        "tags": ["recommendation", "click-through-rate", "dataset-distillation"],
        "configs": [{"config_name": "default", "data_files": "units-*.parquet"}],
    }
    parts = [
        "---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---",
        f"# Synthetic memory of {about.log}",
        _lead(about),
        _files(about),
        _making(about, lineage),
        _training(about),
        "## How far to trust it\n\n"
        + (
            trust
            or "No measurement of fidelity was given with this export. Judge it on real rows before you rely on it."
        ),
        "## Licence\n\n"
        + (
            f"Licence of the source log: {about.licence}."
            if about.licence
            else "The licence of the source log was not given. Its terms hold for what was made of its rows: ask before you pass this on."
        ),
        _privacy(about),
    ]
    return "\n\n".join(parts) + "\n"


def _lead(about: ExportManifest) -> str:
    pruned = f", the {about.units:,} that stay of {about.memory_units:,}" if about.units < about.memory_units else ""
    return (
        f"{about.units:,} units{pruned}, made of {about.rows_seen:,} rows of a click log "
        f"({about.units / about.rows_seen:.2%}) with DIET (arXiv 2603.24958) by diet_ray {about.diet_ray}. A unit is what a net sees of "
        f"one example: {len(about.fields)} fields of {about.dim} numbers, with soft labels for {_and(about.tasks)}. It is meant for "
        "comparing nets cheaply, not for training a model that serves users."
    )


def _files(about: ExportManifest) -> str:
    lines = ["## What is in it", "", "| column | what |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in about.columns.items()]
    lines += ["", f"Fields, in the order of `x`: {', '.join(about.fields)}.", ""]
    if about.n_ids is not None:
        lines += [
            f"`embeddings.safetensors` holds `table [{about.n_ids}, {about.dim}]` float32. A real row becomes an input by it: look its "
            "ids up, and average the rows of a field that has several ids, 0 apart. An id beyond the table is read as id f + 1 for field "
            "number f, counted from 0, which stands for its unknown values. Ids are those of the log as diet_ray ingested it.",
            "",
        ]
    else:
        lines += [
            "Ids, unit ids and the embedding table were left out, and the units are shuffled. A net can be trained on it, but only who "
            "has the table can embed real rows to judge it.",
            "",
        ]
    lines += [
        "`manifest.json` holds all of this for programs, with sizes and SHA-256 of the files.",
        "",
        "```python",
        "import pyarrow.parquet as pq",
        "",
        f'units = pq.read_table("{about.files[0].path}")  # or datasets.load_dataset("parquet", data_files="units-*.parquet")',
        f'x = units["x"].combine_chunks().flatten().to_numpy().reshape(-1, {len(about.fields)}, {about.dim})',
        "```",
    ]
    return "\n".join(lines)


def _making(about: ExportManifest, lineage: Lineage) -> str:
    stage, rows = lineage.memory.stage, lineage.rows
    budget = stage.config.budget
    said = f"{budget.ratio:.3g} of all rows seen" if budget.ratio is not None else f"{budget.cap} units"
    lines = [
        "## How it was made",
        "",
        "Rows were chosen from each block as it came, turned into units by a reference model's embeddings and probabilities, and "
        f"carried along as that model learned on: selection `{stage.config.select.strategy}`, budget {said}, "
        f"{stage.config.refine.rounds} rounds of refinement per block, seed {stage.config.seed}. Refinement is kept only where it helps "
        "on held-out rows.",
        "",
        "| block | name | rows | units in the memory after it | refinement |",
        "|---|---|---|---|---|",
    ]
    for one in lineage.stages:
        kept = "none" if one.refine is None else "kept" if one.refine.kept else "not kept"
        seen = f"{rows[one.index]:,}" if one.index in rows else "not known"
        lines.append(f"| {one.index} | {one.block} | {seen} | {one.units:,} | {kept} |")
    if lineage.stages[0].index:
        lines += [
            "",
            f"{lineage.stages[0].index} blocks before these went in too; their stages were not there when this was exported.",
        ]
    if about.units < about.memory_units:
        lines += [
            "",
            f"The export was cut to {about.units:,} units: each combination of labels keeps its share, and within it the units of the "
            "highest last measured influence stay, then those of younger blocks, then the larger ids. Whether that is better than a "
            "random cut was not measured.",
        ]
    return "\n".join(lines)


def _training(about: ExportManifest) -> str:
    student, adam = about.student, about.optimiser
    more = " Fewer units than that are seen more often." if about.units < about.memory_units else ""
    return (
        "## How to train on it\n\n"
        f"For exactly T = {student.steps} steps of {student.batch_size} units, in epochs of fresh permutations: that is the horizon for "
        f"which the memory of {about.memory_units:,} units was made.{more} Adam with a learning rate that falls "
        f"from {student.lr:g} to 0 along half a cosine, beta1 {adam.beta1:g}, "
        f"beta2 {adam.beta2:g} and epsilon {adam.epsilon:g} inside the root; torch's `Adam(eps={adam.epsilon**0.5:g})` comes close. The "
        "loss is the binary cross entropy averaged over tasks, times `weight`, to labels that are made anew at every visit of a unit: "
        f"{1 - student.draw:g} of the soft label and {student.draw:g} of a 0 or 1 that is drawn with its probability, because candidates "
        "are told apart by how they bear a real log's noise. `x` stays as it is."
    )


def _privacy(about: ExportManifest) -> str:
    lines = [
        "## What a unit reveals",
        "",
        "Every unit comes from one real row of the log, refined or not. Its label is that row's own, and its block tells when the row "
        "happened. Refinement moves `x` and the soft label a little; it anonymises nothing.",
        "",
    ]
    if about.n_ids is not None:
        lines.append(
            "Its ids are the row's too, and `unit_id` names the row. The table has a row for each value of each field, users among them "
            "where the user is a field, and was trained on the log, not only on the rows of the units. Whoever has the log or its "
            "vocabulary can look up whose row it was."
        )
    else:
        lines.append(
            "Leaving the ids out does not hide them from everybody. Without refinement `x` is exactly the table's row of each id, and "
            "with it usually a value close by: whoever has the table (from the run, or from an export with ids) finds the ids as its "
            "nearest rows. Even without the table, equal or nearly equal parts of `x` show which units share a value, such as one user."
        )
    lines += [
        "",
        "There is no formal guarantee such as differential privacy. Share it with whom you would share the rows.",
    ]
    return "\n".join(lines)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
