"""Errors that cross Ray: the user's own, as JSON, and what to tell a user when work breaks off through nobody's mistake, because a
process or a node died, or a disk or the object store was full.

An error of the second sort comes from the depths of Ray or of a library, wrapped several times and from all workers at once. Only where
all of it can be explained in this way does it become one line; anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import exceptions
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from safetensors import SafetensorError

from diet_ray.engine.owners import LostShardError
from diet_ray.errors import BadInputError, BrokenOffError, DietError

_DIED = (
    LostShardError,
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
    exceptions.ActorPlacementGroupRemoved,
    exceptions.TaskPlacementGroupRemoved,
)

_FULL = ("No space left on device", "Disk quota exceeded")

_RESTART = "Key 'cluster.max_failures' lets a run restart by itself"

_BROKEN = f"a process of the run has died (its peers lost the connection). {_RESTART}"


def explain(error: BaseException, run: Path) -> DietError | None:
    """The user's error behind one that ended a run, or what to say of an accident; None where it is neither.

    Args:
        error: what came out of Ray: a `TrainingFailedError` or a `RayError`.
        run: the run folder, to name it.
    """
    failures = [list(_behind(failure)) for failure in _failures(error)]
    for behind in failures:
        for one in behind:
            if isinstance(one, DietError):
                return one
    said = [_accident(behind) for behind in failures]
    known = [what for what in said if what]
    # The peers of a worker that died report a broken connection; alone, that too means that somebody died.
    if len(known) < len(said):
        return None
    what = min(known, key=lambda what: what == _BROKEN)
    return BrokenOffError(f"{run}: {what}; what is committed is whole: go on with --resume")


def _accident(behind: list[BaseException]) -> str | None:
    """What happened to one worker, if it was an accident."""
    for one in behind:
        if full(one):
            return f"no space left on a disk ({_first_line(one)}). Free some"
        if isinstance(one, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
            return f"Ray's object store is full and cannot spill to disk ({_first_line(one)}). Give Ray more memory or disk"
        if isinstance(one, exceptions.OutOfMemoryError):
            return f"Ray ended a process because memory ran out ({_first_line(one)}). Ask for fewer workers or scorers, or smaller shards"
        if isinstance(one, WorkerHealthCheckTimeoutError):
            return f"a worker gives no answer ({_first_line(one)}). Look at its node"
        if isinstance(one, _DIED):
            return f"a process of the run has died ({_first_line(one)}). {_RESTART}"
        if isinstance(one, RuntimeError) and "gloo" in str(one):
            return _BROKEN
    return None


def full(error: BaseException) -> bool:
    """Whether an error says that a disk is full. safetensors says so in words alone."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, OSError | SafetensorError) and any(words in str(error) for words in _FULL)


def _failures(error: BaseException) -> list[BaseException]:
    """The errors of the workers, where they are told apart, else the error itself."""
    each = getattr(error, "worker_failures", None)
    return list(each.values()) if each else [error]


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from, the nearest first."""
    todo, seen = [error], set()
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        links = ("cause", "controller_failure", "health_check_failure", "__cause__", "__context__")
        todo += [other for link in links if isinstance(other := getattr(one, link, None), BaseException)]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray's own errors say what they are in the first line, those of a task in the last.
    line = lines[-1 if isinstance(error, exceptions.RayTaskError) else 0] if lines else type(error).__name__
    return line.rstrip(".")[:200]


def describe(error: DietError) -> str:
    """An error as JSON, for a worker to hand over as a result: an exception that crosses Ray comes back wrapped."""
    if isinstance(error, BadInputError):  # of a kind with more to it, such as `BadRows`, only what a user reads crosses
        where = {"column": error.column, "remedy": error.remedy}
        return json.dumps({"types": ["BadInputError"], "args": [error.file, error.problem], **where})
    types = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, DietError)]
    return json.dumps({"types": types, "args": [str(error)]})


def restore(description: str) -> DietError:
    """The error that `describe` described: of its own kind, or of the nearest one above that this process knows."""
    described = json.loads(description)
    known = {kind.__name__: kind for kind in _kinds(DietError)}
    kind: Any = next(known[name] for name in described["types"] if name in known)
    where = {key: described[key] for key in ("column", "remedy") if key in described}
    error: DietError = kind(*described["args"], **where)
    return error


def _kinds(kind: type[DietError]) -> Iterator[type[DietError]]:
    """An error's type and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
