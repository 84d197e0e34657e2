"""Verify a whole run, its archive or a log, and list all faults.

Loading stops at the first file that is not the one that was committed. Verifying goes on and lists every fault, also faults in files whose
checksums match.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from diet_ray.errors import ConfigError, CorruptArtefactError, VersionError
from diet_ray.logs.blocks import BlockManifest, LogManifest
from diet_ray.logs.layout import block_manifest_file, blocks_folder, log_manifest_file
from diet_ray.logs.verify_log import REMEDY as LOG_REMEDY
from diet_ray.logs.verify_log import check_log
from diet_ray.memory.layout import RUN, run_manifest, stages_folder
from diet_ray.memory.manifests import RunManifest
from diet_ray.memory.verify_archive import downloaded
from diet_ray.memory.verify_run import REMEDY as RUN_REMEDY
from diet_ray.memory.verify_run import check_run
from diet_ray.settings import parse_json
from diet_ray.storage.faults import Fault, Faults
from diet_ray.storage.places import is_uri
from diet_ray.storage.remote import Remote

__all__ = ["Fault", "is_log", "log_of", "notes", "verify"]


def verify(path: str | Path, *, log: str | Path | None = None) -> list[Fault]:
    """All faults of a run, of its archive or of a log; none where it is sound.

    Args:
        path: folder of a run or of an ingested log, or the URI of an archive, which is downloaded to a temporary folder.
        log: the log of the run, with which its units are compared; by default the log that the run names, where it exists.

    Raises:
        ConfigError: `path` is neither a run nor a log, or `log` is no log; the archive cannot be reached.
    """
    if log is not None and is_log(Path(path)):
        raise ConfigError(f"--log: {path} is a log itself; leave it out")
    if log is not None and not is_log(Path(log)):
        raise ConfigError(f"--log: {log} holds no log; name the folder of an ingested one")
    if is_uri(str(path)):
        with downloaded(str(path)) as (run, strays):
            faults = Faults(run, RUN_REMEDY)
            check_run(run, faults, Path(log) if log is not None else log_of(run))
            for stray in strays:
                faults.add(run / stray, "stray: no manifest names it", remedy="remove it with diet-ray gc URI --yes")
        return _each_once(faults)
    path = Path(path)
    if is_log(path):
        faults = Faults(path, LOG_REMEDY)
        check_log(path, faults)
    elif _any_there(run_manifest(path), stages_folder(path)):
        faults = Faults(path, RUN_REMEDY)
        check_run(path, faults, Path(log) if log is not None else log_of(path))
    else:
        raise ConfigError(f"{path}: neither a run nor a log; name the folder that holds run.json or log.json")
    return _each_once(faults)


def notes(path: str | Path) -> list[str]:
    """What cannot be verified of a folder although it is no fault; of what cannot be read nothing is told."""
    if is_uri(str(path)) or not is_log(Path(path)):
        return []
    try:
        names = parse_json(LogManifest, log_manifest_file(Path(path))).blocks
        blocks = [parse_json(BlockManifest, block_manifest_file(Path(path), name)) for name in names]
    except (CorruptArtefactError, VersionError):
        return []
    if blocks[-1].id_checksums:  # they cover the values of all blocks before
        return []
    return [
        "the log is of an earlier release: its blocks have no checksums of schema, bucket edges and vocabulary; those of the next append "
        "have them, and they cover the older values, too"
    ]


def _each_once(faults: Faults) -> list[Fault]:
    return list(dict.fromkeys(faults.faults))  # a shard of the log may be read for several stages


def is_log(path: Path) -> bool:
    """Whether a folder is that of a log, however damaged."""
    return _any_there(log_manifest_file(path), blocks_folder(path))


def _any_there(*paths: Path) -> bool:
    """Whether one of the paths exists. Raises OSError where none is seen and the operating system refuses one."""
    refused = None
    for path in paths:
        try:
            if path.exists():
                return True
        except OSError as error:
            refused = error
    if refused is not None:
        raise refused
    return False


def log_of(run: str | Path) -> Path | None:
    """The log that a run or an archive names; None where the log does not exist or `run.json` cannot be read."""
    try:
        if is_uri(str(run)):
            log = RunManifest.model_validate_json(Remote(str(run)).read(RUN) or b"").config.log
        else:
            log = parse_json(RunManifest, run_manifest(Path(run))).config.log
    except (CorruptArtefactError, VersionError, ValidationError):
        return None
    try:
        return log if is_log(log) else None
    except OSError:  # it is there, and its check says what is wrong with it
        return log
