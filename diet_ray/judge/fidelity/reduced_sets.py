"""The rows of the log that make a reduced set, and the examples that a student gets from them.

Like the stream, a selection takes its share of every block with the reference of that block. Only `last-block` and `most-recent` do not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diet_ray.errors import BadInputError
from diet_ray.judge.baselines import as_examples
from diet_ray.judge.fidelity.plan import Bench, TrainingSet
from diet_ray.judge.fidelity.selections import ScoredBlock
from diet_ray.logs.blocks import BlockManifest, Rows
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.pruning import stage_file
from diet_ray.memory.run_folder import read_stage
from diet_ray.seeds import derive_seed
from diet_ray.settings import whole_file
from diet_ray.storage.parquet import batches
from diet_ray.storage.parquet_writing import write_parquet
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.predictor import Predictor
from diet_ray.training.student import Examples


def examples(bench: Bench, training_set: TrainingSet) -> tuple[Examples, Tensor]:
    """The examples for students of a set with shared embeddings, and the table that embeds the rows to judge on."""
    if training_set.method.of_memory:
        memory = load_memory(
            stage_folder(bench.keys.run_folder(bench.distillation(training_set)), training_set.blocks - 1)
        )
        of_memory = memory.examples()
        if training_set.method.labels == "hard":
            of_memory = replace(of_memory, logit=torch.logit(torch.tensor(memory.units.label, dtype=torch.float32)))
        return of_memory, memory.table
    phi = reference(bench, training_set)
    return as_examples(sample(bench, training_set), phi, soft=training_set.method.labels != "hard"), phi.table


def sample(bench: Bench, training_set: TrainingSet) -> Rows:
    """The rows of a set of log rows, in order of row id.

    Raises:
        BadInputError: a given set names rows that are not in the blocks.
    """
    selection = training_set.method.selection
    if selection is None:
        return _given(bench, training_set, bench.config.given[training_set.method.rows])
    if not selection.needs_reference:
        n, blocks = sum(bench.units(training_set)), bench.seen(training_set)
        return selection.take(bench.log, blocks, n, seed=training_set.seed)
    return rows_of(bench, training_set, pq.read_table(bench.keys.rows_path(training_set))["row_id"].to_numpy())


def rows_of(bench: Bench, training_set: TrainingSet, row_ids: np.ndarray) -> Rows:
    """The rows with these ids, in order of row id; ids that are not in the blocks are left out."""
    rows = Rows.concat(
        [
            part.take(np.isin(part.row_id, row_ids))
            for block in bench.seen(training_set)
            for part in bench.log.iter_block(block)
        ]
    )
    return rows.take(np.argsort(rows.row_id, kind="stable"))


def reference(bench: Bench, training_set: TrainingSet, stage: int = -1, checkpoint: int = -1) -> Predictor:
    """The reference of a set's seed after its blocks (or after `stage`); by default the last checkpoint of its pass over the block."""
    run = bench.keys.run_folder(bench.distillation(training_set))
    stage = training_set.blocks - 1 if stage < 0 else stage
    entry = read_stage(run, stage).checkpoints[checkpoint]
    path = stage_file(stage_folder(run, stage), entry)
    return Predictor(bench.log.schema, bench.config.stream.reference.nets, load_tensors(path))


def select_rows(bench: Bench, training_set: TrainingSet) -> Path:
    """Choose the rows of a set by its method, block by block, and write their ids; does nothing where the file exists already."""
    path = bench.keys.rows_path(training_set)
    if path.is_file():
        return path
    chosen = [
        _of_block(bench, training_set, block, n)
        for block, n in zip(bench.seen(training_set), bench.units(training_set), strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        write_parquet(pa.table({"row_id": np.sort(np.concatenate(chosen))}), temporary, compression="snappy")
    return path


def _of_block(bench: Bench, training_set: TrainingSet, block: BlockManifest, n: int) -> np.ndarray:
    """`[n]` row ids of one block."""
    selection = training_set.method.selection
    assert selection is not None, "memories and given rows are not selected"
    run = bench.keys.run_folder(bench.distillation(training_set))
    folder = stage_folder(run, block.index)
    checkpoints = [stage_file(folder, entry) for entry in read_stage(run, block.index).checkpoints]
    seed = derive_seed(training_set.seed, "stage", block.index)
    return selection.choose(ScoredBlock(bench.log, block, bench.config.stream, checkpoints, seed), n)


def _given(bench: Bench, training_set: TrainingSet, path: Path) -> Rows:
    """The rows that a file names, with the labels that it gives them."""
    table = _read_given(path, bench.log.schema.tasks, sum(block.rows for block in bench.seen(training_set)))
    ids = table["row_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    rows = rows_of(bench, training_set, ids)
    if len(rows) != len(ids):
        problem = f"{len(ids)} rows are given, {len(rows)} distinct ones are in the blocks learned from"
        raise BadInputError(path, problem, column="row_id", remedy=_EACH_ONCE)
    labels, tasks = rows.labels.astype(np.float32), bench.log.schema.tasks
    for number, task in enumerate(tasks):
        if task in table.column_names:
            labels[:, number] = table[task].to_numpy()[order]
    if not ((labels >= 0) & (labels <= 1)).all():
        raise BadInputError(
            path, "a label is not within [0, 1]", remedy=f"give {', '.join(tasks)} as labels or probabilities"
        )
    return replace(rows, labels=labels)


_EACH_ONCE = "name each row once, and no row of a test block"


def _read_given(path: Path, tasks: list[str], most: int) -> pa.Table:
    """The row ids and labels of a file, which may have at most `most` rows."""
    parts, n_rows = [], 0
    try:
        names = pq.read_schema(path).names
        if "row_id" not in names:
            raise BadInputError(path, "missing", column="row_id", remedy="one int64 id of a row of the log per line")
        for batch in batches(path, ["row_id", *(task for task in tasks if task in names)]):
            parts.append(batch)
            n_rows += len(batch)
            if n_rows > most:
                problem = f"more rows are given than the {most} of the blocks learned from"
                raise BadInputError(path, problem, column="row_id", remedy=_EACH_ONCE)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(
            path, f"not a readable Parquet file ({error})", remedy="name it under key 'given'"
        ) from error
    if not n_rows:
        raise BadInputError(path, "holds no rows", remedy="give at least one")
    return pa.Table.from_batches(parts)
