"""The tables of docs/settings.md are those of the classes that check the files."""

import re

import pytest

from benchmarks.docs.settings import COMMAND, FILES, PAGE, keys_of, page

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = {key: cells for key, *cells in re.findall(r"^\| `([^`]+)` \| (.+?) \| (.*?) \| ", TEXT, flags=re.M)}


def test_the_page_is_that_of_the_code() -> None:
    assert page(TEXT) == TEXT, f"run {COMMAND}"


@pytest.mark.parametrize("name", FILES)
def test_every_key_has_its_advice_and_no_other(name: str) -> None:
    model, about = FILES[name]
    keys = [key for key, _, meaning in keys_of(model) if meaning]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(about), "add the key to benchmarks/docs/advice.py"


@pytest.mark.parametrize(
    ("key", "default", "unit"),
    [
        ("log", "**required**", ""),
        ("reference.lr", "`0.001`", ""),
        ("reference.nets", "`lr`, `dnn`, `dcnv2`", ""),
        ("budget.ratio", "`0.01`", "share of rows"),  # of the group's own default, not of its class
        ("budget.cap", "none", "units"),
        ("time.unit", "`timestamp`", ""),
        ("fields[].buckets", "**required**", "buckets"),
        ("candidates[].adapter", "`true`", ""),
        ("trackers.mlflow.experiment", "`diet-ray`", ""),
    ],
)
def test_a_row(key: str, default: str, unit: str) -> None:
    assert ROWS[key] == [default, unit]
