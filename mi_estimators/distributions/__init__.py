"""Joint distributions that know their mutual information and their log density ratio.

They are the ground truth that estimators are judged by. With r(x, y) = p(x, y) / (p(x) p(y)), each
distribution draws pairs, evaluates log r, which is the optimal critic, and states I = E[log r].

| distribution           | I(X; Y) in nats                                       | known by     |
|------------------------|-------------------------------------------------------|--------------|
| `CorrelatedGaussian`   | -d/2 log(1 - ρ²)                                      | closed form  |
| `Gaussian`             | -1/2 Σ_k log(1 - ρ_k²), ρ_k canonical correlations    | closed form  |
| `StudentT`             | the Gaussian's + a term in (df, dim_x, dim_y) alone   | closed form  |
| `AdditiveUniformNoise` | ε - log 2ε for ε <= 1/2, else 1/(4ε)                  | closed form  |
| `GaussianMixture`      | ∫∫ p log r                                            | quadrature   |
| `Pushforward`          | its base's                                            | invariance   |

`beyond_normal()` is the 40 tasks of Czyż et al. 2023, by name, made of these.

Parameters and samples are float64 tensors on the CPU. `log_ratio` takes any floating dtype, and
computes and returns float64: a float32 pipeline loses nothing to its own ground truth.
"""

from mi_estimators.distributions.beyond_normal import beyond_normal
from mi_estimators.distributions.gaussian import CorrelatedGaussian, Gaussian
from mi_estimators.distributions.joint import JointDistribution
from mi_estimators.distributions.mixture import GaussianMixture
from mi_estimators.distributions.pushforward import Pushforward
from mi_estimators.distributions.student import StudentT
from mi_estimators.distributions.uniform import AdditiveUniformNoise

__all__ = [
    "AdditiveUniformNoise",
    "CorrelatedGaussian",
    "Gaussian",
    "GaussianMixture",
    "JointDistribution",
    "Pushforward",
    "StudentT",
    "beyond_normal",
]
