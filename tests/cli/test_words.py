"""What a command says before it works: options in any place, mistakes told at once and with their remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.table import Table
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.cli.group import Options, _global_first
from diet_ray.config import LaunchConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.search import SweepConfig
from diet_ray.schema import Schema
from diet_ray.settings import parse


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("sweep --json --out x", "--json sweep --out x"),
        ("sweep --out x --cpus 2 --quiet", "--cpus 2 --quiet sweep --out x"),
        ("ingest a --address=b:1 --local", "--address=b:1 --local ingest a"),
        ("inspect -- --json", "inspect -- --json"),
        ("sweep --cpus", "--cpus sweep"),
    ],
)
def test_options_of_all_commands_are_taken_in_any_place(given: str, taken: str) -> None:
    assert _global_first(given.split()) == taken.split()


def test_a_result_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("field")
    table.add_row("price:cat:[bold]")
    Options(quiet=False, json=False, address=None, cpus=None, local=True).result({}, "logs:cat:[/x]", table)
    said = capsys.readouterr().out
    assert "logs:cat:[/x]" in said
    assert "price:cat:[bold]" in said


def test_version_and_short_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("diet_ray ")
    assert CliRunner().invoke(app, ["sweep", "-h"]).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "raw", "said"),
    [
        (FidelityConfig, {"log": "x"}, "unknown key 'log': it belongs under 'stream'"),
        (LaunchConfig, {"log": "x", "steps": 3}, "unknown key 'steps': it belongs under 'student'"),
        (LaunchConfig, {"log": "x", "student": {"seed": 1}}, "unknown key 'student.seed': it belongs at the top level"),
        (LaunchConfig, {"log": "x", "student": {"stepz": 1}}, "unknown key 'student.stepz' (did you mean 'steps'?)"),
        (
            LaunchConfig,
            {"log": "x", "budget": {"zzz": 1}},
            "unknown key 'budget.zzz'; remove it (the keys of 'budget' are ",
        ),
        (
            Schema,
            {
                "name": "a",
                "time": {"column": "t"},
                "user": "u",
                "tasks": ["n"],
                "fields": [{"name": name, "kind": "numeric", "buckets": 4} for name in ("n", "u")],
            },
            "f.yaml: column 'n' is both a field and a task",
        ),
        (LaunchConfig, {"log": "x", "budget": 0.01}, "key 'budget': write {ratio: 0.01}"),
        (LaunchConfig, {"log": "x", "budget": 500}, "key 'budget': write {cap: 500}"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_its_place(kind: type, raw: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(kind, raw, where="f.yaml")
    assert said in str(caught.value)


def test_a_module_that_fails_is_one_error(user_code: Path) -> None:
    (user_code / "broken_nets.py").write_text("1 / 0")
    raw = {"modules": ["broken_nets"], "candidates": [{"name": "a", "arch": "mine"}]}
    with pytest.raises(ConfigError, match="division by zero") as caught:
        parse(SweepConfig, raw, where="pool.yaml")
    assert "unknown arch" not in str(caught.value)


@pytest.mark.parametrize(
    "command", ["gc {}", "verify {}", "inspect {}", "status {}", "export {} --out x", "sweep --memory {} --out x"]
)
def test_a_missing_path_is_told_before_torch_is_imported(command: str) -> None:
    words = command.format("runs/nope").split()
    code = (
        "import sys\nfrom diet_ray.cli import app\n"
        f"try:\n    app({words!r})\n"
        "finally:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "runs/nope" in done.stderr
    assert done.stdout.strip() == "False"


def test_names_are_suggested(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ingest", "kuairnd", "--out", str(tmp_path / "x")])
    assert (done.exit_code, "did you mean 'kuairand'?" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["ingest", "movielens", "--by", "weak", "--out", str(tmp_path / "x")])
    assert (done.exit_code, "(did you mean 'week'?)" in done.stderr) == (2, True)


def test_mistakes_of_a_sweep_are_told_before_ray_starts(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.engine.workplace.connect", lambda *a, **k: pytest.fail("started Ray"))
    pool = tmp_path / "pool.yaml"
    pool.write_text(yaml.safe_dump({"candidates": [{"name": "a", "arch": "fm"}, {"name": "b", "arch": "lr"}]}))
    words = ["--memory", str(finished), "--candidates", str(pool), "--out", str(tmp_path / "out")]
    for command, more, said in (
        ("sweep", ["--block", "nope"], "the log has no such block"),
        ("sweep", ["--live", "99"], "--live 99: the log has"),
        ("race", ["--block", "nope"], "the log has no such block"),
    ):
        done = CliRunner().invoke(app, [command, *words, *more])
        assert done.exit_code == 2
        assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "sweep --memory {run} --out {used}",
            "used: holds a sweep; continue it with --restore, or choose another folder",
        ),
        (
            "race --memory {run} --out {used}",
            "used: holds a race; continue it with --restore, or choose another folder",
        ),
        ("race --memory {run} --out {file}", "file: is a file, and a race needs a folder; choose another --out"),
        (
            "sweep --memory {run} --out {new} --block nope",
            "block 'nope': the log has no such block; blocks to judge on: block-00",
        ),
        ("race --memory {run} --out {new} --block block-000", "block 'block-000': the memory has learned from it"),
        ("distill --config {config} --out {run}", "run: already holds a run; continue it with --resume"),
        ("distill --config {config} --out {file}", "file: is a file, and a run needs a folder; choose another --out"),
    ],
)
def test_a_wrong_place_or_block_is_told_before_torch_is_imported(
    finished: Path, tmp_path: Path, words: str, said: str
) -> None:
    places = {"run": finished, **{name: tmp_path / name for name in ("used", "file", "new", "config")}}
    for made in ("trials", "rung-1"):
        (places["used"] / made).mkdir(parents=True)
    places["file"].touch()
    log = json.loads((finished / "run.json").read_text())["config"]["log"]
    places["config"].write_text(yaml.safe_dump({"log": log}))
    given = [part.format(**places) for part in words.split()]
    code = (
        "import sys\nfrom diet_ray.cli import app\n"
        f"try:\n    app({given!r})\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not places["new"].exists()
