"""The one message between critics and objectives: the scores of pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class PairScores:
    """Critic values on dependent pairs and on pairs that stand for independence.

    With x_i as rows and y_j as columns, S[i, j] = T(x_i, y_j), `joint` is the diagonal of S and
    `product[i]` holds the K negatives of row i. `*b` is any batch shape: `(N,)` for arrays,
    `(N, L)` for L locations in each of N images.

    Attributes:
        joint: T on samples of p(x, y), shape `*b`.
        product: T on samples of p(x)p(y), shape `*b K`, or with axes of length 1 where rows share
            their negatives.
        mask: False where a pair of `product` is *not* independent. It has as many axes as
            `product`: one fewer would broadcast onto the wrong axis without an error.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> scores = PairScores(torch.zeros(3), torch.zeros(3, 3), ~torch.eye(3, dtype=torch.bool))
        >>> scores.negatives
        3
    """

    joint: Float[Tensor, "..."]
    product: Float[Tensor, "..."]
    mask: Bool[Tensor, "..."] | None = None

    def __post_init__(self) -> None:
        batch = self.joint.shape
        if self.product.ndim != len(batch) + 1 or not _broadcasts(self.product.shape[:-1], batch):
            raise ValueError(
                f"product: expected the shape of joint and one axis of negatives, "
                f"{_shape(batch, 'K')}, received {_shape(self.product.shape)}; put the negatives "
                f"of each joint score on the last axis"
            )
        if not self.product.shape[-1]:
            raise ValueError("product: expected at least one negative a row, received none")
        if self.mask is not None and (
            self.mask.ndim != self.product.ndim
            or not _broadcasts(self.mask.shape, (*batch, self.product.shape[-1]))
        ):
            raise ValueError(
                f"mask: expected the axes of product, {_shape(self.product.shape)} (length 1 "
                f"where it repeats), received {_shape(self.mask.shape)}; add the missing axes by "
                f"name, as in mask[:, None, :]"
            )

    @property
    def negatives(self) -> int:
        """K, the number of negatives in a row, masked ones included."""
        return self.product.shape[-1]

    def map(self, f: Callable[[Tensor], Tensor]) -> "PairScores":
        """The same pairs with `f` applied to every score."""
        return PairScores(f(self.joint), f(self.product), self.mask)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) == len(target) and all(
        a in (1, b) for a, b in zip(shape, target, strict=True)
    )


def _shape(shape: tuple[int, ...] | torch.Size, *more: str) -> str:
    return "[" + ", ".join([*map(str, shape), *more]) + "]"
