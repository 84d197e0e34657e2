from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from diet_ray.logs.readers import clicks as clicks_module
from diet_ray.logs.readers.clicks import with_negatives
from diet_ray.logs.readers.negatives import TRIES, Catalogue, draw_negatives
from diet_ray.seeds import derive_seed, uniform_by_id


def catalogue(clicks: dict[int, int]) -> Catalogue:
    items = sorted(clicks)
    return Catalogue(np.array(items), np.array([clicks[item] for item in items]), np.zeros((len(items), 0), np.int64))


def by_hand(
    clicks: dict[int, int], pairs: list[tuple[int, int]], rows: list[int], per_click: int, seed: int
) -> list[tuple[int, int]]:
    """(click, drawn item) of every negative, one at a time with a bisection over a list."""
    items = sorted(clicks)
    ladder = list(accumulate(clicks[item] ** 0.75 for item in items))
    found = []
    for at, ((user, item), row) in enumerate(zip(pairs, rows, strict=True)):
        for number in range(per_click) if item in clicks else ():
            for attempt in range(TRIES):
                [u] = uniform_by_id(np.array([row]), derive_seed(seed, "negative", number, attempt))
                drawn = items[min(bisect_right(ladder, u * ladder[-1]), len(items) - 1)]
                if (user, drawn) not in pairs:
                    found.append((at, drawn))
                    break
    return found


def log(seed: int, n: int = 400, users: int = 12, items: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.geometric(0.1, n), items) * 10
    return rng.integers(0, users, n), item, rng.permutation(10 * n)[:n]


@pytest.mark.parametrize("per_click", [1, 3])
def test_draws_equal_those_by_hand(per_click: int) -> None:
    user, item, row = log(1)
    earlier = {int(value): count for value, count in Counter(log(2)[1].tolist()).items() if value % 3}
    click, drawn = draw_negatives(catalogue(earlier), user, item, row, per_click=per_click, seed=5)
    pairs = list(zip(user.tolist(), item.tolist(), strict=True))
    expected = by_hand(earlier, pairs, row.tolist(), per_click, 5)
    known = catalogue(earlier)
    assert list(zip(click.tolist(), known.item[drawn].tolist(), strict=True)) == expected
    assert len(set(np.isin(item, known.item).tolist())) == 2  # some clicks are on unknown items, and have no negative


def test_a_negative_is_no_click_of_its_user() -> None:
    user, item, row = log(3, n=30, users=5, items=12)
    known = catalogue(dict.fromkeys(range(10, 130, 10), 1))
    click, drawn = draw_negatives(known, user, item, row, per_click=2, seed=0)
    clicked = set(zip(user.tolist(), item.tolist(), strict=True))
    negatives = list(zip(user[click].tolist(), known.item[drawn].tolist(), strict=True))
    assert negatives
    assert not clicked & set(negatives)


def test_a_user_who_clicks_everything_has_no_negatives() -> None:
    known = catalogue({1: 5, 2: 7})
    click, _ = draw_negatives(known, np.zeros(2, int), np.array([1, 2]), np.arange(2), per_click=4, seed=0)
    assert len(click) == 0
    click, drawn = draw_negatives(known, np.array([0, 0, 1]), np.array([1, 2, 2]), np.arange(3), per_click=2, seed=0)
    assert click.tolist() == [2, 2]
    assert known.item[drawn].tolist() == [1, 1]


def test_users_may_be_treated_in_any_grouping_and_order() -> None:
    user, item, row = log(4)
    known = catalogue(dict(Counter(log(5)[1].tolist())))

    def drawn_by_row(at: np.ndarray) -> dict[int, list[int]]:
        click, drawn = draw_negatives(known, user[at], item[at], row[at], per_click=2, seed=1)
        rows = row[at][click]
        return {int(r): known.item[drawn[rows == r]].tolist() for r in np.unique(rows)}

    whole = drawn_by_row(np.arange(len(user)))
    shuffled = np.random.default_rng(0).permutation(len(user))
    assert drawn_by_row(shuffled) == whole
    parts = [drawn_by_row(np.flatnonzero(user % 4 == part)) for part in range(4)]
    assert {row: items for part in parts for row, items in part.items()} == whole


def test_items_are_drawn_in_proportion_to_popularity_to_the_three_quarters() -> None:
    clicks = {1: 1, 2: 16, 3: 81, 4: 10_000, 7: 256}
    n = 40_000
    known = catalogue(clicks)
    # Nobody clicks what can be drawn, but everybody's click has to be on a known item: item 7, never drawn for them.
    _, drawn = draw_negatives(known, np.arange(n), np.full(n, 7), np.arange(n), per_click=1, seed=3)
    count = Counter(known.item[drawn].tolist())
    weight = np.array([1, 8, 27, 1000])
    assert set(count) == {1, 2, 3, 4}
    assert chisquare([count[item] for item in (1, 2, 3, 4)], weight / weight.sum() * n).pvalue > 1e-3


def test_the_seed_matters() -> None:
    user, item, row = log(6)
    known = catalogue(dict(Counter(item.tolist())))
    one, same, other = (draw_negatives(known, user, item, row, per_click=1, seed=seed)[1] for seed in (1, 1, 2))
    assert (one == same).all()
    assert one.tolist() != other.tolist()


def test_catalogue_keeps_the_features_of_the_first_click() -> None:
    early = Catalogue.of(np.array([5, 3, 5]), np.array([[1], [2], [9]]), np.array([7, 1, 2]))
    assert (early.item.tolist(), early.clicks.tolist(), early.features.tolist()) == ([3, 5], [1, 2], [[2], [9]])
    late = Catalogue.of(np.array([5, 4]), np.array([[6], [-1]]), np.array([0, 3]))
    both = Catalogue.merged([early, late])
    assert (both.item.tolist(), both.clicks.tolist(), both.features.tolist()) == (
        [3, 4, 5],
        [1, 1, 3],
        [[2], [-1], [9]],
    )
    assert both.find(np.array([5, 1, 9, 3])).tolist() == [2, -1, -1, 0]
    assert Catalogue.empty(1).find(np.array([5])).tolist() == [-1]


def batch(block: np.ndarray, user: np.ndarray, item: np.ndarray, row: np.ndarray) -> pa.Table:
    # The category changes from click to click, so that the test sees whose it is.
    return pa.table(
        {
            "block": block,
            "row": row,
            "user_id": user,
            "item_id": item,
            "category_id": row * 1000 + item,
            "time": block * 100 + row % 100,
        }
    )


def stream(seed: int = 0, n: int = 900) -> pa.Table:
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.geometric(0.08, n), 60)
    return batch(rng.integers(0, 4, n), rng.integers(0, 15, n), item, np.arange(n))


def test_blocks_see_only_earlier_ones(tmp_path: Path) -> None:
    rows = stream()
    table = pa.concat_tables(with_negatives([rows], tmp_path / "s", item_features=["category_id"]))
    assert table.column_names == ["user_id", "item_id", "category_id", "time", "click"]
    assert not (tmp_path / "s").exists()
    frame, source = table.to_pandas(), rows.to_pandas()
    frame["block"] = frame["time"] // 100
    assert sorted(frame["block"].unique()) == [1, 2, 3]
    for block in (1, 2, 3):
        earlier, now, out = (
            source[source["block"] < block],
            source[source["block"] == block],
            frame[frame["block"] == block],
        )
        first = earlier.sort_values(["block", "row"]).drop_duplicates("item_id").set_index("item_id")["category_id"]
        assert set(out["item_id"]) <= set(first.index)
        assert (out["category_id"] == first.loc[out["item_id"]].to_numpy()).all()
        kept = now[now["item_id"].isin(first.index)]
        positive = out[out["click"] == 1]
        assert Counter(zip(positive["user_id"], positive["item_id"], positive["time"], strict=True)) == Counter(
            zip(kept["user_id"], kept["item_id"], kept["time"], strict=True)
        )
        negative = out[out["click"] == 0]
        assert len(negative) == len(kept)
        clicked = set(zip(now["user_id"], now["item_id"], strict=True))
        assert not clicked & set(zip(negative["user_id"], negative["item_id"], strict=True))


def test_the_future_changes_nothing(tmp_path: Path) -> None:
    rows = stream()
    past = rows.filter(pa.array(rows["block"].to_numpy() < 3))
    whole, part = (
        pa.concat_tables(with_negatives([given], tmp_path / "s", item_features=["category_id"]))
        for given in (rows, past)
    )
    assert part.equals(whole.filter(pa.array(whole["time"].to_numpy() < 300)))


def test_batches_do_not_matter_and_parts_only_for_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stream()

    def run(size: int) -> pa.Table:
        batches = [rows.slice(at, size) for at in range(0, len(rows), size)]
        return pa.concat_tables(with_negatives(batches, tmp_path / "s", item_features=["category_id"]))

    order = [(name, "ascending") for name in ("time", "user_id", "item_id", "click")]
    whole = run(900)
    assert run(37).equals(whole)
    monkeypatch.setattr(clicks_module, "PARTS", 3)
    assert run(900).sort_by(order).equals(whole.sort_by(order))


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    block, user, item = np.array([0, 0, 1, 1, 1]), np.array([1, 2, 1, 1, 2]), np.array([5, 6, 5, 6, 9])
    with caplog.at_level("INFO", "diet_ray.logs.readers"):
        rows = batch(block, user, item, np.arange(5))
        table = pa.concat_tables(with_negatives([rows], tmp_path / "s", item_features=["category_id"]))
    assert table["click"].to_pylist() == [1, 1]  # user 1 clicks both items there are
    assert (
        "5 clicks; 3 left out, in the first block or on items new in their block; 2 negatives given up" in caplog.text
    )
