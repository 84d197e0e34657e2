"""The plan of a sweep: its trials, the data that they share, and the content hash under which each outcome is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diet_ray.candidates import CandidateFile, CandidateSpec, architectures, sources
from diet_ray.errors import ConfigError
from diet_ray.judge.early import block_to_judge_on
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.judge.live import live_rows
from diet_ray.judge.live_trial import STATES, LiveContext
from diet_ray.judge.search import SweepConfig, rungs
from diet_ray.judge.start import Start
from diet_ray.judge.trial import TrialContext, held_rows
from diet_ray.logs.blocks import BlockManifest, Log, block_sha256, open_log
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.download import OnFetch, fetch, name_of
from diet_ray.memory.layout import MANIFEST, stage_in
from diet_ray.memory.moments import load_moments
from diet_ray.memory.same_log import check_log_of
from diet_ray.report.page import Source, seed_names
from diet_ray.settings import Settings
from diet_ray.storage.hashes import content_hash, sha256, versions, versions_of

RECIPE = 2
"""A version, increased whenever the same trial would give another outcome, so that older outcomes are not used."""


class Work(Settings):
    """The work of one trial."""

    spec: dict[str, Any]
    """The candidate as plain data: only the trial checks whether the drawn values can be combined."""
    seeds: list[int]

    @property
    def name(self) -> str:
        """The candidate's name."""
        return str(self.spec["name"])

    @property
    def trial(self) -> str:
        """The trial's name for trackers."""
        return f"{self.name}-seed{self.seeds[0]}" if len(self.seeds) == 1 else self.name


@dataclass(frozen=True)
class Identity:
    """The content hash of a trial's outcome. It covers everything on which the outcome depends and nothing else, so not the name."""

    shared: dict[str, Any]
    code: list[str]
    """Checksums of the user's modules."""

    @staticmethod
    def of(
        path: Path, memory: Memory, log: Log, judged_on: BlockManifest, config: SweepConfig, live: LiveContext | None
    ) -> Identity:
        """The identity of the trials of a sweep on the memory at `path`."""
        stage = stage_in(path, memory.stage.index)
        shared = {
            "recipe": RECIPE,
            # Where ASHA decides how long a student trains, Ray Tune's code is a part of the outcome.
            "versions": versions() | (versions_of(("ray",)) if config.search.scheduler == "asha" else {}),
            "memory": sha256(stage / MANIFEST),
            "judged_on": block_sha256(log, judged_on),
            "scores": [config.search.guided, config.search.scheduler],
            "threads": threads_of(config),
            "gpu": config.resources.gpus > 0,
        }
        if live is not None:
            blocks = dict.fromkeys(block.index for block in live.rows.blocks)
            later = [block_sha256(log, log.blocks[index]) for index in blocks if index != judged_on.index]
            recipe = LaunchRecipe().model_dump(mode="json")
            shared["live"] = {"rows": len(live.rows.rows), "later": later, "recipe": recipe, "slices": live.slices}
        return Identity(shared, [sha256(file) for file in sources(config.modules)])

    def __call__(self, work: Work) -> str:
        """The hash of one trial."""
        own = not architectures()[work.spec["arch"]].__module__.startswith("diet_ray.")
        try:
            params = CandidateSpec.model_validate(work.spec).hyper_parameters().model_dump(mode="json")
        except ValueError:  # the trial will fail with this error
            params = work.spec["params"]
        spec = {key: value for key, value in work.spec.items() if key != "name"} | {"params": params}
        body = {**self.shared, "spec": spec, "seeds": work.seeds, "code": self.code if own else []}
        return content_hash(body)[:32]


@dataclass(frozen=True)
class Inputs:
    """What a sweep or a race reads: the memory, the log, the candidates."""

    config: SweepConfig
    folder: Path
    """Of the memory: a run folder or a stage, on this machine."""
    name: str
    """The memory, as results name it."""
    memory: Memory
    log: Log
    judged_on: BlockManifest
    """The first block to judge on."""

    @staticmethod
    def read(
        memory: str | Path,
        candidates: CandidateFile | SweepConfig,
        *,
        log: Path | None,
        block: str | None,
        moments: bool,
        on_fetch: OnFetch | None,
    ) -> Inputs:
        """Read them; the arguments are those of `judge_pool`. `moments`: candidates will be launched.

        Raises:
            ConfigError: a candidate drops an unknown field, the block does not exist or is not later than the memory, or the log is not
                the one that was distilled.
            DietError: the memory or the log is damaged.
        """
        config = candidates if isinstance(candidates, SweepConfig) else SweepConfig.of(candidates)
        folder = fetch(memory, moments=moments, on_fetch=on_fetch)
        loaded = load_memory(folder)
        opened = open_log(log or loaded.stage.config.log)
        judged_on = block_to_judge_on(loaded.stage.block, opened, block)
        check_log_of(folder, opened)
        for spec in config.candidates:
            spec.kept_fields(loaded.field_names)
        return Inputs(config, folder, name_of(memory), loaded, opened, judged_on)

    def check_alike(self, other: Inputs) -> None:
        """Raise ConfigError where another memory was not made as this one but for its seed: from the same blocks, with the same config."""
        one, two = self.memory.stage, other.memory.stage
        if (one.index, one.block_sha256) != (two.index, two.block_sha256):
            raise ConfigError(
                f"--memory {other.name}: it is not of the log and the blocks of {self.name}; give memories of the same blocks, made with "
                "other seeds"
            )
        configs = [stage.config.model_dump(mode="json", exclude={"log", "cluster", "blocks"}) for stage in (one, two)]
        differing = [key for key, value in configs[0].items() if value != configs[1][key]]
        if differing != ["seed"]:
            key = next((key for key in differing if key != "seed"), None)
            why = f"key {key!r} of its config differs" if key else f"it has the same seed, {two.config.seed}"
            raise ConfigError(
                f"--memory {other.name}: {why} (beside {self.name}); give runs that differ in their key 'seed' alone"
            )

    def identity(self, live: LiveContext | None) -> Identity:
        """The identity of trials on these inputs."""
        return Identity.of(self.folder, self.memory, self.log, self.judged_on, self.config, live)

    def source(self, seeds: int) -> Source:
        """The footer of a page about candidates with `seeds` seeds each."""
        stage = self.memory.stage
        return Source(
            self.log.schema.name,
            f"{stage.config.seed}, of the candidates {seed_names(seeds)}",
            f"memory {self.name}, stage {stage.index}",
        )


def judged_with(config: SweepConfig) -> dict[str, str]:
    """The versions of the packages on which the result of a sweep or a race depends."""
    more = ("ray",) if config.search.guided else ()
    return versions() | versions_of(("scipy", *more, *(("optuna",) if config.search.algorithm == "optuna" else ())))


def threads_of(config: SweepConfig) -> int:
    """torch threads of a trial."""
    return max(1, int(config.resources.cpus))


def planned_works(config: SweepConfig, seeds: int) -> list[Work]:
    """The work of a sweep that is known before it runs, in order: one trial per candidate and seed."""
    # A guided trial trains all seeds side by side, so that a candidate is stopped with all its seeds.
    seed_groups = [list(range(seeds))] if config.search.guided else [[seed] for seed in range(seeds)]
    drawn = [spec for candidate in config.candidates for spec in candidate.drawn(config.search.seed)]
    return [Work(spec=spec, seeds=group) for spec in drawn for group in seed_groups]


def live_context(inputs: Inputs, *, share: float, slices: Sequence[str], out: Path) -> LiveContext | None:
    """The data that all live trials of a sweep share; None for a share of 0, where candidates are judged frozen.

    Args:
        inputs: the sweep's.
        share: how many blocks they meet.
        slices: fields by whose values the rows are divided.
        out: the sweep's folder.

    Raises:
        ConfigError: a key does not go with the share, the log ends before, it is not the one that was distilled, or has no such field.
        CorruptArtefactError: the moments of the memory's table are missing or damaged.
    """
    if not 0 <= share < math.inf:
        raise ConfigError(f"--live {share:g}: must be a number of blocks, 0 or more")
    if share == 0:
        for spec in inputs.config.candidates:
            if spec.embedding_keys:
                raise ConfigError(
                    f"candidate {spec.name!r}, key {spec.embedding_keys[0]!r}: a frozen student has no table of its own; judge it with "
                    "--live above 0, or leave the key out"
                )
        if slices:
            raise ConfigError("--slice: only live rows are divided into slices; set --live above 0")
        return None
    if inputs.config.resources.gpus:
        raise ConfigError("key 'resources.gpus': live candidates use the CPU; set it to 0, or set --live 0")
    rows = live_rows(inputs.log, inputs.judged_on, share)
    return LiveContext(start_of(inputs, slices), rows, list(slices), out, states=out / STATES)


def start_of(inputs: Inputs, slices: Sequence[str] = ()) -> Start:
    """What candidates are launched from.

    Raises:
        ConfigError: the log is not the one that was distilled, or has no field of `slices`.
        CorruptArtefactError: the moments of the memory's table are missing or damaged.
    """
    memory, log = inputs.memory, inputs.log
    for name in slices:
        if name not in log.schema.field_names:
            raise ConfigError(f"--slice {name}: the log has no such field; fields: {', '.join(log.schema.field_names)}")
    return Start.of_memory(memory, load_moments(inputs.folder, memory.stage))


def trial_context(inputs: Inputs, live: LiveContext | None) -> TrialContext:
    """The data that all trials of a sweep share. Raises ConfigError where a search has no rows to score candidates on."""
    search, memory, log = inputs.config.search, inputs.memory, inputs.log
    student = LaunchRecipe().student if live else memory.stage.config.student
    rows = live.rows.rows if live else log.read_block(inputs.judged_on)
    held = held_rows(memory, log) if search.guided else None
    table = memory.rows.take(np.arange(1))
    if live is None:  # trials predict these rows alone: they get the rows of the table that these name, not the table
        parts = [rows.ids] if held is None else [rows.ids, held.ids]
        table, ids = memory.rows.local(np.concatenate(parts), memory.stage.log_schema.field_of_slot)
        rows = replace(rows, ids=ids[: len(rows)])
        held = None if held is None else replace(held, ids=ids[len(rows) :])
    return TrialContext(
        examples=memory.examples(),
        table=table,
        rows=rows,
        held=held,
        schema=memory.stage.log_schema,
        student=student,
        steps=rungs(student.steps) if search.scheduler == "asha" else [student.steps],
        live=live,
    )
