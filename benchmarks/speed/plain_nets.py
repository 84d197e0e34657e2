"""Nets of the pool as plain torch modules, as in a notebook: `benchmarks.speed.students` trains them in a plain loop. Needs torch only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS, CROSSES, RANK, HEADS, MAPS = (256, 128), 3, 32, 2, 8


def mlp(n_in: int, widths: tuple[int, ...] = WIDTHS, n_out: int = 1) -> nn.Sequential:
    """Linear layers with rectifiers between them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


class DNN(nn.Module):
    """A multi-layer perceptron over the flattened input."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.mlp = mlp(fields * dim)

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, 1]`."""
        return self.mlp(x.flatten(1))


class DCNv2(nn.Module):
    """Three crosses of rank 32 beside a perceptron."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        width = fields * dim
        self.down = nn.ModuleList(nn.Linear(width, RANK, bias=False) for _ in range(CROSSES))
        self.up = nn.ModuleList(nn.Linear(RANK, width) for _ in range(CROSSES))
        self.mlp, self.out = mlp(width), nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, 1]`."""
        x0 = crossed = x.flatten(1)
        for down, up in zip(self.down, self.up, strict=True):
            crossed = x0 * up(down(crossed)) + crossed
        return self.out(crossed) + self.mlp(x0)


class WukongLayer(nn.Module):
    """Factorisation machines and a linear compression, with a residual."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.project, self.compress = nn.Linear(n, MAPS, bias=False), nn.Linear(n, MAPS, bias=False)
        self.residual = nn.Identity() if n == 2 * MAPS else nn.Linear(n, 2 * MAPS, bias=False)
        self.fm = nn.Sequential(nn.LayerNorm(n * MAPS), mlp(n * MAPS, (128,), MAPS * dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Any:
        """`[B, n, d] -> [B, 16, d]`."""
        columns = x.transpose(1, 2)
        interactions = torch.bmm(x, self.project(columns))
        machines = self.fm(interactions.flatten(1)).view(len(x), MAPS, -1)
        both = torch.cat([machines, self.compress(columns).transpose(1, 2)], dim=1)
        return self.norm(both + self.residual(columns).transpose(1, 2))


class Wukong(nn.Module):
    """Two such layers under a perceptron."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(WukongLayer(fields, dim), WukongLayer(2 * MAPS, dim))
        self.mlp = mlp(2 * MAPS * dim, (128,))

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, 1]`."""
        return self.mlp(self.layers(x).flatten(1))


class Attention(nn.Module):
    """Self-attention over the fields, two heads, with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.residual = (nn.Linear(dim, HEADS * MAPS, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, F, 16]`."""
        q, k, v = (part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        attended = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        return F.relu(attended.transpose(1, 2).flatten(2) + self.residual(x))


class AutoInt(nn.Module):
    """Two such layers beside a perceptron."""

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(Attention(dim), Attention(HEADS * MAPS))
        self.out, self.mlp = nn.Linear(fields * HEADS * MAPS, 1, bias=False), mlp(fields * dim)

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, 1]`."""
        return self.out(self.attention(x).flatten(1)) + self.mlp(x.flatten(1))


class Adapted(nn.Module):
    """A net behind a linear map per field."""

    def __init__(self, net: nn.Module, fields: int, dim: int) -> None:
        super().__init__()
        self.maps, self.net = nn.Parameter(torch.eye(dim).repeat(fields, 1, 1)), net

    def forward(self, x: Tensor) -> Any:
        """`[B, F, d] -> [B, 1]`."""
        return self.net(torch.einsum("bfi,fij->bfj", x, self.maps))


NETS: dict[str, Any] = {"dnn": DNN, "dcnv2": DCNv2, "wukong": Wukong, "autoint": AutoInt}
"""By their names in the pool."""


def net(name: str, fields: int, dim: int, *, adapted: bool) -> nn.Module:
    """A net, behind the maps of an adapter or without."""
    module: nn.Module = NETS[name](fields, dim)
    return Adapted(module, fields, dim) if adapted else module
