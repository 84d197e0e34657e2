"""A launch: what it starts from, what it learns, and that what follows goes on from there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import diet_ray
from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import RefineConfig, StudentConfig
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.launch import LaunchRecipe, Width, launch
from diet_ray.judge.live import go_live, live_rows
from diet_ray.judge.progressive import progressive, row_losses
from diet_ray.judge.start import Start, load_start
from diet_ray.logs.blocks import Log, open_log
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.layout import stage_folder
from diet_ray.report.export import export_memory
from diet_ray.seeds import derive_seed
from diet_ray.storage.hashes import sha256
from diet_ray.training.reference import Reference
from diet_ray.training.student import cosine, student_order
from tests.support.small_run import config, local_run
from tests.support.synthetic import write_log

NET = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})
SHORT = LaunchRecipe(student=StudentConfig(steps=30, batch_size=16, lr=3e-3))


@pytest.fixture(scope="module")
def start(finished: Path) -> Start:
    """After two of the four blocks."""
    return load_start(stage_folder(finished, 1))


@pytest.fixture(scope="module")
def memory(finished: Path) -> Memory:
    """The memory of `start`."""
    return load_memory(stage_folder(finished, 1))


@pytest.fixture(scope="module")
def opened(log: Path) -> Log:
    return open_log(log)


def state(model: Reference) -> dict[str, Tensor]:
    return model.checkpoint() | model.optimiser_state()


def test_the_same_launch_gives_the_same_bytes(start: Start, opened: Log) -> None:
    rows = live_rows(opened, opened.blocks[2], 0.5)
    dropout = NET.model_copy(update={"params": {"hidden": [8], "dropout": 0.3}})
    first, again, other = (launch(start, dropout, seed=seed, recipe=SHORT) for seed in (1, 1, 2))
    assert all(torch.equal(value, state(again)[name]) for name, value in state(first).items())
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert np.array_equal(go_live(first, rows), go_live(again, rows))


def test_a_table_that_does_not_learn_is_the_references_and_the_net_learns_the_units(
    start: Start, memory: Memory
) -> None:
    """Written out with Adam from torch, on the inputs of a memory, deltas and all."""
    recipe = LaunchRecipe(student=StudentConfig(steps=9, batch_size=16, lr=3e-3, draw=0.0), table_lr_scale=0)
    model = launch(start, NET.model_copy(update={"lr_scale": 2.0}), seed=7, recipe=recipe)
    assert torch.equal(model.embedding.weight, memory.table)
    assert bool((memory.units.delta != 0).any())

    schema, plain = memory.stage.log_schema, NET.model_copy(update={"adapter": False})
    net = build(plain, schema.field_names, 4, 1, derive_seed(derive_seed(7, "own"), "net"))
    optimiser, rate = torch.optim.Adam(net.parameters()), cosine(recipe.student, 2.0)
    for step, pick in enumerate(student_order(len(memory), recipe.student, 7)):
        optimiser.param_groups[0]["lr"] = rate(step)
        optimiser.zero_grad()
        logits, target = net(memory.x[pick]), memory.soft_label[pick]
        binary_cross_entropy_with_logits(logits, target, memory.weight[pick, None]).backward()
        optimiser.step()
    for mine, written_out in zip(model.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, written_out, rtol=0, atol=1e-6)


def test_the_table_learns_from_the_reference_s_moments_on(start: Start) -> None:
    model = launch(start, NET, seed=0, recipe=SHORT)
    assert model.steps() == start.moments.step + 30
    moved = (model.embedding.weight != start.table).any(dim=1)
    met = np.unique(start.ids)
    assert set(np.flatnonzero(moved.numpy())) <= set(met.tolist()) - {0}
    assert int(moved.sum()) > len(met) // 2
    (group,) = model.table_optimiser.param_groups
    assert group["lr"] == start.reference.embedding_lr  # live it learns at its full rate
    assert model.net_optimiser.state == {}  # and the net begins as on the full log


def test_keys_of_the_table_hold(start: Start) -> None:
    spec = NET.model_copy(update={"embedding_lr": 0.05, "embedding_l2": 0.5})
    model = launch(start, spec, seed=0, recipe=SHORT)
    assert model.table_optimiser.param_groups[0]["lr"] == 0.05
    assert model.config.embedding_l2 == 0.5
    weaker = launch(start, spec.model_copy(update={"embedding_l2": None}), seed=0, recipe=SHORT)
    assert float(model.embedding.weight.detach().norm()) < float(weaker.embedding.weight.detach().norm())


def test_a_launch_beats_what_starts_from_nothing_and_from_the_table_alone(tmp_path: Path) -> None:
    log = open_log(write_log(tmp_path / "log", blocks=3, n=3000))
    stream = config(log.path)
    stream = stream.model_copy(
        update={
            "reference": stream.reference.model_copy(update={"lr": 5e-3, "embedding_lr": 0.02}),
            "refine": RefineConfig(rounds=0),
        }
    )
    start = load_start(local_run(tmp_path / "run", stream))
    rows = live_rows(log, log.blocks[2], 0.1)
    plain = NET.model_copy(update={"adapter": False})
    scratch, table = (
        Reference(log.schema, [plain], stream.reference, n_ids=len(start.table), seed=0) for _ in range(2)
    )
    with torch.no_grad():
        table.embedding.weight.copy_(start.table)
    models = {"launch": launch(start, NET, seed=0), "table": table, "scratch": scratch}
    losses = {name: float(row_losses(go_live(model, rows), rows.rows.labels).mean()) for name, model in models.items()}
    assert losses["launch"] < min(losses["table"], losses["scratch"]) - 0.02


@pytest.mark.parametrize("dim", [2, 7])
def test_another_width_is_honoured(start: Start, opened: Log, dim: int) -> None:
    model = launch(start, NET.model_copy(update={"embedding_dim": dim}), seed=0, recipe=SHORT)
    assert model.embedding.weight.shape == (len(start.table), dim)
    assert model.steps() == 30  # the moments of other columns are not taken over
    assert torch.equal(model.embedding.weight[0], torch.zeros(dim))
    assert np.isfinite(go_live(model, live_rows(opened, opened.blocks[2], 0.1))).all()


def test_a_narrower_table_keeps_most_of_a_wider_one(start: Start) -> None:
    table, delta = start.table, start.delta
    kept = [float(Width.of(table, dim, 0).table.norm()) for dim in (1, 2, 3, 4)]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(float(table.norm()))
    narrow = Width.of(table, 2, 0)
    assert narrow.directions is not None
    torch.testing.assert_close(narrow.directions.T @ narrow.directions, torch.eye(2))
    # No plane keeps more: the squares of the kept lengths are the two largest eigenvalues.
    eigenvalues = torch.linalg.eigvalsh(table.T @ table)
    assert float(narrow.table.norm() ** 2) == pytest.approx(float(eigenvalues[-2:].sum()), rel=1e-4)
    torch.testing.assert_close(narrow.delta(delta), delta @ narrow.directions)
    wide = Width.of(table, 6, 0)
    assert torch.equal(wide.table[:, :4], table)
    assert bool((wide.table[1:, 4:] != 0).all())
    assert torch.equal(wide.delta(delta)[:, :, :4], delta)
    assert not bool(wide.delta(delta)[:, :, 4:].any())


def test_a_net_of_the_users_is_launched(start: Start, opened: Log, user_code: Path) -> None:
    class Own(diet_ray.Net):
        Params = diet_ray.Settings

        def __init__(self, shape: diet_ray.Shape, params: diet_ray.Settings, generator: torch.Generator) -> None:
            super().__init__(shape, params, generator)
            self.weight = nn.Parameter(torch.randn(shape.width, shape.n_tasks, generator=generator) * 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight

    diet_ray.register_candidate("own-net")(Own)
    model = launch(start, CandidateSpec(name="own", arch="own-net"), seed=0, recipe=SHORT)
    assert np.isfinite(go_live(model, live_rows(opened, opened.blocks[2], 0.5))).all()


def test_a_net_that_diverges_live_is_measured_as_undefined(start: Start, opened: Log) -> None:
    model = launch(start, NET, seed=0, recipe=SHORT)
    for group in model.net_optimiser.param_groups:
        group["lr"] = 1e30
    rows = live_rows(opened, opened.blocks[2], 1)
    logits = go_live(model, rows)
    losses = row_losses(logits, rows.rows.labels)
    assert np.isfinite(losses[:64]).all()
    assert np.isnan(losses).any()
    measured = progressive(rows.rows, logits, opened.schema, blocks=rows.sizes, known_ids=rows.known_ids)
    assert measured.whole.undefined["label_0"]["logloss"] == "predictions are not finite"


def test_weights_of_units_count(start: Start, memory: Memory) -> None:
    """A unit of weight 0 teaches nothing."""
    half = torch.arange(len(memory)) % 2 == 0
    weighted = replace(start, weight=torch.where(half, 2.0, 0.0))
    spoilt = replace(weighted, soft_label=torch.where(half[:, None], start.soft_label, 1.0))
    recipe = LaunchRecipe(student=StudentConfig(steps=20, batch_size=16, draw=0))
    first, second = (launch(one, NET, seed=0, recipe=recipe) for one in (weighted, spoilt))
    assert torch.equal(first.embedding.weight, second.embedding.weight)


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The memory of `start`, deltas and all, for others."""
    out = tmp_path_factory.mktemp("exported") / "mine"
    export_memory(stage_folder(finished, 1), out, moments=True)
    return out


def test_an_export_launches_as_the_memory_does(start: Start, exported: Path) -> None:
    loaded = load_start(exported)
    assert (loaded.schema, loaded.reference) == (start.schema, start.reference)
    for name in ("table", "ids", "soft_label", "weight"):
        assert torch.equal(getattr(loaded, name), getattr(start, name)), name
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(loaded.moments, start.moments, strict=True)
    )
    # An export has inputs instead of deltas; their difference to the table's rows is rounded.
    torch.testing.assert_close(loaded.delta, start.delta, rtol=0, atol=1e-6)
    first, second = (launch(one, NET, seed=3, recipe=SHORT).embedding.weight for one in (start, loaded))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


def test_an_export_without_what_a_launch_needs_is_refused(finished: Path, tmp_path: Path) -> None:
    for name, keys, lacking in (("plain", {}, "moments of the table"), ("bare", {"ids": False}, "table")):
        export_memory(finished, tmp_path / name, **keys)
        with pytest.raises(ConfigError, match=f"an export without {lacking}, .*--moments and with its ids"):
            load_start(tmp_path / name)
    with pytest.raises(ConfigError, match="--moments: they are of the table, which --without-ids leaves out"):
        export_memory(finished, tmp_path / "both", ids=False, moments=True)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("moments.safetensors", None, r"moments\.safetensors: missing"),
        (
            "moments.safetensors",
            lambda about, file: save_file({"table/step": torch.tensor(1)}, file),
            r"'table/exp_avg': missing; export",
        ),
        (
            "embeddings.safetensors",
            lambda about, file: save_file({"table": torch.ones(2, 4)}, file),
            r"tensor 'table': not torch.float32",
        ),
        ("units-00000.parquet", lambda about, file: file.write_bytes(b"PAR1"), r"not a readable Parquet file"),
        (
            "units-00000.parquet",
            lambda about, file: pq.write_table(pq.read_table(file).slice(1), file),
            r"manifest\.json: says \d+ units of ids below",
        ),
        (
            "units-00000.parquet",
            lambda about, file: pq.write_table(pq.read_table(file).drop_columns(["weight"]), file),
            r"column 'weight': missing",
        ),
    ],
)
def test_a_damaged_export_is_named(exported: Path, tmp_path: Path, file: str, change: Any, message: str) -> None:
    """Changed files whose checksums were brought up to date too, as a careless hand would."""
    copy = tmp_path / "mine"
    shutil.copytree(exported, copy)
    about = json.loads((copy / "manifest.json").read_text())
    (copy / file).chmod(0o644)
    if change is None:
        (copy / file).unlink()
    else:
        change(about, copy / file)
        for entry in about["files"]:
            content = (copy / entry["path"]).read_bytes()
            entry |= {"bytes": len(content), "sha256": sha256(copy / entry["path"])}
        (copy / "manifest.json").chmod(0o644)
        (copy / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(CorruptArtefactError, match=message):
        load_start(copy)
