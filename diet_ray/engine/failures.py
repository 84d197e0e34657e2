"""Errors that cross Ray: the user's errors, as JSON, and accidents, where a process or a node died, or a disk or the object store was full.

The error of an accident comes from inside Ray or a library, wrapped several times and from all workers at once. It becomes one line only
where an accident explains every part of it; any other error is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import exceptions
from safetensors import SafetensorError

from diet_ray.errors import BadInputError, BrokenOffError, DietError, path_error


class LostShardError(Exception):
    """A shard's owner has died and its units are lost: the stage must start again from the last committed one."""


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
    """The user's error that ended a run, or an error that describes an accident; None where it is neither.

    Args:
        error: the error from Ray: a `TrainingFailedError` or a `RayError`.
        run: the run folder, which the message names.
    """
    chains = [list(_behind(failure)) for failure in _failures(error)]
    for chain in chains:
        for cause in chain:
            if isinstance(cause, DietError):
                return cause
    reasons = [_accident(chain) for chain in chains]
    accidents = [reason for reason in reasons if reason]
    if len(accidents) < len(reasons):
        return None
    # The peers of a dead worker report a broken connection. Where no other error is known, that also means that a process died.
    accident = min(accidents, key=lambda text: text == _BROKEN)
    return BrokenOffError(f"{run}: {accident}; the committed stages are complete: go on with --resume")


def _accident(chain: list[BaseException]) -> str | None:
    """The accident of one worker, in words; None where it was no accident."""
    # Each process of Ray Data imports this file, and Ray Train takes seconds to import.
    from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

    for error in chain:
        if full(error):
            return f"no space left on a disk ({_first_line(error)}). Free some space"
        if isinstance(error, OSError) and (refused := path_error(error)):
            return str(refused)
        if isinstance(error, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
            return f"Ray's object store is full and cannot spill to disk ({_first_line(error)}). Give Ray more memory or disk"
        if isinstance(error, exceptions.OutOfMemoryError):
            return f"Ray ended a process because memory ran out ({_first_line(error)}). Ask for fewer workers or scorers, or smaller shards"
        if isinstance(error, WorkerHealthCheckTimeoutError):
            return f"a worker does not answer ({_first_line(error)}). Check its node"
        if isinstance(error, _DIED):
            return f"a process of the run has died ({_first_line(error)}). {_RESTART}"
        if isinstance(error, RuntimeError) and "gloo" in str(error):
            return _BROKEN
    return None


def full(error: BaseException) -> bool:
    """Whether an error means that a disk is full. An error of safetensors shows it only in its text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, OSError | SafetensorError) and any(words in str(error) for words in _FULL)


def _failures(error: BaseException) -> list[BaseException]:
    """The errors of the single workers, where Ray lists them, else the error itself."""
    each = getattr(error, "worker_failures", None)
    return list(each.values()) if each else [error]


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and all its causes, the nearest first."""
    todo, visited = [error], set()
    while todo:
        cause = todo.pop(0)
        if id(cause) in visited:
            continue
        visited.add(id(cause))
        yield cause
        links = ("cause", "controller_failure", "health_check_failure", "__cause__", "__context__")
        todo += [linked for link in links if isinstance(linked := getattr(cause, link, None), BaseException)]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line describes an error of Ray's own, the last line an error of a task.
    line = lines[-1 if isinstance(error, exceptions.RayTaskError) else 0] if lines else type(error).__name__
    return line.rstrip(".")[:200]


def describe(error: DietError) -> str:
    """An error as JSON, which a worker returns as a result: an exception that crosses Ray comes back wrapped."""
    if isinstance(error, BadInputError):  # of a subclass such as `BadRows`, only the text for the user crosses
        where = {"column": error.column, "remedy": error.remedy}
        return json.dumps({"types": ["BadInputError"], "args": [error.file, error.problem], **where})
    types = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, DietError)]
    return json.dumps({"types": types, "args": [str(error)]})


def restore(description: str) -> DietError:
    """The error that `describe` wrote: of its own class, or of the nearest base class that this process has."""
    described = json.loads(description)
    classes = {kind.__name__: kind for kind in _kinds(DietError)}
    kind: Any = next(classes[name] for name in described["types"] if name in classes)
    where = {key: described[key] for key in ("column", "remedy") if key in described}
    error: DietError = kind(*described["args"], **where)
    return error


def _kinds(kind: type[DietError]) -> Iterator[type[DietError]]:
    """A class of errors and all its subclasses."""
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
