"""An environment per engine, made by pip, with the versions of the matrix. They are independent of diet_ray's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "engines"

HOME = Path("/tmp/diet_ray-formats")
"""Where engines write. An Iceberg table names its files by absolute paths, so the place must be the same everywhere."""


@dataclass(frozen=True)
class Engine:
    """What an engine needs."""

    packages: tuple[str, ...]
    """For pip."""
    reads: bool = True
    """Whether it reads exports."""


ENGINES = {
    "pyarrow": Engine(("pyarrow==26.0.1",)),
    "polars": Engine(("polars==2.1.0",)),
    "duckdb": Engine(("duckdb==2.0.1",)),
    "pandas": Engine(("pandas==3.1.1", "pyarrow==26.0.1")),
    "fastparquet": Engine(("fastparquet==2026.9.0",), reads=False),
    "deltalake": Engine(("deltalake==1.6.6", "pyarrow==26.0.1"), reads=False),
    "pyiceberg": Engine(("pyiceberg[pyarrow,sql-sqlite]==0.12.0", "pyarrow==26.0.1"), reads=False),
    "datasets": Engine(("datasets==5.2.0", "pyarrow==26.0.1")),
    "chdb": Engine(("chdb==4.4.0",)),
    "pyspark": Engine(("pyspark==4.3.0",)),
}
"""The engines, in the order of the tables. Spark needs a Java of version 17 or later."""


class Environment:
    """The environment of an engine below a folder; it is deleted at the end."""

    def __init__(self, engine: str, work: Path) -> None:
        self.engine, self.folder = engine, work / engine

    def __enter__(self) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        subprocess.run([self._bin("pip"), "install", "-q", *ENGINES[self.engine].packages], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)

    def write(self) -> Path:
        """Have the engine write the log. Returns its folder, which is new."""
        folder = HOME / self.engine
        shutil.rmtree(folder, ignore_errors=True)
        self._run("write", folder)
        return folder

    def read(self, export: Path) -> dict[str, Any]:
        """What the engine reads of an export, by column: see `engines.rows.column_report`."""
        return dict(json.loads(self._run("read", export).splitlines()[-1]))

    def _run(self, task: str, folder: Path) -> str:
        # In this zone, an engine that writes times in the zone of its session writes two offsets into one column.
        quiet = {"TZ": "Europe/Berlin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "cache")}
        command: list[str | Path] = [self._bin("python"), SCRIPTS / f"with_{self.engine}.py", task, folder]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.engine} cannot {task}:\n{done.stderr[-3000:]}")
        return done.stdout

    def _bin(self, name: str) -> Path:
        return self.folder / "bin" / name
