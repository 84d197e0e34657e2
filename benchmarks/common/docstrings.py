"""The docstrings of the keys of settings classes, for the pages that explain them.

Python keeps no docstring of an attribute, so they are read from the source. pydantic can do this too, but for each class at each start
of each command.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise

from pydantic import BaseModel

from diet_ray.settings import Settings


def explained(kind: type[BaseModel]) -> dict[str, str]:
    """The docstring of each key of `kind` that has one, inherited keys too, on one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Settings):
            found |= _explained(base)
    return found


def _explained(kind: type[Settings]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    assert isinstance(tree.body[0], ast.ClassDef)
    body = tree.body[0].body
    found = {}
    for key, text in pairwise(body):
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(text, ast.Expr):
            found[key.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found
