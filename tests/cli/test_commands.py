"""The command line: the whole job as a person runs it, and what it says when they err."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.common.private_ray import environment
from diet_ray.cli import app
from tests.support.small_run import STREAM, stage_bytes
from tests.support.synthetic import rows, schema, write_log
from tests.support.watched import PATIENCE, run

COMMAND = Path(sysconfig.get_path("scripts")) / "diet-ray"
DIN = {"target": "item", "sequence": "seen"}
POOL = {"candidates": [{"name": "net", "arch": "dnn", "params": {"hidden": [8]}}, {"name": "fm", "arch": "fm"}]}


def write_yaml(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def write_raw(path: Path, days: int, n: int) -> Path:
    """A raw log as Parquet: the values behind the synthetic rows' ids, at random times of each day."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("time", "user", "item", "kind", "hour", "label_0")}
    first = schema().first_static_id
    for day in range(days):
        part = rows(n, block=day)
        columns["time"].append(day * 86_400_000 + np.random.default_rng(day).integers(0, 86_400_000, n))
        for f, name in enumerate(("user", "item", "kind", "hour")):
            columns[name].append(part.ids[:, f] - first[f])
        columns["label_0"].append(part.labels[:, 0])
    pq.write_table(pa.table({name: np.concatenate(parts) for name, parts in columns.items()}), path)
    return path


class Shell:
    """Runs the installed command in a process of its own, in a clean environment, with a private Ray of 2 CPUs."""

    def __init__(self, temporary: Path) -> None:
        self.env = environment(temporary)

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(COMMAND), "--json", "--cpus", "2", *map(str, arguments)]
        return run(command, env=self.env)


@pytest.fixture
def shell() -> Iterator[Shell]:
    temporary = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
    yield Shell(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def test_from_raw_parquet_to_a_leaderboard(shell: Shell, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw.parquet", days=3, n=400)
    described = write_yaml(tmp_path / "schema.yaml", schema().model_dump(mode="json"))
    log, run, out = tmp_path / "log", tmp_path / "run", tmp_path / "sweep"

    done = shell("ingest", described, "--from", raw, "--out", log, "--by", "day")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(block["name"], block["rows"]) for block in said["blocks"]] == [
        ("1970-01-01", 400),
        ("1970-01-02", 400),
        ("1970-01-03", 400),
    ]
    assert "rows/s" in done.stderr

    asked = write_yaml(tmp_path / "distill.yaml", {"log": str(log), "out": str(run), **STREAM})
    done = shell("distill", "--config", asked)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["rows"], said["units"], len(said["stages"])) == (800, 40, 2)
    assert "block 1970-01-02 (2/2): committed, memory 40 units" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run / "summary.json").read_text()) == said
    before = stage_bytes(run)

    done = CliRunner().invoke(app, ["--local", "--json", "distill", "--config", str(asked), "--resume"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["units"] == 40  # nothing was left to do
    assert stage_bytes(run) == before

    pool = write_yaml(tmp_path / "candidates.yaml", POOL)
    done = shell("sweep", "--memory", run, "--candidates", pool, "--out", out, "--seeds", "2")
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    assert (board["block"], board["rows"], len(board["verdicts"])) == (
        "1970-01-03",
        40,
        4,
    )  # a tenth of the block, live
    assert {line["candidate"] for line in board["standings"]} == {"net", "fm"}
    assert all(0 < line["mean"]["label_0"]["auc"] < 1 for line in board["standings"])
    assert json.loads((out / "leaderboard.json").read_text()) == board
    assert (out / "leaderboard.csv").read_text().count("\n") == 3
    assert not (Path(shell.env["HOME"]) / ".ray" / "auth_token").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_the_command_and_leave_a_run_to_resume(
    shell: Shell, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    log, run = write_log(tmp_path / "log", blocks=3, n=200), tmp_path / "run"
    endless = {**STREAM, "refine": {**STREAM["refine"], "rounds": 100_000}}
    file = write_yaml(tmp_path / "distill.yaml", {"log": str(log), "out": str(run), **endless})
    command = [str(COMMAND), "--cpus", "2", "distill", "--config", str(file)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, env=shell.env, stdout=said, stderr=said)
    try:
        until = time.monotonic() + PATIENCE
        while not (run / "events.jsonl").exists():
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == code
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert "SIGTERM received" not in (tmp_path / "said").read_text()  # Ray's own handler, which aborts
    assert (run / "run.json").exists()
    assert not (run / "lock.json").exists()
    assert not (run / "stages" / "0000").exists()


def test_sigterm_ends_a_command_that_its_shell_lets_ignore_ctrl_c(tmp_path: Path) -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from diet_ray.cli.group import app

@app.command()
def sleep() -> None:
    print("asleep", flush=True)
    time.sleep(60)

app(["sleep"])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asleep\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 143
        assert process.stderr is not None
        assert process.stderr.read() == b""


def fails(tmp_path: Path, *arguments: str | Path) -> str:
    """Run a command that must fail without leaving anything behind; returns its one line of error."""
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.endswith(errors[0] + "\n")
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    return errors[0]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", blocks=2, n=100)


def asked(tmp_path: Path, log: Path, **changes: Any) -> Path:
    return write_yaml(tmp_path / "distill.yaml", {"log": str(log), "out": str(tmp_path / "run"), **STREAM, **changes})


def test_a_bad_key_is_named_with_the_one_that_was_meant(tmp_path: Path, log: Path) -> None:
    file = asked(tmp_path, log, refine={"round": 3})
    error = fails(tmp_path, "distill", "--config", file)
    assert error.startswith(f"error: {file}: unknown key 'refine.round' (did you mean 'rounds'?)")


def test_a_bad_value_is_named(tmp_path: Path, log: Path) -> None:
    error = fails(tmp_path, "distill", "--config", asked(tmp_path, log, budget={"ratio": 2}))
    assert "key 'budget.ratio': Input should be less than or equal to 1 (got 2)" in error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"refine": {**STREAM["refine"], "proxies": [{"name": "few", "arch": "fm", "drop_fields": ["itm"]}]}},
            "key 'refine.proxies': candidate 'few', key 'drop_fields': the log has no field 'itm' (did you mean 'item'?)",
        ),
        (
            {"reference": {"nets": [{"name": "din", "arch": "din", "params": DIN, "adapter": False}]}},
            "key 'reference.nets': candidate 'din', params of 'din': sequence 'seen' is not among its fields; it sees user, item",
        ),
    ],
)
def test_a_net_that_does_not_fit_the_log_is_named_before_ray_starts(
    tmp_path: Path, log: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.engine.workplace.connect", lambda *a, **k: pytest.fail("started Ray"))
    file = asked(tmp_path, log, **changes)
    assert said in fails(tmp_path, "distill", "--config", file)
    assert said in fails(tmp_path, "distill", "--config", file, "--follow", log)


def test_a_missing_file_is_named(tmp_path: Path, log: Path) -> None:
    assert f"{tmp_path / 'none.yaml'}: no such file or folder" in fails(
        tmp_path, "distill", "--config", tmp_path / "none.yaml"
    )
    missing = tmp_path / "nowhere"
    assert f"{missing}: there is no log" in fails(tmp_path, "distill", "--config", asked(tmp_path, missing))
    pool = tmp_path / "none.yaml"
    assert f"{pool}: no such file or folder" in fails(
        tmp_path, "sweep", "--memory", tmp_path, "--candidates", pool, "--out", tmp_path / "sweep"
    )


def test_a_run_without_a_place_is_refused(tmp_path: Path, log: Path) -> None:
    file = write_yaml(tmp_path / "distill.yaml", {"log": str(log)})
    assert f"{file}: missing key 'out'" in fails(tmp_path, "distill", "--config", file)


@pytest.mark.ray
def test_more_workers_than_cpus_are_refused(ray_cluster: int, tmp_path: Path, log: Path) -> None:
    file = asked(tmp_path, log, cluster={"workers": 40})
    error = fails(tmp_path, "distill", "--config", file)
    assert "40 workers x 0.5 CPUs" in error
    assert "the cluster has 4: lower cluster.workers" in error


@pytest.mark.ray
def test_a_run_folder_in_use_is_refused_and_kept(ray_cluster: int, tmp_path: Path, log: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    error = fails(tmp_path, "distill", "--config", asked(tmp_path, log))
    assert f"{tmp_path / 'run'}: already holds a run; continue it with --resume or choose another folder" in error


@pytest.mark.ray
def test_there_must_be_a_run_to_resume(ray_cluster: int, tmp_path: Path, log: Path) -> None:
    error = fails(tmp_path, "distill", "--config", asked(tmp_path, log), "--resume")
    assert f"{tmp_path / 'run' / 'run.json'}: missing" in error


def test_an_existing_log_is_refused_and_kept(tmp_path: Path, log: Path) -> None:
    described = write_yaml(tmp_path / "schema.yaml", schema().model_dump(mode="json"))
    raw = write_raw(tmp_path / "raw.parquet", days=1, n=10)
    error = fails(tmp_path, "ingest", described, "--from", raw, "--out", log, "--by", "day")
    assert f"{log}: exists already" in error


@pytest.mark.parametrize("by", ["month", "-5", "1.5"])
def test_a_bad_block_length_is_refused(tmp_path: Path, by: str) -> None:
    described = write_yaml(tmp_path / "schema.yaml", schema().model_dump(mode="json"))
    error = fails(tmp_path, "ingest", described, "--from", tmp_path, "--out", tmp_path / "log", f"--by={by}")
    assert f"--by: must be day, week or a number of rows, not '{by}'" in error


def test_what_to_ingest_must_be_said(tmp_path: Path) -> None:
    described = write_yaml(tmp_path / "schema.yaml", schema().model_dump(mode="json"))
    assert "--by: missing" in fails(tmp_path, "ingest", described, "--from", tmp_path, "--out", tmp_path / "log")
    error = fails(tmp_path, "ingest", "kuairandom", "--out", tmp_path / "log", "--by", "day")
    assert "'kuairandom' is neither a published log with a reader" in error


@pytest.mark.ray
def test_a_label_that_is_no_label_leaves_no_log(ray_cluster: int, tmp_path: Path) -> None:
    described = write_yaml(tmp_path / "schema.yaml", schema().model_dump(mode="json"))
    raw = write_raw(tmp_path / "raw.parquet", days=1, n=10)
    table = pq.read_table(raw)
    labels = np.array([0, 1, 2] + [0] * 7)
    pq.write_table(table.set_column(table.schema.get_field_index("label_0"), "label_0", pa.array(labels)), raw)
    error = fails(tmp_path, "ingest", described, "--from", raw, "--out", tmp_path / "log", "--by", "day")
    assert f"{raw}, column 'label_0'" in error


@pytest.mark.ray
def test_a_bad_block_to_judge_on_leaves_no_sweep(ray_cluster: int, tmp_path: Path, log: Path) -> None:
    error = fails(tmp_path, "sweep", "--memory", tmp_path, "--out", tmp_path / "sweep")
    assert f"{tmp_path}: holds no committed stage" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
        (["--address", "http://x:8265"], "must be HOST:PORT"),
    ],
)
def test_an_unreachable_cluster_is_said_in_seconds(tmp_path: Path, log: Path, options: list[str], said: str) -> None:
    # In a process of its own: this one may be connected already.
    command = [str(COMMAND), *options, "distill", "--config", str(asked(tmp_path, log))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "127.0.0.1:1", "--cpus", "2"], "--cpus: the cluster at 127.0.0.1:1 runs already"),
        (["--cpus", "0"], "--cpus: must be at least 1, not 0"),
    ],
)
def test_cpus_are_for_a_private_ray(tmp_path: Path, log: Path, options: list[str], said: str) -> None:
    assert said in fails(tmp_path, *options, "distill", "--config", asked(tmp_path, log))


@pytest.mark.parametrize("arguments", [["--help"], ["distill", "--help"], ["version"]])
def test_help_is_instant(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom diet_ray.cli import app\n"
        f"try:\n    app({arguments!r}, prog_name='diet-ray')\n"
        "finally:\n    print(sorted({'ray', 'torch', 'pyarrow', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert "diet" in done.stdout


def test_each_command_shows_an_example() -> None:
    for command in (
        "ingest",
        "simulate",
        "distill",
        "fidelity",
        "status",
        "inspect",
        "sweep",
        "export",
        "demo",
        "verify",
        "gc",
        "completion",
        "version",
    ):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert f"Example: diet-ray {'--json ' if command == 'version' else ''}{command}" in result.stdout


def test_versions_as_json() -> None:
    result = CliRunner().invoke(app, ["--json", "version"])
    assert set(json.loads(result.stdout)) == {"diet_ray", "torch", "ray", "numpy", "pyarrow", "safetensors", "pydantic"}
