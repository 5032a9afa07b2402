"""f-divergences: D_f(P, Q) = E_Q[f(r)] for a convex f with f(1) = 0, as variational objectives.

Every critic T gives a lower bound E_P[a(T)] - E_Q[b(T)] on D_f, tight at the optimal T. In f-GAN's
notation a is the output activation g_f and b = f*(g_f), so that a = f'(r) at the optimum. Two of
the family live in files of their own:

| objective          | f(r)                          | a(T)          | b(T)         | optimal T   |
|--------------------|-------------------------------|---------------|--------------|-------------|
| `NWJ` (KL)         | r log r                       | T             | e^(T-1)      | 1 + log r   |
| `ReverseKL`        | -log r                        | 1 - e^-T      | T            | log r       |
| `SquaredHellinger` | (sqrt(r) - 1)^2               | 1 - e^-T      | e^T - 1      | 1/2 log r   |
| `PearsonChi2`      | (r - 1)^2                     | T             | T^2/4 + T    | 2 (r - 1)   |
| `JSD` (2 JS)       | r log r - (1+r) log((1+r)/2)  | log2 - sp(-T) | sp(T) - log2 | log r       |

Only KL is mutual information. The others learn a density ratio, each with its own stress, and are
read out in nats as a lower bound by NWJ at T = 1 + log r: `estimate` is 1 + E_P[log r] - E_Q[r].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mi_estimators.objectives.objective import Objective


class ReverseKL(Objective):
    """Reverse Kullback-Leibler; the value is KL(Q, P) in nats (lautum information), *not* MI.

    1 - E_P[e^-T] - E_Q[T], tight at T = log r, a lower bound on E_Q[-log r]: infinite where some
    pairs never occur together. `estimate` is MI in nats, a lower bound in expectation. For
    correlated Gaussians the value is d rho^2 / (1 - rho^2) - I. Where e^-T overflows, on real pairs
    that the critic holds for impossible, the value is -inf. Not for learning MI: it stresses small
    ratios and hardly sees large ones, on which the readout hangs, often far below 0.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
        >>> ReverseKL()(PairScores(torch.zeros(2), torch.full((2, 5), -1.0))).item()
        1.0
    """

    source = "Nowozin et al. 2016, f-GAN, Tables 1 and 2 (reverse KL)"

    def joint_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """1 - e^-T."""
        return -torch.expm1(-t)

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The score itself."""
        return t

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """-log r."""
        return -log_ratio


class SquaredHellinger(Objective):
    """Squared Hellinger distance; the value is 2 (1 - BC(P, Q)), in [0, 2] and *not* MI.

    E_P[1 - e^-T] - E_Q[e^T - 1], tight at T = 1/2 log r; BC is the Bhattacharyya coefficient
    E_Q[sqrt(r)]. `estimate` is MI in nats, a lower bound in expectation. Symmetric in P and Q; half
    as prone to overflow as KL. For correlated Gaussians BC = ((1 - rho^2)^(1/4) / (1 -
    rho^2/4)^(1/2))^d.

    Example:
        >>> import torch
        >>> from mi_estimators import PairScores
        >>> SquaredHellinger()(PairScores(torch.full((2,), 99.0), torch.full((2, 5), -99.0))).item()
        2.0
    """

    source = "Nowozin et al. 2016, f-GAN, Tables 1 and 2 (squared Hellinger)"

    def joint_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """1 - e^-T."""
        return -torch.expm1(-t)

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """e^T - 1."""
        return torch.expm1(t)

    def from_log_ratio(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """1/2 log r."""
        return log_ratio / 2

    def to_log_ratio(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """2 T."""
        return 2 * t

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """(sqrt(r) - 1)^2."""
        return torch.expm1(log_ratio / 2) ** 2


class PearsonChi2(Objective):
    """Pearson's chi-squared divergence; the value is E_Q[(r - 1)^2], *not* MI.

    E_P[T] - E_Q[T^2/4 + T], tight at T = 2 (r - 1): least squares for the ratio itself. `estimate`
    is MI in nats, a lower bound in expectation. For correlated Gaussians the value is e^(2I) - 1,
    and its variance makes it useless from about 2 nats on; learned critics read low before.

    No ratio belongs to a score of -2 or less, which says r <= 0. Such a score, and any that says
    r < `floor`, reads as r = `floor`: the readout is a lower bound for every critic, this one
    included, and stays finite.

    Args:
        floor: The least density ratio that a score stands for.

    Raises:
        ValueError: If `floor` is outside (0, 1).

    Example:
        >>> import torch
        >>> PearsonChi2(floor=0.1).to_log_ratio(torch.tensor([-5.0, -2.0, 0.0])).exp()
        tensor([0.1000, 0.1000, 1.0000])
    """

    source = "Nowozin et al. 2016, f-GAN, Tables 1 and 2 (Pearson chi^2)"

    def __init__(self, floor: float = 1e-4) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"floor: expected a ratio in (0, 1), received {floor}; try 1e-4")
        self.floor = floor

    def product_term(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """T^2/4 + T."""
        return t * t / 4 + t

    def from_log_ratio(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """2 (r - 1)."""
        return 2 * torch.expm1(log_ratio)

    def to_log_ratio(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """log(1 + T/2), at least log(floor)."""
        return torch.log1p((t / 2).clamp(min=self.floor - 1))

    def generator(self, log_ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """(r - 1)^2."""
        return torch.expm1(log_ratio) ** 2

    def extra_repr(self) -> str:
        """The floor."""
        return f"floor={self.floor}"
