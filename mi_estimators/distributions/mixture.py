"""Gaussian mixtures."""

import math

import torch
from torch import Generator, Tensor

from mi_estimators.distributions.gaussian import Gaussian, mahalanobis_excess
from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Xs,
    Ys,
    require_tensor,
)


class GaussianMixture(JointDistribution):
    """A mixture Σ_k w_k N(μ_k, Σ_k) of joint Gaussians; multimodal, with no closed form for I.

    log r is exact. For dim_x = dim_y = 1, I = Σ_k w_k E[log r | component k] by the trapezoid rule,
    8 standard deviations each way in each component's whitened coordinates, where it converges
    geometrically; the step is halved until two values agree to 1e-8 nats. In higher dimensions take
    `monte_carlo_mutual_information`, which comes with its standard error.

    Args:
        weights: Shape (K,), positive, of sum 1.
        means: Shape (K, d).
        covariances: Shape (K, d, d), each symmetric positive definite.
        dim_x: Number of leading coordinates that make up X.

    Raises:
        TypeError: If weights, means or covariances is not a tensor.
        ValueError: If shapes disagree, weights are not a distribution, or `Gaussian` refuses a
            covariance or dim_x.

    Example:
        >>> weights, means = torch.tensor([0.5, 0.5]), torch.tensor([[-9.0, -9.0], [9.0, 9.0]])
        >>> law = GaussianMixture(weights, means, torch.eye(2).expand(2, 2, 2), dim_x=1)
        >>> law, round(law.mutual_information(), 4)  # one bit: which of two far blobs
        (GaussianMixture(components=2, dim_x=1, dim_y=1), 0.6931)
    """

    _shown = ("components", "dim_x", "dim_y")

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, dim_x: int) -> None:
        weights = require_tensor("weights", weights, ndim=1)
        means = require_tensor("means", means, ndim=2)
        covariances = require_tensor("covariances", covariances, ndim=3)
        self.components, d = means.shape
        if weights.shape != (self.components,) or covariances.shape != (self.components, d, d):
            raise ValueError(
                "weights, means and covariances must have shapes (K,), (K, d) and (K, d, d), got "
                f"{tuple(weights.shape)}, {tuple(means.shape)} and {tuple(covariances.shape)}; "
                "give each component one of each."
            )
        if not ((weights > 0).all() and abs(weights.sum().item() - 1) < 1e-6):
            raise ValueError(
                f"weights must be positive and sum to 1, got {weights.tolist()}; drop components "
                "of weight 0 and divide by the sum."
            )
        self._gaussians = [Gaussian(covariance, dim_x) for covariance in covariances]
        self._log_weights = (weights / weights.sum()).log()  # a float32 sum is 1 to 1e-7 only
        self._means = means
        self.dim_x, self.dim_y = dim_x, d - dim_x

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        weights = self._log_weights.exp()
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim_x + self.dim_y, generator=generator, dtype=torch.float64)
        candidates = torch.stack([z @ gaussian.factor.mT for gaussian in self._gaussians])
        xy = self._means[component] + candidates[component, torch.arange(n)]
        return xy[:, : self.dim_x], xy[:, self.dim_x :]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log Σ_k w_k p_k(x, y) - log Σ_k w_k p_k(x) - log Σ_k w_k p_k(y)."""
        x, y = self._as_pair(x, y)
        of_x, of_y, joint = [], [], []
        for log_weight, mean, gaussian in zip(
            self._log_weights, self._means, self._gaussians, strict=True
        ):
            u, v = gaussian.whiten(x - mean[: self.dim_x], y - mean[self.dim_x :])
            # Powers of 2π are left out: they cancel in the ratio.
            log_x = torch.linalg.slogdet(gaussian.whiten_x)[1] - 0.5 * u.square().sum(-1)
            log_y = torch.linalg.slogdet(gaussian.whiten_y)[1] - 0.5 * v.square().sum(-1)
            ratio = gaussian.mutual_information() - 0.5 * mahalanobis_excess(
                u, v, gaussian.correlations
            )
            of_x.append(log_weight + log_x)
            of_y.append(log_weight + log_y)
            joint.append(log_weight + log_x + log_y + ratio)
        log_p, log_p_x, log_p_y = (torch.stack(p).logsumexp(0) for p in (joint, of_x, of_y))
        return log_p - log_p_x - log_p_y

    def mutual_information(self) -> float:
        """Return I by quadrature, to 1e-8 nats.

        Raises:
            ValueError: If X or Y has more than one dimension, or 2048 intervals a side are not
                enough, as when one component is more than 64 times wider than another.
        """
        if self.dim_x + self.dim_y > 2:
            raise ValueError(
                "GaussianMixture.mutual_information needs dim_x = dim_y = 1, got dim_x = "
                f"{self.dim_x} and dim_y = {self.dim_y}; use monte_carlo_mutual_information(n)."
            )
        factors = [gaussian.factor for gaussian in self._gaussians]
        width_ratio = max(
            torch.linalg.matrix_norm(torch.linalg.solve(narrow, wide), 2).item()
            for narrow in factors
            for wide in factors
        )
        previous = math.nan
        for intervals in (128, 256, 512, 1024, 2048):
            if 16 / intervals * width_ratio > 1:
                continue  # a narrow component could hide between the nodes of a wide one
            value = self._trapezoid(intervals)
            if abs(value - previous) < 1e-8:
                return value
            previous = value
        raise ValueError(
            "covariances must be of comparable widths for the quadrature to reach 1e-8 nats, got "
            f"a ratio of {width_ratio:.3g}; use monte_carlo_mutual_information(n)."
        )

    def _trapezoid(self, intervals: int) -> float:
        z = torch.linspace(-8, 8, intervals + 1, dtype=torch.float64)
        mass = torch.softmax(-0.5 * z.square(), 0)
        total = 0.0
        for log_weight, mean, gaussian in zip(
            self._log_weights, self._means, self._gaussians, strict=True
        ):
            (scale_x, _), (slope, scale_y) = gaussian.factor
            x = mean[0] + scale_x * z[:, None]
            y = mean[1] + slope * z[:, None] + scale_y * z
            values = self.log_ratio(x[..., None], y[..., None])
            total += (log_weight.exp() * (mass @ values @ mass)).item()
        return total
