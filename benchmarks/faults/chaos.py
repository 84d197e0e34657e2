"""Random kills: drivers, workers, scorers, owners, controllers and nodes of `diet-ray distill` on three nodes are killed at random moments.

    python -m benchmarks.faults.chaos run --kills 100     # writes benchmarks/results/chaos.json
    python -m benchmarks.faults.chaos docs                # its tables into docs/faults.md

The result is written after each run; start the benchmark again to continue it. A driver either finishes its run, or ends with exit code 2
and one line, and then the run continues with --resume. At the end of a run, all files of all stages must be those of the undisturbed run,
and no other files may be left; otherwise the benchmark ends with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.tables import NOT_YET, filled, markdown
from benchmarks.faults.killing import Kill, bytes_of, ended, strike, undisturbed
from benchmarks.faults.small_cluster import Driver, Place, Stuck
from diet_ray.memory.events import read_events

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "chaos.json", ROOT / "docs" / "faults.md"

WEIGHTS = {"driver": 20, "worker": 20, "scorer": 20, "owner": 20, "node": 12, "controller": 8}
"""Share of the kills of each target, per cent."""

STEPS = ("reference", "score", "select", "align", "fuse", "refine", "commit")
BLOCKS = 6

CLUSTER: dict[str, Any] = {"workers": 2, "memory_shards": 2}

FAILURES = (0, 50)
"""`cluster.max_failures` of the runs, in turn."""

RUN_FILES = {"events.jsonl", "run.json", "stages", "summary.json"}
"""The contents of the folder of a finished run."""


class Chaos:
    """The kills of one invocation, and the results of the runs that they hit."""

    def __init__(self, place: Place, kills: int, seed: int, out: Path) -> None:
        self.place, self.kills, self.out = place, kills, out
        self.log = place.log(BLOCKS)
        self.result: dict[str, Any] = {"seed": seed, "blocks": BLOCKS, "cores": os.cpu_count(), "runs": []}
        if out.exists():
            before = json.loads(out.read_text(encoding="utf-8"))
            if {**before, "runs": []} == self.result and made(before) < kills:
                self.result = before

    def all(self) -> None:
        """Do runs, one after the other, until there were `kills` kills."""
        while (done := made(self.result)) < self.kills:
            number = len(self.result["runs"])
            self.result["runs"].append(self.run(number, self.kills - done))
            self.out.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def run(self, number: int, most: int) -> dict[str, Any]:
        """One run, repeated with --resume until it is complete, with at most `most` kills.

        Raises:
            AssertionError, Stuck: the run does not end completely.
        """
        # Each run has its own random numbers, so that the benchmark can continue after any run.
        rng, run, began = (
            random.Random(f"{self.result['seed']}-{number}"),
            self.place.folder / f"run-{number}",
            time.time(),
        )
        # Ray Train restarts the workers or does not, by this setting: a run must end well in both cases.
        cluster = {**CLUSTER, "max_failures": FAILURES[number % len(FAILURES)]}
        whole = undisturbed(self.place, self.log, **cluster)
        kills: list[dict[str, Any]] = []
        codes: list[int] = []
        while not codes or codes[-1]:
            if len(codes) > 60:
                raise Stuck(f"run {number} does not come to an end: {codes}")
            driver = self.place.distil(run, self.log, resume=bool(codes), **cluster)
            while driver.process.poll() is None and len(kills) < most:
                self.kill(driver, draw(rng), number, kills)
            codes.append(ended(driver))
        committed = [event["time"] for event in read_events(run / "events.jsonl")[0] if event["kind"] == "committed"]
        for kill in kills:
            moment = kill.pop("time")
            kill["seconds"] = next((round(at - moment, 1) for at in committed if at > moment), None)
        left = sorted({path.name for path in run.iterdir()} - RUN_FILES)
        self.compare(run, whole)
        assert not left, f"run {number} has left {left}"
        return {"kills": kills, "exit_codes": codes, "seconds": round(time.time() - began, 1)}

    def compare(self, run: Path, whole: Path) -> None:
        """Check that a run has the same files as the undisturbed run.

        Raises:
            AssertionError: the files differ; both runs are copied beside the result, because the folder of the cluster is removed.
        """
        names = sorted({name for name, _ in bytes_of(run).items() ^ bytes_of(whole).items()})
        if names:
            kept = self.out.with_suffix(".differs")
            for folder in (run, whole):
                shutil.copytree(folder, kept / folder.name, dirs_exist_ok=True)
            raise AssertionError(f"{run.name} differs from the undisturbed run in {names}; both are in {kept}")

    def kill(self, driver: Driver, kill: Kill, number: int, kills: list[dict[str, Any]]) -> None:
        """Do a kill, if its event comes and such a process exists, and record it."""
        landed = strike(self.place, driver, kill)
        if landed:
            kills.append({"target": kill.target, "during": landed, "time": time.time()})
            print(f"run {number}, {len(kills)}: {kill.target} during {landed}", flush=True)
            self.place.fill()


def draw(rng: random.Random) -> Kill:
    """The next process to kill, and the moment."""
    target = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    delay = rng.choice([0.0, round(rng.uniform(0, 0.3), 3)])
    if target == "scorer":
        return Kill(target, "start", "score", delay=round(rng.uniform(0, 3), 3))
    kind, step = rng.choice(
        [(kind, step) for step in STEPS for kind in ("start", "step")] + [("progress", "refine"), ("committed", "")]
    )
    return Kill(target, kind, step, delay=delay)


def made(result: dict[str, Any]) -> int:
    """Number of kills so far."""
    return sum(len(run["kills"]) for run in result["runs"])


def document(result: dict[str, Any]) -> str:
    """The tables of a result."""
    runs = result["runs"]
    kills = [kill for run in runs for kill in run["kills"]]
    names = ["begin", *STEPS]
    landed = Counter((kill["target"], kill["during"].split()[1]) for kill in kills)
    rows = []
    for target in WEIGHTS:
        of_target = [kill for kill in kills if kill["target"] == target]
        # None where the last stage was already committed.
        times = sorted(kill["seconds"] for kill in of_target if kill["seconds"] is not None)
        counts = [str(landed[target, name] or "") for name in names]
        took = f"{times[len(times) // 2]:.0f} ({times[-1]:.0f})" if times else ""
        rows.append([target, *counts, str(len(of_target)), took])
    ends = Counter(code for run in runs for code in run["exit_codes"])
    columns = ["killed, while the run was at", *(f"`{name}`" for name in names), "all"]
    return (
        f"{len(kills)} kills in {len(runs)} runs of {result['blocks']} stages each, seed {result['seed']}, {result['cores']} cores. Of the "
        f"driver processes, {ends[0]} finished, {ends[2]} stopped with one line and exit code 2, and {ends[-9]} were killed themselves. "
        f"All {len(runs)} runs ended with the same bytes as the undisturbed run.\n\n"
        + markdown([*columns, "seconds to the next commit, median (most)"], rows)
    )


def page(text: str, path: Path = RESULT) -> str:
    """docs/faults.md with the tables of a result, or with a note that there is none."""
    part = document(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOT_YET
    return filled(text, "figures", "python -m benchmarks.faults.chaos docs", part)


def main() -> None:
    """Run the benchmark, or write its tables into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["run", "docs"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.do == "run":
        with Place() as place:
            Chaos(place, options.kills, options.seed, options.out).all()
    else:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), options.out), encoding="utf-8")


if __name__ == "__main__":
    main()
