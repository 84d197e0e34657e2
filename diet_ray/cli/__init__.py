"""The command line `diet-ray`, one file per command. Commands import what they need when they run, so that `--help` is instant."""

from diet_ray.cli.group import app

# Importing a command registers it; `--help` lists them in this order, which is that of the work.
from diet_ray.cli import ingest, simulate, distill, status, inspect, sweep, fidelity, export, demo  # noqa: F401  # isort: skip
from diet_ray.cli import verify, gc, completion, version  # noqa: F401  # isort: skip

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the command `diet-ray`."""
    app()
