"""Verifying a run: every planted damage is named, also where the checksums were made to fit it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import BlockManifest, write_shard
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.run_folder import read_units, write_units
from diet_ray.memory.units import Units, split
from diet_ray.memory.verification import Fault, log_of, verify
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.entries import file_entry
from diet_ray.storage.hashes import sha256
from tests.support.small_run import stage_bytes
from tests.support.synthetic import rows, write_log


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run of three stages, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def manifest(run: Path, index: int, **changes: Any) -> None:
    """Change a stage's manifest, and let the stages after it follow from the changed one."""
    edit(stage_folder(run, index) / "manifest.json", **changes)
    follow(run)


def follow(run: Path) -> None:
    """Make every manifest of the run fit the files that are there, as a forger would."""
    parent = None
    for index in range(3):
        folder = stage_folder(run, index)
        said = json.loads((folder / "manifest.json").read_text())
        for entry in [*said["memory"], *said["checkpoints"], said["optimiser"]]:
            if (folder / entry["path"]).is_file():
                entry.update(file_entry(folder / entry["path"]).model_dump(mode="json"))
        said["parent_sha256"] = parent
        (folder / "manifest.json").write_text(json.dumps(said))
        parent = sha256(folder / "manifest.json")


def units(run: Path, index: int, change: Callable[[Units], Units], shard: int = 0) -> None:
    """Write a memory shard anew, changed, and make the manifests fit."""
    path = stage_folder(run, index) / f"memory-{shard:02d}.arrow"
    write_units(path, change(read_units(path)))
    follow(run)


def cell(units: Units, column: str, value: Any) -> Units:
    """The units, the first one with another value in a column."""
    values = np.array(getattr(units, column))
    values[:1] = value
    return units.updated(**{column: values})


def arrow(run: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the first memory shard of the last stage anew as a changed Arrow table, and make the manifests fit."""
    path = stage_folder(run, 2) / "memory-00.arrow"
    table = change(pa.ipc.open_file(path.read_bytes()).read_all())
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    follow(run)


def tensors(run: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Write a weights file of the last stage anew, changed, and make the manifests fit."""
    path = stage_folder(run, 2) / f"{name}.safetensors"
    held = {key: value.clone() for key, value in load_file(path).items()}
    change(held)
    save_file(held, path)
    follow(run)


def put(name: str, value: torch.Tensor, **more: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda held: held.update({name: value, **more})


def spoil(name: str, at: Any, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda held: held[name].__setitem__(at, value)


def text(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_name("moved-away"))
    path.symlink_to(path.with_name("moved-away"))


def said(run: Path, index: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((stage_folder(run, index) / "manifest.json").read_text())
    return content


def rename_shard(run: Path) -> None:
    folder = stage_folder(run, 2)
    (folder / "memory-01.arrow").rename(folder / "memory-07.arrow")
    entries = said(run, 2)["memory"]
    entries[1]["path"] = "memory-07.arrow"
    manifest(run, 2, memory=entries)


def report(run: Path, **changes: Any) -> None:
    """Change what the last stage says of its refinement."""
    manifest(run, 2, refine={**said(run, 2)["refine"], **changes})


def again(run: Path) -> None:
    """The last stage takes in the block of the stage before, by its manifest."""
    manifest(run, 2, **{name: said(run, 1)[name] for name in ("block", "block_sha256")})


def renamed_optimiser(run: Path) -> None:
    (run / OPTIMISER).rename(run / LAST / "adam.safetensors")
    manifest(run, 2, optimiser={**said(run, 2)["optimiser"], "path": "adam.safetensors"})


def same_shard_twice(run: Path) -> None:
    manifest(run, 2, memory=said(run, 2)["memory"][:1] * 2)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap_shards(run: Path) -> None:
    folder = stage_folder(run, 2)
    (folder / "memory-00.arrow").rename(folder / "x")
    (folder / "memory-01.arrow").rename(folder / "memory-00.arrow")
    (folder / "x").rename(folder / "memory-01.arrow")
    follow(run)


def twice(run: Path) -> None:
    """The first unit of shard 0 also in shard 1, with all the counts fitting."""
    first = read_units(stage_folder(run, 2) / "memory-00.arrow").take(np.arange(1))
    units(run, 2, lambda old: Units.concat([old.take(np.arange(1, len(old))), first]), shard=1)


def inherit(run: Path) -> None:
    """A unit of an earlier block that no earlier stage had: a real row of block 0, in the place of a unit of block 2."""
    whole = Units.concat([read_units(stage_folder(run, 2) / f"memory-{shard:02d}.arrow") for shard in (0, 1)])
    new = np.setdiff1d(np.arange(300), whole.unit_id)[0]
    row, at = rows(300, block=0), int(np.flatnonzero(whole.block == 2)[0])
    changes = {"unit_id": row.row_id[new], "ids": row.ids[new], "label": row.labels[new], "block": 0}
    columns = {name: np.array(getattr(whole, name)) for name in changes}
    for name, value in changes.items():
        columns[name][at] = value
    changed = Units.concat([whole.updated(**columns)])
    for shard, part in enumerate(split(changed, 2)):
        write_units(stage_folder(run, 2) / f"memory-{shard:02d}.arrow", part)
    follow(run)


def zeros(run: Path) -> None:
    """An Arrow file of a few kB that claims 400,000 units."""
    n = 400_000
    table = pa.table({"unit_id": np.zeros(n, np.int64), "weight": np.zeros(n, np.float32)})
    path = stage_folder(run, 2) / "memory-00.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    follow(run)


def config_with(run: Path, index: int, **changes: Any) -> dict[str, Any]:
    return {**said(run, index)["config"], **changes}


NAN, LAST = float("nan"), "stages/0002"
SHARD, CHECKPOINT, OPTIMISER = (
    f"{LAST}/memory-00.arrow",
    f"{LAST}/checkpoint-1.safetensors",
    f"{LAST}/optimiser.safetensors",
)

DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    # What was done to the run, where the fault is found, and what is said of it.
    "run without a manifest": (lambda run: (run / "run.json").unlink(), "run.json", "missing"),
    "run of another format": (
        lambda run: edit(run / "run.json", format=99),
        "run.json",
        "format 99, this release reads",
    ),
    "manifest missing": (lambda run: (run / LAST / "manifest.json").unlink(), f"{LAST}/manifest.json", "missing"),
    "manifest cut": (lambda run: text(run, f"{LAST}/manifest.json", "{"), f"{LAST}/manifest.json", "not a valid"),
    "manifest of another format": (
        lambda run: edit(run / LAST / "manifest.json", format=1),
        f"{LAST}/manifest.json",
        "format 1,",
    ),
    "manifest is a link": (lambda run: link(run / LAST / "manifest.json"), f"{LAST}/manifest.json", "is a link"),
    "way out of the folder": (
        lambda run: manifest(run, 2, optimiser={"path": "..", "bytes": 1, "sha256": ""}),
        f"{LAST}/manifest.json",
        "not a valid",
    ),
    "no number can be so large": (
        lambda run: manifest(run, 2, rows_seen=10**400),
        f"{LAST}/manifest.json",
        "not a valid",
    ),
    "stage missing": (lambda run: shutil.rmtree(stage_folder(run, 1)), "stages", "stages 0001 to 0001 are missing"),
    "stages missing": (lambda run: shutil.rmtree(run / "stages"), "stages", "missing"),
    "stray among the stages": (lambda run: text(run, "stages/x", ""), "stages/x", "stray"),
    "stage is a link": (lambda run: link(run / LAST), LAST, "is a link"),
    "stray in a stage": (lambda run: text(run, f"{LAST}/x.bin", ""), f"{LAST}/x.bin", "stray"),
    "another parent": (
        lambda run: edit(run / "stages/0000/manifest.json", reference_logloss=0.5),
        "stages/0001/manifest.json",
        "parent_sha256",
    ),
    "a first stage with a parent": (
        lambda run: edit(run / "stages/0000/manifest.json", parent_sha256="0" * 64),
        "stages/0000/manifest.json",
        "parent_sha256",
    ),
    "another index": (
        lambda run: edit(run / LAST / "manifest.json", index=3),
        f"{LAST}/manifest.json",
        "is stage 3, its folder says 2",
    ),
    "another config": (
        lambda run: manifest(run, 2, config=config_with(run, 2, seed=4)),
        f"{LAST}/manifest.json",
        "another config than the run's: key 'seed'",
    ),
    "another schema": (
        lambda run: manifest(run, 2, log_schema={**said(run, 2)["log_schema"], "name": "x"}),
        f"{LAST}/manifest.json",
        "another log_schema than the stage before",
    ),
    "a loss below zero": (
        lambda run: manifest(run, 2, reference_logloss=-0.5),
        f"{LAST}/manifest.json",
        "loss of -0.5",
    ),
    "a loss that is none": (
        lambda run: manifest(run, 2, reference_logloss=NAN),
        f"{LAST}/manifest.json",
        "loss of nan",
    ),
    "rounds that were not asked for": (
        lambda run: report(run, meta_loss=[0.5, 0.5]),
        f"{LAST}/manifest.json",
        "reports 2 rounds of refinement, 0 of them skipped, its config asks for 3",
    ),
    "more rounds skipped than made": (lambda run: report(run, skipped=4), f"{LAST}/manifest.json", "4 of them skipped"),
    "kept though it was worse": (
        lambda run: report(run, kept=True, guard_before=0.5, guard_after=0.75),
        f"{LAST}/manifest.json",
        "says that refinement was kept, with a loss of 0.5 before and 0.75 after it",
    ),
    "not kept though it was better": (
        lambda run: report(run, kept=False, guard_before=0.75, guard_after=0.5),
        f"{LAST}/manifest.json",
        "says that refinement was not kept",
    ),
    "a block twice": (again, f"{LAST}/manifest.json", "took in block 'block-001', as stage 0001 did"),
    "over the budget": (
        lambda run: manifest(run, 2, rows_seen=899, config=config_with(run, 2, budget={"cap": 44})),
        f"{LAST}/manifest.json",
        "says 45 units, the budget for 899 rows seen is 44",
    ),
    "rows go back": (
        lambda run: manifest(run, 2, rows_seen=600),
        f"{LAST}/manifest.json",
        "600 rows seen, not more than",
    ),
    "ids shrink": (
        lambda run: manifest(run, 2, n_ids=117),
        f"{LAST}/manifest.json",
        "says 117 ids, the stage before has 118",
    ),
    "fewer ids than the schema has": (
        lambda run: manifest(run, 2, n_ids=117),
        f"{LAST}/manifest.json",
        "fixed ones of its schema alone are 118",
    ),
    "too many units said": (
        lambda run: manifest(run, 2, units=10**12),
        f"{LAST}/manifest.json",
        "says 1000000000000 units, the memory shards hold 45",
    ),
    "another number of shards": (
        lambda run: manifest(run, 2, memory=said(run, 2)["memory"][:1]),
        f"{LAST}/manifest.json",
        "names 1 memory shards, its config asks for 2",
    ),
    "a shard of another name": (
        rename_shard,
        f"{LAST}/manifest.json",
        "names 'memory-07.arrow' where 'memory-01.arrow' belongs",
    ),
    "a shard named twice": (
        same_shard_twice,
        f"{LAST}/manifest.json",
        "names 'memory-00.arrow' where 'memory-01.arrow' belongs",
    ),
    "an optimiser of another name": (
        renamed_optimiser,
        f"{LAST}/manifest.json",
        "names 'adam.safetensors' where 'optimiser.safetensors' belongs",
    ),
    "another number of checkpoints": (
        lambda run: manifest(run, 2, checkpoints=said(run, 2)["checkpoints"][1:]),
        f"{LAST}/manifest.json",
        "names 1 checkpoints, its config asks for 2",
    ),
    "file missing": (lambda run: (run / SHARD).unlink(), SHARD, "missing, though the manifest names it"),
    "folder in a file's place": (lambda run: folder_instead(run / OPTIMISER), OPTIMISER, "missing, though"),
    "pipe in a manifest's place": (
        lambda run: pipe_instead(run / LAST / "manifest.json"),
        f"{LAST}/manifest.json",
        "not a file",
    ),
    "manifest too large": (
        lambda run: os.truncate(run / LAST / "manifest.json", 65 << 20),
        f"{LAST}/manifest.json",
        "more than 64 MiB",
    ),
    "run.json is a link": (lambda run: link(run / "run.json"), "run.json", "is a link"),
    "run.json is a folder": (lambda run: folder_instead(run / "run.json"), "run.json", "not a file"),
    "stages is a link": (lambda run: link(run / "stages"), "stages", "is a link"),
    "draft is a link": (
        lambda run: (run / "stages" / ".0003.0a1b2c3d.tmp").symlink_to("0000"),
        "stages/.0003.0a1b2c3d.tmp",
        "is a link",
    ),
    "file in a stage's place": (lambda run: text(run, "stages/0003", ""), "stages/0003", "stray"),
    "stage of another spelling": (lambda run: (run / "stages" / "3").mkdir(), "stages/3", "stray"),
    "file cut": (
        lambda run: (run / CHECKPOINT).write_bytes((run / CHECKPOINT).read_bytes()[:-1]),
        CHECKPOINT,
        "bytes, the manifest says",
    ),
    "file changed": (lambda run: flip(run / OPTIMISER), OPTIMISER, "sha256"),
    "file is a link": (lambda run: link(run / SHARD), SHARD, "is a link"),
    "no Arrow file": (lambda run: (text(run, SHARD, "no arrow"), follow(run)), SHARD, "not a readable Arrow file"),
    "claims more units than it can hold": (zeros, SHARD, "claims 400000 rows in"),
    "column missing": (
        lambda run: arrow(run, lambda table: table.drop_columns(["influence"])),
        f"{SHARD}, column 'influence'",
        "missing",
    ),
    "column too many": (
        lambda run: arrow(run, lambda table: table.append_column("x", table["weight"])),
        f"{SHARD}, column 'x'",
        "does not belong here",
    ),
    "column of another type": (
        lambda run: arrow(run, lambda table: table.set_column(4, "weight", table["weight"].cast(pa.float64()))),
        f"{SHARD}, column 'weight'",
        "is double, must be float",
    ),
    "lists of another length": (
        lambda run: arrow(
            run, lambda table: table.set_column(1, "ids", table["logit"].cast(pa.list_(pa.int32(), 1), safe=False))
        ),
        f"{SHARD}, column 'ids'",
        "must be lists of 4 int32",
    ),
    "missing value": (
        lambda run: arrow(
            run, lambda table: table.set_column(4, "weight", pa.array([None] + [1.0] * (len(table) - 1), pa.float32()))
        ),
        f"{SHARD}, column 'weight'",
        "missing values",
    ),
    "another width": (
        lambda run: arrow(run, lambda table: table.replace_schema_metadata({"n_fields": "2", "dim": "8"})),
        SHARD,
        "says 2 fields of width 8, the run has 4 of 4",
    ),
    "units in the wrong shard": (swap_shards, f"{SHARD}, column 'unit_id'", "belongs to another shard"),
    "units out of order": (
        lambda run: units(run, 2, lambda old: old.take(np.arange(len(old))[::-1])),
        f"{SHARD}, column 'unit_id'",
        "below the one before",
    ),
    "unit twice": (twice, LAST, "1 unit ids occur twice in the memory"),
    "id too large": (
        lambda run: units(run, 2, lambda old: cell(old, "ids", 118)),
        f"{SHARD}, column 'ids'",
        "outside [0, 118)",
    ),
    "id below zero": (
        lambda run: units(run, 2, lambda old: cell(old, "ids", -1)),
        f"{SHARD}, column 'ids'",
        "outside [0, 118)",
    ),
    "label of 2": (
        lambda run: units(run, 2, lambda old: cell(old, "label", 2)),
        f"{SHARD}, column 'label'",
        "neither 0 nor 1",
    ),
    "delta not finite": (
        lambda run: units(run, 2, lambda old: cell(old, "delta", NAN)),
        f"{SHARD}, column 'delta'",
        "not finite",
    ),
    "logit not finite": (
        lambda run: units(run, 2, lambda old: cell(old, "logit", np.inf)),
        f"{SHARD}, column 'logit'",
        "not finite",
    ),
    "weight not finite": (
        lambda run: units(run, 2, lambda old: cell(old, "weight", NAN)),
        f"{SHARD}, column 'weight'",
        "not finite",
    ),
    "weight below zero": (
        lambda run: units(run, 2, lambda old: cell(old, "weight", -1)),
        f"{SHARD}, column 'weight'",
        "below 0",
    ),
    "influence not finite": (
        lambda run: units(run, 2, lambda old: cell(old, "influence", NAN)),
        f"{SHARD}, column 'influence'",
        "not finite",
    ),
    "unit of a later block": (
        lambda run: units(run, 2, lambda old: cell(old, "block", 3)),
        f"{SHARD}, column 'block'",
        "outside the blocks 0 to 2",
    ),
    "unit changed its block": (
        lambda run: units(run, 2, lambda old: cell(old, "block", 1)),
        f"{LAST}, column 'block'",
        "changed since the stage before",
    ),
    "unit changed its label": (
        lambda run: units(run, 2, lambda old: old.updated(label=1 - old.label)),
        f"{LAST}, column 'label'",
        "changed since the stage before",
    ),
    "a unit is gone": (
        lambda run: units(run, 2, lambda old: old.take(np.flatnonzero(np.arange(len(old)) != np.argmin(old.block)))),
        f"{LAST}, column 'unit_id'",
        "gone, though budget.ratio removes none",
    ),
    "unit of an earlier block is new": (inherit, f"{LAST}, column 'block'", "not in the stage before"),
    "no safetensors file": (
        lambda run: (text(run, CHECKPOINT, "x" * 3000), follow(run)),
        CHECKPOINT,
        "not a readable safetensors file",
    ),
    "tensor missing": (
        lambda run: tensors(run, "checkpoint-1", lambda held: held.pop("net.members.1.net.mlp.out.bias")),
        f"{CHECKPOINT}, tensor 'net.members.1.net.mlp.out.bias'",
        "missing",
    ),
    "tensor too many": (
        lambda run: tensors(run, "checkpoint-1", put("x", torch.zeros(1))),
        f"{CHECKPOINT}, tensor 'x'",
        "does not belong here",
    ),
    "table of another shape": (
        lambda run: tensors(run, "checkpoint-1", put("table", torch.zeros(119, 4))),
        f"{CHECKPOINT}, tensor 'table'",
        "is F32 [119, 4], must be F32 [118, 4]",
    ),
    "tensor of another type": (
        lambda run: tensors(
            run, "checkpoint-1", put("net.members.1.net.mlp.out.bias", torch.zeros(1, dtype=torch.float64))
        ),
        f"{CHECKPOINT}, tensor 'net.members.1.net.mlp.out.bias'",
        "is F64 [1], must be F32 [1]",
    ),
    "weights not finite": (
        lambda run: tensors(run, "checkpoint-1", spoil("table", (3, 1), NAN)),
        f"{CHECKPOINT}, tensor 'table'",
        "not finite",
    ),
    "padding not zero": (
        lambda run: tensors(run, "checkpoint-1", spoil("table", (0, 1), 1.0)),
        f"{CHECKPOINT}, tensor 'table'",
        "row 0, the padding",
    ),
    "too small for its table": (
        lambda run: manifest(run, 2, n_ids=10**12),
        CHECKPOINT,
        "too small for 1000000000000 ids of width 4",
    ),
    "moments missing": (
        lambda run: tensors(run, "optimiser", lambda held: held.pop("table/exp_avg_sq")),
        f"{OPTIMISER}, tensor 'table/exp_avg_sq'",
        "missing",
    ),
    "moments of another shape": (
        lambda run: tensors(run, "optimiser", put("table/exp_avg", torch.zeros(4, 118))),
        f"{OPTIMISER}, tensor 'table/exp_avg'",
        "must be F32 [118, 4]",
    ),
    "moments not finite": (
        lambda run: tensors(run, "optimiser", spoil("table/exp_avg", (3, 1), np.inf)),
        f"{OPTIMISER}, tensor 'table/exp_avg'",
        "not finite",
    ),
    "moments below zero": (
        lambda run: tensors(run, "optimiser", spoil("table/exp_avg_sq", (3, 1), -1e-9)),
        f"{OPTIMISER}, tensor 'table/exp_avg_sq'",
        "below 0, which no mean of squares is",
    ),
    "no step": (
        lambda run: tensors(run, "optimiser", put("table/step", torch.tensor(0))),
        f"{OPTIMISER}, tensor 'table/step'",
        "says 0 steps",
    ),
    "steps of another type": (
        lambda run: tensors(run, "optimiser", put("table/step", torch.tensor(5.0))),
        f"{OPTIMISER}, tensor 'table/step'",
        "must be I64 []",
    ),
}


def test_a_sound_run_has_no_fault(finished: Path, log: Path, tmp_path: Path) -> None:
    before = stage_bytes(finished)
    assert log_of(finished) == log
    assert verify(finished) == []
    assert verify(finished, log=log) == []
    assert stage_bytes(finished) == before
    # What an interrupted run leaves is no fault: a resume clears it away.
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(stage_folder(run, 2))
    (run / "stages" / ".0002.tmp").mkdir()
    # And neither is what a driver says of itself.
    (run / "follow").mkdir()
    text(run, "archive.json", "{")
    text(run, "follow/lock.json", "{")
    assert verify(run) == []


def test_the_forger_of_these_tests_leaves_no_trace(run: Path) -> None:
    units(run, 1, lambda old: old)
    tensors(run, "checkpoint-1", lambda held: None)
    assert verify(run) == []


def test_the_damages_are_many() -> None:
    """What is said and in which file: two damages that give the same words about the same thing are one kind."""
    kinds = {(re.sub(r"[0-9]+", "N", where), re.sub(r"[0-9]+", "N", what)) for _, where, what in DAMAGES.values()}
    assert len(kinds) >= 75
    assert len(kinds | {(where, what) for _, where, what in LOGS.values()}) >= 80


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named(run: Path, damage: str) -> None:
    plant, where, what = DAMAGES[damage]
    plant(run)
    faults = verify(run)
    assert [fault for fault in faults if fault.where == where and what in fault.what], faults
    assert all(fault.remedy for fault in faults)


def test_all_faults_are_found_not_only_the_first(run: Path) -> None:
    planted = ["run of another format", "stray in a stage", "file changed", "label of 2", "padding not zero"]
    # A forger first: making the manifests fit would hide the plain damages.
    for damage in reversed(planted):
        DAMAGES[damage][0](run)
    found = {(fault.where, fault.what) for fault in verify(run)}
    for damage in planted:
        _, where, what = DAMAGES[damage]
        assert any(place == where and what in text for place, text in found), (damage, found)
    for index in (0, 1):
        (stage_folder(run, index) / "checkpoint-0.safetensors").unlink()
    assert len(verify(run)) >= len(found) + 2


def other_block(log: Path, index: int, change: Callable[[Any], Any]) -> None:
    """Write a block of a log anew with changed rows, all its checksums right."""
    folder = log / "blocks" / f"block-{index:03d}"
    whole = change(rows(300, block=index))
    entries = [
        write_shard(folder / f"shard-{i:05d}.parquet", whole.take(part))
        for i, part in enumerate(np.array_split(np.arange(len(whole)), 2))
    ]
    old = parse_json(BlockManifest, folder / "manifest.json")
    positives = [int(n) for n in whole.labels.sum(axis=0)]
    write_json(
        folder / "manifest.json", old.model_copy(update={"shards": entries, "positives": positives, "rows": len(whole)})
    )


def renamed(log: Path) -> None:
    content = json.loads((log / "log.json").read_text())
    content["log_schema"]["name"] = "another"
    (log / "log.json").write_text(json.dumps(content))


def flipped_labels(whole: Any) -> Any:
    return type(whole)(whole.row_id, whole.time, whole.user, whole.ids, 1 - whole.labels)


def shifted_ids(whole: Any) -> Any:
    return type(whole)(whole.row_id, whole.time, whole.user, whole.ids - 1, whole.labels)


LOGS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "another block": (
        lambda log: other_block(log, 1, flipped_labels),
        "stages/0001/manifest.json",
        "took in another block than 'block-001'",
    ),
    "other labels": (
        lambda log: other_block(log, 1, flipped_labels),
        "stages/0001, column 'label'",
        "not those of the row in block 'block-001'",
    ),
    "other ids": (
        lambda log: other_block(log, 1, shifted_ids),
        "stages/0001, column 'ids'",
        "not those of the row in block 'block-001'",
    ),
    "rows are gone": (
        lambda log: other_block(log, 1, lambda whole: whole.take(np.arange(20))),
        "stages/0001, column 'unit_id'",
        "no row of block 'block-001'",
    ),
    "other row counts": (
        lambda log: other_block(log, 1, lambda whole: whole.take(np.arange(20))),
        "stages/0001/manifest.json",
        "says 600 rows seen, with its block they are 320",
    ),
    "other n_ids": (
        lambda log: edit(log / "blocks/block-002/manifest.json", n_ids=119),
        f"{LAST}/manifest.json",
        "says 118 ids, its block says 119",
    ),
    "another schema": (renamed, f"{LAST}/manifest.json", "another schema than the log"),
    "too few blocks": (
        lambda log: edit(log / "log.json", blocks=["block-000"]),
        f"{LAST}/manifest.json",
        "took in block 2, the log has 1",
    ),
    "damaged shard": (
        lambda log: flip(log / "blocks/block-001/shard-00001.parquet"),
        "LOG/blocks/block-001/shard-00001.parquet",
        "sha256",
    ),
    "damaged block": (
        lambda log: text(log, "blocks/block-001/manifest.json", "{"),
        "LOG/blocks/block-001/manifest.json",
        "not a valid BlockManifest",
    ),
    "damaged log": (lambda log: text(log, "log.json", "{"), "LOG/log.json", "not a valid LogManifest"),
}


@pytest.mark.parametrize("damage", LOGS)
def test_a_run_is_compared_with_its_log(finished: Path, tmp_path: Path, damage: str) -> None:
    log = write_log(tmp_path / "log", blocks=4, n=300)
    assert verify(finished, log=log) == []
    plant, where, what = LOGS[damage]
    plant(log)
    faults = verify(finished, log=log)
    assert [fault for fault in faults if fault.where.replace(str(log), "LOG") == where and what in fault.what], faults
    assert len(set(faults)) == len(faults)


def test_units_are_looked_for_in_the_log_though_the_stage_before_is_damaged(run: Path, log: Path) -> None:
    units(run, 2, lambda old: cell(old, "label", 1 - old.label[:1]))
    (stage_folder(run, 1) / "memory-00.arrow").unlink()
    wheres = {fault.where for fault in verify(run, log=log)}
    assert f"{LAST}, column 'label'" in wheres


def test_without_its_log_a_run_is_verified_by_itself(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "run.json").read_text())["config"]
    edit(run / "run.json", config={**config, "log": str(tmp_path / "gone")})
    assert log_of(run) is None
    assert verify(run) == []


def test_other_folders_are_refused(run: Path, log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run nor a log"):
        verify(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"--log: .* holds no log"):
        verify(run, log=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is a log itself"):
        verify(log, log=log)


def test_the_command_shows_all_and_ends_with_two(run: Path, log: Path) -> None:
    sound = CliRunner().invoke(app, ["verify", str(run)])
    assert sound.exit_code == 0, sound.output
    assert sound.stdout == f"{run}: run, compared with the log {log}: no faults\n"
    flip(run / OPTIMISER)
    text(run, f"{LAST}/x.bin", "")
    faults = verify(run, log=log)
    assert len(faults) == 2

    found = CliRunner().invoke(app, ["verify", str(run), "--log", str(log)])
    assert found.exit_code == 2
    assert ": 2 faults\n" in found.stdout
    assert "optimiser.safetensors" in found.stdout
    assert found.stderr == f"error: {run}: faults found: 2; the first: {faults[0].where}: {faults[0].what}\n"

    found = CliRunner().invoke(app, ["--json", "verify", str(run)])
    assert found.exit_code == 2
    said = json.loads(found.stdout)
    assert (said["kind"], said["log"]) == ("run", str(log))
    assert [Fault(**fault) for fault in said["faults"]] == faults


def test_quiet_still_says_that_something_is_wrong(run: Path) -> None:
    (run / SHARD).unlink()
    found = CliRunner().invoke(app, ["--quiet", "verify", str(run)])
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {run}: faults found: ")
