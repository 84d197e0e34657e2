"""Follow mode: a log that grows is distilled block by block, day after day. Who distils is handed in.

The newest block is never distilled: candidates are judged on it. When the next one is there, it becomes the one that judges, and the
stage of the block before it runs. The result is that of one run over the whole log, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import LogManifest
from diet_ray.logs.layout import log_manifest_file
from diet_ray.memory.layout import count_committed, run_manifest, waiting_folder
from diet_ray.settings import parse_json
from diet_ray.storage.lock import locked

POLL_SECONDS = 5.0
"""Seconds between two looks at the log."""


def follow_log(
    run: Path,
    config: StreamConfig,
    distil: Callable[[bool], object],
    *,
    on_wait: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Distil whatever the log holds and wait for more, until an exception (Ctrl-C, SIGTERM) ends it.

    Nothing is kept between two stages but the run folder, so that a follower can be ended and started again at any time. While it waits
    it holds a lock in `RUN/follow`, by which `diet-ray status` tells a run that waits from one that is finished.

    Args:
        run: the run folder.
        config: the run's config.
        distil: distils all blocks but the newest behind the last committed stage; told whether there is a run to resume.
        on_wait: told, once before each wait, what is waited for.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: the config asks for a fixed number of blocks.
        CorruptArtefactError: there is no log, or its manifest is damaged.
        LockedError: another follower waits for the same run's next block.
    """
    if config.blocks is not None:
        raise ConfigError(
            "key 'blocks': a log that is followed has no fixed number of blocks; leave the key out, or do not follow"
        )
    while True:
        names = _blocks(config)
        done = count_committed(run)
        if done < len(names) - 1:
            distil(run_manifest(run).exists())
            continue
        if names:
            on_wait(f"{done} blocks of {config.log} distilled; waiting for the block after {names[-1]}")
        with _waiting(run):
            while _blocks(config) == names:
                sleep(POLL_SECONDS)


def _blocks(config: StreamConfig) -> list[str]:
    return parse_json(LogManifest, log_manifest_file(config.log)).blocks


@contextmanager
def _waiting(run: Path) -> Iterator[None]:
    """Hold the lock of a follower that waits; before the run has begun there is nothing to hold it for."""
    if not run_manifest(run).exists():
        yield
        return
    try:
        with locked(waiting_folder(run)):
            yield
    finally:
        with suppress(OSError):  # another one waits
            waiting_folder(run).rmdir()
