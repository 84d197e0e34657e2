"""How far a run is, by its manifests and events."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.archive_note import ArchiveNote, write_note
from diet_ray.memory.layout import waiting_folder
from diet_ray.report.status import run_status
from diet_ray.storage.lock import locked

T0 = 1_000_000.0
STEPS = ("reference", "score", "refine")


def at(time: float, kind: str, **values: Any) -> dict[str, Any]:
    return {"time": T0 + time, "kind": kind, **values}


def stage_events(stage: int, began: float, *, seconds: float, rows: int = 300) -> list[dict[str, Any]]:
    """The events of one committed stage whose steps share its time equally."""
    part = seconds / len(STEPS)
    events = [at(began, "stage", stage=stage, block=f"block-{stage:03d}", rows=rows)]
    for number, name in enumerate(STEPS):
        events.append(at(began + number * part, "start", stage=stage, step=name))
        events.append(at(began + (number + 1) * part, "step", stage=stage, step=name, seconds=part))
    return [
        *events,
        at(began + seconds, "committed", stage=stage, block=f"block-{stage:03d}", units=15, rows_seen=rows),
    ]


def cut_back(finished: Path, run: Path, stages: int, events: list[dict[str, Any]]) -> Path:
    """A run as it was when only its first `stages` were committed, with those events."""
    shutil.copytree(finished, run)
    for index in range(stages, 3):
        shutil.rmtree(run / "stages" / f"{index:04d}")
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


def test_a_finished_run(finished: Path) -> None:
    found = run_status(finished, now=4e9)
    manifest = json.loads((finished / "stages" / "0002" / "manifest.json").read_text())
    assert (found.state, found.blocks_done, found.blocks) == ("finished", 3, 3)
    assert (found.rows_seen, found.rows_left, found.units) == (900, 0, manifest["units"])
    shards = (finished / "stages" / "0002").glob("memory-*.arrow")
    assert found.memory_bytes == sum(path.stat().st_size for path in shards)
    assert found.table_bytes == (finished / "stages" / "0002" / "checkpoint-1.safetensors").stat().st_size
    assert (found.block, found.step, found.eta) == (None, None, None)
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    begun = {e["stage"]: e["time"] for e in events if e["kind"] == "stage"}
    wall = sum(e["time"] - begun[e["stage"]] for e in events if e["kind"] == "committed")
    assert found.rows_per_second == pytest.approx(900 / wall, rel=0.02)


def test_a_run_at_work(finished: Path, tmp_path: Path) -> None:
    events = [
        *stage_events(0, 0, seconds=10),
        *stage_events(1, 10, seconds=20),
        at(30, "stage", stage=2, block="block-002", rows=300),
        at(30, "start", stage=2, step="reference"),
        at(31, "step", stage=2, step="reference", seconds=1),
        at(31, "start", stage=2, step="refine"),
        at(33, "progress", stage=2, step="refine", done=2, total=9),
    ]
    run = cut_back(finished, tmp_path / "run", 2, events)
    with locked(run):
        found = run_status(run, now=T0 + 36)
    assert (found.state, found.blocks_done, found.blocks) == ("running", 2, 3)
    assert (found.block, found.step, found.done, found.total) == ("block-002", "refine", 2, 9)
    assert (found.silence, found.rows_left) == (3, 300)
    assert found.rows_per_second == 20  # 600 rows in 30 s
    assert found.eta == 9  # 300 rows take 15 s, of which 6 are over
    text = "\n".join(found.lines())
    assert "running, 2 of 3 blocks committed" in text
    assert "block block-002, refine 2/9; last event 0:00:03 ago" in text
    assert f"by: process {os.getpid()} on " in text
    assert "600 seen, 300 left, 20 rows/s, done in 0:00:09" in text


def test_a_run_that_nobody_works_on_has_stopped(finished: Path, tmp_path: Path) -> None:
    events = [
        *stage_events(0, 0, seconds=30),
        at(30, "stage", stage=1, block="block-001", rows=300),
        at(30, "start", stage=1, step="score"),
    ]
    run = cut_back(finished, tmp_path / "run", 1, events)
    with locked(run):
        owner = (run / "lock.json").read_text()
    (run / "lock.json").write_text(owner.replace(f'"pid": {os.getpid()}', '"pid": 2147483646'))
    found = run_status(run, now=T0 + 31)
    assert (found.state, found.owner, found.eta) == ("stopped", None, None)
    assert (found.block, found.step, found.rows_per_second) == ("block-001", "score", 10)
    text = "\n".join(found.lines())
    assert "stopped, 1 of 3 blocks committed" in text
    assert "stopped at: block block-001, score; last event 0:00:01 ago" in text
    assert "--resume" in text


def test_a_resumed_stage_counts_from_its_second_begin(finished: Path, tmp_path: Path) -> None:
    killed = [at(0, "stage", stage=0, block="block-000", rows=300), at(0, "start", stage=0, step="refine")]
    run = cut_back(finished, tmp_path / "run", 1, [*killed, *stage_events(0, 500, seconds=10)])
    with locked(run):
        found = run_status(run, now=T0 + 511)
    assert (found.rows_per_second, found.block, found.rows_left) == (30, None, 600)
    assert found.eta == 19  # 600 rows at 30 a second, of which one second is over
    assert "between two stages" in "\n".join(found.lines())


def test_a_run_without_events_yet(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", 0, [])
    os.utime(run / "run.json", (T0, T0))
    with locked(run):
        found = run_status(run, now=T0 + 5)
    assert (found.state, found.blocks_done, found.silence, found.rows_per_second) == ("running", 0, 5, None)
    assert (found.rows_left, found.units, found.memory_bytes) == (900, 0, 0)


def test_a_log_that_is_not_there_leaves_the_end_unknown(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", 2, stage_events(0, 0, seconds=10))
    manifest = json.loads((run / "run.json").read_text())
    manifest["config"]["log"] = str(tmp_path / "nowhere")
    (run / "run.json").write_text(json.dumps(manifest))
    with locked(run):
        found = run_status(run, now=T0 + 11)
    assert (found.state, found.blocks, found.rows_left, found.eta) == ("running", None, None, None)
    assert "2 blocks committed" in found.lines()[0]


def test_a_run_that_is_followed_waits_and_a_driver_in_it_comes_first(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", 2, stage_events(1, 0, seconds=10))
    with locked(waiting_folder(run)):
        found = run_status(run, now=T0 + 14)
        with locked(run):
            assert run_status(run).state == "running"
    assert (found.state, found.blocks_done, found.eta) == ("waiting", 2, None)
    text = "\n".join(found.lines())
    assert "now: waits for the log's next block; last event 0:00:04 ago" in text
    assert f"by: process {os.getpid()} on " in text
    assert run_status(run).state == "stopped"


def test_what_the_run_folder_notes_of_its_archive(finished: Path, tmp_path: Path) -> None:
    assert run_status(finished).archive is None
    assert not write_note(tmp_path / "nothing", ArchiveNote(uri="s3://b/run", stages=0))
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for stages, trouble, said in [
        (3, "", "archive: s3://b/run has all stages"),
        (1, "", "archive: s3://b/run has 1 of 3 stages"),
        (1, "s3://b/run: cannot be reached", "archive: s3://b/run has 1 of 3 stages: s3://b/run: cannot be reached"),
    ]:
        note = ArchiveNote(uri="s3://b/run", stages=stages, trouble=trouble)
        assert write_note(run, note)
        found = run_status(run)
        assert found.archive == note
        assert found.lines()[-1] == said
    (run / "archive.json").write_text("{")
    assert run_status(run).archive is None


def test_what_is_no_run_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefactError, match=r"run\.json: missing; point at the folder"):
        run_status(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CorruptArtefactError, match=r"run\.json: not a valid RunFacts"):
        run_status(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "stages" / "0001" / "manifest.json").write_text('{"rows_seen": 600}')
    with pytest.raises(CorruptArtefactError, match=r"0001/manifest\.json: not a valid StageFacts"):
        run_status(tmp_path / "run")
    result = CliRunner().invoke(app, ["status", str(finished / "stages")])
    assert result.exit_code == 2
    assert "run.json: missing" in result.stderr


def test_the_command_prints_the_status_and_imports_nothing_slow(finished: Path) -> None:
    result = CliRunner().invoke(app, ["--json", "status", str(finished)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["blocks_done"] == 3
    assert "finished, 3 of 3 blocks committed" in CliRunner().invoke(app, ["status", str(finished)]).stdout
    assert CliRunner().invoke(app, ["--quiet", "status", str(finished)]).stdout == ""
    code = (
        f"import sys\nfrom diet_ray.cli import app\ntry:\n    app(['--quiet', 'status', {str(finished)!r}])\n"
        "finally:\n    print(sorted({'ray', 'torch', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
