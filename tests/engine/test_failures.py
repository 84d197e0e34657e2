"""What becomes of the errors in which an accident arrives: one line, unless there is a bug among them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, ObjectStoreFullError, OwnerDiedError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from safetensors import SafetensorError

from diet_ray.engine.failures import LostShardError, explain, full
from diet_ray.errors import BrokenOffError, CorruptArtefactError

RUN = Path("runs/mine")
GLOO = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:39247")
FULL = OSError(errno.ENOSPC, "No space left on device", "stages/0003/x")


def task_error(cause: Exception) -> Exception:
    """As `ray.get` raises it from an actor's method."""
    wrapped: Exception = RayTaskError("do", "traceback", cause).as_instanceof_cause()
    return wrapped


def group(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("it failed", dict(enumerate(failures)))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (group(WorkerHealthCheckFailedError("a check failed", ActorDiedError())), "a process of the run has died"),
        (group(task_error(LostShardError("the owner died"))), "a process of the run has died"),
        (group(ActorDiedError(), GLOO), "a process of the run has died"),
        (group(GLOO, task_error(FULL)), "no space left on a disk"),
        (group(GLOO), "its peers lost the connection"),
        (group(OwnerDiedError("ab" * 28, None, "")), "a process of the run has died"),
        (group(WorkerHealthCheckTimeoutError("it hangs")), r"a worker does not answer \(it hangs\)"),
        (group(FULL), r"no space left on a disk \(\[Errno 28\] No space left on device: 'stages/0003/x'\)\. Free some"),
        (group(SafetensorError("I/O error: No space left on device (os error 28)")), "no space left on a disk"),
        (group(ObjectStoreFullError("full")), "Ray's object store is full"),
        (ControllerError(ActorDiedError()), "a process of the run has died"),
        (ActorDiedError(), "a process of the run has died"),
    ],
)
def test_an_accident_is_one_line_that_says_how_to_go_on(error: Exception, said: str) -> None:
    found = explain(error, RUN)
    assert isinstance(found, BrokenOffError)
    with pytest.raises(
        BrokenOffError, match=f"^runs/mine: .*{said}.*; the committed stages are complete: go on with --resume$"
    ):
        raise found
    assert "\n" not in str(found)


@pytest.mark.parametrize("error", [group(KeyError("x")), group(GLOO, KeyError("x")), ControllerError(ValueError("x"))])
def test_a_bug_stays_one_whatever_it_takes_along(error: Exception) -> None:
    assert explain(error, RUN) is None


def test_a_users_error_comes_before_an_accident() -> None:
    damaged = CorruptArtefactError("shard: not the file that its manifest names")
    assert explain(group(GLOO, ActorDiedError(), task_error(damaged)), RUN) is not None
    found = explain(group(GLOO, ActorDiedError(), task_error(damaged)), RUN)
    assert isinstance(found, CorruptArtefactError)


def test_only_a_full_disk_is_one() -> None:
    assert full(OSError(errno.EDQUOT, "quota"))
    assert not full(OSError(errno.EACCES, "No"))
    assert not full(RuntimeError("No space left on device"))
