"""How an objective averages its product terms, and what follows from that.

A variational objective is E_P[a(T)] - R[b(T)] with P = p(x, y), Q = p(x)p(y): a term `a` on joint
scores, a term `b` on product scores, and a reduction R of the latter. There are three:

| reduction       | R[b]                                               | used by          |
|-----------------|----------------------------------------------------|------------------|
| `Mean`          | E_Q[b]                                             | JSD, NWJ, f-div. |
| `LogMeanExp`    | log E_Q[e^b]: one log over all pairs               | DV, MINE         |
| `RowLogMeanExp` | E_x log E_y[e^b]: one log a row, positive included | InfoNCE          |

Each knows its statistics (one number a row, which add up over tiles), the value made from them, the
constant in T that it cannot see, and the influence of each sample, hence standard errors.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mi_estimators.scores import PairScores


@dataclass(frozen=True)
class Statistics:
    """All that an objective needs to know of its scores: three numbers a row.

    Rows are samples (and locations). Tiles of other rows are joined by `Statistics.cat`, tiles of
    other columns (negatives of the same rows) by `Reduction.add`; both are exact.

    Attributes:
        joint: The joint term a(T_i), shape `*b`.
        product: The row's total of its product terms: a sum or a log-sum-exp, shape `*#b`.
        pairs: How many valid pairs are in that total, shape `*#b`.
    """

    joint: Float[Tensor, "*b"]
    product: Float[Tensor, "*#b"]
    pairs: Float[Tensor, "*#b"]

    @staticmethod
    def cat(tiles: "Sequence[Statistics]") -> "Statistics":
        """Join tiles of different rows."""
        return Statistics(
            torch.cat([tile.joint for tile in tiles]),
            torch.cat([tile.product for tile in tiles]),
            torch.cat([tile.pairs for tile in tiles]),
        )


class Reduction(ABC):
    """How product terms become one number; see the table on top of this module.

    Attributes:
        sees_constants: Whether a constant added to T changes the value.
    """

    sees_constants: ClassVar[bool] = False

    @abstractmethod
    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Total of the valid product terms of each row, additive under `add_totals`."""

    @abstractmethod
    def add_totals(self, a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Total over two sets of columns from the total over each."""

    @abstractmethod
    def value(self, statistics: Statistics) -> Float[Tensor, ""]:
        """E_P[a] - R[b]."""

    @abstractmethod
    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """Per-sample terms whose mean is the value, the log linearised (delta method)."""

    @abstractmethod
    def offset(self, scores: PairScores) -> Float[Tensor, "..."]:
        """The constant in log r that this reduction cannot see, one for all or one a row."""

    @abstractmethod
    def influence(
        self, statistics: Statistics, columns: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """How far each sample pulls the value (infinitesimal jackknife), for in-batch negatives.

        Every sample takes part as a row, as a column, and on the diagonal; the influences have mean
        0 and their standard deviation over sqrt(N) is the standard error of the value.
        `columns` comes from `column_totals`.
        """

    def column_totals(
        self,
        statistics: Statistics,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
    ) -> Float[Tensor, " N"]:
        """What `influence` needs of the columns of a square, symmetric-masked block of scores."""
        return self.total(values.T, mask)

    def add(self, a: Statistics, b: Statistics) -> Statistics:
        """Join tiles that hold different negatives of the same rows."""
        return Statistics(a.joint, self.add_totals(a.product, b.product), a.pairs + b.pairs)


class Pooled(Reduction, ABC):
    """One number for all valid pairs, R[b], taken off the mean joint term."""

    @abstractmethod
    def reduced(self, statistics: Statistics) -> Float[Tensor, ""]:
        """R[b]."""

    @abstractmethod
    def pull(self, statistics: Statistics, totals: Float[Tensor, "*c"]) -> Float[Tensor, "*c"]:
        """How far rows (or columns) with these totals pull R[b]: its derivative by their weight."""

    def value(self, statistics: Statistics) -> Float[Tensor, ""]:
        """E_P[a] - R[b]."""
        return statistics.joint.mean() - self.reduced(statistics)

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - R[b] - what row i adds to it, to first order."""
        rows = self.pull(statistics, statistics.product)
        return statistics.joint - self.reduced(statistics) - rows

    def influence(
        self, statistics: Statistics, columns: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Derivative of the value by the weight of each sample, times N."""
        joint = statistics.joint - statistics.joint.mean()
        rows = self.pull(statistics, statistics.product)
        return joint - rows - self.pull(statistics, columns)


class Mean(Pooled):
    """E_Q[b]: the mean over all valid pairs. Sees every constant in T."""

    sees_constants = True

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Sum over the row."""
        return (values if mask is None else values.masked_fill(~mask, 0.0)).sum(-1)

    def add_totals(self, a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Sums add."""
        return a + b

    def reduced(self, statistics: Statistics) -> Float[Tensor, ""]:
        """E_Q[b]."""
        return statistics.product.sum() / statistics.pairs.sum()

    def pull(self, statistics: Statistics, totals: Float[Tensor, "*c"]) -> Float[Tensor, "*c"]:
        """The total beyond what as many average pairs have, in units of the mean."""
        excess = totals - self.reduced(statistics) * statistics.pairs
        return totals.numel() * excess / statistics.pairs.sum()

    def offset(self, scores: PairScores) -> Float[Tensor, ""]:
        """Zero: it sees them all."""
        return scores.joint.new_zeros(())


class LogMeanExp(Pooled):
    """log E_Q[e^b]: one log over all valid pairs. Blind to a constant in T."""

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Log-sum-exp over the row."""
        return log_sum_exp(values, mask)

    def add_totals(self, a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log-sum-exps add inside the log."""
        return torch.logaddexp(a, b)

    def reduced(self, statistics: Statistics) -> Float[Tensor, ""]:
        """The number log E_Q[e^b]."""
        return statistics.product.flatten().logsumexp(0) - statistics.pairs.sum().log()

    def pull(self, statistics: Statistics, totals: Float[Tensor, "*c"]) -> Float[Tensor, "*c"]:
        """The share of E_Q[e^b] beyond the share of the pairs."""
        share = (totals - statistics.product.flatten().logsumexp(0)).exp()
        return totals.numel() * (share - statistics.pairs / statistics.pairs.sum())

    def offset(self, scores: PairScores) -> Float[Tensor, ""]:
        """The log-mean-exp over all valid pairs."""
        return self.reduced(statistics_of(scores, self))


class RowLogMeanExp(Reduction):
    """E_x log E_y[e^b] with the row's positive among its candidates. Blind to a c(x) in T."""

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Log-sum-exp over the row's negatives."""
        return log_sum_exp(values, mask)

    def add_totals(self, a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log-sum-exps add inside the log."""
        return torch.logaddexp(a, b)

    def value(self, statistics: Statistics) -> Float[Tensor, ""]:
        """Mean of the terms."""
        return self.terms(statistics).mean()

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - log((e^a_i + sum_j e^b_ij) / (K_i + 1)), at most log(K_i + 1)."""
        return (
            statistics.joint
            - torch.logaddexp(statistics.joint, statistics.product)
            + (statistics.pairs + 1).log()
        )

    def offset(self, scores: PairScores) -> Float[Tensor, "*b"]:
        """The log-mean-exp of the row."""
        return scores.joint - self.terms(statistics_of(scores, self))

    def column_totals(
        self,
        statistics: Statistics,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
    ) -> Float[Tensor, " N"]:
        """By how much each column, as a candidate, exceeds its fair share of all the rows."""
        normaliser = torch.logaddexp(statistics.joint, statistics.product)
        excess = (values - normaliser[:, None]).exp() - 1 / (statistics.pairs + 1)[:, None]
        own = (statistics.joint - normaliser).exp() - 1 / (statistics.pairs + 1)
        return own + (excess if mask is None else excess.masked_fill(~mask, 0.0)).sum(0)

    def influence(
        self, statistics: Statistics, columns: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The row's own term, less what the sample takes from other rows as their candidate."""
        terms = self.terms(statistics)
        return terms - terms.mean() - columns


def log_sum_exp(
    values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None = None
) -> Float[Tensor, "*b"]:
    """Masked log-sum-exp over the last axis; -inf, with zero gradient, for a row without pairs."""
    if mask is None:
        return values.logsumexp(-1)
    empty = ~mask.any(-1, keepdim=True)
    # An all -inf row has NaN gradients, so an empty row keeps its values until after the sum.
    kept = values.masked_fill(~(mask | empty), -math.inf).logsumexp(-1)
    return kept.masked_fill(empty.squeeze(-1), -math.inf)


def statistics_of(scores: PairScores, reduction: Reduction) -> Statistics:
    """Statistics of terms that are already in place of the scores."""
    values, mask = scores.product, scores.mask
    if mask is None:
        pairs = torch.full_like(values[..., 0], values.shape[-1])
    else:
        values, mask = torch.broadcast_tensors(values, mask)
        pairs = mask.sum(-1, dtype=values.dtype)
    return Statistics(scores.joint, reduction.total(values, mask), pairs)
