"""One driver at a time at an archive. `lock.json` there names the owner, as in a run folder (`diet_ray.storage.lock`).

In a folder (file://) it is that very lock. In an object store, each write of it has a condition: that there is no lock yet, or that it is
still the one that was read. So of several processes that take it at a time one gets it. The owner touches its lock by writing it anew, so
each touch is another version, and nobody can take over a lock that has been touched since it was read.

A store deletes without a condition. Therefore the owner touches its lock just before it removes it: for `STALE_SECONDS` nobody else may
take it then.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from diet_ray.errors import ConfigError, LockedError, UnreachableError
from diet_ray.storage.cloud_store import CloudStore, Version
from diet_ray.storage.lock import (
    LockOwner,
    LockState,
    beating,
    live_lock,
    lock_state,
    locked,
    refusal,
    still_locked,
    taken_away,
    this_process,
)
from diet_ray.storage.remote import Remote

NAME = "lock.json"

ATTEMPTS = 5
"""How often a process tries again to write the lock, where it changed since it was read."""


@contextmanager
def archive_locked(remote: Remote) -> Iterator[LockOwner]:
    """Hold the lock of an archive while the body runs; yields its owner.

    Raises:
        LockedError: another process holds the lock; or, at the end of the body, the lock was taken away meanwhile.
        UnreachableError: the archive cannot be reached.
        ConfigError: the store ignores the condition of a write, or the folder cannot be written to.
    """
    if not isinstance(remote.store, CloudStore):
        with locked(remote.store.root) as me:
            yield me
        return
    held = _Held(remote, remote.store)
    held.take()
    try:
        with beating(held.touch):
            yield held.me
    finally:
        kept = held.release()
    if not kept:
        raise taken_away(remote.uri)


def check_held(remote: Remote, me: LockOwner) -> None:
    """Raise LockedError where the lock is not that owner's any more."""
    if isinstance(remote.store, CloudStore):
        found = _read(remote, remote.store)
        kept = found is not None and _state(remote, found).token == me.token
    else:
        kept = still_locked(remote.store.root, me)
    if not kept:
        raise taken_away(remote.uri)


def live_archive_lock(remote: Remote) -> LockState | None:
    """The lock of an archive, if somebody holds it."""
    if not isinstance(remote.store, CloudStore):
        return live_lock(remote.store.root)
    found = _read(remote, remote.store)
    held = _state(remote, found) if found else None
    return held if held and not held.stale else None


class _Held:
    """The lock of an object store, and who holds it."""

    def __init__(self, remote: Remote, store: CloudStore) -> None:
        self.remote, self.store, self.me = remote, store, this_process()

    def take(self) -> None:
        """Create the lock, or replace a stale one."""
        for _ in range(ATTEMPTS):
            found = _read(self.remote, self.store)
            held = _state(self.remote, found) if found else None
            if held and held.token == self.me.token:  # the answer to the attempt before was lost
                break
            if held and not held.stale:
                raise refusal(held)
            if self._write(found):
                break
        else:
            raise LockedError(f"{self.remote.uri}: other processes are taking its lock just now; try again")
        if self._write(None):
            self.remote.delete(NAME)
            raise ConfigError(
                f"{self.remote.uri}: the store ignores the condition of a write (If-None-Match), so that two drivers could work there "
                "at a time; use another store, or a release of it that has conditional writes"
            )

    def touch(self) -> bool:
        """Write the lock anew; False where it is not ours any more."""
        with suppress(UnreachableError):  # the store may be unreachable for a while
            for _ in range(ATTEMPTS):  # another attempt where the answer was lost
                found = _read(self.remote, self.store)
                if found is None or _state(self.remote, found).token != self.me.token:
                    return False
                self.me = self.me.model_copy(update={"beats": self.me.beats + 1})
                if self._write(found):
                    break
        return True

    def release(self) -> bool:
        """Remove our lock; False where it is not ours any more."""
        with suppress(UnreachableError):  # if the store is unreachable, the lock becomes stale by itself
            if not self.touch():
                return False
            self.remote.delete(NAME)
        return True

    def _write(self, found: Version | None) -> bool:
        """Write our record in the place of what was found there; False where something else is there now."""
        with self.remote.reached(NAME):
            if found is None:
                return self.store.create(NAME, self.me.record())
            return self.store.swap(NAME, self.me.record(), found.tag)


def _read(remote: Remote, store: CloudStore) -> Version | None:
    with remote.reached(NAME):
        return store.version(NAME)


def _state(remote: Remote, found: Version) -> LockState:
    return lock_state(found.content, remote.at(NAME), found.modified, partial(_now, remote))


def _now(remote: Remote) -> float:
    """The time by the store's clock."""
    probe = f".lock.{secrets.token_hex(8)}.probe"
    try:
        remote.put(probe, b"\n")
        now = remote.modified(probe)
        remote.delete(probe)
    except UnreachableError:  # a read-only place
        now = None
    return time.time() if now is None else now
