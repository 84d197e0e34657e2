"""Whether a bench speaks for a sweep or a race: the same log, and a memory that is made and used in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.live.result import LiveResult
from diet_ray.judge.fidelity.live.words import live_verdict
from diet_ray.judge.fidelity.order import OrderVerdict
from diet_ray.judge.fidelity.plan import log_checksums, recipe_of
from diet_ray.judge.fidelity.result import FidelityResult, MadeOf
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.logs.blocks import Log
from diet_ray.settings import parse_json

FILES: dict[str, str] = {"live": "live.json", "frozen": "fidelity.json"}
"""The file of each protocol in a bench's folder."""


def verdicts_for(folder: Path, stream: StreamConfig, log: Log, *, live: float) -> list[OrderVerdict]:
    """The verdicts of a bench on the order of a sweep's candidates, one per task.

    Args:
        folder: of the bench, `--out` of `diet-ray fidelity`.
        stream: the config by which the sweep's memory was made.
        log: the sweep's log.
        live: how many blocks the sweep's candidates meet live; 0 where frozen students are judged.

    Raises:
        ConfigError: the bench is of another log or of a memory made in another way, or it says nothing of this protocol or of so few rows.
        CorruptArtefactError: the bench's file is damaged.
    """
    protocol: Literal["live", "frozen"] = "live" if live else "frozen"
    path = folder / FILES[protocol]
    if not path.is_file():
        raise ConfigError(
            f"--fidelity {folder}: has no {path.name}; run `diet-ray fidelity` with protocol {protocol!r}"
        )
    where = f"--fidelity {path}"
    if protocol == "frozen":
        result = parse_json(FidelityResult, path)
        _check_made(result.made_of, stream, log, where)
        if result.student != stream.student:
            raise ConfigError(
                f"{where}: its students are trained otherwise, key 'student' differs; run it with the config of this run"
            )
        return result.verdicts
    measured = parse_json(LiveResult, path)
    _check_made(measured.made_of, stream, log, where)
    if measured.recipe != LaunchRecipe():
        raise ConfigError(f"{where}: its key 'live.recipe' is not that of a sweep; leave the key out")
    within = [number for number, share in enumerate(measured.shares) if share <= live]
    if not within:
        raise ConfigError(
            f"{where}: is about {measured.shares[0]:g} of a block and more, here candidates meet {live:g}; raise --live, or lower "
            "live.shares"
        )
    return [live_verdict(measured, task, share=within[-1]) for task in measured.tasks]


def _check_made(made: MadeOf | None, stream: StreamConfig, log: Log, where: str) -> None:
    if made is None:
        raise ConfigError(f"{where}: does not say of which log and memory it is; run `diet-ray fidelity` again")
    if log_checksums(log)[: len(made.log)] != made.log:
        raise ConfigError(f"{where}: is of another log than {log.path}; run `diet-ray fidelity` on this log")
    recipe = recipe_of(stream)
    for key, value in made.stream.items():
        if recipe[key] != value:
            if key == "refine" and not value["rounds"]:
                raise ConfigError(
                    f"{where}: is of a memory that was not refined; add 'refined' to its key 'live.starts'"
                )
            raise ConfigError(
                f"{where}: is of a memory that is made otherwise, key 'stream.{key}' differs; run it with the config of this run"
            )
