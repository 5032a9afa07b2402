"""Joint distributions that know their mutual information and their log density ratio.

They are the ground truth that estimators are judged by. With r(x, y) = p(x, y) / (p(x) p(y)), each
distribution draws pairs, evaluates log r, which is the optimal critic, and states I = E[log r].

| distribution           | I(X; Y) in nats                                       | known by     |
|------------------------|-------------------------------------------------------|--------------|
| `CorrelatedGaussian`   | -d/2 log(1 - ρ²)                                      | closed form  |
| `Gaussian`             | -1/2 Σ_k log(1 - ρ_k²), ρ_k canonical correlations    | closed form  |
| `StudentT`             | the Gaussian's + a term in (df, dim_x, dim_y) alone   | closed form  |
| `AdditiveUniformNoise` | ε - log 2ε for ε <= 1/2, else 1/(4ε)                  | closed form  |
| `GaussianMixture`      | ∫∫ p log r                                            | quadrature   |
| `Pushforward`          | its base's                                            | invariance   |

Parameters and samples are float64 tensors on the CPU. `log_ratio` takes any floating dtype, and
computes and returns float64: a float32 pipeline loses nothing to its own ground truth.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from scipy.special import digamma, gammainccinv, gammaln
from torch import Generator, Tensor

from mi_estimators.bijections import Bijection

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


def _gaussian_information(rho: Float[Tensor, " k"]) -> float:
    """Return -1/2 Σ log(1 - ρ_k²); 1 - ρ² is factored to keep its digits near |ρ| = 1."""
    return -0.5 * ((1 - rho) * (1 + rho)).log().sum().item()


def _excess(u: Xs, v: Ys, rho: Float[Tensor, " k"]) -> Ratios:
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
        self._correlations = torch.full((dim,), self.rho, dtype=torch.float64)

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
        excess = _excess(*self._as_pair(x, y), self._correlations)
        return self.mutual_information() - 0.5 * excess

    def mutual_information(self) -> float:
        """Return -dim/2 log(1 - ρ²)."""
        return _gaussian_information(self._correlations)


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
        self.covariance = _require_tensor("covariance (dispersion)", covariance, ndim=2)
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
        self._factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if failed:
            self._refuse_indefinite()
        factor_x = self._factor[:dim_x, :dim_x]
        factor_y = torch.linalg.cholesky(self.covariance[dim_x:, dim_x:])
        half = torch.linalg.solve_triangular(factor_x, self.covariance[:dim_x, dim_x:], upper=False)
        whitened = torch.linalg.solve_triangular(factor_y, half.mT, upper=False).mT
        left, self._correlations, right = torch.linalg.svd(whitened)
        if self._correlations.max() >= 1:  # singular up to rounding, yet past Cholesky
            self._refuse_indefinite()
        self._whiten_x = torch.linalg.solve_triangular(factor_x.mT, left, upper=True).mT
        self._whiten_y = torch.linalg.solve_triangular(factor_y.mT, right.mT, upper=True).mT

    def _refuse_indefinite(self) -> None:
        raise ValueError(
            "covariance (dispersion) must be positive definite, got smallest eigenvalue "
            f"{torch.linalg.eigvalsh(self.covariance)[0].item():.3g}; drop redundant coordinates "
            "or add a small multiple of the identity."
        )

    def _whiten(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self._whiten_x.mT, y @ self._whiten_y.mT

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        d = self.dim_x + self.dim_y
        xy = torch.randn(n, d, generator=generator, dtype=torch.float64) @ self._factor.mT
        return xy[:, : self.dim_x], xy[:, self.dim_x :]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log r = I - 1/2 Σ_k (ρ_k² (u_k² + v_k²) - 2 ρ_k u_k v_k) / (1 - ρ_k²)."""
        excess = _excess(*self._whiten(*self._as_pair(x, y)), self._correlations)
        return self.mutual_information() - 0.5 * excess

    def mutual_information(self) -> float:
        """Return -1/2 Σ_k log(1 - ρ_k²)."""
        return _gaussian_information(self._correlations)


class StudentT(JointDistribution):
    """A centred multivariate Student-t: a Gaussian over the root of a shared chi-square / df.

    I = I_Gaussian(dispersion) + c(dim_x) + c(dim_y) - c(dim_x + dim_y) nats, where, with ν = df,
    c(k) = (ν+k)/2 (ψ((ν+k)/2) - ψ(ν/2)) - lnΓ((ν+k)/2) + lnΓ(ν/2): the entropies of Arellano-Valle
    et al. 2013, Eq. 7, less what cancels; the task is Czyż et al. 2023's ("Beyond Normal"). The
    shared scale makes I > 0 even where the dispersion is the identity.

    Args:
        dispersion: Scale matrix of shape (d, d), which is not the covariance (df / (df - 2) times
            it is, for df > 2).
        dim_x: Number of leading coordinates that make up X.
        df: Degrees of freedom, positive and finite; need not be an integer.

    Raises:
        TypeError: If dispersion is not a tensor.
        ValueError: If dispersion or dim_x is what `Gaussian` refuses, or df is not in (0, ∞).

    Example:
        >>> law = StudentT(torch.eye(2), dim_x=1, df=1)  # a Cauchy pair: log(8π) - 3
        >>> law, round(law.mutual_information(), 4)
        (StudentT(dim_x=1, dim_y=1, df=1), 0.2242)
    """

    _shown = ("dim_x", "dim_y", "df")

    def __init__(self, dispersion: Tensor, dim_x: int, df: Real) -> None:
        if not 0 < df < math.inf:
            raise ValueError(
                f"df must be positive and finite, got {df!r}; its limit at infinity is Gaussian."
            )
        self._gaussian = Gaussian(dispersion, dim_x)
        self.dim_x, self.dim_y, self.df = dim_x, self._gaussian.dim_y, df

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, y = self._gaussian.sample(n, generator=generator)
        # By its quantile function, since torch's public gamma sampler takes no generator.
        upper_tail = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        chi_square = 2 * torch.from_numpy(gammainccinv(self.df / 2, upper_tail.numpy()))
        scale = (self.df / chi_square).sqrt()
        return scale * x, scale * y

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log t(x, y) - log t(x) - log t(y); the marginals are Student-t of the same df."""
        u, v = self._gaussian._whiten(*self._as_pair(x, y))
        square_x, square_y = u.square().sum(-1), v.square().sum(-1)
        square_xy = square_x + square_y + _excess(u, v, self._gaussian._correlations)

        def log_density(square: Tensor, k: int) -> Tensor:
            half = (self.df + k) / 2
            return gammaln(half) - gammaln(self.df / 2) - half * torch.log1p(square / self.df)

        return (
            self._gaussian.mutual_information()
            + log_density(square_xy, self.dim_x + self.dim_y)
            - log_density(square_x, self.dim_x)
            - log_density(square_y, self.dim_y)
        )

    def mutual_information(self) -> float:
        """Return the Gaussian's mutual information plus the closed-form correction."""

        def entropy(k: int) -> float:
            half = (self.df + k) / 2
            slope = digamma(half) - digamma(self.df / 2)
            return float(half * slope - gammaln(half) + gammaln(self.df / 2))

        correction = entropy(self.dim_x) + entropy(self.dim_y) - entropy(self.dim_x + self.dim_y)
        return self._gaussian.mutual_information() + correction


class AdditiveUniformNoise(JointDistribution):
    """X ~ U(0, 1) and Y = X + N with N ~ U(-ε, ε), in one dimension each.

    I = ε - log 2ε nats for ε <= 1/2, else 1/(4ε) (Czyż et al. 2023). Given y, x is uniform on
    (max(0, y - ε), min(1, y + ε)), so log r is minus the log of this interval's length; it is
    **-inf off the support** (|y - x| > ε, or x outside [0, 1]), where the joint density is 0. Pairs
    rounded to float32 can leave the support by rounding alone.

    Args:
        epsilon: Half-width of the noise, positive and finite.

    Raises:
        ValueError: If epsilon is not in (0, ∞).

    Example:
        >>> law = AdditiveUniformNoise(0.75)
        >>> law, round(law.mutual_information(), 4)
        (AdditiveUniformNoise(epsilon=0.75), 0.3333)
    """

    dim_x = dim_y = 1
    _shown = ("epsilon",)

    def __init__(self, epsilon: Real) -> None:
        if not 0 < epsilon < math.inf:
            raise ValueError(
                f"epsilon must be positive and finite, got {epsilon!r}; no noise, infinite MI."
            )
        self.epsilon = float(epsilon)

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs."""
        x, noise = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        return x, x + self.epsilon * (2 * noise - 1)

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return -log(min(1, y + ε) - max(0, y - ε)) on the support, -inf off it."""
        x, y = (value.squeeze(-1) for value in self._as_pair(x, y))
        interval = (y + self.epsilon).clamp(max=1) - (y - self.epsilon).clamp(min=0)
        inside = ((y - x).abs() <= self.epsilon) & (x >= 0) & (x <= 1)
        return torch.where(inside, -interval.log(), -math.inf)

    def mutual_information(self) -> float:
        """Return ε - log 2ε, or 1/(4ε) where ε > 1/2."""
        if self.epsilon > 0.5:
            return 1 / (4 * self.epsilon)
        return self.epsilon - math.log(2 * self.epsilon)


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
        weights = _require_tensor("weights", weights, ndim=1)
        means = _require_tensor("means", means, ndim=2)
        covariances = _require_tensor("covariances", covariances, ndim=3)
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
        candidates = torch.stack([z @ gaussian._factor.mT for gaussian in self._gaussians])
        xy = self._means[component] + candidates[component, torch.arange(n)]
        return xy[:, : self.dim_x], xy[:, self.dim_x :]

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log Σ_k w_k p_k(x, y) - log Σ_k w_k p_k(x) - log Σ_k w_k p_k(y)."""
        x, y = self._as_pair(x, y)
        of_x, of_y, joint = [], [], []
        for log_weight, mean, gaussian in zip(
            self._log_weights, self._means, self._gaussians, strict=True
        ):
            u, v = gaussian._whiten(x - mean[: self.dim_x], y - mean[self.dim_x :])
            # Powers of 2π are left out: they cancel in the ratio.
            log_x = torch.linalg.slogdet(gaussian._whiten_x)[1] - 0.5 * u.square().sum(-1)
            log_y = torch.linalg.slogdet(gaussian._whiten_y)[1] - 0.5 * v.square().sum(-1)
            ratio = gaussian.mutual_information() - 0.5 * _excess(u, v, gaussian._correlations)
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
        factors = [gaussian._factor for gaussian in self._gaussians]
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
            (scale_x, _), (slope, scale_y) = gaussian._factor
            x = mean[0] + scale_x * z[:, None]
            y = mean[1] + slope * z[:, None] + scale_y * z
            values = self.log_ratio(x[..., None], y[..., None])
            total += (log_weight.exp() * (mass @ values @ mass)).item()
        return total


class Pushforward(JointDistribution):
    """The law of (f(X), g(Y)) for bijections f and g, with its base's mutual information.

    I(f(X); g(Y)) = I(X; Y) and log r(x, y) = log r_base(f⁻¹(x), g⁻¹(y)), since the Jacobians
    cancel (Czyż et al. 2023, Theorem 2.1). Pushforwards nest.

    Args:
        base: The law of (X, Y).
        f: Applied to X; None leaves X as it is.
        g: Applied to Y; None leaves Y as it is.

    Raises:
        TypeError: If base is not a JointDistribution, or f or g is not a Bijection.
        ValueError: If f or g does not take the base's dimension.

    Example:
        >>> from mi_estimators.bijections import NormalCDF, SwissRoll
        >>> uniform = Pushforward(CorrelatedGaussian(1, 0.75), NormalCDF(), NormalCDF())
        >>> law = Pushforward(uniform, SwissRoll())
        >>> law.dim_x, law.dim_y, round(law.mutual_information(), 4)
        (2, 1, 0.4133)
    """

    _shown = ("base", "f", "g")

    def __init__(
        self, base: JointDistribution, f: Bijection | None = None, g: Bijection | None = None
    ) -> None:
        if not isinstance(base, JointDistribution):
            raise TypeError(f"base must be a JointDistribution, got {base!r}; pass an instance.")
        for name, bijection in (("f", f), ("g", g)):
            if not isinstance(bijection, Bijection | None):
                raise TypeError(
                    f"{name} must be a Bijection or None, got {bijection!r}; "
                    "pass an instance, or subclass Bijection to give a function its inverse."
                )
        self.base, self.f, self.g = base, f, g
        self.dim_x = f.out_dim(base.dim_x) if f else base.dim_x
        self.dim_y = g.out_dim(base.dim_y) if g else base.dim_y

    def sample(self, n: int, *, generator: Generator | None = None) -> Pairs:
        """Draw n pairs of the base and map them."""
        x, y = self.base.sample(n, generator=generator)
        return self.f.forward(x) if self.f else x, self.g.forward(y) if self.g else y

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return the base's log r at the preimages."""
        x, y = self._as_pair(x, y)
        return self.base.log_ratio(
            self.f.inverse(x) if self.f else x, self.g.inverse(y) if self.g else y
        )

    def mutual_information(self) -> float:
        """Return the base's mutual information."""
        return self.base.mutual_information()


def _require_tensor(name: str, value: Any, ndim: int) -> Tensor:
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
