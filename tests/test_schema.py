from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.errors import ConfigError
from diet_ray.schema import Schema
from diet_ray.settings import load_yaml, parse

PRESETS = sorted((Path(__file__).parents[1] / "diet_ray" / "presets").glob("*_schema.yaml"))


def raw(**changes: Any) -> dict[str, Any]:
    fields = [
        {"name": "a", "kind": "hashed", "buckets": 10},
        {"name": "b", "kind": "vocabulary", "max_values": 3, "separator": "|"},
        {"name": "c", "kind": "numeric", "buckets": 4, "column": "price"},
    ]
    return {"name": "s", "time": {"column": "t"}, "user": "u", "tasks": ["y"], "fields": fields, **changes}


def test_layout_of_ids_and_slots() -> None:
    schema = parse(Schema, raw(), where="x")
    assert (schema.n_fields, schema.n_slots, schema.n_tasks) == (3, 5, 1)
    np.testing.assert_array_equal(schema.field_of_slot, [0, 1, 1, 1, 2])
    np.testing.assert_array_equal(schema.first_static_id, [4, 14, 14, 18])  # 0 padding, 1..3 unknown
    assert schema.columns == ["t", "u", "y", "a", "b", "price"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"kind": "hashed"}, "buckets >= 2"),
        ({"kind": "hashed", "buckets": 1}, "buckets >= 2"),
        ({"kind": "vocabulary", "buckets": 5}, "remove buckets"),
        ({"kind": "numeric", "buckets": 5, "max_values": 2}, "one value"),
        ({"kind": "vocabulary", "transform": "log"}, "transform"),
        ({"kind": "hashed", "buckets": 5, "min_count": 2}, "min_count"),
        ({"kind": "onehot"}, "kind"),
        ({"kind": "vocabulary", "max_values": 0}, "max_values"),
    ],
)
def test_contradictory_fields_are_refused(field: dict[str, Any], words: str) -> None:
    good = {"name": "g", "kind": "vocabulary"}
    with pytest.raises(ConfigError, match=words):
        parse(Schema, raw(fields=[{"name": "f", **field}, good]), where="x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": ["y", "y"]}, "'y' is given twice"),
        ({"tasks": ["price"]}, "both a field and a task"),
        ({"tasks": []}, "tasks"),
        ({"fields": [{"name": "a", "kind": "vocabulary"}]}, "fields"),
        ({"fields": [{"name": "a", "kind": "vocabulary"}] * 2}, "'a' is given twice"),
        ({"time": {"column": "t", "timezone": "Mars/Olympus"}}, "time zone 'Mars/Olympus'"),
        ({"time": {"column": "t", "unit": "minutes"}}, "time.unit"),
    ],
)
def test_contradictory_schemas_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(Schema, raw(**changes), where="x")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_have_no_outcome_among_their_fields(path: Path) -> None:
    schema = load_yaml(Schema, path)
    outcomes = {
        "sales_value",
        "retail_disc",
        "coupon_disc",
        "coupon_match_disc",
        "quantity",
        "on_promotion",
        "play_time_ms",
    }
    outcomes |= {"watch_ratio", "long_view", "profile_stay_time", "comment_stay_time", "is_profile_enter", "date"}
    sources = {field.source for field in schema.fields}
    assert not sources & outcomes
    assert not any(name.startswith("is_") for name in sources)
    assert 5 <= schema.n_fields <= 39


def test_presets_are_found() -> None:
    assert [path.stem for path in PRESETS] == [
        "ali_ads_schema",
        "avazu_schema",
        "complete_journey_schema",
        "criteo_1tb_schema",
        "criteo_kaggle_schema",
        "kuairand_large_schema",
        "kuairand_schema",
        "kuairand_two_tasks_schema",
        "movielens_schema",
        "movielens_users_schema",
        "taobao_schema",
        "tmall_schema",
    ]
