"""The sign of a product: all of the information, and none of it in any one coordinate."""

import math
from functools import cached_property

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys
from mi_estimators.distributions.quadrature import trapezoid


class Xor(JointDistribution):
    """Standard normal X in dim_x dimensions, and Y = sign(x_1) ... sign(x_dim) + N(0, σ²).

    Y is independent of any dim_x - 1 coordinates of X, so that no correlation, no pair of
    coordinates and no projection on an axis shows it; for dim_x = 2 it is the noisy exclusive-or.
    I = log 2 - E[log(1 + exp(-2 (1 + σZ) / σ²))] nats with Z standard normal: what a binary input
    sends through a Gaussian channel. By quadrature, to 1e-8 nats.

    Args:
        sigma: Standard deviation of the noise, positive and finite.
        dim_x: Number of signs; 1 is a plain noisy sign.

    Raises:
        ValueError: If sigma is not in (0, ∞) or dim_x < 1.

    Example:
        >>> law = Xor(sigma=0.5)
        >>> law, round(law.mutual_information(), 4)
        (Xor(sigma=0.5, dim_x=2), 0.6327)
    """

    dim_y = 1
    _shown = ("sigma", "dim_x")

    def __init__(self, sigma: Real = 0.5, dim_x: int = 2) -> None:
        if not 0 < sigma < math.inf:
            raise ValueError(
                f"sigma must be positive and finite, got {sigma!r}; at 0 Y is discrete "
                "and I is log 2; DiscreteTable holds such laws."
            )
        if dim_x < 1:
            raise ValueError(f"dim_x must be at least 1, got {dim_x}; give the number of signs.")
        self.sigma, self.dim_x = float(sigma), dim_x

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x = torch.randn(n, self.dim_x, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return x, _sign(x)[:, None] + self.sigma * noise

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log r = log 2 - log(1 + exp(-2 s y / σ²)), s the product of x's signs."""
        x, y = self._as_pair(x, y)
        return self._log_ratio(_sign(x) * y.squeeze(-1))

    def _log_ratio(self, agreement: Tensor) -> Tensor:
        softplus = torch.nn.functional.softplus(-2 * agreement / self.sigma**2)
        return math.log(2) - softplus

    def mutual_information(self) -> float:
        """Return I by quadrature, to 1e-8 nats."""
        return self._information

    @cached_property
    def _information(self) -> float:
        return trapezoid(lambda z: self._log_ratio(1 + self.sigma * z.squeeze(-1)), dim=1)[0]


def _sign(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).prod(-1).double()
