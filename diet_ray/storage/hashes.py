"""Checksums of files, and content hashes: a result is kept under the hash of all on which it depends, so that no other is ever
taken for it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("diet_ray", "torch", "ray", "numpy", "pyarrow", "safetensors")
"""The packages on which the bytes of a run folder's files depend."""


@cache
def versions() -> dict[str, str]:
    """The packages on which what a training finds depends; found once, because every hash asks and it means parsing files."""
    return {name: version(name) for name in ("diet_ray", "torch", "numpy")}


def content_hash(what: Any) -> str:
    """SHA-256 of plain data, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
