"""Objective: what an objective states, and what follows; NWJ, by which most are read out."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_estimators.reductions import Mean, Reduction, Statistics, statistics_of
from mi_estimators.scores import PairScores

Kind = Literal["lower bound", "upper bound", "neither"]


class Objective(nn.Module, ABC):
    """A variational objective E_P[a(T)] - R[b(T)], to be maximised over critics T.

    (An upper bound is not: it is minimised over what makes x and y, at a critic trained otherwise.)

    A subclass states its parts: `joint_term` a, `product_term` b, `reduction` R, the critic that is
    optimal (`from_log_ratio`, `to_log_ratio`), and the divergence reached there (`generator`).

    Attributes:
        kind: What `estimate` is to the true MI, in expectation over data that the critic never saw.
        source: Paper and equation.
        density: Whether the critic must be a conditional log-density, T = log q(x | y) with
            `Critic.density`; the optimum is then the true conditional.
        reduction: How product terms are averaged.
    """

    kind: ClassVar[Kind] = "lower bound"
    source: ClassVar[str] = "not stated"
    density: ClassVar[bool] = False
    reduction: Reduction = Mean()

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


def _at_least_float32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
