"""The rows of a block for a stage: read once where they fit, and the same rows where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs import block_rows
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import Log, Rows, open_log
from tests.support.synthetic import write_log


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Log, list[Path]]:
    """A log of one block in three shards, and the shards that were read since."""
    log, seen = open_log(write_log(tmp_path / "log", blocks=1, n=90, shards=3)), list[Path]()
    real = Log.shard_path

    def shard_path(self: Log, block: object, shard: object) -> Path:
        seen.append(real(self, block, shard))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(Log, "shard_path", shard_path)
    return log, seen


def test_a_block_that_fits_is_read_once(opened: tuple[Log, list[Path]]) -> None:
    log, seen = opened
    rows = BlockRows(log, log.blocks[0])
    ids = rows.row_ids()
    first, second = (Rows.concat(list(rows)) for _ in range(2))
    assert [path.name for path in seen] == ["shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet"]
    assert ids.tolist() == first.row_id.tolist() == second.row_id.tolist()
    assert [len(part) for part in rows] == [30, 30, 30]
    rows.release()
    assert rows.kept == []


def test_a_larger_one_is_streamed_and_gives_the_same(opened: tuple[Log, list[Path]]) -> None:
    log, seen = opened
    small, large = BlockRows(log, log.blocks[0]), BlockRows(log, log.blocks[0], keep_bytes=10)
    assert (small.keeps, large.keeps) == (True, False)
    assert small.row_ids().tolist() == large.row_ids().tolist()
    for one, other in zip(small, large, strict=True):
        for name in ("row_id", "time", "user", "ids", "labels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert large.kept == []
    assert len(seen) == 3 + 6


def test_a_file_with_another_number_of_rows_is_not_believed(opened: tuple[Log, list[Path]]) -> None:
    log, _ = opened
    block = log.blocks[0]
    shards = [block.shards[0].model_copy(update={"rows": 31}), *block.shards[1:]]
    rows = BlockRows(log, block.model_copy(update={"shards": shards}), keep_bytes=10)
    with pytest.raises(
        CorruptArtefactError, match=r"shard-00000\.parquet: 30 row ids of type int64, its manifest says 31"
    ):
        rows.row_ids()


def test_what_is_kept_is_bounded_by_its_bytes_in_memory(opened: tuple[Log, list[Path]]) -> None:
    log, _ = opened
    n_bytes = 90 * (8 + 8 + 8 + 4 * 4 + 1)
    assert BlockRows(log, log.blocks[0], keep_bytes=n_bytes).keeps
    assert not BlockRows(log, log.blocks[0], keep_bytes=n_bytes - 1).keeps
    assert block_rows.KEEP_BYTES == 256 << 20


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_a_damaged_shard_is_named(opened: tuple[Log, list[Path]], keep_bytes: int) -> None:
    log, _ = opened
    path = log.path / "blocks" / "block-000" / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        CorruptArtefactError, match=r"shard-00001\.parquet: not the file that the manifest names: it has"
    ):
        BlockRows(log, log.blocks[0], keep_bytes=keep_bytes).row_ids()
