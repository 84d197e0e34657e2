"""Folders that appear whole, and what killed processes leave of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diet_ray.storage.lock import this_process
from diet_ray.storage.whole_folder import appearing, draft, remove_forsaken

KILLED = """
import os, signal, sys
from pathlib import Path
from diet_ray.storage.whole_folder import appearing, draft
with draft(Path(sys.argv[1]), "prepared", "log") as files, appearing(Path(sys.argv[1]), "log") as folder:
    (folder / "half").write_text("x")
    (files / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_is_removed_and_said(tmp_path: Path) -> None:
    out = tmp_path / "my log"
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    left = sorted(tmp_path.iterdir())
    assert [path.name.rpartition(".")[2] for path in left] in (["partial", "prepared"], ["prepared", "partial"])
    assert remove_forsaken(tmp_path / "my") == remove_forsaken(tmp_path / "other" / "my log") == []
    assert remove_forsaken(out) == [f"{path}: left by a process that was killed; removed" for path in left]
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_others_stay(tmp_path: Path) -> None:
    out, outside = tmp_path / "log", tmp_path / "outside"
    gone = this_process().model_copy(update={"pid": 2**22 + 1, "started": 1})
    owners = {
        "0000000a": gone.model_copy(update={"machine": "another"}),
        "0000000b": this_process(),
        "0000000c": None,  # not signed yet, or by an earlier release
    }
    outside.mkdir()
    (outside / "lock.json").write_bytes(gone.record())
    for name, owner in owners.items():
        folder = tmp_path / f".log.{name}.partial"
        folder.mkdir()
        if owner:
            (folder / "lock.json").write_bytes(owner.record())
    (tmp_path / ".log.0000000d.partial").symlink_to(outside)
    (tmp_path / ".log.notes.partial").mkdir()
    (tmp_path / ".log.notes.partial" / "lock.json").write_bytes(gone.record())  # no name of ours
    before = sorted(tmp_path.iterdir())
    with draft(out, "partial", "log"):
        assert remove_forsaken(out) == []
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / ".log.0000000c.partial" / "lock.json").write_bytes(gone.record())
    assert len(remove_forsaken(out)) == 1


def test_a_folder_appears_whole_and_without_a_signature(tmp_path: Path) -> None:
    with appearing(tmp_path / "log", "log") as folder:
        (folder / "file").write_text("x")
        assert sorted(os.listdir(tmp_path)) == [folder.name]
    assert os.listdir(tmp_path) == ["log"]
    assert os.listdir(tmp_path / "log") == ["file"]
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "none", "log"):
        _ = 1 / 0
    assert os.listdir(tmp_path) == ["log"]
