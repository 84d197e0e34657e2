"""The environment of a command that starts a Ray of its own."""

from __future__ import annotations

import os
from pathlib import Path


def environment(home: Path) -> dict[str, str]:
    """This process's environment without what it tells Ray, `home` as HOME and as the place of Ray's files.

    `home` becomes part of socket paths, which may have 107 characters. Ray's workers get the same share of the processors as
    what runs beside them: with their usual niceness of 15 they would wait until that ends.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(home), "RAY_TMPDIR": str(home), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    return kept | own
