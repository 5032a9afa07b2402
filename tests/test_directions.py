"""Curved forms: combinations of columns that depend on each other while no column shows it."""

import math

import pytest
import torch

from mi_estimators import estimate_mi
from mi_estimators.canonical import canonical_critic
from mi_estimators.directions import MOST, curved_forms
from mi_estimators.distributions import (
    CorrelatedGaussian,
    Embedded,
    GaussianMixture,
    Independent,
    StudentT,
)
from mi_estimators.preprocess import NormalScores
from mi_estimators.testing import check_critic
from mi_estimators.training import Budget


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(w, seed):
    """The columns as combinations of each other, and the direction in which each of them lies."""
    directions, _ = torch.linalg.qr(normal(w.shape[1], w.shape[1], seed=seed))
    return w @ directions.mT, directions


def hidden_square(n=6000, d=20, seed=0):
    """Two directions, not correlated, whose squares are: scales that go together."""
    u, v = normal(n, d, seed), normal(n, d, seed + 1)
    scale = (0.8 * normal(n, 1, seed + 2)).exp()
    u[:, :1] *= scale
    v[:, :1] *= scale
    (u, of_u), (v, of_v) = (turned(NormalScores().fit(w)(w), k) for k, w in ((10, u), (11, v)))
    return u, v, of_u[:, 0], of_v[:, 0]


def test_a_square_is_found_among_rotated_columns():
    u, v, of_u, of_v = hidden_square()
    (pair,) = curved_forms(u, v)
    for form, direction in ((pair.of_u, of_u), (pair.of_v, of_v)):
        assert form.basis.shape == (20, 1)
        assert (form.basis[:, 0].double() @ direction).abs() > 0.95
        assert form.slope.norm() == 0


def test_a_product_is_found_that_a_column_of_the_other_side_follows():
    """Exclusive or, among rotated columns: y has the sign of a product."""
    x = normal(6000, 12)
    y = (x[:, :1] * x[:, 1:2]).sign() + 0.5 * normal(6000, 1, seed=1)
    turned_x, directions = turned(x, 10)
    (pair,) = curved_forms(turned_x, y / y.std())
    spanned = directions[:, :2].mT @ pair.of_u.basis.double()
    assert torch.linalg.svdvals(spanned).min() > 0.95
    assert torch.linalg.det(pair.of_u.curvature) < 0  # a saddle
    assert pair.of_v.slope.abs() > 0.5


def test_the_correlation_is_that_of_other_samples_and_the_deviations_are_1():
    u, v, _, _ = hidden_square()
    (pair,) = curved_forms(u, v)
    other_u, other_v, _, _ = hidden_square(n=50_000, seed=100)
    f, g = pair.of_u(other_u.float()), pair.of_v(other_v.float())
    correlation = torch.corrcoef(torch.stack([f, g]))[0, 1].item()
    assert correlation == pytest.approx(pair.correlation, abs=0.15)
    assert pair.correlation > 0.3
    # They are fitted on the sphere, on which these samples are not.
    assert f.std().item() == pytest.approx(1, abs=0.2)
    assert g.std().item() == pytest.approx(1, abs=0.2)


def test_several_are_found_each_in_directions_of_its_own():
    x = normal(8000, 8)
    signs = (x[:, :2] * x[:, 2:4]).sign()
    y = signs + 0.5 * normal(8000, 2, seed=1)
    first, second = curved_forms(x, y / y.std(0))
    assert (first.of_u.basis.mT @ second.of_u.basis).abs().max() < 0.1
    assert first.correlation > 0.4
    assert second.correlation > 0.4


@pytest.mark.parametrize(
    "law",
    [
        Independent(10, 10, df=math.inf),
        Independent(3, 3, df=2),
        Embedded(CorrelatedGaussian(2, 0.0), 40, 40),
        StudentT(torch.eye(8).double(), 4, df=2),
    ],
    ids=lambda law: repr(law)[:30],
)
def test_nothing_is_found_where_there_is_nothing_but_a_common_radius(law):
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        u, v = (w / w.std(0) for w in law.sample(2000, generator=generator))
        assert curved_forms(u, v) == []


def test_single_columns_and_too_many_are_left_alone():
    square = normal(1000, 1)
    assert curved_forms(square, square**2) == []
    side = math.isqrt(2 * MOST)
    assert curved_forms(normal(200, side), normal(200, 2)) == []
    assert curved_forms(normal(200, 0), normal(200, 5)) == []


def test_nothing_global_is_drawn_from():
    u, v, _, _ = hidden_square(n=1000)
    before = torch.random.get_rng_state()
    first, again = curved_forms(u, v), curved_forms(u, v)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.of_u, b.of_u, strict=True))


# --- the critic -----------------------------------------------------------------------------------


def test_the_critic_sees_coordinates_and_values():
    """Of both sides, weighted by how much they correlate; and it remains a critic."""
    u, v, of_u, _ = hidden_square()
    critic = canonical_critic(u, v).float()
    forms = critic.f.forms
    assert forms.width == 2
    coordinate, value = forms(u.float()).unbind(1)
    along = torch.corrcoef(torch.stack([coordinate, (u @ of_u).float()]))[0, 1]
    assert along.abs() > 0.95
    curved = torch.corrcoef(torch.stack([value, coordinate**2]))[0, 1]
    assert curved.abs() > 0.999
    check_critic(critic, u[:20].float(), v[:20].float())


def test_information_that_no_column_shows_is_found():
    """A cross of two Gaussians of opposite correlation, hidden in thirty dimensions."""
    rising = torch.tensor([[1, 0.95], [0.95, 1]]).double()
    falling = 2 * torch.eye(2).double() - rising
    weights, means = torch.tensor([0.5, 0.5]).double(), torch.zeros(2, 2).double()
    cross = GaussianMixture(weights, means, torch.stack([rising, falling]), 1)
    law = Embedded(cross, 30, 30)
    x, y = law.sample(4000, generator=torch.Generator().manual_seed(0))
    result = estimate_mi(x, y, budget=Budget(folds=2, steps=150))
    truth = law.mutual_information()
    assert truth / 2 < result.value < truth + 3 * result.standard_error
