"""The work of the commands on a Ray cluster, to which this process connects when the first work is to be done.

Until then a command has checked what it reads, so that a mistake of the user's is told before Ray starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diet_ray.engine.cluster import asked_for, check_options, connect, starts_private

if TYPE_CHECKING:
    from diet_ray.config import StreamConfig
    from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
    from diet_ray.judge.fidelity.result import CostResult, FidelityResult
    from diet_ray.judge.leaderboard import Leaderboard
    from diet_ray.judge.outcomes import Outcomes
    from diet_ray.judge.race_rules import Race
    from diet_ray.judge.runner import Runner
    from diet_ray.judge.search import SweepConfig
    from diet_ray.judge.sweep_plan import Work
    from diet_ray.judge.trial import TrialContext
    from diet_ray.mapper import Mapper
    from diet_ray.memory.manifests import StageManifest
    from diet_ray.report.progress import Hear


class OnCluster:
    """A `diet_ray.judge.workplace.Workplace`, as a context manager that ends the connection.

    It imports the code that names Ray only after `connect`, which must come first.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int | None = None,
        *,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Args: see `connect`. Raises ConfigError where they contradict each other."""
        check_options(address, cpus)
        self.address, self.cpus, self.on_trouble = address, cpus, on_trouble
        self._asked, self._private = asked_for(address, cpus), starts_private(address)
        self._stack = ExitStack()
        self._joined = False

    def __enter__(self) -> Self:
        """The workplace itself; nothing is started."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the connection, if there is one."""
        self._stack.close()

    def join(self) -> None:
        """Connect this process to Ray, unless it is connected. Raises ResourceError where that fails."""
        if not self._joined:
            self._stack.enter_context(connect(self.address, self.cpus, on_trouble=self.on_trouble))
            self._joined = True

    @property
    def each(self) -> Mapper:
        """See `Workplace.each`."""

        def fan_out_when_asked(*args: Any, **shared: Any) -> Iterator[bytes]:
            self.join()
            from diet_ray.engine.data import fan_out

            return fan_out(*args, **shared)

        return fan_out_when_asked

    @property
    def distil(self) -> Callable[..., list[StageManifest]]:
        """See `Workplace.distil`."""

        def distil_here_or_on_ray(run: Path, config: StreamConfig, **options: Any) -> list[StageManifest]:
            if not self._takes_ray(config):
                from diet_ray.distill.local import distil_locally

                return distil_locally(run, config, **options)
            self.join()
            if self._private and config.cluster.worker_may_drive:
                from diet_ray.engine.driver import distil_in_driver

                return distil_in_driver(run, config, **options)
            from diet_ray.engine.train import distil

            return distil(run, config, **options)

        return distil_here_or_on_ray

    @property
    def sweep(self) -> Callable[..., Leaderboard]:
        """See `Workplace.sweep`."""
        from diet_ray.judge.run_sweep import judge_pool

        return lambda *args, **options: judge_pool(*args, runner=_OnTune(self.join), **options)

    @property
    def race(self) -> Callable[..., Race]:
        """See `Workplace.race`."""
        from diet_ray.judge.run_race import race

        return lambda *args, **options: race(*args, runner=_OnTune(self.join), **options)

    @property
    def fidelity(self) -> Callable[..., tuple[FidelityResult, CostResult]]:
        """See `Workplace.fidelity`."""
        self.join()
        from diet_ray.engine.bench_driver import fidelity

        return fidelity

    @property
    def live_fidelity(self) -> Callable[..., tuple[LiveResult, LiveCost]]:
        """See `Workplace.live_fidelity`."""
        self.join()
        from diet_ray.engine.bench_driver import live_fidelity

        return live_fidelity

    def telemetry(self, run: Path, config: StreamConfig) -> AbstractContextManager[Hear | None]:
        """See `Workplace.telemetry`."""
        if not self._takes_ray(config):
            return nullcontext()
        self.join()
        from diet_ray.engine.telemetry import telemetry

        return telemetry(run)

    def _takes_ray(self, config: StreamConfig) -> bool:
        """Whether a run is distilled on Ray. A private Ray with a single worker has no other work to do than this process, which gives the
        same bytes and needs nothing started; where the user asks for Ray, the run goes there."""
        return not config.cluster.one_process or self._asked


class _OnTune:
    """The `diet_ray.judge.runner.Runner` on the cluster, to which it connects when it is first asked."""

    def __init__(self, join: Callable[[], None]) -> None:
        self._join = join

    def check(self, config: SweepConfig) -> None:
        """See `Runner.check`."""
        self._runner.check(config)

    def run(self, config: SweepConfig, context: TrialContext, seeds: int, outcomes: Outcomes, out: Path) -> list[Work]:
        """See `Runner.run`."""
        return self._runner.run(config, context, seeds, outcomes, out)

    def run_works(
        self, works: list[Work], config: SweepConfig, context: TrialContext, outcomes: Outcomes, out: Path
    ) -> None:
        """See `Runner.run_works`."""
        self._runner.run_works(works, config, context, outcomes, out)

    @property
    def _runner(self) -> Runner:
        self._join()
        from diet_ray.engine.sweep_driver import OnTune

        return OnTune()
