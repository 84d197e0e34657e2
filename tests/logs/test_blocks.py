from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.errors import CorruptArtefactError, VersionError
from diet_ray.logs.blocks import BlockManifest, LogManifest, Rows, open_log, read_shard, write_shard
from diet_ray.logs.row_checks import Slots
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


def forge(log_dir: Path, change: Callable[[Rows], Rows], **says: Any) -> BlockManifest:
    """Write the second shard of block 2 anew with changed rows, and make its manifest fit; `says` are other claims about the shard."""
    folder = log_dir / "blocks" / "block-002"
    block = parse_json(BlockManifest, folder / "manifest.json")
    first, second = block.shards
    old = read_shard(folder / second.path, second, open_log(log_dir).schema)
    entry = write_shard(folder / second.path, change(old)).model_copy(update=says)
    totals = np.sum([first.positives, entry.positives], axis=0).tolist()
    forged = block.model_copy(update={"shards": [first, entry], "positives": totals})
    write_json(folder / "manifest.json", forged)
    return forged


def put(column: str, where: Any, value: Any) -> Callable[[Rows], Rows]:
    def change(old: Rows) -> Rows:
        values = np.array(getattr(old, column))
        values[where] = value
        return replace(old, **{column: values})

    return change


MEANINGLESS: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "label 7": (put("labels", (3, 0), 7), "column 'labels': 1 of 25 rows, the first is 8589934620: neither 0 nor 1"),
    "id -1": (put("ids", (3, 1), -1), r"column 'ids': 1 of 25 rows, the first is 8589934620: outside \[0, 118\)"),
    "least id": (put("ids", (3, 1), -(2**31)), r"column 'ids': .* outside \[0, 118\)"),
    "largest id": (put("ids", (3, 1), 2**31 - 1), r"column 'ids': .* outside \[0, 118\)"),
    "id n_ids": (put("ids", (3, 3), 118), r"column 'ids': .* outside \[0, 118\)"),
    "id of the field before": (put("ids", (3, 1), 64), "column 'ids': .* 64 is no id of field 'item'"),
    "id of the field after": (put("ids", (3, 1), 105), "column 'ids': .* 105 is no id of field 'item'"),
    "unknown of another field": (put("ids", (3, 1), 1), "column 'ids': .* 1 is no id of field 'item'"),
    "no id": (put("ids", (3, 0), 0), "column 'ids': .* 0 is no id of field 'user'"),
    "equal row ids": (put("row_id", 3, (2 << 32) + 27), "column 'row_id': .* not above the one before"),
    "row id of the shard before": (put("row_id", 0, (2 << 32) + 24), "column 'row_id': .* not above the one before"),
    "times fall": (put("time", 3, 2 * synthetic.DAY + 26), "column 'time': .* earlier than the one before"),
    "times fall between shards": (
        put("time", 0, 2 * synthetic.DAY + 23),
        "column 'time': .* earlier than the one before",
    ),
    "time of the next block": (put("time", 24, 3 * synthetic.DAY), "column 'time': .* outside the block's times"),
}


@pytest.mark.parametrize("damage", MEANINGLESS)
def test_rows_that_fit_their_checksum_and_have_no_meaning_are_not_read(log_dir: Path, damage: str) -> None:
    change, what = MEANINGLESS[damage]
    forge(log_dir, change)
    log = open_log(log_dir)
    with pytest.raises(CorruptArtefactError, match=rf"shard-00001\.parquet, {what}.*; restore it from a copy"):
        log.read_block(log.blocks[2])


def test_positives_that_the_rows_do_not_have_are_not_believed(log_dir: Path) -> None:
    forge(log_dir, lambda old: old, positives=[0])
    log = open_log(log_dir)
    with pytest.raises(CorruptArtefactError, match="column 'labels': other positives than the manifest says"):
        log.read_block(log.blocks[2])


def test_unknown_values_and_the_ends_of_a_range_are_ids(log_dir: Path) -> None:
    forge(log_dir, lambda old: put("ids", (5, 1), 104)(put("ids", (4, 1), 65)(put("ids", (3, 1), 2)(old))))
    log = open_log(log_dir)
    assert len(log.read_block(log.blocks[2])) == 50


@pytest.mark.parametrize(
    ("n_ids", "what"), [(2_000_000_000, "the schema and the vocabulary have 118"), (2**31, "n_ids")]
)
def test_a_manifest_cannot_ask_for_a_table_that_the_log_does_not_need(log_dir: Path, n_ids: int, what: str) -> None:
    path = log_dir / "blocks" / "block-002" / "manifest.json"
    write_json(path, parse_json(BlockManifest, path).model_copy(update={"n_ids": n_ids}))
    with pytest.raises(CorruptArtefactError, match=what):
        open_log(log_dir)


def test_each_place_of_a_row_has_its_own_ids() -> None:
    """Hashed, vocabulary, multi-valued, numeric, and sequences of both kinds, pooled and not."""
    fields: list[dict[str, Any]] = [
        {"name": "item", "kind": "hashed", "buckets": 10},
        {"name": "tags", "kind": "vocabulary", "max_values": 2},
        {"name": "price", "kind": "numeric", "buckets": 5},
        {"name": "last", "kind": "sequence", "of": "item", "length": 2, "pool": "none"},
        {"name": "user", "kind": "vocabulary"},
        {"name": "seen", "kind": "sequence", "of": "user", "length": 2},
    ]
    schema = synthetic.schema().model_validate({**synthetic.schema().model_dump(), "fields": fields})
    # Ids 0 (padding), 1 to 7 (unknown), 8 to 17 (item), 18 to 22 (price), 23 to 29 (vocabulary).
    item, price, values = set(range(8, 18)), set(range(18, 23)), set(range(23, 30))
    allowed = [
        item | {1},
        values | {2},
        values | {2, 0},
        price | {3},
        item | {4, 0},
        item | {5, 0},
        values | {6},
        values | {7, 0},
        values | {7, 0},
    ]
    slots = Slots.of(schema)
    sound = np.array([min(ids - {0}) for ids in allowed], np.int32)
    for slot, ids in enumerate(allowed):
        for value in range(-1, 31):
            row = sound.copy()
            row[slot] = value
            assert (not list(slots.problems(row[None], np.array([5]), 30))) == (value in ids), (slot, value)


def test_swapped_blocks_are_refused(log_dir: Path) -> None:
    manifest = parse_json(LogManifest, log_dir / "log.json")
    write_json(log_dir / "log.json", manifest.model_copy(update={"blocks": ["block-001", "block-000", "block-002"]}))
    with pytest.raises(CorruptArtefactError, match="position 0"):
        open_log(log_dir)
