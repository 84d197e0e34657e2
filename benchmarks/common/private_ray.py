"""The environment of a command that starts its own private Ray."""

from __future__ import annotations

import os
from pathlib import Path


def environment(home: Path) -> dict[str, str]:
    """The environment of this process without Ray's variables, and with `home` as HOME and as the folder of Ray's files.

    `home` becomes part of socket paths, which may have at most 107 characters. Ray's workers get niceness 0, so that they
    share the processors equally with other processes: with their default niceness of 15 they would hardly run beside them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(home), "RAY_TMPDIR": str(home), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    return kept | own
