"""Links in the folders of a run, a log and a sweep: nothing that they lead to is written, removed or sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diet_ray.errors import CorruptArtefactError
from diet_ray.judge.live_state import LiveState
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.memory import garbage
from diet_ray.memory.archive import Archive
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.events import Events
from diet_ray.memory.pruning import pruned
from diet_ray.memory.run_folder import StageDraft, committed_stages, open_run
from diet_ray.settings import write_whole
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import live_lock, locked
from tests.logs.ingestion.test_ingest import make_schema, make_table
from tests.support.small_run import config

LINK = "is a link, or lies behind one"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with the names of a run's files, which is none of its business."""
    folder = tmp_path / "outside"
    (folder / ".0003.0123abcd.tmp").mkdir(parents=True)
    for name in ("manifest.json", "lock.json", "events.jsonl", ".0003.0123abcd.tmp/memory-00.arrow", "key.safetensors"):
        (folder / name).write_text("not yours")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def lay(place: Path, target: Path) -> None:
    if place.exists():
        place.rename(place.with_name("moved-away"))
    place.symlink_to(target)


def begin_stage(run: Path) -> None:
    StageDraft(run, 3).begin()


def commit_linked_file(run: Path) -> None:
    draft = StageDraft(run, 3)
    draft.begin()
    (draft.folder / "memory-00.arrow").symlink_to(run.parent / "outside" / "manifest.json")
    draft.reveal()


def commit_into_link(run: Path) -> None:
    draft = StageDraft(run, 3)
    draft.begin()
    lay(run / "stages", run.parent / "outside")
    draft.reveal()


def take_lock(run: Path) -> None:
    with locked(run):
        pass


ACTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a draft is begun": ("stages", begin_stage),
    "a stage is committed": ("stages/.none", commit_linked_file),
    "a stage is committed below": ("stages/.none", commit_into_link),
    "stages are read": ("stages/0001", committed_stages),
    "all stages are read": ("stages", committed_stages),
    "the lock is taken": ("lock.json", take_lock),
    "the lock is read": ("lock.json", live_lock),
    "an event is written": ("events.jsonl", lambda run: Events(run / "events.jsonl").emit("run")),
    "a file is sent": (
        "stages/0001/memory-00.arrow",
        lambda run: Archive((run.parent / "archive").as_uri()).push(run),
    ),
    "the run's manifest is sent": ("run.json", lambda run: Archive((run.parent / "archive").as_uri()).push(run)),
    "a stage's manifest is sent": (
        "stages/0000/manifest.json",
        lambda run: Archive((run.parent / "archive").as_uri()).push(run),
    ),
    "a memory is opened": ("stages/0002/manifest.json", load_memory),
    "a record of pruning is read": ("stages/0002/pruned.json", lambda run: pruned(run / "stages/0002")),
    "a sweep begins": ("trials", lambda run: FolderStore(run).make("trials")),
    "a trial's state is removed": ("live", lambda run: LiveState(run / "live" / "key.safetensors", None).remove()),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_link_is_refused_by_name(run: Path, outside: Path, act: str) -> None:
    place, work = ACTS[act]
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    file = Path(place).suffix in (".json", ".jsonl", ".arrow")
    lay(
        run / place,
        outside / (Path(place).name if (outside / Path(place).name).exists() else "manifest.json") if file else outside,
    )
    with pytest.raises(CorruptArtefactError, match=LINK) as caught:
        work(run)
    assert str(caught.value).startswith(str(run))
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_cleaned(
    run: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "stages" / ".0003.0123abcd.tmp").mkdir()
    listed = garbage._list

    def swapped(run: Path) -> list[garbage.Leftover]:
        found = listed(run)
        lay(run / "stages", outside)
        return found

    monkeypatch.setattr(garbage, "_list", swapped)
    with pytest.raises(CorruptArtefactError, match=f"^{run}/stages: {LINK}"):
        garbage.collect(run)
    assert (outside / ".0003.0123abcd.tmp" / "memory-00.arrow").exists()


def test_a_link_in_the_place_of_a_temporary_file_is_replaced(tmp_path: Path, outside: Path, log: Path) -> None:
    """The name of the temporary file of `run.json` is known to all."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.tmp").symlink_to(outside / "manifest.json")
    open_run(tmp_path / "run", config(log), resume=False)
    (tmp_path / "run" / "summary.json").symlink_to(outside / "manifest.json")
    write_whole(tmp_path / "run" / "summary.json", b"mine")
    assert (outside / "manifest.json").read_text() == "not yours"
    assert not (tmp_path / "run" / "run.json").is_symlink()
    assert (tmp_path / "run" / "summary.json").read_text() == "mine"


def test_an_append_replaces_a_link_in_the_place_of_its_block(tmp_path: Path, outside: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(make_table(days=3), tmp_path / "all.parquet")
    ingest(make_schema(), [tmp_path / "all.parquet"], tmp_path / "log", by="day", blocks=2)
    new = tmp_path / "log" / "blocks" / "2024-02-29"
    new.symlink_to(outside)
    done = append(make_schema(), [tmp_path / "all.parquet"], tmp_path / "log", by="day", now=4e9)
    assert done.blocks == [new.name]
    assert not new.is_symlink()
    assert (new / "manifest.json").exists()
    assert (outside / "manifest.json").read_text() == "not yours"
