"""Verifying a log: every planted damage is named, also where the checksums were made to fit it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.logs.blocks import BlockManifest, LogManifest, LogShard, Rows, read_shard, write_shard
from diet_ray.logs.ingestion.quarantine import FILE, QUARANTINE
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.memory.verification import verify
from diet_ray.settings import parse_json
from diet_ray.storage.hashes import sha256
from tests.support.synthetic import write_log

BLOCK = "blocks/block-001"
MANIFEST, SHARD = f"{BLOCK}/manifest.json", f"{BLOCK}/shard-00000.parquet"
N_IDS = 118
BLOCKS = ["block-000", "block-001", "block-002"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", blocks=3, n=40)


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**content_of(path), **changes}))


def entry(log: Path, **changes: Any) -> None:
    """Change what the block's manifest says of its first shard."""
    shards = json.loads((log / MANIFEST).read_text())["shards"]
    edit(log / MANIFEST, shards=[{**shards[0], **changes}, *shards[1:]])


def rows(log: Path, change: Callable[[Rows], Rows]) -> None:
    """Write the first shard anew with changed rows, and make the manifests fit, as a forger would."""
    block = parse_json(BlockManifest, log / MANIFEST)
    schema = parse_json(LogManifest, log / "log.json").log_schema
    changed = change(read_shard(log / SHARD, block.shards[0], schema))
    shards = [write_shard(log / SHARD, changed), *block.shards[1:]]
    edit(
        log / MANIFEST,
        shards=[shard.model_dump() for shard in shards],
        rows=sum(shard.rows for shard in shards),
        positives=[sum(shard.positives[0] for shard in shards)],
    )


def parquet(log: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the first shard anew as a changed table, and make the manifest fit."""
    pq.write_table(change(pq.read_table(log / SHARD)), log / SHARD)
    fit(log)


def fit(log: Path) -> None:
    entry(log, bytes=(log / SHARD).stat().st_size, sha256=sha256(log / SHARD))


def at(column: str, where: Any, value: Any) -> Callable[[Rows], Rows]:
    def change(old: Rows) -> Rows:
        values = np.array(getattr(old, column))
        values[where] = value
        return replace(old, **{column: values})

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def write(path: Path, content: str) -> None:
    path.write_text(content)


def same_ids_as_block_0(old: Rows) -> Rows:
    return replace(old, row_id=old.row_id - (1 << 32))


def many(log: Path) -> None:
    """A shard of a few kB that claims 400,000 rows."""
    n = 400_000
    pq.write_table(pa.table({"row_id": np.zeros(n, np.int64)}), log / SHARD, compression="zstd")
    fit(log)


def fields(log: Path, *kinds: str) -> None:
    """Let the log's schema have fields that need a vocabulary or bucket edges."""
    content = json.loads((log / "log.json").read_text())
    first = content["log_schema"]["fields"]
    if "vocabulary" in kinds:
        first[0] = {"name": "user", "kind": "vocabulary"}
    if "numeric" in kinds:
        first[1] = {**first[1], "kind": "numeric"}
    if "vocabulary" in kinds:
        recode(log)
    (log / "log.json").write_text(json.dumps(content))


def recode(log: Path) -> None:
    """Turn the ids of the field `user` into those of a vocabulary, which come after all fixed ones, of which there are then 60 fewer."""
    schema = parse_json(LogManifest, log / "log.json").log_schema
    for path in log.glob("blocks/*/manifest.json"):
        shards = []
        for shard in parse_json(BlockManifest, path).shards:
            old = read_shard(path.parent / shard.path, shard, schema)
            ids = old.ids - 60
            ids[:, 0] += 60 + N_IDS - 65
            shards.append(write_shard(path.parent / shard.path, replace(old, ids=ids.astype(np.int32))).model_dump())
        edit(path, shards=shards)


def vocabulary(log: Path, ids: list[int]) -> None:
    """A vocabulary that gives out these ids; the 58 fixed ones of the schema come before them."""
    fields(log, "vocabulary")
    n = len(ids)
    columns = [["user"] * n, [str(k) for k in range(n)], ids, [0] * n]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, VOCABULARY.types, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=VOCABULARY), log / "vocabulary.parquet")


def quarantine(log: Path, changes: dict[str, list[Any]] | None = None, *, schema: pa.Schema = QUARANTINE) -> None:
    """Three rows that were left out, two of them of block 1, and manifests that fit; then columns of the list are changed."""
    sound = {
        "file": ["a.parquet", "a.parquet", "b.parquet"],
        "row": [3, 7, 0],
        "column": ["label_0", "time", "label_0"],
        "reason": ["label 5, which is not 0/1", "no time", "no label"],
        "time": [86_400_007, None, 86_400_900],
        "block": ["block-001", None, "block-001"],
    }
    edit(log / MANIFEST, quarantined=2)
    pq.write_table(pa.table({**sound, **(changes or {})}, schema=schema), log / FILE)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    # What was done to the log, where the fault is found, and what is said of it.
    "log without a manifest": (lambda log: (log / "log.json").unlink(), "log.json", "missing"),
    "log of another format": (
        lambda log: edit(log / "log.json", format=2),
        "log.json",
        "format 2, this release reads 1",
    ),
    "log cut": (lambda log: cut(log / "log.json") or cut(log / "log.json"), "log.json", "not a valid LogManifest"),
    "a way out in the log": (lambda log: edit(log / "log.json", blocks=["../block-000"]), "log.json", "not a valid"),
    "a way out in a block": (lambda log: entry(log, path="../block-000/shard-00000.parquet"), MANIFEST, "not a valid"),
    "log is a link": (lambda log: link(log / "log.json", log / "elsewhere"), "log.json", "is a link"),
    "log is a pipe": (lambda log: pipe(log / "log.json"), "log.json", "not a file"),
    "log too large": (lambda log: os.truncate(log / "log.json", 65 << 20), "log.json", "more than 64 MiB"),
    "log without blocks": (lambda log: edit(log / "log.json", blocks=[]), "log.json", "at least 1 item"),
    "schema that contradicts itself": (
        lambda log: edit(log / "log.json", log_schema={**content_of(log / "log.json")["log_schema"], "user": ""}),
        "log.json",
        "log_schema.user",
    ),
    "block named twice": (
        lambda log: edit(log / "log.json", blocks=[*BLOCKS, "block-002"]),
        "blocks/block-002/manifest.json",
        "is block 2 'block-002', log.json puts 'block-002' at position 3",
    ),
    "block of another name": (
        lambda log: edit(log / MANIFEST, name="block-1"),
        MANIFEST,
        "is block 1 'block-1', log.json puts 'block-001' at position 1",
    ),
    "blocks is a link": (lambda log: link(log / "blocks", log / "elsewhere"), "blocks", "is a link"),
    "blocks are gone": (lambda log: shutil.rmtree(log / "blocks"), "blocks/block-000/manifest.json", "missing"),
    "block is a file": (
        lambda log: shutil.rmtree(log / BLOCK) or write(log / BLOCK, ""),
        MANIFEST,
        "cannot be read (Not a directory); a part of the path is a file; check the path",
    ),
    "manifest is a link": (lambda log: link(log / MANIFEST, log / "elsewhere"), MANIFEST, "is a link"),
    "shard is a folder": (lambda log: (log / SHARD).unlink() or (log / SHARD).mkdir(), SHARD, "missing, though"),
    "stray link": (lambda log: (log / BLOCK / "x").symlink_to("/"), f"{BLOCK}/x", "stray"),
    "times of a manifest contradict": (
        lambda log: edit(log / MANIFEST, time_min=86_400_100),
        MANIFEST,
        "its times or its row counts contradict each other",
    ),
    "manifest missing": (lambda log: (log / MANIFEST).unlink(), MANIFEST, "missing"),
    "manifest cut": (lambda log: write(log / MANIFEST, "{"), MANIFEST, "not a valid BlockManifest"),
    "block is a link": (lambda log: link(log / BLOCK, log / "elsewhere"), BLOCK, "is a link"),
    "stray block": (lambda log: (log / "blocks" / "block-009").mkdir(), "blocks/block-009", "stray"),
    "stray file": (lambda log: write(log / BLOCK / "x", ""), f"{BLOCK}/x", "stray"),
    "blocks in another order": (
        lambda log: edit(log / "log.json", blocks=["block-000", "block-002", "block-001"]),
        MANIFEST,
        "is block 1 'block-001', log.json puts 'block-001' at position 2",
    ),
    "blocks overlap": (lambda log: edit(log / MANIFEST, time_min=0), MANIFEST, "out of time order"),
    "ids shrink": (lambda log: edit(log / MANIFEST, n_ids=N_IDS - 1), MANIFEST, "fewer ids than block 'block-000'"),
    "fewer ids than fixed": (lambda log: edit(log / MANIFEST, n_ids=5), MANIFEST, "the fixed ones of the schema alone"),
    "row counts contradict": (lambda log: edit(log / MANIFEST, rows=41), MANIFEST, "contradict each other"),
    "positives contradict": (lambda log: edit(log / MANIFEST, positives=[41]), MANIFEST, "not the sum of its shards'"),
    "positives of another task": (lambda log: entry(log, positives=[1, 2]), MANIFEST, "not the sum of its shards'"),
    "times contradict": (
        lambda log: edit(log / MANIFEST, time_max=86_400_040),
        MANIFEST,
        "says 86400000 to 86400040, the rows' times go from 86400000 to 86400039",
    ),
    "shard twice": (lambda log: entry(log, path="shard-00001.parquet"), MANIFEST, "names a shard twice"),
    "shard missing": (lambda log: (log / SHARD).unlink(), SHARD, "missing, though the manifest names it"),
    "shard cut": (lambda log: cut(log / SHARD), SHARD, "bytes, the manifest says"),
    "shard changed": (lambda log: flip(log / SHARD), SHARD, "sha256"),
    "shard is a link": (lambda log: link(log / SHARD, log / "elsewhere"), SHARD, "is a link"),
    "no Parquet file": (lambda log: write(log / SHARD, "no parquet") or fit(log), SHARD, "not a readable Parquet file"),
    "another number of rows": (lambda log: entry(log, rows=21), SHARD, "has 20 rows, the manifest says 21"),
    "claims more rows than it can hold": (many, SHARD, "claims 400000 rows in"),
    "column missing": (
        lambda log: parquet(log, lambda table: table.drop_columns(["user"])),
        f"{SHARD}, column 'user'",
        "missing",
    ),
    "column too many": (
        lambda log: parquet(log, lambda table: table.append_column("x", table["user"])),
        f"{SHARD}, column 'x'",
        "does not belong here",
    ),
    "column of another type": (
        lambda log: parquet(log, lambda table: table.set_column(1, "time", table["time"].cast(pa.float64()))),
        f"{SHARD}, column 'time'",
        "is double, must be int64",
    ),
    "lists of another length": (
        lambda log: parquet(
            log, lambda table: table.set_column(4, "labels", table["ids"].cast(pa.list_(pa.uint8(), 4)))
        ),
        f"{SHARD}, column 'labels'",
        "must be lists of 1 uint8",
    ),
    "missing value": (
        lambda log: parquet(log, lambda table: table.set_column(2, "user", pa.array([None, *range(19)], pa.int64()))),
        f"{SHARD}, column 'user'",
        "missing values",
    ),
    "id too large": (
        lambda log: rows(log, at("ids", 3, N_IDS)),
        f"{SHARD}, column 'ids'",
        "1 of 20 rows, the first is 4294967299: outside [0, 118)",
    ),
    "id below zero": (lambda log: rows(log, at("ids", (3, 2), -1)), f"{SHARD}, column 'ids'", "outside [0, 118)"),
    "label of 2": (lambda log: rows(log, at("labels", 3, 2)), f"{SHARD}, column 'labels'", "neither 0 nor 1"),
    "other positives": (
        lambda log: rows(log, lambda old: old) or entry(log, positives=[0]),
        f"{SHARD}, column 'labels'",
        "other positives than the manifest says",
    ),
    "id of another field": (
        lambda log: rows(log, at("ids", (3, 1), 10)),
        f"{SHARD}, column 'ids'",
        "1 of 20 rows, the first is 4294967299: 10 is no id of field 'item'",
    ),
    "id of a field that is never empty": (
        lambda log: rows(log, at("ids", (3, 1), 0)),
        f"{SHARD}, column 'ids'",
        "0 is no id of field 'item'",
    ),
    "ids beyond int32": (lambda log: edit(log / MANIFEST, n_ids=2**31), MANIFEST, "not a valid BlockManifest (n_ids"),
    "more ids than there are": (
        lambda log: edit(log / MANIFEST, n_ids=2_000_000_000),
        MANIFEST,
        "says 2000000000 ids, the schema and the vocabulary have 118",
    ),
    "equal row ids": (
        lambda log: rows(log, at("row_id", 3, (1 << 32) + 2)),
        f"{SHARD}, column 'row_id'",
        "1 of 20 rows, the first is 4294967298: not above the one before",
    ),
    "a time beyond int64": (lambda log: edit(log / MANIFEST, time_max=2**63), MANIFEST, "not a valid BlockManifest"),
    "row ids fall": (
        lambda log: rows(log, at("row_id", 3, 1 << 32)),
        f"{SHARD}, column 'row_id'",
        "not above the one before",
    ),
    "row ids fall between shards": (
        lambda log: rows(log, at("row_id", 19, 1 << 40)),
        f"{BLOCK}/shard-00001.parquet, column 'row_id'",
        "1 of 20 rows, the first is 4294967316: not above the one before",
    ),
    "row ids of another block": (
        lambda log: rows(log, same_ids_as_block_0),
        "log.json",
        "20 row ids occur twice in the log, the first is 0",
    ),
    "times fall": (
        lambda log: rows(log, at("time", 3, 86_400_000)),
        f"{SHARD}, column 'time'",
        "earlier than the one before",
    ),
    "times fall between shards": (
        lambda log: rows(log, at("time", 19, 86_400_039)),
        f"{BLOCK}/shard-00001.parquet, column 'time'",
        "earlier than the one before",
    ),
    "times outside the block": (
        lambda log: rows(log, at("time", 0, 5)),
        f"{SHARD}, column 'time'",
        "outside the block's times",
    ),
    "no vocabulary": (lambda log: fields(log, "vocabulary"), "vocabulary.parquet", "missing, though the schema"),
    "a vocabulary with a hole": (
        lambda log: vocabulary(log, [58, 59, *range(61, N_IDS)]),
        "vocabulary.parquet, column 'id'",
        "must give out the ids 58 to 117",
    ),
    "a vocabulary that is none": (
        lambda log: fields(log, "vocabulary") or pq.write_table(pa.table({"id": [1]}), log / "vocabulary.parquet"),
        "vocabulary.parquet",
        "its columns are ['id'], must be",
    ),
    "a vocabulary that cannot be read": (
        lambda log: fields(log, "vocabulary") or write(log / "vocabulary.parquet", "x"),
        "vocabulary.parquet",
        "not a readable Parquet file",
    ),
    "quarantine missing": (
        lambda log: edit(log / MANIFEST, quarantined=2),
        FILE,
        "missing, though 2 rows were left out of the blocks",
    ),
    "quarantine is a link": (lambda log: quarantine(log) or link(log / FILE, log / "x"), FILE, "is a link"),
    "quarantine cut": (lambda log: quarantine(log) or cut(log / FILE), FILE, "not a readable Parquet file"),
    "quarantine is a folder": (lambda log: (log / FILE).mkdir(), FILE, "is a link, or no file"),
    "quarantine row below zero": (
        lambda log: quarantine(log, {"row": [-3, 7, 0]}),
        f"{FILE}, column 'row'",
        "1 are below 0 or not above the one before, the first is -3",
    ),
    "quarantine without a file": (
        lambda log: quarantine(log, {"file": ["a.parquet", None, "b.parquet"]}),
        f"{FILE}, column 'file'",
        "has missing values",
    ),
    "quarantine of a column of another type": (
        lambda log: quarantine(log, schema=QUARANTINE.set(1, pa.field("row", pa.int32()))),
        FILE,
        "in their types",
    ),
    "quarantine hides a row of a block": (
        lambda log: quarantine(log, {"time": [86_400_007, 86_400_008, 86_400_900]}),
        f"{FILE}, column 'block'",
        "missing for 1 rows, whose times are within a block",
    ),
    "quarantine without a column": (
        lambda log: quarantine(log, schema=QUARANTINE.remove(4)),
        FILE,
        "its columns are ['file', 'row', 'column', 'reason', 'block'], must be",
    ),
    "quarantine without a reason": (
        lambda log: quarantine(log, {"reason": ["x", None, "y"]}),
        f"{FILE}, column 'reason'",
        "has missing values",
    ),
    "quarantine names a row twice": (
        lambda log: quarantine(log, {"row": [7, 7, 0]}),
        f"{FILE}, column 'row'",
        "1 are below 0 or not above the one before, the first is 7 of a.parquet",
    ),
    "quarantine of a strange column": (
        lambda log: quarantine(log, {"column": ["label_0", "x", "time"]}),
        f"{FILE}, column 'column'",
        "names 'x', which the schema does not have",
    ),
    "quarantine of a strange block": (
        lambda log: quarantine(log, {"block": ["block-009", None, "block-001"]}),
        f"{FILE}, column 'block'",
        "names block 'block-009', which the log does not have",
    ),
    "quarantine lacks a row of a block": (
        lambda log: quarantine(log, {"block": [None, None, "block-001"]}),
        f"{FILE}, column 'block'",
        "names 1 rows of block 'block-001', its manifest says 2",
    ),
    "quarantine at another time": (
        lambda log: quarantine(log, {"time": [None, None, 86_400_000 * 2]}),
        f"{FILE}, column 'time'",
        "2 of 2 rows of block 'block-001': outside its times",
    ),
    "no edges": (lambda log: fields(log, "numeric"), "edges.json", "missing"),
    "edges of another field": (
        lambda log: fields(log, "numeric") or write(log / "edges.json", '{"edges": {"x": [1.0]}}'),
        "edges.json",
        "has no edges of field 'item'",
    ),
}


def test_a_sound_log_has_no_fault(log: Path) -> None:
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    assert verify(log) == []
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before


def test_the_forger_of_these_tests_leaves_no_trace(log: Path) -> None:
    rows(log, lambda old: old)
    parquet(log, lambda table: table)
    vocabulary(log, list(range(58, N_IDS)))
    quarantine(log)
    assert verify(log) == []


def test_the_damages_are_many() -> None:
    """What is said and in which file: two damages that give the same words about the same thing are one kind."""
    kinds = {(re.sub(r"[0-9]+", "N", where), re.sub(r"[0-9]+", "N", what)) for _, where, what in DAMAGES.values()}
    assert len(kinds) >= 65


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named(log: Path, damage: str) -> None:
    plant, where, what = DAMAGES[damage]
    plant(log)
    faults = verify(log)
    assert [fault for fault in faults if fault.where == where and what in fault.what], faults
    assert all(fault.remedy for fault in faults)


def test_all_faults_are_found_not_only_the_first(log: Path) -> None:
    rows(log, lambda old: at("labels", 5, 2)(at("ids", 3, N_IDS)(at("time", 3, 86_400_000)(old))))
    flip(log / "blocks/block-000/shard-00001.parquet")
    write(log / "blocks/block-002/x", "")
    assert {fault.where for fault in verify(log)} == {
        "blocks/block-000/shard-00001.parquet",
        f"{SHARD}, column 'ids'",
        f"{SHARD}, column 'labels'",
        f"{SHARD}, column 'time'",
        "blocks/block-002/x",
    }


def test_a_quarantine_of_blocks_that_cannot_be_read(log: Path) -> None:
    quarantine(log, {"time": [86_400_007, 86_400_008, 86_400_900]})
    for block in BLOCKS:
        write(log / "blocks" / block / "manifest.json", "{")
    assert {fault.where for fault in verify(log)} == {f"blocks/{block}/manifest.json" for block in BLOCKS}


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "a/b", "../b", ".hidden", "a\\b", "a\n", "x" * 129])
def test_no_name_leads_out_of_the_log(log: Path, name: str) -> None:
    shard = json.loads((log / MANIFEST).read_text())["shards"][0]
    for kind, content in (
        (LogShard, {**shard, "path": name}),
        (BlockManifest, {**json.loads((log / MANIFEST).read_text()), "name": name}),
        (LogManifest, {**json.loads((log / "log.json").read_text()), "blocks": [name]}),
    ):
        with pytest.raises(ValidationError, match=r"string_pattern_mismatch|string_too_long"):
            kind.model_validate(content)


def test_the_command_takes_a_log(log: Path) -> None:
    sound = CliRunner().invoke(app, ["verify", str(log)])
    first, note = sound.stdout.splitlines()
    assert (sound.exit_code, first) == (0, f"{log}: log: no faults")
    assert note.startswith("note: the log is of an earlier release")
    (log / SHARD).unlink()
    found = CliRunner().invoke(app, ["--json", "verify", str(log)])
    assert found.exit_code == 2
    said = json.loads(found.stdout)
    assert (said["kind"], said["log"]) == ("log", None)
    assert said["faults"][0]["where"] == SHARD
