"""Distils a log in this process and prints what that took, as JSON; started by `table.py`, also for an earlier commit.

python benchmarks/speed/table_child.py LOG RUN STREAM_AS_JSON
"""

from __future__ import annotations

import json
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

try:
    from diet_ray.distill.local import LocalEngine
    from diet_ray.distill.pipeline import run_stream
    from diet_ray.logs.blocks import open_log
    from diet_ray.memory.events import Events
    from diet_ray.memory.run_folder import open_run
except ImportError:  # commits before the packages
    from diet_ray.blocks import open_log  # type: ignore[import-not-found, no-redef]
    from diet_ray.events import Events  # type: ignore[import-not-found, no-redef]
    from diet_ray.local import LocalEngine  # type: ignore[import-not-found, no-redef]
    from diet_ray.pipeline import run_stream  # type: ignore[import-not-found, no-redef]
    from diet_ray.store import open_run  # type: ignore[import-not-found, no-redef]
from diet_ray.config import StreamConfig


def memory() -> tuple[int, int]:
    """Bytes of this process: its own, and with the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    own, mapped = (
        next(int(line.split()[1]) << 10 for line in lines if line.startswith(name)) for name in ("RssAnon", "VmRSS")
    )
    return own, mapped


def written() -> int:
    """Bytes that this process has written to files so far."""
    return next(
        int(line.split()[1]) for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")
    )


def main(log: Path, run: Path, stream: str) -> None:
    """Distil, then print."""
    config = StreamConfig.model_validate({**json.loads(stream), "log": log})
    peak, end = [0, 0], threading.Event()

    def watch() -> None:
        while not end.wait(0.05):
            peak[:] = [max(pair) for pair in zip(peak, memory(), strict=True)]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, wrote, cpu = time.time(), written(), time.process_time()
    committed = open_run(run, config, resume=False)
    run_stream(run, open_log(log), config, LocalEngine(config), Events(run / "events.jsonl"), committed)
    end.set()
    watcher.join()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    commits = [began, *(event["time"] for event in events if event["kind"] == "committed")]
    manifests = [json.loads(path.read_text()) for path in sorted(run.glob("stages/*/manifest.json"))]
    files = [[*one["memory"], *one["checkpoints"], one["optimiser"]] for one in manifests]
    print(
        json.dumps(
            {
                "seconds": [round(after - before, 1) for before, after in pairwise(commits)],
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak": peak[0],
                "peak_with_files": peak[1],
                "stage_bytes": [sum(entry["bytes"] for entry in entries) for entries in files],
                "written": written() - wrote,
                "kept": sum(path.stat().st_size for path in run.glob("stages/*/*")),
                "n_ids": manifests[-1]["n_ids"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
