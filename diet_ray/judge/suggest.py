"""The suggestions of Optuna: its sampler with every setting given, and the file from which an interrupted search continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field as Key

from diet_ray.errors import VersionError
from diet_ray.judge.search import SearchedSpec
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.storage.hashes import content_hash, other_versions, versions_of

PACKAGES = ("optuna", "ray")
"""The packages that decide which candidate is tried next: the sampler, and Ray Tune's `OptunaSearch`, which tells it the scores."""


def tpe_sampler(seed: int) -> Any:
    """Optuna's TPE sampler. Its other arguments are deprecated, and a release that changes one of them suggests other candidates."""
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed,
        n_startup_trials=10,
        n_ei_candidates=24,
        multivariate=True,
        group=False,
        constant_liar=True,
    )


class Suggested(Settings):
    """The suggestions of Optuna so far, from which an interrupted sweep continues."""

    asked: str
    """Hash of the candidates and the seed."""
    points: list[dict[str, Any]]
    """One per trial: the suggested values by `candidate.key`, those of a choice as their number."""
    versions: dict[str, str] = Key(default_factory=dict)
    """Of the packages that suggested them; empty in a file of an earlier release."""


class Suggest:
    """The function that Ray Tune's OptunaSearch calls for the next candidate. It also writes the suggestions to a file.

    Candidates without a search space come first, then the first sample of each other candidate, then the second and so on.
    """

    def __init__(self, candidates: list[SearchedSpec], seed: int, seeds: int, path: Path) -> None:
        turns = [(turn, spec, name) for spec in candidates for turn, name in enumerate(spec.names())]
        fixed = [(spec, name) for _, spec, name in turns if not spec.spaces()]
        self.order = fixed + [
            (spec, name) for _, spec, name in sorted(turns, key=lambda turn: turn[0]) if spec.spaces()
        ]
        self.seeds, self.path = list(range(seeds)), path
        self.asked = content_hash([*(spec.model_dump(mode="json") for spec in candidates), seed])
        self.works: list[dict[str, Any]] = []
        self._points: list[dict[str, Any]] = []
        self._versions = versions_of(PACKAGES)

    def before(self) -> list[dict[str, Any]]:
        """The suggestions of an interrupted sweep of the same candidates, in order. They are given again.

        Raises:
            VersionError: more are needed, and another version of a package made those: what it would suggest next is not known here.
        """
        suggested = parse_json(Suggested, self.path) if self.path.is_file() else None
        if suggested is None or suggested.asked != self.asked:
            return []
        other = other_versions(suggested.versions, self._versions)
        if other:
            if len(suggested.points) < len(self.order):
                raise VersionError(f"{self.path}: begun with {other}; install those or start a new sweep")
            self._versions = suggested.versions
        self._points = list(suggested.points)
        return list(self._points)

    def __call__(self, trial: Any) -> dict[str, Any]:
        """The trial's work, `{"work": {"spec", "seeds"}}`."""
        spec, name = self.order[len(self.works)]
        values = {key: space.suggest(trial, f"{spec.name}.{key}") for key, space in spec.spaces().items()}
        work = {"spec": spec.filled(name, values), "seeds": self.seeds}
        self.works.append(work)
        self._points[len(self.works) - 1 : len(self.works)] = [dict(trial.params)]
        write_json(self.path, Suggested(asked=self.asked, points=self._points, versions=self._versions))
        return {"work": work}
