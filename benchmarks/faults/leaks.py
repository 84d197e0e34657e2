"""Two hundred stages in one run: does anything grow that should not? Object store, file descriptors, threads, actors, memory of processes.

    python -m benchmarks.faults.leaks run --stages 200    # writes benchmarks/results/leaks.json
    python -m benchmarks.faults.leaks docs                # its table into docs/faults.md

The blocks are alike and the memory is capped, so that all stages do the same. Each is measured when it is committed. What grows is told by
the median of the slopes between all pairs of stages (Theil-Sen) behind the first quarter, in which caches fill.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from benchmarks.common.tables import NOT_YET, filled, markdown
from benchmarks.faults.killing import ended
from benchmarks.faults.small_cluster import PATIENCE, TITLES, Driver, Place, Stuck, parent, title

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "leaks.json", ROOT / "docs" / "faults.md"

WARM = 0.25
"""Share of the stages in which caches may fill."""

PARTS = {
    "driver": "",
    "worker": TITLES["worker"],
    "owners": TITLES["owner"],
    "controller": TITLES["controller"],
}
"""The processes of a run that live as long as it does, by the titles that Ray gives them."""

LIMITS = {"MB": 0.05, "descriptors": 0.02, "threads": 0.02, "actors": 0.02, "processes": 0.05}
"""What each quantity may grow by per stage before it counts as a leak: 0.05 MB are 10 MB in 200 stages."""


def sample(place: Place, driver: Driver) -> dict[str, float]:
    """All quantities at this moment, by the names of part and quantity."""
    found: dict[str, float] = {}
    for part in PARTS:
        pids = [driver.process.pid] if part == "driver" else of_part(place, PARTS[part])
        for name, value in (("MB", megabytes), ("descriptors", descriptors), ("threads", threads)):
            found[f"{part} {name}"] = sum(value(pid) for pid in pids)
    titles = [title(pid) for pid in of_part(place, "")]
    found["Ray processes"] = len(titles)
    # A scorer that is just ending is none that has leaked.
    busy = [name for name in titles if not name.startswith(("ray::IDLE", TITLES["scorer"]))]
    found["Ray actors"] = len([name for name in busy if name.startswith("ray::")])
    found["GCS MB"] = megabytes(place.gcs())
    found["raylets MB"] = sum(megabytes(pid) for pid in place.raylets())
    found["object store MB"] = stored(place) / 1e6
    return found


def of_part(place: Place, prefix: str) -> list[int]:
    """The processes below our raylets whose title begins so."""
    raylets = set(place.raylets())
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if parent(pid) in raylets and title(pid).startswith(prefix)]


def megabytes(pid: int) -> float:
    """Memory that belongs to a process alone, without what it maps of the object store: RssAnon, in MB."""
    return _status(pid, "RssAnon") * 1024 / 1e6


def threads(pid: int) -> float:
    """Number of threads."""
    return _status(pid, "Threads")


def descriptors(pid: int) -> float:
    """Number of open file descriptors."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def stored(place: Place) -> int:
    """Bytes in the object stores of all nodes."""
    import ray
    from ray._private.internal_api import node_stats

    if not ray.is_initialized():
        ray.init(address=place.cluster.address, log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats for node in alive]
    return sum(int(stat.object_store_bytes_used) for stat in stats)


def measure(stages: int) -> dict[str, Any]:
    """Run so many stages and sample at each commit.

    Raises:
        AssertionError, Stuck: the run does not come to its end.
    """
    import ray

    samples: list[dict[str, float]] = []
    with Place(nodes=1) as place:
        driver = place.distil(place.folder / "run", place.log(stages), workers=1, memory_shards=2)
        began = heard = time.monotonic()
        while driver.process.poll() is None:  # the last stage may end faster than it can be looked at
            if time.monotonic() - heard > PATIENCE:
                raise Stuck(f"{driver.run}: nothing is committed any more")
            committed = [event for event in driver.news() if event["kind"] == "committed"]
            if committed:
                heard = time.monotonic()
                samples.append({"stage": committed[-1]["stage"], **sample(place, driver)})
                if len(samples) % 10 == 0:
                    print(f"{committed[-1]['stage'] + 1} stages, {heard - began:.0f} s", flush=True)
            time.sleep(0.02)
        assert ended(driver) == 0
        seconds = round(time.monotonic() - began)
        ray.shutdown()
    return {"stages": stages, "cores": os.cpu_count(), "samples": whole(samples), "seconds": seconds}


def whole(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """The samples without those that were taken while the driver was ending."""
    return [one for one in samples if one["driver threads"] and one["worker threads"]]


def slopes(result: dict[str, Any]) -> dict[str, tuple[float, float, float, float, float]]:
    """Per quantity its first and last median after the warm-up, and slope per stage with its 95 % interval."""
    samples = [one for one in result["samples"] if one["stage"] >= WARM * result["stages"]]
    stage = np.array([one["stage"] for one in samples], dtype=np.float64)
    found = {}
    for name in samples[0]:
        if name == "stage":
            continue
        values = np.array([one[name] for one in samples])
        some = max(len(values) // 10, 1)
        slope, _, low, high = theilslopes(values, stage)
        found[name] = (float(np.median(values[:some])), float(np.median(values[-some:])), slope, low, high)
    return found


def leaking(result: dict[str, Any]) -> list[str]:
    """The quantities that grow by more than `LIMITS`. Those of Ray's own servers are told, not judged."""
    found = []
    for name, (*_, slope, _low, _high) in slopes(result).items():
        limit = next(limit for quantity, limit in LIMITS.items() if name.endswith(quantity))
        if slope > limit and not name.startswith(("GCS", "raylets")):
            found.append(name)
    return found


def document(result: dict[str, Any]) -> str:
    """The table of a result."""
    rows = [
        [name, f"{first:.1f}", f"{last:.1f}", f"{slope:+.4f} ({low:+.4f} to {high:+.4f})"]
        for name, (first, last, slope, low, high) in slopes(result).items()
    ]
    named = leaking(result)
    text = (
        f"{result['stages']} stages in {result['seconds']} s, measured at {len(result['samples'])} commits; what counts is behind the "
        f"first {WARM:.0%}. Of a run's own processes {', '.join(named) if named else 'nothing'} grows by more than the limits of "
        "`benchmarks/faults/leaks.py`.\n\n"
    )
    return text + markdown(["what", "then", "at the end", "growth per stage (95 % interval)"], rows)


def page(text: str, path: Path = RESULT) -> str:
    """docs/faults.md with the table of a result, or word that there is none."""
    part = document(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOT_YET
    return filled(text, "figures", "python -m benchmarks.faults.leaks docs", part)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["run", "docs"])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    if asked.do == "run":
        asked.out.write_text(json.dumps(measure(asked.stages), indent=1) + "\n", encoding="utf-8")
    else:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), asked.out), encoding="utf-8")


def _status(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return float(next((line.split()[1] for line in lines if line.startswith(f"{name}:")), 0))


if __name__ == "__main__":
    main()
