"""The memory as others get it, read back without diet_ray."""

from __future__ import annotations

import ast
import importlib.util
import json
import runpy
import shutil
import stat
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.config import StudentConfig
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.fidelity.config import Method
from diet_ray.judge.fidelity.measures import MEASURES, Interval
from diet_ray.judge.fidelity.result import CEILING, FidelityResult, SetResult
from diet_ray.judge.fidelity.words import trust_in
from diet_ray.logs.blocks import open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.units import Units
from diet_ray.report import export as export_module
from diet_ray.report.export import export_memory, prune
from diet_ray.report.inspection import inspect
from diet_ray.report.inspection_page import lead, write_inspection
from diet_ray.settings import write_json
from diet_ray.storage.hashes import sha256
from diet_ray.training.embedding import lookup
from tests.support.small_run import config, local_run
from tests.support.synthetic import write_log

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_your_own.py"


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "mine"
    export_memory(finished, out, licence="CC BY-SA 4.0")
    return out


def wide(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def bench(path: Path, log: str = "synthetic") -> Path:
    """A `fidelity.json` of three sets, one of which the card leaves out."""
    values = {"spearman": 0.75, "kendall": 0.5, "auc_gap_mean": 0.0123, "pairs_right": 0.9, "top1_regret": 0.001}
    found = {name: Interval(value=v, low=v - 0.001, high=v + 0.001) for name, v in values.items()}
    found |= {name: found["kendall"] for name in MEASURES if name not in values}
    names = (CEILING, "memory/soft/shared", "herding/soft/shared")
    sets = [
        SetResult(
            name=name,
            method=None if name == CEILING else Method.model_validate(name),
            ratio=0.05,
            units=45,
            fidelity={"label_0": {"all": found, "architectures": found}},
        )
        for name in names
    ]
    result = FidelityResult(
        log=log,
        tasks=["label_0"],
        blocks=["block-000"],
        rows=900,
        test_blocks=["block-003"],
        test_rows=300,
        seeds=3,
        students=1,
        student=StudentConfig(),
        ratio=0.05,
        replicates=100,
        candidates=[],
        noise={"label_0": 0.001},
        full=[],
        sets=sets,
        scores=[],
        stages=[],
        differences=[],
        pooled_pearson={},
    )
    write_json(path, result)
    return path


def test_pyarrow_and_safetensors_read_it(finished: Path, exported: Path) -> None:
    memory = load_memory(finished)
    units = pq.read_table(exported / "units-00000.parquet")
    assert units.column_names == ["unit_id", "ids", "block", "x", "soft_label_label_0", "label_label_0", "weight"]
    assert units["x"].type == pa.list_(pa.float32(), 16)
    assert np.array_equal(wide(units, "x").astype(np.float32), memory.x.reshape(-1, 16).numpy())
    assert np.array_equal(wide(units, "ids"), memory.units.ids)
    for column, expected in {
        "unit_id": memory.units.unit_id,
        "block": memory.units.block,
        "soft_label_label_0": memory.soft_label.numpy()[:, 0],
        "label_label_0": memory.units.label[:, 0],
        "weight": memory.units.weight,
    }.items():
        assert units[column].to_numpy().dtype == expected.dtype
        assert np.array_equal(units[column].to_numpy(), expected)
    table = load_file(exported / "embeddings.safetensors")["table"]
    assert torch.equal(table, memory.table)
    assert stat.S_IMODE((exported / "embeddings.safetensors").stat().st_mode) == stat.S_IMODE(
        (exported / "README.md").stat().st_mode
    )


def test_the_manifest_says_all_that_is_needed(finished: Path, exported: Path) -> None:
    said, stage = json.loads((exported / "manifest.json").read_text()), load_memory(finished).stage
    assert {entry["path"] for entry in said["files"]} == {"units-00000.parquet", "embeddings.safetensors"}
    for entry in said["files"]:
        path = exported / entry["path"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256(path))
    assert said["student"] == {"steps": 10, "batch_size": 16, "lr": 0.01, "draw": 0.75}
    assert (said["fields"], said["slots"], said["dim"]) == (["user", "item", "kind", "hour"], [0, 1, 2, 3], 4)
    assert (said["units"], said["memory_units"], said["rows_seen"], said["n_ids"]) == (45, 45, 900, stage.n_ids)
    assert said["blocks"] == {str(index): f"block-{index:03d}" for index in range(3)}
    assert said["stage_sha256"] == sha256(stage_folder(finished, 2) / "manifest.json")
    assert set(said["columns"]) == set(pq.read_schema(exported / "units-00000.parquet").names)


def test_the_same_memory_gives_the_same_bytes(finished: Path, exported: Path, tmp_path: Path) -> None:
    export_memory(stage_folder(finished, 2), tmp_path / "again", licence="CC BY-SA 4.0")
    assert content(tmp_path / "again") == content(exported)
    export_memory(finished, tmp_path / "bare", ids=False)
    export_memory(finished, tmp_path / "bare again", ids=False)
    assert content(tmp_path / "bare") == content(tmp_path / "bare again")


def test_large_memories_come_in_several_files(
    finished: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "FILE_UNITS", 20)
    made = export_memory(finished, tmp_path / "mine")
    names = [f"units-{number:05d}.parquet" for number in range(3)]
    assert [entry.path for entry in made.files] == [*names, "embeddings.safetensors"]
    parts = [pq.read_table(tmp_path / "mine" / name) for name in names]
    assert [len(part) for part in parts] == [20, 20, 5]
    assert pa.concat_tables(parts).equals(pq.read_table(exported / "units-00000.parquet"))


def test_without_ids_nothing_names_a_row(finished: Path, exported: Path, tmp_path: Path) -> None:
    made = export_memory(finished, tmp_path / "bare", ids=False)
    bare, whole = (pq.read_table(folder / "units-00000.parquet") for folder in (tmp_path / "bare", exported))
    assert bare.column_names == ["block", "x", "soft_label_label_0", "label_label_0", "weight"]
    assert sorted(content(tmp_path / "bare")) == ["README.md", "manifest.json", "units-00000.parquet"]
    assert made.n_ids is None
    order = [whole["x"].to_pylist().index(x) for x in bare["x"].to_pylist()]
    assert sorted(order) == list(range(45))
    assert order != list(range(45)), "the order of unit ids is that of time"
    for column in bare.column_names:
        assert bare[column].to_pylist() == whole[column].take(pa.array(order)).to_pylist()


def test_what_the_card_says_of_privacy_is_so(finished: Path, exported: Path, tmp_path: Path) -> None:
    """Whoever has the table finds the ids that were left out, as the nearest rows."""
    export_memory(finished, tmp_path / "bare", ids=False)
    bare, whole = (pq.read_table(folder / "units-00000.parquet") for folder in (tmp_path / "bare", exported))
    table, first = load_memory(finished).table, load_memory(finished).stage.log_schema.first_static_id
    x = torch.tensor(bare["x"].to_pylist()).view(-1, 4, 4)
    ids = [torch.cdist(x[:, f], table[first[f] : first[f + 1]]).argmin(dim=1) + int(first[f]) for f in range(4)]
    assert sorted(torch.stack(ids, dim=1).tolist()) == sorted(whole["ids"].to_pylist())
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "finds the ids as its nearest rows" in card
    assert "Leaving the ids out does not hide them from everybody" in card


def units_of(influence: list[float], block: list[int], label: list[list[int]]) -> Units:
    m = len(influence)
    return Units(
        unit_id=np.arange(m, dtype=np.int64) * 10,
        ids=np.zeros((m, 2), np.int32),
        delta=np.zeros((m, 2, 1), np.float32),
        logit=np.zeros((m, len(label[0])), np.float32),
        weight=np.ones(m, np.float32),
        block=np.array(block, np.int32),
        label=np.array(label, np.uint8),
        influence=np.array(influence, np.float32),
    )


def test_the_lowest_influence_leaves_then_older_then_smaller_id() -> None:
    units = units_of([0.5, -1, 0, 0, 0], [2, 2, 0, 1, 1], [[0]] * 5)
    left = [(set(range(5)) - set(prune(units, n).tolist())) for n in (4, 3, 2, 1)]
    assert left == [{1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4}]


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=40))
def test_each_combination_of_labels_keeps_its_share(rows: list[tuple[int, int, int]]) -> None:
    units = units_of([r[0] for r in rows], [r[1] for r in rows], [[r[2] & 1, r[2] >> 1] for r in rows])
    groups = np.array([r[2] for r in rows])
    before: set[int] = set()
    for n in range(1, len(rows) + 1):
        kept = prune(units, n)
        assert len(kept) == n
        assert (np.diff(kept) > 0).all()
        assert before < set(kept.tolist()), "fewer units are some of more"
        before = set(kept.tolist())
        for group in range(4):
            members = np.flatnonzero(groups == group)
            inside = [m for m in members if m in before]
            # Sainte-Lague: within (G - 1) / 2 of the exact share for G groups, here four.
            assert abs(len(inside) - n * len(members) / len(rows)) <= 1.5
            ranked = sorted(members, key=lambda m: (units.influence[m], units.block[m], units.unit_id[m]), reverse=True)
            assert set(inside) == set(ranked[: len(inside)])


def test_a_smaller_budget(finished: Path, tmp_path: Path) -> None:
    made = export_memory(finished, tmp_path / "small", units=12)
    kept = pq.read_table(tmp_path / "small" / "units-00000.parquet")
    units = load_memory(finished).units
    assert (made.units, made.memory_units) == (12, 45)
    assert kept["unit_id"].to_pylist() == units.unit_id[prune(units, 12)].tolist()
    assert sum(kept["label_label_0"].to_pylist()) == pytest.approx(12 * units.label.mean(), abs=1)
    card = (tmp_path / "small" / "README.md").read_text()
    assert "12 units, the 12 that stay of 45, made of 900 rows of a click log (1.33%)" in card
    assert "Whether that is better than a random cut was not measured" in card
    for units_asked in (0, 46):
        with pytest.raises(ConfigError, match=f"--units: {units_asked} asked for, but the memory has 45"):
            export_memory(finished, tmp_path / "none", units=units_asked)


def test_the_card(finished: Path, exported: Path, tmp_path: Path) -> None:
    _, header, text = (exported / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(header)
    assert (said["license"], said["license_name"]) == ("other", "CC BY-SA 4.0")
    assert said["configs"] == [{"config_name": "default", "data_files": "units-*.parquet"}]
    for words in (
        "Train for exactly T = 10 steps of 16 units",
        "a learning rate that falls from 0.01 to 0 along half a cosine",
        "budget 0.05 of all rows seen",
        "No measurement of fidelity was given",
        "Every unit comes from one real row of the log, refined or not.",
        "`unit_id` names the row",
    ):
        assert words in text
    for index, stage in enumerate(manifests(finished)):
        report = stage["refine"]
        done = "kept" if report["kept"] else "not kept"
        if f"{report['guard_before']:.4f}" == f"{report['guard_after']:.4f}":
            done = "no difference"
        assert f"| {index} | block-{index:03d} | 300 | {15 * (index + 1)} | {done} |" in text
    shutil.copytree(stage_folder(finished, 2), tmp_path / "alone")
    export_memory(tmp_path / "alone", tmp_path / "mine")
    text = (tmp_path / "mine" / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n", 2)[1])["license"] == "unknown"
    assert "The licence of the source log was not given." in text
    assert "2 earlier blocks were distilled too" in text
    assert "| 2 | block-002 | not known | 45 |" in text


def manifests(run: Path) -> list[dict[str, Any]]:
    return [json.loads((stage_folder(run, t) / "manifest.json").read_text()) for t in range(3)]


def test_the_card_with_figures_of_fidelity(finished: Path, tmp_path: Path) -> None:
    export_memory(finished, tmp_path / "mine", trust=trust_in(bench(tmp_path / "fidelity.json")))
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "| memory, soft labels, no adapter | 45 | 0.0123 (0.0113 to 0.0133) | 0.75 (0.75 to 0.75) |" in card
    assert "| full log again | 45 |" in card
    assert "herding" not in card
    assert "judged on 300 later rows" in card
    assert "not of exactly these 45 units" in card
    with pytest.raises(ConfigError, match=r"--fidelity: .*other\.json is of the log 'another', the memory of 'synth"):
        export_memory(finished, tmp_path / "none", trust=trust_in(bench(tmp_path / "other.json", log="another")))


def test_several_tasks_and_no_refinement(tmp_path: Path) -> None:
    mpl.use("agg")
    stream = config(write_log(tmp_path / "log", blocks=2, n=100, tasks=2))
    local_run(tmp_path / "run", stream.model_copy(update={"refine": stream.refine.model_copy(update={"rounds": 0})}))
    made = export_memory(tmp_path / "run", tmp_path / "mine")
    units, memory = pq.read_table(tmp_path / "mine" / "units-00000.parquet"), load_memory(tmp_path / "run")
    for task in (0, 1):
        assert units[f"soft_label_label_{task}"].to_pylist() == memory.soft_label[:, task].tolist()
        assert units[f"label_label_{task}"].to_pylist() == memory.units.label[:, task].tolist()
    assert made.tasks == ["label_0", "label_1"]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "| 0 | block-000 | 100 | 5 | none |" in card
    assert "soft labels for label_0 and label_1" in card
    found = inspect(tmp_path / "run")
    assert found.refined is None
    assert (found.helping, found.harming) == (0, 0)
    assert [(part.task, part.label) for part in found.labels] == [
        (f"label_{t}", label) for t in (0, 1) for label in (0, 1)
    ]
    plots = [path.stem for path in write_inspection(tmp_path / "page.html", found)[1:]]
    assert plots == [f"page-{name}-{task}" for name in ("shares", "blocks", "soft-labels") for task in (0, 1)]
    assert "Refinement" not in lead(found)


def test_it_appears_complete_or_not_at_all(
    finished: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(exported)
    with pytest.raises(ConfigError, match="exists already"):
        export_memory(finished, exported)
    assert content(exported) == before

    def fail(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "card", fail)
    with pytest.raises(KeyboardInterrupt):
        export_memory(finished, tmp_path / "deep" / "mine")
    assert list((tmp_path / "deep").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        export_memory(finished, tmp_path / "file" / "mine")
    with pytest.raises(CorruptArtefactError, match="holds no committed stage"):
        export_memory(tmp_path / "deep", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the package datasets is not installed")
def test_the_hub_library_reads_it(exported: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    expected = pq.read_table(exported / "units-00000.parquet").to_pydict()
    files = str(exported / "units-*.parquet")
    for arguments in ({"path": "parquet", "data_files": files}, {"path": str(exported)}):
        units = load_dataset(**arguments, split="train", cache_dir=str(tmp_path))
        assert units.to_dict() == expected


def test_the_example_needs_nothing_of_ours_and_judges_on_real_rows(
    finished: Path, log: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = ast.parse(EXAMPLE.read_text())
    code = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    imports = [node for node in code if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(code) - len(imports) - 1 <= 22  # the docstring is a statement too
    assert "diet_ray" not in {name.split(".")[0] for node in imports for name in names_of(node)}

    torch.manual_seed(0)
    block = log / "blocks" / "block-003"
    monkeypatch.setattr("sys.argv", ["train_your_own.py", str(exported), str(block)])
    used = runpy.run_path(str(EXAMPLE))
    memory, opened = load_memory(finished), open_log(log)
    rows = next(opened.iter_block(opened.blocks[3]))
    assert torch.allclose(used["real"][: len(rows)], memory.embed(rows.ids), atol=1e-7)
    assert len(used["real"]) == 300
    assert torch.equal(used["x"], memory.x)
    assert torch.equal(used["target"], memory.soft_label)
    labels = torch.tensor(rows.labels).double()
    with torch.no_grad():
        probability = torch.sigmoid(used["net"](used["real"]).double())[: len(rows)]
    assert 0.3 < float(-(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()) < 0.8
    assert f"45 units, 10 steps; LogLoss on 300 real rows: {used['loss']:.4f}" in capsys.readouterr().out


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


def test_the_example_pools_and_knows_the_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slots of two fields: the first has two ids, of which some are padding; some ids are beyond the table."""
    slots, table = [0, 0, 1], torch.randn(6, 3)
    table[0] = 0
    ids = [[3, 4, 5], [3, 0, 9], [0, 0, 4], [9, 3, 2]]
    export, block = tmp_path / "export", tmp_path / "block"
    export.mkdir()
    block.mkdir()
    about = {"fields": ["a", "b"], "slots": slots, "dim": 3, "tasks": ["t", "u"]}
    about["student"] = {"steps": 2, "batch_size": 4, "lr": 0.01, "draw": 0.5}
    (export / "manifest.json").write_text(json.dumps(about))
    save_file({"table": table}, export / "embeddings.safetensors")
    x = pa.array([[0.5] * 6] * 3, pa.list_(pa.float32(), 6))
    units = {"x": x, "soft_label_t": [0.1, 0.5, 0.9], "soft_label_u": [0.3, 0.2, 0.1], "weight": [1.0, 1.0, 0.0]}
    pq.write_table(pa.table(units), export / "units-00000.parquet")
    labels = pa.array([[0, 1]] * 4, pa.list_(pa.uint8(), 2))
    pq.write_table(pa.table({"ids": pa.array(ids, pa.list_(pa.int32(), 3)), "labels": labels}), block / "s.parquet")
    monkeypatch.setattr("sys.argv", ["train_your_own.py", str(export), str(block)])
    used = runpy.run_path(str(EXAMPLE))
    assert torch.allclose(used["real"], lookup(table, torch.tensor(ids), torch.tensor(slots)), atol=1e-6)


def test_the_command(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    result = CliRunner().invoke(app, ["--json", "export", str(finished), "--out", str(out), "--units", "20"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "manifest.json").read_text())
    assert json.loads(result.stdout)["units"] == 20
    result = CliRunner().invoke(app, ["export", str(finished), "--out", str(tmp_path / "bare"), "--without-ids"])
    assert "45 units of 900 rows of synthetic, no ids, no table" in result.stdout
    again = CliRunner().invoke(app, ["export", str(finished), "--out", str(out)])
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == f"error: {out}: exists already; remove it or choose another place for the export\n"
