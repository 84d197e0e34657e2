"""Search spaces: what they mean, what they refuse, and that the same seed draws the same candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diet_ray.candidates import CandidateSpec, default_pool
from diet_ray.errors import ConfigError
from diet_ray.judge.search import SearchedSpec, Space, SweepConfig, rungs
from diet_ray.settings import load_yaml, parse

MINE: dict[str, Any] = {
    "name": "mine",
    "arch": "dnn",
    "params": {"hidden": {"choice": [[8], [16, 8]]}, "dropout": {"uniform": [0, 0.3]}, "activation": "gelu"},
    "lr_scale": {"loguniform": [0.1, 10]},
    "samples": 40,
}


def sweep_of(*candidates: dict[str, Any], **more: Any) -> SweepConfig:
    return parse(SweepConfig, {"candidates": list(candidates), **more}, where="c.yaml")


def test_draws_lie_in_their_spaces_and_fill_them() -> None:
    rng = np.random.default_rng(0)

    def drawn(raw: dict[str, Any], n: int = 4000) -> np.ndarray:
        space = Space.read(raw)
        assert space is not None
        return np.array([space.draw(rng) for _ in range(n)])

    # A mean of 4,000 draws of [0, 1) has deviation sqrt(1 / 12 / 4,000) = 0.0046.
    uniform = drawn({"uniform": [-1, 3]})
    assert -1 <= uniform.min() < -0.98
    assert 2.98 < uniform.max() <= 3
    assert abs(uniform.mean() - 1) < 4 * 0.02
    logs = np.log10(drawn({"loguniform": [0.01, 100]}))
    assert -2 <= logs.min() < -1.98
    assert 1.98 < logs.max() <= 2
    assert abs(logs.mean()) < 4 * 0.02
    assert np.abs(np.bincount(drawn({"randint": [2, 5]}))[2:] / 4000 - 1 / 3).max() < 0.03
    assert set(drawn({"randint": [2, 5]})) == {2, 3, 4}
    assert np.abs(np.unique(drawn({"choice": ["a", "b"]}), return_counts=True)[1] / 4000 - 0.5).max() < 0.035


@pytest.mark.parametrize("plain", [3, [1, 2], {"a": 1, "b": 2}, {"weights": [1, 2]}, "choice"])
def test_plain_values_are_no_spaces(plain: Any) -> None:
    assert Space.read(plain) is None


def test_the_same_seed_draws_the_same_candidates() -> None:
    (spec,) = sweep_of(MINE).candidates
    drawn = spec.drawn(7)
    assert drawn == spec.drawn(7)
    assert [one["name"] for one in drawn] == [f"mine.{number:03d}" for number in range(40)]
    specs = [CandidateSpec.model_validate(one) for one in drawn]
    assert {tuple(one.params["hidden"]) for one in specs} == {(8,), (16, 8)}
    assert all(0 <= one.params["dropout"] <= 0.3 and 0.1 <= one.lr_scale <= 10 for one in specs)
    assert {one.params["activation"] for one in specs} == {"gelu"}
    other = spec.drawn(8)
    assert all(a["params"]["dropout"] != b["params"]["dropout"] for a, b in zip(drawn, other, strict=True))
    # More samples begin with the same ones, and another candidate beside changes nothing.
    (fewer, _) = sweep_of({**MINE, "samples": 5}, {"name": "fm", "arch": "fm"}).candidates
    assert fewer.drawn(7) == drawn[:5]


def test_keys_of_an_own_table_may_be_searched() -> None:
    space = {"embedding_lr": {"loguniform": [1e-4, 1e-2]}, "embedding_dim": {"choice": [4, 8]}, "embedding_l2": 0.1}
    (spec,) = sweep_of({"name": "a", "arch": "fm", "samples": 20, **space}).candidates
    specs = [CandidateSpec.model_validate(candidate) for candidate in spec.drawn(0)]
    assert all(1e-4 <= one.embedding_lr <= 1e-2 and one.embedding_l2 == 0.1 for one in specs if one.embedding_lr)
    assert {one.embedding_dim for one in specs} == {4, 8}


def test_what_is_drawn_twice_is_tried_once() -> None:
    (spec,) = sweep_of(
        {"name": "a", "arch": "dnn", "params": {"hidden": {"choice": [[8], [4]]}}, "samples": 30}
    ).candidates
    assert sorted(one["params"]["hidden"] for one in spec.drawn(0)) == [[4], [8]]


def test_a_plain_pool_is_a_sweep() -> None:
    pool = default_pool()
    config = SweepConfig.of(pool)
    (drawn,) = zip(*(candidate.drawn(0) for candidate in config.candidates), strict=True)
    assert [CandidateSpec.model_validate(one) for one in drawn] == pool.candidates
    assert not config.search.guided


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"params": {"hidden": {"choice": [[8], [0]]}}},
            r"'mine', params of 'dnn': key 'hidden\.0'.*greater than or equal to 1",
        ),
        (
            {"params": {"dropout": {"uniform": [0, 1.5]}}},
            r"'mine', params of 'dnn': key 'dropout'.*less than 1 \(got 1\.5\)",
        ),
        (
            {"params": {"hiden": {"choice": [[8]]}}},
            r"'mine', params of 'dnn': unknown key 'hiden'; known: hidden, activation, dropout",
        ),
        ({"params": {"dropout": {"uniform": [0.3, 0.1]}}}, r"search space of 'dropout': uniform: needs low < high"),
        ({"params": {"dropout": {"uniform": [0.3]}}}, r"search space of 'dropout': uniform: needs two numbers"),
        ({"params": {"hidden": {"choice": []}}}, r"search space of 'hidden': choice: needs a list"),
        ({"params": {"hidden": {"randint": [1, 2.5]}}}, r"search space of 'hidden': randint: needs two whole numbers"),
        ({"lr_scale": {"loguniform": [0, 1]}}, r"search space of 'lr_scale': loguniform: needs 0 < low < high"),
        ({"lr_scale": {"uniform": [-1, 1]}}, r"'mine', lr_scale: must be a number above 0"),
        ({"lr_scale": 0}, r"'mine', lr_scale: must be a number above 0"),
        ({"embedding_lr": {"uniform": [-1, 1]}}, r"'mine', embedding_lr: must be a number above 0"),
        ({"embedding_l2": {"choice": [0, -1]}}, r"'mine', embedding_l2: must be a number of 0 or more"),
        ({"embedding_dim": {"uniform": [4, 8]}}, r"'mine', embedding_dim: must be a whole number above 0"),
        (
            {"params": {"embedding_dim": {"choice": [4]}}},
            r"'mine', params: 'embedding_dim' is also a key beside params",
        ),
        ({"params": {}, "lr_scale": 1, "arch": "dcnv3"}, r"'mine': unknown arch 'dcnv3' \(did you mean 'dcnv2'\?\)"),
        ({"params": {"hiden": [8]}, "lr_scale": 1}, r"'mine'.*unknown key 'hiden' \(did you mean 'hidden'\?\)"),
        ({"sampels": 3}, r"unknown key 'candidates\.0\.sampels' \(did you mean 'samples'\?\)"),
    ],
)
def test_a_mistaken_space_is_a_config_error(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^c\.yaml: .*" + said):
        sweep_of({**MINE, **change})


def test_names_of_samples_are_unique_too() -> None:
    with pytest.raises(ConfigError, match=r"candidate 'mine\.003' is given twice"):
        sweep_of(MINE, {"name": "mine.003", "arch": "fm"})


def test_modules_are_imported_before_the_candidates_are_read(user_code: Path) -> None:
    (user_code / "nets_for_search.py").write_text(
        "import diet_ray\nfrom diet_ray.candidates.dnn import DNN\n"
        "@diet_ray.register_candidate('for-search')\nclass Mine(DNN):\n    pass\n"
    )
    file = user_code / "c.yaml"
    raw = {
        "modules": ["nets_for_search"],
        "candidates": [{"name": "a", "arch": "for-search", "params": {"hidden": [4]}}],
    }
    file.write_text(yaml.safe_dump(raw))
    assert load_yaml(SweepConfig, file).candidates[0].arch == "for-search"
    file.write_text(yaml.safe_dump({**raw, "modules": ["nets_for_serach"]}))
    with pytest.raises(ConfigError, match=r"c\.yaml: key 'modules'.*'nets_for_serach' cannot be imported"):
        load_yaml(SweepConfig, file)


@pytest.mark.parametrize(("steps", "expected"), [(200, [23, 67, 200]), (9, [1, 3, 9]), (10, [2, 4, 10]), (1, [1])])
def test_rungs_are_a_ninth_a_third_and_all(steps: int, expected: list[int]) -> None:
    assert rungs(steps) == expected


def test_a_searched_spec_without_spaces_is_itself() -> None:
    spec = SearchedSpec(name="a", arch="dnn", params={"hidden": [4]}, samples=9)
    assert [one["name"] for one in spec.drawn(0)] == ["a"]
