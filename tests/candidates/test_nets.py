"""Each architecture against its definition, written apart, and under the transforms that refinement needs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from tests.support.small_nets import DIM, FIELDS, SMALL, VARIANT_IDS, VARIANTS, make, stir


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


def hidden(p: dict[str, np.ndarray], name: str, v: np.ndarray, activation: str = "relu") -> np.ndarray:
    layer = 0
    while f"{name}.hidden.{layer}.weight" in p:
        v = affine(p, f"{name}.hidden.{layer}", v)
        v = np.maximum(v, 0) if activation == "relu" else v * sigmoid(v)
        layer += 1
    return v


def mlp(p: dict[str, np.ndarray], name: str, v: np.ndarray, activation: str = "relu") -> np.ndarray:
    return affine(p, f"{name}.out", hidden(p, name, v, activation))


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


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


def slow_dlrm(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    vectors = [p["dense"], *e]
    return mlp(p, "mlp", np.array([a @ b for a, b in itertools.combinations(vectors, 2)]))


def slow_xdeepfm(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    maps, pooled = e, []
    for layer, count in enumerate(params["cin"]):
        w = p[f"cin.layers.{layer}.weight"].reshape(count, len(maps), len(e))
        maps = np.array(
            [
                sum(w[h, i, j] * maps[i] * e[j] for i, j in itertools.product(range(len(maps)), range(len(e))))
                for h in range(count)
            ]
        )
        pooled += [one.sum() for one in maps]
    flat = e.reshape(-1)
    return affine(p, "first", flat) + affine(p, "out", np.array(pooled)) + mlp(p, "mlp", flat)


def slow_finalmlp(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    outputs = []
    for stream in ("first", "second"):
        gate = 2 * sigmoid(mlp(p, f"{stream}.gate", p[f"{stream}.context"]))
        outputs.append(hidden(p, f"{stream}.deep", gate * e.reshape(-1)))
    logits = affine(p, "out_first", outputs[0]) + affine(p, "out_second", outputs[1])
    first, second = (np.split(o, params["heads"]) for o in outputs)
    for t, h in itertools.product(range(len(logits)), range(params["heads"])):
        logits[t] += first[h] @ p["bilinear"][t, h] @ second[h]
    return logits


def slow_gdcn(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    c0 = c = e.reshape(-1)
    for layer in range(params["cross_layers"]):
        at = f"cross.{layer}."
        c = c0 * affine(p, f"{at}cross", c) * sigmoid(affine(p, f"{at}gate", c)) + c
    if params.get("structure") == "stacked":
        return mlp(p, "mlp", c)
    return affine(p, "out", c) + mlp(p, "mlp", c0)


def slow_din(p: dict, e: np.ndarray, params: dict) -> np.ndarray:
    fields = [name for name in FIELDS if name != "hour"]
    activation, q = params["activation"], e[fields.index(params["target"])]
    history = [f for f, name in enumerate(fields) if name.startswith(params["sequence"])]
    interest = np.zeros(e.shape[1])
    for k in (e[f] for f in history):
        weight = mlp(
            p, "attention.weigh", np.concatenate([q, k, q - k, [a * b for a, b in zip(q, k, strict=True)]]), activation
        )
        interest += weight[0] * k
    rest = [e[f] for f in range(len(fields)) if f not in history]
    return mlp(p, "mlp", np.concatenate([*rest, interest]), activation)


SLOW = {
    "lr": slow_lr,
    "fm": slow_fm,
    "dnn": slow_dnn,
    "deepfm": slow_deepfm,
    "dcnv2": slow_dcnv2,
    "autoint": slow_autoint,
    "wukong": slow_wukong,
    "dlrm": slow_dlrm,
    "xdeepfm": slow_xdeepfm,
    "finalmlp": slow_finalmlp,
    "gdcn": slow_gdcn,
    "din": slow_din,
}


@pytest.mark.parametrize("n_tasks", [1, 3])
@pytest.mark.parametrize(("arch", "params"), VARIANTS, ids=VARIANT_IDS)
def test_net_is_its_definition(arch: str, params: dict, n_tasks: int, x: Tensor) -> None:
    model = make(arch, params, n_tasks, drop_fields=["hour"])
    stir(model)
    logits = model(x)
    assert logits.shape == (6, n_tasks)
    assert logits.dtype == torch.float32
    p = {name: value.double().numpy() for name, value in model.net.state_dict().items()}
    a = model.adapter.weight.detach().double().numpy()
    kept = np.delete(x.double().numpy(), FIELDS.index("hour"), axis=1)
    adapted = [np.array([row[f] @ a[f] for f in range(len(row))]) for row in kept]
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


def test_xdeepfm_does_not_depend_on_how_rows_are_split(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> None:
    net = make("xdeepfm", SMALL["xdeepfm"], 2)
    whole = net(x)
    monkeypatch.setattr("diet_ray.candidates.xdeepfm.ROWS", 4)
    torch.testing.assert_close(net(x), whole)


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


@pytest.mark.parametrize(("arch", "params"), VARIANTS, ids=VARIANT_IDS)
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
