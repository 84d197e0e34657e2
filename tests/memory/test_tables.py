"""Tables that a stage writes as changed rows: the same values as whole ones, and a broken chain is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.config import StreamConfig, TableConfig
from diet_ray.distill.local import distil_locally
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.start import load_start
from diet_ray.memory import table_chain
from diet_ray.memory.archive import Archive
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.download import fetch
from diet_ray.memory.layout import stage_folder, stage_manifest
from diet_ray.memory.lineage import trace
from diet_ray.memory.pruning import prune, pruned
from diet_ray.memory.run_folder import committed_stages, read_stage
from diet_ray.memory.table_chain import ROWS, ChangedRows, rows_problem
from diet_ray.memory.tables import load_checkpoint, load_optimiser
from diet_ray.memory.verification import verify
from diet_ray.storage.entries import file_entry
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.tensors import load_tensors, save_tensors
from tests.support.small_run import STREAM, stage_bytes
from tests.support.synthetic import write_log

TABLE, MOMENTS = "checkpoint-1.safetensors", "optimiser.safetensors"


def stream(log: Path, **checkpoints: Any) -> StreamConfig:
    refine = {**STREAM["refine"], "rounds": 0}
    return StreamConfig.model_validate({**STREAM, "log": log, "refine": refine, "checkpoints": checkpoints})


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("long") / "log", blocks=7, n=200)


def made(log: Path, run: Path, **checkpoints: Any) -> Path:
    """A run in which every stage writes changed rows where the key allows it, though they are most of such a small table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_chain, "MOST", 0)
        distil_locally(run, stream(log, **checkpoints))
    return run


@pytest.fixture(scope="module")
def whole(long_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(long_log, tmp_path_factory.mktemp("whole") / "run", keep=9, whole_every=1)


@pytest.fixture(scope="module")
def parts(long_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages 0 and 4 are whole."""
    return made(long_log, tmp_path_factory.mktemp("parts") / "run", keep=9, whole_every=4)


@pytest.fixture
def run(parts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts, tmp_path / "run"))


def test_a_table_is_put_together_with_the_bytes_of_a_whole_one(whole: Path, parts: Path) -> None:
    assert [stage.whole for stage in committed_stages(whole)] == [None] * 6
    assert [stage.whole for stage in committed_stages(parts)] == [None, 0, 0, 0, None, 4]
    before = stage_bytes(parts)
    for index in range(6):
        folders = [stage_folder(run, index) for run in (whole, parts)]
        for load in (load_checkpoint, load_optimiser):
            one, other = (load(folder, read_stage(folder.parents[1], index)) for folder in folders)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one), index
        memories = [load_memory(folder) for folder in folders]
        assert torch.equal(memories[0].x, memories[1].x)
    here, there = stage_bytes(parts), stage_bytes(whole)
    assert here == before  # the tables are put together in memory alone
    units = [name for name in there if name.endswith(".arrow")]
    assert {name: here[name] for name in units} == {name: there[name] for name in units}


def test_a_stage_writes_the_rows_that_it_has_looked_up(long_log: Path, parts: Path) -> None:
    stage = read_stage(parts, 2)
    before, now = (load_memory(stage_folder(parts, index)).table for index in (1, 2))
    stored = load_tensors(stage_folder(parts, 2) / TABLE)
    differ = (now[: len(before)] != before).any(dim=1).nonzero().flatten().tolist()
    assert set(differ) <= set(stored[ROWS].tolist())
    assert len(stored["table"]) == len(stored[ROWS]) < stage.n_ids
    assert stored[ROWS].tolist() == load_tensors(stage_folder(parts, 2) / MOMENTS)[ROWS].tolist()


@pytest.mark.parametrize("method", ["reembed", "ridge"])
def test_a_run_goes_on_from_changed_rows_with_the_same_bytes(
    long_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(table_chain, "MOST", 0)
    config = stream(long_log, keep=9).model_copy(update={"blocks": 4})
    config = config.model_copy(update={"align": config.align.model_copy(update={"method": method})})
    run, other = tmp_path / "run", tmp_path / "other"
    distil_locally(run, config)
    assert [path.name for path in stage_folder(run, 2).iterdir() if path.suffix == ".safetensors"].count(TABLE) == 1
    shutil.copytree(run, other)
    shutil.rmtree(stage_folder(other, 3))
    distil_locally(other, config, resume=True)
    assert stage_bytes(other) == stage_bytes(run)


def test_a_run_of_changed_rows_is_sound_and_all_commands_read_it(
    long_log: Path, whole: Path, parts: Path, tmp_path: Path
) -> None:
    assert verify(parts, log=long_log) == []
    assert torch.equal(load_start(parts).moments.exp_avg, load_start(whole).moments.exp_avg)
    for index in (2, 4):
        previous = trace(stage_folder(parts, index)).previous()
        assert previous is not None
        assert torch.equal(previous.whole(), load_memory(stage_folder(whole, index - 1)).table)
    uri = (tmp_path / "archive").as_uri()
    Archive(uri).push(parts)
    copy = fetch(f"{uri}/stages/0003", moments=True)
    assert torch.equal(load_memory(copy).table, load_memory(stage_folder(whole, 3)).table)
    assert load_start(f"{uri}/stages/0003").moments.step > 0
    Archive(uri).pull(tmp_path / "back", stream(long_log, keep=9))
    assert stage_bytes(tmp_path / "back") == stage_bytes(parts)


def test_pruning_keeps_the_stages_on_which_a_kept_one_builds(long_log: Path, tmp_path: Path) -> None:
    run = made(long_log, tmp_path / "run", keep=1, whole_every=4)
    assert [(stage_folder(run, index) / TABLE).exists() for index in range(6)] == [False] * 4 + [True] * 2
    assert verify(run, log=long_log) == []
    assert len(load_memory(run)) == read_stage(run, 5).units
    assert len(load_memory(stage_folder(run, 4))) == read_stage(run, 4).units  # kept for the last one
    with pytest.raises(ConfigError, match=r"stages/0003: .*pruned"):
        load_memory(stage_folder(run, 3))


@pytest.mark.parametrize("name", [TABLE, MOMENTS])
@pytest.mark.parametrize("how", ["gone", "flipped"])
def test_a_missing_link_is_named_and_the_stage_before_opens(run: Path, name: str, how: str) -> None:
    path = stage_folder(run, 2) / name
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    said = r"stages/0003: its table builds on those of stages 0000 to 0002, and stage 0002 is damaged .*; restore"
    with pytest.raises(CorruptArtefactError, match=said):
        load_start(stage_folder(run, 3))
    load_start(stage_folder(run, 1))
    load_start(stage_folder(run, 5))
    faults = verify(run)
    assert sum(fault.where == f"stages/0002/{name}" for fault in faults) == 1
    if how == "gone":
        chain = [fault.what for fault in faults if fault.where == "stages/0003"]
        assert chain == [f"its table builds on those of stages 0000 to 0002, and stage 0002 has no {name}"]


def test_a_stage_that_was_copied_alone_says_what_it_needs(parts: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(stage_folder(parts, 3), tmp_path / "0003"))
    with pytest.raises(CorruptArtefactError, match=r"0003: its table builds .* stage 0002 is not beside it"):
        load_memory(alone)
    assert len(load_memory(shutil.copytree(stage_folder(parts, 4), tmp_path / "0004"))) > 0


def forge(run: Path, index: int) -> None:
    """Let the manifest of the last stage name the checkpoint that is there."""
    path = stage_manifest(run, index)
    raw = json.loads(path.read_text())
    raw["checkpoints"] = [file_entry(stage_folder(run, index) / TABLE).model_dump()]
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t[ROWS].flip(0), "not ascending ids"),
        (lambda t: torch.cat((torch.zeros(1, dtype=torch.int32), t[ROWS][1:])), "not ascending ids"),
        (lambda t: t[ROWS].long(), "must be I32"),
        (lambda t: t[ROWS][:-1], "must be F32"),
    ],
)
def test_rows_that_cannot_be_are_faults(run: Path, change: Any, what: str) -> None:
    """With checksums that match."""
    path = stage_folder(run, 5) / TABLE
    tensors = load_tensors(path)
    save_tensors(path, {**{name: value.clone() for name, value in tensors.items()}, ROWS: change(tensors)})
    forge(run, 5)
    assert any(what in fault.what for fault in verify(run))
    if "I32" not in what:
        with pytest.raises(CorruptArtefactError, match=what.replace("must be F32", "for [0-9]+ rows")):
            load_memory(run)


def own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def test_a_table_is_read_by_the_pages_of_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    """80 MB are mapped, not read: what a scorer, an owner or a sweep adds to its own memory is its batch."""
    save_tensors(tmp_path / "big.safetensors", {"table": torch.zeros(1_250_000, 16)})
    before = own_memory()
    table = load_tensors(tmp_path / "big.safetensors")["table"]
    assert float(table[torch.arange(0, 1_250_000, 1000)].sum()) == 0
    table[torch.arange(0, 1_250_000, 5000)] = 1.0
    assert own_memory() - before < 16e6
    assert float(load_tensors(tmp_path / "big.safetensors")["table"].sum()) == 0


def test_rows_and_what_is_wrong_with_them() -> None:
    changed = ChangedRows(5, 7)
    changed.note(np.array([[0, 3], [1, 3]]))
    assert changed.rows().tolist() == [1, 3, 5, 6]
    assert changed.rows().dtype == np.int32
    assert rows_problem(changed.rows(), 5, 7) is None
    assert rows_problem(np.array([1, 7]), 5, 7) == "not ascending ids from 1 to 6"
    assert rows_problem(np.array([1, 6]), 5, 7) == "lacks some of the ids 5 to 6, which are new"


def test_a_table_of_which_most_rows_change_is_written_whole(whole: Path) -> None:
    """It takes at most 1.3 times the bytes of the rows."""
    last, config = read_stage(whole, 1), stream(Path("log"), keep=2, whole_every=4).checkpoints
    assert table_chain.builds_on(last, config, np.arange(76), 100) == 1
    assert table_chain.builds_on(last, config, np.arange(77), 100) is None
    for index, expected in ((3, 1), (4, None)):
        later = last.model_copy(update={"index": index, "whole": 1})
        assert table_chain.builds_on(later, config, np.arange(5), 100) == expected


def test_a_run_that_goes_on_with_its_table_in_files_is_sound(long_log: Path, run: Path, parts: Path) -> None:
    shutil.rmtree(stage_folder(run, 5))
    config = stream(long_log, keep=9, whole_every=4)
    table = TableConfig(on="mmap")
    other = config.model_copy(update={"reference": config.reference.model_copy(update={"table": table})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_chain, "MOST", 0)
        distil_locally(run, other, resume=True)
    assert read_stage(run, 5).config.reference.table == table
    differ = {name for name, value in stage_bytes(run).items() if value != stage_bytes(parts)[name]}
    assert differ == {"0005/manifest.json"}  # which says where the table was
    assert verify(run, log=long_log) == []


@pytest.mark.parametrize("whole", [-1, 5, 99])
def test_a_stage_builds_on_one_before_it(run: Path, whole: int) -> None:
    path = stage_manifest(run, 5)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"whole": whole}))
    with pytest.raises(
        CorruptArtefactError, match=r"stages/0005/manifest\.json: not a valid StageManifest .*whole|stage"
    ):
        load_memory(run)
    assert any(fault.where == "stages/0005/manifest.json" for fault in verify(run))


def test_rows_that_are_taken_for_a_whole_table_do_not_resume(long_log: Path, run: Path) -> None:
    """A manifest without its key `whole`: there is no next stage to name its checksum."""
    for index in (3, 4, 5):
        shutil.rmtree(stage_folder(run, index))
    path = stage_manifest(run, 2)
    raw = json.loads(path.read_text())
    del raw["whole"]
    path.write_text(json.dumps(raw))
    with pytest.raises(
        CorruptArtefactError, match=rf"0002/{TABLE}, tensor 'table': .* the manifest has \d+ ids; restore"
    ):
        distil_locally(run, stream(long_log, keep=9, whole_every=4), resume=True)


class PowerCut(Exception):
    """The machine is off."""


@pytest.mark.parametrize("after", range(9))
def test_pruning_of_a_chain_that_is_broken_off_is_no_damage(
    long_log: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A power cut after any number of the calls that change the folder or the archive: later stages go first, so none is left without
    those on which it builds."""
    uri, left = (tmp_path / "archive").as_uri(), [after]
    archive, twin = Archive(uri), Path(shutil.copytree(run, tmp_path / "twin"))
    archive.push(run)

    def cut(real: Any) -> Any:
        def call(*given: Any) -> None:
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            real(*given)

        return call

    def opens(folder: Path, index: int) -> bool:
        try:
            load_start(stage_folder(folder, index))
        except ConfigError:  # which says that it was pruned; damage is another error
            return False
        return True

    prune(twin, keep=1, committed=6)
    for act, folder in (
        (lambda: prune(run, keep=1, committed=6), run),
        (lambda: archive.push(twin), tmp_path / "archive"),
    ):
        left[0] = after
        with monkeypatch.context() as patch:
            patch.setattr(FolderStore, "write", cut(FolderStore.write))
            patch.setattr(FolderStore, "delete", cut(FolderStore.delete))
            with pytest.raises(PowerCut):
                act()
        assert verify(folder, log=long_log) == []
        opened = [index for index in range(6) if opens(folder, index)]
        whole = [index for index in range(6) if pruned(stage_folder(folder, index)) is None]
        assert set(opened) >= set(whole) >= {4, 5}
        act()
        assert stage_bytes(folder) == stage_bytes(twin)


def test_the_resume_of_a_finished_run_ends_a_pruning_that_was_broken_off(
    long_log: Path, run: Path, tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(run, tmp_path / "twin"))
    prune(twin, keep=1, committed=6)
    config = stream(long_log, keep=1, whole_every=4)
    distil_locally(run, config, resume=True)
    assert stage_bytes(run) == stage_bytes(twin)
