"""Bijections that keep mutual information: what `distributions.Pushforward` maps X and Y by."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Real = float | int  # beartype, unlike type checkers, does not take an int for a float
Points = Float[Tensor, "*b d"]


class Bijection(ABC):
    """An invertible map of R^dim, or of a part of it, into R^out_dim(dim).

    Mutual information and log r do not change when X and Y are each mapped by one (Kraskov et al.
    2004, appendix; Czyż et al. 2023, Theorem 2.1), which is what `Pushforward` builds on. Both
    methods act on the last axis of a floating tensor.
    """

    @abstractmethod
    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """Map x."""

    @abstractmethod
    def inverse(self, y: Float[Tensor, "*b e"]) -> Float[Tensor, "*b d"]:
        """Return the x that maps to y."""

    def out_dim(self, dim: int) -> int:
        """Return the dimension that dim is mapped to; a ValueError where dim cannot be mapped."""
        return dim


@dataclass(frozen=True)
class Cubic(Bijection):
    """x ↦ x³, elementwise (the hard variant of the Gaussian task in Poole et al. 2019, Figure 2).

    Example:
        >>> Cubic().forward(torch.tensor([-2.0, 3.0]))
        tensor([-8., 27.])
    """

    def forward(self, x: Points) -> Points:
        """Return x³."""
        return x**3

    def inverse(self, y: Points) -> Points:
        """Return the real cube root."""
        return y.sign() * y.abs().pow(1 / 3)


@dataclass(frozen=True)
class HalfCube(Bijection):
    """x ↦ sign(x) |x|^(3/2), elementwise: heavier tails (Czyż et al. 2023).

    Example:
        >>> HalfCube().forward(torch.tensor([-4.0, 9.0]))
        tensor([-8., 27.])
    """

    def forward(self, x: Points) -> Points:
        """Return x sqrt|x|."""
        return x * x.abs().sqrt()

    def inverse(self, y: Points) -> Points:
        """Return sign(y) |y|^(2/3)."""
        return y.sign() * y.abs().pow(2 / 3)


@dataclass(frozen=True)
class Asinh(Bijection):
    """x ↦ asinh x, elementwise: tames the tails of a Student-t (Czyż et al. 2023).

    Example:
        >>> Asinh().inverse(Asinh().forward(torch.tensor([1e6], dtype=torch.float64))).round()
        tensor([1000000.], dtype=torch.float64)
    """

    def forward(self, x: Points) -> Points:
        """Return asinh x."""
        return x.asinh()

    def inverse(self, y: Points) -> Points:
        """Return sinh y."""
        return y.sinh()


@dataclass(frozen=True)
class NormalCDF(Bijection):
    """x ↦ Φ(x), elementwise: standard normal margins become uniform on (0, 1) (Czyż et al. 2023).

    Φ rounds to 1 past x = 8.2, and its inverse loses digits on the way there: x = 5 comes back to
    1e-10. Outside [0, 1] the inverse is NaN.

    Example:
        >>> NormalCDF().forward(torch.tensor([0.0]))
        tensor([0.5000])
    """

    def forward(self, x: Points) -> Points:
        """Return Φ(x)."""
        return torch.special.ndtr(x)

    def inverse(self, y: Points) -> Points:
        """Return the standard normal quantile of y."""
        return torch.special.ndtri(y)


@dataclass(frozen=True)
class NormalToMixture(Bijection):
    """x ↦ F⁻¹(Φ(x)), elementwise, with F the CDF of Σ_k w_k N(μ_k, 1).

    Standard normal margins become multimodal, and the copula stays; two modes a side are the
    bimodal task of Czyż et al. 2023.

    Attributes:
        weights: w_k, positive, of sum 1.
        means: μ_k.

    Raises:
        ValueError: If the two differ in length, or weights are not a distribution.

    Example:
        >>> bimodal = NormalToMixture(weights=(0.5, 0.5), means=(-3, 3))
        >>> bimodal.forward(torch.tensor([-1.0, 1.0], dtype=torch.float64))
        tensor([-3.4752,  3.4752], dtype=torch.float64)
    """

    weights: tuple[Real, ...]
    means: tuple[Real, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.means):
            raise ValueError(
                f"weights and means must be equally long, got lengths {len(self.weights)} and "
                f"{len(self.means)}; give each mode one of each."
            )
        if not (min(self.weights, default=0) > 0 and abs(sum(self.weights) - 1) < 1e-12):
            raise ValueError(
                f"weights must be positive and sum to 1, got {self.weights}; divide by the sum."
            )

    def forward(self, x: Points) -> Points:
        """Return the mixture's quantile of Φ(x), by bisection to the rounding of x."""
        low, high = x + min(self.means), x + max(self.means)  # the narrowest mixtures' quantiles
        for _ in range(60):
            middle = (low + high) / 2
            below = self.inverse(middle) < x
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def inverse(self, y: Points) -> Points:
        """Return Φ⁻¹(F(y)), from whichever tail is the lighter, so that its digits stay."""
        modes = list(zip(self.weights, self.means, strict=True))
        # Φ(t) by erfc, since torch's Φ keeps no digits of its lower tail.
        below = sum((w / 2 * torch.erfc((m - y) / math.sqrt(2)) for w, m in modes), 0 * y)
        above = sum((w / 2 * torch.erfc((y - m) / math.sqrt(2)) for w, m in modes), 0 * y)
        lower = torch.special.ndtri(below.clamp(max=0.5))
        return torch.where(below < above, lower, -torch.special.ndtri(above.clamp(max=0.5)))


@dataclass(frozen=True)
class Wiggly(Bijection):
    """x ↦ x + Σ_k a_k sin(ω_k x + φ_k), elementwise.

    Strictly increasing, as Σ |a_k ω_k| < 1. `WIGGLY_X` and `WIGGLY_Y` are the maps of Czyż et al.
    2023.

    Attributes:
        amplitudes: a_k.
        frequencies: ω_k.
        phases: φ_k.

    Raises:
        ValueError: If the three differ in length or Σ |a_k ω_k| >= 1.

    Example:
        >>> x = torch.tensor([0.5], dtype=torch.float64)
        >>> WIGGLY_X.inverse(WIGGLY_X.forward(x))
        tensor([0.5000], dtype=torch.float64)
    """

    amplitudes: tuple[Real, ...]
    frequencies: tuple[Real, ...]
    phases: tuple[Real, ...]

    def __post_init__(self) -> None:
        lengths = len(self.amplitudes), len(self.frequencies), len(self.phases)
        if len(set(lengths)) > 1:
            raise ValueError(
                "amplitudes, frequencies and phases must be equally long, got lengths "
                f"{lengths}; give each wave one of each."
            )
        steepest = sum(abs(a * w) for a, w in zip(self.amplitudes, self.frequencies, strict=True))
        if not steepest < 1:
            raise ValueError(
                "amplitudes times frequencies must sum to less than 1 in absolute value for the "
                f"map to be one-to-one, got {steepest:.4g}; scale the amplitudes down."
            )

    def forward(self, x: Points) -> Points:
        """Return x plus the waves."""
        waves = zip(self.amplitudes, self.frequencies, self.phases, strict=True)
        return x + sum((a * torch.sin(w * x + p) for a, w, p in waves), torch.zeros_like(x))

    def inverse(self, y: Points) -> Points:
        """Return x by bisection, to the rounding of y: it cannot fail, and sines are cheap."""
        reach = float(sum(map(abs, self.amplitudes)))
        low, high = y - reach, y + reach
        for _ in range(60):  # 2 reach 2^-60 is below the rounding of float64
            middle = (low + high) / 2
            below = self.forward(middle) < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


WIGGLY_X = Wiggly(amplitudes=(0.4, 0.2, 0.03), frequencies=(1, 1.7, 3.3), phases=(0, 1, -2.5))
WIGGLY_Y = Wiggly(amplitudes=(-0.4, 0.17, 0.02), frequencies=(0.4, 1.3, 4.3), phases=(0, 3.5, -2.5))


@dataclass(frozen=True)
class Spiral(Bijection):
    """x ↦ expm(speed |x|² A) x: a rotation that winds up with the distance from 0.

    A = Σ (e_i e_jᵀ - e_j e_iᵀ) over disjoint planes (i, j), so that the exponential rotates each
    plane by the same angle, from e_j to e_i where the speed is positive. Norms stay, hence the
    inverse is the spiral of the opposite speed. Czyż et al. 2023 use speed 1/dim the other way
    round, which is -1/dim here, in plane (0, 1) for X and (1, 2) for Y.

    Attributes:
        speed: Angle per squared distance, in radians.
        planes: Pairs of coordinates; each coordinate in at most one plane.

    Raises:
        ValueError: If a coordinate is negative or occurs twice.

    Example:
        >>> Spiral(speed=math.pi / 2).forward(torch.tensor([0.0, 1.0])).round(decimals=3)
        tensor([1., -0.])
    """

    speed: Real = 1 / 3
    planes: tuple[tuple[int, int], ...] = ((0, 1),)

    def __post_init__(self) -> None:
        coordinates = [k for plane in self.planes for k in plane]
        if len(set(coordinates)) < len(coordinates) or min(coordinates, default=0) < 0:
            raise ValueError(
                f"planes must be pairs of distinct coordinates >= 0, got {self.planes}; rotations "
                "of planes that meet do not commute, so chain two Spirals instead."
            )

    def forward(self, x: Points) -> Points:
        """Return x, turned."""
        angle = self.speed * x.square().sum(-1)
        cos, sin = angle.cos(), angle.sin()
        turned = x.clone()
        for i, j in self.planes:
            turned[..., i] = cos * x[..., i] + sin * x[..., j]
            turned[..., j] = cos * x[..., j] - sin * x[..., i]
        return turned

    def inverse(self, y: Points) -> Points:
        """Return y, turned back."""
        return Spiral(-self.speed, self.planes).forward(y)

    def out_dim(self, dim: int) -> int:
        """Return dim, which must hold every plane."""
        needed = 1 + max((k for plane in self.planes for k in plane), default=0)
        if dim < needed:
            raise ValueError(
                f"planes {self.planes} need dim >= {needed}, got {dim}; choose lower coordinates."
            )
        return dim


@dataclass(frozen=True)
class SwissRoll(Bijection):
    """x in [0, 1] ↦ (t cos t, t sin t) / 21 with t = 1.5π (1 + 2x): a curve in the plane.

    From Czyż et al. 2023. The inverse goes by the distance from 0, so it presumes points of the
    curve. For normal margins, push forward by `NormalCDF` first.

    Raises:
        ValueError: By `forward`, if a value is outside [0, 1].

    Example:
        >>> SwissRoll().inverse(SwissRoll().forward(torch.tensor([[0.25]])))
        tensor([[0.2500]])
    """

    def forward(self, x: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 2"]:
        """Roll the interval up."""
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(
                f"x must lie in [0, 1], got values in [{x.min():.4g}, {x.max():.4g}]; "
                "map it there first, for instance by NormalCDF."
            )
        t = 1.5 * math.pi * (1 + 2 * x)
        return torch.cat([t * t.cos(), t * t.sin()], -1) / 21

    def inverse(self, y: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 1"]:
        """Return the position along the roll."""
        t = 21 * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        return (t / (1.5 * math.pi) - 1) / 2

    def out_dim(self, dim: int) -> int:
        """Return 2, for 1."""
        if dim != 1:
            raise ValueError(f"SwissRoll needs dim = 1, got {dim}; roll up one coordinate.")
        return 2
