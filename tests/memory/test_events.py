"""The file of a run's events. Lines that are no events are skipped, and no reader of the file ends in a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diet_ray.distill.local import distil_locally
from diet_ray.memory.events import Events, read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.progress import StreamState
from diet_ray.report.status import run_status
from diet_ray.report.summary import summarise
from tests.support.small_run import config
from tests.support.synthetic import write_log

ODD = [
    "",
    "{",
    '{"time": 2, "ki{"time": 3, "kind": "stage", "stage": 0, "block": "b", "rows": 1}',
    "null",
    "[1]",
    "[" * 100_000,
    '"committed"',
    "{}",
    '{"kind": "stage"}',
    '{"kind": 7, "time": 1}',
    '{"kind": "stage", "time": "now", "stage": 0, "block": "b", "rows": 1}',
    '{"kind": "stage", "time": NaN, "stage": 0, "block": "b", "rows": 1}',
    '{"kind": "stage", "time": 1e400, "stage": 0, "block": "b", "rows": 1}',
    '{"kind": "stage", "time": 1, "stage": [0], "block": "b", "rows": 1}',
    '{"kind": "stage", "time": 1, "stage": true, "block": "b", "rows": 1}',
    '{"kind": "start", "time": 1, "stage": 0, "step": {}}',
    '{"kind": "step", "time": 1, "stage": 0, "step": "score", "seconds": null}',
    '{"kind": "step", "time": 1, "stage": 0, "step": "score", "seconds": 1.0, "rows": "many"}',
    '{"kind": "progress", "time": 1, "stage": 0, "step": "refine", "done": 1}',
    '{"kind": "committed", "time": 1, "stage": -1, "block": "b", "units": 1, "rows_seen": 1}',
    '{"kind": "committed", "time": 1, "stage": 0.5, "block": "b", "units": 1, "rows_seen": 1}',
]


@pytest.mark.parametrize("line", ODD)
def test_a_line_that_is_no_event_is_skipped(line: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Events(path).emit("stage", stage=0, block="first", rows=3)
    with path.open("a") as file:
        file.write(line + "\n")
    Events(path).emit("committed", stage=0, block="first", units=2, rows_seen=3)
    events, offset = read_events(path)
    assert [event["kind"] for event in events] == ["stage", "committed"]
    assert offset == path.stat().st_size


def test_what_a_newer_build_writes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Events(path).emit("moon", phase="full")
    assert read_events(path)[0][0]["phase"] == "full"


def test_readers_of_a_run_survive_odd_lines(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", n=300)
    distil_locally(tmp_path / "run", config(log))
    run = Path(shutil.copytree(tmp_path / "run", tmp_path / "odd"))
    lines = events_file(run).read_text().splitlines()
    # Between all true ones, and with a stage that the run does not have.
    beyond = json.dumps({"kind": "step", "time": 1, "stage": 9999, "step": "score", "seconds": 1.0, "rows": 5})
    mixed = [line for true in lines for line in (*ODD, beyond, true)]
    events_file(run).write_text("\n".join(mixed) + "\n")
    assert run_status(run).blocks_done == run_status(tmp_path / "run").blocks_done == 3
    assert [stage.steps for stage in summarise(run).stages] == [
        stage.steps for stage in summarise(tmp_path / "run").stages
    ]
    state = StreamState([("a", 300)], began=0.0)
    for event in read_events(events_file(run))[0]:
        state.apply(event)
    assert state.committed == 3


def test_no_path_no_file(tmp_path: Path) -> None:
    events = Events(None)
    events.emit("stage", stage=0)
    with events.step(0, "score"):
        events.progress(0, "score", 1, 2)
    assert not list(tmp_path.iterdir())


def test_steps_are_timed_and_read_back_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    events = Events(path)
    events.emit("stage", stage=3, block="b", rows=7)
    first, offset = read_events(path)
    assert [(event["kind"], event["stage"], event["block"]) for event in first] == [("stage", 3, "b")]
    with events.step(3, "score", rows=7):
        pass
    more, end = read_events(path, offset)
    assert [(event["kind"], event["step"], event["rows"]) for event in more] == [
        ("start", "score", 7),
        ("step", "score", 7),
    ]
    assert 0 <= more[1]["seconds"] < 5
    assert end == path.stat().st_size
    assert read_events(path, end) == ([], end)


def test_a_step_that_fails_is_not_reported_as_done(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    with pytest.raises(ZeroDivisionError), events.step(0, "align"):
        raise ZeroDivisionError
    assert [event["kind"] for event in read_events(tmp_path / "e")[0]] == ["start"]


def test_a_half_written_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_text('{"time": 1, "kind": "a"}\n{"time": 2, "kind": "b', encoding="utf-8")
    found, offset = read_events(path)
    assert [event["kind"] for event in found] == ["a"]
    with path.open("a", encoding="utf-8") as file:
        file.write('"}\n')
    assert [event["kind"] for event in read_events(path, offset)[0]] == ["b"]


def test_progress_is_rare_but_the_last_always_shows(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    for done in range(1, 201):
        events.progress(0, "refine", done, 200)
    seen = [event["done"] for event in read_events(tmp_path / "e")[0]]
    assert seen[0] == 1
    assert seen[-1] == 200
    assert len(seen) <= 5
