"""First schemas of files that nobody has described: the guesses, and that an ingest takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.logs.blocks import open_log
from diet_ray.logs.guess.text import FILL_IN
from diet_ray.schema import Schema
from diet_ray.settings import load_yaml

ROOT = Path(__file__).parents[3]
N = 3000


def events(seed: int = 0) -> dict[str, Any]:
    """Columns of a shop's log over four days, with one of each kind."""
    rng = np.random.default_rng(seed)
    start = datetime(2024, 3, 4, tzinfo=UTC)
    click = rng.random(N) < 0.3
    item = rng.integers(0, 400, N)
    return {
        "event_time": [start + timedelta(seconds=int(s)) for s in np.sort(rng.integers(0, 4 * 86_400, N))],
        "signup_date": [datetime(2020, 1, 1 + int(d), tzinfo=UTC) for d in rng.integers(0, 28, N)],
        "row_key": [f"r{k:06d}" for k in range(N)],
        "user_id": [f"u{k}" for k in rng.integers(0, 500, N)],
        "item_id": item,
        "price": rng.lognormal(3, 1, N).round(2),
        "stars": rng.integers(1, 6, N),
        "tags": [
            "|".join(rng.choice(["new", "sale", "bio", "local"], 1 + int(k), replace=False))
            for k in rng.integers(0, 3, N)
        ],
        "history": [rng.integers(0, 400, int(k)).tolist() for k in rng.integers(0, 9, N)],
        "country": ["de"] * N,
        "city": rng.choice(["Berlin", "Bonn", r"\N"], N),
        "dwell_ms": np.where(click, rng.integers(1000, 9000, N), rng.integers(0, 900, N)),
        "is_click": click.astype(np.int8),
    }


def guessed(folder: Path, columns: dict[str, Any], kind: str = "parquet", *more: str) -> tuple[dict[str, Any], str]:
    """The schema that the command writes for these columns, as YAML and as text."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, folder / "events.parquet")
    else:
        pa_csv.write_csv(table, folder / "events.csv", pa_csv.WriteOptions(delimiter=";"))
    done = CliRunner().invoke(app, ["schema", str(folder), *more])
    assert done.exit_code == 0, done.output
    return yaml.safe_load(done.stdout), done.stdout


def test_each_kind_of_column(tmp_path: Path) -> None:
    schema, text = guessed(tmp_path / "shop", events())
    fields = {field["name"]: field for field in schema["fields"]}
    assert schema["name"] == "shop"
    assert schema["time"] == {"column": "event_time", "unit": "timestamp", "timezone": "UTC"}
    assert schema["user"] == "user_id"
    assert schema["tasks"] == ["is_click"]
    assert schema["nulls"] == ["", r"\N"]
    assert fields["user_id"]["kind"] == fields["item_id"]["kind"] == fields["city"]["kind"] == "vocabulary"
    assert fields["price"]["kind"] == "numeric"
    assert fields["stars"] == {"name": "stars", "kind": "vocabulary"}
    assert fields["tags"] == {"name": "tags", "kind": "vocabulary", "max_values": 3, "separator": "|"}
    assert fields["history"]["kind"] == "sequence"
    assert fields["history"]["of"] == "item_id"
    assert not {"row_key", "country", "signup_date", "event_time", "is_click"} & fields.keys()
    for name, reason in (("row_key", "a value of its own"), ("country", "one value"), ("signup_date", "another time")):
        assert any(f"# {name}:" in line and reason in line for line in text.splitlines())
    at = next(k for k, line in enumerate(text.splitlines()) if "name: dwell_ms" in line)
    assert "AUC of 1.00: is it known before the event?" in text.splitlines()[at - 1]
    assert "AUC" not in text.replace(text.splitlines()[at - 1], "")


def test_csv_means_the_same_and_an_ingest_takes_it(tmp_path: Path) -> None:
    columns = {name: values for name, values in events().items() if name != "history"}
    from_parquet, _ = guessed(tmp_path / "parquet" / "shop", columns)
    columns["event_time"] = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in columns["event_time"]]
    columns["signup_date"] = [f"{moment:%Y-%m-%d}" for moment in columns["signup_date"]]
    out = tmp_path / "shop_schema.yaml"
    from_csv, text = guessed(tmp_path / "csv" / "shop", columns, "csv")
    for field in from_parquet["fields"] + from_csv["fields"]:
        field.pop("buckets", None)  # they depend on the rows of the log, which CSV does not tell
    assert from_csv == from_parquet
    assert "# unsure: times without a zone" in text
    folder = tmp_path / "csv" / "shop"
    done = CliRunner().invoke(app, ["--json", "schema", str(folder), "--out", str(out), "--name", "mine"])
    assert json.loads(done.stdout)["schema"] == str(out)
    assert load_yaml(Schema, out).name == "mine"
    log = tmp_path / "log"
    done = CliRunner().invoke(
        app, ["--local", "ingest", str(out), "--from", str(folder), "--out", str(log), "--by", "day"]
    )
    assert done.exit_code == 0, done.output
    assert [block.rows for block in open_log(log).blocks] == np.bincount(
        [int(moment[8:10]) - 4 for moment in columns["event_time"]]
    ).tolist()


def test_the_example(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "examples/make_events.py"), str(tmp_path / "events")], check=True, stdout=-3
    )
    out = tmp_path / "my_schema.yaml"
    done = CliRunner().invoke(app, ["schema", str(tmp_path / "events"), "--out", str(out)])
    schema = yaml.safe_load(out.read_text())
    assert schema["time"] == {"column": "event_time", "unit": "timestamp", "timezone": "UTC"}
    assert schema["tasks"] == ["is_click"]
    assert {field["name"]: field["kind"] for field in schema["fields"]} == {
        "user_id": "vocabulary",
        "item_id": "vocabulary",
        "price": "numeric",
        "tags": "vocabulary",
    }
    # Its days begin at 23:00 UTC, so that the first day of UTC is an hour long. What the command proposes works all the same.
    command = done.stdout.replace("logs/my", str(tmp_path / "log")).split("diet-ray ", 1)[1].split()
    assert command[-2:] == ["--by", "2400"]
    assert CliRunner().invoke(app, ["--local", *command]).exit_code == 0
    assert len(open_log(tmp_path / "log").blocks) == 5


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_epochs(unit: str, factor: int, kind: str, tmp_path: Path) -> None:
    columns = events()
    columns = {
        "ts": [int(moment.timestamp()) * factor for moment in columns["event_time"]],
        "item_no": [
            1_700_000_000 + int(k) for k in columns["item_id"]
        ],  # as long as seconds, but its name tells no time
        "user_id": columns["user_id"],
        "is_click": columns["is_click"],
    }
    schema, _ = guessed(tmp_path / "shop", columns, kind)
    assert schema["time"] == {"column": "ts", "unit": unit, "timezone": "UTC"}


def test_what_cannot_be_guessed_is_to_be_filled_in(tmp_path: Path) -> None:
    schema, text = guessed(tmp_path / "odd", {"a": ["x", "y"] * 50, "b": [0.5, 1.5] * 50})
    assert (schema["time"]["column"], schema["user"], schema["tasks"]) == (FILL_IN, FILL_IN, [FILL_IN])
    assert text.count("# unsure:") == 3
    out = tmp_path / "s.yaml"
    out.write_text(text)
    done = CliRunner().invoke(
        app,
        ["--local", "ingest", str(out), "--from", str(tmp_path / "odd"), "--out", str(tmp_path / "log"), "--by", "day"],
    )
    assert done.exit_code == 2
    assert FILL_IN in done.output


def test_names_that_yaml_would_misread(tmp_path: Path) -> None:
    columns = events()
    renamed = {
        "time": columns["event_time"],
        "user_id": columns["user_id"],
        "label": columns["is_click"],
        "on": columns["stars"],
        "a: b": columns["price"],
        "#x": columns["city"],
        "12": columns["item_id"],
        "zwei\nZeilen": columns["stars"],
    }
    schema, _ = guessed(tmp_path / "null", renamed)
    assert schema["name"] == "null"
    assert {field["name"] for field in schema["fields"]} == {"user_id", "on", "a: b", "#x", "12", "zwei\nZeilen"}


def test_columns_that_only_some_files_have_are_named(tmp_path: Path) -> None:
    columns = events()
    folder = tmp_path / "shop"
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "b.parquet")
    del columns["price"]
    schema, text = guessed(folder, columns)
    assert "price" not in {field["name"] for field in schema["fields"]}
    assert "# price: only some of the files have it" in text


@pytest.mark.parametrize(
    ("columns", "problem"),
    [({"a": pa.array([], pa.int64())}, "holds no rows at all"), (None, "folder without any Parquet")],
)
def test_nothing_to_guess_from(columns: dict[str, Any] | None, problem: str, tmp_path: Path) -> None:
    if columns is not None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    done = CliRunner().invoke(app, ["schema", str(tmp_path)])
    assert done.exit_code == 2
    assert problem in done.output
