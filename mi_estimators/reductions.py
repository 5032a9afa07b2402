"""How an objective averages its product terms, and what follows from that.

A variational objective is E_P[a(T)] - R[b(T)] with P = p(x, y), Q = p(x)p(y): a term `a` on joint
scores, a term `b` on product scores, and a reduction R of the latter:

| reduction         | R[b]                                               | used by          |
|-------------------|----------------------------------------------------|------------------|
| `Mean`            | E_Q[b]                                             | JSD, NWJ, f-div. |
| `LogMeanExp`      | log E_Q[e^b]: one log over all pairs               | DV, MINE         |
| `RowLogMeanExp`   | E_x log E_y[e^b]: one log a row, positive included | InfoNCE          |
| `PositiveLeftOut` | E_x log E_y[e^b]: one log a row, negatives alone   | L1Out            |
| `Interpolated`    | between the row's log and the row's mean of e^b    | AlphaInfoNCE     |
| `Anchored`        | one log a row for each of two scenes, with anchor  | InfoNCEAnchor    |
| `RowMean`         | E_x E_y[b]: one mean a row                         | CLUB             |
| `NoProduct`       | 0: real pairs alone                                | LogLikelihood    |

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
    """All that an objective needs to know of its scores: a few numbers a row.

    Rows are samples (and locations). Tiles of other rows are joined by `Statistics.cat`, tiles of
    other columns (negatives of the same rows) by `Reduction.add`; both are exact.

    Attributes:
        joint: The joint term a(T_i), shape `*b`.
        product: The row's total of its product terms: a sum or a log-sum-exp, shape `*#b`
            (`Anchored` keeps two numbers of them, shape `*#b 2`).
        pairs: How many valid pairs are in that total, shape `*#b`.
    """

    joint: Float[Tensor, "*b"]
    product: Float[Tensor, "..."]
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
        needs_many: Whether the value at the optimal critic is what it is said to be only in the
            limit of many negatives a row.
    """

    sees_constants: bool = False
    needs_many: ClassVar[bool] = False

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


class Sums(Reduction, ABC):
    """Totals of rows are sums."""

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Sum over the row."""
        return (values if mask is None else values.masked_fill(~mask, 0.0)).sum(-1)

    def add_totals(self, a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Sums add."""
        return a + b


class LogSums(Reduction, ABC):
    """Totals of rows are log-sum-exps."""

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "..."]:
        """Log-sum-exp over the row."""
        return log_sum_exp(values, mask)

    def add_totals(self, a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log-sum-exps add inside the log."""
        return torch.logaddexp(a, b)


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


class Mean(Sums, Pooled):
    """E_Q[b]: the mean over all valid pairs. Sees every constant in T."""

    sees_constants = True

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


class LogMeanExp(LogSums, Pooled):
    """log E_Q[e^b]: one log over all valid pairs. Blind to a constant in T."""

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


class Rows(LogSums, ABC):
    """One number a row, averaged over the rows; totals are log-sum-exps, unless overridden.

    A row without valid pairs counts as 0.
    """

    needs_many = True

    def value(self, statistics: Statistics) -> Float[Tensor, ""]:
        """Mean of the terms."""
        return self.terms(statistics).mean()

    def offset(self, scores: PairScores) -> Float[Tensor, "..."]:
        """What the row's terms take off its joint scores."""
        return scores.joint - self.terms(statistics_of(scores, self))

    def column_totals(
        self,
        statistics: Statistics,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
    ) -> Float[Tensor, " N"]:
        """What each column, by its weight among the negatives, takes from the terms of all rows."""
        with torch.enable_grad():
            log_weights = torch.zeros_like(values[0], requires_grad=True)
            weights = log_weights.exp().expand(values.shape)
            pairs = (weights if mask is None else weights * mask).sum(-1)
            totals = self.weighted_total(values.detach() + log_weights, mask, pairs)
            terms = self.terms(Statistics(statistics.joint.detach(), totals, pairs))
            (gradient,) = torch.autograd.grad(terms.sum(), log_weights)
        return -gradient

    def weighted_total(
        self,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
        pairs: Float[Tensor, " N"],
    ) -> Float[Tensor, "..."]:
        """Total of columns that no longer count alike: `pairs` are the weights of each row."""
        return self.total(values, mask)

    def influence(
        self, statistics: Statistics, columns: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The row's own term, less what the sample takes from other rows as their candidate."""
        pulls = self.terms(statistics) - columns
        return pulls - pulls.mean()


class RowLogMeanExp(Rows):
    """E_x log E_y[e^b] with the row's positive among its candidates. Blind to a c(x) in T."""

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - log((e^a_i + sum_j e^b_ij) / (K_i + 1)), at most log(K_i + 1)."""
        return (
            statistics.joint
            - torch.logaddexp(statistics.joint, statistics.product)
            + (statistics.pairs + 1).log()
        )

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


class PositiveLeftOut(Rows):
    """E_x log E_y[e^b] over the row's negatives alone. Blind to a c(x) in T."""

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - log(sum_j e^b_ij / K_i)."""
        valid = statistics.pairs > 0
        mean = statistics.product.masked_fill(~valid, 0.0) - statistics.pairs.clamp(min=1).log()
        return (statistics.joint - mean).masked_fill(~valid, 0.0)


class Interpolated(Rows):
    """The log of a row at alpha = 1, its mean of e^b at alpha = 0, a valid bound in between.

    A row's candidates are weighed against A(m) = alpha m + 1 - alpha, m being a mean of e^b over K
    candidates: in the row's real scene the positive and K - 1 negatives, in its independent scene K
    negatives. Which of the K negatives makes room for the positive is anyone's choice; here each
    gives up 1/K of its weight, which by Jensen's inequality is never more than the mean over the
    choices. (With all K beside the positive, the scenes would differ in size, and the value could
    exceed I: by an eighth at K = 1, alpha = 1/2 and little dependence.)

    Args:
        alpha: In [0, 1].
    """

    def __init__(self, alpha: float | int) -> None:
        self.alpha = alpha
        self.sees_constants = alpha < 1

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """1 + a_i - log A((e^a_i + (1 - 1/K) sum_j e^b_ij) / K) - m / A(m), m = mean_j e^b_ij."""
        valid = statistics.pairs > 0
        total, pairs = statistics.product.masked_fill(~valid, 0.0), statistics.pairs.clamp(min=1)
        independent = total - pairs.log()
        real = torch.logaddexp(statistics.joint, independent + (pairs - 1).log()) - pairs.log()
        terms = 1 + statistics.joint - self._log_baseline(real)
        terms = terms - (independent - self._log_baseline(independent)).exp()
        return terms.masked_fill(~valid, 0.0)

    def _log_baseline(self, log_mean: Float[Tensor, "*c"]) -> Float[Tensor, "*c"]:
        """The number log A(m)."""
        constant = torch.full_like(log_mean, _log(1 - self.alpha))
        return torch.logaddexp(log_mean + _log(self.alpha), constant)

    def offset(self, scores: PairScores) -> Float[Tensor, "..."]:
        """Zero, unless alpha is 1: then the log-mean-exp of the row."""
        return scores.joint.new_zeros(()) if self.sees_constants else super().offset(scores)


class Anchored(Rows):
    """Two scenes a row, each with K candidates and an anchor of weight nu. Sees every constant.

    In the real scene the positive takes the place of the row's last valid negative; both scenes
    share the other K - 1. So the total of a row is two numbers: the log-sum-exp of the negatives
    that both scenes share, and the last negative, which only the independent scene has.

    Args:
        nu: Weight of the anchor, positive; None for K, that of all candidates together.
    """

    sees_constants = True

    def __init__(self, nu: float | int | None) -> None:
        self.nu = nu

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b 2"]:
        """Log-sum-exp of all negatives but the last, and the last."""
        mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        position = torch.arange(values.shape[-1], device=values.device)
        last = position == torch.where(mask, position, -1).amax(-1, keepdim=True)
        return torch.stack([log_sum_exp(values, mask & ~last), log_sum_exp(values, last)], dim=-1)

    def weighted_total(
        self,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
        pairs: Float[Tensor, " N"],
    ) -> Float[Tensor, "N 2"]:
        """Every negative as the last for 1/K of the time: without a sample, another is the last."""
        total, log_pairs = log_sum_exp(values, mask), pairs.clamp(min=1).log()
        return torch.stack([total + (-1 / pairs.clamp(min=1)).log1p(), total - log_pairs], dim=-1)

    def add_totals(
        self, a: Float[Tensor, "*b 2"], b: Float[Tensor, "*b 2"]
    ) -> Float[Tensor, "*b 2"]:
        """The last negative is that of b, unless b has none; all others are shared."""
        empty = b[..., 1:].isneginf()
        both = torch.stack([torch.logaddexp(a.logsumexp(-1), b[..., 0]), b[..., 1]], dim=-1)
        return torch.where(empty, a, both)

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - log((nu + e^a_i + s) / (K + nu)) - nu/K log((nu + e^b_iK + s) / (K + nu)).

        Here s is the sum of e^b_ij over the K - 1 negatives that the scenes share.
        """
        shared, last = statistics.product.unbind(-1)
        pairs = statistics.pairs.clamp(min=1)
        nu = pairs if self.nu is None else torch.full_like(pairs, self.nu)
        shared, fair = torch.logaddexp(nu.log(), shared), (pairs + nu).log()
        real = statistics.joint - torch.logaddexp(shared, statistics.joint) + fair
        independent = torch.logaddexp(shared, last) - fair
        terms = real - nu / pairs * independent
        return terms.masked_fill(statistics.pairs == 0, 0.0)

    def offset(self, scores: PairScores) -> Float[Tensor, ""]:
        """Zero: it sees them all."""
        return scores.joint.new_zeros(())


class RowMean(Sums, Rows):
    """E_x E_y[b]: one mean a row. Blind to a c(x) in T, however many negatives each row has."""

    needs_many = False

    def terms(self, statistics: Statistics) -> Float[Tensor, "*b"]:
        """a_i - sum_j b_ij / K_i."""
        terms = statistics.joint - statistics.product / statistics.pairs.clamp(min=1)
        return terms.masked_fill(statistics.pairs == 0, 0.0)

    def offset(self, scores: PairScores) -> Float[Tensor, "..."]:
        """What makes E_y[r] = 1 in each row: the log-mean-exp of its candidates."""
        return RowLogMeanExp().offset(scores)

    def column_totals(
        self,
        statistics: Statistics,
        values: Float[Tensor, "N N"],
        mask: Bool[Tensor, "N N"] | None,
    ) -> Float[Tensor, " N"]:
        """By how much each column exceeds the means of its rows."""
        pairs = statistics.pairs.clamp(min=1)[:, None]
        excess = (values - statistics.product[:, None] / pairs) / pairs
        return (excess if mask is None else excess.masked_fill(~mask, 0.0)).sum(0)


class NoProduct(Sums, Pooled):
    """0: the mean joint term is all there is, for critics that are densities by construction."""

    def total(
        self, values: Float[Tensor, "*b K"], mask: Bool[Tensor, "*c K"] | None
    ) -> Float[Tensor, "*b"]:
        """Zero."""
        return values.new_zeros(values.shape[:-1])

    def reduced(self, statistics: Statistics) -> Float[Tensor, ""]:
        """Zero."""
        return statistics.joint.new_zeros(())

    def pull(self, statistics: Statistics, totals: Float[Tensor, "*c"]) -> Float[Tensor, "*c"]:
        """Zero."""
        return totals

    def offset(self, scores: PairScores) -> Float[Tensor, "..."]:
        """What makes E_y[r] = 1 in each row: the log-mean-exp of its candidates."""
        return RowLogMeanExp().offset(scores)


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


def _log(weight: float | int) -> float:
    return math.log(weight) if weight else -math.inf
