"""A table that does not fit is refused before it is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.config import ReferenceConfig, TableConfig
from diet_ray.distill import pipeline
from diet_ray.distill.local import distil_locally
from diet_ray.errors import ResourceError
from diet_ray.training import room
from diet_ray.training.room import check_room, memory_here
from tests.support.small_run import config


def test_the_tables_of_a_worker_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table, two moments and a copy: 4 tables of 1,000 ids of width 4, whatever the number of checkpoints."""
    reference = ReferenceConfig(dim=4, checkpoints=2)
    monkeypatch.setattr(room, "memory_here", lambda: 4 * 4 * 1000 * 4)
    check_room("log", 1000, reference)
    said = r"^log: 1,001 ids of width 4 \(key 'reference\.dim'\) take .* with their moments, .* here; lower the"
    with pytest.raises(ResourceError, match=said):
        check_room("log", 1001, reference)


def test_ids_up_to_the_end_of_int32_are_refused_where_no_table_of_them_fits() -> None:
    with pytest.raises(ResourceError, match=r"2,147,483,647 ids of width 100000 .* here; lower the"):
        check_room("log", 2**31 - 1, ReferenceConfig(dim=100_000))


def test_a_run_is_refused_before_its_table_is_made(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_here", lambda: 1000)
    monkeypatch.setattr(pipeline, "Reference", None)
    with pytest.raises(ResourceError, match=r"log .*/log: [0-9,]+ ids of width 4"):
        distil_locally(tmp_path / "run", config(log))


def test_of_a_sharded_table_a_worker_holds_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table and two moments, 500 of 1,000 ids each; checkpoints are written from the table itself."""
    reference = ReferenceConfig(dim=4, checkpoints=2, table=TableConfig(shards="auto"))
    monkeypatch.setattr(room, "memory_here", lambda: 3 * 4 * 500 * 4)
    check_room("log", 1000, reference, workers=2)
    said = r"^log: 1,001 ids .* in each of 2 workers \(cluster\.workers, reference\.table\.shards\), .* reference\.table\.on to mmap"
    with pytest.raises(ResourceError, match=said):
        check_room("log", 1001, reference, workers=2)
    with pytest.raises(ResourceError, match=r"split the table \(reference\.table: \{shards: auto\}"):
        check_room("log", 1000, ReferenceConfig(dim=4, checkpoints=2), workers=2)


def test_a_mapped_table_needs_the_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = ReferenceConfig(dim=4, table=TableConfig(on="mmap"))
    monkeypatch.setattr(room, "memory_here", lambda: 0)
    check_room("log", 1000, reference, folder=tmp_path)
    with pytest.raises(ResourceError, match=rf"2,147,483,647 ids of width 100000 .* are free in {tmp_path}; raise"):
        check_room("log", 2**31 - 1, reference.model_copy(update={"dim": 100_000}), folder=tmp_path)


@pytest.mark.parametrize(("text", "limit"), [("4096\n", 4096), ("max\n", None), (None, None)])
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, limit: int | None
) -> None:
    monkeypatch.setattr(room, "LIMITS", (tmp_path / "memory.max",))
    whole = memory_here()
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    assert memory_here() == (whole if limit is None else limit)
