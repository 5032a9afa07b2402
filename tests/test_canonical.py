"""Canonical coordinates: against laws that know theirs, and against what pure noise shows."""

import math

import pytest
import torch
from scipy.special import digamma

from mi_estimators.canonical import Canonical, canonical_critic, information_bias
from mi_estimators.distributions import CorrelatedGaussian, Gaussian
from mi_estimators.testing import check_critic


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n, *dims, seed=0):
    """Independent standard normal columns, one block for each of `dims`."""
    return torch.randn(n, sum(dims), generator=seeded(seed), dtype=torch.float64).split(dims, 1)


def random_gaussian(dim_x, dim_y, seed=0):
    a = torch.randn(dim_x + dim_y, dim_x + dim_y, generator=seeded(seed), dtype=torch.float64)
    return Gaussian(a @ a.mT / len(a) + 0.3 * torch.eye(len(a)).double(), dim_x)


def of_sample_covariance(x, y):
    """The Gaussian that has the samples' covariance (over n) as its own."""
    both = torch.cat([x, y], 1)
    return Gaussian(both.T.cov(correction=0), x.shape[1])


# --- the analysis ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (3, 2), (2, 5)])
def test_correlations_and_information_are_those_of_the_samples_covariance(dim_x, dim_y):
    x, y = random_gaussian(dim_x, dim_y).sample(200, generator=seeded())
    fitted, law = Canonical.fit(3 * x + 7, y - 2), of_sample_covariance(x, y)
    torch.testing.assert_close(fitted.correlations, law.correlations)
    assert fitted.information == pytest.approx(law.mutual_information(), abs=1e-12)


@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (3, 2), (2, 5)])
def test_coordinates_are_white_and_paired(dim_x, dim_y):
    x, y = random_gaussian(dim_x, dim_y).sample(200, generator=seeded())
    fitted = Canonical.fit(x + 5, y)
    u, v = fitted.x(x + 5), fitted.y(y)
    expected = torch.eye(dim_x + dim_y, dtype=torch.float64)
    for k, rho in enumerate(fitted.correlations):
        expected[k, dim_x + k] = expected[dim_x + k, k] = rho
    torch.testing.assert_close(torch.cat([u, v], 1).T.cov(correction=0), expected)
    assert torch.cat([u, v], 1).mean(0).abs().max() < 1e-12


def test_many_samples_show_the_laws_own_correlations():
    law = random_gaussian(3, 4)
    fitted = Canonical.fit(*law.sample(200_000, generator=seeded()))
    torch.testing.assert_close(fitted.correlations, law.correlations, atol=0.01, rtol=0)
    assert fitted.information == pytest.approx(law.mutual_information(), abs=0.01)


def test_new_rows_take_the_fitted_map():
    x, y = random_gaussian(3, 2).sample(200, generator=seeded())
    fitted = Canonical.fit(x, y)
    torch.testing.assert_close(
        fitted.x(x[:5, None] + 1), (x[:5, None] + 1 - x.mean(0)) @ fitted.map_x
    )
    torch.testing.assert_close(fitted.y(y[:5]), fitted.y(y)[:5])


def test_invertible_linear_maps_change_no_correlation():
    x, y = random_gaussian(3, 2).sample(200, generator=seeded())
    a = torch.tensor([[1.0, 100, 0], [0, 3, 1], [2, 0, 1e-3]]).double()
    plain, mapped = Canonical.fit(x, y), Canonical.fit(x @ a + 9, 1e4 * y)
    torch.testing.assert_close(mapped.correlations, plain.correlations, atol=1e-7, rtol=0)


def test_directions_in_which_nothing_varies_are_dropped():
    x, y = CorrelatedGaussian(2, 0.6).sample(300, generator=seeded())
    plain = Canonical.fit(x, y)
    doubled = torch.cat([x, x.sum(1, keepdim=True), torch.full((300, 1), 4.0)], 1)
    fitted = Canonical.fit(doubled, torch.cat([y, y], 1))
    assert fitted.map_x.shape == (4, 2)
    assert fitted.map_y.shape == (4, 2)
    torch.testing.assert_close(fitted.correlations, plain.correlations)
    torch.testing.assert_close(fitted.x(doubled).abs(), plain.x(x).abs())


def test_a_functional_relation_has_a_finite_information():
    x, _ = noise(100, 2, 1)
    fitted = Canonical.fit(x, x[:, :1])
    assert fitted.correlations.tolist() == [1 - 1e-6]
    assert math.isfinite(fitted.information)


def test_fewer_samples_than_dimensions_are_analysed():
    fitted = Canonical.fit(*noise(20, 30, 40))
    assert fitted.correlations.shape == (19,)
    assert math.isfinite(fitted.information)


@pytest.mark.parametrize("side", ["x", "y"])
def test_a_side_that_does_not_vary_has_one_coordinate_that_is_zero(side):
    samples = dict(zip("xy", noise(50, 2, 2), strict=True)) | {side: torch.ones(50, 2).double()}
    fitted = Canonical.fit(**samples)
    assert fitted.correlations.tolist() == [0]
    coordinates = getattr(fitted, side)(samples[side])
    assert coordinates.shape == (50, 1)
    assert not coordinates.any()


def test_columns_that_do_not_vary_leave_the_critic_finite():
    x, y = noise(200, 3, 2)
    x[:, 1] = 1.0
    assert canonical_critic(x, y)(x.float(), y.float()).isfinite().all()
    assert canonical_critic(x.sign(), y)(x.sign().float(), y.float()).isfinite().all()


def spiked(n, dim_x, dim_y, rho, seed=0):
    """Independent columns, but for the first ones, which correlate by rho."""
    x, y = noise(n, dim_x, dim_y, seed=seed)
    y[:, : len(rho)] = rho * x[:, : len(rho)] + (1 - rho**2).sqrt() * y[:, : len(rho)]
    return x, y


@pytest.mark.parametrize(("dim_x", "dim_y"), [(300, 300), (300, 20), (2, 400)])
def test_correlations_that_many_columns_inflate_are_corrected(dim_x, dim_y):
    rho, n = torch.tensor([0.9, 0.75]).double(), 3000
    found = []
    for seed in range(4):
        fitted = Canonical.fit(*spiked(n, dim_x, dim_y, rho, seed)).denoised(n)
        assert (fitted.correlations[:2] > rho + 0.005).all()
        corrected = fitted.corrected(n)
        assert not corrected.correlations[2:].any()
        found.append(corrected.correlations[:2])
    torch.testing.assert_close(torch.stack(found).mean(0), rho, atol=0.01, rtol=0)


def test_few_columns_have_nothing_to_correct():
    x, y = random_gaussian(3, 4).sample(100_000, generator=seeded())
    fitted = Canonical.fit(x, y)
    torch.testing.assert_close(
        fitted.corrected(len(x)).correlations, fitted.correlations, atol=1e-3, rtol=0
    )


def test_among_many_columns_coordinates_are_white_for_samples_to_come():
    rho = torch.tensor([0.9, 0.75]).double()
    x, y = spiked(6000, 150, 150, rho)
    fitted = Canonical.reproducible(x[:2000], y[:2000])
    assert (fitted.correlations > 0).sum() == 2
    u, v = fitted.x(x[2000:]), fitted.y(y[2000:])
    for w in (u, v):
        torch.testing.assert_close(w.std(0), torch.ones(150).double(), atol=0.15, rtol=0)
    along = (u[:, :2] * v[:, :2]).mean(0)
    torch.testing.assert_close(along, fitted.correlations[:2], atol=0.05, rtol=0)


def test_the_same_of_y_and_x():
    x, y = spiked(500, 4, 6, torch.tensor([0.9, 0.75]).double())
    fitted = Canonical.reproducible(x, y)
    swapped = fitted.swapped()
    assert torch.equal(swapped.x(y), fitted.y(y))
    assert torch.equal(swapped.y(x), fitted.x(x))
    # What is not paired correlates with nothing.
    alone = (y - swapped.mean_x) @ swapped.map_alone
    assert alone.shape == (500, 4)
    assert (alone.mT @ fitted.x(x) / 500).abs().max() < 0.2


# --- what noise shows -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim_x", "dim_y"), [(40, 1, 1), (50, 3, 5), (60, 10, 10)])
def test_information_bias_is_the_mean_over_repetitions(n, dim_x, dim_y):
    law = random_gaussian(dim_x, dim_y)  # whatever the correlations
    generator = seeded()
    for truth, sample in (
        (0.0, lambda: torch.randn(n, dim_x + dim_y, generator=generator).split([dim_x, dim_y], 1)),
        (law.mutual_information(), lambda: law.sample(n, generator=generator)),
    ):
        values = torch.tensor([Canonical.fit(*sample()).information - truth for _ in range(400)])
        error = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - information_bias(n, dim_x, dim_y)) < 4 * error


def test_information_bias_is_a_difference_of_digammas_in_one_dimension():
    # E log(1 - r²) of n independent pairs: 1 - r² is Beta((n - 2) / 2, 1 / 2).
    for n in (4, 10, 1000):
        expected = -0.5 * (digamma((n - 2) / 2) - digamma((n - 1) / 2))
        assert information_bias(n, 1, 1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (2, 7), (10, 10)])
def test_information_bias_is_the_product_of_dimensions_over_2n(dim_x, dim_y):
    first_order = dim_x * dim_y / 2e6
    assert information_bias(1_000_000, dim_x, dim_y) == pytest.approx(first_order, rel=1e-4)
    assert information_bias(1_000_000, dim_y, dim_x) == information_bias(1_000_000, dim_x, dim_y)


def test_information_bias_needs_more_samples_than_dimensions():
    assert information_bias(8, 3, 4) > 1
    with pytest.raises(ValueError, match=r"n: expected more than dim_x \+ dim_y = 7 samples, rec"):
        information_bias(7, 3, 4)


@pytest.mark.parametrize(
    ("n", "dim_x", "dim_y"),
    [(500, 1, 1), (500, 5, 5), (2000, 25, 25), (300, 100, 100), (300, 100, 2), (100, 60, 60)],
)
def test_noise_has_no_reproducible_correlations(n, dim_x, dim_y):
    seen = [
        Canonical.reproducible(*noise(n, dim_x, dim_y, seed=seed)).correlations.count_nonzero()
        for seed in range(10)
    ]
    assert sum(seen) <= 1  # in one of ten times at most


@pytest.mark.parametrize(
    ("n", "dim_x", "dim_y"),
    [(500, 1, 1), (500, 5, 5), (2000, 25, 25), (300, 50, 50), (300, 100, 2)],
)
def test_a_strong_correlation_is_kept_and_the_noise_beside_it_is_not(n, dim_x, dim_y):
    x, y = noise(n, dim_x, dim_y)
    y[:, 0] = 0.9 * x[:, 0] + math.sqrt(1 - 0.81) * y[:, 0]
    fitted = Canonical.reproducible(x, y)
    assert fitted.correlations.count_nonzero() == 1
    assert 0.6 < fitted.correlations[0] < 0.97


def test_correlations_are_measured_on_other_samples_where_noise_is_strong():
    x, y = noise(200, 40, 40)  # 4 nats of noise
    y[:, 0] = 0.95 * x[:, 0] + math.sqrt(1 - 0.95**2) * y[:, 0]
    fitted, of_training = Canonical.reproducible(x, y), Canonical.fit(x[:150], y[:150])
    u = of_training.x(x[150:])
    torch.testing.assert_close(fitted.map_x * u.square().mean(0).sqrt(), of_training.map_x)
    u, v = u[:, 0], of_training.y(y[150:])[:, 0]
    expected = (u @ v) / (u.norm() * v.norm())
    torch.testing.assert_close(fitted.correlations[0], expected)
    assert fitted.correlations[0] < of_training.correlations[0]


def test_where_noise_is_weak_all_samples_are_analysed():
    x, y = CorrelatedGaussian(3, 0.7).sample(1000, generator=seeded())
    fitted, plain = Canonical.reproducible(x, y), Canonical.fit(x, y)
    for name in ("mean_x", "map_x", "mean_y", "map_y", "correlations"):
        torch.testing.assert_close(getattr(fitted, name), getattr(plain, name))


@pytest.mark.parametrize(("n", "dim_x", "dim_y"), [(100, 1, 1), (1000, 100, 100), (900, 300, 300)])
def test_the_edge_is_wachters(n, dim_x, dim_y):
    a, b = dim_x / n, dim_y / n
    edge = math.sqrt(a * (1 - b)) + math.sqrt(b * (1 - a)) + 1 / math.sqrt(n)
    zeros_x, zeros_y = torch.zeros(dim_x).double(), torch.zeros(dim_y).double()
    rho = torch.tensor([edge + 1e-6, edge - 1e-6]).double()
    found = Canonical(zeros_x, torch.eye(dim_x).double(), zeros_y, torch.eye(dim_y).double(), rho)
    assert found.denoised(n).correlations.tolist() == [rho[0], 0]


# --- the critic -----------------------------------------------------------------------------------


def critic_of(x, y, **options):
    return canonical_critic(x, y, **options)


def test_the_critic_starts_at_0_and_can_learn():
    x, y = random_gaussian(4, 3).sample(100, generator=seeded())
    critic = critic_of(x, y)
    x, y = x.float(), y.float()
    assert critic(x, y).tolist() == [0.0] * 100
    assert critic.encode_x(x).abs().max() > 0  # else no gradient would reach g
    assert critic.encode_y(y).abs().max() == 0
    critic(x, y).sum().backward()
    assert any(bool(parameter.grad.any()) for parameter in critic.g.parameters())


@pytest.mark.parametrize("law", [random_gaussian(4, 3), CorrelatedGaussian(2, 0.0)], ids=repr)
def test_the_critic_conforms(law):
    x, y = law.sample(100, generator=seeded())
    critic = critic_of(x, y, hidden=8, layers=1, embedding=5)
    check_critic(critic, x[:8].float(), y[:8].float())


def test_units_are_no_reason_to_drop_a_column():
    x, y = CorrelatedGaussian(3, 0.6).sample(500, generator=torch.Generator().manual_seed(0))
    units = torch.tensor([1.0, 1e-7, 1e6]).double()
    expected = Canonical.fit(x, y).correlations
    torch.testing.assert_close(Canonical.fit(x * units, y).correlations, expected)


def test_more_columns_than_samples_cannot_be_corrected():
    x, y = torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(ValueError, match="n: expected more samples than columns, received 20"):
        Canonical.fit(x, y).corrected(20)
