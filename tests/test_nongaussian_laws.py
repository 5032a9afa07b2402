"""The non-Gaussian laws against densities and integrals that share no code with them."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from mi_estimators.distributions import (
    Checkerboard,
    CorrelatedGaussian,
    DiscreteTable,
    Embedded,
    Gaussian,
    GaussianMixture,
    Independent,
    IntegerPlusUniform,
    LabelledGaussians,
    MultiplicativeNoise,
    NoisyCircles,
    Product,
    Xor,
    ZeroInflatedPoisson,
)
from mi_estimators.distributions.quadrature import gauss_legendre, quasi_monte_carlo, trapezoid
from mi_estimators.distributions.rotation import random_rotation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def numpy_pairs(law, n, seed=0):
    return tuple(value.numpy() for value in law.sample(n, generator=seeded(seed)))


# Exclusive-or ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "dim_x"), [(0.3, 2), (0.7, 3), (4.0, 1)])
def test_xor_equals_scipy_densities_and_their_integral(sigma, dim_x):
    def joint(y, sign):
        return stats.norm.pdf(y, sign, sigma)

    def margin(y):
        return (joint(y, 1) + joint(y, -1)) / 2

    law = Xor(sigma, dim_x)
    x, y = numpy_pairs(law, 50)
    expected = np.log(joint(y[:, 0], np.sign(x).prod(-1)) / margin(y[:, 0]))
    np.testing.assert_allclose(law.log_ratio(*map(torch.tensor, (x, y))), expected, atol=1e-11)
    information = integrate.quad(
        lambda y: joint(y, 1) * math.log(joint(y, 1) / margin(y)),
        1 - 9 * sigma,
        1 + 9 * sigma,
        points=[0, 1],
        epsabs=1e-12,
    )[0]
    assert law.mutual_information() == pytest.approx(information, abs=1e-9)


@pytest.mark.parametrize("law", [Xor(0.2, 3), GaussianMixture.xor(0.2, 3)], ids=repr)
def test_xor_shows_in_all_coordinates_together_and_in_no_fewer(law):
    n = 40_000
    x, y = (value.sign() for value in law.sample(n, generator=seeded()))
    for size in (1, 2, 3):
        for columns in itertools.combinations(range(3), size):
            agreement = (x[:, columns].prod(-1) * y[:, 0]).mean().item()
            if size < 3:
                assert abs(agreement) < 4 / math.sqrt(n)
            else:
                assert agreement > 0.99
    x, y = law.sample(n, generator=seeded())
    assert torch.cat([x, y], -1).mT.corrcoef()[:3, 3].abs().max() < 4 / math.sqrt(n)


# Mixtures -------------------------------------------------------------------------------------


def test_xor_mixture_information_equals_a_brute_force_grid():
    sigma, step = 0.6, 0.12
    axis = np.arange(-6, 6, step)
    signs = [np.array([a, b, a * b]) for a in (-1, 1) for b in (-1, 1)]
    a, b, c = (np.stack([stats.norm.pdf(axis, sign[k], sigma) for sign in signs]) for k in range(3))
    joint = np.einsum("ka,kb,kc->abc", a, b, c) / 4
    of_x, of_y = np.einsum("ka,kb->ab", a, b) / 4, c.mean(0)
    information = (joint * np.log(joint / (of_x[..., None] * of_y))).sum() * step**3
    law = GaussianMixture.xor(sigma)
    assert law.mutual_information() == pytest.approx(information, abs=2e-4)
    x, y = axis[[50, 40]], axis[60]
    at = (50, 40, 60)
    expected = math.log(joint[at] / (of_x[at[:2]] * of_y[60]))
    assert law.log_ratio(tensor(x), tensor([y])).item() == pytest.approx(expected, abs=1e-9)


def test_mixture_in_many_dimensions_has_its_sample_mean_and_repeats_it():
    means = torch.randn(3, 15, generator=seeded(1), dtype=torch.float64) / 2
    eye = torch.eye(15, dtype=torch.float64)
    covariances = torch.stack([eye, 2 * eye, eye + 0.3])

    def mixture():
        return GaussianMixture(tensor([0.2, 0.3, 0.5]), means, covariances, dim_x=5)

    law = mixture()
    value, error = law.monte_carlo_mutual_information(100_000, seeded())
    assert abs(value - law.mutual_information()) < 4 * math.hypot(error, 2e-4)
    assert mixture().mutual_information() == law.mutual_information()
    assert error < 0.01


# Noise that multiplies ------------------------------------------------------------------------


def test_multiplicative_noise_equals_scipy_densities_and_their_integral():
    law = MultiplicativeNoise(2)
    x, y = numpy_pairs(law, 50)
    margin = np.log(special.k0(np.abs(y)) / np.pi)
    expected = (stats.norm.logpdf(y, 0, np.abs(x)) - margin).sum(-1)
    np.testing.assert_allclose(law.log_ratio(torch.tensor(x), torch.tensor(y)), expected, rtol=1e-9)
    for y in (0.3, 2.0):  # K0 is the margin
        joint = lambda x, y=y: stats.norm.pdf(x) * stats.norm.pdf(y / x) / x  # noqa: E731
        density = 2 * integrate.quad(joint, 0, 40)[0]
        assert special.k0(y) / math.pi == pytest.approx(density, rel=1e-7)

    def entropy_density(y):
        p = special.k0(y) / math.pi
        return -2 * p * math.log(p)

    pieces = [(1e-300, 1e-6), (1e-6, 1e-2), (1e-2, 1), (1, 10), (10, 100)]
    entropy = sum(integrate.quad(entropy_density, *piece, epsabs=1e-12)[0] for piece in pieces)
    log_x = stats.norm.expect(lambda x: 2 * math.log(x), lb=1e-300, ub=1e-3) + stats.norm.expect(
        lambda x: 2 * math.log(x), lb=1e-3, ub=40
    )
    information = entropy - 0.5 * math.log(2 * math.pi * math.e) - log_x
    assert law.mutual_information() == pytest.approx(2 * information, abs=1e-7)


def test_multiplicative_noise_has_no_correlation_and_names_its_null_set():
    n = 40_000
    x, y = MultiplicativeNoise(1).sample(n, generator=seeded())
    assert abs(torch.cat([x, y], -1).mT.corrcoef()[0, 1]) < 4 * 1.8 / math.sqrt(n)
    assert torch.cat([x.abs(), y.abs()], -1).mT.corrcoef()[0, 1] > 0.3
    assert stats.kstest(x[:, 0].numpy(), stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest((y / x)[:, 0].numpy(), stats.norm.cdf).pvalue > 1e-3
    assert MultiplicativeNoise(1).log_ratio(tensor([0.0]), tensor([1.0])) == -math.inf


# Checkerboard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("squares", [2, 8])
def test_checkerboard_is_uniform_over_half_of_the_squares(squares):
    law = Checkerboard(squares)
    x, y = numpy_pairs(law, 20_000)
    for margin in (x, y):
        assert stats.kstest(margin[:, 0], stats.uniform.cdf).pvalue > 1e-3
    counts = np.zeros((squares, squares))
    np.add.at(counts, ((x[:, 0] * squares).astype(int), (y[:, 0] * squares).astype(int)), 1)
    dark = np.indices((squares, squares)).sum(0) % 2 == 0
    assert counts[~dark].sum() == 0
    assert stats.chisquare(counts[dark]).pvalue > 1e-3
    within = np.concatenate([x * squares % 1, y * squares % 1])[:, 0]
    assert stats.kstest(within, stats.uniform.cdf).pvalue > 1e-3
    middles = (torch.arange(squares).double() + 0.5)[:, None] / squares
    table = law.log_ratio(middles[:, None], middles[None])
    assert torch.equal(table == math.log(2), torch.from_numpy(dark))
    assert (table[~torch.from_numpy(dark)] == -math.inf).all()


def test_checkerboard_ends_at_its_edges():
    corners = tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    beyond = tensor([[-0.01, 0.3], [0.3, -0.01], [1.1, 0.9], [0.9, 1.1]])
    values = Checkerboard(4).log_ratio(corners[:, :1], corners[:, 1:])
    assert values.tolist() == [math.log(2), math.log(2), -math.inf]
    assert (Checkerboard(4).log_ratio(beyond[:, :1], beyond[:, 1:]) == -math.inf).all()


# Circles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radii", "sigma"), [((1,), 0.1), ((0.5, 2), 0.3), ((0, 1), 0.2), ((3,), 2.0), ((1,), 0.01)]
)
def test_circles_equal_densities_averaged_over_the_angle(radii, sigma):
    t = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    law = NoisyCircles(radii, sigma)
    x, y = law.sample(6, generator=seeded())
    x, y = torch.cat([x, tensor([[0.0], [max(radii) + 20 * sigma]])]), torch.cat([y, x[:2]])
    for at_x, at_y in zip(x[:, 0].tolist(), y[:, 0].tolist(), strict=True):
        of_x = np.mean([stats.norm.pdf(at_x, r * np.cos(t), sigma) for r in radii])
        of_y = np.mean([stats.norm.pdf(at_y, r * np.cos(t), sigma) for r in radii])
        joint = np.mean(
            [
                stats.norm.pdf(at_x, r * np.cos(t), sigma)
                * stats.norm.pdf(at_y, r * np.sin(t), sigma)
                for r in radii
            ]
        )
        value = law.log_ratio(tensor([at_x]), tensor([at_y])).item()
        assert value == pytest.approx(math.log(joint / (of_x * of_y)), abs=1e-9)


@pytest.mark.parametrize(("radii", "sigma"), [((1,), 0.15), ((0.5, 2), 0.4)])
def test_circles_information_equals_a_brute_force_grid(radii, sigma):
    step = sigma / 3
    axis = np.arange(0, max(radii) + 9 * sigma, step) + step / 2  # one quadrant is as the others
    t = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    joint, of_x = 0, 0
    for r in radii:
        a = stats.norm.pdf(axis[:, None], r * np.cos(t), sigma)
        b = stats.norm.pdf(axis[:, None], r * np.sin(t), sigma)
        joint, of_x = joint + a @ b.T / len(t) / len(radii), of_x + a.mean(-1) / len(radii)
    information = 4 * (joint * np.log(joint / (of_x[:, None] * of_x))).sum() * step**2
    assert NoisyCircles(radii, sigma).mutual_information() == pytest.approx(information, abs=1e-7)


def test_circles_have_their_radii_and_no_correlation():
    n = 40_000
    x, y = NoisyCircles((1, 3), 0.1).sample(n, generator=seeded())
    distance = torch.hypot(x, y)
    inner = distance < 2
    assert abs(inner.double().mean() - 0.5) < 4 * 0.5 / math.sqrt(n)
    assert abs(distance[inner].mean() - 1.005) < 0.003  # R + σ²/2R
    assert abs(distance[~inner].std() - 0.1) < 0.003
    assert abs(torch.cat([x, y], -1).mT.corrcoef()[0, 1]) < 4 / math.sqrt(n)


# Labels ---------------------------------------------------------------------------------------

CLASS_MEANS = tensor([[0.0, 0, 0], [2, 1, 0], [-1, 1, 1], [1, -1, 2]])
FEATURE_COVARIANCE = tensor([[1.0, 0.3, 0], [0.3, 0.5, 0.1], [0, 0.1, 2]])
CLASS_WEIGHTS = tensor([0.1, 0.2, 0.3, 0.4])
LABELS = LabelledGaussians(CLASS_MEANS, FEATURE_COVARIANCE, CLASS_WEIGHTS)


def test_labels_log_ratio_equals_scipy_densities():
    x, y = numpy_pairs(LABELS, 50)
    densities = np.stack(
        [stats.multivariate_normal(m, FEATURE_COVARIANCE).pdf(x) for m in CLASS_MEANS.numpy()]
    )
    expected = np.log(
        densities[y[:, 0].astype(int), np.arange(50)] / (CLASS_WEIGHTS.numpy() @ densities)
    )
    np.testing.assert_allclose(LABELS.log_ratio(*map(torch.tensor, (x, y))), expected, atol=1e-10)


def test_labels_have_their_frequencies_means_and_covariances():
    x, y = LABELS.sample(100_000, generator=seeded())
    for label, weight in enumerate(CLASS_WEIGHTS.tolist()):
        features = x[y[:, 0] == label]
        assert len(features) / 100_000 == pytest.approx(weight, abs=0.006)
        torch.testing.assert_close(features.mean(0), CLASS_MEANS[label], atol=0.06, rtol=0)
        torch.testing.assert_close(features.mT.cov(), FEATURE_COVARIANCE, atol=0.09, rtol=0)


def test_two_classes_tell_what_a_noisy_sign_tells():
    # Means 2/σ standard deviations apart are ±1 in noise of standard deviation σ.
    two = LabelledGaussians.on_simplex(classes=2, dim=7, distance=2 / 0.5)
    assert two.mutual_information() == pytest.approx(Xor(0.5, 1).mutual_information(), abs=1e-9)


def test_three_classes_information_equals_a_brute_force_grid():
    means, step = np.array([[0, 0], [2.0, 0], [0.5, 1.5]]), 0.1
    axis = np.arange(-9, 11, step)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    densities = np.stack([stats.multivariate_normal(m).pdf(grid) for m in means])
    weights = np.array([0.5, 0.2, 0.3])[:, None, None]
    margin = (weights * densities).sum(0)
    terms = weights * densities * (np.log(densities) - np.log(margin))
    law = LabelledGaussians(tensor(means), weights=tensor([0.5, 0.2, 0.3]))
    assert law.mutual_information() == pytest.approx(terms.sum() * step**2, abs=1e-8)


@pytest.mark.parametrize(
    "law", [LABELS, LabelledGaussians.on_simplex(), LabelledGaussians.on_simplex(6, 6, 5)], ids=repr
)
def test_information_of_many_classes_is_the_sample_mean(law):
    value, error = law.monte_carlo_mutual_information(200_000, seeded())
    assert error < 0.003
    assert abs(value - law.mutual_information()) < 4 * math.hypot(error, 2e-4)
    assert value < math.log(law.classes)


def test_simplex_is_regular_and_stretching_it_changes_nothing():
    law = LabelledGaussians.on_simplex(classes=5, dim=8, distance=3)
    distances = torch.cdist(law.means, law.means)
    expected = 3 * (1 - torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(distances, expected, rtol=0, atol=1e-6)
    assert (law.means.std(0) > 0.01).sum() == 8
    stretched = LabelledGaussians.on_simplex(classes=5, dim=8, distance=3, stretch=100)
    x, y = law.sample(20, generator=seeded())
    scale = 100 ** torch.linspace(0, 1, 8, dtype=torch.float64)
    torch.testing.assert_close(stretched.log_ratio(x * scale, y), law.log_ratio(x, y))
    assert stretched.mutual_information() == pytest.approx(law.mutual_information(), abs=1e-3)
    assert stretched.sample(10_000)[0].std(0)[-1] > 90


def test_classes_of_one_mean_tell_nothing():
    law = LabelledGaussians(torch.ones(3, 4))
    assert law.mutual_information() == pytest.approx(0, abs=1e-12)


# Discrete and mixed pairs ---------------------------------------------------------------------

TABLE = np.array([[0.1, 0.0, 0.2], [0.05, 0.4, 0.25]])


def test_table_has_its_frequencies_values_and_information():
    law = DiscreteTable(tensor(TABLE), tensor([-1, 0.1]), tensor([0.2, 5, 7]))
    x, y = numpy_pairs(law, 50_000)
    counts = [[((x == a) & (y == b)).sum() for b in (0.2, 5, 7)] for a in (-1, 0.1)]
    np.testing.assert_allclose(np.array(counts) / 50_000, TABLE, atol=0.009)
    margins = TABLE.sum(1, keepdims=True) * TABLE.sum(0)
    with np.errstate(divide="ignore"):
        log_ratio = np.log(TABLE / margins)
    given = law.log_ratio(tensor([[[-1]], [[0.1]]]), tensor([[[0.2], [5], [7]]]))
    np.testing.assert_allclose(given, log_ratio, atol=1e-12)
    expected = special.rel_entr(TABLE, margins).sum()
    assert law.mutual_information() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("m", [1, 2, 7])
def test_integer_plus_uniform_equals_its_integrated_densities(m):
    law = IntegerPlusUniform(m)

    def of_y(y):
        return sum(stats.uniform.pdf(y, k, 2) for k in range(m)) / m

    information = 0
    for k, start in itertools.product(range(m), (0, 1)):
        y = k + start + 0.5  # constant over unit intervals
        log_ratio = math.log(0.5 / of_y(y))
        assert law.log_ratio(tensor([k]), tensor([y])).item() == pytest.approx(log_ratio)
        information += log_ratio * 0.5 / m
    assert law.mutual_information() == pytest.approx(information, abs=1e-12)
    off = [(0, -0.1), (0, 2.1), (0.5, 1.0), (-1, 0.0), (m, m + 0.5)]
    for x, y in off:
        assert law.log_ratio(tensor([x]), tensor([y])) == -math.inf
    x, y = numpy_pairs(law, 20_000)
    assert stats.kstest((y - x)[:, 0], stats.uniform(0, 2).cdf).pvalue > 1e-3
    counts = np.unique(x, return_counts=True)[1]
    assert len(counts) == m
    assert m == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("p", [0, 0.15, 0.9])
def test_zero_inflated_poisson_equals_its_integrated_densities(p):
    law, counts = ZeroInflatedPoisson(p), np.arange(120)
    of_y = (1 - p) * 0.5 ** (counts + 1) + p * (counts == 0)

    def given(x):
        return (1 - p) * stats.poisson.pmf(counts, x) + p * (counts == 0)

    def integrand(x):
        return math.exp(-x) * special.rel_entr(given(x), of_y).sum()

    information = sum(
        integrate.quad(integrand, a, b, epsabs=1e-10)[0] for a, b in [(0, 2), (2, 10), (10, 36)]
    )
    assert law.mutual_information() == pytest.approx(information, abs=1e-8)
    for x in (0.2, 3.0):
        values = law.log_ratio(tensor([[x]]), torch.arange(9.0)[:, None])
        np.testing.assert_allclose(values, np.log(given(x) / of_y)[:9], atol=1e-10)
    for x, y in [(-1.0, 0.0), (1.0, -1.0), (1.0, 0.5)]:
        assert law.log_ratio(tensor([x]), tensor([y])) == -math.inf
    x, y = numpy_pairs(law, 20_000)
    assert stats.kstest(x[:, 0], stats.expon.cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.bincount(y[:, 0].astype(int))[:4] / 20_000, of_y[:4], atol=0.015)


# Laws made of laws ----------------------------------------------------------------------------


@pytest.mark.parametrize("df", [1, 4.5, math.inf])
def test_independent_has_student_margins_and_a_ratio_of_one(df):
    law = Independent(2, 3, df)
    x, y = law.sample(20_000, generator=seeded())
    xy = torch.cat([x, y], -1)
    for column in xy.mT.numpy():
        assert stats.kstest(column, stats.t(df).cdf).pvalue > 1e-3
    ranks = xy.argsort(0).argsort(0).double()
    for values in (ranks, (ranks - 10_000).abs()):  # the second shows a shared scale
        assert (values.mT.corrcoef() - torch.eye(5)).abs().max() < 4.5 / math.sqrt(20_000)
    assert torch.equal(law.log_ratio(x[:4, None], y[None, :5]), torch.zeros(4, 5).double())
    assert law.mutual_information() == 0


def test_product_of_pairs_is_the_law_of_all_of_them():
    product = Product([CorrelatedGaussian(2, 0.6), CorrelatedGaussian(1, 0.6)])
    whole = CorrelatedGaussian(3, 0.6)
    x, y = whole.sample(20, generator=seeded())
    torch.testing.assert_close(product.log_ratio(x, y), whole.log_ratio(x, y))
    assert product.mutual_information() == pytest.approx(whole.mutual_information())
    x, y = product.sample(50_000, generator=seeded())
    expected = torch.kron(tensor([[1.0, 0.6], [0.6, 1.0]]), torch.eye(3).double())
    torch.testing.assert_close(torch.cat([x, y], -1).mT.cov(), expected, atol=0.03, rtol=0)


def test_product_gives_each_law_its_own_coordinates():
    xor, labels = Xor(0.4, 3), LabelledGaussians.on_simplex(3, 4)
    law = Product([xor, labels])
    (x1, y1), (x2, y2) = xor.sample(9, generator=seeded(1)), labels.sample(9, generator=seeded(2))
    total = law.log_ratio(torch.cat([x1, x2], -1), torch.cat([y1, y2], -1))
    torch.testing.assert_close(total, xor.log_ratio(x1, y1) + labels.log_ratio(x2, y2))
    assert law.mutual_information() == xor.mutual_information() + labels.mutual_information()


def test_products_reach_eight_nats_in_ten_dimensions():
    law = Product([NoisyCircles(sigma=0.01)] * 5)
    assert (law.dim_x, law.dim_y) == (5, 5)
    assert law.mutual_information() > 8


def test_embedding_keeps_canonical_correlations_and_adds_unit_noise():
    law = Embedded(CorrelatedGaussian(2, 0.8), dim_x=6, dim_y=4, seed=3)
    x, y = law.sample(50_000, generator=seeded())
    covariance = torch.cat([x, y], -1).mT.cov()
    torch.testing.assert_close(covariance[:6, :6], torch.eye(6).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(covariance[6:, 6:], torch.eye(4).double(), atol=0.03, rtol=0)
    correlations = torch.linalg.svdvals(covariance[:6, 6:])
    torch.testing.assert_close(correlations, tensor([0.8, 0.8, 0, 0]), atol=0.03, rtol=0)
    assert covariance[:6, 6:].abs().max() < 0.7  # no pair of coordinates shows it
    # The Gaussian of the sample's covariance is that law, up to sampling.
    fitted = Gaussian(covariance, dim_x=6)
    assert (fitted.log_ratio(x, y) - law.log_ratio(x, y)).abs().mean() < 0.03


def test_embedding_is_fixed_by_its_seed_and_scales_its_noise():
    base, eye = Xor(), torch.eye(5, dtype=torch.float64)
    first, same, other = (Embedded(base, 5, 1, seed) for seed in (0, 0, 1))
    draws = [law.sample(4, generator=seeded())[0] for law in (first, same, other)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    loud = Embedded(base, 5, 1, noise=10).sample(20_000, generator=seeded())[0]
    variances = torch.linalg.eigvalsh(loud.mT.cov())
    torch.testing.assert_close(variances, tensor([1.0, 1, 100, 100, 100]), rtol=0.05, atol=0)
    rotation = random_rotation(5, seeded())
    torch.testing.assert_close(rotation @ rotation.mT, eye, atol=1e-12, rtol=0)


def test_random_rotations_average_to_zero_and_their_squares_evenly():
    rotations = torch.stack([random_rotation(3, seeded(seed)) for seed in range(2_000)])
    error = 4.5 / math.sqrt(3 * 2_000)
    assert rotations.mean(0).abs().max() < error
    assert (rotations.square().mean(0) - 1 / 3).abs().max() < error


# Quadrature -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5, 20])
def test_expectations_over_normals_equal_a_characteristic_function(dim):
    def cosine(z):
        return (z.sum(-1) / math.sqrt(dim)).cos()

    if dim <= 2:
        value, error = trapezoid(cosine, dim)
        assert value == pytest.approx(math.exp(-0.5), abs=1e-12)
        assert error < 1e-9
    value, error = quasi_monte_carlo(cosine, dim)
    assert abs(value - math.exp(-0.5)) < 4 * error
    assert error < 2e-4


def test_quasi_monte_carlo_stops_at_the_most_points_and_says_its_error():
    value, error = quasi_monte_carlo(lambda z: (20 * z).sum(-1).cos(), 10, most=2**10)
    assert error > 1e-3
    assert abs(value) < 4 * error


def test_gauss_legendre_integrates_polynomials_and_oscillations():
    nodes, weights = gauss_legendre(-1.0, 3.0, panels=1, order=5)
    assert (weights @ nodes**9).item() == pytest.approx((3**10 - 1) / 10, rel=1e-12)
    nodes, weights = gauss_legendre(0.0, 10.0, panels=7)
    assert (weights @ (5 * nodes).sin()).item() == pytest.approx((1 - math.cos(50)) / 5, abs=1e-12)


# Errors ---------------------------------------------------------------------------------------


def plain(cls, *args):
    """Construct past the annotation checks, which only the test run adds."""
    instance = cls.__new__(cls)
    inspect.unwrap(cls.__init__)(instance, *args)
    return instance


EYE, HALF = torch.eye(3), tensor([[0.5, 0.0], [0.0, 0.5]])
MISTAKES = [
    (lambda: Xor(0), r"sigma must be positive and finite, got 0; at 0 .* log 2; Disc"),
    (lambda: Xor(1, 0), r"dim_x must be at least 1, got 0; give"),
    (lambda: GaussianMixture.xor(0), r"sigma must be positive and finite, got 0; it is a width"),
    (lambda: GaussianMixture.xor(1, 9), r"dim_x must be in 1..8, got 9; it takes"),
    (lambda: MultiplicativeNoise(0), r"dim must be at least 1, got 0; give"),
    (lambda: Checkerboard(3), r"squares must be even and positive, got 3; an odd"),
    (lambda: Checkerboard(0), r"squares must be even and positive, got 0"),
    (lambda: NoisyCircles(()), r"radii must be at least one number.*got \(\); \(1,\) is"),
    (lambda: NoisyCircles((1, -1)), r"radii must .* got \(1, -1\)"),
    (lambda: NoisyCircles((1,), 0), r"sigma must be positive and finite, got 0; no noise"),
    (lambda: LabelledGaussians(EYE[:1]), r"means must have at least 2 rows.* got 1; one label"),
    (lambda: LabelledGaussians(EYE, EYE[:2, :2]), r"shapes \(C, d\).* got \(3, 3\), \(2, 2\) and"),
    (lambda: LabelledGaussians(EYE, None, EYE[0, :2]), r"shapes \(C, d\).* and \(2,\); give"),
    (lambda: LabelledGaussians(EYE, None, EYE[0]), r"weights must be positive and sum to 1"),
    (lambda: LabelledGaussians(EYE, -EYE), r"covariance must be symmetric and pos.* -1; sym"),
    (lambda: LabelledGaussians(EYE, EYE + EYE.roll(1, 0) / 9), r"covariance must be symmetric"),
    (lambda: LabelledGaussians.on_simplex(9, 8), r"classes must be in 2..dim = 8 .* got 9; raise"),
    (lambda: LabelledGaussians.on_simplex(1, 8), r"classes must be in 2..dim = 8 .* got 1"),
    (lambda: LabelledGaussians.on_simplex(2, 8, 0), r"distance must be positive .* got 0"),
    (lambda: LabelledGaussians.on_simplex(2, 8, 1, math.inf), r"stretch must be .* got inf"),
    (
        lambda: LABELS.log_ratio(CLASS_MEANS[:1], tensor([[4.0]])),
        r"y must hold labels 0, ..., 3, got values in \[4, 4\]; number",
    ),
    (lambda: LABELS.log_ratio(CLASS_MEANS[:1], tensor([[0.5]])), r"y must hold labels"),
    (lambda: DiscreteTable(2 * HALF), r"table must be at least 0 and sum to 1.* of sum 2; divide"),
    (lambda: DiscreteTable(tensor([[1.5, -0.5]])), r"table must be at least 0 .* \[-0.5, 1.5\]"),
    (lambda: DiscreteTable(tensor([[0.5, 0.5], [0, 0]])), r"table must give every value some"),
    (lambda: DiscreteTable(HALF, tensor([1.0])), r"values_x must be 2 increasing .* got \[1.0\]"),
    (lambda: DiscreteTable(HALF, None, tensor([1.0, 1])), r"values_y must be 2 increasing"),
    (
        lambda: DiscreteTable(HALF).log_ratio(tensor([[0.0]]), tensor([[0.5]])),
        r"y must hold values of the table, got 0.5; the values are \[0.0, 1.0\]",
    ),
    (lambda: IntegerPlusUniform(0), r"m must be at least 1, got 0; give"),
    (lambda: ZeroInflatedPoisson(1), r"p must be in \[0, 1\), got 1; at 1"),
    (lambda: Independent(0, 1), r"dim_x and dim_y must be at least 1, got 0 and 1"),
    (lambda: Independent(1, 1, 0), r"df must be positive, got 0; math.inf"),
    (lambda: Product([]), r"laws must hold at least one law, got none; pass"),
    (lambda: Embedded(Xor(), 1, 1), r"dim_x must be at least the base's, 2, got 1; a signal"),
    (lambda: Embedded(Product([Xor()] * 2), 4, 1), r"dim_y must be at least the base's, 2, got 1"),
    (lambda: Embedded(Xor(), 4, 1, noise=0), r"noise must be positive and finite, got 0; to add"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=lambda p: p if p is str else "")
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: plain(Product, [Xor(), EYE]), r"every one of laws must be a JointDist.* got tens"),
        (lambda: plain(Embedded, EYE, 3, 3), r"base must be a JointDistribution, got tensor"),
        (lambda: plain(LabelledGaussians, [[1.0]]), r"means must be a torch.Tensor, got list"),
        (lambda: plain(DiscreteTable, [[1.0]]), r"table must be a torch.Tensor, got list"),
    ],
)
def test_mistaken_types_are_named(mistake, message):
    with pytest.raises(TypeError, match=message):
        mistake()


@pytest.mark.parametrize(
    ("module", "law", "message"),
    [
        (
            "mixture",
            GaussianMixture.xor(0.2, 3),
            r"must be smoother .* of 0.002 in 4 dimensions; u",
        ),
        ("labels", LabelledGaussians.on_simplex(4, 5), r"must be closer .* of 0.002; use monte"),
    ],
)
def test_information_that_stays_unsure_is_refused(monkeypatch, module, law, message):
    name = f"mi_estimators.distributions.{module}.quasi_monte_carlo"
    monkeypatch.setattr(name, lambda f, dim: (1.0, 2e-3))
    with pytest.raises(ValueError, match=message):
        law.mutual_information()
