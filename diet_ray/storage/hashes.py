"""Checksums of files, and content hashes.

A result is stored under the hash of everything on which it depends, so that no other result is ever taken for it.
"""

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
    """Versions of the packages on which the result of a training depends. They are read once: each reading parses files."""
    return {name: version(name) for name in ("diet_ray", "torch", "numpy")}


def content_hash(data: Any) -> str:
    """SHA-256 of plain data, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
