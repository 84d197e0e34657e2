"""Where a command's work is done: in this process (`Here`), or on a Ray cluster (`diet_ray.engine.OnCluster`), with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diet_ray.mapper import Mapper, in_turn

if TYPE_CHECKING:
    from diet_ray.judge.fidelity.result import CostResult, FidelityResult
    from diet_ray.judge.leaderboard import Leaderboard
    from diet_ray.memory.manifests import StageManifest
    from diet_ray.report.progress import Hear


class Workplace(Protocol):
    """Who does the work of the commands."""

    @property
    def each(self) -> Mapper:
        """Who calls the passes of `ingest`, `append`, `simulate` and `compare`."""
        ...

    @property
    def distil(self) -> Callable[..., list[StageManifest]]:
        """Distils a log: called as `diet_ray.distill.local.distil_locally` is."""
        ...

    @property
    def sweep(self) -> Callable[..., Leaderboard]:
        """Judges a pool of candidates: called as `diet_ray.judge.run_sweep.judge_pool` is, without a runner."""
        ...

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """Runs the fidelity bench: called as `diet_ray.judge.fidelity.bench.measure_fidelity` is, with its first three arguments."""
        ...

    def telemetry(self, run: Path) -> AbstractContextManager[Hear | None]:
        """Export the figures of a run for the length of the body; gives what is to hear of it, if anything is."""
        ...


class Here:
    """This process. A command imports only what it uses, so that `diet-ray --local ingest` does not wait for torch."""

    @property
    def each(self) -> Mapper:
        """See `Workplace.each`."""
        return in_turn

    @property
    def distil(self) -> Callable[..., list[StageManifest]]:
        """See `Workplace.distil`."""
        from diet_ray.distill.local import distil_locally

        return distil_locally

    @property
    def sweep(self) -> Callable[..., Leaderboard]:
        """See `Workplace.sweep`."""
        from diet_ray.judge.run_sweep import judge_pool

        return judge_pool

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """See `Workplace.fidelity`."""
        from diet_ray.judge.fidelity.bench import measure_fidelity

        return measure_fidelity

    def telemetry(self, run: Path) -> AbstractContextManager[Hear | None]:
        """Nothing is exported: figures go through Ray's metrics agents."""
        return nullcontext()
