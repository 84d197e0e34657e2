"""`diet-ray fidelity`: do what is missing, then say what was found."""

from __future__ import annotations

from pathlib import Path

from diet_ray.fidelity.assemble import assemble, costs
from diet_ray.fidelity.config import FidelityConfig
from diet_ray.fidelity.page import write_report
from diet_ray.fidelity.plan import Bench
from diet_ray.fidelity.result import CostResult, FidelityResult
from diet_ray.fidelity.trials import OnProgress, do_all
from diet_ray.settings import write_json


def fidelity(config: FidelityConfig, out: Path, on_progress: OnProgress) -> tuple[FidelityResult, CostResult]:
    """Train every candidate on the full log and on each reduced set, and measure how well the sets stand for the log.

    Needs a connected Ray. Whatever is in the cache is not done again, so a killed bench is taken up by running it again.
    Writes `fidelity.json`, `cost.json`, `fidelity.html` and its pictures to `out`.

    Raises:
        ConfigError: the config contradicts itself or the log.
        DietError: the log, a given file or something in the cache is damaged.
    """
    config = config.absolute()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench.open(config, config.cache or out / "cache")
    do_all(bench, out / "tune", on_progress)
    result, cost = assemble(bench), costs(bench, config.memory_set)
    write_json(out / "fidelity.json", result)
    write_json(out / "cost.json", cost)
    write_report(out, result, cost)
    return result, cost
