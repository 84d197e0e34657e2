"""Reading typed settings from YAML: one base class, one loader, one kind of error."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from diet_ray.errors import ConfigError, CorruptArtefactError, VersionError, did_you_mean, remedy_of
from diet_ray.kinds import other_config, place_of, told
from diet_ray.links import no_link

YAML_BYTES = 1 << 20
"""Largest YAML file that is read; a pool of a thousand candidates takes a tenth of it."""
JSON_BYTES = 64 << 20
"""Largest manifest that is read; the manifest of a block with 10^9 rows takes a third of it."""

_AGAIN = "restore it from a copy, or make it again"

_SHOWN = 10
"""Mistakes in one file that are listed; the others are only counted."""

_KEYS_SHOWN = 20
"""Most keys that are listed beside an unknown one."""


class Settings(BaseModel):
    """Base of every config, schema and manifest: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null", defer_build=True)


S = TypeVar("S", bound=Settings)

Metric = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A figure that may be undefined: nan here, null in JSON, which has no nan."""


def load_yaml(kind: type[S], path: str | Path, **overrides: Any) -> S:
    """Read a YAML file (safe load) into the settings class `kind`; `overrides` replace top-level keys.

    Raises:
        ConfigError: the file is missing, is not YAML, or has an unknown, missing or invalid key, which the message names, or it is a
            file of another kind.
    """
    path = Path(path)
    if path.is_dir():
        place = place_of(path)
        what = f": {told(path, place)}" if place else ""
        raise ConfigError(f"{path}: is a folder, not a YAML file{what}")
    try:
        with path.open("rb") as file:
            data = file.read(YAML_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); it must be a YAML file in UTF-8") from error
    if len(data) > YAML_BYTES:
        raise ConfigError(f"{path}: has more than {YAML_BYTES >> 20} MiB, too much for a config; give the right file")
    try:
        # The loader is a safe one: it makes plain data and nothing else.
        raw = yaml.load(text, _Loader)  # noqa: S506
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply; write it flatter") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({error}); correct it there") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # For some values that look like a date or a number, PyYAML raises Python's own errors.
        raise ConfigError(f"{path}: is not valid YAML (a value is no date or number: {error}); quote it") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, not {type(raw).__name__}")
    other = other_config(kind.__name__, kind.model_fields, raw, path)
    if other:
        raise ConfigError(other)
    return parse(kind, {**raw, **overrides}, where=str(path))


def parse(kind: type[S], raw: Any, *, where: str) -> S:
    """Validate plain data as `kind`. Raises ConfigError, whose message starts with `where` and names each key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A default that is made from other keys fails with them: their errors say all.
        problems = [
            problem
            for problem in error.errors(include_url=False, include_input=True)
            if problem["type"] != "default_factory_not_called"
        ]
        lines = [_explain(kind, dict(problem)) for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"and {len(problems) - _SHOWN} more")
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def parse_json(kind: type[S], path: Path) -> S:
    """Read a manifest that diet_ray wrote. Raises what `parse_json_with_checksum` does."""
    return parse_json_with_checksum(kind, path)[0]


def parse_json_with_checksum(kind: type[S], path: Path) -> tuple[S, str]:
    """Read a manifest that diet_ray wrote, and the hexadecimal SHA-256 of the bytes that were read.

    Raises:
        CorruptArtefactError: the file, which the message names, is missing, damaged or a link.
        VersionError: its key `format` is not the one that `kind` allows.
    """
    try:
        # Reading a pipe or a device could wait forever.
        if path.exists() and not path.is_file():
            raise CorruptArtefactError(f"{path}: not a file; {_AGAIN}")
        with open(path, "rb", opener=no_link) as file:
            data = file.read(JSON_BYTES + 1)
        if len(data) > JSON_BYTES:
            raise CorruptArtefactError(
                f"{path}: has more than {JSON_BYTES >> 20} MiB, too much for a manifest; {_AGAIN}"
            )
    except FileNotFoundError as error:
        raise CorruptArtefactError(
            f"{path}: missing; the folder that it describes was not completely written: make it again"
        ) from error
    except OSError as error:
        raise CorruptArtefactError(
            f"{path}: cannot be read ({error.strerror or error}); {remedy_of(error) or _AGAIN}"
        ) from error
    return parse_json_bytes(kind, data, where=str(path)), hashlib.sha256(data).hexdigest()


def parse_json_bytes(kind: type[S], data: bytes, *, where: str) -> S:
    """The content of a manifest that diet_ray wrote; `where` it was read stands in messages.

    Raises:
        CorruptArtefactError: it is damaged.
        VersionError: its key `format` is not the one that `kind` allows.
    """
    try:
        return kind.model_validate_json(data)
    except ValueError as error:  # pydantic's ValidationError is one
        # Another format may differ in other keys too: the message must name the format.
        for problem in error.errors(include_url=False) if isinstance(error, ValidationError) else []:
            if problem["loc"] == ("format",) and problem["type"] == "literal_error":
                raise VersionError(
                    f"{where}: format {_brief(problem['input'])}, this release reads {problem['ctx']['expected']}: make it again"
                ) from error
        raise CorruptArtefactError(f"{where}: not a valid {kind.__name__} ({_first(error)}); {_AGAIN}") from error


def write_json(path: Path, settings: Settings) -> None:
    """Write a manifest so that no reader ever sees half of it."""
    write_whole(path, (settings.model_dump_json(indent=2) + "\n").encode())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a temporary file, to be written in the body, that becomes `path` after it: whole and synced, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # an interrupted process left it, or somebody laid a link there
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file that appears whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb", opener=no_link) as file:
        file.write(content)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: PyYAML itself would keep the last one silently.

    Aliases are refused, because a few of them can stand for more data than any memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                "aliases (*name) are not read here; write the value out",
                self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"key {key.value!r} is given twice; keep one", key.start_mark
                        )
                    keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _plain_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    """A number, unless YAML 1.1 reads it as nobody means it: 007 in base 8, 1:30 in base 60."""
    text = node.value.lstrip("+-")
    base = 60 if ":" in text else 8 if re.fullmatch(r"0[0-9_]+", text) else None
    if base:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{node.value} is a number in base {base} for YAML; quote it, or write it plainly",
            node.start_mark,
        )
    if node.tag.endswith(":float"):
        return loader.construct_yaml_float(node)
    return loader.construct_yaml_int(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _plain_number)

# `1e-6` and `1.5e3` are numbers in YAML 1.2 and JSON; in YAML 1.1, which PyYAML reads, they are texts: one has no dot, the other no sign.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), [*"-+.0123456789"]
)


def _first(error: Exception) -> str:
    """The problem in one line; of pydantic's errors the first one, with its key."""
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        key = _key(problem["loc"])
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        return f"{key}: {_cut(problem['msg'])}{more}"
    return str(error)


def _key(place: tuple[Any, ...]) -> str:
    return ".".join(str(part)[:80] for part in place) or "(top level)"


def _explain(kind: type[BaseModel], problem: dict[str, Any]) -> str:
    # Where a list holds several kinds of settings, pydantic puts the kind after the number. It is not a key of the file.
    loc, kinds = problem["loc"], _kinds(kind)
    key = _key(tuple(part for i, part in enumerate(loc) if not (i and part in kinds and isinstance(loc[i - 1], int))))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_instead(kind, key)}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    if problem["type"] == "union_tag_not_found":
        return f"missing key {key + '.kind'!r}"
    if problem["type"] == "union_tag_invalid":
        tags = problem["ctx"]["expected_tags"]
        return f"key {key + '.kind'!r}: must be one of {tags} (got {_brief(problem['ctx']['tag'])})"
    shown = "" if isinstance(problem["input"], dict) else f" (got {_brief(problem['input'])})"
    place = f"key {key!r}: " if loc else ""  # what is wrong between keys names them itself
    return f"{place}{_cut(problem['msg'].removeprefix('Value error, '))}{shown}"


def _brief(value: Any) -> str:
    """The given value, cut to a readable length."""
    try:
        shown = repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        shown = f"a long {type(value).__name__}"
    return _cut(shown, 200)


def _cut(text: str, longest: int = 1000) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _instead(kind: type[BaseModel], key: str) -> str:
    """What to do about an unknown key: the place where a key of this name belongs, or a name that is spelled alike."""
    *above, name = key.split(".")
    places = _places(kind)
    elsewhere = [place for place in places if place.split(".")[-1] == name]
    if elsewhere:
        under, _, _ = elsewhere[0].rpartition(".")
        return f": it belongs under {under!r}" if under else ": it belongs at the top level, not indented"
    beside = {place.split(".")[-1] for place in places if place.split(".")[:-1] == above}
    for names in (beside, {place.split(".")[-1] for place in places}):
        if hint := did_you_mean(name, names):
            return hint
    there = f" of {'.'.join(above)!r}" if above else ""
    return (
        f"; remove it (the keys{there} are {', '.join(sorted(beside))})"
        if 0 < len(beside) <= _KEYS_SHOWN
        else "; remove it"
    )


def _places(kind: type[BaseModel]) -> list[str]:
    """The dotted keys of a settings class and of the settings classes nested in it, outer ones first. A class within itself counts once."""
    places = list[str]()
    level: list[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]]] = [("", kind, (kind,))]
    while level:
        below: list[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]]] = []
        for before, part, above in level:
            for name, field in part.model_fields.items():
                places.append(before + name)
                inner = [other for other in _settings_in(field.annotation) if other not in above]
                below += [(f"{before}{name}.", other, (*above, other)) for other in inner]
        level = below
    return places


def _settings_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a key's type names, also within lists and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in _settings_in(inner)]


def _kinds(kind: type[BaseModel]) -> set[str]:
    """The values of the key `kind` that distinguish the settings classes nested in one."""
    fields = [part.model_fields["kind"] for part in _nested(kind) if "kind" in part.model_fields]
    return {value for field in fields for value in getattr(field.annotation, "__args__", ()) if isinstance(value, str)}


def _nested(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """A settings class and those of its keys, each once."""
    nested = [kind]
    for part in nested:  # grows meanwhile
        inner = [other for field in part.model_fields.values() for other in _settings_in(field.annotation)]
        nested += [other for other in dict.fromkeys(inner) if other not in nested]
    return nested
