"""The specification of a candidate (name, architecture, hyper-parameters, dropped fields), and its construction from a seed."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from pydantic import Field as Key
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.layers import TensorModule
from diet_ray.candidates.process_state import put_back
from diet_ray.candidates.registry import MadeOtherError, Net, Shape, architectures
from diet_ray.errors import ConfigError, DietError, one_line
from diet_ray.schema import places_of
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings, load_yaml, parse

EMBEDDING_KEYS = ("embedding_lr", "embedding_l2", "embedding_dim")
"""The keys of a candidate's own table of embeddings."""


class CandidateSpec(Settings):
    """One architecture with its hyper-parameters, as a candidate to judge."""

    name: str = Key(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)
    """Name on the leaderboard; also the name of its files."""
    arch: str
    """Registered architecture, such as `dnn` (`diet_ray.candidates.architectures`)."""
    params: dict[str, Any] = Key(default_factory=dict)
    """Hyper-parameters of the architecture; those left out keep their defaults."""
    adapter: bool = True
    """Whether a d x d linear map per field, initially the identity, is applied in front of the net."""
    drop_fields: list[str] = Key(default_factory=list)
    """Fields that the net does not get. The name of an unpooled sequence drops all its places, `NAME[0]` only one."""
    lr_scale: float = Key(default=1.0, gt=0, allow_inf_nan=False)
    """Factor on the net's learning rate: `student.lr` on a memory, `reference.lr` on the full log. It does not apply to embeddings."""
    embedding_lr: float | None = Key(default=None, gt=0, allow_inf_nan=False)
    """Learning rate of the candidate's own table of embeddings; by default `reference.embedding_lr`. This key and the next two have an
    effect only where a candidate has a table of its own: live and on the full log."""
    embedding_l2: float | None = Key(default=None, ge=0, allow_inf_nan=False)
    """L2 penalty of the own table, see `reference.embedding_l2`, which is the default."""
    embedding_dim: int | None = Key(default=None, ge=1)
    """Width of the own table; by default `reference.dim`."""

    @model_serializer(mode="wrap")
    def _without_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Manifests and hashes are those from before these keys existed, where none of them is set.
        unset = {key for key in EMBEDDING_KEYS if getattr(self, key) is None}
        return {name: value for name, value in write(self).items() if name not in unset}

    @property
    def embedding_keys(self) -> list[str]:
        """The keys of an own table that are set."""
        return [key for key in EMBEDDING_KEYS if getattr(self, key) is not None]

    @model_validator(mode="after")
    def _known(self) -> CandidateSpec:
        self.check_arch()
        try:
            self.hyper_parameters()
        except ConfigError as error:
            # pydantic collects a ValueError with the other errors of the file, each with its place.
            raise ValueError(str(error)) from error
        return self

    def check_arch(self) -> None:
        """Raise ValueError where no such architecture is registered."""
        registered = architectures()
        if self.arch not in registered:
            hint = f"{_suggest(self.arch, list(registered))}; known: {', '.join(registered)}"
            raise ValueError(f"candidate {self.name!r}: unknown arch {self.arch!r}{hint}")

    def hyper_parameters(self) -> Settings:
        """`params`, validated and with defaults filled in, as the `Params` of the architecture.

        Raises:
            ConfigError: an unknown or out-of-range hyper-parameter; the message names the candidate and the key.
        """
        where = f"candidate {self.name!r}, params of {self.arch!r}"
        try:
            return parse(architectures()[self.arch].Params, self.params, where=where)
        except DietError:
            raise
        except (Exception, SystemExit) as error:  # a validator of the user may raise anything
            raise ConfigError(f"{where}: {type(error).__name__}: {one_line(error)}") from error

    def kept_fields(self, field_names: list[str]) -> list[int]:
        """Positions in `field_names` of the fields that the net gets, in order.

        Raises:
            ConfigError: a dropped field is not in `field_names`, no field is left, or a field that the architecture needs is missing.
        """
        where, dropped = f"candidate {self.name!r}, key 'drop_fields'", set()
        for name in self.drop_fields:
            places = places_of(name, field_names)
            if not places:
                raise ConfigError(f"{where}: the log has no field {name!r}{_suggest(name, field_names)}")
            dropped |= set(places)
        kept = [i for i in range(len(field_names)) if i not in dropped]
        if not kept:
            raise ConfigError(f"{where}: no field is left; keep at least one")
        names = [field_names[i] for i in kept]
        try:
            architectures()[self.arch].check_fields(self.params, names)
        except ValueError as error:
            raise ConfigError(f"candidate {self.name!r}, {one_line(error)}; it sees {', '.join(names)}") from error
        except (Exception, SystemExit) as error:  # the user's own may raise anything
            why = f"{type(error).__name__}: {one_line(error)}"
            raise ConfigError(f"candidate {self.name!r}, check_fields of {self.arch!r}: {why}") from error
        return kept


class CandidateFile(Settings):
    """A pool of candidates, in the format of a YAML file."""

    candidates: list[CandidateSpec] = Key(min_length=1)
    """The candidates, in the order in which they are trained."""

    @model_validator(mode="after")
    def _unique(self) -> CandidateFile:
        names = [candidate.name for candidate in self.candidates]
        doubled = [name for i, name in enumerate(names) if name in names[:i]]
        if doubled:
            raise ValueError(f"candidate {doubled[0]!r} is given twice; names must be unique")
        return self


def default_pool() -> CandidateFile:
    """The pool that comes with the package, `presets/candidates.yaml`."""
    return load_yaml(CandidateFile, Path(__file__).parent.parent / "presets" / "candidates.yaml")


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
        if self.adapter is not None:
            x = self.adapter(x)
        return self.net(x)


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


def _suggest(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
