"""A file or folder in the wrong place: one line says what it is and which command takes it, before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.kinds import place_of
from diet_ray.memory.layout import stage_folder

FILES = {
    "pool.yaml": "candidates: [{name: a, arch: lr}, {name: b, arch: fm}]",
    "run.yaml": "log: logs/mine\nseed: 3",
    "bench.yaml": "stream: {log: logs/mine}\ncandidates: pool.yaml",
    "schema.yaml": "name: x\ntime: {column: t}\nuser: u\ntasks: [y]\n"
    "fields: [{name: u, kind: hashed, buckets: 8}, {name: v, kind: vocabulary}]",
}


@pytest.fixture
def place(tmp_path: Path, finished: Path, log: Path) -> dict[str, Path]:
    """Paths by name: the files, a run, a log, a stage, raw files, and the folders that other commands make."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, marks in {
        "SWEPT": "leaderboard.json",
        "RACED": "race.json",
        "BENCH": "live.json",
        "EXPORTED": "embeddings.safetensors",
        "events": "day=1/part.parquet",
    }.items():
        (tmp_path / name / marks).parent.mkdir(parents=True)
        (tmp_path / name / marks).write_text("")
    made = {name: tmp_path / name for name in (*FILES, "SWEPT", "RACED", "BENCH", "EXPORTED", "events")}
    return {**made, "RUN": finished, "LOG": log, "STAGE": stage_folder(finished, 0), "NEW": tmp_path / "new"}


def refused(words: str, place: dict[str, Path]) -> str:
    """The one line that a command says."""
    done = CliRunner().invoke(app, ["--local", *(str(place.get(word, word)) for word in words.split())])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.output
    assert not place["NEW"].exists()
    return done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "distill --config pool.yaml --out NEW",
            "is a pool of candidates, not the config of a run; it is for `diet-ray sweep",
        ),
        (
            "distill --config schema.yaml --out NEW",
            "is the schema of a log, not the config of a run; it is for `diet-ray ingest",
        ),
        ("distill --config bench.yaml --out NEW", "is the config of a fidelity bench, not the config of a run"),
        ("sweep --memory RUN --candidates run.yaml --out NEW", "is the config of a run, not a pool of candidates"),
        ("race --memory RUN --candidates schema.yaml --out NEW", "is the schema of a log, not a pool of candidates"),
        ("fidelity --config pool.yaml --out NEW", "is a pool of candidates, not the config of a fidelity bench"),
        (
            "fidelity --config run.yaml --out NEW",
            "; for a bench, copy it and indent its keys below a line `stream:`",
        ),
        ("distill --config events --out NEW", "events: is a folder, not a YAML file: raw data; `diet-ray schema"),
        ("ingest pool.yaml --from events --by day --out NEW", "is a pool of candidates, not the schema of a log"),
        ("simulate --config run.yaml --out NEW", "is the config of a run; it is for `diet-ray distill --config"),
    ],
)
def test_a_file_of_another_kind(words: str, said: str, place: dict[str, Path]) -> None:
    assert said in refused(words, place)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspect events", "is no run or stage or log; it is raw data; `diet-ray schema"),
        ("inspect SWEPT", "it is what `diet-ray sweep` made; open"),
        ("status LOG", "is no run; it is a log, for `diet-ray inspect"),
        ("status STAGE", "is no run; it is a stage of a run"),
        ("gc RACED", "is no run; it is what `diet-ray race` made"),
        ("verify BENCH", "is no run or log; it is what `diet-ray fidelity` made"),
        ("export LOG --out NEW", "is no run or stage; it is a log"),
        ("sweep --memory EXPORTED --out NEW", "is no run or stage; it is what `diet-ray export` made"),
        ("race --memory RUN --log RUN --out NEW", "is no log; it is a run, for `diet-ray status"),
        ("cost --memory LOG", "is no run; it is a log"),
    ],
)
def test_a_folder_of_another_kind(words: str, said: str, place: dict[str, Path]) -> None:
    assert said in refused(words, place)


def test_a_run_on_raw_files_and_a_log_without_its_manifest(place: dict[str, Path], tmp_path: Path) -> None:
    place["run.yaml"].write_text(f"log: {place['events']}")
    assert "is no log; it is raw data" in refused("distill --config run.yaml --out NEW", place)
    (tmp_path / "broken" / "blocks").mkdir(parents=True)
    (tmp_path / "broken" / "vocabulary.parquet").write_text("")
    assert place_of(tmp_path / "broken") == "log"  # it is damaged, which `verify` must tell
    (tmp_path / "notes" / "old").mkdir(parents=True)
    assert place_of(tmp_path / "notes") is None


def test_a_config_with_more_keys_is_told_the_key(place: dict[str, Path]) -> None:
    place["run.yaml"].write_text("log: x\nmethods: []")
    assert "unknown key 'log': it belongs under 'stream'" in refused("fidelity --config run.yaml --out NEW", place)


def test_the_path_is_looked_at_before_the_options(place: dict[str, Path], tmp_path: Path) -> None:
    assert "nope: no such file or folder" in refused("ingest schema.yaml --from nope --out NEW", place)
    assert "--from: missing" in refused("ingest schema.yaml --out NEW", place)
    assert "--by: missing" in refused("ingest schema.yaml --from events --out NEW", place)


@pytest.mark.parametrize("script", ["make_events.py", "train_your_own.py"])
@pytest.mark.parametrize("given", [[], ["--help"], ["a", "b", "c"]])
def test_examples_print_their_usage_before_they_import(script: str, given: list[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / script
    code = (
        f"import runpy, sys\nsys.argv = [{str(path)!r}, *{given!r}]\n"
        f"try:\n    runpy.run_path({str(path)!r})\n"
        "finally:\n    print(*({'numpy', 'pyarrow', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr.startswith(f"usage: python examples/{script} ")
