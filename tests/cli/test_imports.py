"""What a command does not need it does not import: torch, Ray and pandas take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HEAVY = ("pandas", "ray", "torch")


def imported_by(words: list[str], *, code: int, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of the heavy packages a fresh process has imported after a command."""
    script = (
        "import sys\nfrom diet_ray.cli import app\n"
        f"try:\n    app({words!r}, prog_name='diet-ray')\n"
        f"finally:\n    print('imported', *(name for name in {heavy} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") <= 1, done.stderr  # no traceback
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("words", ["gc {run}", "verify {run}", "verify {log}", "status {run}", "--json version"])
def test_reading_a_run_or_a_log_imports_nothing_heavy(finished: Path, log: Path, words: str) -> None:
    imported = imported_by(words.format(run=finished, log=log).split(), code=0)
    # pyarrow imports pandas itself with the first array that it makes of Python's values; verify makes some.
    assert imported == [] or (words.startswith("verify") and imported == ["pandas"])


def test_the_state_of_a_run_is_told_without_arrays(finished: Path) -> None:
    assert imported_by(["status", str(finished)], code=0, heavy=("numpy", "pyarrow", *HEAVY)) == []


@pytest.mark.parametrize(
    "words",
    [
        "distill --config {folder}/nope.yaml --out {folder}/run",
        "distill --config {folder}/no_log.yaml --out {folder}/run",
        "distill --config {folder}/bad_key.yaml --out {folder}/run",
        "ingest {folder}/bad_schema.yaml --from {folder} --out {folder}/log",
        "ingest kuairnd --out {folder}/log",
        "ingest movielens --by weak --out {folder}/log",
    ],
)
def test_a_mistake_is_told_before_anything_heavy_is_imported(tmp_path: Path, words: str) -> None:
    for name, content in {
        "no_log.yaml": {"log": str(tmp_path / "nope")},
        "bad_key.yaml": {"log": str(tmp_path), "lgo": 1},
        "bad_schema.yaml": {"name": "x", "fields": 3},
    }.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    assert imported_by(words.format(folder=tmp_path).split(), code=2) == []
