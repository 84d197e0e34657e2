"""The pages on fidelity, from the figures in benchmarks/results: docs/fidelity.md, which a person reads, and docs/fidelity/ for the rest.

`python -m benchmarks.fidelity.published_logs docs` writes them, and the table of the README.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from benchmarks.common.docstrings import explained
from benchmarks.common.tables import filled, markdown
from benchmarks.fidelity.published_logs import HERE, LOGS, Published, figures, live_figures, log_of
from diet_ray.config import StreamConfig
from diet_ray.figures import listed
from diet_ray.judge.fidelity.config import FidelityConfig, Method
from diet_ray.judge.fidelity.live.measures import MEASURES as LIVE_MEASURES
from diet_ray.judge.fidelity.live.page import cost_rows, differences
from diet_ray.judge.fidelity.live.result import BLIND, SAME_ROWS, LiveCost, LiveResult
from diet_ray.judge.fidelity.live.words import KEY as LIVE_KEY
from diet_ray.judge.fidelity.live.words import MEANINGS as LIVE_MEANINGS
from diet_ray.judge.fidelity.live.words import cell as live_cell
from diet_ray.judge.fidelity.live.words import lead as live_lead
from diet_ray.judge.fidelity.live.words import meaning
from diet_ray.judge.fidelity.measures import MEASURES, pooled_pearson
from diet_ray.judge.fidelity.names import named, set_name, start_name
from diet_ray.judge.fidelity.order import ENOUGH, LEAST, USEFUL, OrderVerdict
from diet_ray.judge.fidelity.page import verdicts_of
from diet_ray.judge.fidelity.result import GROUPS, CostResult, FidelityResult, Scores, SetResult
from diet_ray.judge.fidelity.words import MEANINGS, at_own_ratio, cells, lead, protocol

KEY = (
    "auc_gap_mean",
    "auc_gap_max",
    "logloss_gap_mean",
    "spearman",
    "kendall",
    "pearson",
    "spread",
    "pairs_right",
    "top1_regret",
    "top3_regret",
)
"""The measures of the tables of docs/fidelity/."""

README_KEY = ("spearman", "pairs_right", "top1_regret", "gap")
"""The measures of the README's table."""

README_STARTS = {SAME_ROWS: "{} (the ceiling)", "memory": "**{}**", "random": "{}", "recent": "{}", BLIND: "{}"}
"""The starts of the tables of the README and of docs/fidelity.md, and what stands around their names in the README."""

PAGE_KEY = ("spearman", "pairs_right", "top1_regret")
"""The measures of docs/fidelity.md."""

COMMAND = "python -m benchmarks.fidelity.published_logs docs"

ROOT = HERE.parent
DOCS = ROOT / "docs" / "fidelity.md"
README = ROOT / "README.md"
EXAMPLE = ROOT / "examples" / "fidelity.yaml"
PICTURE = "order.svg"

Live = dict[str, tuple[LiveResult, LiveCost]]
Frozen = dict[str, tuple[FidelityResult, CostResult]]


def write_pages() -> None:
    """Write all pages, the picture and the README's table."""
    for path, text in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with rc_context({"svg.hashsalt": "diet_ray", "svg.fonttype": "none"}):
        picture().savefig(DOCS.with_suffix("") / PICTURE, format="svg", metadata={"Date": None, "Creator": None})
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")


def documents() -> dict[Path, str]:
    """Every page by its path, the one for people first."""
    frozen, live, folder = figures(), live_figures(), DOCS.with_suffix("")
    pages = {
        DOCS: front(frozen, live),
        folder / "keys.md": keys_page(),
        folder / "measures.md": measures_page(frozen, live),
    }
    pages |= {folder / f"{name}.md": _page(_live_log(LOGS[name], name, *both)) for name, both in live.items()}
    return pages | {folder / f"{name}.md": _page(_log(LOGS[name], name, *both)) for name, both in frozen.items()}


def readme(text: str) -> str:
    """The README with its short table, made from the figures, between the two marks."""
    rows = []
    for name, (result, _) in live_figures().items():
        for task in result.tasks:
            for start in result.starts:
                if start.name in README_STARTS:
                    shown = [live_cell(key, start.measured[task][0][key], " ") for key in README_KEY]
                    rows.append(
                        [f"{log_of(name)}, {task}", README_STARTS[start.name].format(start_name(start.name)), *shown]
                    )
    titles = [LIVE_MEASURES[key].title for key in README_KEY]
    return filled(text, "figures", COMMAND, markdown(["log, task", "candidates start from", *titles], rows), gap="\n")


def front(frozen: Frozen, live: Live) -> str:
    """docs/fidelity.md."""
    parts = [
        "# May I trust the order of the candidates?",
        "A memory is of use if candidates that learn from it come out in the order that the full log gives them. `diet-ray "
        "fidelity` trains "
        "the same candidates on both and compares the orders, on rows that are later than everything learned. This page has "
        "its verdicts on "
        "two published logs and shows how to get one for yours.",
        "## The verdicts",
        "\n".join(f"- **{log_of(name)}.** {verdict.sentence}." for name, verdict in _verdicts(frozen, live)),
        f"![Spearman with its interval, per log and task; the tables below have the figures](fidelity/{PICTURE})",
        "In each group the memory stands beside its rival, as many random rows with the reference's probabilities, and beside the full log "
        "judged by the same few rows. The memory does not order candidates better than these random rows do: the order comes from the "
        "reference's table and its probabilities, more than from the choice of rows.",
        "## How it is judged",
        "*Live*, as `sweep` and `race` judge: a candidate is launched from the memory and judged on the first tenth of a "
        "block, each row just "
        "before it is learned. The truth is the same candidate after a full backfill, over the whole block. *Frozen*, as in the paper: a "
        "student of the memory predicts later blocks without learning; the truth is the candidate trained on all rows.",
        _rule(),
        "What the measures mean: [measures](fidelity/measures.md). The protocols in full: [the method](method.md#fidelity).",
    ]
    for name, (result, cost) in live.items():
        parts += _short(name, result, cost, [other for other in frozen if log_of(other) == log_of(name)])
    parts += [
        "## What it cost",
        markdown(
            ["log", "candidates x seeds", "launch and first tenth", "full backfill", "distilling, once"],
            [
                [
                    log_of(name),
                    f"{len(result.candidates)} x {result.seeds}",
                    f"{median(line.memory for line in cost.candidates):.1f} CPU s",
                    f"{median(line.full for line in cost.candidates):.1f} CPU s",
                    f"{cost.memory_seconds:,.0f} s",
                ]
                for name, (result, cost) in live.items()
            ],
        ),
        "CPU seconds of one candidate, the median. A bench trains every candidate on the full log: it costs more than the choice that it "
        "judges. It pays where many choices on the same log follow.",
        "## On your own log",
        "This is a whole config, `examples/fidelity.yaml`, for the log of the README:",
        f"```yaml\n{EXAMPLE.read_text(encoding='utf-8').rstrip()}\n```",
        "```bash\ncp examples/fidelity.yaml my_fidelity.yaml\n"
        "diet-ray fidelity --config my_fidelity.yaml --out fidelity/mine --quick\n"
        "diet-ray sweep --memory runs/mine --candidates my_pool.yaml --out sweeps/proven --fidelity fidelity/mine\n```",
        "Before it trains, the command says how many trainings and about how many CPU seconds are left to do. Run again, it "
        "goes on with what "
        "is missing. The terminal shows the verdict per task and one table; `fidelity.html` and the JSON files have everything. "
        "`sweep` and `race` show the verdict with `--fidelity DIR`, after they have checked that the bench is of the same log "
        "and of a memory "
        "made by the same config; without it they say that the order is unproven.",
        markdown(
            ["", "`--quick`", "the example", "all defaults"],
            [
                ["trainings per candidate", "3", "30", "57 live and 114 or more frozen"],
                ["of them on the full log", "1", "3", "3 live, 12 frozen"],
                ["judging blocks", "1", "3", "3"],
                ["seeds of memory and full log", "1", "3", "3"],
                ["can show: no better than chance", "yes", "yes", "yes"],
                ["can show: may be trusted", "no, one seed is one memory", "yes", "yes"],
            ],
        ),
        f"**How many candidates?** By chance, Spearman of n candidates scatters by 1/sqrt(n - 1). Fewer than {LEAST} cannot "
        f"show anything, and "
        f"the command refuses them. Fewer than {ENOUGH} can only show an order that is better than {USEFUL:g}, and the command "
        f"says so before "
        "it trains. Candidates should differ in what you want to choose by: architectures, sizes, fields.",
        "The keys of the config are listed in [all keys](fidelity/keys.md).",
    ]
    return _page(parts)


def _rule() -> str:
    rows = [
        ["may be trusted", f"the interval is above 0, its value is {USEFUL:g} or more, the full log is not shown to order better, and "
         "there is more than one seed"],
        ["no better than chance", f"the interval holds 0 and ends below {USEFUL:g}"],
        ["not shown", "anything else; the reason says what is missing"],
    ]  # fmt: skip
    return (
        "The verdict follows from Spearman's correlation between the two orders and its 95 % interval, which reaches at least "
        "as far as chance "
        f"does, 1.96/sqrt(n - 1) for n candidates. From {USEFUL:g} on, two of three pairs are in the right order.\n\n"
        + markdown(["order", "where"], rows)
    )


def _verdicts(frozen: Frozen, live: Live) -> Iterator[tuple[str, OrderVerdict]]:
    for name, both in live.items():
        yield from ((name, verdict) for verdict in verdicts_of(None, both))
    for name, measured in frozen.items():
        yield from ((name, verdict) for verdict in verdicts_of(measured, None))


def _short(name: str, result: LiveResult, cost: LiveCost, frozen: list[str]) -> list[str]:
    """A log's section on the page for people: one table, a caveat, and where all figures are."""
    seconds = {part.start: part.before + part.live for part in cost.starts}
    seconds[SAME_ROWS] = seconds["full"]
    rows = [
        [
            task,
            start_name(start.name),
            *(live_cell(key, start.measured[task][0][key], " ") for key in PAGE_KEY),
            f"{seconds[start.name]:.1f}" if start.name in seconds else "-",
        ]
        for task in result.tasks
        for start in result.starts
        if start.name in README_STARTS
    ]
    links = [f"[{LOGS[other].title}](fidelity/{other}.md)" for other in (name, *frozen)]
    return [
        f"## {log_of(name)}",
        markdown(["task", "candidates start from", *(LIVE_MEASURES[key].title for key in PAGE_KEY), "CPU s"], rows),
        f"{about(result)} {LOGS[name].caveat} All figures: {listed(links)}.",
        *(f"Frozen: {LOGS[other].caveat}" for other in frozen),
    ]


def about(result: LiveResult) -> str:
    """On what a table rests."""
    blocks = ", ".join(block.name for block in result.blocks)
    return (
        f"{len(result.candidates)} candidates, {result.seeds} seeds, memory of {100 * result.ratio:.3g}\u00a0% of the rows, first "
        f"{100 * result.shares[0]:.3g}\u00a0% of {blocks}."
    )


SHOWN = {"memory": "#0072b2", "random": "#009e73", SAME_ROWS: "#333333"}
"""The starts of the picture, with their colours."""


def picture() -> Figure:
    """Spearman with its interval, per log and task: the memory, its rival, and the full log after the same rows."""
    groups = [
        (f"{log_of(name)}\n{task}", result, task)
        for name, (result, _) in live_figures().items()
        for task in result.tasks
    ]
    figure = Figure(figsize=(7, 0.9 + 0.85 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for place, (_, result, task) in enumerate(groups):
        of_start = {start.name: start.measured[task][0]["spearman"] for start in result.starts}
        for step, (start, colour) in enumerate(SHOWN.items()):
            spearman, y = of_start[start], place + 0.25 * (step - 1)
            label = start_name(start) if place == 0 else None
            axis.plot([spearman.low, spearman.high], [y, y], color=colour, linewidth=1.6)
            axis.plot([spearman.value], [y], "o", color=colour, markersize=5, label=label)
    for level, style in ((0, "--"), (USEFUL, ":")):
        axis.axvline(level, color="#777777", linewidth=0.9, linestyle=style, zorder=0)
    axis.set_yticks(range(len(groups)), [name for name, _, _ in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlim(-0.3, 1)
    axis.set_xlabel("Spearman with the full log, 95 % intervals; 0 is chance, the dotted line a useful order")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=len(SHOWN), frameon=False)
    return figure


def keys_page() -> str:
    """docs/fidelity/keys.md: every key of a bench's config."""
    return _page(
        [
            "# All keys of a fidelity bench",
            "The keys of `diet-ray fidelity --config`, dotted where they are nested. Only `stream.log` is required. `--quick` overrides "
            "`protocols`, `seeds` and the key `live`, except `live.recipe` and the first of `live.shares`.",
            markdown(["key", "default", "meaning"], list(_keys(FidelityConfig))),
        ]
    )


def _keys(kind: type[BaseModel], before: str = "", given: BaseModel | None = None) -> Iterator[list[str]]:
    """Lines of the table; `given` is the object from which a group of keys has its defaults."""
    meaning = explained(kind)
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        text = meaning.get(name, "")
        default = getattr(given, name) if given is not None else field.default
        if annotation is StreamConfig:
            yield [f"`{name}`", "required: `log`", f"{text} Its keys: [settings](../reference/settings.md)."]
        elif isinstance(default, BaseModel):
            yield from _keys(type(default), f"{before}{name}.", default)
        else:
            yield [f"`{before}{name}`", _default(default), text]


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "all but refined"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(str(part) for part in value)}]`"
    return "-" if value is None else f"`{value}`"


def measures_page(frozen: Frozen, live: Live) -> str:
    """docs/fidelity/measures.md."""
    starts = list(dict.fromkeys(start.name for result, _ in live.values() for start in result.starts))
    return _page(
        [
            "# What the figures mean",
            "Intervals are 95 % intervals from resampling candidates and seeds, live also parts of the rows. With three seeds they are "
            "probably too narrow.",
            "## Live",
            markdown(["measure", "in plain words"], [list(pair) for pair in LIVE_MEANINGS]),
            markdown(
                ["candidates start from", "what a candidate has before its first live row"],
                [[start_name(name), meaning(name)] for name in starts],
            ),
            "## Frozen",
            markdown(["measure", "in plain words"], [list(pair) for pair in MEANINGS]),
            "Unless the name of a set says otherwise, candidates learn it as they learn a memory: labels partly drawn from the reference's "
            "probabilities, the reference's table, an adapter in front of the net.",
            *_pooled({name: result for name, (result, _) in frozen.items()}),
        ]
    )


def _page(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _live_log(about: Published, name: str, result: LiveResult, cost: LiveCost) -> list[str]:
    parts = [
        f"# {about.title}",
        "\n".join(f"- {verdict.sentence}." for verdict in verdicts_of(None, (result, cost))),
        *live_lead(result, cost),
        about.caveat,
        f"Made by `python -m benchmarks.fidelity.published_logs {name} --work WORK`; figures in `benchmarks/results/live*_{name}.json`. "
        f"Candidates: {', '.join(spec.name for spec in result.candidates)}.",
    ]
    titles = [measure.title for measure in LIVE_MEASURES.values()]
    for task in result.tasks:
        for number, share in enumerate(result.shares):
            rows = [
                [
                    start_name(start.name),
                    *(live_cell(key, start.measured[task][number][key], " ") for key in LIVE_MEASURES),
                ]
                for start in result.starts
            ]
            parts += [f"## {task}, {100 * share:.3g} % of the block", markdown(["start", *titles], rows)]
    keys = [LIVE_MEASURES[key].title for key in LIVE_KEY]
    first = f"{100 * result.shares[0]:.3g} %"
    return [
        *parts,
        f"## Starts against each other, {first} of the block",
        markdown(["difference", "task", *keys], differences(result, " ")),
        "## Cost of one candidate, CPU seconds",
        markdown(["start", "before the block", f"{first} of it, live"], cost_rows(cost)),
    ]


def _log(about: Published, name: str, result: FidelityResult, cost: CostResult) -> list[str]:
    command = f"`python -m benchmarks.fidelity.published_logs {name} --work WORK`"
    parts = [
        f"# {about.title}",
        "\n".join(f"- {verdict.sentence}." for verdict in verdicts_of((result, cost), None)),
        *lead(result, cost),
        about.caveat,
        f"Made by {command}; figures in `benchmarks/results/*_{name}.json`.",
    ]
    parts.append(markdown(["", "this run"], protocol(result, cost)))
    for task in result.tasks:
        for group, title in zip(GROUPS, ("all candidates", "architectures alone"), strict=True):
            rows = [_line(set_name(result_set), result_set, task, group) for result_set in at_own_ratio(result)]
            parts += [f"## {task}, {title}", markdown(["trained on", "units", *_titles()], rows)]
        curve = [result_set for result_set in result.sets if result_set.ratio and result_set.method in _curve(result)]
        rows = [
            _line(
                f"{named(str(result_set.method))} at {100 * (result_set.ratio or 0):.3g}\u00a0%",
                result_set,
                task,
                "all",
            )
            for result_set in sorted(curve, key=_by_method)
        ]
        parts += [f"## {task}, by size", markdown(["trained on", "units", *_titles()], rows)]
    rows = [
        [
            f"{named(difference.first)} minus {named(difference.second)}",
            task,
            *cells(difference.fidelity[task]["all"], KEY, " ", signed=True),
        ]
        for difference in result.differences
        for task in result.tasks
    ]
    parts += ["## Sets against each other", markdown(["sets", "task", *_titles()], rows)]
    rows = [
        [
            candidate.candidate,
            f"{candidate.full_cpu:.2f}",
            f"{candidate.memory_cpu:.2f}",
            f"{candidate.full_cpu / candidate.memory_cpu:.1f}x",
        ]
        for candidate in cost.candidates
    ]
    parts += [
        "## Cost of one training, CPU seconds",
        markdown(["candidate", "full log", named(cost.memory_set), "ratio"], rows),
    ]
    return parts


def _pooled(results: dict[str, FidelityResult]) -> list[str]:
    """Pearson correlation over the candidates of all logs and tasks, raw and centred."""
    common = [
        result_set.name
        for result_set in next(iter(results.values())).sets
        if all(result_set.name in _names(result) for result in results.values())
    ]
    rows = []
    for name in common:
        points = [
            (_means(result.full, task), _means([score for score in result.scores if score.set == name], task))
            for result in results.values()
            for task in result.tasks
        ]
        rows.append([named(name), *(f"{correlation:.2f}" for correlation in pooled_pearson(points))])
    return [
        "## All logs and tasks together",
        "One Pearson correlation over all (log, task, candidate) points. The differences between logs inflate the raw correlation: it is "
        "near 1 for any candidates. The centred correlation first subtracts the mean of each log and task.",
        markdown(["trained on", "raw", "centred"], rows),
    ]


def _means(scores: list[Scores], task: str) -> np.ndarray:
    return np.array([np.mean(score.values[task]["auc"]) for score in scores])


def _names(result: FidelityResult) -> set[str]:
    return {result_set.name for result_set in result.sets}


def _curve(result: FidelityResult) -> set[Method | None]:
    """The methods that were measured at several sizes."""
    return {
        result_set.method
        for result_set in result.sets
        if result_set.ratio is not None and result_set.ratio != result.ratio
    }


def _by_method(set_result: SetResult) -> tuple[str, float]:
    return str(set_result.method), set_result.ratio or 0.0


def _line(title: str, set_result: SetResult, task: str, group: str) -> list[str]:
    return [title, f"{set_result.units:,}", *cells(set_result.fidelity[task][group], KEY, " ")]


def _titles() -> list[str]:
    return [MEASURES[name].title for name in KEY]
