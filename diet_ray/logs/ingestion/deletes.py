"""The rows of a data file that an Iceberg table has deleted without writing the file again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from diet_ray.errors import ResourceError, install_extra
from diet_ray.logs.ingestion.kinds import Deletes
from diet_ray.storage.parquet import batches


def deleted_rows(deletes: Deletes) -> np.ndarray:
    """Positions of the deleted rows in their file, `[K]` int64.

    Raises:
        pa.ArrowException, OSError, ValueError: a list cannot be read.
        ResourceError: it is a deletion vector, and the extra that reads it is not installed.
    """
    parts = [np.zeros(0, np.int64)]
    for name in deletes.lists:
        if name.endswith(".puffin"):
            parts.append(_vector(Path(name), deletes.file))
            continue
        for batch in batches(Path(name), ["file_path", "pos"]):
            of_file = batch.filter(pc.equal(batch.column("file_path"), deletes.file))
            parts.append(of_file.column("pos").to_numpy(zero_copy_only=False))
    return np.concatenate(parts)


def _vector(path: Path, file: str) -> np.ndarray:
    try:
        from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
        from pyiceberg.table.puffin import PuffinFile
    except ImportError as error:
        raise ResourceError(
            f"{path} belongs to an Iceberg table, which needs pyiceberg: {install_extra('iceberg')}"
        ) from error
    vectors = deletion_vectors_from_puffin_file(PuffinFile(path.read_bytes()))
    found = [vector.to_vector().to_numpy() for vector in vectors if vector.referenced_data_file == file]
    return np.concatenate([np.zeros(0, np.int64), *found])
