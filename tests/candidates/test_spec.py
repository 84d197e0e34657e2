"""Candidates: what is built from a spec, dropout, the specs' errors and the default pool."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diet_ray.candidates import (
    CandidateFile,
    CandidateSpec,
    Net,
    Shape,
    architectures,
    build,
    default_pool,
    import_modules,
    register,
    sources,
)
from diet_ray.candidates.layers import HiddenLayers
from diet_ray.config import ReferenceConfig, StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.settings import load_yaml, parse
from tests.support.small_nets import DIM, FIELDS, SMALL, make, spec_of, stir


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, len(FIELDS), DIM, generator=torch.Generator().manual_seed(1))


DEEP = [arch for arch, net in architectures().items() if "dropout" in net.Params.model_fields]


@pytest.mark.parametrize("arch", DEEP)
def test_dropout_is_for_training_alone(arch: str, x: Tensor) -> None:
    plain, model = make(arch, SMALL[arch]), make(arch, {**SMALL[arch], "dropout": 0.5})
    assert torch.equal(model.eval()(x), plain(x))  # the same parameters from the same seed, and no masks
    model.train()
    torch.manual_seed(3)
    first, second = model(x), model(x)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain(x))
    # One in each stack of hidden layers: WuKong has one more per layer, FinalMLP two streams and gates without any.
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates.count(0.5) == {"wukong": 3, "finalmlp": 2}.get(arch, 1)


def test_dropout_keeps_the_mean_of_a_hidden_layer() -> None:
    layers = HiddenLayers(5, (8,), "relu", torch.Generator().manual_seed(0), dropout=0.25)
    x = torch.randn(5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = layers.eval()(x)
        torch.manual_seed(0)
        drawn = layers.train()(x.expand(40_000, -1))
    alive = expected > 0
    assert 2 <= int(alive.sum()) < 8
    # Five standard deviations of a mean of 40,000 draws: sqrt(0.25 / 0.75 / 40,000) = 0.0029 of the value.
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0.015, atol=0)
    kept = drawn[:, alive] > 0
    assert abs(float(kept.double().mean()) - 0.75) < 0.008
    torch.testing.assert_close(drawn[:, alive][kept], (expected / 0.75)[alive].expand(40_000, -1)[kept])


def test_without_dropout_nothing_is_drawn(x: Tensor) -> None:
    state = torch.get_rng_state()
    for arch in SMALL:
        make(arch, SMALL[arch]).train()(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("arch", SMALL)
def test_build_depends_on_the_seed_alone(arch: str) -> None:
    torch.manual_seed(1)
    first = make(arch, SMALL[arch], seed=7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = make(arch, SMALL[arch], seed=7)
    other = make(arch, SMALL[arch], seed=8)
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("arch", SMALL)
def test_adapter_changes_nothing_at_the_start(arch: str, x: Tensor) -> None:
    plain, adapted = make(arch, SMALL[arch], adapter=False), make(arch, SMALL[arch])
    torch.testing.assert_close(adapted(x), plain(x), rtol=1e-6, atol=1e-6)
    extra = sum(p.numel() for p in adapted.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == len(FIELDS) * DIM * DIM


@pytest.mark.parametrize("arch", SMALL)
def test_dropped_fields_are_not_seen(arch: str, x: Tensor) -> None:
    model = make(arch, SMALL[arch], drop_fields=["item", "seen[1]"])
    stir(model)
    changed, seen = x.clone(), x.clone()
    changed[:, [1, 4]] = 9.0
    seen[:, 3] = 9.0
    assert torch.equal(model(x), model(changed))
    assert not torch.allclose(model(x), model(seen))
    assert "kept" not in model.state_dict()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"name": "a", "arch": "dnn", "params": {"hiden": [8]}},
            r"'a'.*unknown key 'hiden' \(did you mean 'hidden'\?\)",
        ),
        (
            {"name": "a", "arch": "dnn", "params": {"hidden": [8, 0]}},
            r"'a'.*key 'hidden\.1'.*greater than or equal to 1",
        ),
        ({"name": "a", "arch": "dnn", "params": {"hidden": []}}, r"'a'.*key 'hidden'"),
        ({"name": "a", "arch": "lr", "params": {"hidden": [8]}}, r"'a'.*unknown key 'hidden'"),
        ({"name": "a", "arch": "dcnv2", "params": {"structure": "serial"}}, r"'a'.*key 'structure'"),
        ({"name": "a", "arch": "dcnv3"}, r"'a'.*unknown arch 'dcnv3' \(did you mean 'dcnv2'\?\)"),
        ({"name": "a", "arch": "lr", "dropfields": []}, r"unknown key '.*dropfields' \(did you mean 'drop_fields'\?\)"),
        ({"name": "a", "arch": "lr", "lr_scale": 0.0}, r"key '.*lr_scale'"),
        ({"name": "a", "arch": "dnn", "params": {"dropout": 1.0}}, r"'a'.*key 'dropout'.*less than 1"),
        ({"name": "a", "arch": "lr", "params": {"dropout": 0.1}}, r"'a'.*unknown key 'dropout'"),
        (
            {"name": "a", "arch": "finalmlp", "params": {"second_hidden": [130]}},
            r"'a'.*heads \(4\) must divide the last width of second_hidden \(130\)",
        ),
        ({"name": "a/b", "arch": "lr"}, r"key '.*name'"),
        ({"arch": "lr"}, r"missing key '.*name'"),
    ],
)
def test_a_mistaken_spec_is_a_config_error(raw: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^c\.yaml: .*" + message):
        parse(CandidateFile, {"candidates": [raw]}, where="c.yaml")


def test_names_are_unique() -> None:
    raw = {"candidates": [{"name": "a", "arch": "lr"}, {"name": "a", "arch": "fm"}]}
    with pytest.raises(ConfigError, match="candidate 'a' is given twice"):
        parse(CandidateFile, raw, where="c.yaml")


def test_unknown_dropped_field_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"candidate 'my-lr', key 'drop_fields'.*'usr' \(did you mean 'user'\?\)"):
        make("lr", {}, drop_fields=["usr"])
    with pytest.raises(ConfigError, match="keep at least one"):
        make("lr", {}, drop_fields=FIELDS)


def test_a_sequence_is_dropped_by_its_name_or_by_places(x: Tensor) -> None:
    assert spec_of("lr", {}, drop_fields=["seen"]).kept_fields(FIELDS) == [0, 1, 2]
    assert spec_of("lr", {}, drop_fields=["user", "seen[1]"]).kept_fields(FIELDS) == [1, 2, 3]
    model = make("dnn", SMALL["dnn"], drop_fields=["seen"])
    changed = x.clone()
    changed[:, 3:] = 9.0
    assert torch.equal(model(x), model(changed))


def test_default_pool_builds_every_architecture() -> None:
    pool = default_pool()
    x = torch.randn(4, 18, 16)
    names = [f"f{i}" for i in range(18)]
    for spec in pool.candidates:
        assert build(spec, names, 16, 2, 0)(x).shape == (4, 2)
    # DIN must be told which field is the history: no pool for all logs can have it.
    assert {spec.arch for spec in pool.candidates} == set(SMALL) - {"din"} == set(architectures()) - {"din"}
    # Every candidate is an experiment of its own: no two differ by their names alone.
    settings = {
        spec.model_copy(update={"params": spec.hyper_parameters().model_dump(), "name": ""}).model_dump_json()
        for spec in pool.candidates
    }
    assert len(settings) == len(pool.candidates) >= 20


def test_a_file_of_candidates_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("candidates:\n- {name: a, arch: dnn, params: {hidden: [8]}, drop_fields: [user], lr_scale: 0.1}\n")
    (spec,) = load_yaml(CandidateFile, path).candidates
    assert CandidateSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.hyper_parameters().hidden == (8,)
    assert (spec.kept_fields(FIELDS), spec.lr_scale) == ([1, 2, 3, 4], 0.1)


def test_an_architecture_registers_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):

        @register("lr")
        class Again(Net):
            pass


def test_what_is_no_net_is_refused() -> None:
    for other in (dict, 3):
        with pytest.raises(
            TypeError, match=r"architecture 'bare': .* is neither a subclass of diet_ray\.Net nor a function"
        ):
            register("bare")(other)

    with pytest.raises(TypeError, match=r"Bare has no Params, a subclass of diet_ray\.Settings"):

        @register("bare")
        class Bare(Net):
            pass

    assert "bare" not in architectures()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is put back after the test."""
    monkeypatch.setattr("diet_ray.candidates.registry._REGISTRY", architectures())


def plain(shape: Shape) -> nn.Module:
    """A net of torch's own layers, which draw their weights from the global random state."""
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.width, 8), nn.ReLU(), nn.Linear(8, shape.n_tasks))


def parameters_of(spec: CandidateSpec, seed: int) -> torch.Tensor:
    """All initial parameters of the net, flat."""
    return torch.cat([part.flatten() for part in build(spec, FIELDS, DIM, 2, seed).parameters()])


def test_torchs_own_layers_depend_on_the_seed_alone(registered: None) -> None:
    assert register("plain")(plain) is plain
    register("short")(lambda shape: plain(shape))
    for arch in ("plain", "short"):
        spec = CandidateSpec(name="a", arch=arch)
        torch.manual_seed(1)
        first = parameters_of(spec, 5)
        state = torch.get_rng_state()
        assert torch.equal(parameters_of(spec, 5), first)
        assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers go on
        assert not torch.equal(parameters_of(spec, 6), first)
    with pytest.raises(ValueError, match="unknown key 'width'"):
        CandidateSpec(name="a", arch="plain", params={"width": 3})


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (
            lambda shape: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(shape.width)),
            r"made\.1 \(BatchNorm1d\) learns from",
        ),
        (lambda shape: nn.Linear(shape.dim, shape.n_tasks), r"give the shape \[3, 5, 2\], must be \[3, 2\]"),
    ],
)
def test_a_net_that_cannot_be_trained_here_is_refused(made: Any, problem: str, registered: None) -> None:
    register("made")(made)
    with pytest.raises(ConfigError, match=rf"candidate 'a', arch 'made': .*{problem}"):
        build(CandidateSpec(name="a", arch="made"), FIELDS, DIM, 2, 0)


def test_a_factory_that_makes_no_module_is_named(registered: None) -> None:
    register("made")(lambda shape: "a net")
    with pytest.raises(ConfigError, match="candidate 'a', arch 'made': it made str, no torch module"):
        build(CandidateSpec(name="a", arch="made"), FIELDS, DIM, 2, 0)


MODULE = """
import diet_ray

class Params(diet_ray.Settings):
    width: int = 3

@diet_ray.register_candidate("{arch}")
class Mine(diet_ray.Net):
    Params = Params
"""


def test_user_code_registers_from_its_folder(user_code: Path) -> None:
    (user_code / "nets_of_a_user.py").write_text(MODULE.format(arch="of-a-user"))
    import_modules(["nets_of_a_user"], user_code)
    assert CandidateSpec(name="a", arch="of-a-user", params={"width": 5}).hyper_parameters().width == 5
    assert sources(["nets_of_a_user"]) == [user_code / "nets_of_a_user.py"]
    importlib.reload(importlib.import_module("nets_of_a_user"))  # as in a notebook: no second claim
    import_modules(["nets_of_a_user"], user_code)


@pytest.mark.parametrize(
    ("code", "why"), [(None, "No module named 'absent_nets'"), ("1 / 0", "ZeroDivisionError: division by zero")]
)
def test_a_module_that_cannot_be_imported_is_named(user_code: Path, code: str | None, why: str) -> None:
    if code:
        (user_code / "absent_nets.py").write_text(code)
    with pytest.raises(ValueError, match=rf"module 'absent_nets' cannot be imported, looked for in .* \(.*{why}\)"):
        import_modules(["absent_nets"], user_code)


def test_keys_of_an_own_table_are_written_only_where_they_are_set() -> None:
    plain = CandidateSpec(name="a", arch="fm")
    assert set(plain.model_dump()) == {"name", "arch", "params", "adapter", "drop_fields", "lr_scale"}
    assert plain.embedding_keys == []
    tuned = CandidateSpec(name="a", arch="fm", embedding_lr=1e-3, embedding_dim=8)
    assert tuned.embedding_keys == ["embedding_lr", "embedding_dim"]
    assert CandidateSpec.model_validate_json(tuned.model_dump_json()) == tuned
    own = ReferenceConfig(embedding_l2=0.5).own(tuned)
    assert (own.embedding_lr, own.embedding_l2, own.dim) == (1e-3, 0.5, 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"reference": {"nets": [{"name": "a", "arch": "fm", "adapter": False, "embedding_lr": 0.1}]}},
            "'a' has embedding_lr, but the nets share one table; set reference.embedding_lr",
        ),
        (
            {"refine": {"proxies": [{"name": "a", "arch": "fm", "embedding_dim": 4}]}},
            "'a' has embedding_dim, but a proxy has no table of its own",
        ),
    ],
)
def test_a_net_without_a_table_of_its_own_takes_no_such_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(StreamConfig, {"log": "log", **config}, where="run.yaml")


@pytest.mark.parametrize("change", [{"embedding_lr": 0}, {"embedding_l2": -1}, {"embedding_dim": 0}])
def test_a_bad_key_of_an_own_table_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        parse(CandidateSpec, {"name": "a", "arch": "fm", **change}, where="pool.yaml")
