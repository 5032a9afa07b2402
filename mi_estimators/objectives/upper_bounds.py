"""CLUB and L1Out, upper bounds to be minimised, and LogLikelihood, which trains their critic.

All three need a critic T(x, y) = log q(x | y) that is a density over x, such as
`ConditionalGaussian`. They bound MI from above where q is the *true* conditional p(x | y), and only
there: with a learned q they are neither a bound from above nor from below, and may be negative. The
same critic bounds MI from below whatever q is (`LogLikelihood.estimate`), so the two bracket it.

To minimise I(X; Y) over what makes x or y, alternate (Cheng et al. 2020):

    fit, bound = MIEstimator(q, LogLikelihood(), Shuffled(1)), MIEstimator(q, CLUB())
    z = encoder(x)
    fit.loss(z.detach(), y).backward()  # 1. a step, or several, of q's own optimiser
    bound.penalty(z, y).backward()      # 2. a step of the encoder's; q gets no gradient
"""

from jaxtyping import Float
from torch import Tensor

from mi_estimators.objectives.contrastive import InfoNCE
from mi_estimators.objectives.objective import Objective
from mi_estimators.reductions import NoProduct, PositiveLeftOut, RowMean


class LogLikelihood(Objective):
    """Log-likelihood of a conditional density; the value is E_P[log q(x | y)] in nats, *not* MI.

    At most -H(X | Y), at q = p: it trains the critic of `CLUB` and `L1Out`. (Where H(X) is known,
    adding it gives the lower bound of Barber & Agakov 2003.) No negatives enter; in training,
    `Shuffled(1)` saves scoring them. `estimate` is MI in nats, a lower bound for every q: log q is
    log r up to a c(x), read out by `InfoNCE`, with its ceiling.

    Example:
        >>> import torch
        >>> from mi_estimators import ConditionalGaussian, MIEstimator, Shuffled
        >>> fit = MIEstimator(ConditionalGaussian(2, 3), LogLikelihood(), Shuffled(1))
        >>> fit.loss(torch.zeros(8, 2), torch.randn(8, 3)).item()  # N(0, 1) at the start: log 2 pi
        1.837...
    """

    source = "Barber & Agakov 2003; Cheng et al. 2020, CLUB"
    density = True
    reduction = NoProduct()

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction leaves it out."""
        return t

    def readout(self) -> Objective:
        """InfoNCE."""
        return InfoNCE()

    def ceiling(self, negatives: int) -> float:
        """That of InfoNCE."""
        return InfoNCE().ceiling(negatives)


class CLUB(Objective):
    """CLUB; the value is an upper bound on MI in nats if T is the true conditional log-density.

    E_P[T] - E_Q[T] with T = log q(x | y). At q = p(x | y) it is Jeffreys' divergence KL(P, Q) +
    KL(Q, P), so at least I, and 0 only for independence; the bound is loose: d (e^(2I/d) - 1) for
    correlated Gaussians, 6.39 for 1 nat in one dimension. With a learned q (vCLUB) it is I +
    KL(Q, q p(y)) - KL(P, q p(y)), no bound unless q is nearer to P than to Q, and maybe negative.

    Minimise it (`MIEstimator.penalty`) over what makes x and y; train q by `LogLikelihood`. Terms
    in x alone and in y alone cancel, so the true log p(y | x) gives the same value.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
        >>> CLUB()(PairScores(torch.full((2,), -1.0), torch.full((2, 5), -3.0))).item()
        2.0
    """

    kind = "upper bound"
    source = "Cheng et al. 2020, CLUB"
    density = True
    reduction = RowMean()

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself."""
        return t

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Jeffreys: (r - 1) log r."""
        return log_ratio.expm1() * log_ratio

    def readout(self) -> Objective:
        """Its own value."""
        return CLUB()


class L1Out(Objective):
    """Leave-one-out; the value is an upper bound on MI in nats if T is the true log q(x | y).

    E[T_i - log(1/K sum_j e^T_ij)] over the K negatives of a row, the positive left *out*: it is
    log q(x_i | y_i) over an estimate of log p(x_i), which by Jensen's inequality falls short on
    average. Tighter than `CLUB`, and I itself as K grows; with a learned q it is neither bound.

    The sum runs over the y_j that x_i is conditioned on. For a density q(y | x), pass (y, x) for
    (x, y): summed over the wrong side, it bounds nothing.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
        >>> L1Out()(PairScores(torch.full((2,), -1.0), torch.full((2, 5), -3.0))).item()
        2.0
    """

    kind = "upper bound"
    source = "Poole et al. 2019, On Variational Bounds of MI, leave-one-out upper bound"
    density = True
    reduction = PositiveLeftOut()

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself; the reduction takes the log-mean-exp."""
        return t

    def readout(self) -> Objective:
        """Its own value."""
        return L1Out()
