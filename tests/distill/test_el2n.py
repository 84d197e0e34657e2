import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.distill.el2n import MAX_EL2N, el2n, mean_probability, to_logit


@settings(deadline=None)
@given(k=st.integers(1, 4), n=st.integers(1, 6), t=st.integers(1, 3), seed=st.integers(0, 99))
def test_el2n_is_the_mean_norm_of_the_error_vector(k: int, n: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.random((k, n, t)).astype(np.float32), rng.integers(0, 2, (n, t)).astype(np.uint8)
    error = np.stack([p - y, (1 - p) - (1 - y)])  # of both classes
    expected = np.linalg.norm(error, axis=0).mean(axis=0)
    got = el2n(torch.tensor(p), torch.tensor(y))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(mean_probability(torch.tensor(p)).numpy(), p.mean(axis=0), atol=1e-6)


def test_el2n_ends() -> None:
    p = torch.tensor([[[0.0], [1.0], [0.0], [1.0]]])
    y = torch.tensor([[0], [1], [1], [0]], dtype=torch.uint8)
    assert torch.equal(el2n(p, y).flatten(), torch.tensor([0.0, 0.0, MAX_EL2N, MAX_EL2N]))


def test_to_logit_inverts_the_sigmoid_and_is_finite() -> None:
    p = torch.tensor([0.0, 1e-4, 0.3, 0.5, 0.999, 1.0])
    z = to_logit(p)
    assert bool(torch.isfinite(z).all())
    assert torch.allclose(torch.sigmoid(z), p, atol=2e-6)
    assert bool((z.diff() > 0).all())
