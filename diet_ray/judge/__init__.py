"""Judges candidates that are trained on a memory, and the memory itself.

metrics      AUC, GAUC, LogLoss, calibration
verdict      the metrics of one candidate with one seed
standings    the ranking of the candidates
baselines    trainings on the full log and on random rows
backfill     a candidate that learns every row of the log before live ones
comparison   the memory compared with these baselines
early        mistakes in arguments that small files tell
search       search spaces, and the config of a sweep
sweep_plan   the trials of a sweep
trial        one trial
start        what a launch starts from
launch       a candidate with a table of its own, started from a memory
live         such a candidate on the rows of a block
live_state   where a live candidate stands after some rows
live_trial   one live trial
progressive  measures of predictions made before the rows are learned
paired       candidates compared row by row
decision     which candidate is the best, and how sure that is
outcomes     the outcomes of the trials
runner       runs the trials in this process
run_sweep    the whole sweep
leaderboard  the result of a sweep
leaderboard_page  its page
standings_plot  standings as plots
forest_plot  differences to the best as a plot
race_rules   the rules and the result of a race
run_race     the whole race
race_page    its page
trackers     TensorBoard, MLflow and Weights & Biases
fidelity     how well the memory predicts results on the full log
workplace    where a command does its work
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.judge.comparison import compare as compare
    from diet_ray.judge.leaderboard import Leaderboard as Leaderboard
    from diet_ray.judge.metrics import evaluate as evaluate
    from diet_ray.judge.run_race import race as race
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
    "race": "run_race",
    "Leaderboard": "leaderboard",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
