"""Judging candidates on a memory, and the memory itself.

metrics      AUC, GAUC, LogLoss, calibration
verdict      one candidate, one seed
standings    a ranking
baselines    other ways of training
comparison   those beside the memory
search       spaces, and the config of a sweep
sweep_plan   the trials of a sweep
trial        one of them
outcomes     what became of them
runner       who runs them
run_sweep    the sweep
leaderboard  what it found
trackers     who else is told
fidelity     how far to trust the memory
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.judge.comparison import compare as compare
    from diet_ray.judge.leaderboard import Leaderboard as Leaderboard
    from diet_ray.judge.metrics import evaluate as evaluate
    from diet_ray.judge.run_sweep import judge_pool as judge_pool
    from diet_ray.judge.search import SweepConfig as SweepConfig
    from diet_ray.judge.standings import Standing as Standing
    from diet_ray.judge.standings import rank as rank
    from diet_ray.judge.verdict import Verdict as Verdict
    from diet_ray.judge.verdict import judge as judge

_PLACES = {
    "evaluate": "metrics",
    "judge": "verdict",
    "Verdict": "verdict",
    "Standing": "standings",
    "rank": "standings",
    "compare": "comparison",
    "SweepConfig": "search",
    "judge_pool": "run_sweep",
    "Leaderboard": "leaderboard",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
