"""The command line `diet-ray`, one file per command. A command imports other packages only when it runs, so that `--help` is fast."""

from diet_ray.cli.group import app

# Importing a command registers it; `--help` lists the commands in this order, in which a user needs them.
from diet_ray.cli import schema, ingest, simulate, distill, status, inspect, sweep, race, cost, fidelity, export, demo  # noqa: F401  # isort: skip
from diet_ray.cli import verify, gc, completion, version  # noqa: F401  # isort: skip

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the command `diet-ray`."""
    app()
