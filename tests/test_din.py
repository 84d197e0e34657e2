"""DIN: what it does with a history, the fields that it must have, and its way from a log with histories to a leaderboard."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from small_nets import stir
from torch import Tensor

from diet_ray.candidates import Candidate, CandidateSpec, build
from diet_ray.errors import ConfigError

FIELDS = ["user", "past[0]", "past[1]", "past[2]", "item", "hour", "mean"]
DIM = 4


def spec(**more: object) -> CandidateSpec:
    params = {"hidden": [6], "attention_hidden": [5], "target": "item", "sequence": "past"}
    return CandidateSpec.model_validate({"name": "d", "arch": "din", "params": params, **more})


def din(**more: object) -> Candidate:
    model = build(spec(**more), FIELDS, DIM, 2, seed=0)
    stir(model)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, len(FIELDS), DIM, generator=torch.Generator().manual_seed(1))


def test_a_history_is_a_bag_in_which_empty_places_count_nothing(x: Tensor) -> None:
    model = din(adapter=False)
    x[:, 3] = 0
    for order in permutations([1, 2, 3]):
        torch.testing.assert_close(model(x[:, [0, *order, 4, 5, 6]]), model(x))
    # The same without the place at all; and the pooled history of an empty one is the zero vector.
    net = model.net
    torch.testing.assert_close(net.attention(x[:, 4], x[:, 1:4]), net.attention(x[:, 4], x[:, 1:3]))
    assert torch.equal(net.attention(x[:, 4], torch.zeros(5, 3, DIM)), torch.zeros(5, DIM))
    assert not torch.allclose(net.attention(x[:, 4], x[:, 1:3]), net.attention(x[:, 4], x[:, 1:2]))


def test_weights_depend_on_the_target(x: Tensor) -> None:
    net = din().net
    with torch.no_grad():
        q, other = (net.attention(x[row : row + 1, 4], x[:1, 1:2]) for row in (0, 1))
    ratio = other / q
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # one weight for all of a value's numbers
    assert abs(float(ratio[0, 0]) - 1) > 1e-3


def test_an_empty_place_stays_empty_behind_the_adapter(x: Tensor) -> None:
    model = din()
    x[:, 2] = 0
    assert model.adapter is not None
    assert torch.equal(model.adapter(x)[:, 2], torch.zeros(5, DIM))


def test_positions_are_those_after_dropping(x: Tensor) -> None:
    model = din(drop_fields=["user", "past[1]"])
    assert (model.net.target, model.net.begin, model.net.end) == (2, 0, 2)
    changed = x.clone()
    changed[:, [0, 2]] = 9.0
    assert torch.equal(model(x), model(changed))
    changed[:, 3] = 9.0
    assert not torch.allclose(model(x), model(changed))


@pytest.mark.parametrize(
    ("target", "sequence", "dropped", "words"),
    [
        ("itm", "past", [], "target 'itm' is not among its fields; it sees user, past"),
        ("item", "history", [], "sequence 'history' is not among its fields"),
        ("item", "mean", [], "sequence 'mean' is not an unpooled sequence field"),
        ("item", "hour", [], "sequence 'hour' is not an unpooled"),
        ("item", "past[0]", [], r"sequence 'past\[0\]' is not an unpooled"),
        ("past", "past", [], "target 'past' is not a field with one vector"),
        ("item", "past", ["item"], "target 'item' is not among its fields"),
        ("item", "past", ["past"], "sequence 'past' is not among its fields"),
    ],
)
def test_it_must_have_its_fields(target: str, sequence: str, dropped: list[str], words: str) -> None:
    mine = spec(params={"target": target, "sequence": sequence}, drop_fields=dropped)
    with pytest.raises(ConfigError, match=f"candidate 'd', params of 'din': {words}"):
        mine.kept_fields(FIELDS)


def test_it_must_be_told_its_fields() -> None:
    with pytest.raises(ValueError, match="missing key 'target'"):
        CandidateSpec(name="d", arch="din")
