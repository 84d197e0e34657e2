"""One function over many small descriptions of work, on the whole cluster, results in order: Ray Data without its reader.

A description becomes one Ray Data block and so one task: the unit of scheduling and retry is chosen here, not by a reader's guess of
how files split.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext

from diet_ray.errors import BadInputError


def fan_out(function: Callable[..., bytes], descriptions: Sequence[str], **shared: Any) -> Iterator[bytes]:
    """Yield `function(description, **shared)` for each description, in order, computed by Ray tasks.

    Args:
        function: importable on every worker; has no effect but on files that it alone writes, because a lost task runs again.
        descriptions: what each call is to do, such as JSON naming a file.
        shared: arguments that are the same for all calls.

    Raises:
        BadInputError: the first one, in the order of `descriptions`, that a call raised.
    """
    if not descriptions:
        return
    quiet()
    items = ray.data.from_items([{"description": text} for text in descriptions], override_num_blocks=len(descriptions))
    call = partial(_call, function=function, shared=shared)
    work = items.map_batches(call, batch_size=1, batch_format="pyarrow")
    batches: Iterable[Any] = work.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        for result, failure in zip(batch["result"].to_pylist(), batch["failure"].to_pylist(), strict=True):
            if failure is not None:
                file, problem, column, remedy = json.loads(failure)
                raise BadInputError(file, problem, column=column, remedy=remedy)
            yield result


def quiet() -> DataContext:
    """Set Ray Data's context of this process for our pipelines: ordered results, no bars of its own, no banners."""
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that the bars are off
    return context


def _call(batch: Any, function: Callable[..., bytes], shared: dict[str, Any]) -> pa.Table:
    # Bad input travels as a result: as an exception it would come back wrapped, with Ray's traceback logged in front of ours, and
    # which of several bad files is named would depend on timing.
    results: list[bytes | None] = []
    failures: list[str | None] = []
    for description in batch["description"].to_pylist():
        try:
            results.append(function(description, **shared))
            failures.append(None)
        except BadInputError as error:
            results.append(None)
            failures.append(json.dumps([error.file, error.problem, error.column, error.remedy]))
    return pa.table({"result": pa.array(results, pa.binary()), "failure": pa.array(failures, pa.string())})
