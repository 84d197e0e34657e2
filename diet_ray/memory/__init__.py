"""The memory: its units, and the run folder and the archive that store them.

units         units, column-wise
deltas        deltas in half precision, in files
layout        names of files and folders
facts         manifests, read without torch
manifests     manifests with the whole config
run_folder    committed stages
pruning       files of the reference that leave old stages
table_chain   the stages from which a table is put together
tables        tables, whole or as changed rows
events        events of a run
dataset       a memory as a torch dataset
moments       Adam's moments of the embedding table
lineage       a memory with its earlier stages
archive       a copy of a run in an object store
archive_note  a run's note on the state of its archive
download      a memory from an archive
garbage       leftovers of interrupted runs
verification  all faults of a run, an archive or a log
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.memory.archive import Archive as Archive
    from diet_ray.memory.dataset import Memory as Memory
    from diet_ray.memory.dataset import load_memory as load_memory
    from diet_ray.memory.download import fetch as fetch
    from diet_ray.memory.manifests import RunManifest as RunManifest
    from diet_ray.memory.manifests import StageManifest as StageManifest
    from diet_ray.memory.run_folder import committed_stages as committed_stages
    from diet_ray.memory.run_folder import open_run as open_run
    from diet_ray.memory.units import Units as Units
    from diet_ray.memory.verification import verify as verify

_PLACES = {
    "Units": "units",
    "RunManifest": "manifests",
    "StageManifest": "manifests",
    "open_run": "run_folder",
    "committed_stages": "run_folder",
    "Memory": "dataset",
    "load_memory": "dataset",
    "Archive": "archive",
    "fetch": "download",
    "verify": "verification",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
