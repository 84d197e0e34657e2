"""The specification of a candidate: name, architecture, hyper-parameters, dropped fields. It is read and checked without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field as Key
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from diet_ray.candidates.params import PARAMS
from diet_ray.errors import ConfigError, DietError, did_you_mean, one_line
from diet_ray.schema import places_of
from diet_ray.settings import Settings, load_yaml, parse

if TYPE_CHECKING:
    from diet_ray.candidates.registry import Net

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
        if self.arch in PARAMS:
            return
        registered = _nets()
        if self.arch not in registered:
            hint = f"{did_you_mean(self.arch, registered, cutoff=0.5)}; known: {', '.join(registered)}"
            raise ValueError(f"candidate {self.name!r}: unknown arch {self.arch!r}{hint}")

    def hyper_parameters(self) -> Settings:
        """`params`, validated and with defaults filled in, as the `Params` of the architecture.

        Raises:
            ConfigError: an unknown or out-of-range hyper-parameter; the message names the candidate and the key.
        """
        where = f"candidate {self.name!r}, params of {self.arch!r}"
        try:
            return parse(PARAMS.get(self.arch) or _nets()[self.arch].Params, self.params, where=where)
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
                raise ConfigError(
                    f"{where}: the log has no field {name!r}{did_you_mean(name, field_names, cutoff=0.5)}"
                )
            dropped |= set(places)
        kept = [i for i in range(len(field_names)) if i not in dropped]
        if not kept:
            raise ConfigError(f"{where}: no field is left; keep at least one")
        names = [field_names[i] for i in kept]
        try:
            _nets()[self.arch].check_fields(self.params, names)
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


def _nets() -> dict[str, type[Net]]:
    """All registered nets. Imported here: a net needs torch."""
    from diet_ray.candidates.registry import architectures

    return architectures()
