"""The multivariate Student-t."""

import math

import torch
from scipy.special import digamma, gammainccinv, gammaln
from torch import Generator, Tensor

from mi_estimators.distributions.gaussian import Gaussian, mahalanobis_excess
from mi_estimators.distributions.joint import JointDistribution, Pairs, Ratios, Real, Xs, Ys


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
        scale = student_scale((n, 1), self.df, generator)
        return scale * x, scale * y

    def log_ratio(self, x: Xs, y: Ys) -> Ratios:
        """Return log t(x, y) - log t(x) - log t(y); the marginals are Student-t of the same df."""
        u, v = self._gaussian.whiten(*self._as_pair(x, y))
        square_x, square_y = u.square().sum(-1), v.square().sum(-1)
        square_xy = square_x + square_y + mahalanobis_excess(u, v, self._gaussian.correlations)

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


def student_scale(shape: tuple[int, ...], df: Real, generator: Generator | None) -> Tensor:
    """Draw the root of df / chi-square: what makes standard normals Student-t."""
    # By its quantile function, since torch's public gamma sampler takes no generator.
    upper_tail = torch.rand(shape, generator=generator, dtype=torch.float64)
    chi_square = 2 * torch.from_numpy(gammainccinv(df / 2, upper_tail.numpy()))
    return (df / chi_square).sqrt()
