"""Every key of the files that a user writes, as tables in docs/settings.md: defaults and meaning from the classes that check the files.

python -m benchmarks.docs.settings
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from benchmarks.common.docstrings import explained
from benchmarks.common.tables import filled, markdown
from benchmarks.docs import advice
from diet_ray.config import LaunchConfig
from diet_ray.judge.search import SweepConfig
from diet_ray.schema import Schema

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
COMMAND = "python -m benchmarks.docs.settings"
FILES: dict[str, tuple[type[BaseModel], dict[str, tuple[str, str]]]] = {
    "run": (LaunchConfig, advice.RUN),
    "schema": (Schema, advice.SCHEMA),
    "candidates": (SweepConfig, advice.POOL),
}
"""The tables by the names of their marks: the class of the file, and what it does not say about its keys."""

LISTS_OF_THEIR_OWN = ("fields", "candidates")
"""Lists whose items are written by hand. Keys of the nets in other lists are those of a candidate."""


def keys_of(model: type[BaseModel], given: Any = None, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key below a class: its dotted name, default and meaning, in the order of the class.

    Args:
        model: the class.
        given: the instance that is the default of a group; a group may set other defaults than its class.
        before: what stands before the names.
    """
    meaning = explained(model)
    for name, field in model.model_fields.items():
        key, default = f"{before}{name}", _default(field) if given is None else getattr(given, name)
        groups, several = _groups(field.annotation)
        if not groups:
            yield key, _shown(default), meaning.get(name, "")
        elif several:
            yield key, _shown(default), meaning.get(name, "")
            if name in LISTS_OF_THEIR_OWN:
                seen: set[str] = set()
                for group in groups:  # the kinds of a field share keys
                    lines = [line for line in keys_of(group, before=f"{key}[].") if line[0] not in seen]
                    seen |= {line[0] for line in lines}
                    yield from lines
        else:
            yield from keys_of(groups[0], default if isinstance(default, BaseModel) else None, f"{key}.")


def table(name: str) -> str:
    """One of the tables, in Markdown.

    Raises:
        KeyError: a key has no line in `advice`.
    """
    model, about = FILES[name]
    rows = []
    for key, default, meaning in keys_of(model):
        unit, when = about[key]
        needed, of_all_kinds = advice.NEEDED.get(key, (default, None))
        rows.append([f"`{key}`", needed, unit, of_all_kinds or meaning, when])
    return markdown(["key", "default", "unit", "what it does", "change it when"], rows)


def page(text: str) -> str:
    """The page with its tables made anew."""
    for name in FILES:
        text = filled(text, name, COMMAND, table(name))
    return text


def _groups(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """The classes of settings in an annotation, and whether it is a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    if get_origin(annotation) is Annotated:
        return _groups(get_args(annotation)[0])
    if get_origin(annotation) in (list, Union, UnionType):
        parts = [group for part in get_args(annotation) for group in _groups(part)[0]]
        return parts, get_origin(annotation) is list
    return [], False


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "**required**"
    if default is None or default == [] or default == {}:
        return "none"
    if isinstance(default, (list, tuple)) and isinstance(default[0], BaseModel):
        return ", ".join(f"`{item.name}`" for item in default)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (list, tuple)):
        return f"`[{', '.join(repr(item) for item in default)}]`"
    return f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
