"""Follow mode: distil a growing log block by block, as blocks are added. The function that distils is an argument.

The newest block is never distilled, because candidates are judged on it. When a new block is added, candidates are judged on that one, and
the block before it is distilled. The result has the same bytes as one run over the whole log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError, CorruptArtefactError, LockedError
from diet_ray.logs.blocks import LogManifest
from diet_ray.logs.layout import log_manifest_file
from diet_ray.memory.layout import count_committed, run_manifest, waiting_folder
from diet_ray.settings import parse_json
from diet_ray.storage.lock import locked

POLL_SECONDS = 5.0
"""Seconds between two reads of the log's manifest."""

RETRIES = 5
"""Times that a follower looks again where the log cannot be read or a lock is held, after 5, 10, 20, 40 and 80 seconds: a log that is being
copied or a run that `gc` looks at for a moment must not end a follower that has run for months."""

T = TypeVar("T")


def follow_log(
    run: Path,
    config: StreamConfig,
    distil: Callable[[bool], object],
    *,
    on_wait: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Distil all blocks but the newest and wait for more, until an exception (Ctrl-C, SIGTERM) ends it.

    The run folder holds the whole state between two stages, so a follower can be stopped and started again at any time. While it waits,
    it holds a lock in `RUN/follow`, by which `diet-ray status` distinguishes a waiting run from a finished one.

    Args:
        run: the run folder.
        config: the run's config.
        distil: distils all blocks after the last committed stage but the newest; its argument is whether there is a run to resume.
        on_wait: called with a message before each wait.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: the config asks for a fixed number of blocks, or the log has fewer blocks than the run has distilled.
        CorruptArtefactError: there is no log; or, after all retries, the log is damaged.
        LockedError: another follower waits for the same run's next block; or, after all retries, another process works on the run.
    """
    if config.blocks is not None:
        raise ConfigError(
            "key 'blocks': --follow needs a run without a fixed number of blocks; remove the key, or do not use --follow"
        )

    def patiently(work: Callable[[], T]) -> T:
        for retry in range(RETRIES):
            try:
                return work()
            except (CorruptArtefactError, LockedError) as error:
                wait = POLL_SECONDS * 2**retry
                on_wait(f"{error}; looking again in {wait:g} s")
                sleep(wait)
        return work()

    names = _blocks(config)  # a log that is not there is told at once
    while True:
        done = count_committed(run)
        if done > len(names):
            raise ConfigError(
                f"log {config.log}: has {len(names)} blocks, but the run has distilled {done}; put the whole log back, or start a new run"
            )
        if done < len(names) - 1:
            patiently(lambda: distil(run_manifest(run).exists()))
        else:
            on_wait(f"{done} blocks of {config.log} distilled; waiting for the block after {names[-1]}")
            with _waiting(run):
                while patiently(lambda: _blocks(config)) == names:
                    sleep(POLL_SECONDS)
        names = patiently(lambda: _blocks(config))


def _blocks(config: StreamConfig) -> list[str]:
    return parse_json(LogManifest, log_manifest_file(config.log)).blocks


@contextmanager
def _waiting(run: Path) -> Iterator[None]:
    """Hold the lock of a waiting follower; before the run has begun there is no folder for it and no lock is held."""
    if not run_manifest(run).exists():
        yield
        return
    try:
        with locked(waiting_folder(run)):
            yield
    finally:
        with suppress(OSError):  # not empty: another follower waits
            waiting_folder(run).rmdir()
