"""One driver at a time in a run folder. `RUN/lock.json` names the owner; the time of its last change shows that the owner is alive.

A lock is stale when its owner is surely gone. For an owner on this machine, that is when no process with its number and start time exists.
For another machine, or where the lock cannot be read, it is when nobody has touched the lock for `STALE_SECONDS`. Another process may
take over a stale lock only. Where two processes want the same stale lock, a claim decides: a file that is named after the lock's token and
that only one of them can create. The holder of the claim reads the lock again before it replaces it. No token is used twice, so nobody can
replace a lock that was not stale.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import Field as Key
from pydantic import ValidationError

from diet_ray.errors import ConfigError, LockedError
from diet_ray.figures import duration
from diet_ray.links import no_link
from diet_ray.settings import Settings
from diet_ray.storage.background import repeating
from diet_ray.storage.uninterrupted import uninterrupted

HEARTBEAT_SECONDS = 15.0
"""How often an owner touches its lock."""

STALE_SECONDS = 300.0
"""Time without a touch after which an owner on another machine counts as gone."""

PATIENCE_SECONDS = 2.0
"""Time that another process may need to take over a stale lock or to release its own."""

WRITE_SECONDS = 0.5
"""How long a lock that names nobody may be one that its owner has created and is just writing."""


class LockOwner(Settings):
    """The process that holds a lock."""

    host: str
    """Name of the machine, for messages."""
    machine: str
    """Boot and process namespace in which `pid` is valid; empty where they cannot be read."""
    pid: int = Key(ge=1, lt=2**31)
    """Process number."""
    started: int = Key(ge=0)
    """Clock ticks from the boot to the start of the process; a later process with the same number has another value."""
    since: float = Key(ge=0, lt=1e11)
    """When the lock was taken, seconds since the epoch by the owner's clock."""
    token: str = Key(pattern=r"^[0-9a-f]{16}$")
    """A random name, new each time that the lock is taken."""
    beats: int = Key(default=0, ge=0)
    """How often its owner has touched it, where each touch is a new version of an object."""

    def record(self) -> bytes:
        """The content of the lock's file or object."""
        return (self.model_dump_json(indent=2, exclude_defaults=True) + "\n").encode()


@dataclass(frozen=True)
class LockState:
    """A lock as it was read."""

    where: str
    """The file or object."""
    owner: LockOwner | None
    """None where the lock cannot be read: its owner may be writing it at this moment, or may have died while it wrote."""
    token: str
    """The owner's token; a hash of the content where that cannot be read."""
    touched: float
    """Time of the last touch, by the storage's clock."""
    now: Callable[[], float]
    """Reads that clock."""

    @property
    def silence(self) -> float:
        """Seconds since the last touch."""
        return max(self.now() - self.touched, 0.0)

    @property
    def stale(self) -> bool:
        """Whether its owner is surely gone."""
        if self.owner is not None and self.owner.machine and self.owner.machine == _machine():
            return not _lives(self.owner.pid, self.owner.started)
        return self.silence > STALE_SECONDS

    def __str__(self) -> str:
        if self.owner is None:
            return f"an unknown process, last sign of life {duration(self.silence)} ago"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.owner.since))
        age = duration(max(time.time() - self.owner.since, 0.0))
        return (
            f"process {self.owner.pid} on {self.owner.host} since {since} ({age}), last sign of life "
            f"{duration(self.silence)} ago"
        )


@contextmanager
def locked(run: Path) -> Iterator[LockOwner]:
    """Hold the lock of a run folder while the body runs; yields its owner. The folder is created where it is missing.

    Raises:
        LockedError: another process holds the lock; or, at the end of the body, the lock was taken away meanwhile.
        ConfigError: the folder cannot be written to.
        CorruptArtefactError: the lock is a link.
    """
    made, kept = not run.exists(), True
    me: LockOwner | None = None
    try:
        with uninterrupted():
            me = _take(run)
        with beating(partial(_touch, run, me.token)):
            yield me
    finally:
        with uninterrupted():
            if me is not None:
                kept = _release(run, me)
            if made:
                with suppress(OSError):  # it is not empty, or was never made
                    run.rmdir()
    if not kept:
        raise taken_away(str(run))


def beating(beat: Callable[[], bool]) -> AbstractContextManager[None]:
    """Call `beat` every `HEARTBEAT_SECONDS` in a thread, until it returns False or the body ends."""
    return repeating(HEARTBEAT_SECONDS, beat, "lock")


def live_lock(run: Path) -> LockState | None:
    """The lock of a run folder, if somebody holds it."""
    held = _read(run)
    return held if held and not held.stale else None


def sign(folder: Path) -> Path:
    """Record in a new folder that this process works in it; returns the file."""
    _create(folder / "lock.json", this_process())
    return folder / "lock.json"


def is_forsaken(folder: Path) -> bool:
    """Whether a process of this machine has signed a folder, and has ended."""
    held = _read(folder)
    if held is None or held.owner is None:
        return False
    return held.stale and held.owner.machine != "" and held.owner.machine == _machine()


def still_locked(run: Path, me: LockOwner) -> bool:
    """Whether that owner still holds the lock of a run folder."""
    held = _read(run)
    return held is not None and held.token == me.token


def refusal(held: LockState) -> LockedError:
    """The error for a lock that another process holds."""
    return LockedError(
        f"{held.where.rpartition('/')[0]}: in use by {held}; wait until it ends. If you are sure that it is gone, "
        f"remove {held.where}"
    )


def taken_away(place: str) -> LockedError:
    """The error for a lock that was lost."""
    return LockedError(
        f"{place}: its lock was taken away while this process worked in it; check it with diet-ray verify"
    )


def this_process() -> LockOwner:
    """The record of this process, with a new token."""
    return LockOwner(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        since=round(time.time(), 3),
        token=secrets.token_hex(8),
    )


def lock_state(content: bytes, where: str, touched: float, now: Callable[[], float]) -> LockState:
    """The lock whose file or object `where` holds `content`."""
    try:
        owner = LockOwner.model_validate_json(content)
    except ValidationError:
        owner = None
    token = owner.token if owner else hashlib.sha256(content).hexdigest()[:16]
    return LockState(where, owner, token, touched, now)


def _take(run: Path) -> LockOwner:
    me = this_process()
    path, until = run / "lock.json", time.monotonic() + PATIENCE_SECONDS
    written = time.monotonic() + WRITE_SECONDS
    try:
        run.mkdir(parents=True, exist_ok=True)
        while True:
            if _create(path, me):
                return me
            held = _read(run)
            if held is not None and not held.stale:
                if held.owner is not None or time.monotonic() > written:
                    raise refusal(held)
            elif held is not None and _take_over(run, held, me):
                return me
            if time.monotonic() > until:
                claims = ", ".join(map(str, sorted(run.glob(".lock.*.claim")))) or "none"
                raise LockedError(
                    f"{path}: its owner is gone, but another process seems to be taking it over (claims: {claims}); "
                    "try again. If there is no such process, remove these files"
                )
            time.sleep(0.02)
    except OSError as error:
        raise ConfigError(f"{run}: cannot be written to ({error.strerror}); choose another folder") from error


def _take_over(run: Path, held: LockState, me: LockOwner) -> bool:
    """Replace a stale lock by ours; False where another process is faster."""
    with _claimed(run, held.token) as claimed:
        again = _read(run) if claimed else None
        if again is None or again.token != held.token or not again.stale:
            return False
        draft = run / f".lock.{me.token}.tmp"
        _create(draft, me)
        draft.replace(run / "lock.json")
        return True


def _release(run: Path, me: LockOwner) -> bool:
    """Remove our lock; False where it is not ours any more."""
    with suppress(OSError), _claimed(run, me.token) as claimed:
        held = _read(run) if claimed else None
        if held is None or held.token != me.token:
            return False
        (run / "lock.json").unlink()
    return True


@contextmanager
def _claimed(run: Path, token: str) -> Iterator[bool]:
    """Claim the lock of that token while the body runs; yields whether we alone may replace or remove it."""
    claim = run / f".lock.{token}.claim"
    claimed = _create(claim, None)
    try:
        yield claimed
    finally:
        if claimed:
            claim.unlink()


def _touch(run: Path, token: str) -> bool:
    """Touch the lock; False where it is not ours any more."""
    with suppress(OSError):  # the storage may be unreachable for a while
        held = _read(run)
        if held is None or held.token != token:
            return False
        os.utime(run / "lock.json", follow_symlinks=False)
    return True


def _create(path: Path, me: LockOwner | None) -> bool:
    """Create a file with our record, or an empty one where `me` is None; False where the file exists."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(me.record() if me else b"")
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk: half a lock would block every process
        path.unlink()
        raise
    return True


def _read(run: Path) -> LockState | None:
    path = run / "lock.json"
    try:
        with open(path, "rb", opener=no_link) as file:
            content, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    return lock_state(content, str(path), touched, partial(_now, run))


def _now(run: Path) -> float:
    """The time by the clock of the storage of `run`. On shared storage it may differ from this machine's clock."""
    probe = run / f".lock.{secrets.token_hex(8)}.probe"
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # a read-only folder
        return time.time()
    return now


def _machine() -> str:
    """This boot of this kernel and our process namespace, in which process numbers are valid; empty where they cannot be read."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since the boot; None where it has ended or is hidden from us."""
    try:
        # The name, in parentheses, may hold any character: the fields come after the last `)`.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _lives(pid: int, started: int) -> bool:
    """Whether the process `pid` of this machine is still the one that started at `started`."""
    now = _started(pid)
    if now is not None:
        return now == started
    if Path(f"/proc/{pid}").exists():
        return False  # a zombie: it has ended, but its parent has not collected it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it exists, but is hidden from us (hidepid)
    return True
