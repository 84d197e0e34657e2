"""What is in a memory, counted by hand."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.logs.blocks import open_log
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.facts import effect
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.lineage import Lineage, trace
from diet_ray.memory.table_reader import LinkFile, TableReader
from diet_ray.report import inspection
from diet_ray.report.inspection import Inspection, drift, inspect, spread
from diet_ray.report.inspection_page import lead, tables_to_print, write_inspection
from diet_ray.report.inspection_plots import plot_blocks, plot_drift, plot_shares, plot_soft_labels
from diet_ray.storage.tensors import load_tensors, save_tensors
from tests.support import pages
from tests.support.small_run import config, local_run


@pytest.fixture(scope="module")
def found(finished: Path) -> Inspection:
    return inspect(finished)


def changed(finished: Path, monkeypatch: pytest.MonkeyPatch, **columns: np.ndarray) -> Inspection:
    """The inspection of a memory some of whose columns are others."""
    whole = trace(finished)
    memory = Memory(whole.memory.stage, whole.memory.units.updated(**columns), whole.memory.rows)
    monkeypatch.setattr(inspection, "trace", lambda path: replace(whole, memory=memory))
    return inspect(finished)


def test_composition_by_block_and_label(finished: Path, found: Inspection) -> None:
    units, soft = load_memory(finished).units, load_memory(finished).soft_label.numpy()[:, 0]
    assert (found.units, found.rows_seen, found.stage, found.block) == (len(units), 900, 2, "block-002")
    for part in found.blocks:
        mine = [m for m in range(len(units)) if units.block[m] == part.block]
        assert (part.name, part.rows) == (f"block-{part.block:03d}", 300)
        assert part.units == len(mine)
        assert part.positives == {"label_0": sum(int(units.label[m, 0]) for m in mine)}
        assert part.influence == pytest.approx(sum(float(units.influence[m]) for m in mine) / len(mine))
    assert sum(part.units for part in found.blocks) == found.units
    assert sum(part.share for part in found.blocks) == pytest.approx(1)
    for line in found.labels:
        values = sorted(float(soft[m]) for m in range(len(units)) if units.label[m, 0] == line.label)
        assert (line.units, line.share) == (len(values), len(values) / len(units))
        assert (line.soft_label.low, line.soft_label.high) == (values[0], values[-1])
        assert line.soft_label.mean == pytest.approx(sum(values) / len(values))
        counts = [sum(b / 20 <= v < (b + 1) / 20 for v in values) for b in range(20)]
        assert line.histogram == counts
    assert found.labels[1].soft_label.mean > found.labels[0].soft_label.mean


def test_bytes_and_the_guard(finished: Path, found: Inspection) -> None:
    memory = load_memory(finished)
    assert found.memory_bytes == sum(p.stat().st_size for p in stage_folder(finished, 2).glob("memory-*.arrow"))
    assert found.table_bytes == memory.table.shape[0] * memory.table.shape[1] * 4
    assert found.column_bytes == memory.units.nbytes
    report = memory.stage.refine
    assert report is not None
    assert (found.refined, found.guard_before, found.guard_after) == (
        report.kept,
        report.guard_before,
        report.guard_after,
    )


def test_influence_and_the_units_that_matter(finished: Path, found: Inspection) -> None:
    memory = load_memory(finished)
    units = memory.units
    ranked = sorted(range(len(units)), key=lambda m: (-abs(float(units.influence[m])), int(units.unit_id[m])))
    assert [line.unit_id for line in found.top] == [int(units.unit_id[m]) for m in ranked[:10]]
    first, m = found.top[0], ranked[0]
    assert first.ids == {name: [int(units.ids[m, f])] for f, name in enumerate(memory.field_names)}
    assert first.labels == {"label_0": int(units.label[m, 0])}
    assert first.soft_labels["label_0"] == pytest.approx(float(memory.soft_label[m, 0]))
    assert found.helping == sum(float(v) > 0 for v in units.influence) / len(units)
    assert found.harming == sum(float(v) < 0 for v in units.influence) / len(units)
    assert found.helping + found.harming > 0.5


def test_ties_in_influence_go_to_the_smaller_id(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = load_memory(finished).units
    influence = np.zeros(len(units), np.float32)
    influence[[5, 3]] = [-2.0, 2.0]
    top = changed(finished, monkeypatch, influence=influence).top
    assert [line.unit_id for line in top[:4]] == [int(units.unit_id[m]) for m in (3, 5, 0, 1)]


def test_delta_by_field(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = load_memory(finished).units
    delta = np.zeros_like(units.delta)
    delta[0, 1] = [3, 0, 4, 0]
    delta[1, 1] = [0, 0, 0, 1]
    parts = {part.field: part for part in changed(finished, monkeypatch, delta=delta).fields}
    assert parts["item"].delta_norm.high == 5
    assert parts["item"].delta_norm.mean == pytest.approx(6 / len(units))
    assert parts["item"].moved == 2 / len(units)
    assert (parts["user"].delta_norm.high, parts["user"].moved) == (0, 0)


def test_drift_of_the_table_by_field(finished: Path, found: Inspection) -> None:
    units = load_memory(finished).units
    before, now = (
        load_tensors(stage_folder(finished, t) / "checkpoint-1.safetensors")["table"].numpy() for t in (1, 2)
    )
    for f, part in enumerate(found.fields):
        ids = sorted({int(i) for i in units.ids[:, f]})
        assert (part.ids, part.drift_ids) == (len(ids), len(ids))
        pairs = [(before[i].astype(float), now[i].astype(float)) for i in ids]
        cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in pairs]
        assert part.cosine == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
        moved = sum(float((b - a) @ (b - a)) for a, b in pairs) / sum(float(b @ b) for _, b in pairs)
        assert part.drift == pytest.approx(math.sqrt(moved), rel=1e-6)
        lengths = [math.sqrt(float(now[i] @ now[i])) for i in units.ids[:, f]]
        assert part.embedding_norm == pytest.approx(sum(lengths) / len(lengths), rel=1e-5)


def test_ids_that_the_stage_before_did_not_have_and_padding_do_not_drift(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trace(finished)
    ids = whole.memory.units.ids.copy()
    ids[:, 3] = 0
    n = int(np.unique(ids[:, 0])[-1])  # the table before ends with the last user but one
    users = len(np.unique(ids[:, 0]))
    table = load_tensors(stage_folder(finished, 1) / "checkpoint-1.safetensors")["table"][:n]
    save_tensors(tmp_path / "before", {"table": table})
    monkeypatch.setattr(Lineage, "previous", lambda self: TableReader([LinkFile(tmp_path / "before", n)]))
    parts = {part.field: part for part in changed(finished, monkeypatch, ids=ids).fields}
    assert (parts["user"].ids, parts["user"].drift_ids) == (users, users - 1)
    assert (parts["hour"].ids, parts["hour"].drift_ids) == (0, 0)
    assert parts["item"].drift_ids == 0
    assert math.isnan(parts["item"].cosine)


def test_drift_and_spread_in_closed_form() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert drift(a, 2 * a) == pytest.approx((1.0, 0.5))
    assert drift(a, -a) == pytest.approx((-1.0, 2.0))
    assert all(math.isnan(value) for value in drift(a[:0], a[:0]))
    one = spread(np.arange(101, dtype=np.float32))
    assert (one.mean, one.low, one.q05, one.median, one.q95, one.high) == (50, 0, 5, 50, 95, 100)
    assert math.isnan(spread(np.zeros(0)).mean)


def test_the_first_stage_and_one_copied_alone(finished: Path, tmp_path: Path) -> None:
    first = inspect(stage_folder(finished, 0))
    assert [part.drift_ids for part in first.fields] == [0, 0, 0, 0]
    shutil.copytree(stage_folder(finished, 2), tmp_path / "mine")
    alone = inspect(tmp_path / "mine")
    assert [(part.name, part.rows) for part in alone.blocks][:2] == [(None, None), (None, None)]
    written = write_inspection(tmp_path / "page" / "alone.html", alone)
    assert all(path.is_file() for path in written)


def test_shares_and_values_are_those_of_the_log(finished: Path, log: Path, found: Inspection) -> None:
    opened = open_log(log)
    assert found.no_log is None
    for part, block in zip(found.blocks, opened.blocks, strict=False):
        assert part.log_positives == {"label_0": block.positives[0]}
    rows, units = sum(block.rows for block in opened.blocks[:3]), load_memory(finished).units
    of_log = sum(block.positives[0] for block in opened.blocks[:3]) / rows
    of_units = float(units.label[:, 0].mean())
    expected = f"label_0 is 1 in {of_units:.1%} of the units and in {of_log:.1%} of the log's rows"
    assert expected in lead(found)
    line = found.top[0]
    assert line.values is not None
    assert {name: len(values) for name, values in line.values.items()} == {
        name: len(ids) for name, ids in line.ids.items()
    }


def test_a_memory_without_its_log_shows_ids_and_says_why(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(stage_folder(finished, 2), tmp_path / "mine")
    manifest = tmp_path / "mine" / "manifest.json"
    stage = json.loads(manifest.read_text())
    stage["config"]["log"] = str(tmp_path / "gone")
    manifest.write_text(json.dumps(stage))
    alone = inspect(tmp_path / "mine")
    assert alone.no_log is not None
    assert alone.no_log.startswith(f"{tmp_path / 'gone'}: there is no log")
    assert alone.top[0].values is None
    assert [part.log_positives for part in alone.blocks] == [None] * len(alone.blocks)
    html = write_inspection(tmp_path / "alone.html", alone)[0].read_text()
    assert f"Fields are shown as ids, which all fields share: {tmp_path / 'gone'}: there is no log" in html
    assert "in the log" not in html


@pytest.mark.parametrize(
    ("refined", "before", "after", "said"),
    [
        (True, 0.26431, 0.26429, "made no difference that its guard can see (loss 0.2643 before and after)"),
        (True, 0.2643, 0.2601, "was kept (guard loss 0.2643 before, 0.2601 after)"),
        (False, 0.2601, 0.2643, "was not kept (guard loss 0.2601 before, 0.2643 after)"),
    ],
)
def test_refinement_is_told_as_its_guard_saw_it(refined: bool, before: float, after: float, said: str) -> None:
    assert effect(False, math.nan, math.nan) == "not kept"
    told = lead(pages.inspection(refined=refined, guard_before=before, guard_after=after))
    assert f"Refinement of the last stage {said}." in told
    assert "click is 1 in 20.0% of the units and in 17.0% of the log's rows" in told


def test_the_plots_show_the_figures(found: Inspection) -> None:
    figure = plot_blocks(found, "label_0")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [p.units - p.positives["label_0"] for p in found.blocks] + [
        p.positives["label_0"] for p in found.blocks
    ]
    units, log = plot_shares(found, "label_0").axes[0].lines
    assert units.get_ydata().tolist() == [100 * p.positives["label_0"] / p.units for p in found.blocks]
    assert log.get_ydata().tolist() == [100 * (p.log_positives or {})["label_0"] / (p.rows or 0) for p in found.blocks]
    figure = plot_soft_labels(found, "label_0")
    assert [patch.get_data().values.tolist() for patch in figure.axes[0].patches] == [
        part.histogram for part in found.labels
    ]
    figure = plot_drift(found)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [100 * part.drift for part in found.fields]


def test_the_tables_say_it(found: Inspection) -> None:
    first, *tables = tables_to_print(found)
    assert isinstance(first, str)
    assert f"{found.units} units for 900 rows of synthetic, up to block block-002 (stage 2)" in first
    assert [table.title for table in tables] == [
        "Composition by block",
        "Labels and soft labels",
        "Fields",
        "Weight and influence",
        "Most influential units",
    ]
    assert [table.row_count for table in tables] == [3, 2, 4, 2, 10]


def test_what_was_never_refined_has_no_zeros(log: Path, tmp_path: Path) -> None:
    stream = config(log)
    unrefined = stream.model_copy(update={"refine": stream.refine.model_copy(update={"rounds": 0})})
    found = inspect(local_run(tmp_path / "run", unrefined))
    first, *tables = tables_to_print(found)
    assert "Nothing was refined, so no unit was moved and no influence measured." in str(first)
    headings = {str(table.title): [str(column.header) for column in table.columns] for table in tables}
    assert list(headings) == ["Composition by block", "Labels and soft labels", "Fields", "Weight", "Some units"]
    said = " ".join(text for columns in headings.values() for text in columns)
    assert not {word for word in ("influence", "delta", "moved") if word in said}
    assert [table.row_count for table in tables] == [len(found.blocks), 2, 4, 1, 10]
    with Console(width=200, file=io.StringIO()) as console:
        console.print(*tables)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    assert "Cosine and drift compare the table's rows with those of the stage before" in " ".join(printed.split())
    (page, *_) = write_inspection(tmp_path / "page.html", found)
    assert "influence" not in page.read_text().replace("no influence measured", "")


def test_the_command(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    result = CliRunner().invoke(app, ["--json", "inspect", str(stage_folder(finished, 0)), "--out", str(page)])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (said["stage"], said["fields"][0]["cosine"]) == (0, None)
    html = page.read_text()
    plots = sorted(path.name for path in page.parent.glob("*.svg"))
    assert plots == ["page-blocks-0.svg", "page-deltas.svg", "page-shares-0.svg", "page-soft-labels-0.svg"]
    assert html.count("<svg ") == 4
    for text in ("Composition by block", "Most influential units", str(said["top"][0]["unit_id"]), "user: "):
        assert text in html
    result = CliRunner().invoke(app, ["inspect", str(finished)])
    assert result.exit_code == 0, result.output
    assert "Most influential units" in result.stdout
    refused = CliRunner().invoke(app, ["inspect", str(finished), "--out", str(tmp_path)])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"--out: {tmp_path} is a folder" in refused.stderr
    empty = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert empty.exit_code == 2
    assert "holds no committed stage" in empty.stderr
