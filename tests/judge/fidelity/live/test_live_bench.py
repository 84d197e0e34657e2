"""The protocol `live` of the bench: its trainings against those written out, on Ray as here, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from typer.testing import CliRunner

from diet_ray.candidates import CandidateSpec
from diet_ray.cli import app
from diet_ray.engine.bench_driver import live_fidelity
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.baselines import own_model
from diet_ray.judge.fidelity.live.assemble import assemble
from diet_ray.judge.fidelity.live.bench import measure_live
from diet_ray.judge.fidelity.live.plan import LivePlan, LiveTraining
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS, LiveResult
from diet_ray.judge.fidelity.live.starts import latest_rows, random_start, ready
from diet_ray.judge.fidelity.live.trainings import kept, losses
from diet_ray.judge.launch import LaunchRecipe, launch
from diet_ray.judge.live import go_live, live_rows
from diet_ray.judge.progressive import row_losses
from diet_ray.judge.start import load_start
from diet_ray.memory.layout import stage_folder
from diet_ray.seeds import derive_seed
from diet_ray.training.reference import batches
from tests.support.small_bench import bench_config
from tests.support.synthetic import write_log

LIVE = {
    "blocks": 2,
    "shares": [0.1, 1.0],
    "starts": ["memory", "refined", "unaligned", "random", "table", "scratch", "recent", "table+recent"],
    "recipe": {"student": {"steps": 8, "batch_size": 32, "lr": 0.01}},
}


def quiet(*progress: Any) -> None:
    pass


@pytest.fixture(scope="module")
def done(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LivePlan, LiveResult, Path]:
    folder = tmp_path_factory.mktemp("live")
    config = bench_config(log, folder, live=LIVE, candidates=3, protocols=["live"])
    result, _ = measure_live(config, folder / "out", quiet)
    return LivePlan.open(config.absolute(), folder / "out" / "cache"), result, folder


def training(plan: LivePlan, start: str, name: str = "net", seed: int = 0) -> LiveTraining:
    [spec] = [spec for spec in plan.bench.pool if spec.name == name]
    return LiveTraining(start=start, candidate=spec, seed=plan.bench.seeds[seed], block=plan.judged[-1].index)


def test_the_truth_is_progressive_validation_of_a_pass_over_all_rows(done: tuple[LivePlan, LiveResult, Path]) -> None:
    """Written out: batches that do not cross blocks, each predicted and then learned."""
    plan, _, _ = done
    work = training(plan, "full")
    log, config = plan.bench.log, plan.bench.config.stream.reference
    model = own_model(
        work.candidate, log.schema, config, n_ids=log.blocks[0].n_ids, seed=derive_seed(work.seed, "backfill")
    )
    for block in log.blocks[: work.block + 1]:
        model.grow(block.n_ids)
        rows, parts = log.read_block(block), []
        for batch in batches([rows], config.batch_size):
            ids, labels = torch.tensor(batch.ids), torch.tensor(batch.labels, dtype=torch.float32)
            with torch.no_grad():
                parts.append(model(ids)[0].numpy())
            loss = binary_cross_entropy_with_logits(model(ids)[0], labels)
            model.net_optimiser.zero_grad()
            model.table_optimiser.zero_grad()
            loss.backward()
            model.net_optimiser.step()
            model.table_optimiser.step()
        if block in plan.judged:
            expected = row_losses(np.concatenate(parts), rows.labels)
            np.testing.assert_allclose(losses(plan, work, block), expected, rtol=1e-4, atol=1e-5)
            timed = kept(plan, work).blocks[block.name]
            assert timed.rows == block.rows
    assert [block.index for block in plan.judged] == [2, 3]


def test_a_start_is_what_its_name_says(done: tuple[LivePlan, LiveResult, Path]) -> None:
    plan, _, _ = done
    bench, block = plan.bench, plan.judged[-1]
    seed = bench.seeds[0]
    run = bench.keys.run_folder(plan.distillation("memory", seed))
    start = load_start(stage_folder(run, block.index - 1))
    work = training(plan, "memory")
    model = launch(
        start, work.candidate, seed=derive_seed(seed, "launch"), recipe=LaunchRecipe.model_validate(LIVE["recipe"])
    )
    rows = live_rows(bench.log, block, 1)
    expected = row_losses(go_live(model, rows), rows.rows.labels)
    assert np.array_equal(losses(plan, work, block), expected)

    # As many rows as the memory has units, none of the judged block, labelled with probabilities.
    randomly = random_start(plan, start, seed, block)
    assert len(randomly.ids) == len(start.ids)
    assert not bool(randomly.delta.any())
    assert len(torch.unique(randomly.soft_label)) > len(randomly.ids) // 2
    seen = [tuple(ids) for b in bench.log.blocks[: block.index] for ids in bench.log.read_block(b).ids.tolist()]
    assert {tuple(ids) for ids in randomly.ids.tolist()} <= set(seen)
    assert randomly.table is start.table

    spec = work.candidate
    alone, scratch = (ready(plan, name, seed, block)(spec, seed=1) for name in ("table", "scratch"))
    assert torch.equal(alone.embedding.weight, start.table)
    assert alone.steps() == start.moments.step
    assert scratch.steps() == 0
    steps = int(np.ceil(8 * 32 / bench.config.stream.reference.batch_size))
    recent, both = (ready(plan, name, seed, block)(spec, seed=1) for name in ("recent", "table+recent"))
    assert recent.steps() == steps
    assert both.steps() == start.moments.step + steps
    latest = latest_rows(bench.log, block, 256)
    assert (
        latest.row_id.tolist()
        == [row for b in bench.log.blocks[: block.index] for row in bench.log.read_block(b).row_id.tolist()][-256:]
    )

    aligned, unaligned = plan.distillation("memory", seed), plan.distillation("unaligned", seed)
    assert (aligned.align.method, unaligned.align.method, unaligned.align.relabel) == ("reembed", "none", 0)
    assert plan.distillation("refined", seed).refine.rounds > 0
    assert aligned.refine.rounds == 0
    # Other starts than the memory's give other losses.
    own = [losses(plan, training(plan, name), block) for name in ("full", *plan.live.starts)]
    assert len({part.tobytes() for part in own}) == len(own)


def test_the_result_holds_what_was_measured(done: tuple[LivePlan, LiveResult, Path]) -> None:
    plan, result, folder = done
    starts = list(LIVE["starts"])  # type: ignore[call-overload]
    assert [start.name for start in result.starts] == [SAME_ROWS, OTHER_SEED, *starts, BLIND]
    assert [(block.name, block.rows) for block in result.blocks] == [(b.name, b.rows) for b in plan.judged]
    assert result.blocks[1].units == 45  # 5 % of three blocks of 300 rows
    assert [d.second for d in result.differences if d.first == "memory"] == [
        SAME_ROWS, OTHER_SEED, *starts[1:], BLIND,
    ]  # fmt: skip
    score = next(s for s in result.scores if (s.start, s.candidate, s.block) == ("memory", "net", "block-003"))
    works = [training(plan, "memory", seed=n) for n in range(2)]
    expected = [[float(losses(plan, w, plan.judged[-1])[:n].mean()) for w in works] for n in (30, 300)]
    np.testing.assert_allclose(score.losses["label_0"], expected, rtol=1e-5)
    assert (folder / "out" / "live.json").read_text() == result.model_dump_json(indent=2) + "\n"
    assert [verdict.order for verdict in result.verdicts] == ["not shown"]
    assert result.verdicts[0].because.startswith("3 candidates are too few")


@pytest.mark.ray
def test_on_ray_with_half_of_it_lost(ray_cluster: int, done: tuple[LivePlan, LiveResult, Path], log: Path) -> None:
    """The same bytes; what is kept is not done again."""
    plan, result, folder = done
    files = sorted((folder / "out" / "cache" / "live").rglob("kept.json"))
    before = {path: path.stat().st_mtime_ns for path in files}
    for path in files[::3]:
        path.unlink()
    again, _ = live_fidelity(plan.bench.config, folder / "out", quiet)
    assert again.model_dump_json() == result.model_dump_json()  # nan is not equal to nan
    after = {path: path.stat().st_mtime_ns for path in files}
    assert {path for path in files if after[path] != before[path]} == set(files[::3])


def test_damaged_losses_are_named(done: tuple[LivePlan, LiveResult, Path], tmp_path: Path) -> None:
    plan = done[0]
    path = plan.folder(training(plan, "scratch")) / "3.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    try:
        with pytest.raises(CorruptArtefactError, match=r"3\.parquet: not a readable Parquet file"):
            assemble(plan)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"blocks": 4}, r"key 'live': 4 judging blocks, 1 apart, that end with block 3"),
        ({"blocks": 2, "every": 3}, r"key 'live': 2 judging blocks, 3 apart"),
    ],
)
def test_a_log_too_short_is_refused(log: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_live(bench_config(log, tmp_path, live=keys), tmp_path / "out", quiet)


@pytest.mark.parametrize("blocks", [2, 3, 6])
def test_as_many_judging_blocks_as_there_are(tmp_path: Path, blocks: int) -> None:
    log = write_log(tmp_path / "log", blocks=blocks, n=100)
    plan = LivePlan.open(bench_config(Path(log), tmp_path), tmp_path / "cache")
    assert [block.index for block in plan.judged] == list(range(max(1, blocks - 3), blocks))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shares": [0.5, 0.1]}, "must ascend"),
        ({"shares": [0.5, 1.5]}, "at most 1"),
        ({"shares": []}, "at least 1 item"),
        ({"starts": ["memry"]}, "live.starts"),
    ],
)
def test_a_wrong_key_is_named(log: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench_config(log, tmp_path, live=keys)


def test_refined_needs_refinement(log: Path, tmp_path: Path) -> None:
    stream = bench_config(log, tmp_path).stream.model_dump(mode="json")
    stream["refine"]["rounds"] = 0
    with pytest.raises(ValueError, match=r"live\.starts: refined needs stream\.refine\.rounds"):
        bench_config(log, tmp_path, stream=stream, live={"starts": ["refined"]})


def test_a_candidate_that_diverges_is_measured_and_stops_nobody(log: Path, tmp_path: Path) -> None:
    wild = CandidateSpec(name="wild", arch="dnn", params={"hidden": (8, 8)}, lr_scale=1e30)  # layers multiply to inf
    config = bench_config(
        log, tmp_path, candidates=3, live={**LIVE, "starts": ["scratch"]}, more_candidates=[wild.model_dump()]
    )
    result, _ = measure_live(config, tmp_path / "out", quiet)
    (memory,) = [start for start in result.starts if start.name == "memory"]
    assert memory.measured["label_0"][0]["left_out"].value == 1
    assert np.isfinite(memory.measured["label_0"][0]["top1_regret"].value)


def test_the_command_reports_both_protocols(log: Path, tmp_path: Path) -> None:
    more = [{"name": f"net-{width}", "arch": "dnn", "params": {"hidden": [width]}} for width in (4, 6)]
    live = {**LIVE, "starts": ["random", "scratch"]}
    config = bench_config(log, tmp_path, candidates=3, more_candidates=more, live=live, seeds=1)
    (tmp_path / "bench.json").write_text(config.model_dump_json())
    words = ["--local", "--json", "fidelity", "--config", str(tmp_path / "bench.json"), "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert set(json.loads(ran.stdout)) == {"verdicts", "fidelity", "cost", "live", "live_cost"}
    assert [(one["protocol"], one["task"]) for one in json.loads(ran.stdout)["verdicts"]] == [
        ("live", "label_0"),
        ("frozen", "label_0"),
    ]
    page = (tmp_path / "out" / "fidelity.html").read_text()
    assert page.index("Order of label_0, live: ") < page.index("Order of label_0, frozen: ")
    for heading in ("Live: agreement against the share", "Live: every candidate", "Live: cost", "Every set"):
        assert heading in page
    assert len(list((tmp_path / "out").glob("live-*.svg"))) == 3
    config = config.model_copy(update={"protocols": ["live"]})
    (tmp_path / "bench.json").write_text(config.model_dump_json())
    shown = CliRunner().invoke(app, ["--local", *words[2:]])
    assert shown.exit_code == 0, shown.output
    assert "full log, same rows" in shown.stdout
    assert shown.stdout.startswith("Order of label_0, live: ")
    assert "frozen:" not in shown.stdout
