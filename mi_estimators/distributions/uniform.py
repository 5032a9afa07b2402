"""Laws of uniform pieces."""

import math

import torch
from torch import Generator

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
