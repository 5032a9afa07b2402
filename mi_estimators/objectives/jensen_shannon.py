"""JSD, and SMILE, which trains like it."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from mi_estimators.objectives.objective import Objective
from mi_estimators.reductions import LogMeanExp


class JSD(Objective):
    """Jensen-Shannon objective; the value is 2 JS(P, Q) in nats, a divergence and *not* MI.

    E_P[-sp(-T)] - E_Q[sp(T)] + 2 log 2, at most 2 log 2, and 0 at T = 0: 2 (log 2 - H), H being the
    balanced cross-entropy of telling real pairs from independent ones. `estimate` is MI in nats, a
    lower bound in expectation: the optimal T is log r, read out as 1 + E_P[T] - E_Q[e^T] (Poole et
    al. 2019, JS-NWJ); -inf where e^T overflows.

    Bounded, low in variance and content with few negatives, hence the default everywhere.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
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
