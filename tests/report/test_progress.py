"""What a run's events say, line by line, on events written by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diet_ray.figures import duration, size
from diet_ray.memory.events import Events
from diet_ray.report.progress import Counted, Lines, Silent, StreamState, Terminal, display, show_progress
from diet_ray.report.step_times import timings
from diet_ray.report.summary import summarise
from tests.support.small_run import config, local_run
from tests.support.synthetic import write_log

BLOCKS = [("mon", 1000), ("tue", 3000), ("wed", 2000)]


class Heard:
    """A display that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.statuses: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str) -> None:
        self.statuses.append(text)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(kind: str, time: float, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "time": time, **values}


def test_the_state_follows_the_events() -> None:
    state = StreamState(BLOCKS, began=100.0)
    assert state.status() == "block mon (1/3): starting"
    assert state.apply(event("stage", 100.0, stage=0, block="mon", rows=1000)) is None
    assert state.apply(event("start", 100.0, stage=0, step="reference", rows=1000)) is None
    assert state.status() == "block mon (1/3): reference"
    step = event("step", 102.0, stage=0, step="reference", rows=1000, seconds=8.0)
    assert state.apply(step) == "block mon (1/3): reference 8.00 s, 125 rows/s"
    assert state.apply(event("start", 102.0, stage=0, step="refine", rounds=30)) is None
    assert state.apply(event("progress", 103.0, stage=0, step="refine", done=7, total=30)) is None
    assert state.status() == "block mon (1/3): refine 7/30"
    assert state.rate is None
    assert state.eta is None
    assert state.apply(event("step", 104.0, stage=0, step="refine", seconds=5.0)) == "block mon (1/3): refine 5.00 s"
    assert state.apply(event("step", 104.0, stage=0, step="commit", seconds=4.9)) is None  # short steps have no line


def test_rate_and_time_left_count_from_this_attempt() -> None:
    state = StreamState(BLOCKS, began=100.0)
    line = state.apply(event("committed", 110.0, stage=0, block="mon", units=10, rows_seen=1000), lambda stage: 2500)
    assert line == "block mon (1/3): committed, memory 10 units, 2.5 kB, 100 rows/s, 0:00:50 left"
    assert state.rate == 100.0  # 1000 rows in 10 s
    assert state.eta == 50.0  # 5000 rows are left
    state.apply(event("start", 130.0, stage=1, step="score"))
    assert state.eta == 30.0  # 20 s later
    assert state.status() == "block tue (2/3): score, 100 rows/s, 0:00:30 left, memory 10 units, 2.5 kB"
    state.apply(event("progress", 999.0, stage=1, step="score", done=1, total=2))
    assert state.eta == 0.0  # never negative

    resumed = StreamState(BLOCKS, began=500.0, before=1, committed=1)
    assert resumed.rate is None  # what an earlier attempt did says nothing of this one's speed
    resumed.apply(event("committed", 510.0, stage=1, block="tue", units=40, rows_seen=4000))
    assert resumed.rate == 300.0


def test_the_end() -> None:
    state = StreamState(BLOCKS[:1], began=0.0)
    last = state.apply(event("committed", 1.0, stage=0, block="mon", units=10, rows_seen=1000), lambda stage: 999)
    assert last == "block mon (1/1): committed, memory 10 units, 999 B, 1,000 rows/s"
    assert state.status() == "all 1 blocks done, memory 10 units, 999 B"


def test_timings_are_those_of_the_attempt_that_was_committed() -> None:
    events = [
        event("stage", 10.0, stage=0, block="mon", rows=1),
        event("step", 11.0, stage=0, step="reference", seconds=99.0),
        event("step", 12.0, stage=0, step="lost", seconds=5.0),
        event("stage", 20.0, stage=0, block="mon", rows=1),  # after a crash
        event("step", 21.0, stage=0, step="reference", seconds=1.0),
        event("committed", 23.5, stage=0),
        event("stage", 30.0, stage=1, block="tue", rows=1),
        event("step", 31.0, stage=1, step="reference", seconds=1.0),  # not committed
    ]
    assert timings(events) == {0: ({"reference": 1.0}, 3.5)}
    assert timings([event("committed", 1.0, stage=4)]) == {}
    # The clock was set back by an hour meanwhile; the step was measured by another clock.
    back = [
        event("stage", 7200.0, stage=0),
        event("step", 3601.0, stage=0, step="reference", seconds=2.0),
        event("committed", 3602.0, stage=0),
    ]
    assert timings(back) == {0: ({"reference": 2.0}, 2.0)}


def test_a_summary_is_of_the_committed_stages(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", blocks=3, n=300)
    run = local_run(tmp_path / "run", config(log))
    summary = summarise(run)
    assert [(stage.block, stage.rows, stage.rows_seen) for stage in summary.stages] == [
        ("block-000", 300, 300),
        ("block-001", 300, 600),
    ]
    assert [stage.units for stage in summary.stages] == [15, 30]
    assert (summary.rows, summary.units) == (600, 30)
    last = run / "stages" / "0001"
    assert summary.memory_bytes == sum(path.stat().st_size for path in last.glob("memory-*.arrow"))
    assert summary.table_bytes == (last / "checkpoint-1.safetensors").stat().st_size
    assert list(summary.stages[0].steps) == ["reference", "score", "select", "align", "fuse", "refine", "commit"]
    assert summary.seconds == pytest.approx(sum(stage.seconds or 0 for stage in summary.stages), abs=1e-3)
    assert all(stage.refined is not None and stage.guard_before is not None for stage in summary.stages)
    assert json.loads((run / "summary.json").read_text()) == summary.model_dump(mode="json")
    assert summary.table().row_count == 3  # two stages and the total

    (run / "events.jsonl").unlink()  # the result does not depend on it
    without = summarise(run)
    assert [stage.steps for stage in without.stages] == [{}, {}]
    assert without.seconds == 0
    assert without.units == 30
    assert without.table().row_count == 3


def test_a_run_without_a_stage_sums_up_to_nothing(tmp_path: Path) -> None:
    summary = summarise(tmp_path)
    assert (summary.stages, summary.rows, summary.units, summary.seconds) == ([], 0, 0, 0)


def test_follow_shows_new_events_only(tmp_path: Path) -> None:
    heard, events = Heard(), Events(tmp_path / "events.jsonl")
    events.emit("step", stage=0, step="old", seconds=6.0)
    also: list[tuple[str, int]] = []
    with show_progress(
        tmp_path, BLOCKS, heard, lambda new, state: also.extend((e["step"], state.committed) for e in new)
    ):
        events.emit("step", stage=0, step="new", seconds=6.0)
    assert also == [("new", 0)]
    assert heard.lines == ["block mon (1/3): new 6.00 s"]
    assert heard.statuses[-1] == "block mon (1/3): starting"


def test_it_goes_on_after_the_committed_stages_and_survives_an_error(finished: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "stages" / "0000" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    stage = json.loads((finished / "stages" / "0000" / "manifest.json").read_text())
    stage["units"], stage["memory"][0]["bytes"], stage["memory"][1]["bytes"] = 9, 700, 800
    manifest.write_text(json.dumps(stage))
    heard = Heard()
    with pytest.raises(RuntimeError, match="body"), show_progress(tmp_path, BLOCKS, heard):
        raise RuntimeError("body")
    assert heard.statuses == ["block tue (2/3): starting, memory 9 units, 1.5 kB"]


def test_lines_are_not_flooded() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.status("too early")
    clock.now = 5.0
    lines.status("one")
    clock.now = 9.9
    lines.status("too early")
    lines.line("always")
    clock.now = 14.8
    lines.status("too early")
    clock.now = 14.9
    lines.status("two")
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == ["one", "always", "two"]


def test_nothing_is_shown_where_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with display(quiet=True) as shown:
        shown.line("a")
        shown.status("b")
    assert isinstance(shown, Silent)
    with display(quiet=False) as shown:
        shown.line("a")
    assert isinstance(shown, Lines)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(" a\n")


def test_a_terminal_shows_the_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with display(quiet=False, doing="reading price[/usd]") as shown:
        shown.line("logs:cat:x, price[bold]")
        shown.status("block :cat:[/x]")
    assert isinstance(shown, Terminal)
    said = capsys.readouterr().err
    assert "logs:cat:x, price[bold]" in said
    assert "block :cat:[/x]" in said


def test_counted_pieces() -> None:
    heard, clock = Heard(), Clock()
    count = Counted(heard, clock)
    count("survey", 0, 4)
    clock.now = 2.0
    count("survey", 1, 4, 500)
    clock.now = 8.0
    count("survey", 4, 4, 2000)
    count("encode", 0, 2, 0)  # a new stage, a new clock
    clock.now = 9.0
    count("encode", 1, 2, 100)
    assert heard.statuses == [
        "survey 0/4",
        "survey 1/4, 500 rows, 250 rows/s, 0:00:06 left",
        "encode 0/2, 0 rows",
        "encode 1/2, 100 rows, 100 rows/s, 0:00:01 left",
    ]
    assert heard.lines == ["survey 4/4, 2,000 rows, 250 rows/s, 8.00 s"]


@pytest.mark.parametrize("start", [0.0, 30.0])
@pytest.mark.parametrize("side_by_side", [1, 2, 4])
@pytest.mark.parametrize("total", [40, 324])
def test_the_time_left_of_trials_is_right_within_twice(start: float, side_by_side: int, total: int) -> None:
    """Trials of a second each, `side_by_side` at a time, after the start of Ray."""
    heard, clock = Heard(), Clock()
    count = Counted(heard, clock)
    ends = [start + i // side_by_side + 1 + 0.01 * (i % side_by_side) for i in range(total)]
    said = 0
    for done, clock.now in enumerate(ends[:-1], 1):
        count("trials", done, total)
        text, left = heard.statuses[-1], ends[-1] - clock.now
        if "left" in text:
            hours, minutes, seconds = map(int, text.split(", ")[-1].removesuffix(" left").split(":"))
            told = 3600 * hours + 60 * minutes + seconds
            assert left / 2 - 1 <= told <= 2 * left + 1, (done, text, left)
            said += 1
    if total > 100:  # a short sweep may end before the pace is known
        assert said > total * 0.2


@pytest.mark.parametrize("start", [0.0, 60.0])
def test_the_time_left_of_a_run_is_right_within_twice(start: float) -> None:
    """Twenty equal blocks of 5 s, the first of 8 s: its process is new."""
    blocks = [(f"{t}", 1000) for t in range(20)]
    state, now = StreamState(blocks, began=0.0), start
    for t in range(20):
        state.apply(event("stage", now, stage=t, block=f"{t}", rows=1000))
        now += 8 if t == 0 else 5
        state.apply(event("committed", now, stage=t, units=1))
        if t >= 1:
            assert state.eta is not None
            assert 5 * (19 - t) / 2 <= state.eta <= 2 * 5 * (19 - t)


def test_a_status_is_not_repeated_while_nothing_changes() -> None:
    written, clock = io.StringIO(), Clock()
    lines = Lines(written, clock)
    for second in range(41):
        clock.now = float(second)
        lines.status("block mon (1/3): starting")
    assert written.getvalue().count("starting") == 1
    clock.now = 70.0
    lines.status("block mon (1/3): starting")
    assert written.getvalue().count("starting") == 2


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e6, "1.5 MB"), (2e9, "2.0 GB"), (3e12, "3.0 TB")]
)
def test_sizes(n: float, said: str) -> None:
    assert size(n) == said


def test_durations() -> None:
    assert duration(89.6) == "0:01:30"


def test_neither_ray_nor_torch_is_imported() -> None:
    code = "import sys, diet_ray.report.progress; print(sorted({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
