"""One driver at a time at an archive: `lock.json` there says who, as in a run folder (`diet_ray.storage.lock`).

An object store, as pyarrow reaches it, has no write that fails where something is there. So a taker looks, writes, waits
`SETTLE_SECONDS` and reads back: of several that find no lock, the one that wrote last has it and the others are refused. What is left is a
small race: one that stands still between its look and its write for longer than the others wait. Who loses the lock that way is told
before it commits the next stage and at the latest at its end; and since a manifest is never replaced by another one, and the same run
makes the same bytes, what both have sent is still whole.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from diet_ray.errors import UnreachableError
from diet_ray.storage.lock import LockOwner, LockState, beating, found, refusal, taken_away, this_process
from diet_ray.storage.remote import Remote

SETTLE_SECONDS = 2.0
"""How long a taker waits before it believes that the lock is its own."""

NAME = "lock.json"


@contextmanager
def archive_locked(remote: Remote) -> Iterator[LockOwner]:
    """Hold the lock of an archive for the length of the body; yields who holds it.

    Raises:
        LockedError: another process holds it; or, at the end of the body, it was taken away meanwhile.
        UnreachableError: the archive cannot be reached.
    """
    me = _take(remote)
    try:
        with beating(partial(_touch, remote, me)):
            yield me
    finally:
        kept = _release(remote, me)
    if not kept:
        raise taken_away(remote.uri)


def check_held(remote: Remote, me: LockOwner) -> None:
    """Raise LockedError where the lock is not that owner's any more."""
    held = _read(remote)
    if held is None or held.token != me.token:
        raise taken_away(remote.uri)


def live_archive_lock(remote: Remote) -> LockState | None:
    """The lock of an archive, if somebody holds it."""
    held = _read(remote)
    return held if held and not held.stale else None


def _take(remote: Remote) -> LockOwner:
    me = this_process()
    held = live_archive_lock(remote)
    if held is not None:
        raise refusal(held)
    _write(remote, me)
    time.sleep(SETTLE_SECONDS)
    held = _read(remote)
    if held is None:
        raise taken_away(remote.uri)
    if held.token != me.token:
        raise refusal(held)
    return me


def _release(remote: Remote, me: LockOwner) -> bool:
    """Remove our lock; False where it is not ours any more."""
    with suppress(UnreachableError):  # away: the lock grows stale by itself
        held = _read(remote)
        if held is None or held.token != me.token:
            return False
        remote.delete(NAME)
    return True


def _touch(remote: Remote, me: LockOwner) -> bool:
    """Give a sign of life; False where the lock is not ours any more."""
    with suppress(UnreachableError):  # the store may be away for a while
        held = _read(remote)
        if held is None or held.token != me.token:
            return False
        _write(remote, me)
    return True


def _write(remote: Remote, me: LockOwner) -> None:
    remote.put(NAME, (me.model_dump_json(indent=2) + "\n").encode(), draft=f".lock.{me.token}.tmp")


def _read(remote: Remote) -> LockState | None:
    content = remote.read(NAME)
    touched = remote.modified(NAME)
    if content is None or touched is None:
        return None
    return found(content, remote.at(NAME), touched, partial(_now, remote))


def _now(remote: Remote) -> float:
    """The time by the store's clock."""
    probe = f".lock.{secrets.token_hex(8)}.probe"
    try:
        remote.put(probe, b"\n", draft=probe.replace("probe", "tmp"))
        now = remote.modified(probe)
        remote.delete(probe)
    except UnreachableError:  # a place where we may only read
        now = None
    return time.time() if now is None else now
