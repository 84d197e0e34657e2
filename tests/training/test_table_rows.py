"""The rows of a table that batches use: against torch's own lookup, its sparse gradients and its Adams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from diet_ray.training.adam import net_adam, table_adam
from diet_ray.training.embedding import lookup
from diet_ray.training.table_rows import TableRows, rows_of_batches

CPU, N_IDS, DIM = torch.device("cpu"), 40, 3
FIELDS = {"one value each": np.arange(5), "several values": np.array([0, 1, 1, 1, 2])}


def drawn_batches(slots: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Ids with repetitions, padding and some that the table does not have."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, N_IDS + 3, (size, len(slots))).astype(np.int32) for size in sizes]


def table() -> torch.Tensor:
    values = torch.randn(N_IDS, DIM, generator=torch.Generator().manual_seed(1))
    values[0] = 0
    return values


@pytest.mark.parametrize("slots", FIELDS.values(), ids=FIELDS)
def test_inputs_and_gradients_are_those_of_torch(slots: np.ndarray) -> None:
    batches, of_slot = drawn_batches(slots, [7, 1, 0, 30]), torch.tensor(slots)
    for batch, used in zip(batches, rows_of_batches(batches, slots, N_IDS, CPU), strict=True):
        weight = table().requires_grad_()
        x = lookup(weight, torch.tensor(batch), of_slot)
        assert torch.equal(used.embed(table()[used.rows], of_slot), x)
        by_x = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        (expected,) = torch.autograd.grad(x, weight, by_x)
        gradient = used.gradient(by_x, of_slot)
        assert torch.equal(used.rows, used.rows.unique())
        torch.testing.assert_close(torch.zeros(N_IDS, DIM).index_copy_(0, used.rows, gradient), expected)
        assert not gradient[: int(used.padded)].any()


def plainly(used: TableRows, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of the table as a sparse tensor; padding has none."""
    rows, values = used.rows[int(used.padded) :], gradient[int(used.padded) :]
    return torch.sparse_coo_tensor(rows[None], values, (N_IDS, DIM), check_invariants=False)


def test_a_table_moves_as_by_torchs_sparse_adam() -> None:
    slots = FIELDS["several values"]
    batches, of_slot = drawn_batches(slots, [4] * 60), torch.tensor(slots)
    mine, its = nn.Parameter(table()), nn.Parameter(table())
    ours, torchs = table_adam(mine, 0.05), torch.optim.SparseAdam([its], lr=0.05)
    for step, used in enumerate(rows_of_batches(batches, slots, N_IDS, CPU)):
        by_x = torch.randn((4, 3, DIM), generator=torch.Generator().manual_seed(step))
        gradient = used.gradient(by_x, of_slot)
        ours.learn(used.rows, mine.detach()[used.rows], gradient)
        its.grad = plainly(used, gradient)
        torchs.step()
    torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
    assert ours.state[mine]["step"] == torchs.state[its]["step"] == 60
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(ours.state[mine][name], torchs.state[its][name], rtol=1e-5, atol=1e-7)
    assert not mine[0].any()


def test_a_net_moves_as_by_torchs_adam() -> None:
    """Parameters in two groups, of which one is frozen and one is at times without a gradient."""

    def parameters() -> list[nn.Parameter]:
        rng = torch.Generator().manual_seed(3)
        return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((4, 9), (9,), (3, 3), (2,))]

    mine, its = parameters(), parameters()
    for one in (mine[2], its[2]):
        one.requires_grad_(False)
    ours = net_adam([{"params": mine[:2], "lr": 0.05}, {"params": mine[2:], "lr": 0.01}])
    torchs = torch.optim.Adam([{"params": its[:2], "lr": 0.05}, {"params": its[2:], "lr": 0.01}], foreach=False)
    for step in range(60):
        rng = torch.Generator().manual_seed(step)
        gradients = [torch.randn(one.shape, generator=rng) if one is not its[1] or step % 3 else None for one in its]
        for one, gradient in zip(its, gradients, strict=True):
            one.grad = gradient if one.requires_grad else None
        torchs.step()
        ours.learn([gradient for one, gradient in zip(mine, gradients, strict=True) if one.requires_grad])
    for one, other in zip(mine, its, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        if one.requires_grad:
            assert float(ours.state[one]["step"]) == float(torchs.state[other]["step"])
            torch.testing.assert_close(
                ours.state[one]["exp_avg_sq"], torchs.state[other]["exp_avg_sq"], rtol=1e-5, atol=1e-7
            )
