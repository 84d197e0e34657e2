"""The config of a sweep: candidates, some of them with search spaces, and how their values are drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field as Key
from pydantic import (
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from diet_ray.candidates import EMBEDDING_KEYS, CandidateFile, CandidateSpec, architectures, import_modules
from diet_ray.errors import ConfigError
from diet_ray.judge.trackers import TrackersConfig
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings

REDUCTION = 3
"""At each rung ASHA continues with the best third of the candidates."""

RUNGS = 3
"""Number of reports of a student under ASHA: after a ninth, a third and all of its steps."""

KINDS = ("choice", "uniform", "loguniform", "randint")


class Space:
    """A set of values, written as a mapping with one key, which is a name of Ray Tune: `choice`, `uniform`, `loguniform` or `randint`.

    `{choice: [a, b, ...]}`; `{uniform: [low, high]}`; `{loguniform: [low, high]}`, 0 < low; `{randint: [low, high]}`, high excluded.
    """

    def __init__(self, kind: str, values: list[Any]) -> None:
        self.kind, self.values = kind, values

    @staticmethod
    def read(raw: Any) -> Space | None:
        """The space that `raw` describes, or None where it is a plain value. Raises ValueError where the space is not valid."""
        if not (isinstance(raw, dict) and len(raw) == 1 and next(iter(raw)) in KINDS):
            return None
        ((kind, values),) = raw.items()
        if not isinstance(values, list) or not values:
            raise ValueError(f"{kind}: needs a list, not {values!r}")
        if kind != "choice":
            numbers = int if kind == "randint" else (int, float)
            if len(values) != 2 or not all(isinstance(v, numbers) and not isinstance(v, bool) for v in values):
                expected = "whole numbers" if kind == "randint" else "numbers"
                raise ValueError(f"{kind}: needs two {expected}, [low, high], not {values!r}")
            low, high = values
            if not (low < high and math.isfinite(high - low) and (kind != "loguniform" or low > 0)):
                raise ValueError(
                    f"{kind}: needs {'0 < ' if kind == 'loguniform' else ''}low < high, both finite, not {values!r}"
                )
        return Space(kind, values)

    def extremes(self) -> list[Any]:
        """All options of a choice, else the smallest and the largest value."""
        if self.kind == "choice":
            return self.values
        low, high = self.values
        return [low, high - 1] if self.kind == "randint" else [float(low), float(high)]

    def draw(self, rng: np.random.Generator) -> Any:
        """A random value, drawn as Ray Tune draws it."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high))
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))

    def suggest(self, trial: Any, name: str) -> Any:
        """A value that an Optuna trial suggests. Optuna gets the options of a choice as numbers, because it cannot store lists."""
        if self.kind == "choice":
            return self.values[trial.suggest_categorical(name, list(range(len(self.values))))]
        low, high = self.values
        if self.kind == "randint":
            return trial.suggest_int(name, low, high - 1)
        return trial.suggest_float(name, low, high, log=self.kind == "loguniform")


SEARCHED = ("lr_scale", *EMBEDDING_KEYS)
"""The keys of a candidate, beside those of `params`, that may have a search space."""


class SearchedSpec(CandidateSpec):
    """A candidate. With a search space (`Space`) as a value of `params` or of a key of `SEARCHED`, it stands for `samples` candidates."""

    lr_scale: Any = 1.0
    """Factor on the net's learning rate, on a memory and on the full log; or a search space."""
    embedding_lr: Any = None
    """Learning rate of the candidate's own table, live and on the full log, by default `reference.embedding_lr`; or a search space."""
    embedding_l2: Any = None
    """L2 penalty of the own table, by default `reference.embedding_l2`; or a search space."""
    embedding_dim: Any = None
    """Width of the own table, by default `reference.dim`; or a search space."""
    samples: int = Key(default=8, ge=1)
    """Number of candidates to draw, where there is a search space."""

    @model_validator(mode="after")
    def _known(self) -> SearchedSpec:
        self.check_arch()
        spaces = self.spaces()
        if not spaces:
            try:
                self.hyper_parameters()
            except ConfigError as error:
                raise ValueError(str(error)) from error
        elif len(self.name) > 58:
            raise ValueError(f"candidate {self.name!r}: with a search space the name may have at most 58 characters")
        for key in SEARCHED:
            value = getattr(self, key)
            for extreme in spaces[key].extremes() if key in spaces else [value] if value is not None else []:
                self._check_key(key, extreme)
        if spaces:
            for key, value in self.params.items():
                for extreme in spaces[key].extremes() if key in spaces else [value]:
                    self._check_alone(key, extreme)
        return self

    def _check_key(self, key: str, value: Any) -> None:
        """Raise ValueError where no candidate may have this value of a key of `SEARCHED`."""
        whole, zero = key == "embedding_dim", key == "embedding_l2"
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not (0 <= value < math.inf if zero else 0 < value < math.inf):
            expected = f"a {'whole ' if whole else ''}number {'of 0 or more' if zero else 'above 0'}"
            raise ValueError(f"candidate {self.name!r}, {key}: must be {expected} or a space, not {value!r}")

    def _check_alone(self, key: str, value: Any) -> None:
        """Raise ValueError where no candidate may have this value. Combinations of values are checked when they are drawn."""
        kind = architectures()[self.arch].Params
        try:
            kind.model_validate({key: value})
        except ValidationError as error:
            problems = [problem for problem in error.errors(include_url=False) if problem["loc"][:1] == (key,)]
            for problem in problems:
                if problem["type"] == "extra_forbidden":
                    known_keys = ", ".join(kind.model_fields) or "none"
                    raise ValueError(
                        f"candidate {self.name!r}, params of {self.arch!r}: unknown key {key!r}; known: {known_keys}"
                    ) from error
                where = ".".join(map(str, problem["loc"]))
                raise ValueError(
                    f"candidate {self.name!r}, params of {self.arch!r}: key {where!r}: {problem['msg']} (got {problem['input']!r})"
                ) from error

    def spaces(self) -> dict[str, Space]:
        """The search spaces of `params` and of the keys `SEARCHED`, by key. Raises ValueError where one is not valid."""
        spaces: dict[str, Space] = {}
        for key in set(SEARCHED) & set(self.params):
            if isinstance(self.params[key], dict):
                raise ValueError(
                    f"candidate {self.name!r}, params: {key!r} is also a key beside params, so it cannot have a search space"
                )
        for key, value in [*self.params.items(), *((key, getattr(self, key)) for key in SEARCHED)]:
            try:
                space = Space.read(value)
            except ValueError as error:
                raise ValueError(f"candidate {self.name!r}, search space of {key!r}: {error}") from error
            if space:
                spaces[key] = space
        return spaces

    def names(self) -> list[str]:
        """The names of its candidates: its own name, or that name with a number at the end."""
        return [f"{self.name}.{number:03d}" for number in range(self.samples)] if self.spaces() else [self.name]

    def filled(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        """A candidate as plain data, with `values` in the place of the spaces. `CandidateSpec` may refuse it."""
        raw = self.model_dump(mode="json", exclude={"samples"})
        raw["params"] |= {key: value for key, value in values.items() if key not in SEARCHED}
        own = {key: value for key, value in values.items() if key in SEARCHED}
        return {**raw, **own, "name": name, "lr_scale": float(values.get("lr_scale", self.lr_scale))}

    def drawn(self, seed: int) -> list[dict[str, Any]]:
        """Its candidates, drawn at random. The same seed gives the same candidates. A candidate that is drawn twice is returned once.

        A value depends on the seed, the candidate's name, the key and the sample's number: more samples begin with the same candidates.
        """
        spaces = self.spaces()
        candidates: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(self.names()):
            values = {
                key: space.draw(np.random.default_rng(derive_seed(seed, "search", self.name, key, number)))
                for key, space in spaces.items()
            }
            candidates.setdefault(json.dumps(values, sort_keys=True), self.filled(name, values))
        return list(candidates.values())


class SearchConfig(Settings):
    """How candidates with search spaces are drawn, and whether weak ones are stopped early."""

    algorithm: Literal["random", "optuna"] = "random"
    """`random`: drawn independently; `optuna`: by its TPE sampler (Bergstra et al. 2011) from the scores so far. It is an extra."""
    scheduler: Literal["none", "asha"] = "none"
    """`asha`: after a ninth and a third of the steps only the best third continues (Li et al. 2020)."""
    seed: int = Key(default=0, ge=0)
    """Seed of the drawn values."""
    concurrent: int | None = Key(default=None, ge=1)
    """Largest number of trials at a time; by default as many as the cluster has room for. With 1, `optuna` and `asha` are reproducible."""

    @property
    def guided(self) -> bool:
        """Whether scores on held-out rows decide which candidates are tried, and for how many steps."""
        return self.algorithm != "random" or self.scheduler != "none"


class TrialResources(Settings):
    """The resources of each trial on the cluster."""

    cpus: float = Key(default=1, gt=0, allow_inf_nan=False)
    """Logical CPUs. The trial trains with this number of threads, rounded down, but at least one."""
    gpus: float = Key(default=0, ge=0, allow_inf_nan=False)
    """GPUs. Above 0 the trial trains on a GPU; 0.25 lets four trials share one."""
    timeout: float | None = Key(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which a trial is taken to hang, is ended, and counts as failed; by default there is no limit. On Ray its process is
    ended, and the trial is tried once more. Without Ray a signal ends it, which cannot reach code that never returns to Python."""


class SweepConfig(Settings):
    """The file that `diet-ray sweep --candidates` reads. A plain file of candidates is valid, too."""

    modules: list[str] = Key(default_factory=list)
    """Your modules that register architectures. They are imported from the working directory, here and in every trial."""
    candidates: list[SearchedSpec] = Key(min_length=1)
    """The candidates, in the order in which they are run."""
    search: SearchConfig = SearchConfig()
    resources: TrialResources = TrialResources()
    trackers: TrackersConfig = TrackersConfig()

    @field_validator("modules")
    @classmethod
    def _imported(cls, names: list[str]) -> list[str]:
        # Imported before the candidates are read, because candidates name the architectures that these modules register.
        import_modules(names, Path.cwd())
        return names

    @field_validator("candidates", mode="wrap")
    @classmethod
    def _after_modules(cls, raw: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        # Where a module cannot be imported, the architectures that it registers are unknown: one error, and none that follows from it.
        return read(raw) if "modules" in info.data else []

    @model_validator(mode="after")
    def _unique(self) -> SweepConfig:
        names = [name for candidate in self.candidates for name in candidate.names()]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"candidate {name!r} is given twice; names must be unique")
        return self

    @staticmethod
    def of(pool: CandidateFile) -> SweepConfig:
        """A sweep of a plain pool."""
        return SweepConfig.model_validate(pool.model_dump(mode="json"))


def rungs(steps: int) -> list[int]:
    """The steps after which ASHA compares students of that horizon, ascending; the last is the horizon."""
    return sorted({math.ceil(steps / REDUCTION**k - 1e-9) for k in range(RUNGS)})
