"""The cost model of docs/scaling.md, compared with the measurements of `scoring.py` and `stream.py`, and the tables of the page.

    python -m benchmarks.speed.scaling

It writes the tables into docs/scaling.md; their only source is benchmarks/results.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed import scoring_figures, stream
from benchmarks.speed.scoring_figures import ScoringResult
from benchmarks.speed.stream import LATE, STEPS, StreamResult, among
from diet_ray.config import RefineConfig

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
COMMAND = "python -m benchmarks.speed.scaling"

WITH_UNITS = ("align", "fuse", "refine", "commit")
"""Steps that work on all units; the other steps do not depend on their number."""

FITTED = slice(5, 50)
"""Stages of the growing run on which the model is fitted, from 0; it must predict the last stages."""


def unit_bytes(fields: int, dim: int, tasks: int) -> int:
    """Bytes to fetch a unit for refinement: input, logits and weight, float32, and the position in the request."""
    return 4 * (fields * dim + tasks + 1) + 8


def fetched(result: StreamResult, units: int) -> float:
    """Bytes per stage and worker that refinement fetches from the shards: the units in its proxies' batch orders, if none repeats."""
    student, refine = result.config.student, result.config.refine
    # The windows; the steps that the first proxies of the pool have done; the students of the guard, before and after.
    ages = [number * student.steps // refine.pool // refine.window * refine.window for number in range(refine.pool)]
    steps = [refine.window] * refine.rounds + ages + [student.steps] * (2 * len(refine.proxies))
    named = sum(min(units, n * student.batch_size) for n in steps)
    return named * unit_bytes(result.fields, result.config.reference.dim, result.tasks)


def moved(result: StreamResult, units: int) -> float:
    """Bytes per stage that the leader sends to the shards as gradients: the active units in the windows, if none repeats in a window."""
    student, refine = result.config.student, result.config.refine
    active, size = min(refine.active, units), student.batch_size
    # Where some units are not active, at least half of each batch is drawn from the active ones.
    chosen = size if active == units else max(round(size * active / units), (size + 1) // 2)
    named = min(active, refine.window * (chosen + (size - chosen) * active / units))
    # A gradient has no weight.
    return refine.rounds * named * (unit_bytes(result.fields, result.config.reference.dim, result.tasks) - 4)


def measured_influence(result: StreamResult) -> float:
    """Bytes per stage of addressing: a student and a gradient to each shard, and its units of largest absolute influence back."""
    refine, shards = result.config.refine, result.config.cluster.memory_shards
    addressings = -(-refine.rounds // refine.address_every)
    return addressings * shards * (2 * 4 * result.proxy_parameters + 12 * min(refine.active, result.grown[-1].units))


def network_rows(result: StreamResult) -> list[list[str]]:
    """Bytes per stage between a worker and the shards, by the model and as counted."""
    rows = []
    for name, stages in (("cap", result.cap), ("ratio", result.grown)):
        late = among(stages, LATE)
        units = late[-1].units
        for method, model in (
            ("take", fetched(result, units)),
            ("move", moved(result, units)),
            ("measure", measured_influence(result)),
        ):
            counted = fmean(stage.moved.get(method, 0) for stage in late)
            rows.append(
                [name, f"{units:,}", method, f"{model / 1e6:.2f}", f"{counted / 1e6:.2f}", f"{counted / model:.2f}"]
            )
    return rows


def foretold(result: StreamResult, fitted: slice = FITTED) -> list[list[str]]:
    """Seconds of each step in the last stages of both runs, measured and predicted by lines fitted on earlier stages of the growing run."""
    rows, sums = [], [0.0] * 4
    early = result.grown[fitted] or result.grown
    for step in STEPS:
        flat = median(stage.steps[step] for stage in early), 0.0
        a, b = stream.line(early, step) if step in WITH_UNITS else flat
        values = []
        for stages in (result.cap, result.grown):
            late = among(stages, LATE)
            values += [a + b * median(stage.units for stage in late), median(stage.steps[step] for stage in late)]
        sums = [total + value for total, value in zip(sums, values, strict=True)]
        rows.append(_against(step, values))
    return [*rows, _against("all", sums)]


def _against(name: str, values: list[float]) -> list[str]:
    def ratio(model: float, measured: float) -> str:
        return f"{measured / model:.2f}" if model >= 0.01 else ""

    return [
        name,
        *(f"{value:.3f}" for value in values[:2]),
        ratio(*values[:2]),
        *(f"{value:.3f}" for value in values[2:]),
        ratio(*values[2:]),
    ]


class Cluster(NamedTuple):
    """The assumptions of the extrapolation."""

    rows: float = 1e10
    """Per day."""
    blocks: int = 24
    """Per day."""
    gpus: int = 64
    """One Ray Train worker each."""
    cores: int = 1024
    """One scorer each; the cores are like those measured."""
    shards: int = 64
    """Shards of the memory."""
    units: float = 1e8
    """|M|, the cap of the memory."""
    ids: float = 1e8
    """Rows of the table."""
    batch: int = 65_536
    """Rows per step of the reference, over all workers."""
    flops: float = 1e13
    """FLOP per second that training achieves on a GPU."""
    network: float = 1e9
    """Bytes per second into and out of a worker."""
    latency: float = 1e-3
    """Minimum seconds of a collective operation, for any size."""
    disk: float = 1e9
    """Bytes per second that one process writes and hashes."""
    rounds_of_refinement: int = 30
    """Per block, where refinement is asked for."""


def extrapolated(scores: ScoringResult, result: StreamResult, on: Cluster) -> list[list[str]]:
    """Bytes and time of each step per day, on a cluster on which nobody has measured."""
    parts, dim, width = scores.parts, scores.dim, unit_bytes(scores.fields, scores.dim, 1)
    steps = on.rows / on.batch
    gradient = on.batch * scores.fields * (4 * dim + 8) + 2 * 4 * scores.parameters
    table = on.ids * 4 * dim
    row = scores.shard_bytes / scores.rows
    defaults = type(result.config)(log=Path("log"))
    student, refine = defaults.student, RefineConfig(rounds=on.rounds_of_refinement)
    named = refine.window * student.batch_size
    per_round = named * width + 2 * min(refine.active, refine.window * student.batch_size) * width
    align = stream.line(result.grown, "align")[1] * on.units / on.shards
    written = (scores.checkpoints + 2) * table
    scored = parts.read + parts.score + parts.sketch
    sketches = scores.sketch_bytes / scores.shard_rows * on.rows
    exchanged = refine.rounds * per_round
    owned = on.blocks * on.units * width / on.shards
    costs: list[tuple[str, str, float]] = [
        (
            "reference: every worker reads and decodes all rows",
            f"{row * on.rows * on.gpus / 1e12:.0f} TB",
            parts.read * on.rows,
        ),
        ("reference: arithmetic", "", 6 * scores.parameters * on.rows / on.gpus / on.flops),
        (
            f"reference: gradients of {steps:,.0f} steps",
            f"{gradient * steps / 1e12:.0f} TB per worker",
            steps * (gradient / on.network + on.latency),
        ),
        ("score: all scorers", f"{row * on.rows / 1e12:.1f} TB", scored * on.rows / on.cores),
        ("select: the leader merges sketches", f"up to {sketches / 1e12:.1f} TB", (parts.send + parts.merge) * on.rows),
        ("align: each shard's owner", f"{on.blocks * table / 1e9:.0f} GB per owner", on.blocks * align),
        (
            f"refine, where asked: network of {refine.rounds} rounds a block",
            f"{on.blocks * exchanged / 1e9:.0f} GB per worker",
            on.blocks * exchanged / on.network,
        ),
        (
            "commit: the leader writes and hashes",
            f"{on.blocks * written / 1e9:,.0f} GB",
            on.blocks * written / on.disk,
        ),
        ("commit: each shard's owner", f"{owned / 1e9:.0f} GB per owner", owned / on.disk),
    ]
    return [[step, moved, f"{seconds / 3600:.2f}", f"{seconds / 86400:.1%}"] for step, moved, seconds in costs]


def assumptions(on: Cluster, scores: ScoringResult) -> str:
    """The assumptions as text."""
    return (
        f"Assumptions: {on.rows:.0e} rows a day in {on.blocks} blocks; {on.gpus} GPUs with one worker each, on which training achieves "
        f"{on.flops / 1e12:.0f} TFLOP/s; {on.cores:,} cores like those measured, with one scorer each; {on.network / 1e9:.0f} GB/s into "
        f"and out of each worker and {1e3 * on.latency:.0f} ms per collective; one process writes and hashes {on.disk / 1e9:.0f} GB/s; a "
        f"memory of {on.units:.0e} units in {on.shards} shards; a table of {on.ids:.0e} ids; {on.batch:,} rows per step of "
        f"the reference. Rows, net and fields are those of the scoring benchmark (F = {scores.fields}, d = {scores.dim}, "
        f"{scores.parameters:,} parameters, K = {scores.checkpoints}); students and windows are the defaults."
    )


def stream_part(result: StreamResult) -> str:
    """The results of `stream.py`."""
    stages, config = len(result.cap), result.config
    lead = (
        f"{stages} blocks of {result.rows:,} rows, F = {result.fields}, d = {config.reference.dim}, {result.n_ids:,} ids, N = "
        f"{config.cluster.memory_shards}; T = {config.student.steps} steps of B = {config.student.batch_size}, "
        f"{config.refine.rounds} rounds with a window of {config.refine.window}. The first run has a cap of "
        f"{config.budget.cap:,} units, the second a ratio of {result.ratio:g}. {result.machine}."
    )
    ratios = markdown(["ratio", "found", "aim"], stream.ratios(result))
    return "\n\n".join([lead, ratios, markdown(*stream.steps_table(result))])


def model_part(result: StreamResult) -> str:
    """The model compared with the measurements: bytes, then seconds."""
    network = ["run", "units", "asked", "model, MB per stage", "counted", "counted / model"]
    seconds = ["step", "cap: model, s", "measured", "ratio", "ratio: model, s", "measured", "ratio"]
    return f"{markdown(network, network_rows(result))}\n\n{markdown(seconds, foretold(result))}"


def extrapolation_part(scores: ScoringResult, result: StreamResult) -> str:
    """The extrapolation to a day on a large cluster."""
    on = Cluster()
    table = markdown(["what", "bytes per day", "hours per day", "of the day"], extrapolated(scores, result, on))
    return f"{assumptions(on, scores)}\n\n{table}"


def document(text: str, results: Path = RESULTS) -> str:
    """The page with its parts, made from the figures, between the marks; without figures, a part says that."""
    scores = parsed(ScoringResult, results / "scoring.json")
    result = parsed(StreamResult, results / "stream.json")
    parts = {
        "scoring": scores and scoring_figures.document(scores),
        "stream": result and stream_part(result),
        "model": result and model_part(result),
        "extrapolation": scores and result and extrapolation_part(scores, result),
    }
    for name, part in parts.items():
        text = filled(text, name, COMMAND, part or NOT_YET)
    return text


if __name__ == "__main__":
    PAGE.write_text(document(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
