"""The description of the machine on which a benchmark ran, and the measurement of its processes' memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from diet_ray.settings import Settings
from diet_ray.storage.background import repeating

PROC = Path("/proc")


class Machine(Settings):
    """The machine on which figures were measured."""

    processor: str
    """Model name."""
    cores: int
    """Cores that this process may use."""
    memory: int
    """Bytes of RAM."""
    load: float
    """Mean number of running and waiting processes in the minute before; near 0 on an idle machine."""
    versions: dict[str, str]
    """Versions of Python, torch, ray and pyarrow."""

    @staticmethod
    def here() -> Machine:
        """This machine."""
        cpuinfo = (PROC / "cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
        return Machine(
            processor=names[0] if names else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            load=round(os.getloadavg()[0], 2),
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "ray", "pyarrow")},
            },
        )

    @property
    def hardware(self) -> str:
        """Its cores and processor."""
        return f"{self.cores} {'core' if self.cores == 1 else 'cores'} of {self.processor}"

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.hardware}, {self.memory / 2**30:.0f} GiB, load {self.load:.1f} before; {versions}"


class MemoryWatch:
    """Samples of memory in use."""

    def __init__(self, measure: Callable[[], int]) -> None:
        self.measure = measure
        self.samples: list[tuple[float, int]] = []
        """Seconds since the epoch, and bytes."""

    def sample(self) -> None:
        """Take a sample."""
        self.samples.append((time.time(), self.measure()))

    def peak(self, begin: float = 0.0, end: float = float("inf")) -> int:
        """The largest sample taken between two times, 0 where there is none."""
        return max((used for at, used in self.samples if begin <= at <= end), default=0)


def used_memory() -> int:
    """Bytes of this process and all its descendants, including Ray (see `own_memory`)."""
    return sum(own_memory(process) for process in family())


def own_memory(process: int) -> int:
    """Bytes of a process: its private memory and its part of shared memory, such as Ray's object store; 0 where it has ended.

    Pages of mapped files (libraries, checkpoints) are not counted, because the system may drop them.
    """
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    sizes = (line.split() for line in lines)
    return sum(1024 * int(size[1]) for size in sizes if size[0] in ("Pss_Anon:", "Pss_Shmem:"))


@contextmanager
def watched(seconds: float, measure: Callable[[], int] = used_memory) -> Iterator[MemoryWatch]:
    """Sample every `seconds` seconds in the body of the `with` statement, and once before and after it."""
    watch = MemoryWatch(measure)
    watch.sample()
    with repeating(seconds, watch.sample, "memory"):
        yield watch
    watch.sample()


def cpu_seconds(process: int) -> float:
    """Seconds of CPU that a process has used so far; 0 where it has ended."""
    try:
        times = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def cpu_of_family(root: int, seconds: float = 0.2) -> Iterator[dict[int, float]]:
    """CPU seconds by process id of a process and its descendants, sampled in the body of the `with` statement and at its end; short by
    what a descendant uses between its last sample and its end."""
    used: dict[int, float] = {}

    def sample() -> None:
        for process in {*family(root), *used}:
            used[process] = max(used.get(process, 0.0), cpu_seconds(process))

    sample()
    with repeating(seconds, sample, "cpu", at_end=True):
        yield used


def family(root: int | None = None) -> list[int]:
    """A process, by default this one, and its descendants, by id."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                # The name, in brackets, may contain any character; the state and the parent follow it.
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
    members = [root or os.getpid()]
    for process in members:
        members += sorted(child for child, parent in parents.items() if parent == process)
    return members
