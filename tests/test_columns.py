"""Curved pairs of columns, and the perceptrons that learn them."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from mi_estimators.canonical import canonical_critic
from mi_estimators.columns import (
    DEGREE,
    MOST,
    ColumnPerceptrons,
    _legendre,
    _of_gaussians,
    curved_pairs,
)
from mi_estimators.distributions import CorrelatedGaussian, MultiplicativeNoise
from mi_estimators.testing import check_critic


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


# --- the search -----------------------------------------------------------------------------------


def test_what_gaussians_correlate_by_is_what_their_samples_show():
    rho = torch.tensor([[-0.9, 0.0], [0.3, 0.8]])
    z, noise = normal(400_000, 2)[:, :, None].unbind(1)
    for r, expected in zip(rho.flatten(), _of_gaussians(rho).flatten(0, 1), strict=True):
        w = r * z + (1 - r**2).sqrt() * noise
        f, g = (_legendre(torch.special.ndtr(v))[:, 0, 1:] for v in (z, w))
        products = f[:, :, None] * g[:, None]
        error = products.std(0) / len(z) ** 0.5
        assert ((products.mean(0) - expected).abs() < 5 * error).all()


def test_the_polynomials_are_orthonormal_over_uniform_quantiles():
    points, weights = np.polynomial.legendre.leggauss(20)
    legendre = _legendre(torch.from_numpy((points + 1) / 2))
    gram = torch.einsum("na,nb,n->ab", legendre, legendre, torch.from_numpy(weights / 2))
    torch.testing.assert_close(gram, torch.eye(DEGREE + 1, dtype=torch.float64))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_gaussians_have_no_curved_pairs(rho):
    law = CorrelatedGaussian(10, rho)
    found = [curved_pairs(*law.sample(2000, generator=seeded(seed))) for seed in range(10)]
    assert sum(map(bool, found)) <= 1


def test_pairs_that_multiply_are_found_wherever_they_are_the_strongest_first():
    x, noise = normal(2000, 4), normal(2000, 3, seed=1)
    y = noise.clone()
    y[:, 2] = x[:, 1] * noise[:, 2]
    y[:, 0] = x[:, 3].square() + noise[:, 0]
    y /= y.std(0)
    assert curved_pairs(x, y) == [(3, 0), (1, 2)]
    assert curved_pairs(y, x) == [(0, 3), (2, 1)]


def test_labels_and_columns_that_do_not_vary_are_left_alone():
    x = normal(1000, 1)
    columns = torch.cat([x.sign(), x.round().clamp(-1, 1), torch.ones_like(x), x.abs()], 1)
    assert curved_pairs(x, columns) == [(0, 3)]
    assert curved_pairs(columns, x) == [(3, 0)]


def test_at_most_so_many_pairs_are_found():
    x = normal(1000, MOST + 8)
    assert len(curved_pairs(x, x.square() / 2)) == MOST


def test_each_column_is_in_one_pair():
    x, noise = normal(2000, 2), normal(2000, 2, seed=1)
    y = torch.stack([x[:, 0].square() + 0.3 * x[:, 1].square(), x[:, 1].square()], 1) + noise
    assert sorted(curved_pairs(x, y / y.std(0))) == [(0, 0), (1, 1)]


def test_few_rows_of_many_columns_are_searched(monkeypatch):
    monkeypatch.setattr("mi_estimators.columns.PRODUCTS", 500)
    x, y = MultiplicativeNoise(1).sample(2000, generator=seeded())
    y[500:] = normal(1500, 1)
    assert curved_pairs(x, y) == [(0, 0)]
    assert curved_pairs(x.flip(0), y.flip(0)) == []


# --- the perceptrons ------------------------------------------------------------------------------


def test_each_column_has_a_perceptron_of_its_own():
    module = ColumnPerceptrons([2, 0, 2], hidden=5, embedding=4)
    samples = normal(6, 3).float()
    found = module(samples).unflatten(-1, (3, 4))
    for k, column in enumerate([2, 0, 2]):
        lines = samples[:, column, None] * module.slopes[k] + module.offsets[k]
        bent = lines.relu() @ module.hidden[k] + module.biases[k]
        torch.testing.assert_close(found[:, k], bent.relu() @ module.outputs[k])
    assert not torch.equal(found[:, 0], found[:, 2])
    torch.testing.assert_close(module(samples.reshape(2, 3, 3)), module(samples).reshape(2, 3, 12))


def test_kinks_lie_where_the_samples_do():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ColumnPerceptrons([0, 0], hidden=5000)
    kinks = -module.offsets / module.slopes
    assert kinks.mean().item() == pytest.approx(0, abs=0.05)
    assert kinks.std().item() == pytest.approx(1, abs=0.05)


def test_a_critic_of_curved_pairs_starts_at_0_and_can_learn():
    x, y = MultiplicativeNoise(3).sample(1000, generator=seeded())
    x, y = (torch.from_numpy(ndtr(w.numpy())).sub(0.5).mul(3) for w in (x, y))
    assert curved_pairs(x, y)
    critic = canonical_critic(x, y, hidden=8, layers=1, embedding=5)
    x, y = x.float(), y.float()
    assert critic(x, y).tolist() == [0.0] * 1000
    critic(x, y).sum().backward()
    of_pairs = critic.g.embeddings[1]
    assert of_pairs.outputs.grad.abs().max() > 0
    check_critic(critic, x[:8], y[:8])
