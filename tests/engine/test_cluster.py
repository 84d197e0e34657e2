"""Connecting to Ray: what a user reads where it does not come up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.engine.cluster import RAYLET_SECONDS, connect
from diet_ray.errors import ResourceError

TIMED_OUT = (
    "The current node timed out during startup. This could happen because\nsome of the raylet failed to startup."
)


@pytest.fixture
def not_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so busy that Ray 2.60 gives up on its own node, with a bare Exception."""

    def init(**options: Any) -> None:
        raise Exception(TIMED_OUT)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.mark.parametrize("error", [Exception(TIMED_OUT), ConnectionError("no GCS"), RuntimeError()])
def test_a_private_ray_is_started_once_more(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    done, said = list[str](), list[str]()

    def init(**options: Any) -> None:
        done.append("init")
        if len(done) == 1:
            raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("shutdown"))
    with connect(on_trouble=said.append):
        assert done == ["init", "shutdown", "init"]
    (line,) = said
    assert "\n" not in line
    assert line.endswith("; starting it once more")


@pytest.mark.usefixtures("not_in_time")
def test_a_private_ray_that_does_not_come_up_is_told_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", "--out", str(tmp_path / "log")])
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"Ray waits {RAYLET_SECONDS} s" in line
    assert "tried twice" in line
    assert done.stderr.count("starting it once more") == 1
    assert "timed out during startup" in line
    assert "--local" in line
    assert "--address" in line
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("not_in_time")
def test_so_is_a_cluster_that_does_not_answer() -> None:
    with pytest.raises(ResourceError, match="--address auto: no Ray cluster answers there"), connect("auto"):
        pytest.fail("connected")


def test_ray_still_waits_as_long_as_we_say() -> None:
    source = (Path(ray.__file__).parent / "_private" / "node.py").read_text()
    assert f"raylet_start_wait_time_s = {RAYLET_SECONDS}" in source
