"""What candidates are to be compared with: the reference as it was committed, and a constant; neither learns from the rows."""

from __future__ import annotations

import numpy as np
from scipy.special import logit

from diet_ray.judge.progressive import measure
from diet_ray.judge.standings import Standing, rank
from diet_ray.judge.sweep_plan import Inputs
from diet_ray.judge.verdict import Verdict
from diet_ray.logs.blocks import Rows
from diet_ray.training.predictor import Predictor

REFERENCE, CONSTANT = "(reference)", "(constant)"
"""Their names. No candidate can have them."""


def yardsticks(inputs: Inputs, rows: Rows) -> list[Standing]:
    """The reference at the end of its last block, and for each task the share of positives in that block, on the rows of a sweep."""
    stage, log = inputs.memory.stage, inputs.log
    reader = inputs.memory.rows
    table, ids = reader.local(rows.ids, stage.log_schema.field_of_slot)
    weights = {"table": table, **reader.others}
    reference = Predictor(stage.log_schema, stage.config.reference.nets, weights)(ids).numpy()
    last = log.blocks[stage.index]
    share = np.clip(np.array(last.positives) / last.rows, 0.5 / last.rows, 1 - 0.5 / last.rows)
    constant = np.broadcast_to(logit(share).astype(np.float32), reference.shape)
    return [
        *_standing(REFERENCE, reference, rows, log.schema.tasks),
        *_standing(CONSTANT, constant, rows, log.schema.tasks),
    ]


def _standing(name: str, logits: np.ndarray, rows: Rows, tasks: list[str]) -> list[Standing]:
    measured = measure(rows, logits, tasks)
    line = Verdict(
        candidate=name,
        arch="-",
        trained_on="-",
        seed=0,
        metrics=measured.metrics,
        undefined=measured.undefined,
        train_seconds=0,
        train_wall_seconds=0,
        parameters=0,
    )
    return rank([line])
