from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from diet_ray.candidates import (
    Candidate,
    CandidateFile,
    CandidateSpec,
    Net,
    architectures,
    build,
    default_pool,
    register,
)
from diet_ray.errors import ConfigError
from diet_ray.settings import load_yaml, parse

FIELDS = ["user", "item", "hour", "place", "tag"]
DIM = 4
SMALL = {
    "lr": {},
    "fm": {},
    "dnn": {"hidden": [7, 6]},
    "deepfm": {"hidden": [7, 6], "activation": "silu"},
    "dcnv2": {"hidden": [7, 6], "cross_layers": 2, "rank": 3},
    "autoint": {"hidden": [7], "attention_layers": 2, "heads": 2, "head_dim": 3},
    "wukong": {"layers": 2, "fmb": 3, "lcb": 2, "rank": 3, "fmb_hidden": [6], "hidden": [5]},
}
VARIANTS = [
    *SMALL.items(),
    ("dcnv2", {"hidden": [7], "cross_layers": 2, "rank": 0, "structure": "stacked"}),
    ("wukong", {"layers": 1, "fmb": 2, "lcb": 2, "rank": 0, "fmb_hidden": [6], "hidden": [5]}),
]
ids = [f"{arch}-{i}" for i, (arch, _) in enumerate(VARIANTS)]


def spec_of(arch: str, params: dict, **more: object) -> CandidateSpec:
    return CandidateSpec(name=f"my-{arch}", arch=arch, params=params, **more)


def make(arch: str, params: dict, n_tasks: int = 1, seed: int = 0, **more: object) -> Candidate:
    return build(spec_of(arch, params, **more), FIELDS, DIM, n_tasks, seed)


def stir(model: nn.Module) -> None:
    """Move every parameter off its start, so that no bias is zero and no map the identity."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, len(FIELDS), DIM, generator=torch.Generator().manual_seed(1))


# The definitions, one row at a time in float64, written from the papers. `p` holds a net's parameters by name.


def affine(p: dict[str, np.ndarray], name: str, v: np.ndarray) -> np.ndarray:
    out = []
    for o in range(len(p[f"{name}.weight"])):
        bias = p[f"{name}.bias"][o] if f"{name}.bias" in p else 0.0
        out.append(bias + sum(p[f"{name}.weight"][o][i] * v[i] for i in range(len(v))))
    return np.array(out)


def mlp(p: dict[str, np.ndarray], name: str, v: np.ndarray, activation: str = "relu") -> np.ndarray:
    layer = 0
    while f"{name}.hidden.{layer}.weight" in p:
        v = affine(p, f"{name}.hidden.{layer}", v)
        v = np.maximum(v, 0) if activation == "relu" else v / (1 + np.exp(-v))
        layer += 1
    return affine(p, f"{name}.out", v)


def layer_norm(p: dict[str, np.ndarray], name: str, v: np.ndarray) -> np.ndarray:
    return (v - v.mean()) / np.sqrt(v.var() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def slow_lr(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    return affine(p, "out", e.reshape(-1))


def slow_fm(p: dict, e: np.ndarray, params: dict, at: str = "") -> np.ndarray:
    logits = affine(p, f"{at}first", e.reshape(-1))
    for t, i, j in itertools.product(range(len(logits)), range(len(e)), range(len(e))):
        if i < j:
            logits[t] += sum(p[f"{at}second.weight"][t][k] * e[i][k] * e[j][k] for k in range(e.shape[1]))
    return logits


def slow_dnn(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    return mlp(p, "mlp", e.reshape(-1))


def slow_deepfm(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    return slow_fm(p, e, params, "fm.") + mlp(p, "mlp", e.reshape(-1), params["activation"])


def slow_dcnv2(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    x0 = xl = e.reshape(-1)
    for layer in range(params["cross_layers"]):
        w = p[f"cross.{layer}.up.weight"]
        if params["rank"]:
            w = w @ p[f"cross.{layer}.down.weight"]
        xl = x0 * (w @ xl + p[f"cross.{layer}.up.bias"]) + xl
    if params.get("structure") == "stacked":
        return mlp(p, "mlp", xl)
    return affine(p, "out", xl) + mlp(p, "mlp", x0)


def slow_autoint(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    z = e
    for layer in range(params["attention_layers"]):
        q, k, v, r = (p[f"attention.{layer}.{part}.weight"] for part in ("query", "key", "value", "residual"))
        out = np.zeros((len(z), len(q)))
        for head in range(params["heads"]):
            cut = slice(head * params["head_dim"], (head + 1) * params["head_dim"])
            for m in range(len(z)):
                a = np.array([np.exp((q[cut] @ z[m]) @ (k[cut] @ z[n])) for n in range(len(z))])
                out[m, cut] = sum(a[n] / a.sum() * (v[cut] @ z[n]) for n in range(len(z)))
        z = np.maximum(out + np.array([r @ row for row in z]), 0)
    return affine(p, "out", z.reshape(-1)) + mlp(p, "mlp", e.reshape(-1))


def slow_wukong(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    for layer in range(params["layers"]):
        at = f"layers.{layer}."
        dots = np.array([[a @ b for b in e] for a in e])
        if params["rank"]:
            dots = dots @ p[f"{at}project.weight"].T
        fmb = mlp(p, f"{at}fm_mlp", layer_norm(p, f"{at}fm_norm", dots.reshape(-1))).reshape(params["fmb"], -1)
        both = np.concatenate([fmb, p[f"{at}compress.weight"] @ e])
        residual = p[f"{at}residual.weight"] @ e if f"{at}residual.weight" in p else e
        e = np.array([layer_norm(p, f"{at}norm", row) for row in both + residual])
    return mlp(p, "mlp", e.reshape(-1))


SLOW = {
    "lr": slow_lr,
    "fm": slow_fm,
    "dnn": slow_dnn,
    "deepfm": slow_deepfm,
    "dcnv2": slow_dcnv2,
    "autoint": slow_autoint,
    "wukong": slow_wukong,
}


@pytest.mark.parametrize("n_tasks", [1, 3])
@pytest.mark.parametrize(("arch", "params"), VARIANTS, ids=ids)
def test_net_is_its_definition(arch: str, params: dict, n_tasks: int, x: Tensor) -> None:
    model = make(arch, params, n_tasks, drop_fields=["hour"])
    stir(model)
    logits = model(x)
    assert logits.shape == (6, n_tasks)
    assert logits.dtype == torch.float32
    p = {name: value.double().numpy() for name, value in model.net.state_dict().items()}
    a = model.adapter.weight.detach().double().numpy()
    kept = np.delete(x.double().numpy(), FIELDS.index("hour"), axis=1)
    adapted = [np.array([row[f] @ a[f] for f in range(4)]) for row in kept]
    direct = np.array([SLOW[arch](p, row, params) for row in adapted])
    np.testing.assert_allclose(logits.detach().numpy(), direct, rtol=2e-4, atol=2e-4)
    # Every parameter takes part: none is dead weight that a direct formula also ignores.
    grads = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    assert all(g.abs().max() > 0 for g in grads)


def test_wukong_of_equal_width_has_a_plain_residual(x: Tensor) -> None:
    params = {"layers": 1, "fmb": 3, "lcb": 2, "rank": 2, "fmb_hidden": [6], "hidden": [5]}
    model = make("wukong", params, adapter=False)
    stir(model)
    p = {name: value.double().numpy() for name, value in model.net.state_dict().items()}
    assert "layers.0.residual.weight" not in p
    direct = np.array([slow_wukong(p, row, params) for row in x.double().numpy()])
    np.testing.assert_allclose(model(x).detach().numpy(), direct, rtol=2e-4, atol=2e-4)


def test_fm_starts_as_the_plain_one(x: Tensor) -> None:
    net = make("fm", {}).net
    pairs = sum((x[:, i] * x[:, j]).sum(1) for i, j in itertools.combinations(range(len(FIELDS)), 2))
    torch.testing.assert_close(net(x) - net.first(x.flatten(1)), pairs[:, None])


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
    model = make(arch, SMALL[arch], drop_fields=["item", "tag"])
    stir(model)
    changed, seen = x.clone(), x.clone()
    changed[:, [1, 4]] = 9.0
    seen[:, 3] = 9.0
    assert torch.equal(model(x), model(changed))
    assert not torch.allclose(model(x), model(seen))
    assert "kept" not in model.state_dict()


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("arch", SMALL)
def test_vmap_over_stacked_parameters_is_a_loop(arch: str, adapter: bool, x: Tensor) -> None:
    models = [make(arch, SMALL[arch], 2, seed, adapter=adapter, drop_fields=["hour"]) for seed in range(3)]
    y = (x[:, 0, :2] > 0).float()

    def loss(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(functional_call(models[0], (params, buffers), (x,)), y)

    params, buffers = stack_module_state(models)
    stacked = vmap(grad(loss))(params, buffers)
    for k, model in enumerate(models):
        named = dict(model.named_parameters())
        single = torch.autograd.grad(F.binary_cross_entropy_with_logits(model(x), y), list(named.values()))
        for name, g in zip(named, single, strict=True):
            torch.testing.assert_close(stacked[name][k], g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("arch", "params"), VARIANTS, ids=ids)
def test_double_backward_is_that_of_finite_differences(arch: str, params: dict, x: Tensor) -> None:
    """The meta-gradient's core: how the loss after one inner step depends on that step's input."""
    model = make(arch, params).double()
    stir(model)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    y = (x[:, :1, 0] > 0).double()

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(functional_call(model, weights, (x,)), y)

    inputs = x.double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    held = 1.5 * inputs

    def after_step(x: Tensor) -> Tensor:
        step = grad(loss)(weights, x)
        return loss({name: p - 0.1 * step[name] for name, p in weights.items()}, held)

    meta = grad(after_step)(inputs)
    assert torch.isfinite(meta).all()
    h = 1e-6
    numeric = (after_step(inputs + h * direction) - after_step(inputs - h * direction)) / (2 * h)
    torch.testing.assert_close((meta * direction).sum(), numeric, rtol=1e-4, atol=1e-9)


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


def test_default_pool_builds_every_architecture() -> None:
    pool = default_pool()
    x = torch.randn(4, 18, 16)
    names = [f"f{i}" for i in range(18)]
    for spec in pool.candidates:
        assert build(spec, names, 16, 2, 0)(x).shape == (4, 2)
    assert {spec.arch for spec in pool.candidates} == set(SMALL) == set(architectures())


def test_a_file_of_candidates_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("candidates:\n- {name: a, arch: dnn, params: {hidden: [8]}, drop_fields: [user], lr_scale: 0.1}\n")
    (spec,) = load_yaml(CandidateFile, path).candidates
    assert CandidateSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.hyper_parameters().hidden == (8,)
    assert spec.kept_fields(FIELDS) == [1, 2, 3, 4]


def test_an_architecture_registers_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):

        @register("lr")
        class Again(Net):
            pass
