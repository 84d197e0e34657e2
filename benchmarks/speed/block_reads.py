"""How often a stage reads and hashes its block.

    python -m benchmarks.speed.block_reads --work FOLDER

The script distils a simulated log without refinement in this process. For each stage it counts the bytes that the process reads (`rchar` of
/proc/self/io) and the bytes that it hashes, both as multiples of the block's bytes. Other reads of a stage are small here, because there
are few ids and few units. The figures "before" are the same counts at commit 0678e55, where a stage read its block three times: for the
held-out rows, for the pass of the reference and for the scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.common.tables import show
from diet_ray.config import StreamConfig
from diet_ray.distill import pipeline
from diet_ray.distill.local import distil_locally
from diet_ray.logs import SimulateConfig, open_log, simulate

RESULT = Path(__file__).parents[1] / "results" / "block_reads.json"
AIM = 0.5
FIELDS = [{"name": name, "size": size} for name, size in (("user", 500), ("item", 200), ("hour", 24), ("place", 10))]
WORLD: dict[str, Any] = {"rows": 400_000, "blocks": 4, "fields": FIELDS, "user": "user"}
NET = {"name": "lr", "arch": "lr", "adapter": False}
STREAM: dict[str, Any] = {
    "reference": {"nets": [NET], "dim": 2, "checkpoints": 2, "batch_size": 4096},
    "budget": {"cap": 200},
    "refine": {"rounds": 0},
}


class Counted:
    """Counts the bytes that this process hashes in the body of the `with` statement."""

    def __enter__(self) -> Counted:
        self.bytes = 0
        self._real = hashlib.sha256, hashlib.file_digest

        def sha256(data: bytes = b"", **options: Any) -> Any:
            self.bytes += len(data)
            return self._real[0](data, **options)

        def file_digest(file: Any, digest: Any) -> Any:
            self.bytes += Path(file.name).stat().st_size
            return self._real[1](file, digest)

        hashlib.sha256, hashlib.file_digest = sha256, file_digest  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        hashlib.sha256, hashlib.file_digest = self._real


def bytes_read() -> int:
    """Bytes that this process has read so far."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def measure(work: Path) -> dict[str, float]:
    """Bytes read and bytes hashed by a stage, as multiples of the bytes of its block; the mean of all stages but the first."""
    log = work / "log"
    if not log.exists():
        simulate(SimulateConfig.model_validate(WORLD), log)
    sizes = [sum(shard.bytes for shard in block.shards) for block in open_log(log).blocks]
    counts: list[tuple[int, int]] = []
    real = pipeline.run_stage
    with Counted() as hashed:

        def watched(stream: Any, block: Any) -> None:
            before = bytes_read(), hashed.bytes
            real(stream, block)
            counts.append((bytes_read() - before[0], hashed.bytes - before[1]))

        pipeline.run_stage = watched
        try:
            distil_locally(work / "run", StreamConfig.model_validate({"log": log, **STREAM}))
        finally:
            pipeline.run_stage = real
    read, digested = (sum(count[which] for count in counts[1:]) / sum(sizes[1 : len(counts)]) for which in (0, 1))
    return {"read": round(read, 3), "hashed": round(digested, 3)}


def main() -> None:
    """Measure, store the figures beside the earlier ones, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the log and the run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept: dict[str, dict[str, float]] = json.loads(RESULT.read_text())
    kept["now"] = measure(options.work)
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    rows = []
    for action in ("read", "hashed"):
        before, now = kept["before"][action], kept["now"][action]
        rows.append(
            [f"bytes {action} by a stage, in blocks", f"{before:.2f}", f"{now:.2f}", f"{now / before:.2f}", f"<= {AIM}"]
        )
    show(["what", "at 0678e55", "now", "ratio", "aim"], rows, "How often a stage goes through its block")


if __name__ == "__main__":
    main()
