"""Joint distributions that know their mutual information and their log density ratio.

They are the ground truth that estimators are judged by. With r(x, y) = p(x, y) / (p(x) p(y)), each
distribution draws pairs, evaluates log r, which is the optimal critic, and states I = E[log r].

| distribution           | I(X; Y) in nats                                       | known by     |
|------------------------|-------------------------------------------------------|--------------|
| `CorrelatedGaussian`   | -d/2 log(1 - ρ²)                                      | closed form  |
| `Gaussian`             | -1/2 Σ_k log(1 - ρ_k²), ρ_k canonical correlations    | closed form  |
| `StudentT`             | the Gaussian's + a term in (df, dim_x, dim_y) alone   | closed form  |
| `Independent`          | 0, with Student-t tails                               | closed form  |
| `AdditiveUniformNoise` | ε - log 2ε for ε <= 1/2, else 1/(4ε)                  | closed form  |
| `MultiplicativeNoise`  | d (h(Y) + (γ - 1 - log π)/2), 0.42 d                  | quadrature   |
| `Checkerboard`         | log 2                                                 | closed form  |
| `NoisyCircles`         | 2 h(X) - h(X, Y)                                      | quadrature   |
| `Xor`                  | log 2 - E[log(1 + exp(-2 (1 + σZ)/σ²))]               | quadrature   |
| `GaussianMixture`      | ∫∫ p log r                                            | quasi-MC     |
| `LabelledGaussians`    | H(Y) - H(Y given X), Y a label                        | quasi-MC     |
| `DiscreteTable`        | Σ p log r                                             | closed form  |
| `IntegerPlusUniform`   | log m - (m-1)/m log 2, X discrete                     | closed form  |
| `ZeroInflatedPoisson`  | a sum and an integral in p, Y discrete                | closed form  |
| `Pushforward`          | its base's                                            | invariance   |
| `Product`              | the sum of its laws'                                  | independence |
| `Embedded`             | its base's, in many more dimensions                   | invariance   |

`beyond_normal()` is the 40 tasks of Czyż et al. 2023, by name, made of these. Where the table says
quadrature, I is right to 1e-8 nats; so it is for quasi-MC in one or two dimensions, and elsewhere
that has fixed seeds and a standard error below 2e-4 nats, up to 1e-3 in many dimensions. Either is
computed when first asked for, once for an instance.

Parameters and samples are float64 tensors on the CPU. `log_ratio` takes any floating dtype, and
computes and returns float64: a float32 pipeline loses nothing to its own ground truth.
"""

from mi_estimators.distributions.beyond_normal import beyond_normal
from mi_estimators.distributions.checkerboard import Checkerboard
from mi_estimators.distributions.circles import NoisyCircles
from mi_estimators.distributions.discrete import DiscreteTable
from mi_estimators.distributions.embedded import Embedded
from mi_estimators.distributions.gaussian import CorrelatedGaussian, Gaussian
from mi_estimators.distributions.independent import Independent
from mi_estimators.distributions.joint import JointDistribution
from mi_estimators.distributions.labels import LabelledGaussians
from mi_estimators.distributions.mixed import IntegerPlusUniform, ZeroInflatedPoisson
from mi_estimators.distributions.mixture import GaussianMixture
from mi_estimators.distributions.noise import AdditiveUniformNoise, MultiplicativeNoise
from mi_estimators.distributions.product import Product
from mi_estimators.distributions.pushforward import Pushforward
from mi_estimators.distributions.student import StudentT
from mi_estimators.distributions.xor import Xor

__all__ = [
    "AdditiveUniformNoise",
    "Checkerboard",
    "CorrelatedGaussian",
    "DiscreteTable",
    "Embedded",
    "Gaussian",
    "GaussianMixture",
    "Independent",
    "IntegerPlusUniform",
    "JointDistribution",
    "LabelledGaussians",
    "MultiplicativeNoise",
    "NoisyCircles",
    "Product",
    "Pushforward",
    "StudentT",
    "Xor",
    "ZeroInflatedPoisson",
    "beyond_normal",
]
