from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.errors import CorruptArtefactError, VersionError
from diet_ray.logs.blocks import BlockManifest, LogManifest, Rows, open_log, read_shard, write_shard
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.hashes import sha256
from tests.support import synthetic


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return synthetic.write_log(tmp_path / "log", blocks=3, n=50, shards=2)


def same(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("row_id", "time", "user", "ids", "labels"))


def test_shard_round_trip_and_bytes(tmp_path: Path) -> None:
    rows = synthetic.rows(40, tasks=2)
    shard = write_shard(tmp_path / "a.parquet", rows)
    write_shard(tmp_path / "b.parquet", rows)
    assert sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet") == shard.sha256
    assert shard.positives == rows.labels.sum(axis=0).tolist()
    back = read_shard(tmp_path / "a.parquet", shard, synthetic.schema(2))
    assert same(rows, back)
    assert [getattr(back, k).dtype for k in ("row_id", "ids", "labels")] == [np.int64, np.int32, np.uint8]


def test_take_and_concat() -> None:
    rows = synthetic.rows(10)
    assert same(Rows.concat([rows.take(np.arange(4)), rows.take(np.arange(10) >= 4)]), rows)
    assert len(rows.take(rows.time % 2 == 0)) == 5


def test_open_log_reads_blocks_in_order(log_dir: Path) -> None:
    log = open_log(log_dir)
    assert [block.index for block in log.blocks] == [0, 1, 2]
    whole = log.read_block(log.blocks[1])
    assert len(whole) == 50
    assert (np.diff(whole.time) >= 0).all()
    assert [len(part) for part in log.iter_block(log.blocks[1])] == [25, 25]


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_damaged_shard_is_named(log_dir: Path, damage: str) -> None:
    log = open_log(log_dir)
    path = log.shard_path(log.blocks[2], log.blocks[2].shards[1])
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(CorruptArtefactError, match=path.name):
        log.read_block(log.blocks[2])


def test_shard_of_another_shape_is_refused(log_dir: Path) -> None:
    log = open_log(log_dir)
    shard = log.blocks[0].shards[0]
    with pytest.raises(CorruptArtefactError, match="lists of 2"):
        read_shard(log.shard_path(log.blocks[0], shard), shard, synthetic.schema(2))


def test_other_format_and_missing_manifest(log_dir: Path) -> None:
    manifest = parse_json(LogManifest, log_dir / "log.json")
    write_json(log_dir / "log.json", manifest.model_copy(update={"format": 99}))
    with pytest.raises(VersionError, match="format 99"):
        open_log(log_dir)
    (log_dir / "log.json").unlink()
    with pytest.raises(CorruptArtefactError, match=r"log\.json"):
        open_log(log_dir)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"time_min": synthetic.DAY - 1, "time_max": synthetic.DAY}, "out of time order"),
        ({"time_min": 5 * synthetic.DAY}, "contradict"),
        ({"rows": 51}, "contradict"),
        ({"index": 1}, "position 2"),
        ({"name": "block-007"}, "position 2"),
        ({"n_ids": 1}, "fewer ids"),
    ],
)
def test_manifests_must_go_forward(log_dir: Path, update: dict[str, Any], words: str) -> None:
    path = log_dir / "blocks" / "block-002" / "manifest.json"
    write_json(path, parse_json(BlockManifest, path).model_copy(update=update))
    with pytest.raises(CorruptArtefactError, match=words) as caught:
        open_log(log_dir)
    assert str(path) in str(caught.value)


def test_swapped_blocks_are_refused(log_dir: Path) -> None:
    manifest = parse_json(LogManifest, log_dir / "log.json")
    write_json(log_dir / "log.json", manifest.model_copy(update={"blocks": ["block-001", "block-000", "block-002"]}))
    with pytest.raises(CorruptArtefactError, match="position 0"):
        open_log(log_dir)
