"""The dark squares of a checkerboard."""

import math

import torch
from torch import Generator

from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Xs, Ys


class Checkerboard(JointDistribution):
    """A uniform point of the dark squares of a checkerboard over the unit square.

    Both margins are uniform on [0, 1], and I = log 2 nats whatever the number of squares: the more
    there are, the finer the pattern that holds the same bit. A square is dark if its row and its
    column are both even or both odd; log r is log 2 there and **-inf off the support**.

    Args:
        squares: Squares a side: even, which makes the margins uniform.

    Raises:
        ValueError: If squares is odd or not positive.

    Example:
        >>> law = Checkerboard(squares=8)
        >>> law, round(law.mutual_information(), 4)
        (Checkerboard(squares=8), 0.6931)
    """

    dim_x = dim_y = 1
    _shown = ("squares",)

    def __init__(self, squares: int = 4) -> None:
        if squares < 2 or squares % 2:
            raise ValueError(
                f"squares must be even and positive, got {squares}; an odd board has more dark "
                "squares in some rows than in others."
            )
        self.squares = squares

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, y = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        # y picks one of the dark squares of x's column, then a height in it.
        row = (y * self.squares / 2).floor()
        height = y * self.squares / 2 - row
        odd = (x * self.squares).floor() % 2
        return x, (2 * row + odd + height) / self.squares

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log 2 on the dark squares, -inf off them."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        last = self.squares - 1
        column = (x * self.squares).floor().clamp(max=last)
        row = (y * self.squares).floor().clamp(max=last)
        dark = inside & ((column + row) % 2 == 0)
        return torch.where(dark, math.log(2), torch.tensor(-math.inf, dtype=torch.float64))

    def mutual_information(self) -> float:
        """Return log 2."""
        return math.log(2)
