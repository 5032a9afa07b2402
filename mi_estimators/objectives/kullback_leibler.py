"""DV and MINE: MI as a Kullback-Leibler divergence, with one log over all pairs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mi_estimators.objectives.objective import Objective
from mi_estimators.reductions import LogMeanExp
from mi_estimators.scores import PairScores


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
    reduction: LogMeanExp = LogMeanExp()
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
