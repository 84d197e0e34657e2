"""More bad input: configs as careless hands write them, and files of diet_ray that a disk, a copy or a hand has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.candidates import CandidateFile
from diet_ray.config import LaunchConfig, StreamConfig
from diet_ray.judge.search import SweepConfig
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.schema import Schema
from diet_ray.settings import Settings
from tests.support import corpus
from tests.support.corpus import (
    BLOCK_NAMES,
    CHECKPOINT,
    INF,
    MANIFEST,
    MEMORY,
    NAN,
    POOL_YAML,
    SCHEMA_YAML,
    SHARD,
    STAGE,
    STREAM_YAML,
    Artefact,
    Yaml,
)

# --- YAML files


def _field(words: str, field: str) -> Yaml:
    """A schema whose second field is this one."""
    return Yaml(Schema, corpus._schema("{name: b, kind: vocabulary}", field), tuple(words.split(" & ")))


def _schema(words: str, old: str, new: str) -> Yaml:
    return Yaml(Schema, corpus._schema(old, new), tuple(words.split(" & ")))


def _more(kind: type[Settings], words: str, text: str) -> Yaml:
    """A config with these keys in addition."""
    sound = {StreamConfig: STREAM_YAML, LaunchConfig: STREAM_YAML, SimulateConfig: "rows: 10\n"}[kind]
    return Yaml(kind, sound + text + "\n", tuple(words.split(" & ")))


def _candidate(words: str, text: str, kind: type[Settings] = CandidateFile) -> Yaml:
    return Yaml(kind, POOL_YAML.replace("name: a, arch: dnn", text), tuple(words.split(" & ")))


ODD_YAMLS = [
    _field("'b': kind 'numeric' needs buckets >= 2", "{name: b, kind: numeric, buckets: 1}"),
    _field("'b': kind 'hashed' needs buckets >= 2", "{name: b, kind: hashed}"),
    _field("fields.1.transform", "{name: b, kind: numeric, buckets: 4, transform: log10}"),
    _field("missing key 'fields.1.kind'", "{name: b}"),
    _field("'fields.1.kind' & must be one of", "{name: b, kind: categorical}"),
    _field("unknown key & did you mean 'buckets'", "{name: b, kind: hashed, bucket: 4}"),
    _field("fields.1", "b"),
    _field("fields.1", "[name, b]"),
    _field("a vocabulary grows by itself", "{name: b, kind: vocabulary, buckets: 9}"),
    _field("min_count belongs to vocabulary fields", "{name: b, kind: hashed, buckets: 9, min_count: 2}"),
    _field("a numeric field holds one value", "{name: b, kind: numeric, buckets: 9, separator: ','}"),
    _field("fields.1.min_count", "{name: b, kind: vocabulary, min_count: 0}"),
    _field("padding needs max_values above 1", "{name: b, kind: vocabulary, padding: 0}"),
    _field("a sequence needs of", "{name: b, kind: sequence, length: 3}"),
    _field("has no field 'z'", "{name: b, kind: sequence, of: z, length: 3}"),
    _field("must be a hashed or vocabulary field", "{name: b, kind: sequence, of: b, length: 3}"),
    _field("a sequence has no buckets of its own", "{name: b, kind: sequence, of: a, length: 3, buckets: 9}"),
    _field("is given twice", "{name: a, kind: vocabulary}"),
    _field("both a field and a task", "{name: y, kind: vocabulary}"),
    _field("both a field and a task", "{name: b, column: y, kind: vocabulary}"),
    _field("fields.1.column", "{name: b, column: '', kind: vocabulary}"),
    _field("fields.1.max_values", "{name: b, kind: vocabulary, max_values: .nan}"),
    _field("fields.1.max_values", "{name: b, kind: vocabulary, max_values: 1e400}"),
    _field("base 8 & quote it", "{name: b, kind: vocabulary, max_values: 2, padding: 007}"),
    _field("base 60 & quote it", "{name: b, kind: hashed, buckets: 1:30}"),
    _field("base 60 & quote it", "{name: b, kind: hashed, buckets: 1:30.5}"),
    _schema("key 'tasks' & at least 1 item", "[y]", "[]"),
    _schema("task 'y' is given twice", "[y]", "[y, y]"),
    _schema("key 'tasks' & at most 64", "[y]", "[" + ", ".join(f"y{i}" for i in range(65)) + "]"),
    _schema("key 'tasks.0'", "[y]", "[yes]"),
    _schema("key 'name'", "name: s", "name: no"),
    _schema("key 'name'", "name: s", "name: 2024-05-01"),
    _schema("key 'user'", "user: u", "user: 7"),
    _schema("key 'user'", "user: u", "user:"),
    _schema("key 'user'", "user: u", "user: [u]"),
    _schema("key 'time.unit'", "{column: t}", "{column: t, unit: minutes}"),
    _schema("key 'time.timezone' & IANA", "{column: t}", "{column: t, timezone: ''}"),
    _schema("key 'time.timezone' & IANA", "{column: t}", "{column: t, timezone: Mars/Olympus}"),
    _schema("missing key 'time.column'", "{column: t}", "{}"),
    _schema("key 'fields'", "[{name: a, kind: vocabulary}, {name: b, kind: vocabulary}]", "{a: vocabulary}"),
    _schema("at least 2 items", ", {name: b, kind: vocabulary}", ""),
    Yaml(Schema, SCHEMA_YAML + "nulls: [NULL]\n", ("no text for YAML", "single quotes")),
    Yaml(Schema, SCHEMA_YAML + 'nulls: ["\\N"]\n', ("no text for YAML",)),
    Yaml(Schema, SCHEMA_YAML + "nulls: ''\n", ("key 'nulls'", "list")),
    Yaml(Schema, SCHEMA_YAML + "---\n" + SCHEMA_YAML, ("not valid YAML", "single document")),
    Yaml(Schema, SCHEMA_YAML.encode("utf-16"), ("must be a YAML file in UTF-8",)),
    Yaml(Schema, "<html>\n<body>\n", ("must hold a mapping",)),
    Yaml(Schema, json.dumps({"log_schema": {}}), ("unknown key 'log_schema'",)),
    Yaml(Schema, SCHEMA_YAML + "? [a, b]\n: 1\n", ("not valid YAML",)),
    Yaml(Schema, SCHEMA_YAML + "<<: 5\n", ("not valid YAML",)),
    Yaml(Schema, STREAM_YAML, ("is the config of a run, not the schema of a log", "`diet-ray distill --config")),
    _more(StreamConfig, "key 'blocks'", "blocks: 0"),
    _more(StreamConfig, "key 'blocks' & all", "blocks: all"),
    _more(StreamConfig, "key 'seed'", "seed: -1"),
    _more(StreamConfig, "key 'reference.nets' & at least 1 item", "reference: {nets: []}"),
    _more(StreamConfig, "adapter and drop_fields belong", "reference: {nets: [{name: a, arch: dnn, adapter: true}]}"),
    _more(
        StreamConfig,
        "the nets share one table",
        "reference: {nets: [{name: a, arch: dnn, adapter: false, embedding_dim: 8}]}",
    ),
    _more(StreamConfig, "key 'reference.holdout'", "reference: {holdout: 1}"),
    _more(StreamConfig, "key 'reference.checkpoints'", "reference: {checkpoints: 0}"),
    _more(StreamConfig, "key 'reference.lr'", "reference: {lr: .inf}"),
    _more(StreamConfig, "key 'reference.embedding_l2'", "reference: {embedding_l2: -0.1}"),
    _more(StreamConfig, "key 'select.strategy'", "select: {strategy: best}"),
    _more(StreamConfig, "key 'select.ccs_strata'", "select: {ccs_strata: 1}"),
    _more(StreamConfig, "give either ratio or cap", "budget: {}"),
    _more(StreamConfig, "give either ratio or cap", "budget: {ratio: 0.1, cap: 9}"),
    _more(StreamConfig, "key 'budget.ratio' & less than or equal to 1", "budget: {ratio: 5}"),
    _more(StreamConfig, "key 'align.method'", "align: {method: affine}"),
    _more(StreamConfig, "key 'align.relabel'", "align: {relabel: 1.1}"),
    _more(StreamConfig, "key 'student.lr'", "student: {lr: .nan}"),
    _more(StreamConfig, "longer than student.steps", "refine: {rounds: 5, window: 300}"),
    _more(StreamConfig, "needs reference.holdout", "refine: {rounds: 5}\nreference: {holdout: 0}"),
    _more(
        StreamConfig,
        "a proxy has no table of its own",
        "refine: {proxies: [{name: a, arch: fm, embedding_lr: 0.1}]}",
    ),
    _more(StreamConfig, "neither a share of one GPU", "cluster: {gpus_per_worker: 1.5}"),
    _more(StreamConfig, "there are no scorers", "cluster: {gpus_per_scorer: 1}"),
    _more(StreamConfig, "key 'cluster.precision'", "cluster: {precision: float16}"),
    _more(StreamConfig, "key 'cluster.workers'", "cluster: {workers: 0}"),
    _more(StreamConfig, "unknown key 'refne' & did you mean 'refine'", "refne: {rounds: 3}"),
    _more(StreamConfig, "unknown key 'out'", "out: runs/mine"),
    _more(LaunchConfig, "key 'archive'", "archive: [s3://bucket]"),
    _more(LaunchConfig, "key 'out'", "out: {folder: x}"),
    _more(SimulateConfig, "key 'blocks' & unknown key 'rows_'", "rows_: 1\nblocks: 0"),
    _more(SimulateConfig, "is no field that rows draw", "user: nobody"),
    _more(SimulateConfig, "key 'tasks.click'", "tasks: {click: 1.5}"),
    _more(SimulateConfig, "names two of the fields and tasks", "tasks: {user: 0.5}"),
    _more(SimulateConfig, "is no earlier field", "fields: [{name: user, size: 9, of: item}, {name: item, size: 9}]"),
    _candidate("missing key 'candidates.0.name'", "arch: dnn"),
    _candidate("missing key 'candidates.0.arch'", "name: a"),
    _candidate("key 'candidates.0.name'", "name: a b, arch: dnn"),
    _candidate("key 'candidates.0.name'", "name: 1, arch: dnn"),
    _candidate("unknown arch 'dcn' & did you mean", "name: a, arch: dcn"),
    _candidate("hidden & did you mean", "name: a, arch: dnn, params: {hiden: [8]}"),
    _candidate("candidates.0 & hidden", "name: a, arch: dnn, params: {hidden: []}"),
    _candidate("candidates.0 & hidden", "name: a, arch: dnn, params: {hidden: [0]}"),
    _candidate("candidates.0 & dropout", "name: a, arch: dnn, params: {dropout: 1}"),
    _candidate("candidates.0 & activation", "name: a, arch: dnn, params: {activation: swish}"),
    _candidate("key 'candidates.0.drop_fields' & list", "name: a, arch: dnn, drop_fields: hour"),
    _candidate("key 'candidates.0.embedding_dim'", "name: a, arch: dnn, embedding_dim: 0"),
    _candidate("key 'candidates.0.lr_scale'", "name: a, arch: dnn, lr_scale: 0"),
    _candidate("key 'candidates.0.adapter'", "name: a, arch: dnn, adapter: maybe"),
    _candidate("key 'candidates.0.samples'", "name: a, arch: dnn, samples: 0", SweepConfig),
    _candidate("search space of 'dropout'", "name: a, arch: dnn, params: {dropout: {uniform: [1, 0]}}", SweepConfig),
    _candidate("key 'dropout' & valid number", "name: a, arch: dnn, params: {dropout: {between: [0, 1]}}", SweepConfig),
    Yaml(SweepConfig, POOL_YAML + "search: {algorithm: grid}\n", ("key 'search.algorithm'", "grid")),
    Yaml(SweepConfig, POOL_YAML + "resources: {cpus: 0}\n", ("key 'resources.cpus'",)),
    Yaml(SweepConfig, POOL_YAML + "modules: nets.py\n", ("key 'modules'", "list")),
    Yaml(SweepConfig, POOL_YAML + "modules: [no_such_module_of_mine]\n", ("no_such_module_of_mine",)),
]


# --- what diet_ray wrote itself, and somebody changed


def _entry(*key: str | int, **changes: Any) -> Callable[[Path], None]:
    """Change a part of a JSON file, such as the first of its shards."""

    def apply(path: Path) -> None:
        content = json.loads(path.read_text())
        part = content
        for step in key:
            part = part[step]
        part.update(changes)
        path.write_text(json.dumps(content))

    return apply


def _without(*key: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = json.loads(path.read_text())
        part = content
        for step in key[:-1]:
            part = part[step]
        del part[key[-1]]
        path.write_text(json.dumps(content))

    return apply


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


_data, _json, _table, _units, _tensors, _at = (
    corpus._data,
    corpus._json,
    corpus._table,
    corpus._units,
    corpus._tensors,
    corpus._at,
)


def _twice(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.append_column(column, table[column])


def _meta(**values: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata(values)


def _lists(column: pa.Array) -> pa.Array:
    """Lists of any length in the place of lists of one length."""
    return column.cast(pa.list_(column.type.value_type))


def _a_null_inside(column: pa.Array) -> pa.Array:
    values = column.flatten().to_pylist()
    return pa.FixedSizeListArray.from_arrays(
        pa.array([None, *values[1:]], column.type.value_type), column.type.list_size
    )


LOG, BLOCK_0 = "log.json", "blocks/block-000/manifest.json"

ODD_LOGS = [
    Artefact("log.json with a mark", LOG, _data(lambda data: b"\xef\xbb\xbf" + data), "not a valid LogManifest"),
    Artefact("log.json in UTF-16", LOG, _data(lambda data: data.decode().encode("utf-16")), "not a valid LogManifest"),
    Artefact("log.json that is a list", LOG, _data(lambda data: b"[" + data + b"]"), "not a valid LogManifest"),
    Artefact("log.json that is null", LOG, _data(lambda data: b"null"), "not a valid LogManifest"),
    Artefact("log.json twice", LOG, _data(lambda data: data * 2), "not a valid LogManifest"),
    Artefact("log.json of a conflict", LOG, _data(lambda data: b"<<<<<<< HEAD\n" + data), "not a valid LogManifest"),
    Artefact("log.json that is a folder", LOG, _folder, "not a file"),
    Artefact("log.json of no bytes", LOG, _data(lambda data: b""), "not a valid LogManifest"),
    Artefact("blocks as one text", LOG, _json(blocks="block-000"), "blocks"),
    Artefact("block of a number", LOG, _json(blocks=[0]), "blocks.0"),
    Artefact("block without a folder", LOG, _json(blocks=[*BLOCK_NAMES, "block-004"]), "missing"),
    Artefact("first block left out", LOG, _json(blocks=BLOCK_NAMES[1:]), "position 0"),
    Artefact("a middle block left out", LOG, _json(blocks=[BLOCK_NAMES[0], *BLOCK_NAMES[2:]]), "position 1"),
    Artefact("schema of one field", LOG, _entry("log_schema", fields=[]), "log_schema.fields"),
    Artefact(
        "schema with a field of no kind", LOG, _entry("log_schema", "fields", 0, kind="text"), "log_schema.fields"
    ),
    Artefact("schema whose user is gone", LOG, _without("log_schema", "user"), "log_schema.user"),
    Artefact("notes of another kind", LOG, _json(notes=[1]), "notes.0"),
    Artefact("block manifest of a list", MANIFEST, _data(lambda data: b"[]"), "not a valid BlockManifest"),
    Artefact("block manifest that is a pipe", MANIFEST, corpus._pipe, "not a file"),
    Artefact("block manifest that is a folder", MANIFEST, _folder, "not a file"),
    Artefact("block manifest of another block", MANIFEST, _json(name="block-002"), "position 1"),
    Artefact("block of another position", MANIFEST, _json(index=2), "position 1"),
    Artefact("block of a negative position", MANIFEST, _json(index=-1), "index"),
    Artefact("no shards", MANIFEST, _json(shards=[]), "shards"),
    Artefact("shard of no rows", MANIFEST, _entry("shards", 0, rows=0), "shards.0.rows"),
    Artefact("shard of half a row", MANIFEST, _entry("shards", 0, rows=149.5), "shards.0.rows"),
    Artefact("shard of no bytes", MANIFEST, _entry("shards", 0, bytes=0), "shards.0.bytes"),
    Artefact("shard without a checksum", MANIFEST, _entry("shards", 0, sha256=None), "shards.0.sha256"),
    Artefact("shard of another checksum", MANIFEST, _entry("shards", 0, sha256="0" * 64), "its sha256 differs"),
    Artefact("shard of more bytes", MANIFEST, _entry("shards", 0, bytes=10**9), "the manifest says 1000000000"),
    Artefact("hidden shard", MANIFEST, _entry("shards", 0, path=".shard"), "shards.0.path"),
    Artefact("shard with a line break", MANIFEST, _entry("shards", 0, path="a\nb"), "shards.0.path"),
    Artefact("time as text", MANIFEST, _json(time_min="soon"), "time_min"),
    Artefact("block that overlaps", MANIFEST, _json(time_min=5), "out of time order"),
    Artefact("ids that shrink", MANIFEST, _json(n_ids=117), "fewer ids than block 'block-000'"),
    Artefact("ids of nobody", MANIFEST, _json(n_ids=0), "n_ids"),
    Artefact("first block after the second", BLOCK_0, _json(time_max=10**12), "out of time order"),
    Artefact("forged shard in gzip", SHARD, corpus._forged(_data(lambda data: b"\x1f\x8b" + data)), "not a readable"),
    Artefact(
        "forged shard, encrypted", SHARD, corpus._forged(_data(lambda data: data[:-4] + b"PARE")), "not a readable"
    ),
    Artefact("forged shard, a column twice", SHARD, _table(_twice("user")), "column 'user'"),
    Artefact("forged shard, a column more", SHARD, _table(lambda t: t.append_column("x", t["user"])), "column 'x'"),
    Artefact(
        "forged shard, no columns", SHARD, _table(lambda table: table.select([])), "0 rows, its manifest says 150"
    ),
    Artefact("forged shard, lists of any length", SHARD, _table(corpus._column("ids", _lists)), "column 'ids'"),
    Artefact("forged shard, a null in a list", SHARD, _table(corpus._column("ids", _a_null_inside)), "not a readable"),
    Artefact(
        "forged shard, labels as booleans",
        SHARD,
        _table(corpus._column("labels", lambda c: c.cast(pa.list_(pa.bool_(), 1)))),
        "column 'labels'",
    ),
    Artefact(
        "forged shard in row groups of one row",
        SHARD,
        corpus._forged(lambda path: pq.write_table(pq.read_table(path).slice(0, 9), path, row_group_size=1)),
        "9 rows, its manifest says 150",
    ),
]

RUN_STAGES = "stages/0000/manifest.json"

ODD_RUNS = [
    Artefact("stage with a mark", STAGE, _data(lambda data: b"\xef\xbb\xbf" + data), "not a valid StageManifest"),
    Artefact("stage that is a list", STAGE, _data(lambda data: b"[" + data + b"]"), "not a valid StageManifest"),
    Artefact("stage that is a folder", STAGE, _folder, "not a file"),
    Artefact("stage of no bytes", STAGE, _data(lambda data: b""), "not a valid StageManifest"),
    Artefact("stage too large", STAGE, lambda path: os.truncate(path, 65 << 20), "more than 64 MiB"),
    Artefact("stage of another number", STAGE, _json(index=2), "does not follow"),
    Artefact("stage without a parent", STAGE, _json(parent_sha256=None), "does not follow"),
    Artefact("first stage with a parent", RUN_STAGES, _json(parent_sha256="0" * 64), "does not follow"),
    Artefact("stage of negative units", STAGE, _json(units=-1), "units"),
    Artefact("stage of units as text", STAGE, _json(units="many"), "units"),
    Artefact("stage of half an id", STAGE, _json(n_ids=0.5), "n_ids"),
    Artefact("memory of negative size", STAGE, _entry("memory", 0, bytes=-1), "memory.0.bytes"),
    Artefact("memory in capitals", STAGE, _entry("memory", 0, path="MEMORY.arrow"), "memory.0.path"),
    Artefact("memory without a checksum", STAGE, _entry("memory", 0, sha256=None), "memory.0.sha256"),
    Artefact("stage without its log's schema", STAGE, _without("log_schema"), "log_schema"),
    Artefact("stage without a config", STAGE, _without("config"), "config"),
    Artefact("config of a later release", STAGE, _entry("config", colour="red"), "config.colour"),
    Artefact("refinement without a verdict", STAGE, _without("refine", "kept"), "refine.kept"),
    Artefact("a middle stage gone", STAGE, lambda path: shutil.rmtree(path.parent), "missing, though 0002"),
    Artefact("checkpoint gone", CHECKPOINT, lambda path: path.unlink(), "missing, though"),
    Artefact("checkpoint that is a link", CHECKPOINT, corpus._link, "a link, though"),
    Artefact("checkpoint that is a pipe", CHECKPOINT, corpus._pipe, "missing, though"),
    Artefact("checkpoint cut off", CHECKPOINT, _data(lambda data: data[:-1]), "not the file that the manifest names"),
    Artefact("checkpoint of zeros", CHECKPOINT, _data(lambda data: bytes(len(data))), "its sha256 differs"),
    Artefact("memory that is a folder", MEMORY, _folder, "missing, though"),
    Artefact("forged memory, a column twice", MEMORY, _units(_twice("weight")), "'weight' is there 2 times"),
    Artefact("forged memory without widths", MEMORY, _units(_meta()), "not a memory shard"),
    Artefact(
        "forged memory of a width in words", MEMORY, _units(_meta(n_fields="4", dim="four")), "not a memory shard"
    ),
    Artefact(
        "forged memory, unsigned ids",
        MEMORY,
        _units(corpus._column("unit_id", lambda c: c.cast(pa.uint64()))),
        "'unit_id' is uint64",
    ),
    Artefact("forged memory, lists of any length", MEMORY, _units(corpus._column("delta", _lists)), "'delta'"),
    Artefact("forged memory, a null in a list", MEMORY, _units(corpus._column("delta", _a_null_inside)), "not a"),
    Artefact("forged memory, label of 2", MEMORY, _at("label", 2), "column 'label'"),
    Artefact("forged memory, weight NaN", MEMORY, _at("weight", NAN), "column 'weight'"),
    Artefact("forged memory, influence infinite", MEMORY, _at("influence", INF), "column 'influence'"),
    Artefact("forged memory of no units", MEMORY, _units(lambda table: table.slice(0, 0)), "45 different units"),
    Artefact(
        "forged weights of a JSON that is none",
        CHECKPOINT,
        corpus._forged(_data(lambda data: data[:8] + b"}" + data[9:])),
        "not a readable safetensors",
    ),
    Artefact(
        "forged weights, pages gone", CHECKPOINT, corpus._forged(_data(lambda data: data[:-40])), "not a readable safet"
    ),
    Artefact(
        "forged table of integers",
        CHECKPOINT,
        _tensors(lambda tensors: {**tensors, "table": tensors["table"].long()}),
        "tensor 'table': torch.int64",
    ),
    Artefact(
        "forged table of one number per id",
        CHECKPOINT,
        _tensors(lambda tensors: {**tensors, "table": tensors["table"][:, 0].clone()}),
        "tensor 'table': torch.float32 [118]",
    ),
]

ODD_BEGINNINGS = [
    Artefact("run.json gone", "run.json", lambda path: path.unlink(), "missing"),
    Artefact("run.json of zeros", "run.json", _data(lambda data: bytes(len(data))), "not a valid RunManifest"),
    Artefact("run.json cut off", "run.json", _data(lambda data: data[:-9]), "not a valid RunManifest"),
    Artefact("run.json that is a pipe", "run.json", corpus._pipe, "not a file"),
    Artefact("run.json that is a folder", "run.json", _folder, "not a file"),
    Artefact("run.json of another format", "run.json", _json(format=1), "format 1, this release reads 2"),
    Artefact("run.json without a config", "run.json", _without("config"), "config"),
    Artefact("run.json without versions", "run.json", _without("versions"), "versions"),
    Artefact("run.json of another seed", "run.json", _entry("config", seed=99), "key 'seed' differs"),
    Artefact("run.json of another budget", "run.json", _entry("config", budget={"cap": 9}), "key 'budget' differs"),
    Artefact("run.json whose budget is none", "run.json", _entry("config", budget={}), "config.budget"),
    Artefact("run.json of an unknown net", "run.json", _entry("config", "reference", "nets", 0, arch="x"), "arch 'x'"),
]
"""Changes to `run.json`, with which a run is not continued."""
