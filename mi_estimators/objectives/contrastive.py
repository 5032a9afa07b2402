"""InfoNCE: the positive among the negatives of its row."""

import math

from jaxtyping import Float
from torch import Tensor

from mi_estimators.objectives.objective import Objective
from mi_estimators.reductions import RowLogMeanExp


class InfoNCE(Objective):
    """InfoNCE; the value is MI in nats, a lower bound that never exceeds log(K + 1).

    E[T_i - log((e^T_i + sum_j e^T_ij) / (K + 1))] over K negatives a row, the positive inside the
    sum; tight at T = log r + c(x) as K grows. Low in variance, biased downwards near its ceiling.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
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
