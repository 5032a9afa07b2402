"""Every law against computations that share no code with it: scipy, grids, sample means."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.utils._python_dispatch import TorchDispatchMode

from mi_estimators.bijections import (
    WIGGLY_X,
    WIGGLY_Y,
    Asinh,
    Cubic,
    HalfCube,
    NormalCDF,
    Spiral,
    SwissRoll,
)
from mi_estimators.distributions import (
    AdditiveUniformNoise,
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
    Pushforward,
    StudentT,
    Xor,
    ZeroInflatedPoisson,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_covariance(d, seed):
    a = torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)
    return a @ a.mT / d + 0.2 * torch.eye(d, dtype=torch.float64)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


MIXTURE = GaussianMixture(
    weights=tensor([0.3, 0.5, 0.2]),
    means=tensor([[-1.0, 0.5], [1.0, 1.0], [0.0, -2.0]]),
    covariances=tensor([[[1, 0.6], [0.6, 0.8]], [[0.3, -0.1], [-0.1, 0.5]], [[2, 0], [0, 0.1]]]),
    dim_x=1,
)
WIDE_MIXTURE = GaussianMixture(
    weights=tensor([0.4, 0.6]),
    means=tensor([[0.0, 1, 2, 3, 4], [1, -1, 1, -1, 1]]),
    covariances=torch.stack([random_covariance(5, 1), random_covariance(5, 2)]),
    dim_x=2,
)
UNIFORM = Pushforward(CorrelatedGaussian(1, 0.75), NormalCDF(), NormalCDF())

LAWS = [
    CorrelatedGaussian(1, -0.9),
    CorrelatedGaussian.with_mi(20, 2.0),
    Gaussian(random_covariance(5, 0), dim_x=2),
    Gaussian(random_covariance(5, 0), dim_x=4),
    StudentT(torch.eye(2), dim_x=1, df=1),
    StudentT(random_covariance(5, 3), dim_x=3, df=2.5),
    AdditiveUniformNoise(0.1),
    AdditiveUniformNoise(0.75),
    MIXTURE,
    UNIFORM,
    Pushforward(UNIFORM, SwissRoll()),
    Pushforward(AdditiveUniformNoise(0.3), SwissRoll(), WIGGLY_Y),
    Pushforward(CorrelatedGaussian(3, 0.5), Cubic(), HalfCube()),
    Pushforward(CorrelatedGaussian(2, 0.5), WIGGLY_X, WIGGLY_Y),
    Pushforward(CorrelatedGaussian(3, 0.5), Spiral(), Spiral(planes=((1, 2),))),
    Pushforward(StudentT(torch.eye(4), dim_x=2, df=1), Asinh(), Asinh()),
    WIDE_MIXTURE,
    GaussianMixture.xor(sigma=0.4),
    Xor(sigma=0.7, dim_x=3),
    MultiplicativeNoise(dim=3),
    Checkerboard(squares=6),
    NoisyCircles(radii=(1, 2), sigma=0.2),
    LabelledGaussians.on_simplex(classes=4, dim=6, distance=2, stretch=10),
    DiscreteTable(tensor([[0.2, 0, 0.1], [0.1, 0.3, 0.3]]), values_x=tensor([-1, 0.1])),
    IntegerPlusUniform(m=4),
    ZeroInflatedPoisson(p=0.2),
    Independent(dim_x=2, dim_y=3, df=1),
    Product([Checkerboard(), CorrelatedGaussian(2, 0.9), Xor()]),
    Product([NoisyCircles(sigma=0.05)] * 5),
    Embedded(Xor(), dim_x=12, dim_y=5),
]
every_law = pytest.mark.parametrize("law", LAWS, ids=repr)

# The contract, over every law -----------------------------------------------------------------


@every_law
def test_sample_mean_of_log_ratio_is_the_stated_information(law):
    value, standard_error = law.monte_carlo_mutual_information(40_000, seeded())
    assert standard_error < 0.03
    assert abs(value - law.mutual_information()) <= 4.5 * standard_error + 1e-14


@every_law
def test_samples_are_float64_pairs_fixed_by_the_generator(law):
    x, y = law.sample(7, generator=seeded(3))
    assert x.shape == (7, law.dim_x)
    assert y.shape == (7, law.dim_y)
    assert x.dtype == y.dtype == torch.float64
    again, other = law.sample(7, generator=seeded(3)), law.sample(7, generator=seeded(4))
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert not torch.equal(x, other[0])
    assert law.sample(2)[0].shape == (2, law.dim_x)


@every_law
def test_log_ratio_broadcasts_as_a_loop_over_pairs_would(law):
    (x, _), (_, y) = law.sample(5, generator=seeded(1)), law.sample(4, generator=seeded(2))
    table = law.log_ratio(x[:, None], y[None])
    assert table.shape == (5, 4)
    for i in range(5):
        for j in range(4):
            torch.testing.assert_close(law.log_ratio(x[i], y[j]), table[i, j])


@every_law
def test_log_ratio_of_float32_is_computed_in_float64(law):
    x, y = (value.float() for value in law.sample(5, generator=seeded(1)))
    assert torch.equal(law.log_ratio(x, y), law.log_ratio(x.double(), y.double()))


@every_law
def test_log_ratio_refuses_a_last_axis_that_would_broadcast(law):
    x, y = law.sample(3, generator=seeded())
    with pytest.raises(ValueError, match=f"x must have a last axis of dim_x = {law.dim_x}, got"):
        law.log_ratio(torch.cat([x, x], -1), y)
    with pytest.raises(ValueError, match=f"y must have a last axis of dim_y = {law.dim_y}, got"):
        law.log_ratio(x, torch.cat([y, y], -1))


class LargestTensor(TorchDispatchMode):
    """Remembers the most bytes that one operation's result held."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for out in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(out, torch.Tensor):
                self.nbytes = max(self.nbytes, out.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize(
    "law",
    [
        CorrelatedGaussian(64, 0.1),
        Gaussian(random_covariance(128, 0), dim_x=64),
        StudentT(torch.eye(128), dim_x=64, df=3),
        Pushforward(CorrelatedGaussian(64, 0.1), WIGGLY_X, Spiral()),
        MultiplicativeNoise(64),
        LabelledGaussians.on_simplex(64, 64),
        Xor(dim_x=64),
        Product([CorrelatedGaussian(32, 0.1)] * 2),
        Embedded(CorrelatedGaussian(64, 0.1), 64, 64),
    ],
    ids=repr,
)
def test_a_score_matrix_needs_no_memory_beyond_its_own_size(law):
    x, y = law.sample(200, generator=seeded())
    with LargestTensor() as largest:
        law.log_ratio(x[:, None], y[None])
    assert 0 < largest.nbytes <= 200 * 200 * 8


@pytest.mark.parametrize(
    "law",
    [
        CorrelatedGaussian(2, 0.25),
        Gaussian(tensor([[1.0, 0.2, 0.3], [0.2, 2, 0.1], [0.3, 0.1, 1]]), dim_x=1),
        AdditiveUniformNoise(0.75),
        Pushforward(CorrelatedGaussian(2, 0.25), Spiral(), Cubic()),
        MIXTURE,
        Xor(),
        Checkerboard(),
        NoisyCircles(),
        LabelledGaussians.on_simplex(3, 5, distance=1.5),
        DiscreteTable(tensor([[0.2, 0, 0.1], [0.1, 0.3, 0.3]])),
        IntegerPlusUniform(),
        Product([Xor(), Checkerboard()]),
        Embedded(Xor(), 5, 3),
    ],
    ids=repr,
)
def test_the_ratio_has_mean_one_over_independent_pairs(law):
    (x, _), (_, y) = (law.sample(100_000, generator=seeded(seed)) for seed in (1, 2))
    ratio = law.log_ratio(x, y).exp()
    assert abs(ratio.mean().item() - 1) < 4.5 * ratio.std().item() / math.sqrt(100_000)


@pytest.mark.parametrize("df", [1, 2.5, 30])
def test_student_ratio_integrates_to_one_for_every_y(df):
    # By quadrature: over independent pairs r has infinite variance, so its mean would prove little.
    law = StudentT(tensor([[1.0, 0.5], [0.5, 2.0]]), dim_x=1, df=df)
    for y in (-3.0, 0.0, 20.0):

        def integrand(x, y=y):
            return stats.t.pdf(x, df) * law.log_ratio(tensor([x]), tensor([y])).exp().item()

        mass = sum(
            integrate.quad(integrand, a, b)[0] for a, b in [(-np.inf, 0), (0, 20), (20, np.inf)]
        )
        assert mass == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (CorrelatedGaussian.with_mi(20, 2), "CorrelatedGaussian(dim=20, rho=0.4258)"),
        (Gaussian(torch.eye(3), 1), "Gaussian(dim_x=1, dim_y=2)"),
        (
            Pushforward(AdditiveUniformNoise(0.1), g=Cubic()),
            "Pushforward(base=AdditiveUniformNoise(epsilon=0.1), f=None, g=Cubic())",
        ),
        (WIDE_MIXTURE, "GaussianMixture(components=2, dim_x=2, dim_y=3)"),
        (
            Embedded(Product([Xor(), Checkerboard()]), 5, 3, seed=1),
            "Embedded(base=Product(laws=(Xor(sigma=0.5, dim_x=2), Checkerboard(squares=4))), "
            "dim_x=5, dim_y=3, seed=1)",
        ),
    ],
)
def test_repr_says_what_the_law_is(law, text):
    assert repr(law) == text


# Each law against scipy -----------------------------------------------------------------------


def log_ratio_by_scipy(joint, of_x, of_y, x, y):
    xy = np.concatenate([x.numpy(), y.numpy()], -1)
    return joint(xy) - of_x(x.numpy()) - of_y(y.numpy())


@pytest.mark.parametrize(("d", "dim_x"), [(2, 1), (5, 1), (5, 2), (6, 5)])
def test_gaussian_log_ratio_equals_scipy_densities(d, dim_x):
    cov = random_covariance(d, d)
    law = Gaussian(cov, dim_x)
    x, y = law.sample(50, generator=seeded())
    expected = log_ratio_by_scipy(
        stats.multivariate_normal(np.zeros(d), cov).logpdf,
        stats.multivariate_normal(np.zeros(dim_x), cov[:dim_x, :dim_x]).logpdf,
        stats.multivariate_normal(np.zeros(d - dim_x), cov[dim_x:, dim_x:]).logpdf,
        x,
        y,
    )
    np.testing.assert_allclose(law.log_ratio(x, y), expected, rtol=1e-9, atol=1e-9)


def test_correlated_gaussian_is_the_gaussian_of_its_covariance():
    law, eye = CorrelatedGaussian(3, -0.6), torch.eye(3, dtype=torch.float64)
    blocks = torch.cat([torch.cat([eye, -0.6 * eye], 1), torch.cat([-0.6 * eye, eye], 1)])
    general = Gaussian(blocks, dim_x=3)
    x, y = law.sample(50, generator=seeded())
    torch.testing.assert_close(law.log_ratio(x, y), general.log_ratio(x, y))
    assert law.mutual_information() == pytest.approx(general.mutual_information())
    assert law.mutual_information() == pytest.approx(-1.5 * math.log(1 - 0.36))


@pytest.mark.parametrize(("df", "dim_x"), [(1, 1), (2.5, 2), (7, 3)])
def test_student_equals_scipy_densities_and_entropies(df, dim_x):
    d, scale = 4, random_covariance(4, 9)
    law = StudentT(scale, dim_x, df)
    x, y = law.sample(50, generator=seeded())
    joint, of_x, of_y = (
        stats.multivariate_t(np.zeros(len(shape)), shape.numpy(), df)
        for shape in (scale, scale[:dim_x, :dim_x], scale[dim_x:, dim_x:])
    )
    expected = log_ratio_by_scipy(joint.logpdf, of_x.logpdf, of_y.logpdf, x, y)
    np.testing.assert_allclose(law.log_ratio(x, y), expected, rtol=1e-9, atol=1e-9)
    entropy = of_x.entropy() + of_y.entropy() - joint.entropy()
    assert law.mutual_information() == pytest.approx(float(entropy), abs=1e-9)
    assert law.dim_y == d - dim_x


def test_student_of_many_degrees_of_freedom_tends_to_the_gaussian():
    cov = random_covariance(4, 5)
    gaussian, student = Gaussian(cov, 2), StudentT(cov, 2, df=1e6)
    x, y = gaussian.sample(20, generator=seeded())
    torch.testing.assert_close(student.log_ratio(x, y), gaussian.log_ratio(x, y), atol=1e-3, rtol=0)
    assert student.mutual_information() == pytest.approx(gaussian.mutual_information(), abs=1e-5)
    assert StudentT(torch.eye(4), 2, df=2).mutual_information() > 0.1


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.5, 0.51, 0.75, 3.0])
def test_additive_noise_information_equals_the_integrated_entropies(epsilon):
    def density(y):
        uniform = stats.uniform(0, 1)
        return (uniform.cdf(y + epsilon) - uniform.cdf(y - epsilon)) / (2 * epsilon)

    knots = sorted({-epsilon, epsilon, 1 - epsilon, 1 + epsilon})
    entropy_y = sum(
        integrate.quad(lambda y: -density(y) * math.log(max(density(y), 1e-300)), a, b)[0]
        for a, b in itertools.pairwise(knots)
    )
    law = AdditiveUniformNoise(epsilon)
    assert law.mutual_information() == pytest.approx(entropy_y - math.log(2 * epsilon), abs=1e-7)
    for x, y in [(0.2, 0.2 + 0.9 * epsilon), (0.99, 0.99 + 0.5 * epsilon)]:
        expected = math.log(1 / (2 * epsilon) / density(y))
        assert law.log_ratio(tensor([x]), tensor([y])).item() == pytest.approx(expected)


def test_additive_noise_log_ratio_is_minus_infinity_off_the_support():
    law = AdditiveUniformNoise(0.1)
    x, y = tensor([[0.5], [-0.1], [1.05], [0.5]]), tensor([[0.61], [-0.05], [1.0], [9.0]])
    assert (law.log_ratio(x, y) == -math.inf).all()


def component_densities(law, x_or_xy, block):
    """Log density of a mixture's block, from the parameters as they were passed."""
    terms = [
        math.log(w) + stats.multivariate_normal(m[block], c[block, block]).logpdf(x_or_xy)
        for w, m, c in law
    ]
    return np.logaddexp.reduce(terms)


WIDE_PARTS = list(
    zip(
        [0.4, 0.6],
        np.array([[0.0, 1, 2, 3, 4], [1, -1, 1, -1, 1]]),
        [random_covariance(5, 1).numpy(), random_covariance(5, 2).numpy()],
        strict=True,
    )
)
MIXTURE_PARTS = list(
    zip(
        [0.3, 0.5, 0.2],
        np.array([[-1.0, 0.5], [1.0, 1.0], [0.0, -2.0]]),
        np.array([[[1, 0.6], [0.6, 0.8]], [[0.3, -0.1], [-0.1, 0.5]], [[2, 0], [0, 0.1]]]),
        strict=True,
    )
)


@pytest.mark.parametrize(
    ("law", "parts"), [(MIXTURE, MIXTURE_PARTS), (WIDE_MIXTURE, WIDE_PARTS)], ids=["1-1", "2-3"]
)
def test_mixture_log_ratio_equals_scipy_densities(law, parts):
    x, y = law.sample(50, generator=seeded())
    expected = log_ratio_by_scipy(
        lambda xy: component_densities(parts, xy, slice(None)),
        lambda x: component_densities(parts, x, slice(None, law.dim_x)),
        lambda y: component_densities(parts, y, slice(law.dim_x, None)),
        x,
        y,
    )
    np.testing.assert_allclose(law.log_ratio(x, y), expected, rtol=1e-9, atol=1e-9)


def test_mixture_information_equals_a_brute_force_grid():
    step = 0.02
    axis = np.arange(-14, 14, step)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    log_p = component_densities(MIXTURE_PARTS, grid, slice(None))
    log_x = component_densities(MIXTURE_PARTS, axis[:, None], slice(0, 1))
    log_y = component_densities(MIXTURE_PARTS, axis[:, None], slice(1, 2))
    expected = (np.exp(log_p) * (log_p - log_x[:, None] - log_y)).sum() * step**2
    assert MIXTURE.mutual_information() == pytest.approx(expected, abs=1e-8)


def test_mixture_of_one_gaussian_is_that_gaussian():
    cov = random_covariance(2, 4)
    law = GaussianMixture(tensor([1.0]), tensor([[3.0, -5.0]]), cov[None], dim_x=1)
    assert law.mutual_information() == pytest.approx(
        Gaussian(cov, 1).mutual_information(), abs=1e-8
    )
    wide = GaussianMixture(
        torch.full((3,), 1 / 3), torch.zeros(3, 4), random_covariance(4, 4).expand(3, 4, 4), 2
    )
    value, error = wide.monte_carlo_mutual_information(20_000, seeded())
    assert abs(value - Gaussian(random_covariance(4, 4), 2).mutual_information()) < 4.5 * error


# Properties -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), dim_x=st.integers(1, 4), dim_y=st.integers(1, 4))
def test_gaussian_information_is_symmetric_invariant_and_the_determinants(seed, dim_x, dim_y):
    d, cov = dim_x + dim_y, random_covariance(dim_x + dim_y, seed)
    value = Gaussian(cov, dim_x).mutual_information()
    by_determinants = [torch.logdet(m) for m in (cov[:dim_x, :dim_x], cov[dim_x:, dim_x:], cov)]
    expected = (by_determinants[0] + by_determinants[1] - by_determinants[2]) / 2
    assert value == pytest.approx(expected.item(), abs=1e-9)

    swap = torch.tensor([*range(dim_x, d), *range(dim_x)])
    assert Gaussian(cov[swap][:, swap], dim_y).mutual_information() == pytest.approx(value)

    a = torch.zeros(d, d, dtype=torch.float64)
    for block, k in ((slice(None, dim_x), 1), (slice(dim_x, None), 2)):
        a[block, block] = 10.0**k * random_covariance(a[block].shape[0], seed + k)
    mapped = Gaussian(a @ cov @ a.mT, dim_x)
    assert mapped.mutual_information() == pytest.approx(value, abs=1e-8)
    x, y = mapped.sample(3, generator=seeded(seed))
    preimage = torch.linalg.solve(a, torch.cat([x, y], -1).mT).mT
    torch.testing.assert_close(
        mapped.log_ratio(x, y),
        Gaussian(cov, dim_x).log_ratio(preimage[:, :dim_x], preimage[:, dim_x:]),
        atol=1e-6,
        rtol=1e-6,
    )


@given(dim=st.integers(1, 200), per_pair=st.floats(0, 8))
def test_with_mi_has_the_information_asked_for(dim, per_pair):
    law = CorrelatedGaussian.with_mi(dim, dim * per_pair)
    error = 1e-15 * dim * (1 + math.exp(2 * per_pair))
    assert law.mutual_information() == pytest.approx(dim * per_pair, rel=1e-12, abs=error)
    assert law.rho >= 0


def test_information_keeps_its_digits_near_correlation_one():
    gap = 2.0**-40  # 1 - gap is exact in float64
    rho = 1 - gap
    expected = -0.5 * (math.log(gap) + math.log(2 - gap))
    assert CorrelatedGaussian(1, rho).mutual_information() == pytest.approx(expected, rel=1e-13)
    law = Gaussian(tensor([[1.0, rho], [rho, 1.0]]), dim_x=1)
    assert law.mutual_information() == pytest.approx(expected, rel=1e-13)


# Samples --------------------------------------------------------------------------------------


def test_sample_moments_are_the_parameters():
    n, cov = 100_000, random_covariance(5, 0)
    xy = torch.cat(Gaussian(cov, 2).sample(n, generator=seeded()), -1)
    torch.testing.assert_close(xy.mT.cov(), cov, atol=0.03, rtol=0)
    torch.testing.assert_close(xy.mean(0), torch.zeros(5).double(), atol=0.02, rtol=0)

    x, y = CorrelatedGaussian(2, 0.7).sample(n, generator=seeded())
    expected = torch.kron(tensor([[1.0, 0.7], [0.7, 1.0]]), torch.eye(2).double())
    torch.testing.assert_close(torch.cat([x, y], -1).mT.cov(), expected, atol=0.02, rtol=0)

    xy = torch.cat(StudentT(cov, 2, df=10).sample(n, generator=seeded()), -1)
    torch.testing.assert_close(xy.mT.cov(), cov * 10 / 8, atol=0.06, rtol=0)

    xy = torch.cat(WIDE_MIXTURE.sample(n, generator=seeded()), -1).numpy()
    mean = sum(w * m for w, m, _ in WIDE_PARTS)
    second = sum(w * (c + np.outer(m, m)) for w, m, c in WIDE_PARTS)
    np.testing.assert_allclose(xy.mean(0), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(xy.T), second - np.outer(mean, mean), atol=0.12)


def assert_same_law(values, distribution):
    assert stats.kstest(values.squeeze(-1).numpy(), distribution).pvalue > 1e-3


def test_margins_are_the_stated_ones():
    n = 20_000
    x, y = StudentT(tensor([[1.0, 0.5], [0.5, 4.0]]), 1, df=1.5).sample(n, generator=seeded())
    assert_same_law(x, stats.t(1.5).cdf)
    assert_same_law(y, stats.t(1.5, scale=2).cdf)
    x, y = AdditiveUniformNoise(0.3).sample(n, generator=seeded())
    assert_same_law(x, stats.uniform(0, 1).cdf)
    assert_same_law(y - x, stats.uniform(-0.3, 0.6).cdf)
    x, y = UNIFORM.sample(n, generator=seeded())
    assert_same_law(x, stats.uniform(0, 1).cdf)
    assert_same_law(y, stats.uniform(0, 1).cdf)


def test_swiss_roll_is_a_uniform_position_on_the_stated_curve():
    roll, position = Pushforward(UNIFORM, SwissRoll()).sample(20_000, generator=seeded())
    assert roll.shape[-1] == 2
    t = 21 * roll.norm(dim=-1)
    assert_same_law(t[:, None], stats.uniform(1.5 * math.pi, 3 * math.pi).cdf)
    winding = (torch.atan2(roll[:, 1], roll[:, 0]) - t) / (2 * math.pi)
    torch.testing.assert_close(winding, winding.round(), atol=1e-9, rtol=0)
    assert position.min() >= 0


def test_pushforward_without_maps_is_its_base():
    base = CorrelatedGaussian(2, 0.3)
    law = Pushforward(base)
    x, y = law.sample(5, generator=seeded())
    assert torch.equal(x, base.sample(5, generator=seeded())[0])
    assert torch.equal(law.log_ratio(x, y), base.log_ratio(x, y))
    assert law.mutual_information() == base.mutual_information()


# Errors ---------------------------------------------------------------------------------------


def plain(cls, *args):
    """Construct past the annotation checks, which only the test run adds."""
    instance = cls.__new__(cls)
    inspect.unwrap(cls.__init__)(instance, *args)
    return instance


EYE = torch.eye(3)
ONE, MEAN, COV = tensor([1.0]), torch.zeros(1, 2), torch.eye(2)[None]
MISTAKES = [
    (lambda: CorrelatedGaussian(0, 0.5), ValueError, r"dim must be at least 1, got 0; give"),
    (lambda: CorrelatedGaussian(1, 1.0), ValueError, r"rho must lie strictly .* got 1.0; at"),
    (lambda: CorrelatedGaussian(1, -1.5), ValueError, r"rho must lie strictly .* got -1.5"),
    (lambda: CorrelatedGaussian(1, math.nan), ValueError, r"rho must lie strictly .* got nan"),
    (lambda: CorrelatedGaussian.with_mi(1, -0.1), ValueError, r"nats must be finite .* got -0.1"),
    (
        lambda: CorrelatedGaussian.with_mi(1, math.inf),
        ValueError,
        r"nats must be finite .* got inf",
    ),
    (lambda: CorrelatedGaussian.with_mi(2, 90), ValueError, r"nats must be under about 18 .* 90"),
    (lambda: CorrelatedGaussian.with_mi(0, 1), ValueError, r"dim must be at least 1, got 0"),
    (lambda: plain(Gaussian, [[1.0]], 1), TypeError, r"covariance .* torch.Tensor, got list; conv"),
    (
        lambda: Gaussian(torch.ones(3), 1),
        ValueError,
        r"covariance .* have 2 axes, got shape \(3,\)",
    ),
    (lambda: Gaussian(EYE / 0, 1), ValueError, r"covariance .* must be finite .* NaN"),
    (lambda: Gaussian(EYE[:2], 1), ValueError, r"symmetric \(d, d\) matrix, got shape \(2, 3\)"),
    (lambda: Gaussian(EYE + EYE.roll(1, 0), 1), ValueError, r"symmetric \(d, d\) .* symmetrise"),
    (lambda: Gaussian(-EYE, 1), ValueError, r"positive definite, got smallest eigenvalue -1; drop"),
    (lambda: Gaussian(torch.ones(2, 2), 1), ValueError, r"positive definite, got smallest eig"),
    (lambda: Gaussian(EYE, 0), ValueError, r"dim_x must be in 1..2, got 0: the covariance has 3"),
    (lambda: Gaussian(EYE, 3), ValueError, r"dim_x must be in 1..2, got 3"),
    (lambda: StudentT(EYE, 1, 0), ValueError, r"df must be positive and finite, got 0; its limit"),
    (lambda: StudentT(EYE, 1, math.inf), ValueError, r"df must be positive and finite, got inf"),
    (lambda: StudentT(-EYE, 1, 2), ValueError, r"\(dispersion\) must be positive definite"),
    (lambda: AdditiveUniformNoise(0), ValueError, r"epsilon must be positive .* got 0; no noise"),
    (lambda: AdditiveUniformNoise(math.inf), ValueError, r"epsilon must be positive .* got inf"),
    (lambda: plain(GaussianMixture, [1.0], MEAN, COV, 1), TypeError, r"weights must be a torch.T"),
    (
        lambda: plain(GaussianMixture, ONE, 0, COV, 1),
        TypeError,
        r"means must be a torch.Tensor, got",
    ),
    (lambda: plain(GaussianMixture, ONE, MEAN, None, 1), TypeError, r"covariances must be a torch"),
    (lambda: GaussianMixture(ONE, MEAN[0], COV, 1), ValueError, r"means must be .* have 2 axes"),
    (
        lambda: GaussianMixture(ONE, MEAN, EYE[None], 1),
        ValueError,
        r"shapes \(K,\), .* \(1, 3, 3\)",
    ),
    (lambda: GaussianMixture(ONE / 2, MEAN, COV, 1), ValueError, r"weights must .* got \[0.5\]"),
    (
        lambda: GaussianMixture(tensor([2.0, -1]), MEAN.expand(2, 2), COV.expand(2, 2, 2), 1),
        ValueError,
        r"weights must be positive and sum to 1, got \[2.0, -1.0\]; drop",
    ),
    (lambda: GaussianMixture(ONE, MEAN, COV, 2), ValueError, r"dim_x must be in 1..1, got 2"),
    (lambda: MIXTURE.monte_carlo_mutual_information(1), ValueError, r"n must be at least 2"),
    (
        lambda: plain(Pushforward, Cubic()),
        TypeError,
        r"base must be a JointDistribution, got Cubic",
    ),
    (lambda: plain(Pushforward, UNIFORM, math.sin), TypeError, r"f must be a Bijection or None"),
    (lambda: plain(Pushforward, UNIFORM, None, Cubic), TypeError, r"g must be a Bijection or None"),
    (lambda: Pushforward(UNIFORM, Spiral()), ValueError, r"planes .* need dim >= 2, got 1"),
]


@pytest.mark.parametrize(
    ("mistake", "error", "message"), MISTAKES, ids=lambda p: p[:40] if isinstance(p, str) else ""
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_mixture_of_very_unequal_widths_says_that_quadrature_falls_short():
    covariances = torch.stack([torch.eye(2), 1e-7 * torch.eye(2)]).double()
    law = GaussianMixture(tensor([0.5, 0.5]), tensor([[0.0, 0.0], [0.3, 0.3]]), covariances, 1)
    with pytest.raises(ValueError, match=r"comparable widths .* use monte_carlo_mutual_inf"):
        law.mutual_information()
