"""A folder as an archive's file system: links lead nowhere, and what an archive needs of a file system works."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diet_ray.errors import CorruptArtefactError, UnreachableError
from diet_ray.storage import folder_store
from diet_ray.storage.remote import Remote


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path, Remote]:
    """An archive with a file in a folder, and a folder beside it that is none of its business."""
    inside, outside = tmp_path / "archive", tmp_path / "outside"
    outside.mkdir()
    (outside / "treasure").write_text("not yours")
    remote = Remote(inside.as_uri())
    remote.put("stages/0000/manifest.json", b"whole")
    return inside, outside, remote


def test_files_are_written_read_listed_and_removed(place: tuple[Path, Path, Remote], tmp_path: Path) -> None:
    inside, _, remote = place
    assert remote.read("stages/0000/manifest.json") == b"whole"
    assert remote.read("stages/0001/manifest.json") is None
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    sent = remote.send(tmp_path / "big", "stages/0001/big")
    assert sent == remote.sha256("stages/0001/big") == remote.fetch("stages/0001/big", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "big").read_bytes()
    assert remote.sizes("stages", deep=True) == {"0000/manifest.json": 5, "0001/big": 100_000}
    assert remote.sizes("stages/0001") == {"big": 100_000}
    assert remote.sizes("nowhere", deep=True) == {}
    assert remote.size("stages/0001/big") == 100_000
    assert remote.size("stages/0001") is None
    assert remote.modified("stages/0001/big") == pytest.approx((inside / "stages/0001/big").stat().st_mtime)
    remote.put("stages/0000/manifest.json", b"anew")
    assert remote.read("stages/0000/manifest.json") == b"anew"
    remote.delete("stages/0001")
    remote.delete("stages/0001")
    remote.delete("stages/0000/manifest.json")
    assert [path.name for path in (inside / "stages").rglob("*")] == ["0000"]
    assert Remote((tmp_path / "absent").as_uri()).sizes(deep=True) == {}


OPERATIONS: dict[str, Callable[[Remote, Path], object]] = {
    "read": lambda remote, _: remote.read("stages/0007/treasure"),
    "put": lambda remote, _: remote.put("stages/0007/treasure", b"mine"),
    "send": lambda remote, file: remote.send(file, "stages/0007/treasure"),
    "fetch": lambda remote, file: remote.fetch("stages/0007/treasure", file.with_name("got")),
    "sizes": lambda remote, _: remote.sizes("stages/0007"),
    "sizes from above": lambda remote, _: remote.sizes("stages", deep=True),
    "size": lambda remote, _: remote.size("stages/0007/treasure"),
    "modified": lambda remote, _: remote.modified("stages/0007/treasure"),
    "delete a file": lambda remote, _: remote.delete("stages/0007/treasure"),
    "delete the folder": lambda remote, _: remote.delete("stages/0007"),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("laid", ["folder", "file"])
def test_no_operation_follows_a_link(place: tuple[Path, Path, Remote], name: str, laid: str, tmp_path: Path) -> None:
    inside, outside, remote = place
    link = inside / "stages" / "0007"
    if laid == "file":
        link.mkdir()
        (link / "treasure").symlink_to(outside / "treasure")
    else:
        link.symlink_to(outside)
    file = tmp_path / "file"
    file.write_text("mine")
    if name == "delete the folder" or (laid, name) == ("file", "delete a file"):
        OPERATIONS[name](remote, file)  # the link goes, what it leads to stays
        assert not (link / "treasure").exists()
    else:
        with pytest.raises(
            CorruptArtefactError, match=r"archive/stages/0007(/treasure)?: is a link, or lies behind one"
        ):
            OPERATIONS[name](remote, file)
    assert (outside / "treasure").read_text() == "not yours"
    assert sorted(path.name for path in outside.iterdir()) == ["treasure"]


def test_a_link_laid_between_check_and_use_is_not_followed(
    place: tuple[Path, Path, Remote], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside, remote = place
    remote.put("stages/0007/treasure", b"its own")
    checked = folder_store.FolderStore._refuse_link

    def swapped(self: folder_store.FolderStore, at: int, name: str, path: str) -> None:
        checked(self, at, name, path)
        if name == "0007":
            (inside / "stages/0007").rename(inside / "aside")
            (inside / "stages/0007").symlink_to(outside)

    monkeypatch.setattr(folder_store.FolderStore, "_refuse_link", swapped)
    with pytest.raises(CorruptArtefactError, match="is a link"):
        remote.delete("stages/0007/treasure")
    assert (outside / "treasure").read_text() == "not yours"


def test_the_way_to_the_archive_may_be_a_link(place: tuple[Path, Path, Remote], tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(tmp_path / "archive")
    assert Remote((tmp_path / "mount").as_uri()).read("stages/0000/manifest.json") == b"whole"


def test_a_name_that_leads_upwards_or_to_no_file_is_refused(place: tuple[Path, Path, Remote]) -> None:
    inside, _, remote = place
    os.mkfifo(inside / "pipe")
    for name in ("../outside/treasure", "stages/../../outside/treasure", "pipe"):
        with pytest.raises(UnreachableError):
            remote.read(name)
