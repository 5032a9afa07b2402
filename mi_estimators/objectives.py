"""Objectives: what turns the scores of pairs into one number to maximise.

P = p(x, y), Q = p(x)p(y), r = dP/dQ, T the critic, sp = softplus, I = E_P[log r] in nats.

| objective | joint term    | product term     | reduction     | optimal T       | value at it |
|-----------|---------------|------------------|---------------|-----------------|-------------|
| JSD       | log2 - sp(-T) | sp(T) - log2     | mean          | log r           | 2 JS(P, Q)  |
| DV, MINE  | T             | T                | log-mean-exp  | log r + c       | I           |
| NWJ       | T             | e^(T-1)          | mean          | 1 + log r       | I           |
| InfoNCE   | T             | T                | row-log-m.-e. | log r + c(x)    | <= log(K+1) |
| SMILE     | as JSD        | as JSD           | as JSD        | log r           | 2 JS(P, Q)  |

Every objective is a sum of parts, and the parts are all there is: `statistics`, `value`, per-sample
`terms`, the log-ratio and the estimate in nats follow from them. A new objective states its parts
and passes `mi_estimators.testing.check_objective`.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mi_estimators.reductions import (
    LogMeanExp,
    Mean,
    Reduction,
    RowLogMeanExp,
    Statistics,
    statistics_of,
)
from mi_estimators.scores import PairScores

Kind = Literal["lower bound", "upper bound", "neither"]


class Objective(nn.Module, ABC):
    """A variational objective E_P[a(T)] - R[b(T)], to be maximised over critics T.

    A subclass states its parts: `joint_term` a, `product_term` b, `reduction` R, the critic that is
    optimal (`from_log_ratio`, `to_log_ratio`), and the divergence reached there (`generator`).

    Attributes:
        kind: What `estimate` is to the true MI, in expectation over data that the critic never saw.
        source: Paper and equation.
        reduction: How product terms are averaged.
    """

    kind: ClassVar[Kind] = "lower bound"
    source: ClassVar[str] = "not stated"
    reduction: ClassVar[Reduction] = Mean()

    def joint_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Term a on the scores of real pairs: the score itself, unless overridden."""
        return t

    @abstractmethod
    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Term b on the scores of independent pairs."""

    def from_log_ratio(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The optimal score for a log density ratio: log r itself, unless overridden."""
        return log_ratio

    def to_log_ratio(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Inverse of `from_log_ratio`."""
        return t

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """f(r) of the divergence E_Q[f(r)] that the optimal critic reaches: KL = MI by default."""
        return log_ratio.exp() * log_ratio

    def readout(self) -> "Objective":
        """The objective whose value, at this one's critic, is the estimate in nats."""
        return NWJ()

    def ceiling(self, negatives: int) -> float:
        """The largest estimate that this many negatives a row can give, in nats."""
        return math.inf

    def statistics(self, scores: PairScores) -> Statistics:
        """What this objective keeps of the scores; additive over tiles."""
        return statistics_of(self.apply_terms(scores), self.reduction)

    def apply_terms(self, scores: PairScores) -> PairScores:
        """The terms a and b in place of the scores, in float32 or wider."""
        joint, product = _at_least_float32(scores.joint), _at_least_float32(scores.product)
        if scores.mask is not None:
            # A masked score must not overflow in b: its gradient would be 0 * inf. The reduction
            # leaves the entry out whatever stands there.
            product = torch.where(scores.mask, product, 0.0)
        return PairScores(self.joint_term(joint), self.product_term(product), scores.mask)

    def value(self, statistics: Statistics) -> Float[Tensor, ""]:
        """The objective from its statistics.

        Raises:
            ValueError: If there is no valid pair (not looked for on a GPU, which it would stall).
        """
        if not statistics.pairs.is_cuda and not statistics.pairs.any():
            raise ValueError("mask: expected at least one independent pair, received False for all")
        return self.reduction.value(statistics)

    def terms(self, scores: PairScores) -> Float[Tensor, "*b"]:
        """Per-sample terms, whose mean is the objective's value."""
        return self.reduction.terms(self.statistics(scores))

    def forward(self, scores: PairScores) -> Float[Tensor, ""]:
        """The number to maximise."""
        return self.value(self.statistics(scores))

    def log_ratio(self, scores: PairScores) -> PairScores:
        """The log density ratios that the scores stand for, in nats.

        A constant that the objective cannot see (DV: one, InfoNCE: one a row) is fixed by
        E_Q[r] = 1.
        """
        ratios = scores.map(_at_least_float32).map(self.to_log_ratio)
        offset = self.reduction.offset(ratios)
        return PairScores(ratios.joint - offset, ratios.product - offset.unsqueeze(-1), scores.mask)

    def estimate(self, scores: PairScores) -> Float[Tensor, ""]:
        """Mutual information in nats, read out of the scores by `readout()`."""
        readout = self.readout()
        return readout.value(readout.statistics(self.log_ratio(scores).map(readout.from_log_ratio)))


class JSD(Objective):
    """Jensen-Shannon objective; the value is 2 JS(P, Q) in nats, a divergence and *not* MI.

    E_P[-sp(-T)] - E_Q[sp(T)] + 2 log 2, at most 2 log 2, and 0 at T = 0: 2 (log 2 - H), H being the
    balanced cross-entropy of telling real pairs from independent ones. `estimate` is MI in nats, a
    lower bound in expectation: the optimal T is log r, read out as 1 + E_P[T] - E_Q[e^T] (Poole et
    al. 2019, JS-NWJ); -inf where e^T overflows.

    Bounded, low in variance and content with few negatives, hence the default everywhere.

    Example:
        >>> scores = PairScores(torch.zeros(4), torch.zeros(4, 3))
        >>> JSD()(scores).item(), JSD().estimate(scores).item()
        (0.0, 0.0)
    """

    source = "Nowozin et al. 2016, f-GAN; Hjelm et al. 2019, Deep InfoMax, Eq. 4"

    def joint_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """log(2 sigmoid(T))."""
        return math.log(2) - softplus(-t)

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """-log(2 (1 - sigmoid(T)))."""
        return softplus(t) - math.log(2)

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """2 JS: r log r - (1 + r) log((1 + r) / 2)."""
        r = log_ratio.exp()
        return r * log_ratio - (1 + r) * (softplus(log_ratio) - math.log(2))


class DV(Objective):
    """Donsker-Varadhan; the value is MI in nats, a lower bound when taken over all the data.

    E_P[T] - log E_Q[e^T], tight at T = log r + c. The log of a *minibatch* mean is biased upwards
    (about chi2(P||Q) / 2M for M negatives), so an average over batches is not a bound. Over
    locations there is one log over all valid pairs: a bound on the mean location's MI.

    Example:
        >>> DV()(PairScores(torch.ones(2), torch.zeros(2, 5))).item()
        1.0
    """

    source = "Donsker & Varadhan 1983; Belghazi et al. 2018, MINE"
    reduction = LogMeanExp()

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction takes the log-mean-exp."""
        return t

    def readout(self) -> Objective:
        """Its own value."""
        return DV()


class MINE(Objective):
    """MINE; the value is that of `DV` in nats, a lower bound over all the data.

    Only the gradient differs (Eq. 12): the denominator of E_Q[e^T dT] / E_Q[e^T] is a moving
    average over batches, which removes most of the bias of the minibatch gradient. The average is
    kept in log space, corrected for its cold start, in a buffer that only training updates.

    Args:
        decay: Of the moving average, in [0, 1): 0 is the gradient of `DV`.

    Raises:
        ValueError: If `decay` is outside [0, 1).

    Example:
        >>> MINE(decay=0.9)
        MINE(decay=0.9)
    """

    source = "Belghazi et al. 2018, MINE, Eq. 12"
    reduction: ClassVar[LogMeanExp] = LogMeanExp()
    log_average: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), received {decay}; try 0.99")
        self.decay = decay
        self.register_buffer("log_average", torch.tensor(-math.inf))
        self.register_buffer("updates", torch.tensor(0))

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction takes the log-mean-exp."""
        return t

    def readout(self) -> Objective:
        """The value of DV."""
        return DV()

    def forward(self, scores: PairScores) -> Float[Tensor, ""]:
        """The value of DV, with the gradient of Eq. 12 in training mode."""
        statistics = self.statistics(scores)
        value = self.value(statistics)
        if not (self.training and torch.is_grad_enabled()):
            return value
        log_mean = self.reduction.reduced(statistics)
        surrogate = statistics.joint.mean() - (log_mean - self._average(log_mean.detach())).exp()
        return surrogate + (value - surrogate).detach()

    def _average(self, log_mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Take one batch into the average; log of the average, corrected for its cold start."""
        self.updates += 1
        new = log_mean + math.log1p(-self.decay)
        if self.decay:
            new = torch.logaddexp(self.log_average + math.log(self.decay), new)
        # A batch that overflows must not stay in the average for good.
        self.log_average.copy_(torch.where(new.isfinite(), new, self.log_average))
        return new - torch.log1p(-(self.decay ** self.updates.to(new.dtype)))

    def extra_repr(self) -> str:
        """The decay."""
        return f"decay={self.decay}"


class NWJ(Objective):
    """Nguyen-Wainwright-Jordan; the value is MI in nats, a lower bound on every batch in mean.

    E_P[T] - E_Q[e^(T-1)], also known as f-GAN KL and MINE-f; tight at T = 1 + log r. Unbiased, but
    its variance grows like e^I; where e^(T-1) overflows, the value is -inf and the gradient not
    finite. Not for more than about 4 nats.

    Example:
        >>> NWJ()(PairScores(torch.ones(2), torch.ones(2, 5))).item()
        0.0
    """

    source = "Nguyen et al. 2010; Nowozin et al. 2016, f-GAN (KL)"

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """e^(T - 1)."""
        return (t - 1).exp()

    def from_log_ratio(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """1 + log r."""
        return 1 + log_ratio

    def to_log_ratio(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """T - 1."""
        return t - 1

    def readout(self) -> Objective:
        """Its own value."""
        return NWJ()


class InfoNCE(Objective):
    """InfoNCE; the value is MI in nats, a lower bound that never exceeds log(K + 1).

    E[T_i - log((e^T_i + sum_j e^T_ij) / (K + 1))] over K negatives a row, the positive inside the
    sum; tight at T = log r + c(x) as K grows. Low in variance, biased downwards near its ceiling.

    Example:
        >>> InfoNCE()(PairScores(torch.full((2,), 99.0), torch.zeros(2, 3))).item()  # log 4
        1.386...
    """

    source = "van den Oord et al. 2018, CPC, Eq. 4; Poole et al. 2019"
    reduction = RowLogMeanExp()

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction takes the log-mean-exp."""
        return t

    def readout(self) -> Objective:
        """Its own value."""
        return InfoNCE()

    def ceiling(self, negatives: int) -> float:
        """log(K + 1)."""
        return math.log(negatives + 1)


class SMILE(Objective):
    """SMILE; trains as `JSD` (the value is 2 JS(P, Q) in nats) and reads out a clipped DV.

    The estimate, E_P[T] - log E_Q[clip(e^T, e^-tau, e^tau)], is MI in nats and no bound: clipping
    buys low variance and biases it upwards once log r exceeds tau.

    Args:
        tau: Where the product scores are clipped, in nats.

    Raises:
        ValueError: If `tau` is not positive.

    Example:
        >>> SMILE()
        SMILE(tau=5.0)
    """

    kind = "neither"
    source = "Song & Ermon 2020, SMILE"

    joint_term, product_term, generator = JSD.joint_term, JSD.product_term, JSD.generator

    def __init__(self, tau: float = 5.0) -> None:
        super().__init__()
        if not tau > 0:
            raise ValueError(f"tau: expected a positive number of nats, received {tau}; try 5.0")
        self.tau = tau

    def readout(self) -> Objective:
        """DV with clipped product scores."""
        return _ClippedDV(self.tau)

    def extra_repr(self) -> str:
        """The clip."""
        return f"tau={self.tau}"


class _ClippedDV(Objective):
    """DV with product scores clipped to [-tau, tau]: nats, no bound, for scores that are log r."""

    kind = "neither"
    source = SMILE.source
    reduction = LogMeanExp()

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return t.clamp(-self.tau, self.tau)


def _at_least_float32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
