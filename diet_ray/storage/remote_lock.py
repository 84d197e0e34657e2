"""One driver at a time at an archive. `lock.json` there names the owner, as in a run folder (`diet_ray.storage.lock`).

Through pyarrow, an object store has no write that fails where the object exists. So a process that takes the lock reads, writes, waits
`SETTLE_SECONDS` and reads again. Of several processes that see no lock, the last writer gets it and the others are refused. A small race
remains: a process may pause between its read and its write for longer than the others wait. The process that loses the lock this way gets
an error before it commits the next stage, or at its end. The archive stays whole: no manifest is ever replaced by another one, and the same
run makes the same bytes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from diet_ray.errors import UnreachableError
from diet_ray.storage.lock import LockOwner, LockState, beating, lock_state, refusal, taken_away, this_process
from diet_ray.storage.remote import Remote

SETTLE_SECONDS = 2.0
"""Time that a process waits before it checks that the lock is its own."""

NAME = "lock.json"


@contextmanager
def archive_locked(remote: Remote) -> Iterator[LockOwner]:
    """Hold the lock of an archive while the body runs; yields its owner.

    Raises:
        LockedError: another process holds the lock; or, at the end of the body, the lock was taken away meanwhile.
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
    with suppress(UnreachableError):  # if the store is unreachable, the lock becomes stale by itself
        held = _read(remote)
        if held is None or held.token != me.token:
            return False
        remote.delete(NAME)
    return True


def _touch(remote: Remote, me: LockOwner) -> bool:
    """Touch the lock; False where it is not ours any more."""
    with suppress(UnreachableError):  # the store may be unreachable for a while
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
    return lock_state(content, remote.at(NAME), touched, partial(_now, remote))


def _now(remote: Remote) -> float:
    """The time by the store's clock."""
    probe = f".lock.{secrets.token_hex(8)}.probe"
    try:
        remote.put(probe, b"\n", draft=probe.replace("probe", "tmp"))
        now = remote.modified(probe)
        remote.delete(probe)
    except UnreachableError:  # a read-only place
        now = None
    return time.time() if now is None else now
