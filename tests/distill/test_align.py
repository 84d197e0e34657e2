from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from diet_ray.distill.align import RIDGE, align, field_maps, moments
from diet_ray.memory.units import Units
from tests.memory.test_units import make

SLOTS = np.arange(4)
UNITS = make(400)


def old_table(seed: int = 0) -> Tensor:
    table = torch.randn(200, 3, generator=torch.Generator().manual_seed(seed))
    table[0] = 0
    return table


def moved(units: Units, new: Tensor, method: Any, *, relabel: float = 0.0) -> Units:
    index = torch.tensor(units.ids)
    before, after = old_table()[index], new[index]
    maps = None if method == "reembed" else fitted(before, after, method)
    return align(units, before, after, maps, lambda x: x.sum(dim=(1, 2))[:, None].expand(-1, 2), relabel)


def fitted(old: Tensor, new: Tensor, method: str) -> Tensor:
    """The maps from moments of two unequal parts, as of two shards."""
    third = len(old) // 3
    return field_maps(moments(old[:third], new[:third]) + moments(old[third:], new[third:]), method)


def planted(orthogonal: bool) -> tuple[Tensor, Tensor]:
    """A map per field, and the table in which every id's vector has been mapped by its field's."""
    maps = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(9))
    if orthogonal:
        maps = torch.linalg.qr(maps)[0]
    new = old_table().clone()
    for field in range(4):
        ids = np.unique(UNITS.ids[:, field])
        new[ids] = old_table()[ids] @ maps[field]
    return maps, new


def test_reembed_keeps_delta_and_reads_the_new_table() -> None:
    new = old_table(1)
    out = moved(UNITS, new, "reembed")
    assert np.array_equal(out.delta, UNITS.delta)
    assert torch.equal(out.inputs(new, SLOTS), new[torch.tensor(UNITS.ids)] + torch.tensor(UNITS.delta))


def test_none_keeps_the_input() -> None:
    new = old_table(1)
    out = moved(UNITS, new, "none")
    assert torch.allclose(out.inputs(new, SLOTS), UNITS.inputs(old_table(), SLOTS), atol=1e-6)
    assert not np.allclose(out.delta, UNITS.delta)


@pytest.mark.parametrize(("method", "orthogonal", "tolerance"), [("ridge", False, 0.02), ("procrustes", True, 1e-5)])
def test_a_planted_map_is_recovered_and_moves_the_whole_input(method: str, orthogonal: bool, tolerance: float) -> None:
    maps, new = planted(orthogonal)
    index = torch.tensor(UNITS.ids)
    assert torch.allclose(fitted(old_table()[index], new[index], method), maps, atol=tolerance)
    expected = torch.einsum("mfd,fde->mfe", UNITS.inputs(old_table(), SLOTS), maps)
    assert torch.allclose(moved(UNITS, new, method).inputs(new, SLOTS), expected, atol=10 * tolerance)


def test_maps_against_numpy_and_scipy() -> None:
    rng = torch.Generator().manual_seed(2)
    old, new = (torch.randn(50, 4, 3, generator=rng) for _ in range(2))
    ridge, rotation = fitted(old, new, "ridge"), fitted(old, new, "procrustes")
    for field in range(4):
        a, b = old[:, field].double().numpy(), new[:, field].double().numpy()
        penalty = RIDGE * np.mean(a**2) * len(a)
        # Shrinking toward the identity: ridge on A - I, as rows appended to the least squares problem.
        root = np.sqrt(penalty) * np.eye(3)
        expected = np.linalg.lstsq(np.vstack([a, root]), np.vstack([b, root]), rcond=None)[0]
        np.testing.assert_allclose(ridge[field].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(rotation[field].numpy(), orthogonal_procrustes(a, b)[0], atol=1e-5)


@pytest.mark.parametrize("method", ["ridge", "procrustes", "none"])
def test_a_field_without_embeddings_stays_finite(method: str) -> None:
    zeros = torch.zeros(5, 2, 3)
    assert torch.allclose(field_maps(moments(zeros, zeros), method), torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("method", ["reembed", "ridge", "procrustes", "none"])
@pytest.mark.parametrize("g", [0.0, 0.25, 1.0])
def test_relabel_mixes_old_and_new_logits(method: str, g: float) -> None:
    new = old_table(1)
    out = moved(UNITS, new, method, relabel=g)
    told = out.inputs(new, SLOTS).sum(dim=(1, 2)).numpy()[:, None]
    np.testing.assert_allclose(out.logit, (1 - g) * UNITS.logit + g * told, rtol=1e-4, atol=1e-4)
    for name in ("unit_id", "ids", "weight", "block", "label", "influence"):
        assert np.array_equal(getattr(out, name), getattr(UNITS, name))
