"""Negatives for logs that hold only clicks: items drawn by their popularity in earlier blocks.

An item is drawn in proportion to its clicks in all earlier blocks to the power 0.75 (Mikolov et al. 2013), so that popular items are
not positive by their popularity alone. The draw uses neither the block itself nor later blocks, with one exception: an item that the user
clicks in the block is not a negative of that user there. So the first block has no negatives and is left out. A click on an item that no
earlier block has is left out too: the item's newness alone would reveal the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray.seeds import derive_seed, uniform_by_id

POWER = 0.75
"""Exponent of the popularity."""

TRIES = 16
"""Draws before a negative is given up, because the user has clicked every item drawn."""


@dataclass(frozen=True)
class Catalogue:
    """The V items that earlier blocks have clicks on."""

    item: np.ndarray
    """`[V]` int64 ids, ascending."""
    clicks: np.ndarray
    """`[V]` int64, at least 1."""
    features: np.ndarray
    """`[V, K]` int64, as at the first click on the item, by block and row; -1 is missing."""

    @staticmethod
    def empty(n_features: int) -> Catalogue:
        """No items yet, with K = `n_features`."""
        return Catalogue(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, n_features), np.int64))

    @staticmethod
    def merged(parts: list[Catalogue]) -> Catalogue:
        """The catalogue of all parts, in time order: clicks are summed, an item's features are those of its first part."""
        item = np.concatenate([part.item for part in parts])
        order = np.argsort(item, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(item[order]) != 0]) if len(item) else np.zeros(0, np.int64)
        clicks = np.concatenate([part.clicks for part in parts])
        features = np.concatenate([part.features for part in parts])
        summed = np.add.reduceat(clicks[order], first) if len(item) else clicks
        return Catalogue(item[order][first], summed, features[order[first]])

    @staticmethod
    def of(item: np.ndarray, features: np.ndarray, row: np.ndarray) -> Catalogue:
        """The catalogue of N clicks of one block: `item [N]`, `features [N, K]`, and `row [N]`, whose order gives the first click."""
        order = np.argsort(row, kind="stable")
        return Catalogue.merged([Catalogue(item[order], np.ones(len(item), np.int64), features[order])])

    def find(self, item: np.ndarray) -> np.ndarray:
        """`[N]` int64: position of each item in the catalogue, -1 for those not in it."""
        if not len(self.item):
            return np.full(len(item), -1)
        at = np.minimum(np.searchsorted(self.item, item), len(self.item) - 1)
        return np.where(self.item[at] == item, at, -1)


def draw_negatives(
    catalogue: Catalogue, user: np.ndarray, item: np.ndarray, row: np.ndarray, *, per_click: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw negatives for the clicks of one block on items of the catalogue.

    A negative depends only on the seed, its click's row and the user's clicks in the block, so users may be treated in any grouping.

    Args:
        catalogue: the items of all earlier blocks, V >= 1.
        user: `[N]` int64. All clicks of these users in the block must be given.
        item: `[N]` int64 ids, of the catalogue or not.
        row: `[N]` int64, an id of each click, unique in the log.
        per_click: negatives per click.
        seed: of the draw.

    Returns:
        `click [M]`, the position of the click to which each negative belongs, ascending, and `drawn [M]`, the position of its item in
        the catalogue. M is at most `per_click` times the clicks on items of the catalogue, and less where TRIES did not suffice.
    """
    weight = np.cumsum(catalogue.clicks.astype(np.float64) ** POWER)
    position = catalogue.find(item)
    # A (user, item) pair as one number; items outside the catalogue cannot be drawn.
    _, person = np.unique(user, return_inverse=True)
    pair = person.astype(np.int64) * len(weight)
    in_catalogue = np.flatnonzero(position >= 0)
    clicked = np.unique(pair[in_catalogue] + position[in_catalogue])
    clicks, drawn = [], []
    for number in range(per_click):
        open_ = in_catalogue
        for attempt in range(TRIES):
            u = uniform_by_id(row[open_], derive_seed(seed, "negative", number, attempt))
            pick = np.minimum(np.searchsorted(weight, u * weight[-1], side="right"), len(weight) - 1)
            free = ~_contains(clicked, pair[open_] + pick)
            clicks.append(open_[free])
            drawn.append(pick[free])
            open_ = open_[~free]
            if not len(open_):
                break
    if not clicks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    click = np.concatenate(clicks)
    order = np.argsort(click, kind="stable")
    return click[order], np.concatenate(drawn)[order]


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)
