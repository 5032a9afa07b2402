"""What a law with known mutual information offers: the contract, and its shapes."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

Real = float | int  # beartype, unlike type checkers, does not take an int for a float
Pairs = tuple[Float[Tensor, "n dx"], Float[Tensor, "n dy"]]
Xs = Float[Tensor, "*#b dx"]
Ys = Float[Tensor, "*#b dy"]
Ratios = Float[Tensor, "*b"]


class JointDistribution(ABC):
    """A law of pairs (X, Y) whose mutual information is known.

    A subclass sets `dim_x` and `dim_y`, implements the three abstract methods and names in `_shown`
    the attributes that its repr prints.
    """

    dim_x: int
    dim_y: int
    _shown: ClassVar[tuple[str, ...]] = ("dim_x", "dim_y")

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n independent pairs; the same generator state gives the same pairs."""

    @abstractmethod
    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log p(x, y) / (p(x) p(y)) in nats.

        Leading axes broadcast: `log_ratio(x[:, None], y[None])` is the score matrix of x against y,
        whose memory grows with N² and not with N² dim.

        Raises:
            ValueError: If a last axis is not `dim_x` (`dim_y`) long.
        """

    @abstractmethod
    def mutual_information(self) -> float:
        """Return I(X; Y) in nats."""

    def monte_carlo_mutual_information(
        self, n: int, generator: Generator | None = None
    ) -> tuple[float, float]:
        """Return the mean of log r over n fresh pairs and its standard error, both in nats.

        Raises:
            ValueError: If n < 2, which leaves no standard error.
        """
        if n < 2:
            raise ValueError(f"n must be at least 2 to have a standard error, got {n}; draw more.")
        values = self.log_ratio(*self.sample(n, generator=generator))
        return values.mean().item(), values.std().item() / math.sqrt(n)

    def _as_pair(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # A last axis of length 1 would broadcast without an error, hence the check.
        for name, value, dim in (("x", x, self.dim_x), ("y", y, self.dim_y)):
            if value.shape[-1:] != (dim,):
                raise ValueError(
                    f"{name} must have a last axis of dim_{name} = {dim}, "
                    f"got shape {tuple(value.shape)}; reshape it to (..., {dim})."
                )
        return x.double(), y.double()

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self._shown)
        arguments = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v!r}" for k, v in shown)
        return f"{type(self).__name__}({', '.join(arguments)})"


def require_tensor(name: str, value: Any, ndim: int) -> Tensor:
    """Return value in float64 on the CPU, or say what about the argument `name` is wrong."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(value).__name__}; "
            "convert it by torch.as_tensor(value, dtype=torch.float64)."
        )
    if value.ndim != ndim or not value.isfinite().all():
        raise ValueError(
            f"{name} must be finite and have {ndim} axes, got shape {tuple(value.shape)}; "
            "reshape it and look for NaN."
        )
    return value.double().cpu()


def require_weights(weights: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Return weights, of sum 1 to float64's rounding, or say that they are not a distribution."""
    if not ((weights > 0).all() and abs(weights.sum().item() - 1) < 1e-6):
        raise ValueError(
            f"weights must be positive and sum to 1, got {weights.tolist()}; drop components "
            "of weight 0 and divide by the sum."
        )
    return weights / weights.sum()  # a float32 sum is 1 to 1e-7 only


def require_law(name: str, value: Any) -> JointDistribution:
    """Return value, or say that it is no law."""
    if not isinstance(value, JointDistribution):
        raise TypeError(f"{name} must be a JointDistribution, got {value!r}; pass an instance.")
    return value
