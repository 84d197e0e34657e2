"""Features of users and items, looked up by key, batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import BadInputError


class Lookup:
    """A table of features, held once and sorted by its integer key; its memory is that of the table."""

    def __init__(self, table: pa.Table, key: str, path: Path) -> None:
        """Index `table` by its column `key`; `path` is named in errors.

        Raises:
            BadInputError: a key is missing or occurs twice.
        """
        if table[key].null_count:
            raise BadInputError(path, "a key is missing", column=key, remedy="is this the published file?")
        keys = table[key].to_numpy()
        order = np.argsort(keys, kind="stable")
        self.key = key
        """Name of the key."""
        self._keys = keys[order]
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(twice):
            raise BadInputError(
                path, f"{self._keys[twice[0]]} is there twice", column=key, remedy="is this the published file?"
            )
        self._features = table.drop_columns(key).take(pa.array(order)).combine_chunks()

    def __call__(self, keys: np.ndarray) -> dict[str, pa.ChunkedArray]:
        """The features of the keys, `[N]` each, by name; null where the table has no such key."""
        if not len(self._keys):
            return {field.name: pa.nulls(len(keys), field.type) for field in self._features.schema}
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        index = pa.array(at, mask=self._keys[at] != keys)
        return {name: self._features[name].take(index) for name in self._features.column_names}
