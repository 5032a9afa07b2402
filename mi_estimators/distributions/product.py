"""Independent laws side by side, whose mutual information adds up."""

from collections.abc import Sequence

import torch
from torch import Generator

from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Xs,
    Ys,
    require_law,
)


class Product(JointDistribution):
    """Independent laws, their coordinates concatenated: I and log r are the sums over the laws.

    `Product([law] * k)` is k independent copies, and so k times its information; in this way
    non-Gaussian laws of many nats and dimensions are made of those of few.

    Args:
        laws: At least one; X is their X side by side, in order, and Y their Y.

    Raises:
        TypeError: If one of the laws is not a JointDistribution.
        ValueError: If there is none.

    Example:
        >>> from mi_estimators.distributions import Checkerboard, Xor
        >>> law = Product([Checkerboard(), Checkerboard(), Xor()])
        >>> law.dim_x, law.dim_y, round(law.mutual_information(), 4)
        (4, 3, 2.019)
    """

    _shown = ("laws",)

    def __init__(self, laws: Sequence[JointDistribution]) -> None:
        self.laws = tuple(laws)
        if not self.laws:
            raise ValueError("laws must hold at least one law, got none; pass a list of laws.")
        for law in self.laws:
            require_law("every one of laws", law)
        self.dim_x = sum(law.dim_x for law in self.laws)
        self.dim_y = sum(law.dim_y for law in self.laws)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs, law after law."""
        xs, ys = zip(*(law.sample(n, generator=generator) for law in self.laws), strict=True)
        return torch.cat(xs, -1), torch.cat(ys, -1)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return the sum of the laws' log r at their own coordinates."""
        x, y = self._as_pair(x, y)
        xs = x.split([law.dim_x for law in self.laws], -1)
        ys = y.split([law.dim_y for law in self.laws], -1)
        first, *others = (law.log_ratio(x, y) for law, x, y in zip(self.laws, xs, ys, strict=True))
        return sum(others, first)

    def mutual_information(self) -> float:
        """Return the sum of the laws' mutual information."""
        return sum(law.mutual_information() for law in self.laws)
