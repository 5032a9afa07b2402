"""InfoNCE and its relatives: the positive among the negatives of its row."""

import math

from jaxtyping import Float
from torch import Tensor

from mi_estimators.objectives.objective import Objective
from mi_estimators.reductions import Anchored, Interpolated, RowLogMeanExp


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


class AlphaInfoNCE(Objective):
    """I_alpha, from NWJ to InfoNCE; the value is MI in nats, a lower bound for every alpha.

    1 + E_P[log e^T / A] - E_Q[e^T / A] with the baseline A = alpha m + (1 - alpha) e, m being the
    mean of e^T over the K candidates of a row. At alpha = 0 it is `NWJ`; at alpha = 1 the last term
    is 1, which leaves InfoNCE over K candidates (`InfoNCE` has K + 1: the positive and all K
    negatives). In between it trades NWJ's variance for InfoNCE's bias. For alpha < 1 the optimal T
    is 1 + log r as K grows, as for NWJ; the value is at most 1 + log(K / alpha).

    Poole et al. average over x for each y; here rows are x, and the average is over the y_j of a
    row: MI does not care. A row weighs the same however many valid negatives it has.

    Args:
        alpha: In [0, 1]: 0 for the least bias, 1 for the least variance.

    Raises:
        ValueError: If `alpha` is outside [0, 1].

    Example:
        >>> import torch
        >>> from mi_estimators import NWJ, PairScores
        >>> scores = PairScores(torch.tensor([2.0, 3.0]), torch.tensor([[0.0, 1.0], [1.0, 2.0]]))
        >>> torch.allclose(AlphaInfoNCE(0.0)(scores), NWJ()(scores))
        True
        >>> AlphaInfoNCE(0.5).ceiling(100)  # 1 + log 200
        6.298...
    """

    source = "Poole et al. 2019, On Variational Bounds of MI, I_alpha"

    def __init__(self, alpha: float | int = 0.5) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: expected a number in [0, 1], received {alpha}; try 0.5")
        self.alpha = alpha
        self.reduction = Interpolated(alpha)

    def joint_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """T - 1: the reduction has its constant at 1 where NWJ has it at e."""
        return t - 1

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """T - 1."""
        return t - 1

    def from_log_ratio(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """1 + log r."""
        return 1 + log_ratio

    def to_log_ratio(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """T - 1."""
        return t - 1

    def readout(self) -> Objective:
        """Its own value."""
        return AlphaInfoNCE(self.alpha)

    def ceiling(self, negatives: int) -> float:
        """1 + log(K / alpha), and log K at alpha = 1, where E_Q[e^T / A] is 1 for certain."""
        if not self.alpha:
            return math.inf
        return math.log(negatives / self.alpha) + (self.alpha < 1)

    def extra_repr(self) -> str:
        """The interpolation."""
        return f"alpha={self.alpha}"


class InfoNCEAnchor(Objective):
    """InfoNCE with an anchor; the value is a divergence between scenes in nats, *not* MI.

    Which of the K candidates of x is its partner, or none (the anchor class, of prior weight nu
    against 1 for each candidate)? With S the sum of e^T over the candidates in view, the value is

        E_real[T - log((nu + S) / (K + nu))] - nu/K E_independent[log((nu + S) / (K + nu))],

    (K + nu) / K times the mutual information between the class and the scene, and 0 at T = 0. The
    log score being proper, and the posterior odds of a candidate against the anchor being r / nu,
    the optimum is T = log r for every K: no c(x) is left free, as InfoNCE leaves it. With one
    negative it is `JSD` (nu = 1); as nu goes to 0, InfoNCE over K candidates.

    Both scenes have K candidates, K being the number of negatives of the row: in the real one, the
    positive takes the place of the last. With scenes of K + 1 and K candidates, the optimum would
    miss log r by up to about 1/K.

    `estimate` is MI in nats, a lower bound in expectation, 1 + E_P[T] - E_Q[e^T] as for `JSD`; the
    paper's plug-in E_P[T] is `log_ratio(scores).joint.mean()`, no bound. There is no ceiling.

    Args:
        nu: Weight of the anchor against 1 for each candidate; by default K, so that half of the
            scenes are without partner. The pull that fixes the constant of a row has the weight
            nu / K. At nu = 1, the paper's, and many negatives it is too light for few steps of
            training, and the constants, which the readouts exponentiate, stay wrong.

    Raises:
        ValueError: If `nu` is not positive and finite.

    Example:
        >>> import torch
        >>> from mi_estimators import JSD, PairScores
        >>> scores = PairScores(torch.tensor([2.0, 3.0]), torch.tensor([[0.0], [1.0]]))
        >>> torch.allclose(InfoNCEAnchor()(scores), JSD()(scores))
        True
    """

    source = "Ryu et al. 2025, Contrastive Predictive Coding Done Right (arXiv 2510.25983)"

    def __init__(self, nu: float | int | None = None) -> None:
        super().__init__()
        if nu is not None and not 0 < nu < math.inf:
            raise ValueError(
                f"nu: expected a positive, finite weight, received {nu}; leave it out for a weight "
                f"of 1 a negative"
            )
        self.nu = nu
        self.reduction = Anchored(nu)

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction takes the logs."""
        return t

    def extra_repr(self) -> str:
        """The weight."""
        return f"nu={self.nu}"
