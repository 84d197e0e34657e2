import os
import signal
import threading
import time
from pathlib import Path

import pytest

from diet_ray.engine.data import fan_out
from diet_ray.errors import BadInputError


def work(description: str, sign: str) -> bytes:
    if description.startswith("bad"):
        raise BadInputError(description, "is bad", column="c", remedy="mend it")
    return f"{sign}{description}:{os.getpid()}".encode()


@pytest.mark.ray
def test_results_come_in_order_from_other_processes(ray_cluster: int) -> None:
    results = [result.decode().split(":") for result in fan_out(work, [str(i) for i in range(20)], sign="#")]
    assert [name for name, _ in results] == [f"#{i}" for i in range(20)]
    assert str(os.getpid()) not in {pid for _, pid in results}


@pytest.mark.ray
def test_the_first_bad_input_in_order_is_raised_as_itself(ray_cluster: int) -> None:
    got = []
    with pytest.raises(BadInputError) as caught:
        got.extend(fan_out(work, ["1", "bad 2", "3", "bad 4"], sign=""))
    assert str(caught.value) == "bad 2, column 'c': is bad (mend it)"


def test_nothing_to_do() -> None:
    assert list(fan_out(work, [], sign="")) == []


def die_once(description: str, marks: str) -> bytes:
    mark = Path(marks) / description
    if description == "3" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return description.encode()


@pytest.mark.ray
def test_the_work_of_a_killed_worker_is_done_again(ray_cluster: int, tmp_path: Path) -> None:
    todo = [str(i) for i in range(8)]
    assert [result.decode() for result in fan_out(die_once, todo, marks=str(tmp_path))] == todo
    assert (tmp_path / "3").exists()


@pytest.mark.ray
def test_no_thread_is_left(ray_cluster: int) -> None:
    def extra() -> set[threading.Thread]:
        return set(threading.enumerate()) - before

    list(fan_out(work, ["0"], sign=""))  # Ray's own, which stay
    before = set(threading.enumerate())
    for i in range(3):
        list(fan_out(work, [str(i), "x"], sign=""))
    until = time.monotonic() + 60
    while extra() and time.monotonic() < until:
        time.sleep(0.05)
    assert not extra()
