"""KSG: mutual information from nearest neighbours, for few dimensions."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor


@dataclass(frozen=True)
class KSG:
    """Nearest-neighbour estimator (Kraskov et al. 2004, Eq. 8), in nats; no bound.

    psi(k) + psi(N) - mean(psi(n_x + 1) + psi(n_y + 1)), n counting the samples strictly within the
    max-norm distance of the k-th neighbour. Nearly unbiased where the density hardly changes within
    that distance: in up to about 3 dimensions together, at a few nats; low beyond (Gao et al.
    2015).

    Args:
        k: Neighbours; more give less variance and more bias.

    Raises:
        ValueError: If k is less than 1.

    Example:
        >>> x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> y = x + x.roll(1, 0)  # I = log(2) / 2 = 0.347 nats
        >>> abs(KSG().pointwise(x, y).mean().item() - 0.347) < 0.05
        True
    """

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k: expected at least 1 neighbour, received {self.k}; try 3")

    def pointwise(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> Float[Tensor, " N"]:
        """Each sample's term, in nats; the mean is the estimate.

        Raises:
            ValueError: If there are not more than k samples, or many fall on one point: distances
                of 0 say nothing (discrete data, rounded data, duplicates).
        """
        n = len(x)
        if n <= self.k:
            raise ValueError(f"x: expected more than k = {self.k} samples, received {n}")
        a, b = x.double().cpu().numpy(), y.double().cpu().numpy()
        both = np.concatenate([a, b], axis=1)
        distances = cKDTree(both).query(both, self.k + 1, p=np.inf)[0][:, -1]
        if not distances.all():
            raise ValueError(
                f"x, y: expected continuous samples, received {np.sum(distances == 0)} whose "
                f"{self.k} nearest neighbours are copies of them; drop duplicates, or use a critic"
            )
        within = np.nextafter(distances, 0)  # strictly
        counts = [
            cKDTree(side).query_ball_point(side, within, p=np.inf, return_length=True)
            for side in (a, b)
        ]  # each sample counts itself, which is the + 1
        terms = digamma(self.k) + digamma(n) - digamma(counts[0]) - digamma(counts[1])
        return torch.from_numpy(terms)
