"""The names of sets and starts for people: each its own, none of them a code."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from diet_ray.judge.fidelity.config import MEMORIES, Method
from diet_ray.judge.fidelity.live.config import StartName
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS
from diet_ray.judge.fidelity.names import STARTS, method_name, named
from diet_ray.judge.fidelity.result import CEILING
from diet_ray.judge.fidelity.selections import SELECTIONS


def sensible() -> list[Method]:
    methods = []
    for parts in product(
        ("full", *SELECTIONS, *MEMORIES), ("hard", "soft", "drawn"), ("own", "shared"), ("", "+adapter")
    ):
        try:
            methods.append(Method.model_validate("/".join(parts[:3]) + parts[3]))
        except ValueError:
            continue
    return methods


def test_every_method_has_a_name_of_its_own() -> None:
    methods = sensible()
    names = {method_name(method) for method in methods}
    assert len(names) == len(methods) > 60
    assert not any("/" in name or "drawn" in name for name in names)


def test_every_start_has_a_name_of_its_own() -> None:
    assert set(STARTS) == {*get_args(StartName), "full", SAME_ROWS, OTHER_SEED, BLIND}
    assert len({*STARTS.values()}) == len(STARTS)


@pytest.mark.parametrize(
    ("name", "for_people"),
    [
        ("memory/drawn/shared+adapter", "memory"),
        ("refined/drawn/shared+adapter", "memory, refined"),
        ("random/drawn/shared+adapter", "random rows in its place"),
        ("random/soft/shared", "random rows, soft labels, no adapter"),
        ("random/hard/own", "random rows, hard labels, own table"),
        ("full/hard/own", "full log"),
        ("full/hard/shared+adapter", "full log, the reference's table, adapter"),
        (CEILING, "full log again"),
        ("memory/drawn/shared+adapter @ 0.25%", "memory at 0.25\u00a0%"),
        ("mine/hard/shared+adapter", "mine, hard labels"),
    ],
)
def test_names(name: str, for_people: str) -> None:
    assert named(name) == for_people
