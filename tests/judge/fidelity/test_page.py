"""The report of the fidelity bench: what it says, what it draws, and how a browser shows it."""

from __future__ import annotations

import math
import re
from functools import cache, partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from diet_ray.candidates import CandidateSpec
from diet_ray.config import StudentConfig
from diet_ray.figures import number
from diet_ray.judge.fidelity.config import DEFAULT_METHODS, Method
from diet_ray.judge.fidelity.measures import (
    MEASURES,
    Interval,
    Results,
    bootstrap,
    difference,
    pooled_pearson,
    seed_means,
    seed_noise,
)
from diet_ray.judge.fidelity.names import set_name
from diet_ray.judge.fidelity.page import write_report
from diet_ray.judge.fidelity.plots import (
    Line,
    Look,
    Palette,
    matrix,
    mean_and_sd,
    plot_curves,
    plot_fidelity,
    pool_mean,
)
from diet_ray.judge.fidelity.result import (
    CEILING,
    CandidateCost,
    CostResult,
    Difference,
    Distillation,
    FidelityResult,
    Scores,
    SetResult,
    StagePoint,
)
from diet_ray.judge.fidelity.terminal import to_print
from diet_ray.judge.fidelity.words import cell, lead
from tests.support.browser import browse, measure, require_browser
from tests.support.outline import Outline

TASKS = ["is_click", "long_view"]
POOL = (
    "lr fm dnn dnn-small dnn-wide dlrm deepfm xdeepfm dcnv2 dcnv2-deep autoint finalmlp gdcn gdcn-stacked wukong wukong-large "
    "dnn-dropout dnn-lr03 dnn-lr3 deepfm-lr3 no-user no-video no-author no-hour no-tab"
)
NAMES = POOL.split()
CURVE = ("random/hard/shared", "random/soft/shared", "memory/drawn/shared+adapter")
MEMORY = "refined/drawn/shared+adapter"


@cache
def synthetic(candidates: int = 25, tasks: int = 2, replicates: int = 100) -> tuple[FidelityResult, CostResult]:
    """A bench as large as a real one: sets of hard labels are far off and noisy, sets of soft labels close."""
    rng = np.random.default_rng(0)
    names, named = NAMES[:candidates], TASKS[:tasks]
    quality = {task: np.r_[0.705, 0.712, rng.normal(0.74, 0.0015, 18), 0.69, 0.7, 0.72, 0.733, 0.736] for task in named}

    def run(offset: float, noise: float) -> dict[str, Results]:
        found = {}
        for task in named:
            auc = quality[task][:candidates, None] - offset + rng.normal(0, noise, (candidates, 3))
            found[task] = Results(auc, 0.55 - 0.8 * (auc - 0.74) + (0.7 * offset if offset > 0.01 else 0))
        return found

    methods = [(str(method), method, 0.01) for method in DEFAULT_METHODS]
    methods = [(name, method, None if method.rows == "full" else ratio) for name, method, ratio in methods]
    methods += [
        (f"{name} @ {ratio:.2%}", Method.model_validate(name), ratio)
        for ratio in (0.0025, 0.005, 0.02, 0.05)
        for name in CURVE
    ]
    full = run(0, 0.0004)
    tables = {CEILING: run(0, 0.0004)}
    for name, method, ratio in methods:
        scale = 0.01 / (ratio or 1.0)
        hard = 0.04 if method.labels == "hard" and method.rows != "full" else 0.002
        tables[name] = run(hard * scale**0.5, hard / 8 * scale**0.5)
    diverged = tables["herding/hard/shared"][named[0]]
    diverged.auc[2], diverged.logloss[2] = math.nan, math.nan
    noise = {task: seed_noise([full[task].auc, tables[CEILING][task].auc]) for task in named}
    groups = {"all": np.arange(candidates), "architectures": np.arange(min(candidates, 16))}
    draw = partial(bootstrap, seed=1, replicates=replicates)
    measured = {
        name: {
            task: {
                group: draw(
                    Results(full[task].auc[who], full[task].logloss[who]),
                    Results(tables[name][task].auc[who], tables[name][task].logloss[who]),
                    noise[task],
                )
                for group, who in groups.items()
            }
            for task in named
        }
        for name in tables
    }

    def scores(name: str, found: dict[str, Results]) -> list[Scores]:
        return [
            Scores(
                set=name,
                candidate=names[c],
                values={t: {"auc": found[t].auc[c].tolist(), "logloss": found[t].logloss[c].tolist()} for t in named},
            )
            for c in range(candidates)
        ]

    sets = [
        SetResult(
            name=name,
            method=method,
            ratio=ratio,
            units=193_554 if ratio is None else round(193_554 * ratio),
            fidelity={
                task: {group: found.intervals() for group, found in by.items()} for task, by in measured[name].items()
            },
        )
        for name, method, ratio in [(CEILING, None, None), *methods]
    ]
    differences = [
        Difference(
            first=first,
            second=second,
            fidelity={
                task: {
                    group: difference(measured[first][task][group], measured[second][task][group]) for group in groups
                }
                for task in named
            },
        )
        for first, second in ((CURVE[2], CURVE[1]), (MEMORY, CURVE[2]))
    ]
    stages = [
        StagePoint(
            set=name,
            candidate="dnn",
            stage=stage,
            block=f"2022-04-{stage + 9:02}",
            values={
                t: {"auc": (0.74 - offset / stage + rng.normal(0, 0.002, 3)).tolist(), "logloss": [0.5] * 3}
                for t in named
            },
        )
        for name, offset in (("full/hard/own", 0.03), (CURVE[1], 0.05), (CURVE[2], 0.04))
        for stage in range(1, 13)
    ]
    result = FidelityResult(
        log="kuairand-two-tasks",
        tasks=named,
        blocks=[f"2022-04-{day:02}" for day in range(9, 21)],
        rows=193_554,
        test_blocks=["2022-04-21", "2022-04-22"],
        test_rows=31_022,
        seeds=3,
        students=1,
        student=StudentConfig(),
        ratio=0.01,
        replicates=replicates,
        candidates=[CandidateSpec(name=name, arch="dnn") for name in names],
        noise={task: found.sd for task, found in noise.items()},
        full=scores("full/hard/own", full),
        sets=sets,
        scores=[score for name, found in tables.items() for score in scores(name, found)],
        stages=stages,
        differences=differences,
        pooled_pearson={
            name: pooled_pearson([seed_means(full[task], found[task]) for task in named])
            for name, found in tables.items()
        },
    )
    cost = CostResult(
        machine="2 cores, x86_64",
        versions={"diet_ray": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0"},
        memory_set=MEMORY,
        candidates=[
            CandidateCost(
                candidate=name,
                full_cpu=3.1 + 0.9 * place,
                full_wall=4.0,
                memory_cpu=0.6 + 0.09 * place,
                memory_wall=0.8,
                parameters=1000 * place + 321,
            )
            for place, name in enumerate(names)
        ],
        distillations=[
            Distillation(set="memory", reference_seconds=21, seconds=53, units=1936, bytes=61_000, pays_after=7),
            Distillation(
                set="refined", reference_seconds=21, seconds=355, units=1936, bytes=1_900_000, pays_after=math.nan
            ),
        ],
        log_bytes=3_400_000,
        table_bytes=2_100_000,
    )
    return result, cost


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_report(tmp_path_factory.mktemp("report"), synthetic())


def test_the_page_holds_every_figure_and_needs_nothing_else(written: list[Path]) -> None:
    result, cost = synthetic()
    text = written[0].read_text(encoding="utf-8")
    page = Outline(text)
    assert written[0].stat().st_size < 1_500_000
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    plots = [attrs for tag, attrs in page.tags if tag == "svg"]
    # At a glance, sets x tasks x metrics, curves, stages, cost.
    assert len(plots) == len(written) - 1 == 2 + 7 * 2 * 2 + 2 * 2 + 2 + 1
    assert all(len(str(plot["aria-label"])) > 30 for plot in plots)
    assert all(path.read_bytes().startswith(b"<?xml") for path in written[1:])
    for one in result.sets:
        found = one.fidelity["is_click"]["all"]
        place = page.cells.index(set_name(one), page.cells.index("Pearson"))
        assert page.cells[place + 1] == f"{one.units:,}"
        assert page.cells[place + 2].startswith(f"{found['spearman'].value:.2f} ({found['spearman'].low:.2f} to ")
    memory = matrix([score for score in result.scores if score.set == MEMORY], NAMES, "long_view", "auc")
    full = matrix(result.full, NAMES, "long_view", "auc")
    heading = [place for place, text in enumerate(page.cells) if text == "candidate"][1]
    rows = [page.cells[place : place + 7] for place in range(heading + 7, heading + 7 + 25 * 7, 7)]
    order = sorted(range(25), key=lambda c: -full[c].mean())
    assert [row[0] for row in rows] == [NAMES[c] for c in order]
    for row, c in zip(rows, order, strict=True):
        assert row[1] == f"{full[c].mean():.4f} ± {full[c].std(ddof=1):.4f}"
        assert row[2] == f"{memory[c].mean():.4f} ± {memory[c].std(ddof=1):.4f}"
        assert row[3] == number(memory[c].mean() - full[c].mean(), 4, signed=True)
    for expected in ("1,900,000", "never", "2022-04-09", "0.559", cost.machine, "25: lr, fm, dnn"):
        assert any(expected in cell for cell in page.cells), expected


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    parts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result, cost = synthetic(candidates=3, tasks=1)
        parts.append([path.read_bytes() for path in write_report(tmp_path / name, (short(result), cost))])
    assert parts[0] == parts[1]


def test_a_bench_with_little_in_it_still_makes_a_page(tmp_path: Path) -> None:
    """No memory, no curve, no stages, no differences, one candidate without any result, undefined measures."""
    result, cost = synthetic(candidates=3, tasks=1)
    nothing = {"auc": [math.nan] * 3, "logloss": [math.nan] * 3}
    scores = [
        score.model_copy(update={"values": {"is_click": nothing}}) if score.candidate == "fm" else score
        for score in result.scores
    ]
    full = [
        one.model_copy(update={"values": {"is_click": nothing}}) if one.candidate == "fm" else one
        for one in result.full
    ]
    undefined = {"is_click": dict.fromkeys(("all", "architectures"), dict.fromkeys(MEASURES, nan_interval()))}
    sets = [
        result_set.model_copy(update={"fidelity": undefined})
        for result_set in result.sets
        if result_set.name in (CEILING, "random/hard/own")
    ]
    bare = {
        "sets": sets,
        "scores": scores,
        "full": full,
        "stages": [],
        "differences": [],
        "noise": {"is_click": math.nan},
    }
    result = result.model_copy(update=bare)
    cost = cost.model_copy(update={"memory_set": "random/hard/own", "distillations": [], "candidates": []})
    page = Outline(write_report(tmp_path, (result, cost))[0].read_text(encoding="utf-8"))
    assert "No memory is among the sets that were compared." in page.paragraphs[0]
    assert not {"Against the size of the set", "Along the stream", "Differences between sets"} & set(page.headings)
    assert "nan" not in " ".join(page.cells + page.paragraphs).lower().split()
    said, table = to_print((result, cost), None)
    assert str(said).startswith("No memory is among the sets")
    assert table.row_count == 1 + 2


def test_the_page_begins_with_the_verdict_of_each_task(written: list[Path]) -> None:
    page = Outline(written[0].read_text(encoding="utf-8"))
    assert [text.partition(":")[0] for text in page.paragraphs[:2]] == [f"Order of {task}, frozen" for task in TASKS]


def test_the_lead_says_what_the_figures_say() -> None:
    result, cost = synthetic()
    said = lead(result, cost)
    found = {result_set.name: result_set.fidelity["is_click"]["all"] for result_set in result.sets}
    assert f"Spearman with the full log is {cell('spearman', found[MEMORY]['spearman'], ' ')} for the memory" in said[1]
    assert f"{cell('spearman', found[CEILING]['spearman'], ' ')} for the full log again" in said[1]
    assert f"{found['random/soft/shared']['spearman'].value:.2f} for random rows with soft labels" in said[1]
    assert (
        f"{found['random/hard/own']['spearman'].value:.2f} for random rows with hard labels and embeddings" in said[1]
    )
    assert f"of {found[MEMORY]['pairs'].value:.0f} pairs that the full log tells apart" in said[1]
    assert f"loses {cell('top1_regret', found[MEMORY]['top1_regret'], ' ')} AUC" in said[1]
    ratios = sorted(candidate.full_cpu / candidate.memory_cpu for candidate in cost.candidates)
    assert f"{ratios[12]:.1f} times less CPU" in said[-1]
    assert "pays after 7 candidates" in said[-1]
    assert "never pays" in said[-1]


@pytest.mark.parametrize(("low", "shown"), [(-0.01, False), (0.001, True)])
def test_a_difference_is_claimed_only_outside_zero(low: float, shown: bool) -> None:
    result, cost = synthetic(tasks=1)
    spearman = {"spearman": Interval(value=0.02, low=low, high=0.05)}
    one = Difference(first=MEMORY, second="random/soft/shared", fidelity={"is_click": {"all": spearman}})
    said = next(
        part for part in lead(result.model_copy(update={"differences": [one]}), cost) if "minus that of" in part
    )
    assert said.startswith("Spearman of memory, refined minus that of random rows, soft labels, no adapter: +0.02 (")
    assert ("no difference shown" in said) is not shown


def test_figures_as_text() -> None:
    assert [number(x, 2) for x in (0.126, -0.126, -0.001, math.nan)] == ["0.13", "-0.13", "0.00", "-"]
    assert [number(x, 2, signed=True) for x in (0.126, -0.126, 0.001)] == ["+0.13", "-0.13", "0.00"]
    found = Interval(value=0.5, low=0.25, high=1.0)
    assert cell("spearman", found) == "0.50\n(0.25 to 1.00)"
    assert cell("pairs_right", found, " ") == "50\u00a0% (25 to 100)"
    assert cell("pairs", Interval(value=12.0, low=3.0, high=20.0)) == "12"
    assert cell("top1_regret", Interval(value=0.5, low=math.nan, high=math.nan)) == "0.5000"


def test_matrices_and_means() -> None:
    scores = [
        Scores(set="s", candidate="b", values={"t": {"auc": [0.6, 0.8], "logloss": [1, 1]}}),
        Scores(set="s", candidate="a", values={"t": {"auc": [0.5], "logloss": [1]}}),
    ]
    values = matrix(scores, ["a", "b", "c"], "t", "auc")
    assert np.array_equal(values, [[0.5, math.nan], [0.6, 0.8], [math.nan, math.nan]], equal_nan=True)
    mean, sd = mean_and_sd(values)
    assert np.allclose(mean, [0.5, 0.7, math.nan], equal_nan=True)
    assert np.allclose(sd, [math.nan, math.sqrt(0.02), math.nan], equal_nan=True)
    mean_over, low, high = pool_mean(values, np.array([True, True, False]))  # what diverged counts as 0.5
    assert (mean_over, high - low) == pytest.approx((0.6, 2 * np.std([0.55, 0.65], ddof=1)))


def test_a_set_looks_the_same_everywhere_and_like_no_other() -> None:
    palette = Palette()
    looks = [palette.look(str(method), method) for method in DEFAULT_METHODS[:9]]
    assert len(set(looks)) == 9
    assert len({look.colour for look in looks}) == 9
    assert [palette.look(str(method), method) for method in DEFAULT_METHODS[:9]] == looks
    assert palette.look(CEILING, None) == palette.look("full/hard/own", Method.model_validate("full/hard/own"))


def test_the_scatter_shows_each_candidate_with_a_result() -> None:
    full = np.array([[0.70, 0.72], [0.60, 0.62], [0.65, 0.65]])
    other = np.array([[0.69, 0.69], [0.55, 0.57], [math.nan, math.nan]])
    axis = plot_fidelity(full, other, ["a", "b", "c"], "set", Look("#0072b2", "o"), "auc", "note").axes[0]
    (marks,) = axis.containers
    assert marks.lines[0].get_xdata().tolist() == pytest.approx([0.71, 0.61])
    assert marks.lines[0].get_ydata().tolist() == pytest.approx([0.69, 0.56])
    assert {text.get_text() for text in axis.texts} == {"a", "b", "note", ""}
    empty = plot_fidelity(full, np.full((3, 2), math.nan), ["a", "b", "c"], "set", Look("#0072b2", "o"), "auc", "")
    assert empty.axes[0].texts[0].get_text() == "no candidate has a result"


def test_the_curve_shows_each_size() -> None:
    line = Line("memory/drawn/shared", [0.01, 0.1], [0.6, 0.7], [0.5, 0.7], [0.6, 0.9])
    axis = plot_curves([line], {"memory/drawn/shared": Look("#0072b2", "o")}, (0.8, "full log"), "AUC", 0.01).axes[0]
    (bars,) = axis.containers
    assert bars.lines[0].get_ydata().tolist() == [0.6, 0.7]
    assert [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()] == [
        pytest.approx([0.5, 0.6]),
        pytest.approx([0.7, 0.9]),
    ]
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "10"]


def test_a_terminal_gets_the_verdicts_then_one_table_of_80_columns() -> None:
    result, cost = synthetic()
    *verdicts, table = to_print((result, cost), None)
    assert [str(verdict).split(":")[0] for verdict in verdicts] == [f"Order of {task}, frozen" for task in TASKS]
    assert isinstance(table, Table)
    assert len(table.columns) <= 6
    out = StringIO()
    Console(file=out, width=80).print(table)
    text = " ".join(out.getvalue().replace(" adapter\n", "").split())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "…" not in text
    spearman = next(part for part in result.sets if part.name == MEMORY).fidelity["is_click"]["all"]["spearman"]
    shown = f"memory, refined {cell('spearman', spearman, ' ')}"
    assert shown in text
    for name in ("full log again", "random rows in its place", "is_click, frozen:"):
        assert name in text
    assert "/shared" not in text


def test_on_paper_it_is_whole(written: list[Path], tmp_path: Path) -> None:
    """A real bench is the longest page: what is folded on a screen is printed, and nothing is cut off."""
    browser = require_browser()
    text = written[0].read_text(encoding="utf-8")
    (tmp_path / "print.html").write_text(text.replace("@media print", "@media all"), encoding="utf-8")
    (paper,) = measure(browser, tmp_path, {tmp_path / "print.html": 703}).values()
    assert paper["scroll"] <= 703, "the page itself must not scroll sideways"
    assert paper["headings"] == Outline(text).headings
    assert len(paper["headings"]) > 25
    assert len(paper["tables"]) > 10
    assert all(0 < scroll <= client for client, scroll in paper["tables"]), "nothing is cut off in print"
    browse(browser, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer", written[0].as_uri())
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5


def nan_interval() -> Interval:
    return Interval(value=math.nan, low=math.nan, high=math.nan)


def short(result: FidelityResult) -> FidelityResult:
    """The same with one set."""
    return result.model_copy(update={"sets": [result_set for result_set in result.sets if result_set.name == MEMORY]})
