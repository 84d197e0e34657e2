"""A resumed run gives the bytes of an undisturbed one, or says that it does not: before it goes on, and ever after."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diet_ray.distill.local import distil_locally
from diet_ray.distill.pipeline import check_processor
from diet_ray.engine.train import _check_first_start
from diet_ray.errors import ConfigError, VersionError
from diet_ray.memory import same_bytes
from diet_ray.memory.facts import MadeWith
from diet_ray.memory.layout import stage_folder, stage_manifest
from diet_ray.memory.lineage import trace
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.memory.same_bytes import changes
from diet_ray.memory.verification import verify
from diet_ray.report.status import run_status
from diet_ray.training.device import CPU
from tests.support.small_run import config, stage_bytes

HERE = torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run of which the first of three stages is committed."""
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    for index in (1, 2):
        shutil.rmtree(stage_folder(copy, index))
    return copy


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")


def earlier(run: Path) -> None:
    """Make the run's stage one of a release that did not record what computed it."""
    path = stage_manifest(run, 0)
    content = json.loads(path.read_text())
    del content["made_with"]
    path.write_text(json.dumps(content))


DECIDING: list[tuple[dict[str, Any], str]] = [
    ({"workers": 2}, "cluster.workers 1, now 2"),
    ({"threads_per_worker": 2}, "cluster.threads_per_worker 1, now 2"),
    ({"memory_shards": 3}, "cluster.memory_shards 2, now 3"),
    ({"precision": "bfloat16"}, "cluster.precision float32, now bfloat16"),
    ({"gpus_per_worker": 0.5}, "cluster.gpus_per_worker 0, now above 0; cluster.gpus_per_scorer 0, now above 0"),
    ({"scorers": 1, "gpus_per_scorer": 1}, "cluster.gpus_per_scorer 0, now above 0"),
    ({"workers": 4, "memory_shards": 1}, "cluster.workers 1, now 4; cluster.memory_shards 2, now 1"),
]


@pytest.mark.parametrize("since", ["recorded", "earlier"])
@pytest.mark.parametrize(("cluster", "what"), DECIDING)
def test_a_key_of_the_cluster_that_decides_bytes_needs_leave(
    run: Path, log: Path, cluster: dict[str, Any], what: str, since: str
) -> None:
    if since == "earlier":
        earlier(run)
    with pytest.raises(
        ConfigError, match=rf"run: its last stage was made with {re.escape(what)}: .* or with --allow-different-bytes"
    ):
        open_run(run, config(log, **cluster), resume=True)
    assert len(open_run(run, config(log, **cluster), resume=True, allow_different_bytes=True)) == 1


@pytest.mark.parametrize(
    "cluster",
    [{"cpus_per_worker": 2}, {"scorers": 3}, {"scorers": 1, "cpus_per_scorer": 4}, {"max_failures": 50}],
)
def test_other_keys_are_free(run: Path, log: Path, cluster: dict[str, Any]) -> None:
    assert len(open_run(run, config(log, **cluster), resume=True)) == 1


def test_a_share_of_a_gpu_gives_the_bytes_of_a_whole_one() -> None:
    def of(**cluster: Any) -> dict[str, str]:
        return same_bytes.cluster_of(config(Path("x"), **cluster).model_dump(mode="json"))

    assert of(gpus_per_worker=0.5) == of(gpus_per_worker=2) != of()
    # Without scorers the worker scores; with them, they do.
    assert of(gpus_per_worker=1)["cluster.gpus_per_scorer"] == "above 0"
    assert of(gpus_per_worker=1, scorers=2)["cluster.gpus_per_scorer"] == "0"


def test_a_run_without_a_stage_has_no_bytes_to_differ_from(run: Path, log: Path) -> None:
    shutil.rmtree(stage_folder(run, 0))
    assert open_run(run, config(log, workers=2), resume=True) == []


def test_another_instruction_set_needs_leave_and_is_written_down(
    run: Path, finished: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        elsewhere(patch)
        with pytest.raises(ConfigError, match=f"its last stage was made with instruction set {HERE}, now OTHER"):
            distil_locally(run, config(log), resume=True)
        assert len(committed_stages(run)) == 1
        stages = distil_locally(run, config(log, memory_shards=3), resume=True, allow_different_bytes=True)
        assert [stage.made_with.cpu for stage in stages if stage.made_with] == [HERE, "OTHER", "OTHER"]
        # From then on that is how the run is made.
        distil_locally(run, config(log, memory_shards=3), resume=True)
    change = f"from stage 1 on: cluster.memory_shards 2, now 3; instruction set {HERE}, now OTHER"
    status = run_status(run)
    assert status.different_bytes == trace(run).different_bytes == [change]
    assert f"other bytes {change}" in status.lines()
    assert run_status(finished).different_bytes == trace(finished).different_bytes == []
    assert verify(run) == []


def test_other_package_versions_need_leave(run: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diet_ray.memory import run_folder

    now = {**run_folder.versions_of(run_folder.PACKAGES), "torch": "9.9"}
    monkeypatch.setattr(run_folder, "versions_of", lambda packages: now)
    monkeypatch.setattr(same_bytes, "versions_of", lambda packages: now)
    with pytest.raises(VersionError, match=r"begun with torch .*, now torch 9\.9; .* with --allow-different-bytes"):
        open_run(run, config(log), resume=True)
    stages = distil_locally(run, config(log), resume=True, allow_different_bytes=True)
    assert "torch" in changes(stages)[0]
    assert len(open_run(run, config(log), resume=True)) == 3  # the last stage was made with them


def test_a_run_of_an_earlier_release_needs_leave_and_records_from_then_on(
    run: Path, finished: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(run)
    elsewhere(monkeypatch)
    with pytest.raises(ConfigError, match="arithmetic of passes 1, now 3: later stages would have other bytes"):
        distil_locally(run, config(log), resume=True)
    stages = distil_locally(run, config(log), resume=True, allow_different_bytes=True)
    assert [stage.made_with and stage.made_with.cpu for stage in stages] == [None, "OTHER", "OTHER"]
    assert changes(stages) == ["from stage 1 on: arithmetic of passes 1, now 3"]
    assert stage_bytes(run).keys() == stage_bytes(finished).keys()


def test_a_restart_by_itself_goes_on_elsewhere(
    run: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cluster.max_failures` starts the workers again; the first start of a driver is compared."""
    committed, begun = committed_stages(run), tmp_path / "ray" / "train-1.begun"
    with monkeypatch.context() as patch:
        elsewhere(patch)
        for _ in range(2):
            with pytest.raises(ConfigError, match="instruction set"):
                _check_first_start(run, committed, CPU, begun)
    _check_first_start(run, committed, CPU, begun)
    elsewhere(monkeypatch)
    _check_first_start(run, committed, CPU, begun)


def test_another_gpu_is_another_processor(run: Path) -> None:
    (stage,) = committed_stages(run)
    assert stage.made_with
    check_processor(run, [stage], CPU)
    made = [MadeWith(versions={}, cpu="AVX2", gpu=gpu) for gpu in ("H100", "H200")]
    stages = [stage.model_copy(update={"made_with": value, "index": index}) for index, value in enumerate(made)]
    assert changes(stages) == ["from stage 1 on: GPU H100, now H200"]


def test_a_damaged_config_of_a_stage_does_not_stop_the_status() -> None:
    for damaged in (None, [], {}, {"cluster": 3}, {"cluster": {"workers": "x"}}):
        assert same_bytes.cluster_of(damaged) == {}


def test_leave_is_asked_only_of_a_run_that_goes_on(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from diet_ray.cli import app

    (tmp_path / "x").touch()
    said = CliRunner().invoke(app, ["--local", "distill", "--config", str(tmp_path / "x"), "--allow-different-bytes"])
    assert said.exit_code == 2
    assert "a new run has no earlier bytes" in said.stderr
