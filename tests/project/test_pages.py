"""Every page that a command writes, as those who open it meet it: on a phone, on a desktop, on a dark screen, and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diet_ray import __version__
from diet_ray.report.page import COLOURS
from tests.support.browser import measure, require_browser
from tests.support.outline import Outline
from tests.support.pages import PAGES

PHONE, DESKTOP = 390, 1280
LEAST = 11
"""Pixels that letters are high, at least."""
PLOT_ON_A_PHONE = PHONE - 2 * 16
"""Pixels that the page's margins leave to a plot."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page, made once."""
    return {name: write(tmp_path_factory.mktemp(name.replace(" ", "-"))) for name, write in PAGES.items()}


@pytest.fixture(params=sorted(PAGES))
def page(request: pytest.FixtureRequest, written: dict[str, Path]) -> str:
    return written[request.param].read_text(encoding="utf-8")


def test_it_needs_nothing_else(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", page)


def test_the_verdict_is_first_then_the_picture_then_what_is_folded(page: str) -> None:
    places = [page.index(part) for part in ('<p class="verdict">', "<svg ", "<details>", "<table")]
    assert places == sorted(places)
    outline = Outline(page)
    depth = 0
    for tag in re.findall(r"<(/?details|table)\b", page):
        depth += {"details": 1, "/details": -1}.get(tag, 0)
        assert tag != "table" or depth == 1, "a table is not folded"
    assert len(outline.title) == 1
    assert outline.title[0] == outline.headings[0]
    assert not re.search(r"(\b\w+\b) \1\b|diet_ray", outline.title[0]), "says a word twice, or only who made it"


def test_the_footer_says_what_made_it_and_from_what(page: str) -> None:
    (footer,) = Outline(page).footer
    assert footer.startswith(f"Made by diet_ray {__version__} from the log ")
    assert re.search(r"from the log (shop|kuairand\S*), seed \d", footer)


def test_it_fits_a_phone(page: str) -> None:
    outline = Outline(page)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in outline.tags
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    # Nothing is wider than the phone unless it may be narrower: `max-width` may be any, `min-width` and `width` may not.
    fixed = re.findall(r"(?<!max-)\b(?:min-)?width: ([\d.]+)(px|rem)", re.sub(r"@media \([^)]*\)", "", styles))
    assert all(float(value) * (16 if unit == "rem" else 1) <= PHONE for value, unit in fixed)
    plots = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert plots
    assert all(set(plot) == {"viewbox", "role", "aria-label"} for plot in plots), "a size of its own, or no text"
    for svg in re.findall(r"<svg .*?</svg>", page, re.S):
        (width,) = re.findall(r'viewBox="0 0 ([\d.]+) ', svg)
        letters = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
        assert min(letters) * PLOT_ON_A_PHONE / float(width) >= LEAST


def test_every_colour_has_a_twin_for_a_dark_screen(page: str) -> None:
    for svg in re.findall(r"<svg .*?</svg>", page, re.S):
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert {*re.findall(r"var\(--(\w+)\)", svg)} <= {*COLOURS}
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_no_two_things_have_one_id(page: str) -> None:
    ids = [attrs["id"] for _, attrs in Outline(page).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(used) <= set(ids)


@pytest.mark.parametrize("name", ["inspect", "sweep"])
def test_the_same_result_gives_the_same_bytes(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    again = PAGES[name](tmp_path)
    assert again.read_bytes() == written[name].read_bytes()
    for plot in tmp_path.glob("*.svg"):
        assert plot.read_bytes() == (written[name].parent / plot.name).read_bytes()


def test_colours_can_be_read_on_their_ground() -> None:
    """Text at least at the contrast 4.5 of WCAG AA, marks at 3; the rule is but a hint."""
    for mode in (0, 1):
        paper = COLOURS["paper"][mode]
        least = {
            name: 4.5 if name in ("ink", "quiet", "link") else 3.0 for name in COLOURS if name not in ("paper", "rule")
        }
        assert {name for name, contrast in least.items() if _contrast(COLOURS[name][mode], paper) < contrast} == set()


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(scheme: str, written: dict[str, Path], tmp_path: Path) -> None:
    browser = require_browser()
    pages = {}
    for name, path in written.items():
        for width in (PHONE, DESKTOP):
            copy = tmp_path / f"{name.replace(' ', '-')}-{width}.html"
            copy.write_bytes(path.read_bytes())
            pages[copy] = width
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    ink, paper = (_rgb(COLOURS[name][scheme == "dark"]) for name in ("ink", "paper"))
    for path, found in measure(browser, tmp_path, pages, *dark).items():
        width = pages[path]
        assert found["scroll"] <= width, f"{path.stem}: scrolls sideways"
        assert all(right <= width for _, right in found["plots"]), f"{path.stem}: a plot is cut off"
        assert min(found["letters"]) >= LEAST, f"{path.stem}: letters of a plot are too small"
        assert min(found["small"]) >= LEAST, f"{path.stem}: text is too small"
        assert found["cut"] == [], f"{path.stem}: text of a plot is cut off"
        assert (found["ink"], found["paper"]) == (ink, paper)
        assert set(found["plotInk"]) == {ink}, f"{path.stem}: a plot does not follow the screen"
        if width == PHONE:
            assert all(plot >= PLOT_ON_A_PHONE - 1 for plot, _ in found["plots"]), f"{path.stem}: a plot is narrow"


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))})"
