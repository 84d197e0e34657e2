"""Simulated logs on disk, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.engine.data import fan_out
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.labels import true_probability
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.settings import parse_json
from diet_ray.storage import whole_folder as appearing_module
from tests.support.small_run import bytes_of

SMALL = SimulateConfig(rows=1_000, blocks=3, shard_rows=300, tasks={"click": 0.3, "buy": 0.1})


def test_a_log_like_any_other(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, int]] = []
    simulate(SMALL, tmp_path / "log", on_progress=lambda *what: told.append(what))
    assert told == [("simulate", i, 12, i * 250) for i in range(1, 13)]
    log = open_log(tmp_path / "log")
    assert [block.name for block in log.blocks] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    first, day = log.schema.first_static_id, 86_400_000
    for block in log.blocks:
        assert [shard.rows for shard in block.shards] == [250] * 4
        rows = log.read_block(block)
        assert block.positives == rows.labels.sum(axis=0).tolist()
        assert (rows.ids >= first[:-1]).all()
        assert (rows.ids < first[1:]).all()
        assert block.n_ids == first[-1]
        np.testing.assert_array_equal(rows.row_id, (block.index << 32) + np.arange(1_000))
        np.testing.assert_array_equal(rows.user, rows.ids[:, 0] - first[0])
        since = rows.time - np.datetime64(block.name, "ms").astype(np.int64)
        assert (np.diff(since) >= 0).all()
        np.testing.assert_array_equal(since * 1_000 // day, np.arange(1_000))  # evenly over its day
        assert (block.time_min, block.time_max) == (rows.time[0], rows.time[-1])


def test_its_truth_is_known_from_the_folder_alone(tmp_path: Path) -> None:
    simulate(SMALL, tmp_path / "log")
    log, config = open_log(tmp_path / "log"), parse_json(SimulateConfig, tmp_path / "log" / "simulate.json")
    assert config == SMALL
    rows = log.read_block(log.blocks[1])
    p = true_probability(config, rows)
    far = (rows.labels.sum(axis=0) - p.sum(axis=0)) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert (np.abs(far) < 4).all()
    assert (p[rows.labels == 1].mean() - p[rows.labels == 0].mean()) > 0.1


def test_rows_depend_neither_on_the_shards_nor_on_the_length(tmp_path: Path) -> None:
    simulate(SMALL, tmp_path / "log")
    simulate(SMALL.model_copy(update={"blocks": 5}), tmp_path / "longer")
    simulate(SMALL.model_copy(update={"shard_rows": 701}), tmp_path / "coarser")
    simulate(SMALL.model_copy(update={"seed": 1}), tmp_path / "other")
    blocks = {path: hash_ for path, hash_ in bytes_of(tmp_path / "log").items() if path.startswith("blocks/")}
    assert len(blocks) == 15
    assert blocks.items() <= bytes_of(tmp_path / "longer").items()
    assert not blocks.items() & bytes_of(tmp_path / "other").items()
    fine, coarse = open_log(tmp_path / "log"), open_log(tmp_path / "coarser")
    for one, other in zip(fine.blocks, coarse.blocks, strict=True):
        assert len(other.shards) == 2
        rows, same = fine.read_block(one), coarse.read_block(other)
        for name in ("row_id", "time", "user", "ids", "labels"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(same, name))


@pytest.mark.ray
def test_the_workers_write_the_same_bytes(ray_cluster: int, tmp_path: Path) -> None:
    few = SMALL.model_copy(update={"shard_rows": 500})  # few tasks: it is their workers' start that takes time
    simulate(few, tmp_path / "many", each=fan_out)
    simulate(few, tmp_path / "one")
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one"]


def test_what_was_killed_half_way_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill_at(stop: int) -> None:
        def die(stage: str, done: int, total: int, rows: int) -> None:
            if done == stop:
                raise Killed

        with pytest.raises(Killed):
            simulate(SMALL, tmp_path / "log", on_progress=die)

    for stop in (1, 7, 12):
        kill_at(stop)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(appearing_module, "_remove", lambda folder: None)  # SIGKILL leaves no time to tidy up
    kill_at(12)
    (left,) = tmp_path.iterdir()
    assert left.name != "log"
    assert len(list(left.rglob("*.parquet"))) == 12
    with pytest.raises(CorruptArtefactError, match=r"log\.json"):
        open_log(left)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        simulate(SMALL, tmp_path / "log")
    assert list((tmp_path / "log").iterdir()) == []


def test_the_command(tmp_path: Path) -> None:
    file, out = tmp_path / "sim.yaml", tmp_path / "log"
    file.write_text(yaml.safe_dump({"rows": 500, "blocks": 9, "drift": 0.2, "tasks": {"buy": 0.1}}))
    command = [
        "--local",
        "--json",
        "simulate",
        "--config",
        str(file),
        "--out",
        str(out),
        "--blocks",
        "2",
        "--seed",
        "3",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["rows"], said["log"], [block["rows"] for block in said["blocks"]]) == (1_000, str(out), [500, 500])
    config = parse_json(SimulateConfig, out / "simulate.json")
    assert (config.blocks, config.seed, config.drift) == (2, 3, 0.2)
    assert said["ids"] == open_log(out).blocks[-1].n_ids

    done = CliRunner().invoke(app, ["--quiet", "simulate", "--out", str(tmp_path / "plain"), "--rows", "50"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert parse_json(SimulateConfig, tmp_path / "plain" / "simulate.json") == SimulateConfig(rows=50)


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text("drfit: 1")
    for arguments, named in (
        (["--config", str(file)], f"{file}: unknown key 'drfit' (did you mean 'drift'?)"),
        (["--rows", "0"], "key 'rows'"),
    ):
        done = CliRunner().invoke(app, ["simulate", "--out", str(tmp_path / "log"), *arguments])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert named in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "log").exists()
