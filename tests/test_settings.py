from pathlib import Path
from typing import Literal

import pytest

from diet_ray.errors import BadInputError, ConfigError, CorruptArtefactError, VersionError
from diet_ray.settings import Settings, load_yaml, parse, parse_json, write_json


class Inner(Settings):
    rate: float = 0.1


class Outer(Settings):
    name: str
    inner: Inner = Inner()


def test_load_yaml_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: a\ninner: {rate: 0.5}\n")
    assert load_yaml(Outer, tmp_path / "c.yaml") == Outer(name="a", inner=Inner(rate=0.5))
    assert load_yaml(Outer, tmp_path / "c.yaml", name="b").name == "b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nnam: b\n", ["unknown key 'nam'", "did you mean 'name'"]),
        ("name: a\ninner: {rat: 1}\n", ["unknown key 'inner.rat'", "did you mean 'rate'"]),
        ("inner: {}\n", ["missing key 'name'"]),
        ("name: a\ninner: {rate: fast}\n", ["inner.rate", "fast"]),
        ("- name\n", ["mapping", "list"]),
        ("name: [\n", ["not valid YAML"]),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(Outer, path)
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_several_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"here: .*missing key 'name'.*unknown key 'x'"):
        parse(Outer, {"x": 1}, where="here")


@pytest.mark.parametrize("text", ["1e-6", "1E-06", "+1e2", "1.0e-6", "1.5e3", "3.e2", ".5e1", "0.5"])
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str) -> None:
    """YAML 1.1 takes one without a dot for a text; a space of a search, whose keys may have any type, was refused."""
    from diet_ray.judge.search import SweepConfig

    path = tmp_path / "a.yaml"
    path.write_text(f"candidates: [{{name: a, arch: lr, lr_scale: {{choice: [{text}]}}}}]")
    (space,) = load_yaml(SweepConfig, path).candidates[0].spaces().values()
    assert space.values == [float(text)]


def test_a_default_made_from_other_keys_adds_no_error() -> None:
    from diet_ray.judge.fidelity.config import FidelityConfig

    with pytest.raises(ConfigError) as caught:
        parse(FidelityConfig, {"log": "logs/mine"}, where="my_run.yaml")
    assert "missing key 'stream'" in str(caught.value)
    assert "methods" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_yaml(Outer, tmp_path / "none.yaml")
    with pytest.raises(CorruptArtefactError, match=r"none.json.*missing"):
        parse_json(Outer, tmp_path / "none.json")


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, Outer(name="a", inner=Inner(rate=1 / 3)))
    assert parse_json(Outer, path) == Outer(name="a", inner=Inner(rate=1 / 3))
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
    path.write_text(path.read_text()[:-9])
    with pytest.raises(CorruptArtefactError, match=r"m.json.*Outer"):
        parse_json(Outer, path)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(name="a").name = "b"


def test_bad_input_survives_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadInputError("f.csv", "is bad", column="c", remedy="mend it")))
    assert isinstance(error, BadInputError)
    assert str(error) == "f.csv, column 'c': is bad (mend it)"
    assert (error.file, error.column, error.exit_code) == ("f.csv", "c", 2)


def test_another_format_is_named_before_anything_else_that_differs(tmp_path: Path) -> None:
    class Versioned(Settings):
        format: Literal[2] = 2
        kept: int

    path = tmp_path / "manifest.json"
    path.write_text('{"format": 1, "renamed": 3}', encoding="utf-8")
    with pytest.raises(VersionError, match=r"manifest\.json: format 1, this release reads 2"):
        parse_json(Versioned, path)
    path.write_text('{"format": 2, "renamed": 3}', encoding="utf-8")
    with pytest.raises(CorruptArtefactError, match=r"manifest\.json"):
        parse_json(Versioned, path)
