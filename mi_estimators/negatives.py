"""Negative samplers: which pairs stand for p(x)p(y). By index, so nothing but numbers moves."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """Where the negatives of each row are.

    Attributes:
        indices: Positions in the flattened batch axes of y, shape `*#b K`. A first axis of length 1
            says that all rows share their candidates, so that these are gathered once.
        mask: False where a candidate belongs to the row's own group, with as many axes; or None.
    """

    indices: Int64[Tensor, "..."]
    mask: Bool[Tensor, "..."] | None = None


class NegativeSampler(ABC):
    """Draws negatives for a batch of y of shape `(N, *rest)`, `rest` being locations."""

    def __call__(
        self,
        shape: Sequence[int],
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Negatives:
        """Draw negatives.

        Args:
            shape: Batch shape of y, `(N, *rest)`.
            groups: One label a sample; samples of one group are not independent and never
                negatives of each other. Each sample is its own group by default.
            generator: Source of randomness.
            device: Where the indices go.

        Raises:
            ValueError: With fewer than two samples or two groups, or too few for the sampler.
        """
        n = shape[0]
        groups = None if groups is None else torch.as_tensor(groups, device=device)
        if n < 2:
            raise ValueError(f"batch: expected at least 2 samples to pair up, received {n}")
        if groups is not None and (groups.shape != (n,) or bool((groups == groups[0]).all())):
            raise ValueError(
                f"groups: expected {n} labels of at least 2 groups, received shape "
                f"{list(groups.shape)} with {groups.unique().numel()} of them; without an "
                f"independent sample in the batch there is no negative"
            )
        positions = torch.arange(torch.Size(shape).numel(), device=device).view(*shape)
        return self.draw(positions, groups, generator)

    @abstractmethod
    def draw(
        self,
        positions: Int64[Tensor, "N *rest"],
        groups: Int64[Tensor, " N"] | None,
        generator: torch.Generator | None,
    ) -> Negatives:
        """Choose among `positions`, the running numbers of the batch."""

    def select(
        self, v: Float[Tensor, "N *rest e"], drawn: Negatives
    ) -> Float[Tensor, "N *rest K e"]:
        """The encodings at `drawn.indices`; a sampler that draws all of them can return a view."""
        return v.flatten(0, -2)[drawn.indices]


@dataclass(frozen=True)
class InBatch(NegativeSampler):
    """All other samples of the batch, at the same location: N - 1 negatives a row.

    Example:
        >>> InBatch()((3,)).mask.sum().item()
        6
    """

    def draw(
        self,
        positions: Int64[Tensor, "N *rest"],
        groups: Int64[Tensor, " N"] | None,
        generator: torch.Generator | None,
    ) -> Negatives:
        """Every row shares the whole batch; the mask leaves out its own sample."""
        n, locations = positions.shape[0], positions.ndim - 1
        mask = _independent(n, groups, positions.device)
        return Negatives(positions.movedim(0, -1).unsqueeze(0), mask.view(n, *[1] * locations, n))

    def select(
        self, v: Float[Tensor, "N *rest e"], drawn: Negatives
    ) -> Float[Tensor, "1 *rest N e"]:
        """The batch itself, which a gather would copy and scatter the gradients of."""
        return v.movedim(0, -2).unsqueeze(0)


@dataclass(frozen=True)
class Shuffled(NegativeSampler):
    """k different samples of the batch for each row: permutations without fixed points.

    A random cycle through the whole batch, followed by 1 ... k steps, so that no row ever meets
    itself and none meets another twice. Locations of a sample move together.

    Args:
        k: Negatives a row.

    Raises:
        ValueError: If `k` is less than 1; on drawing, if it is more than N - 1.

    Example:
        >>> Shuffled(k=2)((3,)).indices.sort().values.tolist()
        [[1, 2], [0, 2], [0, 1]]
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1 or self.k != int(self.k):
            raise ValueError(f"k: expected a whole number of negatives, received {self.k}; try 1")

    def draw(
        self,
        positions: Int64[Tensor, "N *rest"],
        groups: Int64[Tensor, " N"] | None,
        generator: torch.Generator | None,
    ) -> Negatives:
        """One random cycle, k steps."""
        n, device = positions.shape[0], positions.device
        if self.k > n - 1:
            raise ValueError(
                f"k: expected at most {n - 1} negatives a row in a batch of {n} samples, received "
                f"{self.k}; enlarge the batch or lower k"
            )
        drawn_on = device if generator is None else generator.device
        # Sorted random keys rather than torch.randperm, for a CUDA graph can record them.
        cycle = torch.rand(n, generator=generator, device=drawn_on).argsort().to(device)
        partners = torch.empty(n, self.k, dtype=torch.int64, device=device)
        steps = torch.arange(n, device=device)[:, None] + torch.arange(1, self.k + 1, device=device)
        partners[cycle] = cycle[steps % n]
        mask = None
        if groups is not None:
            mask = (groups[:, None] != groups[partners]).view(
                n, *[1] * (positions.ndim - 1), self.k
            )
        return Negatives(positions[partners].movedim(1, -1), mask)


@dataclass(frozen=True)
class AllLocations(NegativeSampler):
    """All locations of all other samples: (N - 1) L negatives a row. Without locations: `InBatch`.

    Example:
        >>> AllLocations()((3, 5)).indices.shape
        torch.Size([1, 1, 15])
    """

    def draw(
        self,
        positions: Int64[Tensor, "N *rest"],
        groups: Int64[Tensor, " N"] | None,
        generator: torch.Generator | None,
    ) -> Negatives:
        """Every row shares every location; the mask leaves out its own sample's."""
        n, locations = positions.shape[0], positions.ndim - 1
        mask = _independent(n, groups, positions.device)
        each = positions.numel() // n
        return Negatives(
            positions.view(*[1] * positions.ndim, -1),
            mask.repeat_interleave(each, dim=1).view(n, *[1] * locations, n * each),
        )

    def select(self, v: Float[Tensor, "N *rest e"], drawn: Negatives) -> Float[Tensor, "... K e"]:
        """The batch itself, as one list."""
        return v.reshape(*[1] * (v.ndim - 1), -1, v.shape[-1])


def _independent(
    n: int, groups: Int64[Tensor, " N"] | None, device: torch.device
) -> Bool[Tensor, "N N"]:
    labels = torch.arange(n, device=device) if groups is None else groups
    return labels[:, None] != labels
