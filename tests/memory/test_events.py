from pathlib import Path

import pytest

from diet_ray.memory.events import Events, read_events


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
    events.emit("stage", stage=3, block="b")
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
    path.write_text('{"kind": "a"}\n{"kind": "b', encoding="utf-8")
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
