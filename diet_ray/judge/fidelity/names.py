"""What training sets and starts are called for people: in the terminal, on pages and in the tables of the docs.

Results keep the machine's names, such as `random/soft/shared`. A set of rows or units that is used as a memory should be has a plain name:
labels partly drawn from the reference's probabilities, the reference's table, an adapter. A set that differs from that says in what.
"""

from __future__ import annotations

from diet_ray.judge.fidelity.config import Method
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS
from diet_ray.judge.fidelity.result import CEILING, SetResult

AGAIN = "full log again"
"""The noise ceiling: the full log with other seeds."""

ROWS = {
    "memory": "memory",
    "refined": "memory, refined",
    "random": "random rows",
    "top-el2n": "hardest rows (EL2N)",
    "ccs": "rows by coverage (CCS)",
    "grand": "rows by gradient (GraNd)",
    "herding": "rows by herding",
    "k-center": "rows by k-center",
    "last-block": "rows of the last block",
    "most-recent": "latest rows",
}
"""By the name of the selection."""

STARTS = {
    SAME_ROWS: "full log, same rows",
    OTHER_SEED: AGAIN,
    BLIND: "chance",
    "full": "full log",
    "memory": "memory",
    "refined": "memory, refined",
    "unaligned": "memory, old units as they were",
    "random": "random rows in its place",
    "scratch": "from scratch",
    "table": "reference's table alone",
    "recent": "latest rows, each once",
    "table+recent": "reference's table, latest rows",
}
"""By the name of a start, a ceiling or the chance line of the protocol `live`."""

_IN_ITS_PLACE = Method(rows="random", labels="drawn", embeddings="shared", adapter=True)


def method_name(method: Method) -> str:
    """The name of a method for people; different methods have different names."""
    if method.of_full_log:
        table = {"own": "", "shared": ", the reference's table"}[method.embeddings]
        return f"full log{table}" + (", adapter" if method.adapter else "")
    if method == _IN_ITS_PLACE:
        return f"{ROWS['random']} in its place"
    labels = {"drawn": "", "soft": ", soft labels", "hard": ", hard labels"}[method.labels]
    table = ", own table" if method.embeddings == "own" else "" if method.adapter else ", no adapter"
    return ROWS.get(method.rows, method.rows) + labels + table


def named(name: str) -> str:
    """The name for people of a set that is called `name` in a result: a method, with `@ SIZE` where the size is not the stream's own."""
    if name == CEILING:
        return AGAIN
    method, _, size = name.partition(" @ ")
    return method_name(Method.model_validate(method)) + (f" at {size.replace('%', chr(0xA0) + '%')}" if size else "")


def set_name(result_set: SetResult) -> str:
    """The name of a set for people."""
    return named(result_set.name)


def start_name(name: str) -> str:
    """The name for people of what is called `name` in a result of the protocol `live`."""
    return STARTS[name]
