"""The errors that a user's input or cluster can cause, with one type for each kind.

Each message names the file, column or key at fault, and the remedy. The command line prints the message without a traceback and exits
with `exit_code`. Any other exception is a bug in diet_ray and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

LONGEST = 2000
"""Most characters of what an error of other code says."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line that can be stored and printed, whatever its class does; empty where it says nothing.

    Characters that UTF-8 cannot encode are escaped, a long text is cut, and an error whose own `str` fails says that.
    """
    try:
        text = str(error)
    except (Exception, SystemExit) as failure:
        text = f"its text cannot be made: {type(failure).__name__}"
    line = " ".join(str.encode(text, "utf-8", "backslashreplace").decode().split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def install_extra(extra: str) -> str:
    """What to run for an optional part of diet_ray, which is on no package index: pip takes it from a clone."""
    return f"run pip install -c constraints.txt -e '.[{extra}]' in your clone of diet_ray"


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


class PathError(DietError):
    """The operating system refuses to read or write a path: by its permissions, a broken or full disk, or a name that cannot be."""


_ANY_PLACE = "check the path, or choose another place"

_REMEDIES = {
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "nothing can be written there; choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; check the path",
    errno.EISDIR: "a file belongs there; check the path",
    errno.EEXIST: "remove it, or choose another place",
    errno.ENOTEMPTY: "remove it, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a link leads back to itself; correct it",
    errno.EIO: "check the disk, then try again",
    errno.ESTALE: "the shared storage has replaced it; mount it anew, then try again",
    errno.ENOSPC: "free some space and continue",
    errno.EDQUOT: "free some space and continue",
    errno.EFBIG: _ANY_PLACE,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
}

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What writing gives where a disk, a quota or a limit of the size of files is full; reading never does."""

_OF_OPEN_FILES = {errno.EIO, errno.ESTALE, errno.EROFS, *NO_ROOM}
"""What only a disk says, also where the file is open and Python does not name it any more."""


def remedy_of(error: OSError) -> str | None:
    """What a user can do about an error of the operating system; None where nothing is known."""
    return _REMEDIES.get(error.errno or 0)


def path_error(error: OSError) -> PathError | None:
    """The user's error for one of the operating system about a path; None for any other, such as a closed pipe or a lost connection."""
    code, names = error.errno, [error.filename, error.filename2]
    if code is None:
        return None
    what = "no space left on the disk" if code in (errno.ENOSPC, errno.EDQUOT) else os.strerror(code)
    where = " -> ".join(os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike))
    if not where and code in _REMEDIES and type(error).__module__ == "builtins" and error.strerror != os.strerror(code):
        where = str(error.strerror).partition(". Detail: ")[0]  # pyarrow names the path in its text
    if not where and code in _OF_OPEN_FILES:
        where = "a file"
    return PathError(f"{where}: {what}; {_REMEDIES.get(code, _ANY_PLACE)}") if where else None


def users_error(error: Exception) -> DietError | None:
    """An error as one that a user can put right: a `DietError` as it is, one about a path as a `PathError`; None for a bug."""
    if isinstance(error, DietError):
        return error
    return path_error(error) if isinstance(error, OSError) else None


def nearest(word: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The name that is spelled most like `word`; None where none is alike.

    Args:
        word: what was given.
        names: what could be meant.
        cutoff: least similarity, 0 to 1.
    """
    import difflib

    near = difflib.get_close_matches(word[:80], sorted(names), n=1, cutoff=cutoff)
    return near[0] if near else None


def did_you_mean(word: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """` (did you mean 'NAME'?)` for the end of a message, with the name of `nearest`; empty where none is alike."""
    near = nearest(word, names, cutoff=cutoff)
    return f" (did you mean {near!r}?)" if near else ""
