"""Pairs of numbers with a table of probabilities."""

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Xs,
    Ys,
    require_tensor,
)


class DiscreteTable(JointDistribution):
    """Discrete X and Y with P(X = a_i, Y = b_j) given as a table, the values as numbers.

    I = Σ_ij p_ij log(p_ij / (p_i p_j)) nats, where p_ij > 0; log r is **-inf where p_ij = 0**.

    Args:
        table: p_ij, of shape (kx, ky), at least 0, of sum 1, no row or column all 0.
        values_x: a_i, of shape (kx,), increasing; None is 0, 1, ...
        values_y: b_j, of shape (ky,), increasing; None is 0, 1, ...

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: If the table is not a distribution, a value has probability 0, or values do not
            fit the table or do not increase.

    Example:
        >>> law = DiscreteTable(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))  # a binary channel
        >>> law, round(law.mutual_information(), 4)
        (DiscreteTable(shape=(2, 2)), 0.1927)
    """

    dim_x = dim_y = 1
    _shown = ("shape",)

    def __init__(
        self, table: Tensor, values_x: Tensor | None = None, values_y: Tensor | None = None
    ) -> None:
        table = require_tensor("table", table, ndim=2)
        if not ((table >= 0).all() and abs(table.sum().item() - 1) < 1e-6):
            raise ValueError(
                "table must be at least 0 and sum to 1, got values in "
                f"[{table.min().item():.4g}, {table.max().item():.4g}] of sum "
                f"{table.sum().item():.6g}; divide by the sum."
            )
        if not ((table.sum(0) > 0).all() and (table.sum(1) > 0).all()):
            raise ValueError(
                "table must give every value some probability, got a row or column of zeros; "
                "drop that value."
            )
        self.shape = tuple(table.shape)
        self._table = table / table.sum()
        self._values = [
            self._as_values(name, values, size)
            for name, values, size in zip(
                ("values_x", "values_y"), (values_x, values_y), self.shape, strict=True
            )
        ]
        margins = self._table.sum(1, keepdim=True) * self._table.sum(0)
        self._log_ratios = (self._table / margins).log()

    @staticmethod
    def _as_values(name: str, values: Tensor | None, size: int) -> Tensor:
        if values is None:
            return torch.arange(size, dtype=torch.float64)
        values = require_tensor(name, values, ndim=1)
        if len(values) != size or not (values.diff() > 0).all():
            raise ValueError(
                f"{name} must be {size} increasing numbers, as the table has it, got "
                f"{values.tolist()}; sort them, and the table with them."
            )
        return values

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        cell = torch.multinomial(self._table.flatten(), n, replacement=True, generator=generator)
        i, j = cell // self.shape[1], cell % self.shape[1]
        return self._values[0][i, None], self._values[1][j, None]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log(p_ij / (p_i p_j)).

        Raises:
            ValueError: If an x or y is none of the values (to 1e-6 of the largest, for float32).
        """
        x, y = self._as_pair(x, y)
        return self._log_ratios[self._index("x", x, 0), self._index("y", y, 1)]

    def _index(self, name: str, given: Tensor, side: int) -> Tensor:
        values, given = self._values[side], given.squeeze(-1)
        middles = (values[1:] + values[:-1]) / 2
        index = torch.bucketize(given.contiguous(), middles)
        off = (values[index] - given).abs() > 1e-6 * values.abs().max()
        if off.any():
            raise ValueError(
                f"{name} must hold values of the table, got {given[off][0].item()!r}; the values "
                f"are {values.tolist()}."
            )
        return index

    def mutual_information(self) -> float:
        """Return Σ_ij p_ij log(p_ij / (p_i p_j))."""
        positive = self._table > 0
        return (self._table * self._log_ratios)[positive].sum().item()
