"""Calls one function for many small descriptions of work, on the whole cluster, with results in order: Ray Data without its readers.

A description becomes one Ray Data block and so one task. The unit of scheduling and retry is therefore chosen here, not guessed by a
reader that splits files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from diet_ray.engine.cluster import hush
from diet_ray.engine.failures import describe, restore
from diet_ray.errors import DietError, users_error


@dataclass(frozen=True)
class Pool:
    """Actors that divide the descriptions among themselves. Each builds its expensive objects once."""

    size: int
    """Number of actors."""
    num_cpus: float
    """Logical CPUs of each."""
    num_gpus: float = 0
    """GPUs of each."""


def fan_out(function: Callable[..., bytes], descriptions: Sequence[str], /, **shared: Any) -> Iterator[bytes]:
    """The `Mapper` of the cluster to which this process is connected: one Ray task per description.

    Args:
        function: importable on every worker. It may only write files that no other call writes, because a lost task runs again.
        descriptions: the work of each call, such as JSON that names a file.
        shared: arguments that are the same for all calls.

    Raises:
        DietError: the first one, in the order of `descriptions`, that a call raised.
    """
    return _fan_out(function, descriptions, None, shared)


def fan_out_to(
    pool: Pool, make: Callable[..., Callable[[str], bytes]], descriptions: Sequence[str], /, **shared: Any
) -> Iterator[bytes]:
    """`fan_out` over the actors of a pool. Each calls `make(**shared)` once, and calls the result for each of its descriptions."""
    return _fan_out(make, descriptions, pool, shared)


def _fan_out(
    function: Callable[..., Any], descriptions: Sequence[str], pool: Pool | None, shared: dict[str, Any]
) -> Iterator[bytes]:
    if not descriptions:
        return
    quiet()
    items = ray.data.from_items([{"description": text} for text in descriptions], override_num_blocks=len(descriptions))
    if pool is None:
        work = items.map_batches(partial(_call, call=partial(function, **shared)), batch_size=1, batch_format="pyarrow")
    else:
        work = items.map_batches(
            _Caller,
            fn_constructor_args=(partial(function, **shared),),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=pool.size),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
        )
    # Prefetch one batch, not none: Ray 2.60 always starts a thread for it, and stops the thread only if it had work.
    batches: Iterable[Any] = work.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for batch in batches:
        for result, failure in zip(batch["result"].to_pylist(), batch["failure"].to_pylist(), strict=True):
            if failure is not None:
                raise restore(failure)
            yield result


def quiet() -> DataContext:
    """Set Ray Data's context of this process for our pipelines: ordered results, no progress bars, no banners."""
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    hush(logging.WARNING, "ray.data")
    hush(logging.ERROR, "ray.data._internal.progress")  # it warns that the progress bars are off
    return context


class _Caller:
    """One actor of a pool. It builds its callable at the first call, so that an error there is returned as a result, too."""

    def __init__(self, make: Callable[[], Callable[[str], bytes]]) -> None:
        self.make = make
        self.call: Callable[[str], bytes] | None = None

    def __call__(self, batch: Any) -> pa.Table:
        def call(description: str) -> bytes:
            if self.call is None:
                self.call = self.make()
            return self.call(description)

        return _call(batch, call)


def _call(batch: Any, call: Callable[[str], bytes]) -> pa.Table:
    # A user's error is returned as a result. Raised, it would come back wrapped, with Ray's traceback in front of ours, and timing would
    # decide which of several bad files is named.
    results: list[bytes | None] = []
    failures: list[str | None] = []
    for description in batch["description"].to_pylist():
        try:
            results.append(call(description))
            failures.append(None)
        except (DietError, OSError) as error:
            known = users_error(error)
            if known is None:
                raise
            results.append(None)
            failures.append(describe(known))
    return pa.table({"result": pa.array(results, pa.binary()), "failure": pa.array(failures, pa.string())})
