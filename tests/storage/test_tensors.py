"""Tensors in files: written in pieces with the bytes of the library, and mapped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diet_ray.storage import tensors as module
from diet_ray.storage.tensors import KINDS, Pieces, load_tensors, save_tensors

SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\\\0', exclude_categories=("C",)), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(list(KINDS)), SHAPES), min_size=1, max_size=5), st.integers())
def test_the_bytes_are_those_of_the_library(
    tmp_path: Path, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    tensors = {name: (100 * torch.rand(shape, generator=generator)).to(kind) for name, (kind, shape) in shapes.items()}
    save_file(dict(sorted(tensors.items())), tmp_path / "library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", 64)
        save_tensors(tmp_path / "ours", dict(reversed(tensors.items())))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "library").read_bytes()


def test_a_tensor_of_pieces_and_views_is_written_as_the_whole(tmp_path: Path) -> None:
    whole = torch.arange(40.0).view(10, 4)
    save_tensors(tmp_path / "whole", {"a": whole, "b": whole.T.contiguous()})
    save_tensors(tmp_path / "parts", {"a": Pieces(whole.dtype, (10, 4), lambda: iter(whole.split(3))), "b": whole.T})
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_is_written_anew_from_what_is_mapped_from_it(tmp_path: Path) -> None:
    """As a stage does, which leaves out rows of the file that it wrote."""
    save_tensors(tmp_path / "a", {"a": torch.arange(100_000.0)})
    mapped = load_tensors(tmp_path / "a")["a"]
    save_tensors(tmp_path / "a", {"a": mapped[::2]})
    assert torch.equal(load_tensors(tmp_path / "a")["a"], torch.arange(0, 100_000.0, 2))
    assert torch.equal(mapped, torch.arange(100_000.0))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_the_only_element_of_a_view_is_written(tmp_path: Path) -> None:
    """numpy gives such a view the stride 0."""
    save_tensors(
        tmp_path / "a", {"a": torch.ones(1, dtype=torch.int32).expand(1), "b": torch.ones(1, 1).as_strided((1,), (0,))}
    )
    assert load_tensors(tmp_path / "a")["a"].tolist() == load_tensors(tmp_path / "a")["b"].tolist() == [1]
