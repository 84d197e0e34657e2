import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.errors import ConfigError
from diet_ray.schema import Schema, places_of
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


ITEM = {"name": "item", "kind": "hashed", "buckets": 5}


def test_layout_of_sequences() -> None:
    seen = {"name": "seen", "kind": "sequence", "of": "item", "length": 3, "pool": "none", "column": "items"}
    mean = {"name": "mean", "kind": "sequence", "of": "item", "length": 2}
    schema = parse(Schema, raw(fields=[seen, ITEM, mean, *raw()["fields"]]), where="x")
    places = ["seen[0]", "seen[1]", "seen[2]"]
    assert schema.field_names == [*places, "item", "mean", "a", "b", "c"]
    assert (schema.n_fields, schema.n_slots) == (8, 11)
    np.testing.assert_array_equal(schema.field_of_slot, [0, 1, 2, 3, 4, 4, 5, 6, 6, 6, 7])
    np.testing.assert_array_equal(schema.first_static_id, [9, 9, 9, 9, 14, 14, 24, 24, 28])
    assert [field.name for field in schema.declared] == ["seen"] * 3 + ["item", "mean", "a", "b", "c"]
    assert [index for index, _ in schema.lenders] == [3, 3, 3, 5, 6, 7]
    assert [field.name for _, field in schema.lenders] == ["item", "item", "item", "a", "b", "c"]
    assert schema.columns == ["t", "u", "y", "items", "item", "mean", "a", "b", "price"]
    names = schema.field_names
    assert [places_of(name, names) for name in ("seen", "seen[1]", "mean", "see")] == [[0, 1, 2], [1], [4], []]
    assert parse(Schema, schema.model_dump(), where="x") == schema


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"of": None}, "needs of"),
        ({"length": 0}, "length >= 1"),
        ({"length": 257}, "length"),
        ({"pool": "max"}, "pool"),
        ({"newest": "middle"}, "newest"),
        ({"of": "itm"}, "no field 'itm'"),
        ({"of": "s"}, "must be a hashed or vocabulary field with one value"),
        ({"of": "b"}, "must be a hashed or vocabulary field with one value"),
        ({"of": "c"}, "must be a hashed or vocabulary field with one value"),
        ({"buckets": 5}, "no buckets of its own; set it on 'item'"),
        ({"max_values": 5}, "no max_values of its own"),
        ({"allow_negative": True}, "no allow_negative of its own"),
        ({"column": "y"}, "both a field and a task"),
        ({"name": "item"}, "'item' is given twice"),
        ({"pool": "none", "name": "s"}, r"'s\[1\]' is given twice"),
        ({"pool": "none", "name": "s", "length": 1}, "has the name of one of its places"),
        ({"pool": "none", "name": "a", "length": 1}, "'a' is given twice"),
        ({"kind": "vocabulary"}, "of belongs to sequences"),
        ({"kind": "vocabulary", "of": None}, "length belongs to sequences"),
        ({"kind": "vocabulary", "of": None, "length": 0, "newest": "first"}, "newest belongs to sequences"),
    ],
)
def test_contradictory_sequences_are_refused(field: dict[str, Any], words: str) -> None:
    good = {"name": "s", "kind": "sequence", "of": "item", "length": 2}
    other = {"name": "s[1]", "kind": "vocabulary"}
    with pytest.raises(ConfigError, match=words):
        parse(Schema, raw(fields=[ITEM, {**good, **field}, other, *raw()["fields"]]), where="x")


def test_sequences_do_not_make_a_row_endless() -> None:
    many = [{"name": f"s{i}", "kind": "sequence", "of": "item", "length": 256, "pool": "none"} for i in range(16)]
    assert parse(Schema, raw(fields=[ITEM, *many[:15]]), where="x").n_fields == 15 * 256 + 1
    with pytest.raises(ConfigError, match="4097 fields, each place of a sequence counted"):
        parse(Schema, raw(fields=[ITEM, *many]), where="x")


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


def test_a_kind_is_named_where_it_is_missing_or_unknown() -> None:
    good = {"name": "g", "kind": "vocabulary"}
    with pytest.raises(ConfigError, match=r"missing key 'fields\.0\.kind'"):
        parse(Schema, raw(fields=[{"name": "f"}, good]), where="x")
    with pytest.raises(ConfigError, match=r"key 'fields\.0\.kind': must be one of 'hashed', .* \(got 'onehot'\)"):
        parse(Schema, raw(fields=[{"name": "f", "kind": "onehot"}, good]), where="x")
    with pytest.raises(ConfigError, match=r"key 'fields\.0\.buckets': .*integer.* \(got 'many'\)"):
        parse(Schema, raw(fields=[{"name": "f", "kind": "hashed", "buckets": "many"}, good]), where="x")
    with pytest.raises(ConfigError, match=r"unknown key 'fields\.0\.bucket' \(did you mean 'buckets'\?\)"):
        parse(Schema, raw(fields=[{"name": "f", "kind": "hashed", "buckets": 4, "bucket": 1}, good]), where="x")


def test_files_hold_every_key_whatever_the_kind() -> None:
    """As format 1 of logs and run folders has them: what was written before is read, and the bytes stay."""
    seen = {"name": "seen", "kind": "sequence", "of": "item", "length": 3}
    schema = parse(Schema, raw(fields=[ITEM, seen, *raw()["fields"]]), where="x")
    absent = {
        "column": None, "buckets": 0, "transform": "quantile", "min_count": 1, "max_values": 1, "separator": None,
        "allow_negative": False, "of": None, "length": 0, "pool": "mean", "newest": "last",
    }  # fmt: skip
    written = json.loads(schema.model_dump_json())["fields"]
    assert written == [{**absent, **given} for given in (ITEM, seen, *raw()["fields"])]
    assert {tuple(field) for field in written} == {("name", "kind", *absent)}
    assert parse(Schema, json.loads(schema.model_dump_json()), where="x") == schema


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


def test_newer_keys_are_stored_only_where_they_are_set() -> None:
    before = Schema.model_validate(raw()).model_dump_json()
    assert "nulls" not in before
    assert "padding" not in before
    changed = raw(nulls=["", r"\N"])
    changed["fields"][1]["padding"] = 0
    schema = Schema.model_validate(changed)
    assert Schema.model_validate_json(schema.model_dump_json()) == schema
    assert schema.nulls == ["", r"\N"]
    assert schema.model_dump()["fields"][1]["padding"] == "0"
    assert Schema.model_validate(raw(nulls=[])).model_dump()["nulls"] == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("nulls: [NULL]", "write it in single quotes"),
        (r'nulls: ["\N"]', "write it in single quotes"),
        ("nulls: 0", "nulls"),
        (
            "fields: [{name: q, kind: numeric, buckets: 3, padding: 0}, {name: r, kind: vocabulary}]",
            "belongs to sequences and fields",
        ),
        (
            "fields: [{name: q, kind: vocabulary, padding: 0}, {name: r, kind: vocabulary}]",
            "padding needs max_values above 1",
        ),
        ("fields: [{name: q, kind: vocabulary, max_values: 2, padding: true}, {name: r, kind: vocabulary}]", "padding"),
    ],
)
def test_mistakes_in_nulls_and_padding(keys: str, words: str, tmp_path: Path) -> None:
    own = "" if "fields" in keys else "\nfields: [{name: a, kind: vocabulary}, {name: b, kind: vocabulary}]"
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\ntime: {{column: t}}\nuser: u\ntasks: [y]\n{keys}{own}\n")
    with pytest.raises(ConfigError, match=words):
        load_yaml(Schema, path)
