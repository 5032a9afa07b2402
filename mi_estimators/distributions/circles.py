"""Circles drawn with a noisy pen."""

import math
from functools import cached_property

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys
from mi_estimators.distributions.quadrature import gauss_legendre


class NoisyCircles(JointDistribution):
    """X and Y: the coordinates of a uniform point of a circle around 0, plus N(0, σ²) each.

    Of several radii each is as likely as the next. X and Y are uncorrelated. The joint density has
    a closed form, Σ_j exp(-(s² + R_j²) / 2σ²) I₀(s R_j / σ²) at the distance s from 0, up to a
    constant. A margin is an average over the angle, by the trapezoid rule, which for a periodic
    function is right to rounding; log r is right to 1e-9, 20 σ past the circle too. I is 2 h(X) -
    h(X, Y) nats, both entropies 1-D integrals by Gauss-Legendre: to 1e-8.

    Args:
        radii: R_j, at least 0 and finite.
        sigma: Standard deviation of the noise, positive and finite.

    Raises:
        ValueError: If there is no radius, one is negative or infinite, or sigma is not in (0, ∞).

    Example:
        >>> law = NoisyCircles(radii=(1,), sigma=0.1)
        >>> law, round(law.mutual_information(), 4)
        (NoisyCircles(radii=(1,), sigma=0.1), 0.6789)
    """

    dim_x = dim_y = 1
    _shown = ("radii", "sigma")

    def __init__(self, radii: tuple[Real, ...] = (1,), sigma: Real = 0.1) -> None:
        if not radii or not all(0 <= radius < math.inf for radius in radii):
            raise ValueError(
                f"radii must be at least one number, each finite and at least 0, got {radii}; "
                "(1,) is one unit circle."
            )
        if not 0 < sigma < math.inf:
            raise ValueError(
                f"sigma must be positive and finite, got {sigma!r}; no noise, infinite MI."
            )
        self.radii, self.sigma = radii, float(sigma)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        radii = torch.tensor(self.radii, dtype=torch.float64)
        radius = radii[torch.randint(len(radii), (n, 1), generator=generator)]
        angle = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        noise = self.sigma * torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
        return radius * angle.cos() + noise[0], radius * angle.sin() + noise[1]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log p(x, y) - log p(x) - log p(y)."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        return self._log_joint(torch.hypot(x, y)) - self._log_margin(x) - self._log_margin(y)

    def _log_joint(self, distance: Tensor) -> Tensor:
        """Return log p(x, y), which depends on the distance from 0 alone."""
        terms = []
        for radius in self.radii:
            bessel = torch.special.i0e(
                distance * radius / self.sigma**2
            ).log()  # scaled by exp(-...)
            terms.append(bessel - 0.5 * ((distance - radius) / self.sigma).square())
        scale = math.log(2 * math.pi * self.sigma**2 * len(self.radii))
        return torch.stack(terms).logsumexp(0) - scale

    def _log_margin(self, x: Tensor) -> Tensor:
        """Return log p(x) = log of the mean over j and the angle t of N(x; R_j cos t, σ²)."""
        terms = []
        for radius in self.radii:
            nodes = 16 + math.ceil(8 * radius / self.sigma)  # on half of the circle
            angles = (torch.arange(nodes, dtype=torch.float64) + 0.5) * math.pi / nodes
            nearest = 0.5 * ((x.abs() - radius).clamp(min=0) / self.sigma).square()
            mean = torch.zeros_like(x)
            for centre in (radius * angles.cos()).tolist():  # [nodes, *b] would be large
                mean += (nearest - 0.5 * ((x - centre) / self.sigma).square()).exp() / nodes
            terms.append(mean.log() - nearest)
        scale = 0.5 * math.log(2 * math.pi * self.sigma**2) + math.log(len(self.radii))
        return torch.stack(terms).logsumexp(0) - scale

    def mutual_information(self) -> float:
        """Return 2 h(X) - h(X, Y), to 1e-8 nats."""
        return self._information

    @cached_property
    def _information(self) -> float:
        reach = max(self.radii) + 10 * self.sigma
        at, weight = gauss_legendre(0.0, reach, panels=math.ceil(reach / self.sigma))
        log_x, log_xy = self._log_margin(at), self._log_joint(at)
        entropy_x = -2 * (weight * log_x.exp() * log_x).sum()
        entropy_xy = -2 * math.pi * (weight * at * log_xy.exp() * log_xy).sum()
        return (2 * entropy_x - entropy_xy).item()
