"""How often does a stage read and hash its block?

    python -m benchmarks.speed.block_reads --work FOLDER

Distils a simulated log without refinement in this process and counts, stage by stage, the bytes that the process reads (`rchar` of
/proc/self/io) and the bytes that it hashes, both as multiples of the block's bytes. All else that a stage reads is small here: few ids, few
units. The figures "before" are those of commit 0678e55, by the same count, where a stage went through its block for the rows held out, for
the pass of the reference and for the scores.
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
    """Counts what this process hashes for the length of the body."""

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
    """What this process has read so far."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def measure(work: Path) -> dict[str, float]:
    """Bytes read and bytes hashed by a stage, as multiples of its block's; the mean of all stages but the first."""
    log = work / "log"
    if not log.exists():
        simulate(SimulateConfig.model_validate(WORLD), log)
    sizes = [sum(shard.bytes for shard in block.shards) for block in open_log(log).blocks]
    seen: list[tuple[int, int]] = []
    real = pipeline.run_stage
    with Counted() as hashed:

        def watched(stream: Any, block: Any) -> None:
            before = bytes_read(), hashed.bytes
            real(stream, block)
            seen.append((bytes_read() - before[0], hashed.bytes - before[1]))

        pipeline.run_stage = watched
        try:
            distil_locally(work / "run", StreamConfig.model_validate({"log": log, **STREAM}))
        finally:
            pipeline.run_stage = real
    read, digested = (sum(one[which] for one in seen[1:]) / sum(sizes[1 : len(seen)]) for which in (0, 1))
    return {"read": round(read, 3), "hashed": round(digested, 3)}


def main() -> None:
    """Measure, keep beside what was before, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the log and the run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept: dict[str, dict[str, float]] = json.loads(RESULT.read_text())
    kept["now"] = measure(options.work)
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    rows = []
    for what in ("read", "hashed"):
        before, now = kept["before"][what], kept["now"][what]
        rows.append(
            [f"bytes {what} by a stage, in blocks", f"{before:.2f}", f"{now:.2f}", f"{now / before:.2f}", f"<= {AIM}"]
        )
    show(["what", "at 0678e55", "now", "ratio", "aim"], rows, "How often a stage goes through its block")


if __name__ == "__main__":
    main()
