"""One coordinate through noise that is added, or that multiplies."""

import math
from functools import cached_property

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys


class AdditiveUniformNoise(JointDistribution):
    """X ~ U(0, 1) and Y = X + N with N ~ U(-ε, ε), in one dimension each.

    I = ε - log 2ε nats for ε <= 1/2, else 1/(4ε) (Czyż et al. 2023). Given y, x is uniform on
    (max(0, y - ε), min(1, y + ε)), so log r is minus the log of this interval's length; it is
    **-inf off the support** (|y - x| > ε, or x outside [0, 1]), where the joint density is 0. Pairs
    rounded to float32 can leave the support by rounding alone.

    Args:
        epsilon: Half-width of the noise, positive and finite.

    Raises:
        ValueError: If epsilon is not in (0, ∞).

    Example:
        >>> law = AdditiveUniformNoise(0.75)
        >>> law, round(law.mutual_information(), 4)
        (AdditiveUniformNoise(epsilon=0.75), 0.3333)
    """

    dim_x = dim_y = 1
    _shown = ("epsilon",)

    def __init__(self, epsilon: Real) -> None:
        if not 0 < epsilon < math.inf:
            raise ValueError(
                f"epsilon must be positive and finite, got {epsilon!r}; no noise, infinite MI."
            )
        self.epsilon = float(epsilon)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, noise = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        return x, x + self.epsilon * (2 * noise - 1)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return -log(min(1, y + ε) - max(0, y - ε)) on the support, -inf off it."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        interval = (y + self.epsilon).clamp(max=1) - (y - self.epsilon).clamp(min=0)
        inside = ((y - x).abs() <= self.epsilon) & (x >= 0) & (x <= 1)
        return torch.where(inside, -interval.log(), -math.inf)

    def mutual_information(self) -> float:
        """Return ε - log 2ε, or 1/(4ε) where ε > 1/2."""
        if self.epsilon > 0.5:
            return 1 / (4 * self.epsilon)
        return self.epsilon - math.log(2 * self.epsilon)


class MultiplicativeNoise(JointDistribution):
    """Y = X ε, coordinate by coordinate, with X and ε standard normal and independent.

    X and Y are uncorrelated, and every sign is independent of everything else: only the size of y
    tells of the size of x. Y has density K₀(|y|) / π, with K₀ the modified Bessel function, hence
    I = dim (h(Y) + (γ - 1 - log π) / 2) nats with γ Euler's constant and h(Y), Y's entropy, by
    quadrature: I is right to 1e-9 nats.

    Args:
        dim: Number of pairs; `dim_x = dim_y = dim`.

    Raises:
        ValueError: If dim < 1.

    Example:
        >>> law = MultiplicativeNoise(dim=5)
        >>> law, round(law.mutual_information(), 4)
        (MultiplicativeNoise(dim=5), 2.1017)
    """

    _shown = ("dim",)

    def __init__(self, dim: int = 1) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}; give the number of pairs.")
        self.dim = self.dim_x = self.dim_y = dim

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, noise = torch.randn(2, n, self.dim, generator=generator, dtype=torch.float64)
        return x, x * noise

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return Σ_k log N(y_k; 0, x_k²) - log(K₀(|y_k|) / π), and -inf where an x_k is 0."""
        x, y = self._as_pair(x, y)
        squares = torch.einsum("...k,...k->...", x.square().reciprocal(), y.square())
        log_p = -0.5 * squares - (x.abs().log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        log_ratio = log_p - _log_normal_product(y).sum(-1)
        return torch.where((x == 0).any(-1), -math.inf, log_ratio)

    def mutual_information(self) -> float:
        """Return dim (h(Y) + (γ - 1 - log π) / 2)."""
        return self.dim * self._information_per_pair

    @cached_property
    def _information_per_pair(self) -> float:
        # By y = e^t, which flattens the logarithm at 0; the trapezoid rule then converges fast.
        step = 1 / 64
        y = torch.arange(-40, math.log(700), step, dtype=torch.float64).exp()
        log_p = _log_normal_product(y)
        entropy = -2 * step * (y * log_p.exp() * log_p).sum().item()
        return entropy + (0.5772156649015329 - 1 - math.log(math.pi)) / 2


def _log_normal_product(y: Tensor) -> Tensor:
    """Return the log density of a product of two standard normals."""
    y = y.abs()
    return torch.special.scaled_modified_bessel_k0(y).log() - y - math.log(math.pi)
