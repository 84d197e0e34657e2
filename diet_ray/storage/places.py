"""Places of files: a path, or the URI of an object store."""

from __future__ import annotations


def is_uri(place: str) -> bool:
    """Whether a place is given as a URI and not as a path."""
    return "://" in place
