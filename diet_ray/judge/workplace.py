"""The place where a command does its work: this process (`Here`) or a Ray cluster (`diet_ray.engine.OnCluster`), with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diet_ray.mapper import Mapper, in_turn

if TYPE_CHECKING:
    from diet_ray.config import StreamConfig
    from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
    from diet_ray.judge.fidelity.result import CostResult, FidelityResult
    from diet_ray.judge.leaderboard import Leaderboard
    from diet_ray.judge.race_rules import Race
    from diet_ray.memory.manifests import StageManifest
    from diet_ray.report.progress import Hear


class Workplace(Protocol):
    """Does the work of the commands."""

    @property
    def each(self) -> Mapper:
        """The mapper for the passes of `ingest`, `append`, `simulate` and `compare`."""
        ...

    @property
    def distil(self) -> Callable[..., list[StageManifest]]:
        """Distils a log, with the arguments of `diet_ray.distill.local.distil_locally`."""
        ...

    @property
    def sweep(self) -> Callable[..., Leaderboard]:
        """Judges a pool of candidates, with the arguments of `diet_ray.judge.run_sweep.judge_pool` except `runner`."""
        ...

    @property
    def race(self) -> Callable[..., Race]:
        """Finds the best candidate, with the arguments of `diet_ray.judge.run_race.race` except `runner`."""
        ...

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """Runs the fidelity bench, with the first three arguments of `diet_ray.judge.fidelity.bench.measure_fidelity`."""
        ...

    @property
    def live_fidelity(self) -> Callable[..., tuple[LiveResult, LiveCost]]:
        """Runs the protocol `live` of the bench, with the first three arguments of `diet_ray.judge.fidelity.live.bench.measure_live`."""
        ...

    def telemetry(self, run: Path, config: StreamConfig) -> AbstractContextManager[Hear | None]:
        """Export the figures of a run while the body runs. Yields the function that `show_progress` must call, or None."""
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
    def race(self) -> Callable[..., Race]:
        """See `Workplace.race`."""
        from diet_ray.judge.run_race import race

        return race

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """See `Workplace.fidelity`."""
        from diet_ray.judge.fidelity.bench import measure_fidelity

        return measure_fidelity

    @property
    def live_fidelity(self) -> Callable[..., tuple[LiveResult, LiveCost]]:
        """See `Workplace.live_fidelity`."""
        from diet_ray.judge.fidelity.live.bench import measure_live

        return measure_live

    def telemetry(self, run: Path, config: StreamConfig) -> AbstractContextManager[Hear | None]:
        """Exports nothing, because figures go through Ray's metrics agents."""
        return nullcontext()
