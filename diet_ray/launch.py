"""The file that starts a run: a `StreamConfig`, and where the run goes. `diet-ray distill` and jobs/distill.py read it."""

from __future__ import annotations

from pathlib import Path

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.settings import load_yaml


class LaunchConfig(StreamConfig):
    """A run's config with its place. The place is no part of what the run computes, so it stays out of the run's manifests."""

    out: Path | None = None
    """Run folder; `--out` on the command line wins."""
    archive: str | None = None
    """URI of a durable copy of every committed stage: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER. `--resume` fetches from
    there what the run folder lacks. Another endpoint than Amazon's stands in AWS_ENDPOINT_URL, or behind the URI, as in
    `s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http`."""


def read_launch(path: Path, out: Path | None) -> tuple[Path, StreamConfig, str | None]:
    """The run folder, the config and the archive that a file asks for, `out` before the file's own.

    Raises:
        ConfigError: the file cannot be read or has a bad key, or nobody names the run folder.
    """
    launch = load_yaml(LaunchConfig, path)
    place = out or launch.out
    if place is None:
        raise ConfigError(f"{path}: missing key 'out': say where the run goes, there or with --out")
    return place, StreamConfig.model_validate(launch.model_dump(exclude={"out", "archive"})), launch.archive
