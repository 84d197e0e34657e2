"""The user's own modules, which register architectures: their import, and the files on which their nets depend."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import all_suffixes
from pathlib import Path

from diet_ray.candidates.process_state import put_back
from diet_ray.errors import one_line


def import_modules(names: Sequence[str], folder: Path) -> None:
    """Import user code that registers architectures; `folder` is searched first. What the import changes in the process is put back.

    Raises:
        ValueError: a module cannot be found, or its import fails; the message names the module and the reason.
    """
    if names and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in names:
        try:
            with put_back(environment=False):
                importlib.import_module(name)
        except (Exception, SystemExit) as error:  # user code may raise anything, and its author must repair it
            why = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"module {name!r} cannot be imported, looked for in {folder} ({why})") from error


def sources(names: Sequence[str]) -> list[Path]:
    """The files on which the nets of imported modules depend: those of the modules, in order, then the user's other modules that they
    import by `import` statements, directly or not, by name.

    For a package it is the `__init__.py`. The user's modules are all that are not installed, and the rest of an installed package of which
    a module is named. diet_ray itself is none of them.
    """
    specs = [importlib.util.find_spec(name) for name in names]
    files = {spec.name: Path(spec.origin) for spec in specs if spec and spec.origin and Path(spec.origin).is_file()}
    helpers: dict[str, Path] = {}
    packages = {name.partition(".")[0] for name in names}
    todo = list(files.items())
    while todo:
        name, file = todo.pop()
        for imported in {part for whole in _imports(name, file) for part in _with_parents(whole)}:
            helper = None if imported in files or imported in helpers else _find(imported)
            top = imported.partition(".")[0]
            if helper and top != "diet_ray" and (top in packages or not _installed(helper)):
                helpers[imported] = helper
                todo.append((imported, helper))
    return [*files.values(), *(helpers[name] for name in sorted(helpers))]


def _imports(name: str, file: Path) -> Iterator[str]:
    """Names of modules that a module may import; `from a import b` may mean the module `a.b`. Its own packages are among them."""
    yield name
    if file.suffix != ".py":
        return
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # it is none that was imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> list[str]:
    """A dotted name and the packages around it, whose `__init__.py` is imported first."""
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts)) if parts[n]]


def _find(name: str) -> Path | None:
    """The file of a module, without importing anything; None for one that is built in, has no file, or does not exist."""
    *above, last = name.split(".")
    for entry in sys.path:
        folder = Path(entry).joinpath(*above)
        for file in (folder / last / "__init__.py", *(folder / f"{last}{suffix}" for suffix in all_suffixes())):
            if file.is_file():
                return file
    return None


@cache
def _installed(file: Path) -> bool:
    """Whether a file comes with Python or with an installed package."""
    places = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    here = file.resolve()
    return bool({"site-packages", "dist-packages"} & set(here.parts)) or any(map(here.is_relative_to, places))
