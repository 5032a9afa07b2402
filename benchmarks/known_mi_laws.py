"""The laws of `known_mi.py`, by family."""

import functools
import math
import re

import torch

from mi_estimators.bijections import Cubic
from mi_estimators.distributions import (
    AdditiveUniformNoise,
    Checkerboard,
    CorrelatedGaussian,
    DiscreteTable,
    Embedded,
    GaussianMixture,
    Independent,
    IntegerPlusUniform,
    JointDistribution,
    LabelledGaussians,
    MultiplicativeNoise,
    NoisyCircles,
    Product,
    Pushforward,
    StudentT,
    Xor,
    ZeroInflatedPoisson,
    beyond_normal,
)

# The families of the 40 tasks: which names start how.
BEYOND_NORMAL = {
    "1-d": r"1v1|(normal_cdf|wiggly|half_cube)-1v1",
    "student": r"student",
    "asinh-student": r"asinh",
    "swiss roll": r"swissroll",
    "multinormal": r"multinormal",
    "cdf": r"normal_cdf",
    "half-cube": r"half_cube",
    "spiral": r"spiral-multinormal",
    "spiral-cdf": r"spiral-normal_cdf",
}


def cross(rho: float = 0.9) -> GaussianMixture:
    """Correlation rho or -rho, half and half: none on the whole."""
    covariances = torch.eye(2).repeat(2, 1, 1)
    covariances[0, 0, 1] = covariances[0, 1, 0] = rho
    covariances[1, 0, 1] = covariances[1, 1, 0] = -rho
    return GaussianMixture(torch.full((2,), 0.5), torch.zeros(2, 2), covariances, dim_x=1)


def blobs(components: int, dim: int, spread: float, seed: int) -> GaussianMixture:
    """Unit balls around random points of N(0, spread²), each as likely as the next."""
    generator = torch.Generator().manual_seed(seed)
    return GaussianMixture(
        torch.full((components,), 1 / components),
        spread * torch.randn(components, 2 * dim, generator=generator),
        torch.eye(2 * dim).expand(components, -1, -1),
        dim_x=dim,
    )


def correlated_student(dim: int, nats: float, df: int) -> StudentT:
    """A Student-t whose Gaussian part is dim pairs of so many nats together."""
    rho = CorrelatedGaussian.with_mi(dim, nats).rho
    dispersion = torch.eye(2 * dim, dtype=torch.float64)
    dispersion[range(dim), range(dim, 2 * dim)] = rho
    dispersion[range(dim, 2 * dim), range(dim)] = rho
    return StudentT(dispersion, dim_x=dim, df=df)


def others() -> dict[str, dict[str, JointDistribution]]:
    """The families outside Beyond Normal."""
    normal = CorrelatedGaussian.with_mi
    return {
        "mixtures": {
            "mixture-cross": cross(),
            "mixture-1-1-8": blobs(8, dim=1, spread=5, seed=0),
            "mixture-2-2-5": blobs(5, dim=2, spread=2, seed=1),
            "mixture-5-5-10": blobs(10, dim=5, spread=1, seed=2),
        },
        "xor": {
            "xor-2-0.5": Xor(0.5),
            "xor-2-1": Xor(1),
            "xor-3-0.5": Xor(0.5, dim_x=3),
            "xor-2-0.5-twice": Product([Xor(0.5)] * 2),
        },
        "multiplicative": {f"multiplicative-{d}": MultiplicativeNoise(d) for d in (1, 2, 5)},
        "checkerboards and circles": {
            "checkerboard-2": Checkerboard(2),
            "checkerboard-4": Checkerboard(4),
            "checkerboard-8": Checkerboard(8),
            "circle-0.1": NoisyCircles((1,), sigma=0.1),
            "circle-0.3": NoisyCircles((1,), sigma=0.3),
            "circles-0.1": NoisyCircles((1, 2), sigma=0.1),
        },
        "labels": {
            "labels-10-20-2": LabelledGaussians.on_simplex(classes=10, dim=20, distance=2),
            "labels-10-20-4": LabelledGaussians.on_simplex(classes=10, dim=20, distance=4),
            "labels-2-20-2": LabelledGaussians.on_simplex(classes=2, dim=20, distance=2),
            "labels-10-20-4-stretched": LabelledGaussians.on_simplex(10, 20, 4, stretch=100),
        },
        "discrete and mixed": {
            "binary-channel": DiscreteTable(torch.tensor([[0.4, 0.1], [0.1, 0.4]])),
            "integer-plus-uniform-5": IntegerPlusUniform(5),
            "zero-inflated-poisson-0.15": ZeroInflatedPoisson(0.15),
        },
        "ambient": {
            "ambient-64-normal": Embedded(normal(2, 1), dim_x=64, dim_y=64),
            "ambient-784-normal": Embedded(normal(2, 1), dim_x=784, dim_y=784),
            "ambient-64-mixture": Embedded(cross(), dim_x=64, dim_y=64),
            "ambient-784-labels": Embedded(
                LabelledGaussians.on_simplex(10, 10, 4), dim_x=784, dim_y=1
            ),
        },
        "independent": {
            "independent-1-1": Independent(1, 1),
            "independent-3-3": Independent(3, 3),
            "independent-10-10": Independent(10, 10),
            "independent-20-20-normal": Independent(20, 20, df=math.inf),
        },
        "many nats": {
            **{
                f"normal-{dim}-{nats}": normal(dim, nats)
                for dim, nats in ((10, 2), (20, 4), (10, 6), (20, 8))
            },
            **{
                f"cubic-normal-{dim}-{nats}": Pushforward(normal(dim, nats), g=Cubic())
                for dim, nats in ((20, 4), (10, 6))
            },
            "student-10-4-3": correlated_student(10, nats=4, df=3),
            "additive-10-0.75": Product([AdditiveUniformNoise(0.75)] * 10),
            "multiplicative-10": MultiplicativeNoise(10),
        },
    }


def every_law() -> dict[str, JointDistribution]:
    """Every law by its name."""
    return {name: law for laws in families().values() for name, law in laws.items()}


@functools.cache
def families() -> dict[str, dict[str, JointDistribution]]:
    """Every law by its name, by the name of its family; the 40 of Beyond Normal come first."""
    found: dict[str, dict[str, JointDistribution]] = {family: {} for family in BEYOND_NORMAL}
    for name, law in beyond_normal().items():
        family = next(f for f, pattern in BEYOND_NORMAL.items() if re.match(pattern, name))
        found[family][name] = law
    return found | others()
