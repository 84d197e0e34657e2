"""The data card of an export: its contents, how it was made, how far to trust it, and what it reveals. Plain Markdown."""

from __future__ import annotations

import yaml

from diet_ray.figures import listed
from diet_ray.memory.lineage import Lineage
from diet_ray.report.export_manifest import ExportManifest


def card(about: ExportManifest, lineage: Lineage, trust: str | None) -> str:
    """The card of an export, with the YAML header that data set hubs read.

    Args:
        about: the export.
        lineage: the memory and its stages.
        trust: how far to trust the memory, from a fidelity bench on the same log, if there was one.
    """
    # Hubs have a fixed list of licences; `about.licence` is free text.
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
            else "The licence of the source log was not given. Its terms also cover data made from its rows: ask before you pass this on."
        ),
        _privacy(about),
    ]
    return "\n\n".join(parts) + "\n"


def _lead(about: ExportManifest) -> str:
    pruned = f", the {about.units:,} that stay of {about.memory_units:,}" if about.units < about.memory_units else ""
    return (
        f"{about.units:,} units{pruned}, made of {about.rows_seen:,} rows of a click log "
        f"({about.units / about.rows_seen:.2%}) with DIET (arXiv 2603.24958) by diet_ray {about.diet_ray}. A unit is the input of a net "
        f"for one example: {len(about.fields)} fields of {about.dim} numbers, with soft labels for {listed(about.tasks)}. The memory is "
        "meant for comparing nets cheaply, not for training a model that serves users."
    )


def _files(about: ExportManifest) -> str:
    lines = ["## What is in it", "", "| column | contents |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in about.columns.items()]
    lines += ["", f"Fields, in the order of `x`: {', '.join(about.fields)}.", ""]
    if about.n_ids is not None:
        lines += [
            f"`embeddings.safetensors` holds `table [{about.n_ids}, {about.dim}]` float32. It turns a real row into an input: look up "
            "the row's ids, and average the vectors of a field that has several ids, without id 0. An id beyond the table is read as "
            "id f + 1 for field number f, counted from 0; that id stands for unknown values of the field. Ids are those that diet_ray "
            "gave when it ingested the log.",
            "",
        ]
        if about.launch is not None:
            lines += [
                f"`moments.safetensors` holds Adam's state of the table: `table/exp_avg` and `table/exp_avg_sq`, "
                f"`[{about.n_ids}, {about.dim}]` float32, and `table/step`. With it a net's own copy of the table goes on learning as the "
                "reference's would.",
                "",
            ]
    else:
        lines += [
            "Ids, unit ids and the embedding table were left out, and the units are shuffled. You can train a net on it, but you need "
            "the table to embed real rows for its evaluation.",
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
    size = f"{budget.ratio:.3g} of all rows seen" if budget.ratio is not None else f"{budget.cap} units"
    lines = [
        "## How it was made",
        "",
        "The blocks of the log were processed in order of time. Rows were selected from each block and turned into units with a "
        "reference model's embeddings and probabilities; units of earlier blocks were aligned to that model after each block. Selection "
        f"`{stage.config.select.strategy}`, budget {size}, {stage.config.refine.rounds} rounds of refinement per block, seed "
        f"{stage.config.seed}. Refinement is kept only where it helps on held-out rows.",
        "",
        "| block | name | rows | units in the memory after it | refinement |",
        "|---|---|---|---|---|",
    ]
    for entry in lineage.stages:
        refinement = "none" if entry.refine is None else entry.refine.effect
        n_rows = f"{rows[entry.index]:,}" if entry.index in rows else "not known"
        lines.append(f"| {entry.index} | {entry.block} | {n_rows} | {entry.units:,} | {refinement} |")
    if lineage.stages[0].index:
        lines += [
            "",
            f"{lineage.stages[0].index} earlier blocks were distilled too; their stages were not in the folder at the export.",
        ]
    if about.units < about.memory_units:
        lines += [
            "",
            f"The export was cut to {about.units:,} units. Each combination of labels keeps its share. Within a combination, the units "
            "with the highest last measured influence stay, then those of later blocks, then those with larger ids. Whether that is "
            "better than a random cut was not measured.",
        ]
    return "\n".join(lines)


def _training(about: ExportManifest) -> str:
    student, adam = about.student, about.optimiser
    more = " Each unit of this smaller export is visited more often." if about.units < about.memory_units else ""
    return (
        "## How to train on it\n\n"
        f"Train for exactly T = {student.steps} steps of {student.batch_size} units, in epochs of fresh permutations: the memory of "
        f"{about.memory_units:,} units was made for that horizon.{more} The optimiser is Adam with a learning rate that falls "
        f"from {student.lr:g} to 0 along half a cosine, beta1 {adam.beta1:g}, "
        f"beta2 {adam.beta2:g} and epsilon {adam.epsilon:g} inside the root; torch's `Adam(eps={adam.epsilon**0.5:g})` comes close. The "
        "loss is the binary cross entropy averaged over tasks, times `weight`. Its target is made anew at every visit of a unit: "
        f"{1 - student.draw:g} of the soft label plus {student.draw:g} of a 0 or 1 that is drawn with the soft label's probability. "
        "The drawn part imitates the noise of a real log, to which candidates react differently. `x` does not change in training."
    )


def _privacy(about: ExportManifest) -> str:
    lines = [
        "## What a unit reveals",
        "",
        "Every unit comes from one real row of the log, refined or not. Its label is the label of that row, and its block shows when "
        "the row was logged. Refinement moves `x` and the soft label a little; it anonymises nothing.",
        "",
    ]
    if about.n_ids is not None:
        lines.append(
            "Its ids are those of the row, and `unit_id` names the row. The table has a vector for each value of each field, including "
            "users where the user is a field. It was trained on the whole log, not only on the rows of the units. Anyone who has the "
            "log or its vocabulary can look up which user the row belongs to."
        )
    else:
        lines.append(
            "Leaving the ids out does not hide them from everybody. Without refinement, `x` holds exactly the table's vector of each id; "
            "with refinement, it usually holds one close to it. Anyone who has the table (from the run, or from an export with ids) "
            "finds the ids as its nearest rows. Even without the table, equal or nearly equal parts of `x` show which units share a "
            "value, such as the same user."
        )
    lines += [
        "",
        "There is no formal guarantee such as differential privacy. Share it only with people with whom you would share the rows.",
    ]
    return "\n".join(lines)
