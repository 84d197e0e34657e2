"""What a newcomer meets first: the picture, its figures in words, the page on alternatives, and commands that work from a clone."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.docs import alternatives, picture
from benchmarks.docs.figures import Measured, measured

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wins() -> Measured:
    return measured()["complete-journey-live"]


def test_the_picture_and_the_tables_are_those_of_the_figures() -> None:
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.svg(), "run python -m benchmarks.docs.picture"
    text = alternatives.PAGE.read_text(encoding="utf-8")
    assert alternatives.page(text) == text, f"run {alternatives.COMMAND}"


def test_the_picture_can_be_read_on_a_phone_in_light_and_dark() -> None:
    text = picture.PICTURE.read_text(encoding="utf-8")
    width = int(ET.fromstring(text).get("width", "0"))
    assert picture.TEXT * 350 / width >= 12  # pixels, where 350 of 390 are left for the picture
    assert "prefers-color-scheme: dark" in text
    for page, name in (("README.md", "docs/picture.svg"), ("docs/index.md", "picture.svg")):
        assert f"]({name})" in (ROOT / page).read_text(encoding="utf-8")


def test_the_words_of_the_first_screen_are_the_figures(wins: Measured) -> None:
    task = wins.live.tasks[0]
    start = {line.name: line.measured[task][0]["top1_regret"] for line in wins.live.starts}

    def said(value: float) -> str:
        return f"{value:.3f}".lstrip("0")

    words = " ".join(README.split())
    memory, full, blind = start["memory"], start["full log, same rows"], start["blind choice"]
    assert f"the first choice lost {said(memory.value)} nats (0 to {said(memory.high)})" in words
    assert (
        f"same rows {said(full.value)} ({said(full.low)} to {said(full.high)}), a blind one {said(blind.value)}"
        in words
    )
    assert f"{wins.seconds('full') / wins.seconds('memory'):.0f}x less CPU than a backfill" in words


def test_each_word_of_the_method_has_a_line() -> None:
    for word in ("unit", "block", "reference", "soft label", "launch", "live", "backfill", "stage"):
        assert re.search(rf"^\| {word} \| .{{20,130}} \|$", README, flags=re.M), word


def test_installing_is_from_a_clone_and_names_the_small_torch() -> None:
    """diet_ray is on no package index, and PyPI's torch brings gigabytes of CUDA."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    folders = ("diet_ray", "docs", "cluster", "jobs", "examples", "benchmarks")
    paths = [*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    for path in (path for path in paths if path.suffix in (".md", ".py", ".yaml")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install [^\n]*diet_ray\[", text), path
        for extras in re.findall(r"pip install [^\n]*-e '\.\[([a-z,]+)\]'", text):
            assert set(extras.split(",")) <= set(known), f"{path}: {extras}"
    command = next(line for line in README.splitlines() if "'.[demo]'" in line)
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in command
    assert README.index("git clone") < README.index("pip install")


def test_the_pythons_that_are_claimed_are_those_that_ci_tries() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = {line.rsplit(" ", 1)[1] for line in about["classifiers"] if re.search(r":: 3\.\d+$", line)}
    tried = set(re.findall(r" python(3\.\d+)", (ROOT / ".ci/pythons").read_text(encoding="utf-8")))
    assert claimed <= tried | {"3.11"}
    assert all(version in README for version in claimed)
