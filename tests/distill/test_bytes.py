"""The bytes of a run stay what they were: recorded when tables began to move by fused Adam (`ARITHMETIC` 3).

`golden/bytes.json` holds the checksum of every file of every stage of five small runs, `golden/begun` a run that was begun before, at
commit 0678e55, and `golden/begun_refined` the manifest of one that was refined in the way of that time. Floating point depends on the
processor and on the libraries: where a probe of torch alone gives other bytes, the test skips and says so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from diet_ray.config import StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.errors import ConfigError
from diet_ray.storage.tensors import load_tensors
from tests.support.small_run import STREAM, bytes_of
from tests.support.synthetic import write_log

GOLDEN = Path(__file__).parent / "golden"
RECORDED: dict[str, dict[str, str]] = json.loads((GOLDEN / "bytes.json").read_text())
BUDGETS: dict[str, dict[str, Any]] = {"ratio": {"ratio": 0.05}, "cap": {"cap": 25}}
ROUNDS = {"refined": 3, "unrefined": 0}


def probe() -> str:
    """What this machine makes of the operations that a run consists of, by torch alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rng = torch.Generator().manual_seed(0)
        x, w = torch.randn(256, 64, generator=rng), torch.randn(64, 48, generator=rng, requires_grad=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            torch.relu(x @ w).mean(1), torch.rand(256, generator=rng)
        )
        (gradient,) = torch.autograd.grad(loss, w)
        parts = [
            x @ w,
            gradient,
            torch.sqrt(gradient.abs() + 1e-10),
            torch.sigmoid(x),
            torch.special.logit(torch.sigmoid(x), 1e-6),
        ]
        return hashlib.sha256(b"".join(part.detach().contiguous().numpy().tobytes() for part in parts)).hexdigest()
    finally:
        torch.set_num_threads(threads)


def machine() -> dict[str, str]:
    """All on which the bytes of a run may depend, besides the code."""
    versions = {name: version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")}
    return {"capability": torch.backends.cpu.get_cpu_capability(), "probe": probe(), **versions}


@pytest.fixture(scope="module", autouse=True)
def _same_machine() -> None:
    here = machine()
    other = [
        f"{name} is {here[name]}, was {there}" for name, there in RECORDED["machine"].items() if here[name] != there
    ]
    if other:
        pytest.skip(f"the bytes were recorded elsewhere: {'; '.join(other)}")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_log(tmp_path_factory.mktemp("golden") / "log", blocks=4, n=300)
    assert bytes_of(path) == RECORDED["log"]
    return path


def stream(log: Path, budget: str, rounds: str, **more: Any) -> StreamConfig:
    refine = {**STREAM["refine"], "rounds": ROUNDS[rounds]}
    return StreamConfig.model_validate({**STREAM, "log": log, "budget": BUDGETS[budget], "refine": refine, **more})


def checksums(run: Path) -> dict[str, str]:
    """Of each file of each stage. A manifest says where the log lies, on what processor it was made and what is kept, and its successor's
    names its checksum: these are left out."""
    found = {}
    for path in sorted((run / "stages").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(content)
                manifest["config"]["log"], manifest["parent_sha256"] = "", None
                manifest.pop("made_with", None)
                manifest["config"].pop("checkpoints", None)  # as then, all of them are kept
                content = json.dumps(manifest, sort_keys=True).encode()
            found[path.relative_to(run / "stages").as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_one_worker(log: Path, tmp_path: Path, budget: str, rounds: str) -> None:
    distil_locally(tmp_path / "run", stream(log, budget, rounds))
    assert checksums(tmp_path / "run") == RECORDED[f"1/{budget}/{rounds}"]


@pytest.mark.ray
def test_two_workers(ray_cluster: int, log: Path, tmp_path: Path) -> None:
    """The run with most in it: another would take a worker group of its own, half a minute."""
    from diet_ray.engine import distil

    distil(tmp_path / "run", stream(log, "cap", "refined", cluster={"workers": 2}))
    assert checksums(tmp_path / "run") == RECORDED["2/cap/refined"]


def test_a_run_begun_before_goes_on_with_leave(log: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(GOLDEN / "begun", tmp_path / "run"))
    # It was begun to one block, and the place of its log was another machine's.
    for path in (run / "run.json", run / "stages" / "0000" / "manifest.json"):
        raw = json.loads(path.read_text())
        raw["config"]["log"] = str(log)
        raw["config"]["blocks"] = None
        if "versions" in raw:
            raw["versions"] |= {"ray": version("ray"), "diet_ray": version("diet_ray")}
        path.write_text(json.dumps(raw))
    whole = stream(log, "cap", "unrefined")
    with pytest.raises(ConfigError, match="arithmetic of passes 1, now 3"):
        distil_locally(run, whole, resume=True)
    assert len(distil_locally(run, whole, resume=True, allow_different_bytes=True)) == 3
    distil_locally(tmp_path / "fresh", whole)
    for stage in range(3):  # what is new rounds otherwise, and nothing else
        mine, its = (
            {path.name: load_tensors(path) for path in sorted((one / "stages" / f"{stage:04d}").glob("*.safetensors"))}
            for one in (run, tmp_path / "fresh")
        )
        assert mine.keys() == its.keys()
        for file in mine:
            torch.testing.assert_close(mine[file], its[file], rtol=0, atol=1e-6)


@pytest.mark.parametrize("keys", [{}, {"pool": 3}], ids=["before the pool", "before half precision"])
def test_a_run_refined_in_another_way_does_not_go_on(log: Path, tmp_path: Path, keys: dict[str, int]) -> None:
    """Its later stages would be refined otherwise than its earlier ones."""
    raw = json.loads((GOLDEN / "begun_refined" / "run.json").read_text())
    raw["config"]["refine"] |= keys
    raw["versions"] = {"diet_ray": version("diet_ray")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"run: was begun by another build, whose refinement gives other bytes"):
        distil_locally(tmp_path / "run", stream(log, "cap", "refined"), resume=True)
