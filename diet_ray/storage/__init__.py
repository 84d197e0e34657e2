"""Files on disk and in object stores: written whole, read within bounds, locked.

arrays         numpy and Arrow
hashes         checksums
entries        manifest entries of files
tensors        safetensors
places         paths and URIs
whole_folder   a folder that appears complete or not at all
background     a thread that repeats a call
parquet        Parquet files, read within bounds
parquet_pages  page headers of Parquet files
parquet_writing  Parquet files, with every setting given
arrow_files    Arrow IPC files, read within bounds
lock           one driver at a time in a run folder
folder_store   a folder out of which no link leads
cloud_store    object stores
remote         both, by their URI
remote_lock    one driver at a time at an archive
faults         all faults of a folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.storage.entries import FileEntry as FileEntry
    from diet_ray.storage.entries import check_file as check_file
    from diet_ray.storage.entries import file_entry as file_entry
    from diet_ray.storage.faults import Fault as Fault
    from diet_ray.storage.faults import Faults as Faults
    from diet_ray.storage.hashes import content_hash as content_hash
    from diet_ray.storage.hashes import sha256 as sha256
    from diet_ray.storage.lock import live_lock as live_lock
    from diet_ray.storage.lock import locked as locked
    from diet_ray.storage.places import is_uri as is_uri
    from diet_ray.storage.remote import Remote as Remote
    from diet_ray.storage.tensors import load_tensors as load_tensors
    from diet_ray.storage.tensors import save_tensors as save_tensors
    from diet_ray.storage.whole_folder import appearing as appearing

_PLACES = {
    "sha256": "hashes",
    "content_hash": "hashes",
    "FileEntry": "entries",
    "file_entry": "entries",
    "check_file": "entries",
    "save_tensors": "tensors",
    "load_tensors": "tensors",
    "is_uri": "places",
    "appearing": "whole_folder",
    "locked": "lock",
    "live_lock": "lock",
    "Remote": "remote",
    "Fault": "faults",
    "Faults": "faults",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
