"""Suggestions of Optuna: kept, given again, and not continued by another version of Optuna."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from diet_ray.errors import VersionError
from diet_ray.judge.suggest import Suggest
from tests.judge.test_search import MINE, sweep_of

pytest.importorskip("optuna")


class FakeTrial:
    """As OptunaSearch hands it over: the suggestions are told, and kept as `params`."""

    def __init__(self, point: dict[str, Any]) -> None:
        self.point, self.params = point, {}

    def _give(self, name: str) -> Any:
        self.params[name] = self.point[name]
        return self.point[name]

    def suggest_categorical(self, name: str, options: list[int]) -> Any:
        assert options == [0, 1]
        return self._give(name)

    def suggest_float(self, name: str, low: float, high: float, log: bool = False) -> Any:
        assert (low, high, log) == {"mine.dropout": (0, 0.3, False), "mine.lr_scale": (0.1, 10, True)}[name]
        return self._give(name)


def test_suggestions_are_kept_and_given_again(tmp_path: Path) -> None:
    specs = sweep_of({**MINE, "samples": 2}, {"name": "fm", "arch": "fm"}).candidates
    suggest = Suggest(specs, 3, 2, tmp_path / "suggested.json")
    assert suggest.before() == []
    point = {"mine.hidden": 1, "mine.dropout": 0.25, "mine.lr_scale": 2.0}
    assert suggest(FakeTrial({}))["work"]["spec"]["name"] == "fm"  # what has no space comes first
    work = suggest(FakeTrial(point))["work"]
    assert work["seeds"] == [0, 1]
    assert work["spec"] | {"params": {}} == {
        "name": "mine.000",
        "arch": "dnn",
        "params": {},
        "adapter": True,
        "drop_fields": [],
        "lr_scale": 2.0,
    }
    assert work["spec"]["params"] == {"hidden": [16, 8], "dropout": 0.25, "activation": "gelu"}

    again = Suggest(specs, 3, 2, tmp_path / "suggested.json")
    assert again.before() == [{}, point]
    again(FakeTrial({}))  # interrupted once more, before it has come as far
    assert json.loads((tmp_path / "suggested.json").read_text())["points"] == [{}, point]
    assert Suggest(specs, 4, 2, tmp_path / "suggested.json").before() == []  # another seed is another search


def test_samples_take_turns() -> None:
    specs = sweep_of({**MINE, "samples": 2}, {**MINE, "name": "yours", "samples": 3}).candidates
    names = [name for _, name in Suggest(specs, 0, 1, Path("none")).order]
    assert names == ["mine.000", "yours.000", "mine.001", "yours.001", "yours.002"]


def kept(path: Path, points: int, versions: dict[str, str] | None) -> Suggest:
    """Suggestions of which so many are kept in a file, made by these versions."""
    suggest = Suggest(sweep_of({**MINE, "samples": 3}).candidates, 3, 1, path)
    suggested = {"asked": suggest.asked, "points": [{"mine.dropout": 0.1}] * points}
    path.write_text(json.dumps(suggested if versions is None else {**suggested, "versions": versions}))
    return suggest


def test_another_version_does_not_go_on_with_a_search(tmp_path: Path) -> None:
    path = tmp_path / "suggested.json"
    now = {name: version(name) for name in ("optuna", "ray")}
    with pytest.raises(VersionError) as caught:
        kept(path, 2, {**now, "optuna": "4.5.0"}).before()
    said = f"{path}: begun with optuna 4.5.0, now optuna {now['optuna']}; install those or start a new sweep"
    assert str(caught.value) == said
    assert len(kept(path, 2, now).before()) == 2
    # An earlier release did not record the versions.
    assert len(kept(path, 2, None).before()) == 2


def test_any_version_gives_a_complete_search_again(tmp_path: Path) -> None:
    path, point = tmp_path / "suggested.json", {"mine.hidden": 1, "mine.dropout": 0.25, "mine.lr_scale": 2.0}
    suggest = kept(path, 3, {"optuna": "4.5.0"})
    assert len(suggest.before()) == 3
    suggest(FakeTrial(point))
    assert json.loads(path.read_text())["versions"] == {"optuna": "4.5.0"}


def test_a_new_search_records_the_versions(tmp_path: Path) -> None:
    suggest = Suggest(sweep_of({**MINE, "samples": 3}).candidates, 3, 1, tmp_path / "suggested.json")
    suggest.before()
    suggest(FakeTrial({"mine.hidden": 1, "mine.dropout": 0.25, "mine.lr_scale": 2.0}))
    versions = json.loads((tmp_path / "suggested.json").read_text())["versions"]
    assert versions == {name: version(name) for name in ("optuna", "ray")}
