"""`--local`: each command does in this process what it does on Ray, and leaves the same bytes (the demo: `tests/test_demo.py`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.candidates import CandidateFile
from diet_ray.cli import app
from diet_ray.judge.fidelity.assemble import assemble
from diet_ray.judge.fidelity.plan import Bench
from diet_ray.judge.run_sweep import judge_pool
from tests.cli.test_commands import POOL, write_raw
from tests.support.small_bench import bench_config, do_all_here
from tests.support.small_run import STREAM, bytes_of, stage_bytes
from tests.support.synthetic import schema, write_log

COMMAND = Path(sysconfig.get_path("scripts")) / "diet-ray"
TIMES = ("train_seconds", "train_wall_seconds", "seconds", "cost")
"""Keys of results that tell of time."""


def call(*words: object, local: bool, code: int = 0) -> str:
    """What a command prints: with `--local`, or on the cluster to which this process is connected."""
    done = CliRunner().invoke(app, [*(["--local"] if local else []), "--json", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def both(out: Path, *words: object) -> tuple[Path, Path]:
    """Run a command both ways, with `--out`; gives the two folders."""
    folders = out / "ray", out / "here"
    for folder, local in zip(folders, (False, True), strict=True):
        call(*words, "--out", folder, local=local)
    return folders


def without_times(value: Any) -> Any:
    """A result without what depends on the clock or on where it lies."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in (*TIMES, "memory")}
    return [without_times(part) for part in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw files of four days, by day, and the schema of them."""
    folder = tmp_path_factory.mktemp("raw")
    whole = pq.read_table(write_raw(folder / "all.parquet", days=4, n=200))
    (folder / "all.parquet").unlink()
    for day in range(4):
        in_day = pc.equal(pc.divide(whole["time"], pa.scalar(86_400_000)), day)
        pq.write_table(whole.filter(in_day), folder / f"day-{day}.parquet")
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema().model_dump(mode="json")))
    return folder


@pytest.mark.ray
def test_ingest_and_append(ray_cluster: int, raw: Path, tmp_path: Path) -> None:
    words = ["ingest", raw / "schema.yaml", "--by", "day"]
    first = [word for day in (0, 1) for word in ("--from", raw / f"day-{day}.parquet")]
    ray, here = both(tmp_path, *words, *first)
    assert bytes_of(ray) == bytes_of(here)
    for folder, local in ((ray, False), (here, True)):
        said = json.loads(call(*words, "--from", raw, "--append", "--out", folder, local=local))
        assert said["blocks"] == ["1970-01-03", "1970-01-04"]
    assert bytes_of(ray) == bytes_of(here)


@pytest.mark.ray
def test_simulate(ray_cluster: int, tmp_path: Path) -> None:
    ray, here = both(tmp_path, "simulate", "--rows", 300, "--blocks", 2)
    assert bytes_of(ray) == bytes_of(here)


def test_distill(finished: Path, log: Path, tmp_path: Path) -> None:
    """`finished` is of the engine without Ray, whose bytes Ray's are (`tests/engine/test_train.py`)."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"log": str(log.resolve()), **STREAM}))
    said = json.loads(call("distill", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run", local=True))
    assert [stage["block"] for stage in said["stages"]] == ["block-000", "block-001", "block-002"]
    assert stage_bytes(tmp_path / "run") == stage_bytes(finished)


def test_sweep(finished: Path, tmp_path: Path) -> None:
    """Against the trials in this process, which are those of Ray (`tests/engine/test_sweep_driver.py`)."""
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(POOL))
    words = ["sweep", "--memory", finished, "--candidates", tmp_path / "pool.yaml", "--seeds", 1]
    said = json.loads(call(*words, "--out", tmp_path / "sweep", local=True))
    here = judge_pool(finished, CandidateFile.model_validate(POOL), out=tmp_path / "here", seeds=1)
    assert without_times(said) == without_times(json.loads(here.model_dump_json()))
    again = json.loads(call(*words, "--out", tmp_path / "sweep", "--restore", local=True))
    assert again == said == json.loads((tmp_path / "sweep" / "leaderboard.json").read_text())


def test_fidelity(tmp_path: Path) -> None:
    """Against the bench in this process, whose figures Ray's are (`tests/judge/fidelity/test_bench.py`)."""
    more = [
        {"name": f"lr-{n}", "arch": "lr", "lr_scale": n} for n in (2, 3, 4, 5)
    ]  # with one of the pool, as few as it accepts
    log = write_log(tmp_path / "log", blocks=3, n=200)
    config = bench_config(log, tmp_path, candidates=1, more_candidates=more, protocols=["frozen"])
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    said = json.loads(call("fidelity", "--config", tmp_path / "bench.yaml", "--out", tmp_path / "out", local=True))
    here = Bench.open(config.absolute(), tmp_path / "here")
    do_all_here(here)
    assert (tmp_path / "out" / "fidelity.json").read_text() == assemble(here).model_dump_json(indent=2) + "\n"
    assert said["fidelity"]["seeds"] == 2
    assert (tmp_path / "out" / "fidelity.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "auto"], "--address: is for Ray, and --local"),
        (["--cpus", "2"], "--cpus: is for Ray, and --local"),
    ],
)
def test_what_is_for_ray_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    assert said in call(*words, "simulate", "--out", tmp_path / "log", local=True, code=2)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (
            {"algorithm": "optuna"},
            "key 'search.algorithm': 'optuna' needs Ray Tune; leave out --local, or set it to 'random'",
        ),
        (
            {"scheduler": "asha"},
            "key 'search.scheduler': 'asha' needs Ray Tune; leave out --local, or set it to 'none'",
        ),
    ],
)
def test_what_needs_tune_is_refused(finished: Path, tmp_path: Path, search: dict[str, str], said: str) -> None:
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump({**POOL, "search": search}))
    words = ["sweep", "--memory", finished, "--candidates", tmp_path / "pool.yaml", "--out", tmp_path / "sweep"]
    assert said in call(*words, local=True, code=2)
    assert not (tmp_path / "sweep" / "trials").exists()


def test_several_workers_are_refused(log: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"log": str(log), **STREAM, "cluster": {"workers": 2}}))
    said = call("distill", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run", local=True, code=2)
    assert "key 'cluster.workers': 2 workers" in said
    assert not (tmp_path / "run").exists()


def test_ray_is_not_even_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom diet_ray.cli import app\n"
        f"done = CliRunner().invoke(app, ['simulate', '--rows', '50', '--blocks', '1', '--out', {str(tmp_path / 'log')!r}])\n"
        "assert done.exit_code == 0, done.output\nprint([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DIET_RAY_LOCAL": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_ctrl_c_ends_it_and_it_goes_on_to_the_same_bytes(finished: Path, log: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"log": str(log.resolve()), **STREAM}))
    command = [str(COMMAND), "--local", "distill", "--config", str(config), "--out", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "block-000 (1/3): committed" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, (lines, rest)
    assert "Traceback" not in rest
    assert not (run / "lock.json").exists()
    call("distill", "--config", config, "--out", run, "--resume", local=True)
    assert stage_bytes(run) == stage_bytes(finished)
