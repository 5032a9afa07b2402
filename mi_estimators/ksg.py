"""KSG: mutual information from nearest neighbours, for few dimensions."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from mi_estimators.readout import Evaluation, mean_of
from mi_estimators.samples import as_samples

FAR = 4  # times as many neighbours, for the extrapolation
SIMPLE = 3  # dimensions up to which one power of the distance prevails in the bias
CLEAR = 4.0  # standard errors from which on, in more, a trend in k is extrapolated
PARTS = 20  # of the samples, that show how much an estimate varies
SMALL, LARGE = 100, 1000  # samples in a part


@dataclass(frozen=True)
class KSG:
    """Nearest-neighbour estimator (Kraskov et al. 2004, Eq. 8), in nats; no bound.

    psi(k) + psi(N) - mean(psi(n_x + 1) + psi(n_y + 1)), n counting the samples strictly within the
    max-norm distance of the k-th neighbour: `pointwise`. Nearly unbiased where the density hardly
    changes within that distance; low beyond (Gao et al. 2015).

    `estimate` extrapolates: twice this less its value for 4k. What an edge of the density costs
    grows as that distance, what curvature costs as its square; in 2 dimensions the former, in 4
    the latter grows as the square root of k, and cancels. Weights on several k that cancel orders
    of bias are those of Moon et al. (2018). From 4 dimensions on several such terms meet, of both
    signs: there only a trend in k of four standard errors is extrapolated.

    Args:
        k: Neighbours; more give less variance and more bias.

    Raises:
        ValueError: If k is less than 1, or no whole number.

    Example:
        >>> x = np.random.default_rng(0).standard_normal(2000)
        >>> y = x + np.roll(x, 1)  # I = log(2) / 2 = 0.347 nats
        >>> estimate = KSG().estimate(x, y)
        >>> abs(estimate.value - 0.347) < 2 * estimate.standard_error() < 0.1
        True
    """

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 1 or int(self.k) != self.k:
            raise ValueError(
                f"k: expected at least 1 neighbour, a whole number, received {self.k}; try 3"
            )

    @property
    def least(self) -> int:
        """Samples of two parts with 4k neighbours each."""
        return 2 * (FAR * self.k + 1)

    def check(self, n: int) -> None:
        """Refuse (ValueError) fewer samples than `least`."""
        if n < self.least:
            raise ValueError(
                f"neighbours: expected at least {self.least} samples for k = {self.k}, received "
                f"{n}; collect more, or take a smaller k"
            )

    def estimate(self, x: Any, y: Any) -> Evaluation:
        """The value extrapolated in k, and how each sample pulls it.

        Distances are between samples as they are: `NormalScores` first make columns comparable.

        A sample also pulls the terms of its neighbours, so that the mean varies more than its
        terms tell; how much more is seen on random parts of the samples (Holmes and Nemenman 2019).

        Args:
            x: Samples, shape `[N]` or `[N, d_x]`.
            y: Their partners, shape `[N]` or `[N, d_y]`.

        Raises:
            TypeError: If x or y does not hold real numbers.
            ValueError: If they differ in length, hold NaN or infinities or have more than 2 axes,
                if there are fewer than 8k + 2 samples, or many fall on one point.
        """
        samples = as_samples(x, y)
        x, y, n = samples.x, samples.y, len(samples)
        self.check(n)
        terms, covariance = self._near_and_far(x, y), self._covariance_of_parts(x, y)

        def evaluation(*weights: int) -> Evaluation:
            w = torch.tensor(weights, dtype=torch.float64)
            mean = mean_of(w @ terms)
            seen = math.sqrt(max(0.0, (w @ covariance @ w).item()) / n)
            inflation = max(1.0, seen / max(mean.standard_error(), sys.float_info.min))
            return Evaluation(mean.value, inflation * mean.influence)

        trend = evaluation(1, -1)
        simple = x.shape[1] + y.shape[1] <= SIMPLE
        return evaluation(2, -1) if simple or trend.exceeds(CLEAR) else evaluation(1, 0)

    def _covariance_of_parts(self, x: Tensor, y: Tensor) -> Float[Tensor, "2 2"]:
        """Of the estimates for k and for 4k, times the samples they are made of."""
        n, random = len(x), np.random.default_rng(0)
        size = max(min(max(n // 10, SMALL), n // 2, LARGE), FAR * self.k + 1)
        cuts = -(-PARTS * size // n)
        total = torch.zeros(2, 2, dtype=torch.float64)
        for _ in range(cuts):
            parts = random.permutation(n)[: n // size * size].reshape(-1, size)[:PARTS]
            total += torch.cov(
                torch.stack([self._near_and_far(x[rows], y[rows]).mean(1) for rows in parts]).mT
            )
        return size / cuts * total

    def _near_and_far(self, x: Tensor, y: Tensor) -> Float[Tensor, "2 N"]:
        return torch.stack(self._terms(x, y, (self.k, FAR * self.k)))

    def pointwise(self, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> Float[Tensor, " N"]:
        """Each sample's term, in nats, as published; nothing is extrapolated.

        Raises:
            ValueError: If there are not more than k samples, or many fall on one point: distances
                of 0 say nothing (discrete data, rounded data, duplicates).
        """
        return self._terms(x, y, (self.k,))[0]

    def _terms(self, x: Tensor, y: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        """Each sample's term, for several numbers of neighbours."""
        n = len(x)
        if n <= max(numbers):
            raise ValueError(f"x: expected more than k = {self.k} samples, received {n}")
        a, b = x.double().cpu().numpy(), y.double().cpu().numpy()
        both = np.concatenate([a, b], axis=1)
        nearest = cKDTree(both).query(both, [k + 1 for k in numbers], p=np.inf)[0]
        if not nearest.all():
            raise ValueError(
                f"x, y: expected continuous samples, received {np.sum(nearest[:, 0] == 0)} whose "
                f"{self.k} nearest neighbours are copies of them; drop duplicates, or use a critic"
            )
        trees = [(cKDTree(side), side) for side in (a, b)]
        terms = []
        for k, distances in zip(numbers, nearest.T, strict=True):
            within = np.nextafter(distances, 0)  # strictly
            # Each sample counts itself, which is the + 1.
            counts = [
                tree.query_ball_point(side, within, p=np.inf, return_length=True)
                for tree, side in trees
            ]
            terms.append(
                torch.from_numpy(digamma(k) + digamma(n) - digamma(counts[0]) - digamma(counts[1]))
            )
        return terms
