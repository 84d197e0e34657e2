"""The figures that a run exports: the dashboard names no others, and a scrape of a private Ray sees each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.common.private_ray import environment
from diet_ray.engine import telemetry
from diet_ray.engine.telemetry import EXPORTED, Telemetry
from diet_ray.memory.events import read_events
from diet_ray.report.progress import StreamState

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana-dashboard.json"
DRIVER = """
import json, sys, time, urllib.request
from pathlib import Path
from diet_ray.engine.cluster import connect
from diet_ray.report.progress import Silent, show_progress

run, wanted = Path(sys.argv[1]), set(sys.argv[2].split(","))
events = (run / "events.jsonl").read_text()
(run / "events.jsonl").write_text("")
(run / "stages").rename(run / "later")  # as if they were committed while we look
with connect(None, 1):
    import ray
    from diet_ray.engine.telemetry import telemetry

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with telemetry(run) as hear:
        with show_progress(run, [(f"block-{t:03d}", 300) for t in range(4)], Silent(), hear):
            (run / "later").rename(run / "stages")
            (run / "events.jsonl").write_text(events)
        until = time.monotonic() + 240
        time.sleep(3)  # longer than Ray remembers a gauge that is said once
        while time.monotonic() < until:
            text = urllib.request.urlopen(address, timeout=5).read().decode()
            if all(name in text for name in wanted):
                break
            time.sleep(0.5)
print(text)
"""


class Instrument:
    """A metric that remembers."""

    made: ClassVar[dict[str, Instrument]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.keys, self.said, self.defaults = tag_keys, [], {}  # type: ignore[var-annotated]
        self.made[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.defaults = tags

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        assert {*self.defaults, *(tags or {})} == set(self.keys)
        self.said.append((value, *(tags or {}).values()))

    inc = set


def test_figures_are_those_of_the_manifests_and_events(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instrument, "made", {})
    monkeypatch.setattr(telemetry, "Gauge", Instrument)
    monkeypatch.setattr(telemetry, "Counter", Instrument)
    said = Telemetry(finished)
    events = read_events(finished / "events.jsonl")[0]
    state = StreamState([(f"block-{t:03d}", 300) for t in range(4)], began=events[0]["time"] - 1)
    for event in events:
        state.apply(event, lambda stage: 77)
    said.hear(events[:-1], state)
    said.hear(events[-1:], state)
    said.repeat()
    made = Instrument.made
    assert set(made) == {metric.name for metric in EXPORTED}
    assert all(one.defaults == {"run": finished.name} for one in made.values())
    last = json.loads((finished / "stages" / "0002" / "manifest.json").read_text())
    kept = {True: "kept", False: "dropped"}
    reports = [json.loads((finished / "stages" / f"{t:04d}" / "manifest.json").read_text())["refine"] for t in range(3)]
    assert made["diet_ray_stages_total"].said == [(1, kept[report["kept"]]) for report in reports]
    assert made["diet_ray_rows_total"].said == [(300,)] * 3
    assert made["diet_ray_rows_seen"].said == [(900,)]
    assert (made["diet_ray_blocks_committed"].said, made["diet_ray_blocks_waiting"].said) == ([(3,)], [(1,)])
    assert (made["diet_ray_memory_units"].said, made["diet_ray_memory_bytes"].said) == ([(last["units"],)], [(77,)])
    assert made["diet_ray_reference_logloss"].said[-1] == (last["reference_logloss"],)
    gain = last["refine"]["guard_before"] - last["refine"]["guard_after"]
    assert made["diet_ray_guard_gain"].said[-1] == (gain,)
    assert made["diet_ray_table_bytes"].said[-1] == (
        (finished / "stages" / "0002" / "checkpoint-1.safetensors").stat().st_size,
    )
    seconds = {event["step"]: event["seconds"] for event in events if event["kind"] == "step"}
    assert made["diet_ray_step_seconds"].said == [(value, step) for step, value in seconds.items()]
    committed = [event["time"] for event in events if event["kind"] == "committed"]
    assert made["diet_ray_commit_time_seconds"].said == [(committed[-1],)]
    assert made["diet_ray_rows_per_second"].said == [(pytest.approx(900 / (committed[-1] - state.began)),)]


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_dashboard_names_all_figures_and_no_others() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    named = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert named == {f"ray_{metric.name}" for metric in EXPORTED}
    labels = {label for metric in EXPORTED for label in ("run", *metric.labels)}
    used = {
        label for query in queries for label in re.findall(r"\bby \((\w+)\)|(\w+)=~", query) for label in label if label
    }
    assert used <= labels
    assert "run" in used


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert dashboard["uid"]
    for panel in panels(dashboard):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    taken = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken), "panels overlap"


def test_a_scrape_of_a_private_ray_sees_every_figure(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    home = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
    env = environment(home) | {"RAY_metrics_report_interval_ms": "500"}
    events = read_events(finished / "events.jsonl")[0]
    late = "".join(
        json.dumps({**event, "time": event["time"] + 1e6}) + "\n" for event in events
    )  # after the driver's begin
    (run / "events.jsonl").write_text(late)
    names = [f"ray_{metric.name}" for metric in EXPORTED]
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(run), ",".join(names)],
            env=env,
            capture_output=True,
            text=True,
            timeout=500,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    found = {line.split("{")[0]: line for line in done.stdout.splitlines() if line.startswith("ray_diet_ray_")}
    assert set(found) >= set(names), done.stdout
    assert 'run="run"' in found["ray_diet_ray_memory_units"]
    assert float(found["ray_diet_ray_memory_units"].rsplit(" ", 1)[1]) == 45
