"""Reading typed settings from YAML: one base class, one loader, one kind of error."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from diet_ray.errors import ConfigError, CorruptArtefactError, VersionError


class Settings(BaseModel):
    """Base of every config, schema and manifest: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)

Metric = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A figure that may be undefined: nan here, null in JSON, which has no nan."""


def load_yaml(kind: type[S], path: str | Path, **overrides: Any) -> S:
    """Read a YAML file (safe load) into the settings class `kind`; `overrides` replace top-level keys.

    Raises:
        ConfigError: the file is missing, is not YAML, or has an unknown, missing or invalid key. The message names each.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({error})") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, not {type(raw).__name__}")
    return parse(kind, {**raw, **overrides}, where=str(path))


def parse(kind: type[S], raw: Any, *, where: str) -> S:
    """Validate plain data as `kind`. Raises ConfigError, whose message starts with `where` and names each key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, dict(problem)) for problem in error.errors(include_url=False, include_input=True)]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def parse_json(kind: type[S], path: Path) -> S:
    """Read a manifest that diet_ray wrote.

    Raises:
        CorruptArtefactError: the file, which the message names, is missing or damaged.
        VersionError: its key `format` is not the one that `kind` allows.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptArtefactError(f"{path}: missing; what it should describe was not completely written") from error
    except (OSError, ValidationError) as error:
        # Another format may differ in any other key as well: it is the format that must be named.
        for problem in error.errors(include_url=False) if isinstance(error, ValidationError) else []:
            if problem["loc"] == ("format",):
                raise VersionError(
                    f"{path}: format {problem['input']}, this release reads {problem['ctx']['expected']}: make it again"
                ) from error
        raise CorruptArtefactError(f"{path}: not a valid {kind.__name__} ({str(error).splitlines()[0]})") from error


def write_json(path: Path, settings: Settings) -> None:
    """Write a manifest so that no reader ever sees half of it: a temporary file, fsync, then an atomic rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(settings.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _explain(kind: type[BaseModel], problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(kind), n=1)
        return f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    return f"key {key!r}: {problem['msg']}" + (
        f" (got {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
    )


def _all_keys(kind: type[BaseModel]) -> set[str]:
    """The keys of a settings class and of the settings classes nested in it, for spelling suggestions."""
    keys: set[str] = set()
    stack: list[Any] = [kind]
    while stack:
        part = stack.pop()
        if isinstance(part, type) and issubclass(part, BaseModel):
            for name, field in part.model_fields.items():
                if name not in keys:
                    keys.add(name)
                    stack.append(field.annotation)
        else:
            stack.extend(getattr(part, "__args__", ()))
    return keys
