"""The errors that a user's input or cluster can cause, with one type for each kind.

Each message names the file, column or key at fault, and the remedy. The command line prints the message without a traceback and exits
with `exit_code`. Any other exception is a bug in diet_ray and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class DietError(Exception):
    """Base of all errors that a user can put right."""

    exit_code = 2


class ConfigError(DietError):
    """A config file has an unknown, missing or contradictory key."""


class UnreachableError(ConfigError):
    """An object store cannot be reached or refuses a request; a later attempt may succeed."""


class SchemaError(DietError):
    """A log schema contradicts itself, or the log that it describes."""


class BadInputError(DietError):
    """A file of the log holds something that must not be learned from.

    Attributes:
        file: the offending file.
        column: the offending column, or None where the whole file is at fault.
    """

    def __init__(self, file: str | Path, problem: str, *, column: str | None = None, remedy: str = "") -> None:
        # The parts are kept as `args`, so that the error can be sent from a Ray worker to the driver.
        super().__init__(str(file), problem, column, remedy)
        self.file, self.problem, self.column, self.remedy = str(file), problem, column, remedy

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_bad_input, (self.file, self.problem, self.column, self.remedy))

    def __str__(self) -> str:
        where = f"{self.file}, column {self.column!r}" if self.column else self.file
        return f"{where}: {self.problem}" + (f" ({self.remedy})" if self.remedy else "")


def _rebuild_bad_input(file: str, problem: str, column: str | None, remedy: str) -> BadInputError:
    return BadInputError(file, problem, column=column, remedy=remedy)


class CorruptArtefactError(DietError):
    """A file that diet_ray wrote is missing, incomplete, or not the one that its manifest names."""


class VersionError(DietError):
    """A file was written by a format version that this release does not read."""


class ResourceError(DietError):
    """The cluster cannot run what the config asks for (CPUs, GPUs, extras)."""


class BrokenOffError(DietError):
    """Work broke off because a process or a node died, or a disk or the object store was full; what was committed is whole."""


class LockedError(DietError):
    """Another process works in the run folder."""
