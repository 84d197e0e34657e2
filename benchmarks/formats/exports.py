"""The way back: a small memory, exported, and what the engines read of it, against what pyarrow reads and the card promises."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.formats.engines.rows import column_report
from benchmarks.formats.result import Read
from diet_ray.config import StreamConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.logs.blocks import open_log
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.memory.events import Events
from diet_ray.memory.run_folder import open_run
from diet_ray.report.export import export_memory
from diet_ray.report.export_manifest import ExportManifest
from diet_ray.settings import parse_json

NET = {"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}}

STREAM: dict[str, Any] = {
    "seed": 3,
    "reference": {"nets": [NET | {"adapter": False}], "dim": 4, "batch_size": 64, "checkpoints": 2},
    "budget": {"ratio": 0.05},
    "student": {"steps": 10, "batch_size": 16},
    "refine": {"rounds": 0},
}
"""A stream of seconds: what a memory is worth does not matter here."""


def export(work: Path) -> Path:
    """Make a log, a memory of it, and the memory's export below a folder. Returns the export's."""
    simulate(SimulateConfig(rows=1000, blocks=2), work / "log")
    stream = StreamConfig.model_validate({"log": work / "log", **STREAM})
    committed = open_run(work / "run", stream, resume=False)
    run_stream(
        work / "run", open_log(work / "log"), stream, LocalEngine(stream), Events(work / "run/events.jsonl"), committed
    )
    export_memory(work / "run", work / "export")
    return work / "export"


def compared(export: Path, read: dict[str, Any]) -> dict[str, Read]:
    """What an engine read of an export, column by column, against pyarrow and the manifest."""
    manifest = parse_json(ExportManifest, export / "manifest.json")
    units = pq.read_table(sorted(export.glob("units-*.parquet"))[0])
    found = {}
    for name, meaning in manifest.columns.items():
        ours = column_report(units.schema.field(name).type, units[name].to_pylist())
        if name not in read:
            found[name] = Read(type="", because="the engine does not have it")
            continue
        found[name] = Read(type=read[name]["type"], because=_difference(ours, read[name], _width(meaning)))
    return found


def _width(meaning: str) -> int:
    """The length of a column's lists, by its description in the card; 1 where it has no lists."""
    lists = re.match(r"list of ([0-9]+) ", meaning)
    return int(lists[1]) if lists else 1


def _difference(ours: dict[str, Any], theirs: dict[str, Any], width: int) -> str:
    if theirs["rows"] != ours["rows"]:
        return f"{theirs['rows']} rows for {ours['rows']}"
    if theirs["widths"] != [width]:
        return f"lists of {theirs['widths']} for {width}"
    if theirs["first"] != ours["first"]:
        return f"the first row is {theirs['first']}, not {ours['first']}"
    if not math.isclose(theirs["sum"], ours["sum"], rel_tol=1e-12):
        return f"the sum is {theirs['sum']}, not {ours['sum']}"
    return ""
