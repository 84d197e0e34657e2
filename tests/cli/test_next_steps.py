"""What `ingest` and `distill` say at their end: where the result is, and a whole command that goes on."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from tests.cli.test_commands import write_raw
from tests.support.small_run import STREAM
from tests.support.synthetic import schema


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["--local", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_each_command_leads_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_raw(Path("raw.parquet"), days=2, n=200)
    Path("schema.yaml").write_text(yaml.safe_dump(schema().model_dump(mode="json")))

    ended = said("ingest", "schema.yaml", "--from", "raw.parquet", "--by", "day", "--out", "a log")
    assert "Log: a log." in ended
    line, command = re.findall(r"echo (.*) > .*? && diet-ray (distill .*)", ended)[0]
    (config, run) = shlex.split(command)[2::2]
    assert f"> {shlex.quote(config)} &&" in ended
    assert yaml.safe_load(shlex.split(line)[0]) == {"log": "a log"}
    Path(config).write_text(yaml.safe_dump({**STREAM, "log": "a log"}))  # as the line says, and small

    ended = said(*shlex.split(command))
    assert f"Memory: {run}." in ended
    (command,) = re.findall(r"diet-ray (sweep --memory .*?) \(--candidates", ended)
    assert shlex.split(command) == ["sweep", "--memory", run, "--out", "sweeps/a log"]

    Path(config).write_text(yaml.safe_dump({**STREAM, "log": "a log", "blocks": 2}))
    ended = said("distill", "--config", config, "--out", "runs/all")
    assert "All blocks are in it, so append one to the log" in ended
