"""A signal of few dimensions, hidden among many."""

import math

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Real,
    Xs,
    Ys,
    require_law,
)
from mi_estimators.distributions.rotation import random_rotation


class Embedded(JointDistribution):
    """A base law, given independent normal coordinates on each side, and each side then rotated.

    The information is the base's, and log r is the base's at the coordinates turned back: what is
    added says nothing, but nothing in X or Y says which directions those are.

    Args:
        base: The law of the signal.
        dim_x: Dimensions of X, at least the base's.
        dim_y: Dimensions of Y, at least the base's.
        seed: Of the two rotations, uniform (Haar) orthogonal matrices.
        noise: Standard deviation of the added coordinates.

    Raises:
        TypeError: If base is not a JointDistribution.
        ValueError: If a dimension is less than the base's, or noise is not positive and finite.

    Example:
        >>> from mi_estimators.distributions import CorrelatedGaussian
        >>> law = Embedded(CorrelatedGaussian(1, 0.75), dim_x=50, dim_y=20)
        >>> law.sample(8)[0].shape, round(law.mutual_information(), 4)
        (torch.Size([8, 50]), 0.4133)
    """

    _shown = ("base", "dim_x", "dim_y", "seed")

    def __init__(
        self,
        base: JointDistribution,
        dim_x: int,
        dim_y: int,
        seed: int = 0,
        *,
        noise: Real = 1,
    ) -> None:
        self.base = require_law("base", base)
        for name, dim, least in (("dim_x", dim_x, base.dim_x), ("dim_y", dim_y, base.dim_y)):
            if dim < least:
                raise ValueError(
                    f"{name} must be at least the base's, {least}, got {dim}; a signal does not "
                    "embed into fewer dimensions."
                )
        if not 0 < noise < math.inf:
            raise ValueError(
                f"noise must be positive and finite, got {noise!r}; to add no coordinates, take "
                "the base's dimensions."
            )
        self.dim_x, self.dim_y, self.seed, self.noise = dim_x, dim_y, seed, float(noise)
        generator = torch.Generator().manual_seed(seed)
        self._rotation_x = random_rotation(dim_x, generator)
        self._rotation_y = random_rotation(dim_y, generator)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs of the base, add the noise and rotate."""
        x, y = self.base.sample(n, generator=generator)
        return (
            self._with_noise(x, self.dim_x, generator) @ self._rotation_x,
            self._with_noise(y, self.dim_y, generator) @ self._rotation_y,
        )

    def _with_noise(self, signal: Tensor, dim: int, generator: Generator | None) -> Tensor:
        shape = (len(signal), dim - signal.shape[-1])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return torch.cat([signal, self.noise * noise], -1)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return the base's log r at the signal's coordinates."""
        x, y = self._as_pair(x, y)
        return self.base.log_ratio(
            x @ self._rotation_x[: self.base.dim_x].mT, y @ self._rotation_y[: self.base.dim_y].mT
        )

    def mutual_information(self) -> float:
        """Return the base's mutual information."""
        return self.base.mutual_information()
