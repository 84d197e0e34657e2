"""The work of the commands on the Ray cluster to which this process is connected."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
    from diet_ray.judge.fidelity.result import CostResult, FidelityResult
    from diet_ray.judge.leaderboard import Leaderboard
    from diet_ray.judge.race_rules import Race
    from diet_ray.mapper import Mapper
    from diet_ray.memory.manifests import StageManifest
    from diet_ray.report.progress import Hear


class OnCluster:
    """A `diet_ray.judge.workplace.Workplace`. It imports Ray's code only at first use, because `connect` must come first."""

    @property
    def each(self) -> Mapper:
        """See `Workplace.each`."""
        from diet_ray.engine.data import fan_out

        return fan_out

    @property
    def distil(self) -> Callable[..., list[StageManifest]]:
        """See `Workplace.distil`."""
        from diet_ray.engine.train import distil

        return distil

    @property
    def sweep(self) -> Callable[..., Leaderboard]:
        """See `Workplace.sweep`."""
        from diet_ray.engine.sweep_driver import sweep

        return sweep

    @property
    def race(self) -> Callable[..., Race]:
        """See `Workplace.race`."""
        from diet_ray.engine.sweep_driver import race

        return race

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """See `Workplace.fidelity`."""
        from diet_ray.engine.bench_driver import fidelity

        return fidelity

    @property
    def live_fidelity(self) -> Callable[..., tuple[LiveResult, LiveCost]]:
        """See `Workplace.live_fidelity`."""
        from diet_ray.engine.bench_driver import live_fidelity

        return live_fidelity

    def telemetry(self, run: Path) -> AbstractContextManager[Hear | None]:
        """See `Workplace.telemetry`."""
        from diet_ray.engine.telemetry import telemetry

        return telemetry(run)
