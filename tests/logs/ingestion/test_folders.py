import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from diet_ray.errors import BadInputError, ResourceError
from diet_ray.logs.ingestion.folders import found_files
from diet_ray.logs.ingestion.sources import find_pieces, read_piece


def rows(sources: list[Path], columns: list[str]) -> list[tuple[Any, ...]]:
    """All rows, sorted by their text."""
    found = []
    for piece in find_pieces(sources, columns):
        for _, table in read_piece(piece, columns):
            assert table.column_names == columns
            found += [tuple(row.values()) for row in table.to_pylist()]
    return sorted(found, key=str)


def put(path: Path, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


# --- partitions


def test_a_partition_gives_its_value_to_all_rows(tmp_path: Path) -> None:
    put(tmp_path / "day=2024-03-04" / "city=S%C3%A3o%20Paulo" / "a.parquet", a=[1, 2])
    put(tmp_path / "day=2024-03-05" / "city=__HIVE_DEFAULT_PARTITION__" / "_b=1" / "b.parquet", a=[3])
    put(tmp_path / "_temporary" / "day=2024-03-05" / "c.parquet", a=[4])
    assert rows([tmp_path], ["day", "a", "city"]) == [
        ("2024-03-04", 1, "São Paulo"),
        ("2024-03-04", 2, "São Paulo"),
        ("2024-03-05", 3, None),
    ]
    assert rows([tmp_path / "day=2024-03-05"], ["a", "day", "_b"]) == [(3, "2024-03-05", "1")]
    assert rows([tmp_path], ["day"]) == [("2024-03-04",), ("2024-03-04",), ("2024-03-05",)]  # and nothing of the file
    with pytest.raises(BadInputError, match="'country': column is missing"):
        find_pieces([tmp_path], ["country"])


def test_partitions_of_csv(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=1" / "a.csv").write_text("a,b\n007,x\n8,\n")
    assert rows([tmp_path], ["b", "day"]) == [("x", "1"), (None, "1")]
    assert rows([tmp_path], ["day"]) == [("1",), ("1",)]


def test_a_column_of_the_file_comes_before_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "day=1" / "a.parquet", a=[1], day=["2"])
    assert rows([tmp_path], ["a", "day"]) == [(1, "2")]


def test_equal_files_are_copies_unless_their_partitions_differ(tmp_path: Path) -> None:
    for day in (1, 2):
        put(tmp_path / f"day={day}" / "a.parquet", a=[5])
    assert rows([tmp_path], ["a", "day"]) == [(5, "1"), (5, "2")]
    with pytest.raises(BadInputError, match="has the same bytes as"):
        find_pieces([tmp_path], ["a"])


@pytest.mark.parametrize(("name", "kind"), [(".hoodie/x", "a Hudi"), ("_versions/1.manifest", "a Lance")])
def test_tables_that_are_not_read_are_named(name: str, kind: str, tmp_path: Path) -> None:
    part = put(tmp_path / "t" / "day=1" / "a.parquet", a=[1])
    (tmp_path / "t" / name).parent.mkdir()
    (tmp_path / "t" / name).touch()
    for source in (tmp_path / "t", part):
        with pytest.raises(BadInputError, match=f"is {kind} table, which is not read"):
            found_files([source])
    with pytest.raises(BadInputError, match=f"is {kind} table within the folder"):
        found_files([tmp_path])


# --- Delta tables


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Delta table that was added to, got a column, and lost rows; its folder still has the files of before."""
    path = tmp_path / "a table=1" / "events"
    write_deltalake(path, pa.table({"a": [1, 2, 3], "day": ["x", "x", "y/y"]}), partition_by=["day"])
    write_deltalake(
        path,
        pa.table({"a": [4], "day": [None], "late": ["z"]}),
        mode="append",
        schema_mode="merge",
        partition_by=["day"],
    )
    DeltaTable(path).delete("a = 1")
    return path


def test_a_delta_table_is_its_latest_version(table: Path) -> None:
    assert len(list(table.rglob("*.parquet"))) == 4
    assert rows([table], ["a", "day", "late"]) == [(2, "x", None), (3, "y/y", None), (4, None, "z")]
    with pytest.raises(BadInputError, match="'gone': column is missing"):
        find_pieces([table], ["gone"])


def test_a_part_of_a_delta_table(table: Path) -> None:
    assert rows([table / "day=x"], ["a", "day"]) == [(2, "x")]
    live = {found_file.path for found_file in found_files([table])}
    [dead] = set(table.rglob("*.parquet")) - live
    for one in live:
        assert [found.path for found in found_files([one])] == [one]
    for one in (dead, table / "_delta_log"):
        with pytest.raises(BadInputError, match="no file of the latest version of the Delta table"):
            found_files([one])
    with pytest.raises(BadInputError, match="given twice"):
        found_files([table, table / "day=x"])


def test_delta_tables_are_not_mixed_with_files(table: Path) -> None:
    with pytest.raises(BadInputError, match="is a Delta table within the folder"):
        found_files([table.parent])


def commit(table: Path, *actions: dict[str, Any]) -> None:
    """Write a version as another writer might."""
    number = len(list((table / "_delta_log").glob("*.json")))
    text = "\n".join(map(json.dumps, actions)) + "\n"
    (table / "_delta_log" / f"{number:020d}.json").write_text(text)


def added(path: str, **more: Any) -> dict[str, Any]:
    return {
        "add": {
            "path": path,
            "partitionValues": {"day": "x"},
            "size": 1,
            "modificationTime": 0,
            "dataChange": True,
            **more,
        }
    }


def protocol(*features: str) -> dict[str, Any]:
    return {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": list(features),
            "writerFeatures": list(features),
        }
    }


@pytest.mark.parametrize(
    "path", ["../other.parquet", "s3://bucket/x.parquet", "file:///etc/x.parquet", "/etc/x.parquet", "%2e%2e/x.parquet"]
)
def test_files_of_a_delta_table_lie_in_it(table: Path, path: str) -> None:
    commit(table, added(path))
    with pytest.raises(BadInputError, match="with a file elsewhere"):
        found_files([table])


def test_a_missing_file_of_a_delta_table_is_named(table: Path) -> None:
    commit(table, added("day=x/gone.parquet"))
    with pytest.raises(BadInputError, match=r"gone\.parquet: is a link that leads nowhere, or no file at all"):
        found_files([table])


def test_rows_that_are_deleted_in_place_are_not_learned_from(table: Path) -> None:
    vector = {
        "storageType": "i",
        "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
        "sizeInBytes": 40,
        "cardinality": 6,
    }
    [name] = [found_file.path.name for found_file in found_files([table / "day=x"])]
    commit(table, protocol("deletionVectors"))
    assert len(found_files([table])) == 3  # the feature alone does no harm
    commit(table, added(f"day=x/{name}", deletionVector=vector, stats='{"numRecords": 40}'))
    with pytest.raises(BadInputError, match=r"with deleted rows in its files .*REORG TABLE"):
        found_files([table])


def test_a_delta_table_that_asks_for_more_is_refused(table: Path) -> None:
    [first] = [
        json.loads(line)
        for line in (table / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
        if "metaData" in line
    ]
    first["metaData"]["partitionColumns"] = []
    first["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    first["metaData"]["schemaString"] = json.dumps(mapped(json.loads(first["metaData"]["schemaString"])))
    commit(table, protocol("columnMapping"), first)
    with pytest.raises(BadInputError, match="whose columns have other names in its files"):
        found_files([table])


def mapped(schema: dict[str, Any]) -> dict[str, Any]:
    """A table's schema whose columns have other names in its files."""
    for number, one in enumerate(schema["fields"]):
        one["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
    return schema


def test_an_unknown_feature_is_named(table: Path) -> None:
    commit(table, protocol("rowsInTheCloud"))
    with pytest.raises(BadInputError, match=r"Delta table .*rowsInTheCloud"):
        found_files([table])


@pytest.mark.parametrize("feature", ["variantType", "variantType-preview"])
def test_a_feature_of_which_nothing_is_used_does_no_harm(table: Path, feature: str) -> None:
    # Tables by delta-rs with deletion vectors allowed list variants, without a column of that type.
    before = rows([table], ["a", "day", "late"])
    commit(table, protocol("deletionVectors", feature))
    assert rows([table], ["a", "day", "late"]) == before


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("catalogManaged", "catalog-managed"),  # only the catalog knows the newest version
        ("catalogOwned-preview", "catalog-managed"),
        ("typeWidening", "Unsupported table features.*TypeWidening"),  # by delta-rs itself
    ],
)
def test_a_feature_that_hides_what_the_table_is_is_refused(table: Path, feature: str, words: str) -> None:
    commit(table, protocol(feature))
    with pytest.raises(BadInputError, match=words):
        found_files([table])


def test_a_column_of_variants_is_only_in_the_way_where_it_is_wanted(table: Path) -> None:
    [first] = [
        json.loads(line)
        for line in (table / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
        if "metaData" in line
    ]
    schema = json.loads(first["metaData"]["schemaString"])
    schema["fields"].append({"name": "v", "type": "variant", "nullable": True, "metadata": {}})
    first["metaData"]["schemaString"] = json.dumps(schema)
    commit(table, protocol("variantType"), first)
    assert rows([table], ["a", "day"]) == [(2, "x"), (3, "y/y"), (4, None)]


def test_a_damaged_log_is_named(table: Path) -> None:
    (table / "_delta_log" / f"{1:020d}.json").write_text("{")
    with pytest.raises(BadInputError, match="Delta table that cannot be read"):
        found_files([table])


def test_without_the_extra(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ResourceError, match=r"pip install -c constraints.txt -e '\.\[delta\]' in your clone"):
        found_files([table])
