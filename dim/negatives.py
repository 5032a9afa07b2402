"""Negatives of local terms that the core does not have."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from mi_estimators import Negatives, NegativeSampler


@dataclass(frozen=True)
class ShuffledLocations(NegativeSampler):
    """One other sample for each row, at the same location; another one at every location.

    As `Shuffled` with k = 1, but each location is permuted on its own, so that the locations of a
    negative come from many samples (the 2018 code of Hjelm et al. 2019, whose permutations may
    leave samples in place; these do not). Without locations: `Shuffled`.

    Example:
        >>> indices = ShuffledLocations()((3, 2)).indices  # N locations K
        >>> indices.shape
        torch.Size([3, 2, 1])
        >>> (indices % 2).flatten(1).tolist()  # each location stays one
        [[0, 1], [0, 1], [0, 1]]
    """

    def draw(
        self,
        positions: Int64[Tensor, "N *rest"],
        groups: Int64[Tensor, " N"] | None,
        generator: torch.Generator | None,
    ) -> Negatives:
        """A random cycle through the batch for each location, one step."""
        device = positions.device
        drawn_on = device if generator is None else generator.device
        # Sorted random keys rather than torch.randperm, for a CUDA graph can record them.
        keys = torch.rand(positions.shape, generator=generator, device=drawn_on).to(device)
        cycles = keys.argsort(0)
        partners = torch.empty_like(cycles).scatter_(0, cycles, cycles.roll(-1, 0))
        mask = None
        if groups is not None:
            own = groups.view(-1, *[1] * (positions.ndim - 1))
            mask = (own != groups[partners]).unsqueeze(-1)
        return Negatives(positions.gather(0, partners).unsqueeze(-1), mask)
