"""The progress of a run at one moment, from its manifests and its events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Key
from pydantic import ValidationError

from diet_ray.errors import CorruptArtefactError
from diet_ray.figures import duration, size
from diet_ray.logs.layout import block_manifest_file, log_manifest_file
from diet_ray.memory.archive_note import ArchiveNote, read_note
from diet_ray.memory.events import read_events
from diet_ray.memory.facts import ConfigFacts, RunFacts, StageFacts, stage_facts
from diet_ray.memory.layout import (
    RUN,
    count_committed,
    events_file,
    run_manifest,
    stage_folder,
    waiting_folder,
)
from diet_ray.memory.pruning import bytes_of_stages
from diet_ray.memory.same_bytes import changes
from diet_ray.report.step_times import timings
from diet_ray.settings import Settings, parse_json
from diet_ray.storage.lock import live_lock
from diet_ray.storage.places import is_uri

State = Literal["finished", "running", "waiting", "stopped"]
"""`finished`: all blocks are committed; `running`: a live process holds the lock; `waiting`: a live follower waits for the log's next
block; `stopped`: none of these."""


class RunStatus(Settings):
    """A run at one moment."""

    run: str
    """The run folder, or the URI of an archive."""
    state: State
    """Its state."""
    owner: str | None
    """Description of the process that holds the lock."""
    blocks_done: int
    """Stages committed."""
    blocks: int | None
    """Blocks to distil; None where only the log gives their number and the log is no longer in its place."""
    rows_seen: int
    """Rows of the committed blocks."""
    rows_left: int | None
    """Rows of the other blocks; None where the log is no longer in its place."""
    units: int
    """Units of the last committed memory."""
    memory_bytes: int
    """Bytes of its shards."""
    table_bytes: int
    """Bytes of its reference checkpoint: the embedding table and the net."""
    kept_bytes: int | None = None
    """Bytes of all files of all stages; None for an archive, which `diet-ray gc` lists."""
    pruned_bytes: int | None = None
    """Bytes of the files that were pruned from them (`checkpoints.keep`)."""
    block: str | None
    """Block whose stage has begun but is not committed."""
    step: str | None
    """The step of that stage that began last."""
    done: int | None
    """Pieces of the step that are done, of `total`; None where the step does not count pieces."""
    total: int | None
    """Pieces of the step."""
    silence: float
    """Seconds since the last event, or since the run began."""
    rows_per_second: float | None
    """Rows per wall second over the committed stages; None before the first."""
    eta: float | None
    """Seconds until the last block is done, at that rate; None where the run is not running or the rows left are not known."""
    log: str
    """Name of the log; of its folder before the first stage is committed."""
    seed: int
    """The run's seed."""
    different_bytes: list[str] = Key(default_factory=list)
    """Where stages were made in another way than those before, so that their bytes are not those of one undisturbed run."""
    archive: ArchiveNote | None = None
    """The state of the run's archive when the driver last checked it; None where the run has no archive."""

    def lines(self) -> list[str]:
        """The status as text for a terminal."""
        of = f" of {self.blocks}" if self.blocks is not None else ""
        lines = [f"{self.run}: {self.state}, {self.blocks_done}{of} blocks committed"]
        if self.state != "finished":
            share = f" {self.done}/{self.total}" if self.total is not None else ""
            where = f"block {self.block}, {self.step or 'beginning'}{share}" if self.block else "between two stages"
            if self.state == "waiting":
                where = "waits for the log's next block"
            if is_uri(self.run):
                lines.append(f"last stage sent {duration(self.silence)} ago")
            else:
                when = "now" if self.owner else "stopped at"
                lines.append(f"{when}: {where}; last event {duration(self.silence)} ago")
            unknown = "" if self.blocks is not None else ", if its log, which is not here, has more blocks"
            lines.append(f"by: {self.owner}" if self.owner else f"diet-ray distill --resume continues it{unknown}")
        rate = f", {self.rows_per_second:,.0f} rows/s" if self.rows_per_second is not None else ""
        left = f", {self.rows_left:,} left" if self.rows_left is not None else ""
        eta = f", done in {duration(self.eta)}" if self.eta is not None else ""
        lines.append(f"rows: {self.rows_seen:,} seen{left}{rate}{eta}")
        lines.append(
            f"memory: {self.units:,} units, {size(self.memory_bytes)}; table and net beside it {size(self.table_bytes)}"
        )
        if self.kept_bytes is not None:
            gone = f", {size(self.pruned_bytes)} pruned" if self.pruned_bytes else ""
            lines.append(f"stages: {size(self.kept_bytes)} kept{gone}")
        lines += [f"other bytes {change}" for change in self.different_bytes]
        if self.archive is not None:
            has = "all stages"
            if self.archive.stages < self.blocks_done:
                why = f": {self.archive.trouble}" if self.archive.trouble else ""
                has = f"{self.archive.stages} of {self.blocks_done} stages{why}"
            lines.append(f"archive: {self.archive.uri} has {has}")
        return lines


def run_status(place: str | Path, *, now: float | None = None) -> RunStatus:
    """The status of a run, whether or not a process works on it.

    Args:
        place: the run folder, or the URI of a run's archive. An archive has only the stages sent so far, and no times of steps.
        now: seconds since the epoch; by default the current time.

    Raises:
        CorruptArtefactError: the folder holds no run, or a manifest is damaged.
        ConfigError: the archive holds no run, or cannot be reached.
    """
    if is_uri(str(place)):
        return _of_archive(str(place), time.time() if now is None else now)
    run = Path(place)
    if not run_manifest(run).exists():
        raise CorruptArtefactError(f"{run / 'run.json'}: missing; point at the folder that distill was given as --out")
    config = parse_json(RunFacts, run_manifest(run)).config
    seen = [0]
    stage: StageFacts | None = None
    different_bytes: list[str] = []
    kept_bytes = pruned_bytes = 0
    for index in range(count_committed(run)):
        before, stage = stage, stage_facts(run, index)  # two at a time: each holds the whole schema
        seen.append(stage.rows_seen)
        kept, gone = bytes_of_stages([(stage_folder(run, index), stage)])
        kept_bytes, pruned_bytes = kept_bytes + kept, pruned_bytes + gone
        if before:
            different_bytes += changes([before, stage])
    n_stages = len(seen) - 1
    events, _ = read_events(events_file(run))
    timing, now = timings(events), time.time() if now is None else now
    total, rows_left = _to_distil(config, n_stages)
    timed = {t: seconds for t in range(n_stages) if (seconds := timing.get(t, ({}, None))[1])}
    rate = sum(seen[t + 1] - seen[t] for t in timed) / sum(timed.values()) if timed else None

    open_stage: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "stage":
            open_stage = {"block": event["block"], "began": event["time"]}
        elif event["kind"] == "committed":
            open_stage = {}
        elif event["kind"] in ("start", "progress") and open_stage:
            open_stage |= {"step": event["step"], "done": event.get("done"), "total": event.get("total")}
    last = events[-1]["time"] if events else run_manifest(run).stat().st_mtime
    silence = max(now - last, 0.0)
    held, waits = live_lock(run), live_lock(waiting_folder(run))
    state: State = "finished" if n_stages == total else "running" if held else "stopped"
    if waits and not held:
        state = "waiting"
    eta = None
    if state == "running" and rate and rows_left is not None:
        eta = round(max(rows_left / rate - (now - open_stage.get("began", last)), 0.0), 1)
    return RunStatus(
        run=str(run),
        state=state,
        owner=str(held or waits) if held or waits else None,
        blocks_done=n_stages,
        blocks=total,
        rows_seen=seen[-1],
        rows_left=rows_left,
        units=stage.units if stage else 0,
        memory_bytes=stage.memory_bytes if stage else 0,
        table_bytes=stage.table_bytes if stage else 0,
        kept_bytes=kept_bytes,
        pruned_bytes=pruned_bytes,
        block=open_stage.get("block"),
        step=open_stage.get("step"),
        done=open_stage.get("done"),
        total=open_stage.get("total"),
        silence=round(silence, 1),
        rows_per_second=round(rate, 1) if rate else None,
        eta=eta,
        log=_log_name(config, stage),
        seed=config.seed,
        different_bytes=different_bytes,
        archive=read_note(run),
    )


def _of_archive(uri: str, now: float) -> RunStatus:
    # Imported here: importing pyarrow takes longer than reading the status of a run folder.
    from diet_ray.memory.archive import Archive, manifest_name
    from diet_ray.storage.remote_lock import live_archive_lock

    archive = Archive(uri)
    archive.require_run()
    remote, n, held = archive.remote, len(archive.stages()), live_archive_lock(archive.remote)
    latest = manifest_name(n - 1) if n else RUN
    try:
        config = RunFacts.model_validate_json(remote.read(RUN) or b"").config
        stage = StageFacts.model_validate_json(remote.read(latest) or b"") if n else None
    except ValidationError as error:
        raise CorruptArtefactError(
            f"{remote.uri}: {RUN} or {latest} is missing or damaged; see diet-ray verify {remote.uri}"
        ) from error
    total, rows_left = _to_distil(config, n)
    state: State = "running" if held else "stopped"
    if n == total:
        state = "waiting" if held else "finished"
    return RunStatus(
        run=remote.uri,
        state=state,
        owner=str(held) if held else None,
        blocks_done=n,
        blocks=total,
        rows_seen=stage.rows_seen if stage else 0,
        rows_left=rows_left,
        units=stage.units if stage else 0,
        memory_bytes=stage.memory_bytes if stage else 0,
        table_bytes=stage.table_bytes if stage else 0,
        block=None,
        step=None,
        done=None,
        total=None,
        silence=round(max(now - (remote.modified(latest) or now), 0.0), 1),
        rows_per_second=None,
        eta=None,
        log=_log_name(config, stage),
        seed=config.seed,
    )


def _log_name(config: ConfigFacts, stage: StageFacts | None) -> str:
    return stage.log_schema.name if stage else config.log.name


def _to_distil(config: ConfigFacts, done: int) -> tuple[int | None, int | None]:
    """Number of blocks of the run, and the rows of those after the first `done`."""
    total = config.blocks
    try:
        names = json.loads(log_manifest_file(config.log).read_bytes())["blocks"]
        total = len(names) - 1 if total is None else total
        manifests = [block_manifest_file(config.log, name) for name in names[done:total]]
        return total, sum(json.loads(path.read_bytes())["rows"] for path in manifests)
    except (OSError, ValueError, KeyError, TypeError):
        return total, None  # the log may be on another machine; the status must not depend on it
