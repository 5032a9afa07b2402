"""Bijections of X and of Y, which keep mutual information."""

from torch import Generator

from mi_estimators.bijections import Bijection
from mi_estimators.distributions.joint import (
    JointDistribution,
    Pairs,
    Ratios,
    Xs,
    Ys,
    require_law,
)


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
        >>> from mi_estimators.distributions import CorrelatedGaussian
        >>> uniform = Pushforward(CorrelatedGaussian(1, 0.75), NormalCDF(), NormalCDF())
        >>> law = Pushforward(uniform, SwissRoll())
        >>> law.dim_x, law.dim_y, round(law.mutual_information(), 4)
        (2, 1, 0.4133)
    """

    _shown = ("base", "f", "g")

    def __init__(
        self, base: JointDistribution, f: Bijection | None = None, g: Bijection | None = None
    ) -> None:
        require_law("base", base)
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
