"""DIN: what it does with a history, the fields that it must have, and its way from a log with histories to a leaderboard."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from diet_ray.candidates import Candidate, CandidateSpec, build
from diet_ray.config import StreamConfig, StudentConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.verdict import judge
from diet_ray.logs.blocks import Log, open_log
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.verification import verify
from diet_ray.report.export import export_memory
from diet_ray.report.inspection import inspect
from diet_ray.schema import Schema
from diet_ray.training.embedding import lookup
from diet_ray.training.student import Examples, FlatNet, predict, train_student
from tests.support import small_run
from tests.support.small_nets import stir

FIELDS = ["user", "past[0]", "past[1]", "past[2]", "item", "hour", "mean"]
DIM = 4


def spec(**more: object) -> CandidateSpec:
    params = {"hidden": [6], "attention_hidden": [5], "target": "item", "sequence": "past"}
    return CandidateSpec.model_validate({"name": "d", "arch": "din", "params": params, **more})


def din(**more: object) -> Candidate:
    model = build(spec(**more), FIELDS, DIM, 2, seed=0)
    stir(model)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, len(FIELDS), DIM, generator=torch.Generator().manual_seed(1))


def test_a_history_is_a_bag_in_which_empty_places_count_nothing(x: Tensor) -> None:
    model = din(adapter=False)
    x[:, 3] = 0
    for order in permutations([1, 2, 3]):
        torch.testing.assert_close(model(x[:, [0, *order, 4, 5, 6]]), model(x))
    # The same without the place at all; and the pooled history of an empty one is the zero vector.
    net = model.net
    torch.testing.assert_close(net.attention(x[:, 4], x[:, 1:4]), net.attention(x[:, 4], x[:, 1:3]))
    assert torch.equal(net.attention(x[:, 4], torch.zeros(5, 3, DIM)), torch.zeros(5, DIM))
    assert not torch.allclose(net.attention(x[:, 4], x[:, 1:3]), net.attention(x[:, 4], x[:, 1:2]))


def test_weights_depend_on_the_target(x: Tensor) -> None:
    net = din().net
    with torch.no_grad():
        q, other = (net.attention(x[row : row + 1, 4], x[:1, 1:2]) for row in (0, 1))
    ratio = other / q
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # one weight for all of a value's numbers
    assert abs(float(ratio[0, 0]) - 1) > 1e-3


def test_an_empty_place_stays_empty_behind_the_adapter(x: Tensor) -> None:
    model = din()
    x[:, 2] = 0
    assert model.adapter is not None
    assert torch.equal(model.adapter(x)[:, 2], torch.zeros(5, DIM))


def test_positions_are_those_after_dropping(x: Tensor) -> None:
    model = din(drop_fields=["user", "past[1]"])
    assert (model.net.target, model.net.begin, model.net.end) == (2, 0, 2)
    changed = x.clone()
    changed[:, [0, 2]] = 9.0
    assert torch.equal(model(x), model(changed))
    changed[:, 3] = 9.0
    assert not torch.allclose(model(x), model(changed))


@pytest.mark.parametrize(
    ("target", "sequence", "dropped", "words"),
    [
        ("itm", "past", [], "target 'itm' is not among its fields; it sees user, past"),
        ("item", "history", [], "sequence 'history' is not among its fields"),
        ("item", "mean", [], "sequence 'mean' is not an unpooled sequence field"),
        ("item", "hour", [], "sequence 'hour' is not an unpooled"),
        ("item", "past[0]", [], r"sequence 'past\[0\]' is not an unpooled"),
        ("past", "past", [], "target 'past' is not a field with one vector"),
        ("item", "past", ["item"], "target 'item' is not among its fields"),
        ("item", "past", ["past"], "sequence 'past' is not among its fields"),
    ],
)
def test_it_must_have_its_fields(target: str, sequence: str, dropped: list[str], words: str) -> None:
    mine = spec(params={"target": target, "sequence": sequence}, drop_fields=dropped)
    with pytest.raises(ConfigError, match=f"candidate 'd', params of 'din': {words}"):
        mine.kept_fields(FIELDS)


def test_it_must_be_told_its_fields() -> None:
    with pytest.raises(ValueError, match="missing key 'target'"):
        CandidateSpec(name="d", arch="din")


def test_it_learns_what_a_deep_net_of_its_size_does_not() -> None:
    """A value seen is a kind and whether it was liked; the target is of a kind seen; the label says whether that one was liked."""
    rng, n, length, kinds = np.random.default_rng(0), 3000, 8, 12
    kind = np.array([rng.permutation(kinds)[:length] for _ in range(n)])
    liked, place = rng.choice([-1, 1], (n, length)), rng.integers(0, length, n)
    past = np.concatenate([np.eye(kinds)[kind], liked[:, :, None]], axis=2)
    target = past[np.arange(n), place] * (np.arange(kinds + 1) < kinds)
    x = torch.tensor(np.concatenate([target[:, None], past], axis=1), dtype=torch.float32)
    label = liked[np.arange(n), place] > 0
    hard = torch.tensor(np.where(label, np.inf, -np.inf)[:, None])
    examples, student = (
        Examples(x[:2000], hard[:2000], torch.ones(2000)),
        StudentConfig(steps=200, batch_size=128, lr=0.02),
    )
    names, auc = ["item", *(f"past[{k}]" for k in range(length))], {}
    for arch, params in (("din", {"target": "item", "sequence": "past"}), ("dnn", {})):
        spec = CandidateSpec(name="a", arch=arch, params={"hidden": [16], **params})
        module = build(spec, names, kinds + 1, 1, seed=0)
        theta = train_student(module, examples, student, seed=0)
        auc[arch] = roc_auc_score(label[2000:], predict(module, theta, x[2000:])[:, 0])
    assert auc["din"] > 0.95, auc
    assert auc["dnn"] < 0.8, auc


SCHEMA = Schema.model_validate(
    {
        "name": "shop",
        "time": {"column": "time", "unit": "s"},
        "user": "user",
        "tasks": ["click"],
        "fields": [
            {"name": "user", "kind": "hashed", "buckets": 30},
            {"name": "past", "kind": "sequence", "of": "item", "length": 3, "pool": "none"},
            {"name": "item", "kind": "vocabulary"},
            {"name": "liked", "kind": "sequence", "of": "item", "length": 4, "column": "past"},
        ],
    }
)
PAST = slice(1, 4)
"""Slots of `past`."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three days of a shop, a file each. What a user has clicked is the history of what it sees later; of user 0 none is known."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    clicked: dict[int, list[str]] = {}
    paths = []
    for day in range(3):
        rows: dict[str, list] = {"time": [], "user": [], "item": [], "past": [], "click": []}
        for second in range(300):
            user = int(rng.integers(25))
            item = f"i{rng.integers(10 + 5 * day)}"
            past = clicked.setdefault(user, [])
            click = bool(rng.random() < (0.7 if item in past[-3:] else 0.3))
            for name, value in zip(
                rows, (86_400 * day + second, user, item, list(past) if user else None, click), strict=True
            ):
                rows[name].append(value)
            if click:
                past.append(item)
        paths.append(folder / f"{day}.parquet")
        pq.write_table(pa.table(rows), paths[-1])
    return paths


@pytest.fixture
def log(files: list[Path], tmp_path: Path) -> Log:
    ingest(SCHEMA, files, tmp_path / "log", by="day", shard_rows=128)
    return open_log(tmp_path / "log")


def test_a_log_with_histories(files: list[Path], log: Log, tmp_path: Path) -> None:
    assert verify(log.path) == []
    rows, raw = log.read_block(log.blocks[1]), pq.read_table(files[1])
    of_item = {value: int(id_) for value, id_ in zip(raw["item"].to_pylist(), rows.ids[:, 4], strict=True)}
    for ids, past in zip(rows.ids.tolist(), raw["past"].to_pylist(), strict=True):
        newest = [of_item[item] for item in reversed(past or [])]
        assert ids[PAST] == (newest + [0] * 3)[:3]
        assert ids[5:] == (newest + [0] * 4)[:4]
    # Day after day the log is the same.
    ingest(SCHEMA, files[:1], tmp_path / "grown", by="day", shard_rows=128)
    append(SCHEMA, files, tmp_path / "grown", by="day", now=1e9, shard_rows=128)
    assert small_run.bytes_of(tmp_path / "grown") == small_run.bytes_of(log.path)


def test_from_a_log_with_histories_to_a_verdict(log: Log, tmp_path: Path) -> None:
    net = {
        "name": "din",
        "arch": "din",
        "params": {"hidden": [8], "attention_hidden": [4], "target": "item", "sequence": "past"},
    }
    raw = small_run.config(log.path).model_dump(mode="json")
    raw["reference"]["nets"][1] = {**net, "adapter": False}
    raw["refine"]["proxies"] = [net]
    stream = StreamConfig.model_validate(raw)
    run = small_run.local_run(tmp_path / "run", stream)
    assert verify(run) == []

    memory = load_memory(run)
    units, slots = memory.units, torch.tensor(SCHEMA.field_of_slot)
    assert memory.x.shape[1:] == (6, 4)
    embedded = lookup(memory.table, torch.tensor(units.ids), slots)
    empty = torch.tensor(units.ids[:, PAST] == 0)
    assert empty.any()
    assert not empty.all()
    assert (embedded[:, PAST][empty] == 0).all()
    # An item has one embedding, as target and in the history of others.
    at = np.argwhere(units.ids[:, PAST, None] == units.ids[None, None, :, 4].reshape(1, 1, -1))
    for m, place, other in at[:20]:
        assert torch.equal(embedded[m, 1 + place], embedded[other, 4])

    spec, rows = CandidateSpec.model_validate(net), log.read_block(log.blocks[-1])
    examples = Examples(memory.x, torch.tensor(units.logit), torch.tensor(units.weight))
    verdict = judge(spec, examples, memory.table, rows, SCHEMA, stream.student, seed=0, trained_on="memory")
    assert 0 < verdict.metrics["click"]["auc"] < 1
    # It looks at the history of real rows: without one its logits are others where there was one, and the same elsewhere.
    module = build(spec, SCHEMA.field_names, 4, 1, seed=0)
    theta, x = FlatNet(module).initial(), lookup(memory.table, torch.tensor(rows.ids), slots)
    bare = x.clone()
    bare[:, 1:4] = 0
    had = (rows.ids[:, PAST] != 0).any(axis=1)
    moved = (predict(module, theta, x) != predict(module, theta, bare))[:, 0].numpy()
    assert 0 < had.sum() < len(had)
    assert (moved == had).all()

    manifest = export_memory(run, tmp_path / "out")
    assert manifest.fields == ["user", "past[0]", "past[1]", "past[2]", "item", "liked"]
    assert manifest.slots == [0, 1, 2, 3, 4, 5, 5, 5, 5]
    assert "past[0], past[1], past[2]" in (tmp_path / "out" / "README.md").read_text()
    assert [part.field for part in inspect(run).fields] == manifest.fields
