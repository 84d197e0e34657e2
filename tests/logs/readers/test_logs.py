"""Each published log on a few rows in its published format."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from diet_ray.engine.data import fan_out
from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.readers import READERS, avazu, criteo, published
from diet_ray.logs.readers.clock import DAY_MS
from diet_ray.mapper import Mapper, in_turn


def prepared(name: str, source: Path, out: Path, blocks: list[str], each: Mapper = in_turn) -> pd.DataFrame:
    """The prepared rows; their ingest by the packaged schema must give the blocks and lose no row."""
    reader = READERS[name]
    paths = reader.prepare(source, out)
    assert sorted(out.iterdir()) == sorted(paths)  # no temporary file is left
    frame = pq.ParquetDataset(paths).read().to_pandas()
    log = out.with_name("log")
    assert ingest(reader.schema, paths, log, by=reader.by, each=each).blocks == blocks
    assert sum(block.rows for block in open_log(log).blocks) == len(frame)
    return frame


def criteo_lines(n: int) -> list[str]:
    lines = []
    for row in range(n):
        counts = [str(row), "-2", "" if row % 3 else "7", *(str(row * index) for index in range(4, 14))]
        values = [f"{row % 3:08x}", "", *(f"{row * index:08x}" for index in range(3, 27))]
        lines.append("\t".join([str(int(row % 4 == 0)), *counts, *values]))
    return lines


def test_criteo_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_BLOCK_BYTES", 2000)
    (tmp_path / "train.txt").write_text("\n".join(criteo_lines(70)) + "\n")
    frame = prepared("criteo-kaggle", tmp_path, tmp_path / "out", [f"1970-01-0{day}" for day in range(1, 8)])
    assert (np.diff(frame["time"]) > 0).all()
    assert (frame["time"] // DAY_MS).value_counts().sort_index().tolist() == [10] * 7
    assert frame["click"].tolist() == [1, 0, 0, 0] * 17 + [1, 0]
    assert frame.loc[5, ["I1", "I2", "I4", "I13", "C1", "C3", "C26"]].tolist() == [
        5, -2, 20, 65, "00000002", "0000000f", "00000082",
    ]  # fmt: skip
    assert frame["I3"].isna().tolist() == [row % 3 != 0 for row in range(70)]
    assert frame["C2"].isna().all()
    assert (frame["user"] == 0).all()


def test_criteo_malformed(tmp_path: Path) -> None:
    lines = criteo_lines(9)
    lines[6] += "\t1"
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with pytest.raises(BadInputError, match=r"train\.txt: cannot be read.*line 7: Expected 40 columns, got 41"):
        READERS["criteo-kaggle"].prepare(tmp_path, tmp_path / "out")


def test_criteo_terabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteo, "PER_SECOND", 2)
    lines = criteo_lines(8)
    (tmp_path / "day_10.gz").write_bytes(gzip.compress("\n".join(lines[5:]).encode()))
    (tmp_path / "day_2").write_text("\n".join(lines[:5]))
    (tmp_path / "README").write_text("no day")
    frame = prepared("criteo-1tb", tmp_path, tmp_path / "out", ["1970-01-03", "1970-01-11"])
    assert frame["I1"].tolist() == list(range(8))
    assert frame["time"].tolist() == [2 * DAY_MS + 500 * row for row in range(5)] + [
        10 * DAY_MS + 500 * row for row in range(3)
    ]
    [path] = READERS["criteo-1tb"].prepare(tmp_path / "day_10.gz", tmp_path / "one")
    assert path.name == "day_10.parquet"
    (tmp_path / "day_2.gz").write_bytes(b"")
    with pytest.raises(BadInputError, match="this day is there twice"):
        READERS["criteo-1tb"].prepare(tmp_path, tmp_path / "out")


AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def avazu_line(row: int, hour: int, device: str = "a99f214a") -> str:
    return (
        f"1000009418151094{row:04d},{row % 2},{hour},1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,{device},"
        f"ddd2926{row % 3},44956a24,1,2,15706,320,50,1722,0,35,-1,79"
    )


def test_avazu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avazu, "PER_SECOND", 1)
    monkeypatch.setattr(published, "_BLOCK_BYTES", 900)  # an hour spans several batches
    hours = [14102100] * 9 + [14102123] * 2 + [14102200] * 9
    lines = [avazu_line(row, hour, "a99f214a" if row % 5 else f"{row:08x}") for row, hour in enumerate(hours)]
    (tmp_path / "train.gz").write_bytes(gzip.compress("\n".join([AVAZU, *lines]).encode()))
    frame = prepared("avazu", tmp_path, tmp_path / "out", ["2014-10-21", "2014-10-22"])
    moment = pd.to_datetime(frame["time"], unit="ms")
    assert moment[[0, 8, 9, 10, 11, 19]].astype(str).tolist() == [
        "2014-10-21 00:00:00",
        "2014-10-21 00:00:08",
        "2014-10-21 23:00:00",
        "2014-10-21 23:00:01",
        "2014-10-22 00:00:00",
        "2014-10-22 00:00:08",
    ]
    assert frame["user"][:6].tolist() == [
        "00000000", "ip-ddd29261-44956a24", "ip-ddd29262-44956a24", "ip-ddd29260-44956a24", "ip-ddd29261-44956a24", "00000005",
    ]  # fmt: skip
    assert frame["hour"].tolist() == [0] * 9 + [23] * 2 + [0] * 9
    assert frame["weekday"].tolist() == [1] * 11 + [2] * 9
    assert frame["click"].tolist() == [0, 1] * 10
    assert (frame["C20"] == "-1").all()
    assert "id" not in frame


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        (["14102101", "14102100"], "the hours go back"),
        (["14102100", "14102125"], "not YYMMDDHH"),
        (["14102100", "x"], "not YYMM"),
    ],
)
def test_avazu_hours(tmp_path: Path, hours: list[str], message: str) -> None:
    lines = [avazu_line(row, hour) for row, hour in enumerate(hours)]  # type: ignore[arg-type]
    (tmp_path / "train.csv").write_text("\n".join([AVAZU, *lines]))
    with pytest.raises(BadInputError, match=f"column 'hour': .*{message}"):
        READERS["avazu"].prepare(tmp_path, tmp_path / "out")


def test_movielens_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t4\t891717742\n22\t242\t5\t878887116\n")
    (tmp_path / "u.user").write_text("196|49|M|writer|55105\n186|39|F|executive|00000\n22|25|M|writer|T8H1N\n")
    flags = {
        "242": "0|0|0|0|0|1" + "|0" * 13,
        "302": "0|1" + "|0" * 5 + "|0|0|0|1" + "|0" * 6 + "|1|0",
        "267": "1" + "|0" * 18,
    }
    (tmp_path / "u.item").write_bytes(
        (
            f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{flags['242']}\n"
            f"302|Misérables, L.A. (1997)|01-Jan-1997|||{flags['302']}\n"
            f"267|unknown||||{flags['267']}\n"
        ).encode("latin-1")
    )
    frame = prepared("movielens-100k", tmp_path, tmp_path / "out", ["1997-W45", "1997-W49", "1998-W14"])
    assert frame["liked"].tolist() == [False, True, True]
    assert frame["age"].tolist() == [49, 39, 25]
    assert frame["zip_code"].tolist() == ["55105", "00000", "T8H1N"]
    assert frame["occupation"].tolist() == ["writer", "executive", "writer"]
    assert frame["genres"].tolist() == ["Comedy", "Action|Film-Noir|War", "Comedy"]
    assert frame["year"].tolist() == ["1996", "1997", "1996"]
    assert frame["hour"].tolist() == [15, 19, 7]
    assert "rating" not in frame


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-1234\n")
    (tmp_path / "movies.dat").write_bytes(
        '661::James: "Peach", É (1996)::Animation|Children\'s|Musical\n1193::One Flew (1975)::Drama\n'.encode("latin-1")
    )
    frame = prepared("movielens-1m", tmp_path, tmp_path / "out", ["2000-W52"])
    assert frame["liked"].tolist() == [True, False, True]
    assert frame["genres"].tolist() == ["Drama", "Animation|Children's|Musical", "Drama"]
    assert frame["gender"].tolist() == ["F", "F", "M"]
    assert frame["zip_code"].tolist() == ["48067", "48067", "70072-1234"]
    assert frame["year"].tolist() == ["1975", "1996", "1975"]


def test_movielens_csv(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,296,3.5,1147880044\n1,306,4.0,1147868817\n2,7,5.0,1141415820\n2,9,0.5,1141415821\n"
    )
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n296,"Fiction, ""Pulp"" (1994)",Comedy|Crime|Drama|Thriller\n306,Red (1994) ,Drama\n7,X,(no genres listed)\n'
    )
    frame = prepared("movielens", tmp_path, tmp_path / "out", ["2006-W09", "2006-W20"])
    assert frame["liked"].tolist() == [False, True, True, False]
    assert frame["year"].iloc[:2].tolist() == ["1994", "1994"]
    assert frame["year"].iloc[2:].isna().all()
    assert frame["genres"].iloc[:2].tolist() == ["Comedy|Crime|Drama|Thriller", "Drama"]
    assert frame["genres"].iloc[2:].isna().all()  # without genres, and a film that is in no list
    assert [block.positives for block in open_log(tmp_path / "log").blocks] == [[1], [1]]
    assert frame["liked_before"].map(list).tolist() == [[306], [], [], [7]]
    log = open_log(tmp_path / "log")
    first, second = (log.read_block(block).ids for block in log.blocks)
    place = log.schema.field_names.index("history[0]")  # the field before is movie_id
    assert first[:, place].tolist() == [0, first[0, place - 1]]  # film 7, liked a second before film 9
    assert second[:, place].tolist() == [0, second[0, place - 1]]
    assert not first[:, place + 1 : place + 8].any()


def taobao(folder: Path, extra: str = "") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 400
    start = pd.Timestamp("2017-11-25", tz="Asia/Shanghai").value // 10**9
    frame = pd.DataFrame(
        {
            "user": np.sort(rng.integers(1, 9, n)),
            "item": rng.integers(100, 130, n),
            "category": 0,
            "behaviour": rng.choice(["pv", "pv", "pv", "buy", "cart", "fav"], n),
            "time": start + rng.integers(0, 3 * 86400, n),
        }
    )
    frame["category"] = frame["item"] // 10
    frame.loc[0, "time"] = start - 1  # just before the first day
    frame.loc[1, "time"] = -2_000
    frame.loc[2, "time"] = start + 9 * 86400
    frame.loc[:2, "behaviour"] = "pv"
    (folder / "UserBehavior.csv").write_text(frame.to_csv(index=False, header=False) + extra)
    frame["day"] = (frame["time"] - start) // 86400
    return frame


def test_taobao(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = taobao(tmp_path)
    with caplog.at_level("INFO", "diet_ray.logs.readers"):
        frame = prepared("taobao", tmp_path, tmp_path / "out", ["2017-11-26", "2017-11-27"])
    assert "3 of 400 rows left out: not within 9 days from 2017-11-25" in caplog.text
    views = source[(source["behaviour"] == "pv") & source["day"].between(0, 8)]
    seen = {day: set(views.loc[views["day"] < day, "item"]) for day in (1, 2)}
    kept = pd.concat([views[(views["day"] == day) & views["item"].isin(seen[day])] for day in (1, 2)])
    positive = frame[frame["click"] == 1].sort_values(["time", "user_id", "item_id"])
    kept = kept.sort_values(["time", "user", "item"])
    assert positive[["time", "user_id", "item_id"]].to_numpy().tolist() == (
        kept.assign(time=kept["time"] * 1000)[["time", "user", "item"]].to_numpy().tolist()
    )
    assert 0.8 * len(kept) < (frame["click"] == 0).sum() <= len(kept)
    assert (frame["category_id"] == frame["item_id"] // 10).all()
    local = pd.to_datetime(frame["time"], unit="ms", utc=True).dt.tz_convert("Asia/Shanghai")
    assert (frame["hour"] == local.dt.hour).all()
    assert (frame["weekday"] == local.dt.day_of_week).all()
    assert "behaviour" not in frame


def test_taobao_strange_behaviour(tmp_path: Path) -> None:
    taobao(tmp_path, "1,2,3,look,1511544070\n")
    with pytest.raises(BadInputError, match=r"column 'behaviour': line 401 has 'look' .*pv, buy, cart, fav"):
        READERS["taobao"].prepare(tmp_path, tmp_path / "out")


def test_tmall(tmp_path: Path) -> None:
    (tmp_path / "user_log_format1.csv").write_text(
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
        "328862,323294,833,2882,2661,511,0\n"  # Sunday: the first week
        "328862,844400,1271,2882,,512,0\n"  # Monday: a new item, left out
        "328862,323294,833,2882,2661,518,0\n"
        "328862,323294,833,2882,2661,518,2\n"
        "1,844400,1271,2882,,1111,0\n"
        "2,844400,1271,2882,,1110,0\n"
    )
    (tmp_path / "user_info_format1.csv").write_text("user_id,age_range,gender\n328862,6,0\n1,0,2\n9,,\n")
    frame = prepared("tmall", tmp_path, tmp_path / "out", ["2014-W20", "2014-W46"])
    local = pd.to_datetime(frame["time"], unit="ms", utc=True).dt.tz_convert("Asia/Shanghai")
    clicks = frame[frame["click"] == 1]
    day = local.dt.strftime("%m%d")
    assert sorted(zip(day[clicks.index], clicks["user_id"], clicks["item_id"], strict=True)) == [
        ("0518", 328862, 323294),
        ("1110", 2, 844400),
        ("1111", 1, 844400),
    ]
    negatives = frame[frame["click"] == 0]
    assert sorted(zip(day[negatives.index], negatives["user_id"], negatives["item_id"], strict=True)) == [
        ("1110", 2, 323294),
        ("1111", 1, 323294),
    ]
    assert frame.loc[frame["item_id"] == 844400, "brand_id"].isna().all()
    assert (frame.loc[frame["item_id"] == 323294, "brand_id"] == 2661).all()
    by_user = frame.groupby("user_id").first()
    assert by_user.loc[328862, ["age_range", "gender"]].tolist() == [6, 0]
    assert by_user.loc[[1, 2], ["age_range", "gender"]].isna().all(axis=None)
    assert (frame["weekday"] == local.dt.day_of_week).all()
    assert not {"action_type", "hour"} & set(frame)
    with (tmp_path / "user_log_format1.csv").open("a") as file:
        file.write("1,2,3,4,5,1131,0\n")
    with pytest.raises(BadInputError, match="column 'time_stamp': line 8 has no day MMDD"):
        READERS["tmall"].prepare(tmp_path, tmp_path / "out")


def test_ali_ads(tmp_path: Path) -> None:
    (tmp_path / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n581738,1494137644,1,430548_1007,1,0\n449818,1494638778,3,430539_1007,0,1\n"
        "7,1494638778,9,430539_1007,1,0\n"
    )
    (tmp_path / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n1,9025,108570,1,NULL,19.9\n3,9025,108570,1,95471,99999999.0\n"
    )
    (tmp_path / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,new_user_class_level \n"
        "581738,0,5,2,5,,3,0,3\n449818,0,5,2,5,1,3,0,\n"
    )
    frame = prepared("ali-ads", tmp_path, tmp_path / "out", ["2017-05-07", "2017-05-13"])
    assert frame["clk"].tolist() == [0, 1, 0]
    assert frame["brand"].fillna(-1).tolist() == [-1, 95471, -1]
    assert frame["price"].fillna(-1).tolist() == [19.9, 99999999.0, -1]
    assert frame["new_user_class_level"].fillna(-1).tolist() == [3, -1, -1]
    assert frame["pvalue_level"].fillna(-1).tolist() == [-1, 1, -1]
    assert frame["hour"].tolist() == [14, 9, 9]
    assert "nonclk" not in frame


def test_kuairand_27k_in_parts(tmp_path: Path) -> None:
    day = 1_649_347_200_000  # 8 April 2022 in Shanghai
    header = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
        "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
    )

    def line(user: int, video: int, at: int, click: int = 0) -> str:
        return f"{user},{video},20220408,100,{day + at},{click},0,0,0,0,0,0,5,7000,0,0,0,0,1\n"

    names = ["4_08_to_4_21_27k_part1", "4_08_to_4_21_27k_part2", "4_22_to_5_08_27k_part1"]
    parts = [
        line(1, 7, 9 * 3_600_000) + line(1, 8, 5, 1),
        line(2, 7, 5) + line(1, 8, 5, 1) + line(1, 9, -1),
        line(2, 8, 20 * 3_600_000) + line(3, 8, 5) + line(3, 7, 2),
    ]
    for name, text in zip(names, parts, strict=True):
        (tmp_path / f"log_standard_{name}.csv").write_text(header + text)
    (tmp_path / "log_random_4_22_to_5_08_27k.csv").write_text(header + line(9, 9, 1))
    users = "user_id,user_active_degree,follow_user_num_range,fans_user_num_range,friend_user_num_range,register_days_range,"
    (tmp_path / "user_features_27k.csv").write_text(
        users + 'onehot_feat1,onehot_feat2\n1,full_active,500+,"[100,1k)","[30,60)",730+,1,29\n2,NA,0,0,0,0,,3\n'
    )
    (tmp_path / "video_features_basic_27k.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
        'music_id,music_type,tag\n7,70,NORMAL,2022-04-10,Web,1,7,1,1,9155697141,9.0,"39,2"\n8,80,AD,2022-04-01,,1,7,1,1,,,\n'
    )
    (tmp_path / "video_features_statistic_27k_part1.csv").write_text("video_id\n7\n")
    frame = prepared("kuairand-27k", tmp_path, tmp_path / "out", ["2022-04-08"])
    # By time, equal times in the order of the files; without the double and the row before the first day.
    assert frame[["user_id", "video_id"]].to_numpy().tolist() == [[3, 7], [1, 8], [2, 7], [3, 8], [1, 7], [2, 8]]
    assert frame["tag1"].tolist() == ["39", "unknown", "39", "unknown", "39", "unknown"]
    assert frame["freshness_days"].tolist() == [-2, 7, -2, 7, -2, 7]
    assert frame["user_active_degree"].fillna("-").tolist() == ["-", "full_active", "NA", "-", "full_active", "NA"]
    assert frame["music_id"].fillna("-").tolist() == ["9155697141", "-", "9155697141", "-", "9155697141", "-"]
    assert frame["fans_user_num_range"].fillna("-").tolist()[:3] == ["-", "[100,1k)", "0"]


@pytest.mark.ray
def test_ingest_of_a_published_log_on_the_cluster(tmp_path: Path, ray_cluster: int) -> None:
    (tmp_path / "train.txt").write_text("\n".join(criteo_lines(630)))
    frame = prepared("criteo-kaggle", tmp_path, tmp_path / "out", [f"1970-01-0{day}" for day in range(1, 8)], fan_out)
    log = open_log(tmp_path / "log")
    assert [block.rows for block in log.blocks] == [90] * 7
    assert sum(block.positives[0] for block in log.blocks) == frame["click"].sum()
