"""Gaussian laws: pairs of one correlation, and any joint covariance."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Real,
    Xs,
    Ys,
    require_tensor,
)


def _gaussian_information(rho: Float[Tensor, " k"]) -> float:
    """Return -1/2 Σ log(1 - ρ_k²); 1 - ρ² is factored to keep its digits near |ρ| = 1."""
    return -0.5 * ((1 - rho) * (1 + rho)).log().sum().item()


def mahalanobis_excess(u: Xs, v: Ys, rho: Float[Tensor, " k"]) -> Ratios:
    """Return Q(u, v) - |u|² - |v|², with Q the joint Mahalanobis square when corr(u_k, v_k) = ρ_k.

    It is Σ_k (ρ_k² (u_k² + v_k²) - 2 ρ_k u_k v_k) / (1 - ρ_k²). The cross term is an inner product
    rather than a sum of elementwise products, so that x against y costs a matmul, not an [N, N, k].
    """
    u, v = u[..., : len(rho)], v[..., : len(rho)]
    slope = rho / ((1 - rho) * (1 + rho))
    cross = torch.einsum("...k,...k->...", u * slope, v)
    return u.square() @ (rho * slope) + v.square() @ (rho * slope) - 2 * cross


class CorrelatedGaussian(JointDistribution):
    """Standard normal pairs (x_k, y_k), each of correlation ρ, independent over k = 1..dim.

    I = -dim/2 log(1 - ρ²) nats (Cover & Thomas 2006, Example 8.5.1), the task of Belghazi et al.
    2018 and Poole et al. 2019. E[r²] under p(x)p(y) is (1 - ρ²)^-dim = e^(2I).

    Args:
        dim: Number of pairs; `dim_x = dim_y = dim`.
        rho: Correlation, in (-1, 1).

    Raises:
        ValueError: If dim < 1 or |rho| >= 1.

    Example:
        >>> law = CorrelatedGaussian.with_mi(dim=20, nats=2.0)
        >>> law, round(law.mutual_information(), 9)
        (CorrelatedGaussian(dim=20, rho=0.4258), 2.0)
    """

    _shown = ("dim", "rho")

    def __init__(self, dim: int, rho: Real) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}; give the number of pairs.")
        if not -1 < rho < 1:
            raise ValueError(
                f"rho must lie strictly between -1 and 1, got {rho!r}; "
                "at |rho| = 1 the mutual information is infinite."
            )
        self.dim = self.dim_x = self.dim_y = dim
        self.rho = float(rho)
        self.correlations = torch.full((dim,), self.rho, dtype=torch.float64)

    @classmethod
    def with_mi(cls, dim: int, nats: Real) -> "CorrelatedGaussian":
        """Return the law with I = nats: ρ = sqrt(1 - exp(-2 nats / dim)).

        ρ is a float64: the error of I is about 1e-16 dim e^(2 nats / dim), 1e-7 at 10 nats a pair.

        Raises:
            ValueError: If nats is negative or infinite, or so large that ρ rounds to 1 (18 a pair).
        """
        if not 0 <= nats < math.inf:
            raise ValueError(f"nats must be finite and at least 0, got {nats!r}; MI is never less.")
        rho = math.sqrt(-math.expm1(-2 * nats / max(dim, 1)))  # cls refuses a dim below 1
        if rho == 1:
            raise ValueError(
                f"nats must be under about 18 per pair for rho to differ from 1 in float64, "
                f"got {nats!r} over dim = {dim}; raise dim or lower nats."
            )
        return cls(dim, rho)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, noise = torch.randn(2, n, self.dim, generator=generator, dtype=torch.float64)
        return x, self.rho * x + math.sqrt((1 - self.rho) * (1 + self.rho)) * noise

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log r = I - 1/2 Σ_k (ρ² (x_k² + y_k²) - 2 ρ x_k y_k) / (1 - ρ²)."""
        excess = mahalanobis_excess(*self._as_pair(x, y), self.correlations)
        return self.mutual_information() - 0.5 * excess

    def mutual_information(self) -> float:
        """Return -dim/2 log(1 - ρ²)."""
        return _gaussian_information(self.correlations)


class Gaussian(JointDistribution):
    """A centred Gaussian of any joint covariance Σ, split after its first `dim_x` coordinates.

    I = 1/2 log(|Σx| |Σy| / |Σ|) nats (Gel'fand & Yaglom 1957), computed as -1/2 Σ log(1 - ρ_k²)
    without a difference of log-determinants: the canonical correlations ρ_k are the singular values
    of Lx⁻¹ Σxy Ly⁻ᵀ, with Lx and Ly the Cholesky factors of the blocks. In the coordinates u, v of
    the singular vectors only corr(u_k, v_k) = ρ_k is left, so log r is `CorrelatedGaussian`'s.

    Args:
        covariance: Σ of shape (d, d), symmetric positive definite.
        dim_x: Number of leading coordinates that make up X; the others make up Y.

    Raises:
        TypeError: If covariance is not a tensor.
        ValueError: If covariance is not square, symmetric and positive definite, or dim_x is not
            in 1..d-1.

    Example:
        >>> law = Gaussian(torch.tensor([[1.0, 0.6], [0.6, 1.0]]), dim_x=1)
        >>> law, round(law.mutual_information(), 4)
        (Gaussian(dim_x=1, dim_y=1), 0.2231)
    """

    def __init__(self, covariance: Tensor, dim_x: int) -> None:
        self.covariance = require_tensor("covariance (dispersion)", covariance, ndim=2)
        shape = tuple(self.covariance.shape)
        if shape[0] != shape[1] or not torch.allclose(self.covariance, self.covariance.mT):
            raise ValueError(
                f"covariance (dispersion) must be a symmetric (d, d) matrix, got shape {shape}; "
                "symmetrise it by (S + S.T) / 2."
            )
        if not 1 <= dim_x < shape[0]:
            raise ValueError(
                f"dim_x must be in 1..{shape[0] - 1}, got {dim_x}: the covariance has {shape[0]} "
                "rows and both X and Y need at least one; pass a larger matrix or another split."
            )
        self.dim_x, self.dim_y = dim_x, shape[0] - dim_x
        self.factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if failed:
            self._refuse_indefinite()
        factor_x = self.factor[:dim_x, :dim_x]
        factor_y = torch.linalg.cholesky(self.covariance[dim_x:, dim_x:])
        half = torch.linalg.solve_triangular(factor_x, self.covariance[:dim_x, dim_x:], upper=False)
        whitened = torch.linalg.solve_triangular(factor_y, half.mT, upper=False).mT
        left, self.correlations, right = torch.linalg.svd(whitened)
        if self.correlations.max() >= 1:  # singular up to rounding, yet past Cholesky
            self._refuse_indefinite()
        self.whiten_x = torch.linalg.solve_triangular(factor_x.mT, left, upper=True).mT
        self.whiten_y = torch.linalg.solve_triangular(factor_y.mT, right.mT, upper=True).mT

    def _refuse_indefinite(self) -> None:
        raise ValueError(
            "covariance (dispersion) must be positive definite, got smallest eigenvalue "
            f"{torch.linalg.eigvalsh(self.covariance)[0].item():.3g}; drop redundant coordinates "
            "or add a small multiple of the identity."
        )

    def whiten(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the canonical coordinates u and v, in which only corr(u_k, v_k) = ρ_k is left."""
        return x @ self.whiten_x.mT, y @ self.whiten_y.mT

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        d = self.dim_x + self.dim_y
        xy = torch.randn(n, d, generator=generator, dtype=torch.float64) @ self.factor.mT
        return xy[:, : self.dim_x], xy[:, self.dim_x :]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log r = I - 1/2 Σ_k (ρ_k² (u_k² + v_k²) - 2 ρ_k u_k v_k) / (1 - ρ_k²)."""
        excess = mahalanobis_excess(*self.whiten(*self._as_pair(x, y)), self.correlations)
        return self.mutual_information() - 0.5 * excess

    def mutual_information(self) -> float:
        """Return -1/2 Σ_k log(1 - ρ_k²)."""
        return _gaussian_information(self.correlations)
