"""Nothing to find: what an estimator reports here is its error."""

import math

import torch
from torch import Generator

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys
from mi_estimators.distributions.student import student_scale


class Independent(JointDistribution):
    """X and Y independent, of independent coordinates with Student-t margins: I = 0.

    The tails are the difficulty: at df = 1 (Cauchy) no margin has a mean, and a few pairs of
    outliers look like dependence.

    Args:
        dim_x: Dimensions of X.
        dim_y: Dimensions of Y.
        df: Degrees of freedom of every coordinate, positive; ∞ is the standard normal.

    Raises:
        ValueError: If a dimension is less than 1, or df is not positive.

    Example:
        >>> law = Independent(dim_x=3, dim_y=2, df=1)
        >>> law, law.mutual_information()
        (Independent(dim_x=3, dim_y=2, df=1), 0.0)
    """

    _shown = ("dim_x", "dim_y", "df")

    def __init__(self, dim_x: int = 1, dim_y: int = 1, df: Real = 1) -> None:
        if dim_x < 1 or dim_y < 1:
            raise ValueError(f"dim_x and dim_y must be at least 1, got {dim_x} and {dim_y}.")
        if not df > 0:
            raise ValueError(f"df must be positive, got {df!r}; math.inf is the normal law.")
        self.dim_x, self.dim_y, self.df = dim_x, dim_y, df

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        shape = (n, self.dim_x + self.dim_y)
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.df < math.inf:
            z = z * student_scale(shape, self.df, generator)
        return z[:, : self.dim_x], z[:, self.dim_x :]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return 0."""
        x, y = self._as_pair(x, y)
        return torch.zeros(torch.broadcast_shapes(x.shape[:-1], y.shape[:-1]), dtype=torch.float64)

    def mutual_information(self) -> float:
        """Return 0."""
        return 0.0
