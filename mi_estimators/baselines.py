"""Baselines: log-ratios in closed form, which a network only has to correct.

A baseline is fitted, not trained, and costs nothing; where it is right, no network comes near it
(dense 50 x 50 Gaussians, N = 10,000). Neither of them is a bound, above or below: the copula of a
law that is not Gaussian can hold more information than the law or less.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import gammainccinv, gammaln, ndtr, stdtrit
from torch import Tensor, nn

from mi_estimators.canonical import MANY, Canonical, information_bias, nats_of_noise
from mi_estimators.critics import Critic
from mi_estimators.mixture import MixtureRatio
from mi_estimators.objectives import DV
from mi_estimators.preprocess import NormalScores
from mi_estimators.readout import Evaluation, evaluate, mean_of, score_blocks
from mi_estimators.samples import Samples, as_samples, check_estimable

CHOOSING = 4096  # samples that degrees of freedom are chosen on
LEAST_DF = 0.5  # below, quantiles of Student's t overflow
REFERENCE = 1024  # samples of Y that a free constant of a row is a mean over
CHUNK = 2**16  # samples that candidates are fitted to, and that are scored at a time


class Baseline(ABC):
    """A log-ratio in closed form, for columns whose margins are standard normal."""

    def fit(
        self,
        x: Float[Tensor, "N dx"],
        y: Float[Tensor, "N dy"],
        *,
        independent: int | None = None,
    ) -> "EllipticalRatio":
        """The log-ratio for samples like these, a critic without parameters.

        Correlations that noise explains are left out.

        Args:
            x: Samples.
            y: Their partners.
            independent: How many of them are independent of each other, which decides what noise
                explains; by default all.
        """
        return self._fit(x, y, independent or len(x))

    def estimate(self, x: Any, y: Any) -> Evaluation:
        """`information` of the normal scores of arrays of shape `[N]` or `[N, d]`.

        Raises:
            TypeError: If x or y does not hold real numbers.
            ValueError: If they differ in length, hold NaN or infinities, have constant columns or
                more than 2 axes, or fewer than 50 samples, or no more than dimensions.

        Example:
            >>> x = np.random.default_rng(0).standard_normal(5000)
            >>> y = np.exp(x + np.roll(x, 1))  # I = log(2) / 2 = 0.347 nats
            >>> estimate = GaussianCopula().estimate(x, y)
            >>> abs(estimate.value - 0.347) < 2 * estimate.standard_error() < 0.05
            True
        """
        samples = as_samples(x, y)
        check_estimable(samples)
        normal = NormalScores()
        return self.information(*[normal.fit(side)(side) for side in (samples.x, samples.y)])

    def information(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> Evaluation:
        """Mutual information in nats, and how each sample pulls it.

        The mean log-ratio over the samples it was fitted on, less what as many samples of
        independent columns would have shown (`information_bias`).

        Raises:
            ValueError: If there are not more samples than dimensions.
        """
        ratio = self._fit_all(x, y)
        bias = information_bias(len(x), ratio.map_x.shape[1], ratio.map_y.shape[1])
        parts = zip(x.split(CHUNK), y.split(CHUNK), strict=True)
        mean = mean_of(torch.cat([ratio(*part) for part in parts]))
        return Evaluation(mean.value - bias, mean.influence)

    @abstractmethod
    def _fit(
        self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], independent: int
    ) -> "EllipticalRatio":
        """`fit`, told how many samples are independent."""

    @abstractmethod
    def _fit_all(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "EllipticalRatio":
        """As `fit`, with all that the samples show, however much of it is noise."""


@dataclass(frozen=True)
class GaussianCopula(Baseline):
    """The log-ratio of a Gaussian with the samples' correlations.

    After `NormalScores` a Gaussian copula: right for every Gaussian behind increasing maps of its
    columns. Its mean is -1/2 Σ log(1 - ρ_k²) over canonical correlations, in nats.

    Example:
        >>> x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> information = GaussianCopula().information(x, x + x.roll(1, 0))
        >>> abs(information.value - math.log(2)) < 0.05
        True
    """

    def _fit(
        self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], independent: int
    ) -> "EllipticalRatio":
        return EllipticalRatio(Canonical.reproducible(x, y, independent))

    def _fit_all(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "EllipticalRatio":
        return EllipticalRatio(Canonical.fit(x, y))


@dataclass(frozen=True)
class TCopula(Baseline):
    """The log-ratio of a multivariate Student-t: a Gaussian copula that knows joint tails.

    Large values of x and of y come together, even where they are uncorrelated. Degrees of freedom
    are those whose log-ratio has the largest Donsker-Varadhan value: likelihood would also count
    tails that the columns of x alone share. Infinitely many, `GaussianCopula`, is a candidate too,
    and the only one in so many dimensions that noise fits more than half a nat.

    Args:
        df: Degrees of freedom to choose from.

    Raises:
        ValueError: If one of them is below 1/2.

    Example:
        >>> x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> TCopula().fit(x, x + x.roll(1, 0)).df
        inf
    """

    df: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0)

    def __post_init__(self) -> None:
        if not all(LEAST_DF <= df < math.inf for df in self.df):
            raise ValueError(
                f"df: expected numbers from {LEAST_DF}, whose quantiles float32 can tell, received "
                f"{self.df}; try (2, 5, 10)"
            )

    def _fit(
        self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], independent: int
    ) -> "EllipticalRatio":
        gaussian = EllipticalRatio(Canonical.reproducible(x, y, independent))
        # Where noise fits so much, a scatter matrix would look better on the samples that it was
        # fitted to, and only there.
        if nats_of_noise(independent, x.shape[1], y.shape[1]) > MANY:
            return gaussian
        share = independent / len(x)
        return self._best(x, y, gaussian, lambda canonical, n: canonical.denoised(round(share * n)))

    def _fit_all(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "EllipticalRatio":
        gaussian = EllipticalRatio(Canonical.fit(x, y))
        return self._best(x, y, gaussian, lambda canonical, n: canonical)

    def _best(
        self,
        x: Tensor,
        y: Tensor,
        gaussian: "EllipticalRatio",
        clean: Callable[[Canonical, int], Canonical],
    ) -> "EllipticalRatio":
        # At random: rows may come in an order of their own.
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
        some = Samples(x, y)[order[:CHOOSING]]
        best, best_value = gaussian, evaluate(DV(), score_blocks(gaussian, some)).value

        def student(df: float, samples: Samples) -> EllipticalRatio:
            quantiles = _TQuantiles(df)
            u, v = quantiles(samples.x), quantiles(samples.y)
            return EllipticalRatio(clean(_t_scatter(u, v, df), len(u)), df)

        every = Samples(x, y)
        fitted_to = every if len(x) <= CHUNK else every[order[:CHUNK]]
        for df in sorted(self.df, reverse=True):  # away from the Gaussian, as long as it helps
            ratio = student(df, fitted_to)
            value = evaluate(DV(), score_blocks(ratio, some)).value
            if value <= best_value:
                break
            best, best_value = ratio, value
        return student(best.df, every) if best is not gaussian and fitted_to is not every else best


class EllipticalRatio(Critic):
    """log p(x, y) / p(x)p(y) of a Gaussian or Student-t, from its canonical correlations.

    Args:
        canonical: Of the columns as they are (Gaussian) or as quantiles of Student's t.
        df: Degrees of freedom; the columns are taken for standard normal and mapped to t.
    """

    mean_x: Tensor
    map_x: Tensor
    mean_y: Tensor
    map_y: Tensor
    correlations: Tensor

    def __init__(self, canonical: Canonical, df: float = math.inf) -> None:
        super().__init__()
        for name in ("mean_x", "map_x", "mean_y", "map_y", "correlations"):
            self.register_buffer(name, getattr(canonical, name).double())
        self.df = df
        self.quantiles = _TQuantiles(df)

    @property
    def width(self) -> int:
        """Dimensions of an encoding."""
        return len(self.correlations) + 1

    def encode_x(self, x: Float[Tensor, "*b dx"]) -> Float[Tensor, "*b e"]:
        """Canonical coordinates that are paired, and the squared norm of all."""
        return self._encode(x, self.mean_x, self.map_x)

    def encode_y(self, y: Float[Tensor, "*b dy"]) -> Float[Tensor, "*b e"]:
        """Canonical coordinates that are paired, and the squared norm of all."""
        return self._encode(y, self.mean_y, self.map_y)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The log-ratio; the cross term of all pairs is one matrix product."""
        (u, square_u), (v, square_v) = ((w[..., :-1], w[..., -1]) for w in (u, v))
        rho = self.correlations.to(u)
        slope = rho / ((1 - rho) * (1 + rho))
        # What the joint Mahalanobis square has beyond |u|² + |v|².
        excess = (
            u.square() @ (rho * slope)
            + v.square() @ (rho * slope)
            - 2 * torch.einsum("...k,...k->...", u * slope, v)
        )
        constant = -0.5 * torch.log1p(-rho.square()).sum()
        if self.df == math.inf:
            return constant - 0.5 * excess
        dim_x, dim_y = self.map_x.shape[1], self.map_y.shape[1]
        return (
            constant
            + self._log_density(square_u + square_v + excess, dim_x + dim_y)
            - self._log_density(square_u, dim_x)
            - self._log_density(square_v, dim_y)
        )

    def _encode(self, samples: Tensor, mean: Tensor, map_: Tensor) -> Tensor:
        white = (self.quantiles(samples) - mean.to(samples)) @ map_.to(samples)
        paired = white[..., : len(self.correlations)]
        return torch.cat([paired, white.square().sum(-1, keepdim=True)], -1)

    def _log_density(self, square: Tensor, dim: int) -> Tensor:
        half = (self.df + dim) / 2
        return gammaln(half) - gammaln(self.df / 2) - half * torch.log1p(square / self.df)

    def sample(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n e"]]:
        """Encodings of n pairs of the law whose log-ratio this is."""
        rho = self.correlations.cpu()
        u, v = (
            torch.randn(n, map_.shape[1], generator=generator, dtype=torch.float64)
            for map_ in (self.map_x, self.map_y)
        )
        k = len(rho)
        v[:, :k] = rho * u[:, :k] + (1 - rho.square()).sqrt() * v[:, :k]
        if self.df < math.inf:
            upper_tail = torch.rand(n, 1, generator=generator, dtype=torch.float64).numpy()
            chi_square = 2 * torch.from_numpy(gammainccinv(self.df / 2, upper_tail))
            u, v = ((self.df / chi_square).sqrt() * w for w in (u, v))
        pairs = [torch.cat([w[:, :k], w.square().sum(1, keepdim=True)], 1) for w in (u, v)]
        return pairs[0], pairs[1]

    def extra_repr(self) -> str:
        """The degrees of freedom."""
        return f"df={self.df:g}"


class _TQuantiles(nn.Module):
    """Standard normal scores as Student-t scores, from a table; itself for df = inf."""

    knots: Tensor

    def __init__(self, df: float) -> None:
        super().__init__()
        self.df = df
        # The upper half by the survival function's symmetry: near 1, a quantile has no digits left.
        lower = stdtrit(df, ndtr(np.linspace(-6, 0, 2401))) if df < math.inf else np.zeros(1)
        self.register_buffer("knots", torch.from_numpy(np.concatenate([lower, -lower[-2::-1]])))

    def forward(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if self.df == math.inf:
            return z
        place = ((z + 6) * 400).clamp(0, 4800)
        left = place.floor().long().clamp(max=4799)
        knots = self.knots.to(z)
        return torch.lerp(knots[left], knots[left + 1], place - left)


def _t_scatter(u: Float[Tensor, "N dx"], v: Float[Tensor, "N dy"], df: float) -> Canonical:
    """Canonical analysis of the scatter matrix of a t law, by expectation-maximisation."""
    both = torch.cat([u, v], 1).double()
    squares = both.square().sum(1)  # the margins are standard t: the identity is a good start
    # A column may not vary in these rows: a label that is not among them.
    ridge = 1e-9 * torch.eye(both.shape[1]).to(both)
    for _ in range(10):
        weights = (df + both.shape[1]) / (df + squares)
        scatter = (both * weights[:, None]).mT @ both / len(both) + ridge
        squares = (both @ torch.linalg.inv(scatter) * both).sum(1)
    return Canonical.of_moments(torch.zeros(len(scatter)).to(scatter), scatter, u.shape[1])


class Corrected(Critic):
    """T = T_0 + r: a baseline in closed form and a critic that learns what it lacks.

    Args:
        baseline: T_0; nothing in it trains.
        residual: r, any critic of the same samples.
    """

    def __init__(self, baseline: EllipticalRatio | MixtureRatio, residual: Critic) -> None:
        super().__init__()
        self.baseline = baseline
        self.residual = residual

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """Both encodings, side by side."""
        return torch.cat([self.baseline.encode_x(x), self.residual.encode_x(x)], -1)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """Both encodings, side by side."""
        return torch.cat([self.baseline.encode_y(y), self.residual.encode_y(y)], -1)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """T_0 + r."""
        width = self.baseline.width
        known = self.baseline.score(u[..., :width], v[..., :width])
        return known + self.residual.score(u[..., width:], v[..., width:])


class RowNormalised(Critic):
    """T(x, y) - log E_Q[e^T(x, Y)]: a critic with a free c(x), as InfoNCE leaves it, without it.

    Args:
        critic: T.
        partners: Samples of Y, of which up to 1,024 are used.
    """

    reference: Tensor

    def __init__(self, critic: Critic, partners: Float[Tensor, "N dy"]) -> None:
        super().__init__()
        self.critic = critic
        self.register_buffer("reference", critic.encode_y(partners[:REFERENCE]))

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """As the critic does, and the constant of the row."""
        u = self.critic.encode_x(x)
        constants = [
            self.critic.score(rows[:, None], self.reference[None]).double().logsumexp(1)
            for rows in u.flatten(0, -2).split(REFERENCE)
        ]
        constant = torch.cat(constants) - math.log(len(self.reference))
        return torch.cat([u, constant.to(u).view(*u.shape[:-1], 1)], -1)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """As the critic does, and nothing."""
        v = self.critic.encode_y(y)
        return torch.cat([v, torch.zeros_like(v[..., :1])], -1)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """T less the constant."""
        return self.critic.score(u[..., :-1], v[..., :-1]) - u[..., -1]


class Independence(Critic):
    """T = 0: what is left when no critic beats it."""

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """Nothing."""
        return torch.zeros_like(x[..., :1])

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """Nothing."""
        return torch.zeros_like(y[..., :1])

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """Zero."""
        return (u + v).squeeze(-1)


class Encoded(Critic):
    """A critic of samples that are already encoded.

    Args:
        critic: Whose encodings they are.
    """

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """The encoding itself."""
        return x

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """The encoding itself."""
        return y

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """As the critic scores encodings."""
        return self.critic.score(u, v)
