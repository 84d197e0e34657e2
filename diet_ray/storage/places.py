"""."""

from __future__ import annotations
from pathlib import Path


def is_uri(place: str) -> bool:
    """Whether a place is given as a URI and not as a path."""
    return "://" in place
