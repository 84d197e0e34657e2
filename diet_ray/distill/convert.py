"""Stage step 4: selected rows become units."""

from __future__ import annotations

import numpy as np
import torch

from diet_ray.distill.el2n import to_logit
from diet_ray.distill.select import Scored
from diet_ray.memory.units import Units


def convert(selected: Scored, *, block: int, n_fields: int, dim: int) -> Units:
    """Stage step 4: make units with the inputs of the selected rows: `delta = 0`, `logit = logit(pbar)`, weight 1.

    Args:
        selected: the rows chosen from the block.
        block: index of the block.
        n_fields: F.
        dim: d.
    """
    m = len(selected.rows)
    return Units(
        unit_id=selected.rows.row_id.copy(),
        ids=selected.rows.ids.copy(),
        delta=np.zeros((m, n_fields, dim), np.float32),
        logit=to_logit(torch.from_numpy(selected.probability.astype(np.float32))).numpy(),
        weight=np.ones(m, np.float32),
        block=np.full(m, block, np.int32),
        label=selected.rows.labels.copy(),
        influence=np.zeros(m, np.float32),
    )
