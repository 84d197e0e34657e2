"""Clicks and negatives, block by block, for logs that hold only clicks: `diet_ray.logs.readers.negatives` for files of any size.

Memory holds the clicks of one of 16 parts of a block, 8 bytes per click and item column for the whole block, and the same per item of the
catalogue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.readers.negatives import Catalogue, draw_negatives
from diet_ray.logs.readers.spill import Spill
from diet_ray.seeds import uniform_by_id

PARTS = 16
"""Parts into which the users are divided; more parts need less memory."""

PER_CLICK = 1
"""Negatives per click, so that about half of the rows are positive."""

SEED = 0
"""Seed of the negatives."""

_log = logging.getLogger(__name__)


def with_negatives(
    batches: Iterable[pa.Table], work: Path, *, item_features: list[str], seed: int = SEED
) -> Iterator[pa.Table]:
    """Clicks with their negatives, blocks in order; the first block and clicks on items new in their block are left out.

    Args:
        batches: clicks in the order of the file, with the int64 columns `block`, `row` (position in the file, unique), `user_id`,
            `item_id`, the item's features, and any others, which a negative copies from its click.
        work: path of a temporary file.
        item_features: the columns that belong to the item. For clicks too, their values are those of the item's first click.
        seed: of the negatives.

    Yields:
        Tables with the same columns without `block` and `row`, and with `click`, 0 or 1.
    """
    clicks = left_out = given_up = 0
    with Spill(work) as spill:
        for batch in batches:
            user = batch["user_id"].to_numpy()
            part = (uniform_by_id(user, 0) * PARTS).astype(np.int64)
            spill.add(batch, batch["block"].to_numpy() * PARTS + part)
            clicks += len(batch)
        catalogue = Catalogue.empty(len(item_features))
        for block in sorted({key // PARTS for key in spill.keys}):
            block_clicks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
            for key in spill.keys:
                if key // PARTS != block:
                    continue
                rows = spill.read(key)
                item, row = rows["item_id"].to_numpy(), rows["row"].to_numpy()
                features = np.stack([pc.fill_null(rows[name], -1).to_numpy() for name in item_features], axis=1)
                block_clicks.append((item, features, row))
                position = catalogue.find(item)
                kept = np.flatnonzero(position >= 0)
                left_out += len(rows) - len(kept)
                if not len(kept):
                    continue
                click, drawn = draw_negatives(
                    catalogue, rows["user_id"].to_numpy(), item, row, per_click=PER_CLICK, seed=seed
                )
                given_up += PER_CLICK * len(kept) - len(click)
                yield _labelled(rows, catalogue, item_features, kept, position[kept], 1)
                if len(click):
                    yield _labelled(rows, catalogue, item_features, click, drawn, 0)
            of_block = Catalogue.of(*(np.concatenate(parts) for parts in zip(*block_clicks, strict=True)))
            catalogue = Catalogue.merged([catalogue, of_block])
    _log.info(
        "%d clicks; %d left out, in the first block or on items new in their block; %d negatives given up",
        clicks,
        left_out,
        given_up,
    )


def _labelled(
    rows: pa.Table, catalogue: Catalogue, item_features: list[str], click: np.ndarray, position: np.ndarray, label: int
) -> pa.Table:
    """The rows at the positions `click`, with their items replaced by those at `position` of the catalogue."""
    table = rows.drop_columns(["block", "row"]).take(pa.array(click))
    columns = {name: table[name] for name in table.column_names}
    columns["item_id"] = pa.array(catalogue.item[position])
    for index, name in enumerate(item_features):
        values = catalogue.features[position, index]
        columns[name] = pa.array(values, mask=values < 0)
    columns["click"] = pa.array(np.full(len(click), label, np.int8))
    return pa.table(columns)
