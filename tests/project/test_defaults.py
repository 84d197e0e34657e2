"""A later release of a library must not change our results by a new default: docs/method.md, "Defaults of libraries".

Where a test fails after an update, look at what is new, decide, and then set it or add it here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diet_ray.config import StudentConfig
from diet_ray.judge.fidelity import measures
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.suggest import Suggest
from diet_ray.logs.ingestion.categories import stable_hash
from diet_ray.memory import run_folder
from diet_ray.seeds import numpy_generator
from diet_ray.settings import Metric, Settings
from diet_ray.storage.parquet_writing import write_parquet
from diet_ray.training import adam
from diet_ray.training.adam import net_adam, on_device, table_adam
from diet_ray.training.device import device_of

TABLE = pa.table({"n": [1, 2, 3], "text": ["a", "b", "a"]})


def parameters_of(kind: Any) -> set[str]:
    return set(inspect.signature(kind).parameters) - {"self", "args", "kwargs"}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[[], Any]], set[str]]:
    """The parameters of a function or class that a call leaves to its default."""

    def left(owner: Any, name: str, call: Callable[[], Any]) -> set[str]:
        original, seen = getattr(owner, name), []

        def recording(*values: Any, **named: Any) -> Any:
            seen.append(set(inspect.signature(original).bind(*values, **named).arguments))
            return original(*values, **named)

        monkeypatch.setattr(owner, name, recording)
        call()
        assert len(seen) == 1
        return parameters_of(original) - seen[0]

    return left


def test_every_setting_of_an_optimiser_is_given(given: Any) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    assert given(adam, "NetAdam", lambda: net_adam([weight])) == set()
    assert given(adam, "TableAdam", lambda: table_adam(weight, 0.1)) == set()


def test_adam_computes_a_step_in_the_way_that_fits_the_device() -> None:
    optimiser = net_adam([torch.nn.Parameter(torch.zeros(2))])
    ways = [(group["foreach"], group["fused"]) for group in optimiser.param_groups]
    on_device(optimiser, torch.device("cuda"))
    ways += [(group["foreach"], group["fused"]) for group in optimiser.param_groups]
    on_device(optimiser, torch.device("cpu"))
    ways += [(group["foreach"], group["fused"]) for group in optimiser.param_groups]
    assert ways == [(False, True), (True, False), (False, True)]


def test_products_on_a_gpu_are_not_rounded_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
        device_of(1, "float32")
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


NOT_OF_THE_BYTES = {  # they concern types that no table of ours has, places of files, or what is off by default
    "allow_truncated_timestamps",
    "bloom_filter_options",
    "coerce_timestamps",
    "column_encoding",
    "encryption_properties",
    "filesystem",
    "flavor",
    "sorting_columns",
    "use_deprecated_int96_timestamps",
    "use_content_defined_chunking",  # pyarrow 24 does not have it
}


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
def test_every_setting_of_a_parquet_file_is_given(given: Any, tmp_path: Path, compression: Any) -> None:
    left = given(pq, "write_table", lambda: write_parquet(TABLE, tmp_path / "t.parquet", compression=compression))
    assert left <= NOT_OF_THE_BYTES


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
def test_what_is_given_for_a_parquet_file_is_what_pyarrow_takes(tmp_path: Path, compression: Any) -> None:
    """The logs and exports that exist were written by pyarrow's defaults."""
    rows = np.arange(70_000)
    table = pa.table({"n": rows, "few": rows % 7, "text": [f"k{row % 999}" for row in rows]})
    write_parquet(table, tmp_path / "a.parquet", compression=compression)
    pq.write_table(table, tmp_path / "b.parquet", compression=compression)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_every_setting_of_a_memory_shard_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new setting of pyarrow changes the first set; a new default of one that we give changes nothing."""
    kind = pa.ipc.IpcWriteOptions
    assert {name for name in dir(kind) if not name.startswith("_")} == {
        "allow_64bit",
        "compression",
        "emit_dictionary_deltas",
        "metadata_version",
        "unify_dictionaries",
        "use_legacy_format",
        "use_threads",
    }
    monkeypatch.setattr(run_folder, "to_file", lambda units: TABLE)
    run_folder.write_units(tmp_path / "a.arrow", None)  # type: ignore[arg-type]
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), TABLE.schema, options=kind(compression="zstd")) as writer:
        writer.write_table(TABLE)
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_ranks_of_equal_values_are_their_mean(given: Any) -> None:
    values = np.array([[3.0, 1.0, 3.0]])
    assert given(measures, "rankdata", lambda: measures.ranked(values)) == set()
    assert measures.ranked(values).tolist() == [[2.5, 1.0, 2.5]]


def test_random_numbers_are_those_of_pcg64() -> None:
    assert numpy_generator(7).random(2).tolist() == [0.625095466604667, 0.8972138009695755]
    assert numpy_generator(7, 1).random(2).tolist() == np.random.Generator(np.random.PCG64((7, 1))).random(2).tolist()


def test_the_hash_of_a_category_is_what_it_was() -> None:
    """Ids of hashed fields are in logs, and blocks that are appended must get the same."""
    found = stable_hash(np.array(["a", "", "ü5", "x" * 40], dtype=object), "item")
    recorded = [512334862990647645, 7218028732886681715, 10475341518303392679, 7893616911417389299]
    assert found.tolist() == recorded


def test_json_is_what_it_was() -> None:
    class Some(Settings):
        values: list[Metric]
        text: str

    some = Some(values=[0.1, 1e-5, 1.0, 123456789.123, float("nan"), float("inf")], text='ü/"')
    assert some.model_dump_json() == '{"values":[0.1,0.00001,1.0,123456789.123,null,null],"text":"ü/\\""}'


# --- Ray Tune and Optuna

POOL = SweepConfig.model_validate(
    {
        "candidates": [
            {
                "name": "net",
                "arch": "dnn",
                "params": {"hidden": {"choice": [[4], [8], [16]]}, "dropout": {"uniform": [0, 0.5]}},
                "lr_scale": {"loguniform": [0.01, 10]},
                "embedding_dim": {"randint": [2, 9]},
                "samples": 16,
            }
        ]
    }
)


# hidden layers, dropout, rate, width
RECORDED_SEARCH: list[tuple[list[int], float, float, int]] = [
    ([16], 0.353643868, 2.2811513, 4),
    ([4], 0.141297263, 0.0354906681, 5),
    ([4], 0.316488614, 0.0488513189, 5),
    ([16], 0.0202664517, 0.90382072, 4),
    ([8], 0.338686302, 7.59460106, 5),
    ([16], 0.0376795575, 9.46575086, 3),
    ([8], 0.36641405, 0.0579207542, 7),
    ([4], 0.490635265, 3.28622772, 6),
    ([16], 0.0142321854, 0.280286719, 3),
    ([8], 0.100732365, 0.560357524, 5),
    ([16], 0.134882699, 1.47703332, 8),
    ([16], 0.0636615475, 1.42287299, 8),
    ([16], 0.203340172, 0.708697167, 4),
    ([16], 0.195266971, 0.993361137, 4),
    ([16], 0.174487972, 5.31392375, 4),
    ([16], 0.208003536, 0.656518247, 3),
]


def test_every_setting_of_asha_is_given(given: Any) -> None:
    from diet_ray.engine import deciders

    assert given(deciders, "ASHAScheduler", lambda: deciders.asha(StudentConfig())) == set()


def test_every_setting_of_tpe_is_given_that_is_not_deprecated(given: Any) -> None:
    optuna = pytest.importorskip("optuna")
    from diet_ray.judge.suggest import tpe_sampler

    assert given(optuna.samplers, "TPESampler", lambda: tpe_sampler(1)) == {
        "consider_endpoints",
        "consider_magic_clip",
        "consider_prior",
        "constraints_func",
        "gamma",
        "prior_weight",
        "warn_independent_sampling",
        "weights",
    }


def suggested(folder: Path) -> list[dict[str, Any]]:
    """What is tried in a search whose score is best at a dropout of 0.2 and a rate of 1."""
    from diet_ray.engine.deciders import optuna_search

    suggest = Suggest(POOL.candidates, 3, 1, folder / "suggested.json")
    search, tried = optuna_search(suggest, 3), []
    for number in range(len(suggest.order)):
        spec = search.suggest(f"trial-{number}")["work"]["spec"]
        score = -((spec["params"]["dropout"] - 0.2) ** 2) - np.log10(spec["lr_scale"]) ** 2 - spec["embedding_dim"] / 99
        search.on_trial_complete(f"trial-{number}", {"score": score, "training_iteration": 1})
        tried.append(spec)
    return tried


def test_a_search_tries_what_it_did(tmp_path: Path) -> None:
    """Recorded with Optuna 5.0.0; the first ten are random, the others depend on the scores."""
    pytest.importorskip("optuna")
    tried = suggested(tmp_path)
    shown = [
        [spec["params"]["hidden"], spec["params"]["dropout"], spec["lr_scale"], spec["embedding_dim"]] for spec in tried
    ]
    assert [[hidden, dim] for hidden, _, _, dim in shown] == [[hidden, dim] for hidden, _, _, dim in RECORDED_SEARCH]
    numbers = np.array([[dropout, rate] for _, dropout, rate, _ in shown])
    np.testing.assert_allclose(numbers, [[dropout, rate] for _, dropout, rate, _ in RECORDED_SEARCH], rtol=1e-6)
