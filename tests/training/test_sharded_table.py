"""A table split over the workers does what a whole table in each of them does, byte for byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig
from diet_ray.errors import ResourceError
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training import sharded_table
from diet_ray.training.embedding import new_rows
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.sharded_table import ShardedTable
from diet_ray.training.table_rows import rows_of_batches
from diet_ray.training.workers import Crew, Group, Solo
from tests.support.crews import in_threads
from tests.support.synthetic import rows, schema

NET = CandidateSpec(name="reference", arch="dnn", params={"hidden": [8]}, adapter=False)
CONFIG = ReferenceConfig(nets=[NET], dim=3, batch_size=50, checkpoints=2, embedding_l2=1e-3)
N_IDS = int(schema().first_static_id[-1])
FILES = ("table", "moments", "some")


def shards_of(crew: Crew, folder: Path, on: Any = "ram", most_ids: int = N_IDS + 500) -> ShardedTable:
    return ShardedTable(crew, CONFIG.dim, CONFIG.embedding_lr, most_ids=most_ids, on=on, folder=folder)


def two_blocks(crew: Crew, out: Path, shards: ShardedTable | None) -> Path:
    """Two passes, with new ids between them, and all that a stage writes of the model; returns the folder."""
    reference = Reference(schema(), [NET], CONFIG, n_ids=N_IDS, seed=0, shards=shards)
    # 501 and 201 rows: the last batch is smaller, splits unevenly, and a fourth worker may have none of it.
    losses = [train_pass(reference, [rows(501)], crew, rows=501)]
    reference.grow(N_IDS + 500)
    losses.append(train_pass(reference, [rows(201, block=1)], crew, rows=201))
    reference.save(out / "table", crew)
    reference.save_moments(out / "moments", crew)
    some = np.array([1, 2, 5, N_IDS, N_IDS + 499], dtype=np.int32)
    reference.save_moments(out / "some", crew, some, losses=torch.tensor(losses), ids=torch.from_numpy(some))
    if crew.rank == 0:
        save_tensors(out / "taken", {"rows": reference.table.take(some.astype(np.int64))})
    else:
        reference.table.take(some.astype(np.int64))
    return out


def same_files(one: Path, other: Path) -> None:
    for name in (*FILES, "taken"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("on", ["ram", "mmap"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_sharded_workers_write_what_as_many_workers_with_whole_tables_write(
    tmp_path: Path, workers: int, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_table, "piece_rows", lambda dim: 37)  # several pieces, and borders of pages within them
    folders = [tmp_path / "whole", tmp_path / "shards", tmp_path / "files"]
    for folder in folders:
        folder.mkdir()

    def whole(crew: Crew) -> Path:
        return two_blocks(crew, folders[0], None)

    def sharded(crew: Crew) -> Path:
        return two_blocks(crew, folders[1], shards_of(crew, folders[2], on))

    for work in (whole, sharded):
        if workers == 1:
            work(Solo())
        else:
            in_threads(workers, work)
    same_files(*folders[:2])
    assert not list(folders[2].iterdir())  # not even while the files are mapped
    alone = tmp_path / "alone"
    alone.mkdir()
    two_blocks(Solo(), alone, None)
    for name in FILES:
        mine, its = load_tensors(folders[1] / name), load_tensors(alone / name)
        assert mine.keys() == its.keys()
        for key, value in its.items():
            torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-5)


def process(rank: int, rendezvous: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    crew = Group()
    for name in ("whole", "shards"):
        two_blocks(crew, Path(out) / name, shards_of(crew, Path(out)) if name == "shards" else None)
        dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_shards_write_what_two_with_whole_tables_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    for name in ("whole", "shards"):
        (tmp_path / name).mkdir()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(f"{folder}/rendezvous", str(tmp_path)), nprocs=2)
    same_files(tmp_path / "whole", tmp_path / "shards")


class Saved:
    """A saved state in memory, as `TableReader` reads it from files."""

    def __init__(self, path: Path, of_table: tuple[str, ...]) -> None:
        tensors = load_tensors(path)
        self.rows = {name: tensors.pop(name) for name in of_table}
        self.others, self.n_ids = tensors, len(self.rows[of_table[0]])

    def take(self, ids: Any, name: str = "table") -> torch.Tensor:
        return self.rows[name][ids]


@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_takes_up_a_saved_state(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is saved by two sharded workers; three load it and save the same."""
    monkeypatch.setattr(sharded_table, "piece_rows", lambda dim: 41)
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    in_threads(2, lambda crew: two_blocks(crew, before, shards_of(crew, tmp_path)))

    def again(crew: Crew) -> None:
        model = Reference(schema(), [NET], CONFIG, n_ids=N_IDS, seed=0, shards=shards_of(crew, tmp_path))
        checkpoint = Saved(before / "table", ("table",))
        model.load_shard(checkpoint, Saved(before / "moments", ("table/exp_avg", "table/exp_avg_sq")))
        model.save(after / "table", crew)
        model.save_moments(after / "moments", crew)

    if workers == 1:
        again(Solo())
    else:
        in_threads(workers, again)
    for name in ("table", "moments"):
        assert (before / name).read_bytes() == (after / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_new_rows_are_those_of_a_whole_table_however_the_table_grows(tmp_path: Path, workers: int) -> None:
    """Over three pages of 1024 rows, and more workers than new rows."""

    def grown(crew: Crew) -> ShardedTable:
        table = shards_of(crew, tmp_path, most_ids=2500)
        for n_ids in (1, 3, 1023, 1026, 2500):
            table.grow(n_ids, seed=7)
        return table

    tables = [grown(Solo())] if workers == 1 else in_threads(workers, grown)
    whole = new_rows(0, 2500, CONFIG.dim, 7)
    for rank, table in enumerate(tables):
        assert torch.equal(table._stores["table"], whole[rank::workers])
    with pytest.raises(ValueError, match="room for 2500"):
        tables[0].grow(2501, seed=7)


def test_a_worker_asks_for_a_row_once_and_gets_it_from_its_owner(tmp_path: Path) -> None:
    """The routes of three batches against brute force; the second worker has no row of the last."""
    slots = schema().field_of_slot
    ids = [[rows(20).ids, rows(30, block=1).ids, rows(2).ids], [rows(25, block=2).ids, rows(4).ids, rows(0).ids]]

    def routed(crew: Crew) -> list[Any]:
        table = shards_of(crew, tmp_path)
        table.grow(N_IDS, seed=1)
        batches = list(rows_of_batches(ids[crew.rank], slots, N_IDS, torch.device("cpu")))
        return [(batch, table.values(batch)) for batch in table.prepare(batches)]

    first, second = in_threads(2, routed)
    whole = new_rows(0, N_IDS, CONFIG.dim, 1)
    for number, parts in enumerate(zip(first, second, strict=True)):
        for batch, values in parts:
            assert torch.equal(values, whole[batch.rows]), number
        for rank, (batch, _) in enumerate(parts):
            asked = [other.rows[other.rows % 2 == rank] for other, _ in parts]
            assert batch.route.given == [len(one) for one in asked]
            assert torch.equal(batch.route.at, torch.cat(asked) // 2)
            assert torch.equal(batch.route.own, torch.unique(torch.cat(asked)) // 2)


def test_a_disk_without_room_is_refused_when_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    said = rf"^{tmp_path}: no room for .* \(No space left on device\), key 'reference\.table\.on' being mmap; free some"
    with pytest.raises(ResourceError, match=said):
        shards_of(Solo(), tmp_path, "mmap")


def test_a_folder_or_a_memory_that_gives_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match=r"gone: no room for .* being mmap; .* set it to ram"):
        shards_of(Solo(), tmp_path / "gone", "mmap")

    def none(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("diet_ray.training.sharded_table.mmap.mmap", none)
    with pytest.raises(
        ResourceError, match=r"^memory: no room for .* \(Cannot allocate memory\), .* being ram; .* set it to mmap"
    ):
        shards_of(Solo(), tmp_path, "ram")
