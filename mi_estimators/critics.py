"""Critics: what scores a pair. Encode once, score many."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus


class Critic(nn.Module, ABC):
    """T(x, y), split so that N encodings a side serve all N^2 pairs.

    Encodings carry their features on the last axis and any batch axes before it.

    Attributes:
        density: Whether T(x, y) = log q(x | y), a density over x that integrates to 1 for each y.
    """

    density: ClassVar[bool] = False

    @abstractmethod
    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """The part of the work that needs x alone."""

    @abstractmethod
    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """The part of the work that needs y alone."""

    @abstractmethod
    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """Scores of encoded pairs; leading axes broadcast."""

    def forward(self, x: Tensor, y: Tensor) -> Float[Tensor, "..."]:
        """T(x_i, y_i), pair by pair."""
        return self.score(self.encode_x(x), self.encode_y(y))


def inner(u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
    """Inner products along the last axis; leading axes broadcast.

    All pairs, where no leading axis is longer than 1 on both sides, are one matrix product of the
    encodings as they lie in memory: none is copied, forward or backward.

    Example:
        >>> inner(torch.ones(5, 1, 2), torch.ones(1, 3, 2)).shape
        torch.Size([5, 3])
    """
    axes = range(max(u.ndim, v.ndim) - 1)
    u, v = (t[(None,) * (len(axes) + 1 - t.ndim)] for t in (u, v))
    if any(u.shape[axis] != 1 != v.shape[axis] for axis in axes):
        return torch.einsum("...e,...e->...", u, v)
    of_u = sorted((axis for axis in axes if u.shape[axis] != 1), key=u.stride, reverse=True)
    of_v = sorted((axis for axis in axes if axis not in of_u), key=v.stride, reverse=True)
    order = [*of_u, *of_v]
    rows, columns = (t.permute(*order, -1).reshape(-1, t.shape[-1]) for t in (u, v))
    shape = [*(u.shape[axis] for axis in of_u), *(v.shape[axis] for axis in of_v)]
    return (rows @ columns.mT).view(shape).permute([order.index(axis) for axis in axes])


class Separable(Critic):
    """T(x, y) = <f(x), g(y)>: all pairs cost one matrix product.

    Args:
        f: Any module from x to an embedding on the last axis, shape `*b e`.
        g: The same for y, with as many embedding dimensions.

    Example:
        >>> critic = Separable(nn.Linear(5, 8), nn.Linear(3, 8))
        >>> critic(torch.zeros(4, 5), torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.g = g

    @classmethod
    def mlp(
        cls, dim_x: int, dim_y: int, *, hidden: int = 128, layers: int = 2, embedding: int = 32
    ) -> "Separable":
        """Two perceptrons with linear shortcuts, for arrays; T = 0 (independence) at the start.

        The shortcuts make the bilinear form x^T A y, all that linear dependence needs, free.
        """
        f, g = (Shortcut(dim, *[hidden] * layers, embedding) for dim in (dim_x, dim_y))
        return cls(f, g.start_at_zero())

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """f(x)."""
        return self.f(x)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """g(y)."""
        return self.g(y)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The inner product."""
        if u.shape[-1] != v.shape[-1]:
            raise ValueError(
                f"f and g: expected embeddings of one size, received {u.shape[-1]} and "
                f"{v.shape[-1]}; give both the same number of outputs"
            )
        return inner(u, v)


class Bilinear(Critic):
    """T(x, y) = x^T W y (van den Oord et al. 2018, Eq. 3).

    Args:
        dim_x: Features of x, on its last axis.
        dim_y: Features of y, on its last axis.

    Example:
        >>> Bilinear(5, 3)(torch.zeros(4, 5), torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, dim_x: int, dim_y: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim_x, dim_y, bias=False)

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """W^T x."""
        return self.weight(x)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """The vector y itself."""
        return y

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The inner product."""
        return inner(u, v)


class Concat(Critic):
    """T(x, y) = MLP([x, y]), with the first layer split as W_x x + W_y y + b.

    The same function as on concatenated pairs, but those are never in memory, and the first layer
    costs N products a side and not N^2.

    Args:
        dim_x: Features of x, on its last axis.
        dim_y: Features of y, on its last axis.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers, at least 1.
        activation: Between the layers.

    Example:
        >>> Concat(5, 3)(torch.zeros(4, 5), torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.first_x = nn.Linear(dim_x, hidden, bias=False)
        self.first_y = nn.Linear(dim_y, hidden)
        with torch.no_grad():  # as if the layer were one: the scale of its fan-in is dim_x + dim_y
            bound = (dim_x + dim_y) ** -0.5
            for parameter in (self.first_x.weight, self.first_y.weight, self.first_y.bias):
                parameter.uniform_(-bound, bound)
        self.rest = nn.Sequential(activation(), mlp(*[hidden] * layers, 1, activation=activation))

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """W_x x."""
        return self.first_x(x)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """W_y y + b."""
        return self.first_y(y)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The remaining layers on the sum."""
        return self.rest(u + v).squeeze(-1)


class TUBA(Critic):
    """T(x, y) - log a(y) with a learned baseline a, to be maximised by `NWJ` (Poole et al. 2019).

    NWJ of this score is the TUBA bound 1 + E_P[T - log b(y)] - E_Q[e^T / b(y)] with b = e a: NWJ's
    own constant is part of what the baseline learns. At the optimum b(y) = E_x[e^T]: the baseline
    takes over the normalisation of T, one number for each y, which in NWJ is left to T.

    Args:
        critic: T.
        log_baseline: Any module from y to log a on the last axis, shape `*b 1`.

    Raises:
        ValueError: On encoding, if `log_baseline` does not give one number for each encoding of y.

    Example:
        >>> from mi_estimators import NWJ, MIEstimator
        >>> critic = TUBA(Separable.mlp(5, 3), log_baseline=mlp(3, 64, 1))
        >>> MIEstimator(critic, NWJ()).loss(torch.randn(64, 5), torch.randn(64, 3)).shape
        torch.Size([])
    """

    def __init__(self, critic: Critic, log_baseline: nn.Module) -> None:
        super().__init__()
        self.critic = critic
        self.log_baseline = log_baseline

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        """What the critic makes of x."""
        return self.critic.encode_x(x)

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """What the critic makes of y, and log a(y) as one more feature."""
        v, log_baseline = self.critic.encode_y(y), self.log_baseline(y)
        if log_baseline.shape != (*v.shape[:-1], 1):
            raise ValueError(
                f"log_baseline: expected one number for each encoding of y, shape "
                f"{[*v.shape[:-1], 1]}, received {list(log_baseline.shape)}; let it end in one "
                f"feature, as in mlp(dim_y, 64, 1)"
            )
        return torch.cat([v, log_baseline], dim=-1)

    def score(self, u: Float[Tensor, "*a d"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The critic's score less log a(y)."""
        return self.critic.score(u, v[..., :-1]) - v[..., -1]


class ConditionalGaussian(Critic):
    """T(x, y) = log q(x | y), q a normal density with mean and variances learned from y.

    log q = -1/2 sum_k [(x_k - m_k(y))^2 / s_k(y) + log(2 pi s_k(y))], for `LogLikelihood` to train
    and for `CLUB` and `L1Out`. Mean and variances are a perceptron with a linear shortcut; at the
    start q is N(0, 1) for every y: independence, so standardise x. The variances are
    s = least_variance + softplus(.), which neither overflow nor reach 0, and have no upper limit.

    Scoring N x N pairs takes N^2 dim_x numbers: squares are taken of differences, not expanded, as
    expanding them would lose the digits that a small variance needs.

    Args:
        dim_x: Features of x, on its last axis: what is predicted.
        dim_y: Features of y, on its last axis: what it is predicted from.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        least_variance: Where x is a function of y, the likelihood has no maximum: it would grow
            until variances are 0. They stop here.

    Raises:
        ValueError: If `least_variance` is not positive; on encoding, if x does not have `dim_x`
            features.

    Example:
        >>> critic = ConditionalGaussian(1, 3)
        >>> critic(torch.zeros(4, 1), torch.randn(4, 3))  # -1/2 log(2 pi)
        tensor([-0.9189, -0.9189, -0.9189, -0.9189], grad_fn=<MulBackward0>)
    """

    density = True

    def __init__(
        self,
        dim_x: int,
        dim_y: int,
        *,
        hidden: int = 128,
        layers: int = 2,
        least_variance: float = 1e-6,
    ) -> None:
        super().__init__()
        if not least_variance > 0:
            raise ValueError(
                f"least_variance: expected a positive number, received {least_variance}; try 1e-6"
            )
        self.dim_x = dim_x
        self.least_variance = least_variance
        self.network = Shortcut(dim_y, *[hidden] * layers, 2 * dim_x).start_at_zero()

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b d"]:
        """The vector x itself."""
        if x.shape[-1] != self.dim_x:  # one feature would broadcast onto all
            raise ValueError(
                f"x: expected {self.dim_x} features on the last axis (dim_x), received shape "
                f"{list(x.shape)}"
            )
        return x

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        """Means of x, and what softplus makes its variances, one after the other."""
        return self.network(y)

    def score(self, u: Float[Tensor, "*a d"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The log-density."""
        mean, raw = v.chunk(2, dim=-1)
        variance = self.least_variance + softplus(raw + _UNIT)
        squares = (u - mean).square() / variance
        return -0.5 * (squares + (2 * math.pi * variance).log()).sum(-1)


_UNIT = math.log(math.expm1(1))  # softplus of this is 1


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """A perceptron with an activation between its layers: `mlp(in, hidden, ..., out)`.

    Example:
        >>> mlp(3, 64, 1)(torch.zeros(10, 3)).shape
        torch.Size([10, 1])
    """
    layers: list[nn.Module] = []
    for dim_in, dim_out in pairwise(widths):
        layers += [nn.Linear(dim_in, dim_out), activation()]
    return nn.Sequential(*layers[:-1])


class Shortcut(nn.Module):
    """A perceptron beside a linear layer, which makes all that is linear free.

    Args:
        widths: As of `mlp`.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.perceptron = mlp(*widths)
        self.linear = nn.Linear(widths[0], widths[-1], bias=False)

    def start_at_zero(self) -> "Shortcut":
        """Itself, with outputs of 0 until it is trained."""
        for parameter in (*self.perceptron[-1].parameters(), *self.linear.parameters()):
            nn.init.zeros_(parameter)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Both, added."""
        return self.perceptron(x) + self.linear(x)
