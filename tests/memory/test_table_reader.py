"""Rows of a chain of files: those of the table that the files make, read without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from diet_ray.errors import CorruptArtefactError, ResourceError
from diet_ray.memory import table_reader
from diet_ray.memory.table_chain import ROWS
from diet_ray.memory.table_reader import LinkFile, TableReader
from diet_ray.storage.tensors import save_tensors
from diet_ray.training.embedding import lookup


def chain(folder: Path, seed: int, n_ids: list[int], dim: int = 4) -> tuple[list[LinkFile], dict[str, Tensor]]:
    """A chain of random files, and the tensors that they make, by the definition: later rows replace older ones."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    files: list[LinkFile] = []
    for number, n in enumerate(n_ids):
        made = {name: torch.from_numpy(rng.normal(size=(n, dim)).astype(np.float32)) for name in ("table", "net.w")}
        made["table"][0] = 0
        path = folder / f"{number}.safetensors"
        if not number:
            save_tensors(path, made)
            tensors = {name: value.clone() for name, value in made.items()}
        else:
            old = np.flatnonzero(rng.random(n_ids[number - 1]) < rng.random())
            rows = np.concatenate([old[old > 0], np.arange(n_ids[number - 1], n)]).astype(np.int32)
            at = torch.from_numpy(rows).long()
            save_tensors(path, {**made, "table": made["table"][at], ROWS: torch.from_numpy(rows)})
            grown = torch.zeros(n, dim)
            grown[: len(tensors["table"])] = tensors["table"]
            grown[at] = made["table"][at]
            tensors = {"table": grown, "net.w": made["net.w"]}
        files.append(LinkFile(path, n))
    return files, tensors


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(7, 40), st.lists(st.integers(0, 15), max_size=5), st.integers(1, 400))
def test_rows_pieces_and_inputs_are_those_of_the_whole_table(
    tmp_path: Path, seed: int, first: int, more: list[int], piece: int
) -> None:
    files, tensors = chain(tmp_path, seed, [first, *(first + sum(more[: k + 1]) for k in range(len(more)))])
    reader, table, rng = TableReader(files), tensors["table"], np.random.default_rng(seed)
    assert reader.kind() == (torch.float32, tuple(table.shape))
    ids = rng.integers(0, len(table), 30)
    assert torch.equal(reader.take(ids), table[torch.from_numpy(ids)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_reader, "PIECE_BYTES", piece)
        patch.setattr(table_reader, "EMBEDDED_AT_ONCE", 1 + piece % 7)
        patch.setattr(table_reader, "IN_MEMORY", (seed % 2) << 30)
        assert torch.equal(torch.cat(list(reader.pieces())), table)
        slots = np.array([0, 0, 1, 2, 2, 2])
        batch = rng.integers(0, len(table) + 9, (11, 6)).astype(np.int32)  # also ids that the table has not
        batch[rng.random(batch.shape) < 0.3] = 0
        expected = lookup(table, torch.from_numpy(batch), torch.from_numpy(slots))
        assert torch.equal(reader.embed(batch, slots), expected)
        assert torch.equal(
            TableReader(files[:1]).embed(batch, slots),
            lookup(TableReader(files[:1]).whole(), torch.from_numpy(batch), torch.from_numpy(slots)),
        )
        local = reader.local(batch, slots)
        assert len(local.table) <= 1 + batch.size
        assert torch.equal(lookup(local.table, torch.from_numpy(local.ids), torch.from_numpy(slots)), expected)
    for most in (0, 1 << 30):  # in a temporary file, and in memory
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_reader, "IN_MEMORY", most)
            whole = TableReader(files).tensors()
        assert whole.keys() == tensors.keys()
        assert all(torch.equal(whole[name], value) for name, value in tensors.items())
    with pytest.raises(IndexError):
        reader.take(np.array([len(table)]))


def test_who_changes_the_whole_table_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "IN_MEMORY", 0)
    files, tensors = chain(tmp_path, 3, [20, 25])
    for n in (1, 2):
        TableReader(files[:n]).whole().fill_(7)
    assert torch.equal(TableReader(files).whole(), tensors["table"])


@pytest.mark.parametrize(("width", "kind"), [(3, torch.float32), (1, torch.float32), (4, torch.float64)])
def test_rows_of_another_width_or_type_are_a_named_fault(tmp_path: Path, width: int, kind: torch.dtype) -> None:
    files, _ = chain(tmp_path, 3, [20, 20])
    rows = torch.arange(1, 5, dtype=torch.int32)
    save_tensors(files[1].path, {"table": torch.zeros(4, width, dtype=kind), ROWS: rows})
    with pytest.raises(CorruptArtefactError, match=r"1\.safetensors, tensor 'table': .* the table on which it builds"):
        TableReader(files)


def test_no_room_for_a_whole_table_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_reader, "IN_MEMORY", 0)
    monkeypatch.setattr(table_reader.tempfile, "TemporaryFile", full)
    files, _ = chain(tmp_path, 3, [20, 25])
    with pytest.raises(ResourceError, match=r"no room for a table of 400 bytes .*; free some, or set TMPDIR"):
        TableReader(files).whole()


PEAK = """
import sys, threading
from pathlib import Path
import numpy as np
import torch
from diet_ray.memory.table_chain import ROWS
from diet_ray.memory.table_reader import LinkFile, TableReader
from diet_ray.storage.tensors import save_tensors

torch.set_num_threads(1)
N, DIM, folder = 2_000_000, 16, Path(sys.argv[1])
files = [LinkFile(folder / f"{k}.safetensors", N + 1000 * k) for k in range(3)]
save_tensors(files[0].path, {"table": torch.rand(N, DIM)})
for (path, n), seed in zip(files[1:], (1, 2)):
    old = np.sort(np.random.default_rng(seed).choice(np.arange(1, n - 1000), 60_000, replace=False))
    rows = np.concatenate([old, np.arange(n - 1000, n)]).astype(np.int32)
    save_tensors(path, {"table": torch.rand(len(rows), DIM), ROWS: torch.from_numpy(rows)})
slots = np.array([0, 1, 2])
batch = np.random.default_rng(0).integers(0, N, (100_000, 3)).astype(np.int32)
TableReader(files).embed(batch[:64], slots)

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

def peak_of(work):
    before, peak, end = own(), [0], threading.Event()

    def watch():
        while not end.wait(0.001):
            peak.append(own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = work()
    peak.append(own())
    end.set()
    watcher.join()
    print(max(peak) - before)

def whole():
    table = TableReader(files).whole()
    table[torch.from_numpy(batch[:500, 0]).long()] = 1.0
    return table

peak_of(lambda: TableReader(files).embed(batch, slots))
peak_of(lambda: save_tensors(folder / "whole.safetensors", {"table": TableReader(files).as_pieces()}))
peak_of(whole)
"""


def test_what_reads_rows_needs_memory_for_them_not_for_the_table(tmp_path: Path) -> None:
    """Of a chain of three files with 2,002,000 rows, 128 MB."""
    # With these, the C library gives freed memory back at once; else what it keeps is counted, too, now and then.
    at_once = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    call = [sys.executable, "-c", PEAK, str(tmp_path)]
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=at_once)
    embed, written, whole = map(int, done.stdout.split())
    assert embed < 63e6  # its result is 19 MB, once in parts and once joined, and the rows of a part are 6 MB
    assert written < 40e6
    assert whole < 40e6


def test_an_id_beyond_the_table_is_an_error_and_no_other_row(tmp_path: Path) -> None:
    reader = TableReader(chain(tmp_path, 0, [9, 12])[0])
    assert reader.take(np.zeros(0, np.int64)).shape == (0, 4)
    assert torch.equal(reader.take(np.array([3, 11, 3]))[0], reader.take(np.array([3]))[0])
    for beyond in (12, 2**31, 2**32 + 11, -1):
        with pytest.raises(IndexError):
            reader.take(np.array([3, beyond]))
