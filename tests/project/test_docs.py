"""What README and docs tell a reader to run: every shell and Python block, in order and as it stands, in a folder of its own.

Fences say what happens to a block. `bash` and `python` are run; `python` and `yaml` with `title="FILE"` are written to that file. `console`
blocks, whose lines begin with `$`, need a cluster, the network or minutes: they are shown only, and counted here. `text` is output.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from nbclient import NotebookClient
from pydantic import BaseModel
from typer.testing import CliRunner

from benchmarks.common.docstrings import explained
from benchmarks.common.private_ray import environment
from diet_ray.candidates import architectures
from diet_ray.cli import app
from diet_ray.config import LaunchConfig
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.search import SearchedSpec, SweepConfig
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.schema import Schema
from tests.support.watched import run

ROOT = Path(__file__).parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
SHOWN_ONLY = {"README.md": 1, "docs/tutorial.md": 2, "docs/commands.md": 1}
"""Blocks that no test runs, per page. Another one needs a reason."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    title: str | None
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "fence" and token.map:
            kind, _, rest = token.info.partition(" ")
            title = re.fullmatch(r'title="([\w.-]+)"', rest)
            assert bool(rest) == bool(title), f"{page}:{token.map[0] + 1}: {token.info!r}"
            found.append(Block(page, token.map[0] + 1, kind, title[1] if title else None, token.content))
    return found


def pages(part: Any = SITE["nav"]) -> list[str]:
    """The written pages of the site, in its order; the reference is made from docstrings."""
    if isinstance(part, str):
        return [] if part.startswith("reference/") else [f"docs/{part}"]
    return [page for item in (part.values() if isinstance(part, dict) else part) for page in pages(item)]


PAGES = ["README.md", *pages()]
GUIDES = [
    page
    for page in PAGES
    if page not in ("README.md", "docs/tutorial.md") and any(b.kind in ("bash", "python") for b in blocks(page))
]


class Reader:
    """A person who does what a page says, in a folder that looks like a checkout."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        if not (folder / "examples").exists():
            (folder / "examples").symlink_to(ROOT / "examples")
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        # What the commands give is the same without Ray, and there quicker; `tests/cli` runs the same path on a private Ray.
        self.env = environment(home) | {"PATH": path, "DIET_RAY_LOCAL": "1"}

    def do(self, page: str) -> None:
        """Run the blocks of a page."""
        space: dict[str, Any] = {"__name__": "__main__"}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            # What a page registers is not there for the tests after it.
            patch.setattr("diet_ray.candidates.registry._REGISTRY", architectures())
            for block in blocks(page):
                if block.title:
                    Path(block.title).write_text(block.text, encoding="utf-8")
                elif block.kind == "bash":
                    command = ["bash", "-euo", "pipefail", "-c", block.text]
                    done = run(command, env=self.env)
                    assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                elif block.kind == "python":
                    # Empty lines in front, so that a traceback names the line of the page.
                    exec(compile("\n" * block.line + block.text, page, "exec"), space)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def started(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after README; the pages go on from copies of it."""
    folder = tmp_path_factory.mktemp("readme")
    Reader(folder, home).do("README.md")
    return folder


@pytest.mark.timeout(1200)
def test_readme_leads_to_a_leaderboard(started: Path) -> None:
    assert (started / "runs" / "mine" / "stages" / "0002" / "manifest.json").is_file()
    assert (started / "sweeps" / "first" / "leaderboard.csv").is_file()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", GUIDES)
def test_a_page_does_what_it_says(page: str, started: Path, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(started, folder, symlinks=True, copy_function=shutil.copy)
    Reader(folder, home).do(page)


@pytest.mark.timeout(1200)
def test_the_tutorial_on_the_real_log(kuairand_dir: Path, home: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path, home)
    reader.env["KUAIRAND"] = str(kuairand_dir)
    reader.do("docs/tutorial.md")
    assert (tmp_path / "kuairand.html").is_file()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Reader(tmp_path, home).env
    for name in [name for name in os.environ if name not in wanted]:
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), f"{path}: clear the outputs before you commit"
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


def test_every_block_says_what_it_is() -> None:
    shown: dict[str, int] = {}
    for page in PAGES:
        for block in blocks(page):
            where = f"{page}:{block.line}"
            assert block.kind in ("bash", "python", "yaml", "console", "text"), f"{where}: {block.kind!r}"
            assert block.title is None or block.kind in ("python", "yaml"), where
            assert block.kind != "yaml" or isinstance(yaml.safe_load(block.text), dict), f"{where}: no YAML of keys"
            assert (block.kind == "console") == block.text.startswith("$ "), where
            shown[page] = shown.get(page, 0) + (block.kind == "console")
    assert {page: count for page, count in shown.items() if count} == SHOWN_ONLY
    assert len(GUIDES) >= 6  # or the pages have moved and nothing is run


def test_links_lead_somewhere() -> None:
    # Those within docs/ are checked when the site is built, anchors too.
    for page in ("README.md", "CONTRIBUTING.md", "cluster/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_readme_is_short_and_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    named = set(re.findall(r"^\| `diet-ray ([a-z]+)", text, flags=re.M))
    assert named == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_the_example_of_a_command_is_one(name: str) -> None:
    said = " ".join(CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout.replace("│", " ").split())
    words = shlex.split(said.split("Example: diet-ray ")[1].split(" Arguments ")[0].split(" ╭")[0])
    words = [word for word in words[words.index(name) + 1 :] if word not in (">>", "~/.bashrc")]
    # Parsed, not run: an option that is unknown or missing is an error.
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words)


@pytest.mark.parametrize("kind", [LaunchConfig, Schema, SimulateConfig, FidelityConfig, SweepConfig, SearchedSpec])
def test_every_key_is_explained(kind: type[BaseModel]) -> None:
    meaning = explained(kind)
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            test_every_key_is_explained(annotation)  # a group of keys: its class says what it is
        else:
            assert meaning.get(name), f"{kind.__name__}.{name} has no docstring"
