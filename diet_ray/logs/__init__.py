"""Click logs: their files on disk, the ingestion of other files, published logs and simulated logs.

blocks             a log on disk
manifests, rows    its manifests; its rows, in memory and in the file of a shard
row_checks         whether rows have a meaning
id_chain           checksums of what decides the ids of rows
block_rows         the rows of one block, while a stage needs them
layout             names of a log's files
verify_log         all faults of a log
verify_ids         all faults of its vocabulary and bucket edges
verify_quarantine  all faults of a log's list of rows left out
ingestion          from files to a log
readers            published logs
simulation         logs with known probabilities of labels
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.logs.blocks import BlockManifest as BlockManifest
    from diet_ray.logs.blocks import Log as Log
    from diet_ray.logs.blocks import LogManifest as LogManifest
    from diet_ray.logs.blocks import Rows as Rows
    from diet_ray.logs.blocks import open_log as open_log
    from diet_ray.logs.ingestion.append import append as append
    from diet_ray.logs.ingestion.ingest import ingest as ingest
    from diet_ray.logs.readers import READERS as READERS
    from diet_ray.logs.simulation.config import SimulateConfig as SimulateConfig
    from diet_ray.logs.simulation.labels import true_probability as true_probability
    from diet_ray.logs.simulation.simulate import simulate as simulate

_PLACES = {
    "open_log": "blocks",
    "Log": "blocks",
    "Rows": "blocks",
    "BlockManifest": "blocks",
    "LogManifest": "blocks",
    "ingest": "ingestion.ingest",
    "append": "ingestion.append",
    "READERS": "readers",
    "simulate": "simulation.simulate",
    "SimulateConfig": "simulation.config",
    "true_probability": "simulation.labels",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
