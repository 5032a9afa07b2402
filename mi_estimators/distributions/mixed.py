"""One side discrete, the other continuous: the tasks of Gao et al. 2017."""

import math

import torch
from torch import Generator

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys


class IntegerPlusUniform(JointDistribution):
    """X uniform on the integers 0, ..., m-1, and Y uniform on [X, X + 2].

    I = log m - (m-1)/m log 2 nats (Gao et al. 2017, "Estimating Mutual Information for
    Discrete-Continuous Mixtures"). Given y, X is one of two integers, or known at both
    ends; log r is log m less the log of their number, and **-inf off the support**.

    Args:
        m: Number of integers.

    Raises:
        ValueError: If m < 1.

    Example:
        >>> law = IntegerPlusUniform(m=5)
        >>> law, round(law.mutual_information(), 4)
        (IntegerPlusUniform(m=5), 1.0549)
    """

    dim_x = dim_y = 1
    _shown = ("m",)

    def __init__(self, m: int = 5) -> None:
        if m < 1:
            raise ValueError(f"m must be at least 1, got {m}; give the number of integers.")
        self.m = m

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x = torch.randint(self.m, (n, 1), generator=generator).double()
        return x, x + 2 * torch.rand(n, 1, generator=generator, dtype=torch.float64)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log m - log(number of integers that y is within 2 above), -inf off the support."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        candidates = 1 + ((y >= 1) & (y <= self.m)).double()
        if self.m == 1:
            candidates = torch.ones_like(y)
        inside = (x >= 0) & (x < self.m) & (x == x.floor()) & (y >= x) & (y <= x + 2)
        return torch.where(inside, math.log(self.m) - candidates.log(), -math.inf)

    def mutual_information(self) -> float:
        """Return log m - (m-1)/m log 2."""
        return math.log(self.m) - (self.m - 1) / self.m * math.log(2)


class ZeroInflatedPoisson(JointDistribution):
    """X exponential of mean 1, and Y a Poisson count of mean X, or 0 with probability p.

    The task of Gao et al. 2017. I is known in closed form up to a series that converges
    geometrically, and right to 1e-12 nats: with q(u) = p + (1-p) u the probability of a zero at
    e^-x = u, I = (1-p) (2 log 2 - γ - Σ_k 2^-k log k + 1/4 - 1/2 log 2) + ∫_0^1 q log(q / q(1/2)).
    The formula usually quoted, (1-p) times the value for p = 0, is what Y tells together with why
    it is 0, and so larger where p > 0 (0.256 nats instead of 0.230 at p = 0.15).

    Args:
        p: Probability that the count is set to 0, in [0, 1).

    Raises:
        ValueError: If p is not in [0, 1).

    Example:
        >>> law = ZeroInflatedPoisson(p=0.15)
        >>> law, round(law.mutual_information(), 4)
        (ZeroInflatedPoisson(p=0.15), 0.2298)
    """

    dim_x = dim_y = 1
    _shown = ("p",)

    def __init__(self, p: Real = 0.15) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p!r}; at 1 every count is 0.")
        self.p = float(p)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        u, kept = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        x = -torch.log1p(-u)
        return x, torch.poisson(x, generator=generator) * (kept >= self.p)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log P(y | x) - log P(y), and -inf where y is no count or x is negative."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        count = y.clamp(min=0)
        positive = torch.xlogy(count, x) - x - torch.lgamma(count + 1) + (count + 1) * math.log(2)
        zero = (self.p + (1 - self.p) * (-x).exp()).log() - math.log((1 + self.p) / 2)
        inside = (x >= 0) & (y >= 0) & (y == y.floor())
        return torch.where(inside, torch.where(y == 0, zero, positive), -math.inf)

    def mutual_information(self) -> float:
        """Return I, by its closed form."""
        series = sum(math.log(k) * 0.5**k for k in range(2, 64))
        poisson = 2 * math.log(2) - 0.5772156649015329 - series
        positive = poisson + 0.25 - 0.5 * math.log(2)
        p = self.p
        entropy = -1 / 4 - ((p * p / 2 * math.log(p) - p * p / 4) if p > 0 else 0)
        half = (1 + p) / 2
        return (1 - p) * positive + entropy / (1 - p) - half * math.log(half)
