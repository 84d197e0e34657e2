"""The benchmarks of scoring and of the stream at a tiny size, and the page that is written from their figures."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.common import machine, repeated_log
from benchmarks.speed import plain_loop, scaling, scoring, scoring_figures, stream
from diet_ray.distill.score import ScoreJob, score_rows
from diet_ray.logs.blocks import Rows, open_log
from diet_ray.storage.tensors import load_tensors
from tests.support.synthetic import write_log

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> stream.StreamResult:
    """A stream of three small blocks, measured."""
    before = torch.get_num_threads()
    found = stream.run(tmp_path_factory.mktemp("stream"), rows=400, blocks=3, cap=60, ratio=0.1)
    torch.set_num_threads(before)
    return found


def test_the_page_is_written_from_the_results() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert text == scaling.document(text)
    assert text.count("<!-- end of ") == 6  # two of them are written by benchmarks.speed.table and shards


def test_without_figures_the_page_says_so(tmp_path: Path) -> None:
    text = scaling.document((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), tmp_path)
    assert text.count("Not measured yet.") == 4
    with pytest.raises(SystemExit, match="the marks of part 'scoring' are missing"):
        scaling.document(text.replace("<!-- end of scoring -->", ""), tmp_path)


def test_a_repeated_log_has_new_ids_and_the_same_labels(tmp_path: Path) -> None:
    log = open_log(write_log(tmp_path / "log", blocks=2, n=300))
    found = repeated_log.repeated(log, tmp_path / "again", 1500, shard_rows=500)
    few, many = found.blocks
    assert [shard.rows for shard in many.shards] == [500, 500, 500]
    assert few.shards[0].rows == repeated_log.FEW
    whole = Rows.concat([log.read_block(block) for block in log.blocks])
    rows = found.read_block(many)
    assert len(np.unique(rows.row_id)) == 1500
    assert (np.diff(rows.time) >= 0).all()
    np.testing.assert_array_equal(rows.labels, np.concatenate([whole.labels, whole.labels, whole.labels[:300]]))
    # Hashed fields have no ids to add to, so all stay; what vocabularies hand out moves by as many as there are.
    np.testing.assert_array_equal(rows.ids[600:1200], whole.ids)
    static = int(log.schema.first_static_id[-1])
    parts = list(repeated_log._again(whole, 1200, 1200, static - 10, 7))
    moved = np.where(whole.ids < static - 10, whole.ids, whole.ids + 7)
    np.testing.assert_array_equal(parts[0].ids[600:], moved)


def test_the_plain_loop_computes_what_scoring_does(tmp_path: Path) -> None:
    log = open_log(write_log(tmp_path / "log", blocks=1, n=500))
    checkpoints = scoring.write_checkpoints(log, tmp_path)
    assert load_tensors(checkpoints[0])["table"].shape[1] == 16
    block, stream = log.blocks[0], scoring.the_config(log.path, 1)
    job = ScoreJob.of(log, block, checkpoints, stream, keep=500, seed=0)
    sketch = score_rows(job, log.iter_block(block))
    plain = plain_loop.plain_loop(checkpoints, [log.shard_path(block, shard) for shard in block.shards])
    scoring.check(sketch, plain)
    with pytest.raises(AssertionError, match="differ"):
        scoring.check(sketch, 1.01 * plain)


def test_figures_of_scoring() -> None:
    seconds = {  # (path, workers, rows): with a start of 2 s and 4 s
        ("plain", 2, 1000): 52.0,
        ("ray", 2, 1000): 54.0,
        ("plain", 1, 250): 27.0,
        ("ray", 1, 250): 29.0,
        ("plain", 2, 250): 14.5,
        ("ray", 2, 250): 16.5,
        **{(path, n, 10 * n): 2.0 if path == "plain" else 4.0 for path in ("plain", "ray") for n in (1, 2)},
    }
    # Every run thrice, one of them disturbed.
    runs = [
        scoring_figures.Run(path=path, workers=n, rows=rows, seconds=value * factor, peak=1000 + rows)
        for (path, n, rows), value in seconds.items()
        for factor in (1, 1, 9)
    ]
    result = scoring_figures.ScoringResult.model_construct(rows=1000, runs=runs)
    figures = scoring_figures.Figures(result)
    assert figures.against_plain(started=False) == pytest.approx(52 / 54)
    assert figures.against_plain(started=True) == pytest.approx(1.0)
    assert figures.speedup("ray") == figures.speedup("plain") == pytest.approx(2.0)
    assert figures.growth() == pytest.approx(2000 / 1250)
    assert [row[4] for row in figures.rows()].count("start alone") == 4


def test_a_stream_is_measured(streamed: stream.StreamResult) -> None:
    assert isinstance(streamed, stream.StreamResult)
    assert [one.units for one in streamed.cap] == [60, 60, 60]
    assert [one.units for one in streamed.grown] == [40, 80, 120]
    for one in [*streamed.cap, *streamed.grown]:
        assert set(one.steps) == set(stream.STEPS)
        assert sum(one.steps.values()) <= one.seconds
        assert one.peak > 0
        assert one.cpu > 0
    again = stream.StreamResult.model_validate_json(streamed.model_dump_json())
    assert (again.cap, again.grown, again.machine) == (streamed.cap, streamed.grown, streamed.machine)
    assert len(stream.ratios(streamed)) == 12
    assert len({len(row) for row in stream.steps_table(streamed)[1]}) == 1


def test_the_model_of_the_network_is_what_is_counted(streamed: stream.StreamResult) -> None:
    """So small a memory is fetched whole, whatever the start of a round, and all of it may move."""
    rows = scaling.network_rows(streamed)
    assert [row[2] for row in rows] == ["take", "move", "measure"] * 2
    # 60 units under the cap and 120 in the end; 4 rounds, 2 addressings, a guard before and after; 8 fields x 16, a logit, a weight and
    # the position.
    counted = [run[-1].moved for run in (streamed.cap, streamed.grown)]
    for units, moved in zip((60, 120), counted, strict=True):
        assert moved["take"] == scaling.fetched(streamed, units) == 8 * units * (4 * (8 * 16 + 2) + 8)
        assert moved["move"] == scaling.moved(streamed, units) == 4 * units * (4 * (8 * 16 + 1) + 8)
    # With half of a window's batches active, and by chance the others: 2048 of 40,000, 10 steps of 128.
    assert scaling.moved(streamed, 40_000) == pytest.approx(4 * 10 * (64 + 64 * 2048 / 40_000) * (4 * (8 * 16 + 1) + 8))
    assert 0.9 < counted[0]["measure"] / scaling.measured_influence(streamed) <= 1


def test_bytes_are_those_of_all_arrays() -> None:
    n_bytes = stream.n_bytes
    assert n_bytes([(np.zeros(3), torch.zeros(2)), "text", 7, [np.zeros(1, np.uint8)]]) == 24 + 8 + 1


def test_a_line_through_stages_withstands_a_disturbed_one() -> None:
    stages = [
        stream.StageFigures(
            units=n, seconds=1, cpu=1, peak=1, steps={"align": 0.5 + 0.01 * n + (n == 70) * 9}, moved={}, written=1
        )
        for n in range(0, 200, 10)
    ]
    assert stream.line(stages, "align") == pytest.approx((0.5, 0.01))


def test_memory_is_that_of_this_process_and_its_children() -> None:
    before = machine.own_memory(os.getpid())
    # New pages from the system: an array may be given memory that this process freed before, and add none.
    with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"1" * len(held))
        assert machine.own_memory(os.getpid()) - before > 24 << 20
    assert machine.used_memory() >= machine.own_memory(os.getpid())
    with machine.watched(0.01, lambda: 7) as watch:
        pass
    assert watch.peak() == 7
    assert watch.peak(end=0) == 0
    assert str(machine.Machine.here())
