import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import SelectConfig
from diet_ray.distill.el2n import MAX_EL2N
from diet_ray.distill.select import Scored, cell_quotas, choose, sketch
from diet_ray.errors import DietError
from diet_ray.judge.fidelity.coreset import Method, choose_by_features, grand, herding, k_center
from diet_ray.logs.blocks import Rows


def rows_of(n: int, tasks: int, rng: np.random.Generator) -> Rows:
    zeros = np.zeros(n, np.int64)
    labels = (rng.random((n, tasks)) < 0.35).astype(np.uint8)
    return Rows(rng.permutation(10 * n)[:n].astype(np.int64), zeros, zeros, np.zeros((n, 1), np.int32), labels)


def grand_by_loop(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One backward pass of the loss itself per row and task."""
    score = torch.empty(labels.shape)
    for row, task in itertools.product(range(len(x)), range(labels.shape[1])):
        own = x[row : row + 1].clone().requires_grad_()
        loss = binary_cross_entropy_with_logits(net(own)[0, task], labels[row, task].float())
        gradients = torch.autograd.grad(loss, [own, *net.parameters()], allow_unused=True)
        score[row, task] = sum(float(g.double().square().sum()) for g in gradients if g is not None) ** 0.5
    return score


@pytest.mark.parametrize("arch", ["lr", "fm", "dnn", "deepfm", "dcnv2", "autoint", "wukong"])
@pytest.mark.parametrize("tasks", [1, 2])
def test_grand_is_the_norm_of_each_rows_own_gradient(arch: str, tasks: int) -> None:
    net = build(CandidateSpec(name="one", arch=arch), ["a", "b", "c", "d"], 6, tasks, seed=1)
    rng = torch.Generator().manual_seed(2)
    x, labels = torch.randn(11, 4, 6, generator=rng), torch.randint(0, 2, (11, tasks), generator=rng)
    expected = grand_by_loop(net.eval(), x, labels)
    for chunk in (4, 11, 128):  # a rest, one chunk exactly, more than there are
        torch.testing.assert_close(grand(net, x, labels, chunk=chunk), expected, rtol=1e-5, atol=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_grand_of_a_linear_model_by_its_formula() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(6, 1, dtype=torch.float64), nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.drop(x.flatten(1)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net, x = Linear(), torch.randn(9, 2, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 0], dtype=torch.uint8)[:, None]
    error = torch.sigmoid(x.flatten(1) @ net.layer.weight[0] + net.layer.bias) - labels[:, 0]
    size = torch.sqrt(x.square().sum(dim=(1, 2)) + 1 + net.layer.weight.square().sum())
    torch.testing.assert_close(grand(net, x, labels)[:, 0], (error.abs() * size).detach())


def test_top_selection_takes_scores_beyond_those_of_el2n() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(60, 1, rng)
    score = rng.exponential(20 * MAX_EL2N, (60, 1)).astype(np.float32)
    conf = SelectConfig(strategy="top")
    got = choose(sketch(Scored(rows, score, score), conf, keep=10, seed=0), conf, n=10)
    expected: list[int] = []
    for label, quota in enumerate(cell_quotas(np.bincount(rows.labels[:, 0], minlength=2), 10)):
        members = np.flatnonzero(rows.labels[:, 0] == label)
        expected += rows.row_id[members[np.argsort(-score[members, 0])[:quota]]].tolist()
    assert got.rows.row_id.tolist() == sorted(expected)


def herding_direct(features: np.ndarray, n: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(min(n, len(features))):
        left = [i for i in range(len(features)) if i not in chosen]
        gap = [np.linalg.norm(features[[*chosen, i]].mean(axis=0) - features.mean(axis=0)) for i in left]
        chosen.append(left[int(np.argmin(np.round(gap, 9)))])  # equal but for rounding is a tie
    return chosen


def k_center_direct(features: np.ndarray, n: int, first: int) -> list[int]:
    chosen = [first][:n]
    while len(chosen) < min(n, len(features)):
        left = [i for i in range(len(features)) if i not in chosen]
        gap = [min(float(np.square(features[i] - features[j]).sum()) for j in chosen) for i in left]
        chosen.append(left[int(np.argmax(np.round(gap, 9)))])
    return chosen


def from_mean(features: np.ndarray, n: int) -> np.ndarray:
    return k_center(features, n, first=int(herding(features, 1)[0]))


def radius(features: np.ndarray, centres: list[int]) -> float:
    """The largest distance of any row to its nearest centre."""
    return float(np.linalg.norm(features[:, None] - features[centres], axis=2).min(axis=1).max())


@settings(deadline=None, max_examples=100)
@given(n_rows=st.integers(1, 14), width=st.integers(1, 4), seed=st.integers(0, 99), n=st.integers(0, 16))
def test_both_are_the_greedy_search_over_all_rows(n_rows: int, width: int, seed: int, n: int) -> None:
    features = np.random.default_rng(seed).normal(size=(n_rows, width))
    first = seed % n_rows
    for got, expected in (
        (herding(features, n), herding_direct(features, n)),
        (k_center(features, n, first=first), k_center_direct(features, n, first)),
    ):
        assert got.dtype == np.int64
        assert got.tolist() == expected


def test_herding_by_hand_with_ties_to_the_smaller_position() -> None:
    # Mean 4. Then 8 asks for the row nearest to 4, 12 less what is taken for the next, and so on; 2 and 6 tie at first.
    features = np.array([[9.0], [6.0], [2.0], [-1.0]])
    assert herding(features, 4).tolist() == [1, 2, 0, 3]
    assert herding(features[[0, 2, 1, 3]], 4).tolist() == [1, 2, 0, 3]


def test_k_center_by_hand_with_ties_to_the_smaller_position() -> None:
    features = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, -3.0], [0.0, 0.0], [1.0, 0.0]])
    assert k_center(features, 5, first=0).tolist() == [0, 1, 2, 4, 3]
    assert k_center(features, 5, first=3).tolist() == [3, 1, 2, 4, 0]


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_mirror_each_other_tie_although_their_distances_round_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middle, step = rng.normal(size=(2, 50))
    features = np.stack([middle - step, middle + step, middle])
    assert herding(features[:2], 2).tolist() == [0, 1]
    assert herding(features, 3).tolist() == [2, 0, 1]
    assert k_center(features, 3, first=2).tolist() == [2, 0, 1]
    assert k_center(features[[1, 0, 2]], 3, first=2).tolist() == [2, 0, 1]


@pytest.mark.parametrize("take", [herding, from_mean])
@pytest.mark.parametrize("n_rows", [1, 5, 1003])
def test_equal_rows_are_taken_in_order_wherever_they_stand(
    take: Callable[[np.ndarray, int], np.ndarray], n_rows: int
) -> None:
    rng = np.random.default_rng(n_rows)
    kind = rng.integers(0, 7, n_rows)
    features = rng.normal(size=(7, 37))[kind]  # no round numbers: distances round
    chosen = take(features, n_rows)
    assert sorted(chosen.tolist()) == list(range(n_rows))
    for one in range(7):
        own = chosen[kind[chosen] == one]
        assert own.tolist() == sorted(own.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_k_center_covers_within_twice_the_best_radius(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(12, 2))
    best = min(radius(features, list(centres)) for centres in itertools.combinations(range(12), 3))
    assert radius(features, k_center(features, 3, first=seed).tolist()) <= 2 * best


def test_herding_keeps_the_mean_where_random_rows_do_not() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(2000, 8))
    gap = [np.linalg.norm(features[rng.permutation(2000)[:50]].mean(axis=0) - features.mean(axis=0)) for _ in range(50)]
    assert np.linalg.norm(features[herding(features, 50)].mean(axis=0) - features.mean(axis=0)) < min(gap) / 4


def choose_direct(rows: Rows, features: np.ndarray, n: int, method: Method) -> list[int]:
    """Row ids, cell by cell, over rows in the order of their ids."""
    sizes = [int((rows.labels[:, t] == label).sum()) for t in range(rows.labels.shape[1]) for label in (0, 1)]
    taken: list[int] = []
    for cell, quota in enumerate(cell_quotas(np.array(sizes), n)):
        left = [i for i in np.argsort(rows.row_id) if rows.labels[i, cell // 2] == cell % 2]
        left = [i for i in left if rows.row_id[i] not in taken]
        if left:
            own = features[left]
            first = herding_direct(own, 1)[0]
            order = herding_direct(own, quota) if method == "herding" else k_center_direct(own, quota, first)
            taken += [int(rows.row_id[left[i]]) for i in order]
    return sorted(taken)


@settings(deadline=None, max_examples=60)
@given(
    n_rows=st.integers(1, 20),
    tasks=st.integers(1, 3),
    seed=st.integers(0, 99),
    n=st.integers(0, 22),
    method=st.sampled_from(["herding", "k_center"]),
)
def test_cells_are_served_in_order_by_their_quotas(n_rows: int, tasks: int, seed: int, n: int, method: Method) -> None:
    rng = np.random.default_rng(seed)
    rows, features = rows_of(n_rows, tasks, rng), rng.normal(size=(n_rows, 3))
    got = choose_by_features(rows, features, n, method)
    assert got.dtype == np.int64
    assert rows.row_id[got].tolist() == choose_direct(rows, features, n, method)  # rising ids, no row twice
    if tasks == 1:
        assert len(got) == min(n, n_rows)
        sizes = np.bincount(rows.labels[:, 0], minlength=2)
        assert np.array_equal(np.bincount(rows.labels[got, 0], minlength=2), cell_quotas(sizes, n))


@pytest.mark.parametrize("method", ["herding", "k_center"])
@pytest.mark.parametrize("kinds", [300, 6])  # every row its own input; many rows with equal inputs, so that ids decide
def test_the_order_of_the_rows_does_not_matter(method: Method, kinds: int) -> None:
    rng = np.random.default_rng(4)
    rows = rows_of(300, 2, rng)
    features = rng.normal(size=(kinds, 16))[np.arange(300) % kinds].astype(np.float32)
    expected = rows.row_id[choose_by_features(rows, features, 40, method)]
    assert len(expected) == 40
    for _ in range(3):
        shuffled = rng.permutation(300)
        got = choose_by_features(rows.take(shuffled), features[shuffled], 40, method)
        assert np.array_equal(rows.row_id[shuffled][got], expected)


def test_a_diverged_reference_is_named() -> None:
    rows = rows_of(5, 1, np.random.default_rng(0))
    with pytest.raises(DietError, match=r"reference\.lr"):
        choose_by_features(rows, np.full((5, 2), np.nan), 2, "k_center")
