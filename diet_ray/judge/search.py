"""What a sweep is asked for: candidates, some of them with search spaces, and how their values are drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field as Key
from pydantic import ValidationError, field_validator, model_validator

from diet_ray.candidates import CandidateFile, CandidateSpec, architectures, import_modules
from diet_ray.errors import ConfigError
from diet_ray.judge.trackers import TrackersConfig
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.storage.hashes import content_hash

REDUCTION = 3
"""ASHA goes on with the best third of the candidates at each rung."""

RUNGS = 3
"""Reports of a student under ASHA: at a ninth, a third and all of its steps."""

KINDS = ("choice", "uniform", "loguniform", "randint")


class Space:
    """A set of values, written as a mapping of one key as Ray Tune names it: `choice`, `uniform`, `loguniform` or `randint`.

    `{choice: [a, b, ...]}`; `{uniform: [low, high]}`; `{loguniform: [low, high]}`, 0 < low; `{randint: [low, high]}`, high excluded.
    """

    def __init__(self, kind: str, values: list[Any]) -> None:
        self.kind, self.values = kind, values

    @staticmethod
    def read(raw: Any) -> Space | None:
        """The space that `raw` describes, or None where it is a plain value. Raises ValueError where it describes none."""
        if not (isinstance(raw, dict) and len(raw) == 1 and next(iter(raw)) in KINDS):
            return None
        ((kind, values),) = raw.items()
        if not isinstance(values, list) or not values:
            raise ValueError(f"{kind}: needs a list, not {values!r}")
        if kind != "choice":
            numbers = int if kind == "randint" else (int, float)
            if len(values) != 2 or not all(isinstance(v, numbers) and not isinstance(v, bool) for v in values):
                what = "whole numbers" if kind == "randint" else "numbers"
                raise ValueError(f"{kind}: needs two {what}, [low, high], not {values!r}")
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
        """A value at random, as Ray Tune draws it."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high))
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))

    def suggest(self, trial: Any, name: str) -> Any:
        """A value that an Optuna trial suggests. Optuna sees a choice by its number, because it keeps no lists."""
        if self.kind == "choice":
            return self.values[trial.suggest_categorical(name, list(range(len(self.values))))]
        low, high = self.values
        if self.kind == "randint":
            return trial.suggest_int(name, low, high - 1)
        return trial.suggest_float(name, low, high, log=self.kind == "loguniform")


class SearchedSpec(CandidateSpec):
    """A candidate, or several: where a value of `params` or `lr_scale` is a search space (`Space`), it stands for `samples` of them."""

    lr_scale: Any = 1.0
    """The candidate's own value, or a search space."""
    samples: int = Key(default=8, ge=1)
    """How many candidates to draw, where there is something to draw."""

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
            raise ValueError(f"candidate {self.name!r}: with a search space the name may have 58 characters")
        for value in spaces["lr_scale"].extremes() if "lr_scale" in spaces else [self.lr_scale]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(
                    f"candidate {self.name!r}, lr_scale: must be a number above 0 or a space, not {value!r}"
                )
        if spaces:
            for key, value in self.params.items():
                for one in spaces[key].extremes() if key in spaces else [value]:
                    self._check_alone(key, one)
        return self

    def _check_alone(self, key: str, value: Any) -> None:
        """Raise ValueError where no candidate may have this value. Which values do not go together is known when they are drawn."""
        kind = architectures()[self.arch].Params
        try:
            kind.model_validate({key: value})
        except ValidationError as error:
            problems = [problem for problem in error.errors(include_url=False) if problem["loc"][:1] == (key,)]
            for problem in problems:
                if problem["type"] == "extra_forbidden":
                    known = ", ".join(kind.model_fields) or "none"
                    raise ValueError(
                        f"candidate {self.name!r}, params of {self.arch!r}: unknown key {key!r}; known: {known}"
                    ) from error
                where = ".".join(map(str, problem["loc"]))
                raise ValueError(
                    f"candidate {self.name!r}, params of {self.arch!r}: key {where!r}: {problem['msg']} (got {problem['input']!r})"
                ) from error

    def spaces(self) -> dict[str, Space]:
        """The search spaces by key; that of `lr_scale` beside those of `params`. Raises ValueError where one is ill-written."""
        spaces: dict[str, Space] = {}
        for key, value in [*self.params.items(), ("lr_scale", self.lr_scale)]:
            try:
                space = Space.read(value)
            except ValueError as error:
                raise ValueError(f"candidate {self.name!r}, search space of {key!r}: {error}") from error
            if space:
                spaces[key] = space
        return spaces

    def names(self) -> list[str]:
        """The names of its candidates: its own, or with a number behind it."""
        return [f"{self.name}.{number:03d}" for number in range(self.samples)] if self.spaces() else [self.name]

    def filled(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        """A candidate as plain data, with `values` in the place of the spaces. It may turn out to be none: see `CandidateSpec`."""
        raw = self.model_dump(mode="json", exclude={"samples"})
        raw["params"] |= {key: value for key, value in values.items() if key != "lr_scale"}
        return {**raw, "name": name, "lr_scale": float(values.get("lr_scale", self.lr_scale))}

    def drawn(self, seed: int) -> list[dict[str, Any]]:
        """Its candidates, drawn at random but the same for the same seed, those that are drawn twice once.

        A value depends on the seed, the names of candidate and key and its number: more samples begin with the same ones.
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
    """How candidates with search spaces are drawn, and whether weak ones are given up early."""

    algorithm: Literal["random", "optuna"] = "random"
    """`random`: drawn independently; `optuna`: by its TPE sampler (Bergstra et al. 2011) from the scores so far, an extra."""
    scheduler: Literal["none", "asha"] = "none"
    """`asha`: at a ninth and a third of the steps only the best third goes on (Li et al. 2020)."""
    seed: int = Key(default=0, ge=0)
    """Seed of what is drawn."""
    concurrent: int | None = Key(default=None, ge=1)
    """Most trials at a time; by default as many as the cluster has room for. With 1, `optuna` and `asha` repeat themselves exactly."""

    @property
    def guided(self) -> bool:
        """Whether scores on held-out rows decide what is tried, and for how long."""
        return self.algorithm != "random" or self.scheduler != "none"


class TrialResources(Settings):
    """What each trial asks of the cluster."""

    cpus: float = Key(default=1, gt=0, allow_inf_nan=False)
    """Logical CPUs; it trains with as many threads, rounded down, but at least one."""
    gpus: float = Key(default=0, ge=0, allow_inf_nan=False)
    """GPUs, on which it then trains; 0.25 lets four trials share one."""


class SweepConfig(Settings):
    """The file that `diet-ray sweep --candidates` reads. A plain file of candidates is one, too."""

    modules: list[str] = Key(default_factory=list)
    """Modules of yours that register architectures, imported from the working directory here and in every trial."""
    candidates: list[SearchedSpec] = Key(min_length=1)
    """The candidates, in the order in which they are run."""
    search: SearchConfig = SearchConfig()
    resources: TrialResources = TrialResources()
    trackers: TrackersConfig = TrackersConfig()

    @field_validator("modules")
    @classmethod
    def _imported(cls, names: list[str]) -> list[str]:
        # Before the candidates are read, which name what they register.
        import_modules(names, Path.cwd())
        return names

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


class Suggested(Settings):
    """What Optuna has suggested so far, so that an interrupted sweep goes on from there."""

    asked: str
    """Hash of the candidates and the seed."""
    points: list[dict[str, Any]]
    """One per trial: the suggested values by `candidate.key`, those of a choice as their number."""


class Suggest:
    """The function by which Ray Tune's OptunaSearch asks for the next candidate; it also keeps what was suggested.

    Candidates without a search space come first, then the first sample of each other, then the second and so on.
    """

    def __init__(self, candidates: list[SearchedSpec], seed: int, seeds: int, path: Path) -> None:
        turns = [(turn, spec, name) for spec in candidates for turn, name in enumerate(spec.names())]
        fixed = [(spec, name) for _, spec, name in turns if not spec.spaces()]
        self.order = fixed + [(spec, name) for _, spec, name in sorted(turns, key=lambda one: one[0]) if spec.spaces()]
        self.seeds, self.path = list(range(seeds)), path
        self.asked = content_hash([*(spec.model_dump(mode="json") for spec in candidates), seed])
        self.works: list[dict[str, Any]] = []
        self._points: list[dict[str, Any]] = []

    def before(self) -> list[dict[str, Any]]:
        """What an interrupted sweep of the same candidates was given, in order; it is given again."""
        kept = parse_json(Suggested, self.path) if self.path.is_file() else None
        self._points = list(kept.points) if kept and kept.asked == self.asked else []
        return list(self._points)

    def __call__(self, trial: Any) -> dict[str, Any]:
        """The trial's work, `{"work": {"spec", "seeds"}}`."""
        spec, name = self.order[len(self.works)]
        values = {key: space.suggest(trial, f"{spec.name}.{key}") for key, space in spec.spaces().items()}
        work = {"spec": spec.filled(name, values), "seeds": self.seeds}
        self.works.append(work)
        self._points[len(self.works) - 1 : len(self.works)] = [dict(trial.params)]
        write_json(self.path, Suggested(asked=self.asked, points=self._points))
        return {"work": work}
