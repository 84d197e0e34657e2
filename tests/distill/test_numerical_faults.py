"""When numbers go wrong, from the log to the report: what is defined to happen, played through the stream without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import SelectConfig, StreamConfig
from diet_ray.distill.address import choose_active, draw_hard, example_losses, influence, reducible_loss
from diet_ray.distill.select import Scored, sketch
from diet_ray.errors import ConfigError
from diet_ray.judge.leaderboard import standings_rows
from diet_ray.judge.metrics import ONE_CLASS, evaluate, undefined
from diet_ray.judge.standings import rank
from diet_ray.judge.standings_plot import plot_standings
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.logs.blocks import Rows, open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.verification import verify
from diet_ray.report.summary import RunSummary, summarise
from diet_ray.report.timeline import plot_losses
from diet_ray.training.student import Examples, FlatNet
from tests.support.small_run import STREAM, local_run
from tests.support.synthetic import rows as good_rows
from tests.support.synthetic import schema, write_log

Change = Callable[[Rows, int], Rows]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSummary]:
    """Distil a log whose rows were changed, with parts of the config replaced; the run is sound, and summed up."""

    def run(change: Change = lambda rows, block: rows, **parts: Any) -> RunSummary:
        monkeypatch.setattr("tests.support.synthetic.rows", lambda n, **of: change(good_rows(n, **of), of["block"]))
        log = write_log(tmp_path / "log", blocks=3, n=200)
        stream = {**STREAM, **{part: {**STREAM.get(part, {}), **keys} for part, keys in parts.items()}}
        folder = local_run(tmp_path / "run", StreamConfig.model_validate({**stream, "log": log}))
        assert verify(folder, log=log) == []
        assert "NaN" not in (folder / "stages" / "0001" / "manifest.json").read_text()
        summary = summarise(folder)
        assert "NaN" not in (folder / "summary.json").read_text()
        return summary

    return run


def labelled(value: int, *blocks: int) -> Change:
    return lambda rows, block: replace(rows, labels=np.full_like(rows.labels, value)) if block in blocks else rows


def students_of(summary: RunSummary, lr_scale: float = 1.0) -> Verdict:
    """A candidate on the memory of a run, judged on the log's last block."""
    memory = load_memory(summary.run)
    log = open_log(memory.stage.config.log)
    spec = CandidateSpec(name="a", arch="lr", lr_scale=lr_scale)
    rows = log.read_block(log.blocks[-1])
    student = memory.stage.config.student
    return judge(spec, memory.examples(), memory.table, rows, log.schema, student, seed=0, trained_on="memory")


# --- labels and fields that hardly vary


def test_a_constant_label_is_learned_and_said(play: Callable[..., RunSummary]) -> None:
    summary = play(labelled(0, 0, 1, 2))
    memory = load_memory(summary.run)
    assert len(memory) == 20
    assert (memory.units.label == 0).all()
    assert float(memory.soft_label.mean()) < 0.5
    for stage in summary.stages:
        assert stage.warnings == ["task 'label_0': all 200 labels are 0"]
    found = students_of(summary)
    assert found.undefined == {"label_0": {"auc": ONE_CLASS, "gauc": ONE_CLASS, "calibration": "no label is positive"}}
    assert np.isfinite(found.metrics["label_0"]["logloss"])
    assert json.loads(found.model_dump_json())["metrics"]["label_0"]["auc"] is None


def test_a_block_of_one_class_among_others(play: Callable[..., RunSummary]) -> None:
    summary = play(labelled(1, 1), select={"strategy": "ccs"}, refine={"rounds": 1})
    memory = load_memory(summary.run)
    assert [stage.warnings for stage in summary.stages] == [[], ["task 'label_0': all 200 labels are 1"]]
    assert (memory.units.label[memory.units.block == 1] == 1).all()
    assert np.unique(memory.units.label[memory.units.block == 0]).tolist() == [0, 1]
    assert students_of(summary).undefined == {}
    (Path(summary.run).parent / "log").rename(Path(summary.run).parent / "elsewhere")
    assert summarise(Path(summary.run)).warnings() == []  # of a log that is not there nothing is told


@pytest.mark.parametrize("method", ["ridge", "procrustes"])
def test_a_field_with_one_value(play: Callable[..., RunSummary], method: str) -> None:
    def one_value(rows: Rows, block: int) -> Rows:
        ids = rows.ids.copy()
        ids[:, 2] = schema().first_static_id[2]
        return replace(rows, ids=ids)

    summary = play(one_value, align={"method": method}, refine={"rounds": 0})
    memory = load_memory(summary.run)
    assert torch.isfinite(memory.x).all()
    assert len(np.unique(memory.units.ids[:, 2])) == 1
    assert not summary.warnings()


def test_ids_that_were_never_seen_are_their_fields_unknown(play: Callable[..., RunSummary]) -> None:
    summary = play(refine={"rounds": 0})
    assert [stage.new_ids for stage in summary.stages] == [load_memory(summary.run).stage.n_ids, 0]
    memory = load_memory(summary.run)
    ids = good_rows(50, block=2).ids
    never = np.where(ids % 3 == 0, len(memory.table) + ids, ids).astype(np.int32)
    unknown = np.where(ids % 3 == 0, 1 + np.arange(4), ids).astype(np.int32)
    assert (never != unknown).any()
    assert torch.equal(memory.embed(never), memory.embed(unknown))


# --- numbers that are not finite


def test_a_reference_that_diverged_ends_in_one_error(play: Callable[..., RunSummary]) -> None:
    with pytest.raises(ConfigError, match=r"key 'reference\.lr': .* lower reference\.lr or reference\.embedding_lr"):
        play(reference={"lr": 1e30})


@pytest.mark.parametrize("strategy", ["top", "proportional", "ccs", "random"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_rows_without_a_finite_score_are_never_selected(strategy: str, bad: float) -> None:
    rows = good_rows(9, tasks=2)
    score = np.full((9, 2), 0.5, np.float32)
    score[4, 1] = bad
    with pytest.raises(ConfigError, match=f"task 1 .from 0. of row {rows.row_id[4]} has no finite score"):
        sketch(Scored(rows, score, score), SelectConfig(strategy=strategy), keep=5, seed=0)


def test_rounds_whose_meta_gradient_explodes_move_nothing(
    play: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    import diet_ray.distill.refine as module

    true, bad = module.meta_gradient, cycle([NAN, INF, -INF])

    def exploding(*given: Any, **keys: Any) -> Any:
        found = true(*given, **keys)
        found.delta[0, 0, 0] = next(bad)
        return found

    monkeypatch.setattr(module, "meta_gradient", exploding)
    summary = play()
    for stage in summary.stages:
        assert (stage.skipped, stage.rounds, stage.guard_before) == (3, 3, stage.guard_after)
        assert stage.warnings == ["3 of 3 rounds skipped, their meta-gradient was not finite"]
    memory = load_memory(summary.run)
    assert not memory.units.delta.any()
    assert memory.units.influence.any()


def test_a_refinement_after_which_students_diverge_is_undone(play: Callable[..., RunSummary]) -> None:
    summary = play(refine={"delta_lr": 1e30})
    memory = load_memory(summary.run)
    assert not memory.units.delta.any()
    assert np.isfinite(memory.units.influence).all()
    for stage in summary.stages:
        assert stage.refined is False
        assert stage.guard_before is not None
        assert stage.guard_after is None
        assert stage.warnings[-1] == "students of the refined memory diverged, the unrefined one stays"


def test_students_that_diverge_leave_the_memory_as_it_was(play: Callable[..., RunSummary]) -> None:
    summary = play(student={"lr": 1e30})
    memory = load_memory(summary.run)
    assert not memory.units.influence.any()  # nothing could be measured, and nan would outlive all others
    assert not memory.units.delta.any()
    for stage in summary.stages:
        assert stage.refined is False
        assert stage.warnings == [
            "3 of 3 rounds skipped, their meta-gradient was not finite",
            "students of the unrefined memory diverged, so refinement could not be judged; lower student.lr",
        ]
    found = students_of(summary)
    assert set(found.undefined["label_0"].values()) == {"predictions are not finite"}


def diverged(theta: float) -> tuple[FlatNet, torch.Tensor, Examples]:
    net = FlatNet(build(CandidateSpec(name="a", arch="lr"), ["a", "b"], 3, 1, seed=0).eval())
    values = torch.Generator().manual_seed(0)
    units = Examples(torch.randn(6, 2, 3, generator=values), torch.zeros(6, 1), torch.ones(6))
    return net, torch.full_like(net.initial(), theta), units


@pytest.mark.parametrize("theta", [NAN, INF, 1e38])
def test_an_influence_that_is_not_finite_counts_as_none(theta: float) -> None:
    net, at, units = diverged(theta)
    found = influence(net, at, torch.full_like(at, 1e38), units)
    assert torch.isfinite(found).all()
    assert choose_active(torch.zeros(6), 2).tolist() == [0, 1]


def test_rows_on_which_a_student_diverged_are_drawn_like_any_other() -> None:
    student = torch.tensor([[NAN], [INF], [-INF], [9.0], [0.0]])
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0], [1.0]])
    found = reducible_loss(student, torch.zeros(5, 1), labels)
    one = float(example_losses(torch.tensor([[9.0]]), torch.zeros(1, 1)) - np.log(2))
    assert found.tolist() == pytest.approx([0, 0, 0, one, 0])
    drawn = {int(draw_hard(found, 1, 0.0, torch.Generator().manual_seed(seed))) for seed in range(20)}
    assert drawn == {3}  # the only one of which something is known
    nothing = reducible_loss(torch.full((5, 1), NAN), torch.zeros(5, 1), labels)
    drawn = {int(draw_hard(nothing, 1, 0.0, torch.Generator().manual_seed(seed))) for seed in range(60)}
    assert drawn == set(range(5))


# --- what is not defined is said, and orders nobody


@pytest.mark.parametrize(
    ("logits", "labels", "users", "reasons"),
    [
        ([0.1, NAN], [0, 1], [1, 1], dict.fromkeys(["auc", "logloss", "gauc", "calibration"], "predictions are not finite")),
        ([0.1, 0.2], [1, 1], [1, 1], {"auc": ONE_CLASS, "gauc": ONE_CLASS}),
        ([0.1, 0.2], [0, 0], [1, 2], {"auc": ONE_CLASS, "gauc": ONE_CLASS, "calibration": "no label is positive"}),
        ([0.1, 0.2], [0, 1], [1, 2], {"gauc": "no user has both labels"}),
        ([], [], [], dict.fromkeys(["auc", "logloss", "gauc", "calibration"], "no rows")),
        ([0.1, 0.2], [0, 1], [1, 1], {}),
    ],
)  # fmt: skip
def test_why_a_metric_is_undefined(
    logits: list[float], labels: list[int], users: list[int], reasons: dict[str, str]
) -> None:
    given = np.array(logits, np.float32)[:, None], np.array(labels, np.uint8)[:, None]
    metrics = evaluate(*given, np.array(users, np.int64), ["y"])
    found = undefined(metrics, *given)
    assert found == ({"y": reasons} if reasons else {})
    assert {name for name, value in metrics["y"].items() if value != value} == set(reasons)


def one(candidate: str, seed: int, auc: float, why: str, other: float) -> Verdict:
    whole = {"logloss": 0.5, "gauc": 0.5, "calibration": 1.0}
    return Verdict(
        candidate=candidate,
        arch="lr",
        trained_on="memory",
        seed=seed,
        metrics={"click": {**whole, "auc": auc}, "buy": {**whole, "auc": other}},
        undefined={"click": {"auc": why}} if why else {},
        train_seconds=1.0,
        train_wall_seconds=1.0,
        parameters=1,
    )


def test_a_task_of_one_label_orders_nobody_and_a_diverged_candidate_is_last() -> None:
    same = [one(name, seed, NAN, ONE_CLASS, other) for name, other in (("a", 0.6), ("b", 0.7)) for seed in (0, 1)]
    assert [line.candidate for line in rank(same)] == ["b", "a"]
    worse = [one("a", 0, 0.9, "", 0.9), one("a", 1, NAN, "predictions are not finite", 0.9), one("b", 0, 0.6, "", 0.6)]
    lines = rank(worse)
    assert [line.candidate for line in lines] == ["b", "a"]
    assert lines[1].undefined == {"click": {"auc": "predictions are not finite"}}
    _, cells = standings_rows(lines, ["click", "buy"])
    assert cells[1][2] == "undefined\npredictions are not finite"
    assert [cell for row in cells for cell in row if "nan" in cell] == []
    figure = plot_standings(lines, "click", "auc")
    figure.savefig("/dev/null", format="svg")  # a mark that is not there is no error


def test_warnings_reach_the_table_and_the_picture(play: Callable[..., RunSummary]) -> None:
    quiet = RunSummary(run="r", stages=[], rows=0, units=0, memory_bytes=0, table_bytes=0, seconds=0.0)
    assert quiet.table().caption is None
    summary = play(labelled(0, 1), refine={"delta_lr": 1e30})
    said = str(summary.table().caption)
    assert "warning: block-001: task 'label_0': all 200 labels are 0" in said
    assert "warning: block-000: students of the refined memory diverged" in said
    kept = {column.header: list(column.cells) for column in summary.table().columns}
    assert kept["guard: gain\nof refinement"][0].startswith("diverged")
    (axis,) = plot_losses(summary).axes
    marked = [line for line in axis.lines if line.get_label() == "with warnings"]
    assert [line.get_xdata().tolist() for line in marked] == [[0, 1]]
