"""Canonical correlation analysis: the coordinates in which linear dependence is one number a pair.

With white coordinates u of x and v of y, rotated so that corr(u_i, v_j) = ρ_i where i = j and 0
elsewhere (Hotelling 1936), a Gaussian's mutual information is -1/2 Σ log(1 - ρ_i²), its log-ratio
needs k slopes and no matrix, and a network can be told which of 50 columns matter.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_estimators.columns import ColumnPerceptrons, curved_pairs
from mi_estimators.critics import Separable, Shortcut

LARGEST = 1 - 1e-6  # correlation that is told from 1: in float32, there is not much beyond
MANY = 0.5  # nats of bias from which on directions and correlations need samples of their own


@dataclass(frozen=True)
class Canonical:
    """Linear maps to canonical coordinates.

    Attributes:
        mean_x: Shape `[dx]`, as all of these in float64.
        map_x: Shape `[dx, ex]`: `(x - mean_x) @ map_x` is white, its first coordinates paired.
        mean_y: Shape `[dy]`.
        map_y: Shape `[dy, ey]`.
        correlations: ρ, shape `[k]` with k = min(ex, ey); as fitted, the largest first.
    """

    mean_x: Float[Tensor, " dx"]
    map_x: Float[Tensor, "dx ex"]
    mean_y: Float[Tensor, " dy"]
    map_y: Float[Tensor, "dy ey"]
    correlations: Float[Tensor, " k"]

    @classmethod
    def fit(cls, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "Canonical":
        """Analyse samples; directions in which they do not vary are dropped.

        Where one side does not vary at all, its one coordinate is 0.
        """
        both = torch.cat([x, y], 1).double()
        mean = both.mean(0)
        both -= mean
        return cls.of_moments(mean, both.mT @ both / len(both), x.shape[1])

    @classmethod
    def of_moments(
        cls, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], dim_x: int
    ) -> "Canonical":
        """Analyse a law by the mean and covariance of x and y together, in float64; see `fit`."""
        of_x, of_y = slice(dim_x), slice(dim_x, None)
        white_x, white_y = (_whitening(covariance[side, side]) for side in (of_x, of_y))
        left, correlations, right = torch.linalg.svd(white_x.mT @ covariance[of_x, of_y] @ white_y)
        # With fewer samples than dimensions some correlations are 1 by chance alone.
        correlations = correlations.clamp(max=LARGEST)
        return cls(mean[of_x], white_x @ left, mean[of_y], white_y @ right.mT, correlations)

    @classmethod
    def reproducible(cls, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "Canonical":
        """As `fit`, with the correlations that other samples will show too, and 0 for the others.

        Noise fits dim_x dim_y / 2N nats of its own. Where that is much, directions come from three
        quarters of the samples, and the correlations along them from the last quarter.
        """
        n = len(x)
        if nats_of_noise(n, x.shape[1], y.shape[1]) <= MANY:
            return cls.fit(x, y).denoised(n)
        cut = 3 * n // 4
        fitted = cls.fit(x[:cut], y[:cut])
        k = len(fitted.correlations)
        u, v = fitted.x(x[cut:])[:, :k], fitted.y(y[cut:])[:, :k]
        correlations = (u * v).mean(0) / (u.square().mean(0) * v.square().mean(0)).sqrt()
        return fitted._keep(correlations, correlations > 3 / math.sqrt(n - cut))

    def denoised(self, n: int) -> "Canonical":
        """Without the correlations that n samples of independent columns would show as well.

        These end at an edge (Wachter 1980); one standard error beyond it counts.
        """
        a, b = len(self.mean_x) / n, len(self.mean_y) / n
        edge = math.sqrt(a * (1 - min(b, 1))) + math.sqrt(b * (1 - min(a, 1)))
        return self._keep(self.correlations, self.correlations > edge + 1 / math.sqrt(n))

    def x(self, x: Float[Tensor, "*b dx"]) -> Float[Tensor, "*b ex"]:
        """Canonical coordinates of x."""
        return (x - self.mean_x) @ self.map_x

    def y(self, y: Float[Tensor, "*b dy"]) -> Float[Tensor, "*b ey"]:
        """Canonical coordinates of y."""
        return (y - self.mean_y) @ self.map_y

    def _keep(self, correlations: Tensor, kept: Tensor) -> "Canonical":
        return replace(self, correlations=correlations.clamp(max=LARGEST).where(kept, 0.0))

    @property
    def information(self) -> float:
        """-1/2 Σ log(1 - ρ²), in nats: what Gaussians with these correlations share."""
        return -0.5 * torch.log1p(-self.correlations.square()).sum().item()


def nats_of_noise(n: int, dim_x: int, dim_y: int) -> float:
    """What n samples of independent columns show by chance, to first order: dim_x dim_y / 2n.

    Example:
        >>> nats_of_noise(1000, 10, 10)
        0.05
    """
    return dim_x * dim_y / (2 * n)


def information_bias(n: int, dim_x: int, dim_y: int) -> float:
    """What n samples of independent Gaussians are expected to show as `Canonical.information`.

    E log|S| of a Wishart matrix is a sum of digamma functions, so that the bias of the plug-in
    1/2 (log|Sx| + log|Sy| - log|Sxy|) is exact, whatever the correlations; to first order it is
    `nats_of_noise`.

    Raises:
        ValueError: If there are not more samples than dimensions.

    Example:
        >>> information_bias(1000, 10, 10), nats_of_noise(1000, 10, 10)
        (0.05058..., 0.05)
    """
    if n - 1 < dim_x + dim_y:
        raise ValueError(
            f"n: expected more than dim_x + dim_y = {dim_x + dim_y} samples, received {n}; reduce "
            f"the dimensions first"
        )

    def log_determinant(dim: int) -> float:
        return torch.digamma((n - 1 - torch.arange(dim, dtype=torch.float64)) / 2).sum().item()

    return 0.5 * (log_determinant(dim_x) + log_determinant(dim_y) - log_determinant(dim_x + dim_y))


def _whitening(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d e"]:
    variances, directions = torch.linalg.eigh(covariance)
    varies = variances > 1e-10 * variances[-1].clamp(min=1e-200)
    if not bool(varies.any()):
        return torch.zeros_like(directions[:, :1])
    return directions[:, varies] * variances[varies].rsqrt()


def canonical_critic(
    x: Float[Tensor, "N dx"],
    y: Float[Tensor, "N dy"],
    *,
    hidden: int = 128,
    layers: int = 3,
    embedding: int = 32,
) -> Separable:
    """<f(x), g(y)> of perceptrons that are shown where to look; T = 0 (independence) at the start.

    Where something simple goes on, something else is the likeliest to go on too. So they see each
    column scaled by its multiple correlation, and that of its square, with the other side, and as
    further features the canonical coordinates of columns and of squares, as far as these correlate
    by more than chance. (In 25 dimensions of equal scale nothing is found.) Last comes the radius
    |u|² of the white coordinates, which no column shows, and rotations and tails depend on. Pairs
    of columns that depend on each other in a curved way (`curved_pairs`) get a term of their own:
    a sum of many such terms is what a perceptron is slow to find.

    Args:
        x: Samples that the critic will train on, of columns with variance near 1.
        y: Their partners.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        embedding: Dimensions of f and g.
    """
    widths = (*[hidden] * layers, embedding)
    columns, squares = Canonical.reproducible(x, y), Canonical.reproducible(x**2, y**2)
    strengths = torch.cat([columns.correlations, squares.correlations])
    strongest = strengths.max().clamp(min=1e-3)
    sides = []
    for samples, linear, quadratic, whitening in (
        (x, (columns.mean_x, columns.map_x), (squares.mean_x, squares.map_x), columns.map_x),
        (y, (columns.mean_y, columns.map_y), (squares.mean_y, squares.map_y), columns.map_y),
    ):
        first = _Coordinates(*linear, columns.correlations / strongest)
        second = _Coordinates(*quadratic, squares.correlations / strongest)
        relevance = torch.maximum(first.relevance(samples), second.relevance(samples**2))
        sides.append(_Encoder(first, second, whitening, relevance, widths))
    f, g = sides
    g.network.start_at_zero()
    pairs = curved_pairs(x, y)
    if not pairs:
        return Separable(f, g)
    of_x, of_y = (ColumnPerceptrons(list(columns)) for columns in zip(*pairs, strict=True))
    return Separable(_SideBySide(f, of_x), _SideBySide(g, of_y.start_at_zero()))


class _SideBySide(nn.Module):
    """Embeddings one after the other, so that the inner products add up."""

    def __init__(self, *embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)

    def forward(self, samples: Tensor) -> Tensor:
        return torch.cat([embedding(samples) for embedding in self.embeddings], -1)


class _Coordinates(nn.Module):
    """The canonical coordinates that correlate, scaled by how much."""

    mean: Tensor
    map: Tensor

    def __init__(self, mean: Tensor, map_: Tensor, weights: Tensor) -> None:
        super().__init__()
        found = (weights > 0).nonzero().flatten()
        self.register_buffer("mean", mean.float())
        self.register_buffer("map", (map_[:, found] * weights[found]).float())

    def forward(self, samples: Tensor) -> Tensor:
        return (samples - self.mean) @ self.map

    def relevance(self, samples: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
        """Multiple correlation of each column with these coordinates, weighted like them."""
        centred = samples.float() - self.mean
        loadings = centred.mT @ self(samples.float()) / len(samples)
        # A column that does not vary, or hardly, in these samples has no correlation.
        deviations = centred.square().mean(0).sqrt().clamp(min=1e-6)
        return loadings.square().sum(1).sqrt() / deviations


class _Encoder(nn.Module):
    """Features of one side, and a perceptron with a linear shortcut on them."""

    whitening: Tensor
    scales: Tensor

    def __init__(
        self,
        linear: _Coordinates,
        quadratic: _Coordinates,
        whitening: Float[Tensor, "d e"],
        relevance: Float[Tensor, " d"],
        widths: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.linear, self.quadratic = linear, quadratic
        self.register_buffer("whitening", whitening.float())
        # Together, many columns of noise weigh about as much as one that matters.
        least = min(0.25, 1.25 / math.sqrt(len(relevance)))
        found = bool(relevance.any())
        scales = (relevance / relevance.max()).clamp(min=least) if found else relevance + 1
        self.register_buffer("scales", scales)
        features = linear.map.shape[1] + quadratic.map.shape[1] + len(relevance) + 1
        self.network = Shortcut(features, *widths)

    def forward(self, samples: Tensor) -> Tensor:
        centred = samples - self.linear.mean
        white = centred @ self.whitening
        # Mean 0 and variance 1 for Gaussians.
        radius = (white.square().mean(-1, keepdim=True) - 1) * math.sqrt(white.shape[-1] / 2)
        simple = [self.linear(samples), self.quadratic(samples.square())]
        return self.network(torch.cat([*simple, centred * self.scales, radius], -1))
