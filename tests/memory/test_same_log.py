"""A memory and a log belong together by their checksums: another log may have the same names of blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from diet_ray.candidates import CandidateFile
from diet_ray.distill import pipeline
from diet_ray.distill.local import distil_locally
from diet_ray.errors import ConfigError
from diet_ray.judge.sweep_plan import Inputs
from diet_ray.logs.blocks import LogManifest, block_sha256, open_log
from diet_ray.logs.layout import block_folder, block_manifest_file, log_manifest_file
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.run_folder import committed_stages
from diet_ray.storage.hashes import sha256
from diet_ray.training.workers import Solo
from tests.support.small_run import POOL, config
from tests.support.synthetic import write_log


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A log of four blocks, and the run of its first three."""
    folder = tmp_path_factory.mktemp("made")
    log = write_log(folder / "log", n=300)
    distil_locally(folder / "run", config(log))
    return log, folder / "run"


def read(memory: Path, log: Path, pool: CandidateFile = POOL) -> Inputs:
    return Inputs.read(memory, pool, log=log, block=None, moments=False, on_fetch=None)


def swap(log: Path, other: Path, block: str) -> None:
    """Put the block of another log in the place of the log's own."""
    shutil.rmtree(block_folder(log, block))
    shutil.copytree(block_folder(other, block), block_folder(log, block))


def test_a_log_with_the_same_names_of_blocks_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    log, run = made
    other = write_log(tmp_path / "other", n=300, seed=1)
    with pytest.raises(
        ConfigError, match=r"other: its block 0 is not the 'block-000' that was distilled; name the log"
    ):
        read(run, other)
    with pytest.raises(ConfigError, match=r"other: its block 2 is not the 'block-002'"):
        read(stage_folder(run, 2), other)
    # One block of many, not the last one.
    mixed = Path(shutil.copytree(log, tmp_path / "mixed"))
    swap(mixed, other, "block-001")
    with pytest.raises(ConfigError, match=r"mixed: its block 1 is not the 'block-001'"):
        read(run, mixed)
    # A copy of the log is the log, and so is one that has grown.
    assert read(run, Path(shutil.copytree(log, tmp_path / "copy"))).judged_on.name == "block-003"
    assert read(run, write_log(tmp_path / "longer", n=300, blocks=5)).judged_on.name == "block-003"


def test_fields_that_changed_their_places_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    log, run = made
    turned = Path(shutil.copytree(log, tmp_path / "turned"))
    manifest = LogManifest.model_validate_json(log_manifest_file(turned).read_bytes())
    fields = manifest.log_schema.fields
    schema = manifest.log_schema.model_copy(update={"fields": [fields[1], fields[0], *fields[2:]]})
    log_manifest_file(turned).write_text(manifest.model_copy(update={"log_schema": schema}).model_dump_json())
    with pytest.raises(
        ConfigError, match=r"turned: its schema is not the one that was distilled, key 'fields' differs"
    ):
        read(run, turned)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"key 'fields' differs; resume with the run's own log or start a new run"):
        distil_locally(copy, config(turned), resume=True)


@pytest.mark.parametrize("nulls", [[], ["", "NULL"]])
def test_a_key_that_only_one_of_two_schemas_writes_is_named(
    made: tuple[Path, Path], tmp_path: Path, nulls: list[str]
) -> None:
    """`nulls` is left out of a stored schema where it has its default."""
    log, run = made
    other = Path(shutil.copytree(log, tmp_path / "other"))
    manifest = LogManifest.model_validate_json(log_manifest_file(other).read_bytes())
    schema = manifest.log_schema.model_copy(update={"nulls": nulls})
    log_manifest_file(other).write_text(manifest.model_copy(update={"log_schema": schema}).model_dump_json())
    with pytest.raises(ConfigError, match="key 'nulls' differs; name the log that was distilled"):
        read(run, other)
    assert schema.differing_key(manifest.log_schema) == manifest.log_schema.differing_key(schema) == "nulls"


def test_a_stage_records_the_block_that_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is replaced after the last reading of its rows and before the commit."""
    log, other = write_log(tmp_path / "log", n=300), write_log(tmp_path / "other", n=300, seed=1)
    read_before = sha256(block_manifest_file(log, "block-000"))
    commit = pipeline.Stage.commit

    def replaced(stage: pipeline.Stage, report: None) -> None:
        swap(log, other, "block-000")
        commit(stage, report)

    monkeypatch.setattr(pipeline.Stage, "commit", replaced)
    stream = config(log).model_copy(update={"blocks": 1})
    distil_locally(tmp_path / "run", stream)
    (stage,) = committed_stages(tmp_path / "run")
    assert stage.block_sha256 == read_before
    opened = open_log(log)
    assert block_sha256(opened, opened.blocks[0]) == sha256(block_manifest_file(other, "block-000"))
    with pytest.raises(ConfigError, match=r"its block 0 is not the 'block-000' that was distilled"):
        distil_locally(tmp_path / "run", stream, resume=True)


class TwoCrew(Solo):
    """A worker of two, of which the other has another log."""

    size = 2

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values + values + 1


def test_workers_that_see_different_blocks_do_not_begin(made: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="the workers see different blocks"):
        pipeline._check_crew(open_log(made[0]), TwoCrew(torch.device("cpu")))


def test_a_log_that_grew_is_the_log_that_the_driver_has_seen(made: tuple[Path, Path]) -> None:
    log = open_log(made[0])
    until = log.first(2)
    assert [block.name for block in until.blocks] == ["block-000", "block-001"]
    assert until.checksums == log.checksums[:2]
    assert len(pipeline.blocks_to_distil(until, config(log.path))) == 1
