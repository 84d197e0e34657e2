"""A candidate as a module: its net behind the selection of its fields and its adapter, built from a specification and a seed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.by_hand import by_hand
from diet_ray.candidates.layers import TensorModule
from diet_ray.candidates.process_state import put_back
from diet_ray.candidates.registry import MadeOtherError, Net, Shape, architectures
from diet_ray.candidates.spec import CandidateSpec
from diet_ray.errors import ConfigError
from diet_ray.seeds import derive_seed


class Candidate(TensorModule):
    """A net with the selection of its fields and its adapter in front: `x [B, F, d]`, all fields of the log -> `[B, T]` logits."""

    kept: Tensor | None
    """`[F']` int64: fields that the net gets; None for all. Not saved with the state."""

    def __init__(self, net: Net, kept: Tensor | None, adapter: Adapter | None) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        self.adapter = adapter
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        if self.kept is not None:
            x = x.index_select(1, self.kept)
        if self.adapter is None:
            return self.net(x)
        if by_hand(x):
            return self.net.behind(x, self.adapter)
        return self.net(self.adapter(x))


def build(spec: CandidateSpec, field_names: list[str], dim: int, n_tasks: int, seed: int) -> Candidate:
    """Build a candidate for a log with these fields, on the CPU, with float32 parameters.

    The parameters depend only on the arguments: torch's global random state is seeded for the net and put back. Fields are
    dropped in front of adapter and net, which therefore have F' = F minus the number of dropped fields.

    Raises:
        ConfigError: a dropped field is unknown, no field is left, or a field that the architecture needs is missing; the user's own net
            has batch statistics, or gives no logits of the right shape.
    """
    kept = spec.kept_fields(field_names)
    shape = Shape(len(kept), dim, n_tasks, tuple(field_names[i] for i in kept))
    generator = torch.Generator().manual_seed(seed)
    architecture = architectures()[spec.arch]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "net"))  # layers of torch itself draw their weights from the global state
        try:
            net = architecture(shape, spec.hyper_parameters(), generator)
        except MadeOtherError as error:
            raise ConfigError(f"candidate {spec.name!r}, arch {spec.arch!r}: {error}") from error
    if not architecture.__module__.startswith("diet_ray."):
        with put_back(environment=True):
            _check_own(spec, net, shape)
    dropped = len(kept) < len(field_names)
    return Candidate(net, torch.tensor(kept) if dropped else None, Adapter(len(kept), dim) if spec.adapter else None)


def _check_own(spec: CandidateSpec, net: Net, shape: Shape) -> None:
    """Raise ConfigError where a net of the user's cannot be trained here, or its logits have another shape than `[B, T]`."""
    where = f"candidate {spec.name!r}, arch {spec.arch!r}"
    for name, part in net.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{where}: {name} ({type(part).__name__}) learns from the statistics of its batches, which are not kept; take nn.LayerNorm"
            )
    training = net.training
    with torch.no_grad():
        given = tuple(net.eval()(torch.zeros(3, shape.n_fields, shape.dim)).shape)
    net.train(training)
    if given != (3, shape.n_tasks):
        raise ConfigError(
            f"{where}: 3 rows of {shape.n_fields} fields of width {shape.dim} give the shape {list(given)}, must be "
            f"[3, {shape.n_tasks}]: one logit per row and task"
        )
