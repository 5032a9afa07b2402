"""Critics: what scores a pair. Encode once, score many."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Critic(nn.Module, ABC):
    """T(x, y), split so that N encodings a side serve all N^2 pairs.

    Encodings carry their features on the last axis and any batch axes before it.
    """

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
        f, g = (_Shortcut(dim, *[hidden] * layers, embedding) for dim in (dim_x, dim_y))
        for parameter in (*g.perceptron[-1].parameters(), *g.linear.parameters()):
            nn.init.zeros_(parameter)
        return cls(f, g)

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
        # einsum lowers [N, 1, e] x [1, N, e] to one matrix product; nothing is expanded.
        return torch.einsum("...e,...e->...", u, v)


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
        return torch.einsum("...e,...e->...", u, v)


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


class _Shortcut(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.perceptron = mlp(*widths)
        self.linear = nn.Linear(widths[0], widths[-1], bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.perceptron(x) + self.linear(x)
