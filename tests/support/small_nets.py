"""Every architecture, small enough for tests."""

from __future__ import annotations

import torch
from torch import nn

from diet_ray.candidates import Candidate, CandidateSpec, build

FIELDS = ["user", "item", "hour", "seen[0]", "seen[1]"]
DIM = 4
SMALL = {
    "lr": {},
    "fm": {},
    "dnn": {"hidden": [7, 6]},
    "deepfm": {"hidden": [7, 6], "activation": "silu"},
    "dcnv2": {"hidden": [7, 6], "cross_layers": 2, "rank": 3},
    "autoint": {"hidden": [7], "attention_layers": 2, "heads": 2, "head_dim": 3},
    "wukong": {"layers": 2, "fmb": 3, "lcb": 2, "rank": 3, "fmb_hidden": [6], "hidden": [5]},
    "dlrm": {"hidden": [7, 6]},
    "xdeepfm": {"hidden": [7, 6], "cin": [3, 4, 2]},
    "finalmlp": {"hidden": [7, 6], "second_hidden": [4], "gate_hidden": [5, 3], "heads": 2},
    "gdcn": {"hidden": [7, 6], "cross_layers": 2},
    "din": {"hidden": [7, 6], "attention_hidden": [5], "activation": "silu", "target": "user", "sequence": "seen"},
}
VARIANTS = [
    *SMALL.items(),
    ("dcnv2", {"hidden": [7], "cross_layers": 2, "rank": 0, "structure": "stacked"}),
    ("wukong", {"layers": 1, "fmb": 2, "lcb": 2, "rank": 0, "fmb_hidden": [6], "hidden": [5]}),
    ("xdeepfm", {"hidden": [7], "cin": [3]}),
    ("gdcn", {"hidden": [7], "cross_layers": 3, "structure": "stacked"}),
    ("din", {"hidden": [7], "attention_hidden": [6, 3], "activation": "relu", "target": "item", "sequence": "seen"}),
]
VARIANT_IDS = [f"{arch}-{i}" for i, (arch, _) in enumerate(VARIANTS)]


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
