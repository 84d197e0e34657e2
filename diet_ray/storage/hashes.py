"""Checksums of files, and content hashes.

A result is stored under the hash of everything on which it depends, so that no other result is ever taken for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("diet_ray", "torch", "ray", "numpy", "pyarrow", "safetensors", "pydantic")
"""The packages on which the bytes of a run folder's files depend."""


@cache
def versions() -> dict[str, str]:
    """Versions of the packages on which the result of a training depends. They are read once: each reading parses files."""
    return versions_of(("diet_ray", "torch", "numpy"))


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package."""
    from importlib.metadata import version  # its own imports take longer than `diet-ray --help` should

    return {name: version(name) for name in packages}


def other_versions(begun: dict[str, str], now: dict[str, str]) -> str | None:
    """Which packages had other versions, such as `torch 2.13.0, now torch 2.14.0`; None where none had.

    Packages that an earlier release did not record cannot be compared.
    """
    other = [name for name in begun if begun[name] != now.get(name)]
    had, has = (", ".join(f"{name} {versions.get(name)}" for name in other) for versions in (begun, now))
    return f"{had}, now {has}" if other else None


def content_hash(data: Any) -> str:
    """SHA-256 of plain data, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
