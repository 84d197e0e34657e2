from pathlib import Path
from typing import Any

import pytest
import yaml

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.settings import load_yaml, parse


def test_the_log_alone_is_enough_and_defaults_agree() -> None:
    config = parse(StreamConfig, {"log": "somewhere"}, where="x")
    assert config.budget.ratio == 0.01
    assert config.refine.window <= config.student.steps
    assert config.reference.holdout > 0
    text = config.model_dump_json()
    assert StreamConfig.model_validate_json(text).model_dump_json() == text


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"log": None}, ["log"]),
    ({"budget": {"ratio": 0.1, "cap": 10}}, ["budget", "ratio", "cap"]),
    ({"budget": {}}, ["budget", "either ratio or cap"]),
    ({"budget": {"ratio": 1.5}}, ["budget.ratio"]),
    ({"budget": {"ratio": 0}}, ["budget.ratio"]),
    ({"budget": {"cap": 0}}, ["budget.cap"]),
    ({"reference": {"nets": [{"name": "r", "arch": "dnn", "adapter": True}]}}, ["reference.nets", "adapter"]),
    (
        {"reference": {"nets": [{"name": "r", "arch": "dnn", "adapter": False, "drop_fields": ["a"]}]}},
        ["reference.nets", "drop_fields"],
    ),
    (
        {"reference": {"nets": [{"name": "r", "arch": "dnnn", "adapter": False}]}},
        ["reference.nets", "did you mean 'dnn'"],
    ),
    ({"reference": {"holdout": 1.0}}, ["reference.holdout"]),
    ({"reference": {"holdout": 0.0}, "refine": {"rounds": 1}}, ["refine.rounds", "reference.holdout"]),
    ({"refine": {"rounds": 1, "window": 201}}, ["refine.window (201)", "student.steps (200)"]),
    ({"student": {"steps": 10}, "refine": {"rounds": 1}}, ["refine.window (20)", "student.steps (10)"]),
    (
        {"reference": {"table": {"shards": 3}}, "cluster": {"workers": 2}},
        ["reference.table.shards", "3 shards for 2 workers (cluster.workers)", "auto"],
    ),
    ({"reference": {"table": {"shards": 2}}}, ["reference.table.shards", "2 shards for 1 workers"]),
    (
        {"reference": {"table": {"on": "mmap"}}, "cluster": {"workers": 2}},
        ["reference.table.on", "set reference.table.shards to auto"],
    ),
    ({"refine": {"windw": 3}}, ["refine.windw", "did you mean 'window'"]),
    ({"refine": {"proxies": []}}, ["refine.proxies"]),
    ({"refine": {"uniform_share": 1.01}}, ["refine.uniform_share"]),
    ({"refine": {"proxies": [{"name": "p", "arch": "fm", "params": {"hiden": [2]}}]}}, ["refine.proxies.0", "hiden"]),
    ({"select": {"strategy": "best"}}, ["select.strategy", "proportional"]),
    ({"select": {"ccs_strata": 1}}, ["select.ccs_strata"]),
    ({"align": {"relabel": 1.1}}, ["align.relabel"]),
    ({"cluster": {"workers": 0}}, ["cluster.workers"]),
    ({"student": {"lr": 0}}, ["student.lr"]),
    ({"blocks": 0}, ["blocks"]),
    ({"seed": -1}, ["seed"]),
    ({"sede": 1}, ["sede", "did you mean 'seed'"]),
]


@pytest.mark.parametrize(("raw", "words"), REFUSED, ids=[str(sorted(raw)) + words[0] for raw, words in REFUSED])
def test_a_contradiction_names_its_key(raw: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"log": "somewhere", **raw}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_yaml(StreamConfig, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in words), message
    with pytest.raises(ConfigError, match=r"^here: "):
        parse(StreamConfig, {"log": "somewhere", **raw}, where="here")


def test_no_rounds_need_no_window_and_no_holdout() -> None:
    raw = {"log": "x", "student": {"steps": 5}, "reference": {"holdout": 0}}
    assert parse(StreamConfig, raw, where="x").refine.rounds == 0


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "key",
    [
        "reference.lr",
        "reference.embedding_lr",
        "student.lr",
        "refine.delta_lr",
        "refine.logit_lr",
        "align.relabel",
        "budget.ratio",
        "cluster.cpus_per_worker",
        "cluster.cpus_per_scorer",
    ],
)
def test_rates_are_finite(key: str, value: float) -> None:
    part, name = key.split(".")
    with pytest.raises(ConfigError, match=key):
        parse(StreamConfig, {"log": "x", part: {name: value}}, where="x")
