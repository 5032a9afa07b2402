"""KSG: against its literal O(N²) twin and laws with known information."""

import math
import statistics

import pytest
import reference
import torch

from mi_estimators.distributions import (
    AdditiveUniformNoise,
    Checkerboard,
    CorrelatedGaussian,
    Independent,
    MultiplicativeNoise,
)
from mi_estimators.ksg import KSG
from mi_estimators.preprocess import NormalScores


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (2, 1), (1, 3)])
def test_every_term_is_its_literal_twins(k, dim_x, dim_y):
    x = torch.randn(60, dim_x, generator=seeded(), dtype=torch.float64)
    y = x.sum(1, keepdim=True) + torch.randn(60, dim_y, generator=seeded(1), dtype=torch.float64)
    expected = reference.ksg(x.tolist(), y.tolist(), k)
    assert KSG(k).pointwise(x, y).tolist() == pytest.approx(expected, abs=1e-12)


def test_samples_on_a_grid_count_only_those_strictly_within():
    # Rounded columns: many samples are exactly as far in one column as the k-th neighbour.
    x, y = ((torch.randperm(40, generator=seeded(seed)) / 2).double()[:, None] for seed in (0, 1))
    expected = reference.ksg(x.tolist(), y.tolist(), 3)
    assert KSG(3).pointwise(x, y).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        CorrelatedGaussian(1, 0.6),
        CorrelatedGaussian(1, 0.9),
        CorrelatedGaussian(2, 0.5),
        AdditiveUniformNoise(0.75),  # edges of the support
        Checkerboard(),
        Independent(1, 2, df=1),
    ],
    ids=repr,
)
def test_known_laws(law):
    x, y = law.sample(4000, generator=seeded())
    estimate = KSG().estimate(NormalScores().fit(x)(x), NormalScores().fit(y)(y))
    assert abs(estimate.value - law.mutual_information()) < 3 * estimate.standard_error() < 0.12


def test_extrapolation_takes_away_what_edges_cost():
    law = Checkerboard(8)
    plain, extrapolated = [], []
    for seed in range(5):
        x, y = law.sample(2000, generator=seeded(seed))
        plain.append(KSG().pointwise(x, y).mean().item() - law.mutual_information())
        extrapolated.append(KSG().estimate(x, y).value - law.mutual_information())
    assert abs(statistics.mean(extrapolated)) < 0.05 < -statistics.mean(plain)


def test_the_estimate_is_twice_that_of_k_less_that_of_4k():
    x, y = CorrelatedGaussian(1, 0.5).sample(300, generator=seeded())
    near, far = (KSG(k).pointwise(x, y).mean().item() for k in (2, 8))
    assert KSG(2).estimate(x, y).value == pytest.approx(2 * near - far, abs=1e-12)


@pytest.mark.parametrize(
    ("law", "trend"), [(CorrelatedGaussian(2, 0.5), False), (MultiplicativeNoise(2), True)]
)
def test_four_dimensions_are_extrapolated_where_the_trend_is_clear(law, trend):
    x, y = law.sample(1000, generator=seeded())
    x, y = NormalScores().fit(x)(x), NormalScores().fit(y)(y)
    near, far = (KSG(k).pointwise(x, y).mean().item() for k in (3, 12))
    expected = 2 * near - far if trend else near
    assert KSG().estimate(x, y).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [200, 1000])
def test_the_standard_error_is_what_estimates_vary_by(n):
    # The terms alone would say 25 % too little: neighbours share what is pure chance.
    law = Checkerboard()
    made = [KSG().estimate(*law.sample(n, generator=seeded(seed))) for seed in range(60)]
    claimed = statistics.mean(part.standard_error() for part in made)
    spread = statistics.stdev(part.value for part in made)
    assert 0.8 < spread / claimed < 1.15  # the spread is itself known to 9 %


def test_an_estimate_is_the_same_whenever_it_is_made():
    x, y = CorrelatedGaussian(1, 0.5).sample(400, generator=seeded())
    first, second = (KSG().estimate(x, y) for _ in range(2))
    assert first.value == second.value
    assert torch.equal(first.influence, second.influence)


def test_an_estimate_needs_two_parts_with_all_neighbours():
    x, y = CorrelatedGaussian(1, 0.5).sample(26, generator=seeded())
    assert math.isfinite(KSG().estimate(x, y).value)
    with pytest.raises(ValueError, match="neighbours: expected at least 26 samples for k = 3, rec"):
        KSG().estimate(x[1:], y[1:])


def test_x_and_y_may_change_places():
    x, y = CorrelatedGaussian(1, 0.5).sample(200, generator=seeded())
    torch.testing.assert_close(KSG().pointwise(x, y), KSG().pointwise(y, x))


def test_terms_are_in_the_order_of_the_samples():
    x, y = CorrelatedGaussian(1, 0.5).sample(200, generator=seeded())
    order = torch.randperm(200, generator=seeded())
    torch.testing.assert_close(KSG().pointwise(x[order], y[order]), KSG().pointwise(x, y)[order])


def test_float32_samples_are_taken():
    x, y = CorrelatedGaussian(1, 0.5).sample(200, generator=seeded())
    terms = KSG().pointwise(x.float(), y.float())
    assert terms.dtype == torch.float64
    assert terms.mean().item() == pytest.approx(KSG().pointwise(x, y).mean().item(), abs=1e-3)


def test_copies_are_refused():
    x, y = CorrelatedGaussian(1, 0.5).sample(60, generator=seeded())
    x[:4], y[:4] = x[0], y[0]
    with pytest.raises(
        ValueError, match="received 4 whose 3 nearest neighbours are copies of them"
    ):
        KSG(3).pointwise(x, y)
    assert KSG(4).pointwise(x, y).isfinite().all()


@pytest.mark.parametrize(("n", "k"), [(3, 3), (1, 1), (2, 5)])
def test_fewer_samples_than_neighbours_are_refused(n, k):
    x = torch.randn(n, 1, generator=seeded())
    with pytest.raises(ValueError, match=f"x: expected more than k = {k} samples, received {n}"):
        KSG(k).pointwise(x, x)


def test_k_plus_1_samples_are_enough():
    x = torch.randn(4, 1, generator=seeded())
    assert KSG(3).pointwise(x, x).isfinite().all()


def test_no_neighbours_are_refused():
    with pytest.raises(
        ValueError, match="k: expected at least 1 neighbour, a whole number, received 0"
    ):
        KSG(0)
