"""The 40 tasks of "Beyond Normal" (Czyż et al. 2023), from this package's laws and bijections."""

import torch

from mi_estimators.bijections import (
    WIGGLY_X,
    WIGGLY_Y,
    Asinh,
    Bijection,
    HalfCube,
    NormalCDF,
    NormalToMixture,
    Spiral,
    SwissRoll,
)
from mi_estimators.distributions.gaussian import CorrelatedGaussian, Gaussian
from mi_estimators.distributions.joint import JointDistribution
from mi_estimators.distributions.noise import AdditiveUniformNoise
from mi_estimators.distributions.pushforward import Pushforward
from mi_estimators.distributions.student import StudentT


def beyond_normal() -> dict[str, JointDistribution]:
    """Return the benchmark's tasks by their names there, in their order there.

    Czyż et al. 2023, "Beyond Normal: On the Evaluation of Mutual Information Estimators", with the
    parameters of `BENCHMARK_TASKS_LIST` in github.com/cbg-ethz/bmi. A name reads from the right: a
    base law (dim_x, dim_y, then its parameters), then the bijections applied to it. 31 of the 40
    have a Gaussian or Student-t copula; the additive noises, the Swiss roll and the six spirals do
    not.

    Example:
        >>> laws = beyond_normal()
        >>> law = laws["spiral-multinormal-sparse-5-5-2-2.0"]
        >>> len(laws), law.dim_x, law.dim_y, round(law.mutual_information(), 4)
        (40, 5, 5, 1.0217)
    """
    normal = CorrelatedGaussian(1, 0.75)
    laws: dict[str, JointDistribution] = {
        "1v1-normal-0.75": normal,
        "normal_cdf-1v1-normal-0.75": _mapped(normal, NormalCDF()),
        "1v1-additive-0.1": AdditiveUniformNoise(0.1),
        "1v1-additive-0.75": AdditiveUniformNoise(0.75),
        "1v1-bimodal-0.75": Pushforward(
            normal,
            NormalToMixture(weights=(0.3, 0.7), means=(0, 5)),
            NormalToMixture(weights=(0.5, 0.5), means=(-1, 3)),
        ),
        "wiggly-1v1-normal-0.75": Pushforward(normal, WIGGLY_X, WIGGLY_Y),
        "half_cube-1v1-normal-0.75": _mapped(normal, HalfCube()),
        "student-identity-1-1-1": _student(1, df=1),
        "asinh-student-identity-1-1-1": _mapped(_student(1, df=1), Asinh()),
        "swissroll_x-normal_cdf-1v1-normal-0.75": Pushforward(
            _mapped(normal, NormalCDF()), SwissRoll()
        ),
    }
    for dim in (2, 3, 5, 25, 50):
        laws[f"multinormal-dense-{dim}-{dim}-0.5"] = _dense(dim)
    for dim in (2, 3, 5, 25):
        laws[f"multinormal-sparse-{dim}-{dim}-2-2.0"] = _two_pairs(dim)
    for dim, df in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3)):
        laws[f"student-identity-{dim}-{dim}-{df}"] = _student(dim, df)
    for name, bijection in (("normal_cdf", NormalCDF()), ("half_cube", HalfCube())):
        for dim in (3, 5, 25):
            laws[f"{name}-multinormal-sparse-{dim}-{dim}-2-2.0"] = _mapped(
                _two_pairs(dim), bijection
            )
    for dim in (3, 5, 25):
        laws[f"spiral-multinormal-sparse-{dim}-{dim}-2-2.0"] = _spiralled(_two_pairs(dim))
    for dim in (3, 5, 25):
        laws[f"spiral-normal_cdf-multinormal-sparse-{dim}-{dim}-2-2.0"] = _spiralled(
            _mapped(_two_pairs(dim), NormalCDF())
        )
    for dim, df in ((2, 1), (3, 2), (5, 2)):
        laws[f"asinh-student-identity-{dim}-{dim}-{df}"] = _mapped(_student(dim, df), Asinh())
    return laws


def _mapped(base: JointDistribution, bijection: Bijection) -> Pushforward:
    return Pushforward(base, bijection, bijection)


def _spiralled(base: JointDistribution) -> Pushforward:
    """Turn X in its first plane and Y in its second, by |x|² / dim, from the first axis on."""
    return Pushforward(
        base,
        Spiral(speed=-1 / base.dim_x, planes=((0, 1),)),
        Spiral(speed=-1 / base.dim_y, planes=((1, 2),)),
    )


def _student(dim: int, df: int) -> StudentT:
    return StudentT(torch.eye(2 * dim), dim_x=dim, df=df)


def _dense(dim: int) -> Gaussian:
    """Return unit variances and every correlation 1/2."""
    covariance = torch.full((2 * dim, 2 * dim), 0.5, dtype=torch.float64)
    return Gaussian(covariance.fill_diagonal_(1), dim_x=dim)


def _two_pairs(dim: int) -> Gaussian:
    """Return corr(x_k, y_k) = 0.8 for k = 0, 1 and no other correlation."""
    covariance = torch.eye(2 * dim, dtype=torch.float64)
    for k in range(2):
        covariance[k, dim + k] = covariance[dim + k, k] = 0.8
    return Gaussian(covariance, dim_x=dim)
