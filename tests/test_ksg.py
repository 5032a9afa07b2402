"""KSG: against its literal O(N²) twin and laws with known information."""

import math

import pytest
import reference
import torch

from mi_estimators.distributions import (
    AdditiveUniformNoise,
    Checkerboard,
    CorrelatedGaussian,
    Independent,
)
from mi_estimators.ksg import KSG


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
    ("law", "tolerance"),
    [
        (CorrelatedGaussian(1, 0.6), 0.0),
        (CorrelatedGaussian(1, 0.9), 0.0),
        (AdditiveUniformNoise(0.75), 0.02),  # edges of the support, hence the tolerances
        (Checkerboard(), 0.05),
        (Independent(1, 2, df=1), 0.02),
    ],
    ids=repr,
)
def test_known_laws(law, tolerance):
    terms = KSG(5).pointwise(*law.sample(4000, generator=seeded()))
    error = terms.std().item() / math.sqrt(len(terms))
    assert abs(terms.mean().item() - law.mutual_information()) < 4 * error + tolerance


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
    with pytest.raises(ValueError, match="k: expected at least 1 neighbour, received 0; try 3"):
        KSG(0)
