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
from mi_estimators.directions import Form, curved_forms

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
    def reproducible(
        cls, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], independent: int | None = None
    ) -> "Canonical":
        """As `fit`, with the correlations that other samples will show too, and 0 for the others.

        Noise fits dim_x dim_y / 2N nats of its own. Where that is much, directions come from three
        quarters of the samples, and the deviations and correlations along them from the last one.
        Samples that are not all independent count for `independent`.
        """
        n = independent or len(x)
        if nats_of_noise(n, x.shape[1], y.shape[1]) <= MANY:
            return cls.fit(x, y).denoised(n)
        cut = 3 * len(x) // 4
        fitted = cls.fit(x[:cut], y[:cut]).denoised(3 * n // 4)
        k = len(fitted.correlations)
        u, v = fitted.x(x[cut:]), fitted.y(y[cut:])
        # White where they were fitted, elsewhere wider.
        of_x, of_y = (w.square().mean(0).sqrt().clamp(min=1e-6) for w in (u, v))
        correlations = (u[:, :k] * v[:, :k]).mean(0) / (of_x[:k] * of_y[:k])
        white = replace(fitted, map_x=fitted.map_x / of_x, map_y=fitted.map_y / of_y)
        shown_again = correlations > 3 / math.sqrt(n - 3 * n // 4)
        return white._keep(correlations, shown_again & (fitted.correlations > 0))

    def denoised(self, n: int) -> "Canonical":
        """Without the correlations that n samples of independent columns would show as well.

        These end at an edge (Wachter 1980); one standard error beyond it counts.
        """
        a, b = len(self.mean_x) / n, len(self.mean_y) / n
        edge = math.sqrt(a * (1 - min(b, 1))) + math.sqrt(b * (1 - min(a, 1)))
        return self._keep(self.correlations, self.correlations > edge + 1 / math.sqrt(n))

    def corrected(self, n: int) -> "Canonical":
        """With the correlations of the law, where n samples of so many columns show larger ones.

        A correlation ρ that is beyond the edge (`denoised`) comes out as r, with ρ² r² =
        (ρ² + (1 - ρ²) a)(ρ² + (1 - ρ²) b), a and b being columns of x and of y a sample, as all of
        these grow (Bao et al. 2019). What the directions are fitted to is thus taken off; what they
        miss, for being fitted, is not.

        Raises:
            ValueError: If there are not more samples than columns.
        """
        if n <= len(self.mean_x) + len(self.mean_y):
            raise ValueError(
                f"n: expected more samples than columns, received {n} and "
                f"{len(self.mean_x) + len(self.mean_y)}; reduce the dimensions first"
            )
        a, b = len(self.mean_x) / n, len(self.mean_y) / n
        square = self.correlations.square()
        # The larger root of (1 - a)(1 - b) p² - 2 half p + ab = 0, p being ρ².
        half = (square - a * (1 - b) - b * (1 - a)) / 2
        leading = (1 - a) * (1 - b)
        root = (half.square() - leading * a * b).clamp(min=0).sqrt()
        return self._keep(((half + root) / leading).clamp(min=0).sqrt(), square > 0)

    def x(self, x: Float[Tensor, "*b dx"]) -> Float[Tensor, "*b ex"]:
        """Canonical coordinates of x."""
        return (x - self.mean_x) @ self.map_x

    def y(self, y: Float[Tensor, "*b dy"]) -> Float[Tensor, "*b ey"]:
        """Canonical coordinates of y."""
        return (y - self.mean_y) @ self.map_y

    def swapped(self) -> "Canonical":
        """The same of y and x."""
        return Canonical(self.mean_y, self.map_y, self.mean_x, self.map_x, self.correlations)

    @property
    def map_alone(self) -> Float[Tensor, "dx e"]:
        """`map_x` to those of its coordinates that no coordinate of y correlates with."""
        paired = self.correlations > 0
        return torch.cat(
            [self.map_x[:, : len(paired)][:, ~paired], self.map_x[:, len(paired) :]], 1
        )

    def _keep(self, correlations: Tensor, kept: Tensor) -> "Canonical":
        return replace(self, correlations=correlations.clamp(max=LARGEST).where(kept, 0.0))

    @property
    def information(self) -> float:
        """What Gaussians with these correlations share, in nats."""
        return gaussian_information(self.correlations)


def gaussian_information(correlations: Float[Tensor, " k"]) -> float:
    """-1/2 Σ log(1 - ρ²), in nats: what Gaussians with these canonical correlations share."""
    return -0.5 * torch.log1p(-correlations.square()).sum().item()


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
    # Columns of very different units are no reason to drop any. In powers of two, which change no
    # digit.
    deviations = covariance.diagonal().sqrt()
    units = torch.exp2(deviations.log2().round()).where(deviations > 0, 1.0)
    variances, directions = torch.linalg.eigh(covariance / units / units[:, None])
    varies = variances > 1e-10 * variances[-1].clamp(min=1e-200)
    if not bool(varies.any()):
        return torch.zeros_like(directions[:, :1])
    return directions[:, varies] * variances[varies].rsqrt() / units[:, None]


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
    by more than chance. What only combinations of columns show, their squares and products
    (`curved_forms`), is a feature as well, with the coordinates that it is made of. Last comes the
    radius |u|² of the white coordinates, which rotations and tails depend on. Pairs of columns that
    depend on each other in a curved way (`curved_pairs`) get a term of their own: a sum of many
    such terms is what a perceptron is slow to find.

    Args:
        x: Samples that the critic will train on, of columns with variance near 1.
        y: Their partners.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        embedding: Dimensions of f and g.
    """
    widths = (*[hidden] * layers, embedding)
    columns, squares = Canonical.reproducible(x, y), Canonical.reproducible(x**2, y**2)
    of_x, of_y = columns, columns.swapped()
    forms = curved_forms((x - of_x.mean_x) @ of_x.map_alone, (y - of_y.mean_x) @ of_y.map_alone)
    seen = columns.correlations.new_tensor([pair.correlation for pair in forms])
    strengths = torch.cat([columns.correlations, squares.correlations, seen])
    strongest = strengths.max().clamp(min=1e-3)
    sides = []
    for samples, linear, quadratic, curved in (
        (x, of_x, squares, [pair.of_u for pair in forms]),
        (y, of_y, squares.swapped(), [pair.of_v for pair in forms]),
    ):
        first = _Coordinates(linear.mean_x, linear.map_x, linear.correlations / strongest)
        second = _Coordinates(quadratic.mean_x, quadratic.map_x, quadratic.correlations / strongest)
        third = _Forms(linear.mean_x, linear.map_alone, curved, seen / strongest)
        relevance = torch.maximum(first.relevance(samples), second.relevance(samples**2))
        relevance /= relevance.max().clamp(min=1e-6)
        relevance = torch.maximum(relevance, third.coordinates.relevance(samples))
        sides.append(_Encoder(first, second, third, linear.map_x, relevance, widths))
    f, g = sides
    g.network.start_at_zero()
    pairs = curved_pairs(x, y)
    if not pairs:
        return Separable(f, g)
    own_f, own_g = (ColumnPerceptrons(list(numbers)) for numbers in zip(*pairs, strict=True))
    return Separable(_SideBySide(f, own_f), _SideBySide(g, own_g.start_at_zero()))


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


class _Forms(nn.Module):
    """Coordinates of forms, and the forms' values, scaled by how much these correlate."""

    curvatures: Tensor
    slopes: Tensor
    weights: Tensor

    def __init__(self, mean: Tensor, map_: Tensor, forms: list[Form], weights: Tensor) -> None:
        super().__init__()
        bases = torch.cat([map_[:, :0], *(map_ @ form.basis.to(map_) for form in forms)], 1)
        ranks = torch.tensor([len(form.slope) for form in forms], dtype=torch.int64)
        self.coordinates = _Coordinates(mean, bases, weights.repeat_interleave(ranks))
        # Of coordinates that are already weighted.
        curvatures = torch.zeros(len(forms), bases.shape[1], bases.shape[1])
        slopes = torch.zeros(len(forms), bases.shape[1])
        end = 0
        for number, (form, weight) in enumerate(zip(forms, weights.tolist(), strict=True)):
            own = slice(end, end := end + len(form.slope))
            curvatures[number, own, own] = form.curvature / weight**2
            slopes[number, own] = form.slope / weight
        self.register_buffer("curvatures", curvatures)
        self.register_buffer("slopes", slopes)
        self.register_buffer("weights", weights.float())

    @property
    def width(self) -> int:
        """Features that are made."""
        return sum(self.slopes.shape)

    def forward(self, samples: Tensor) -> Tensor:
        p = self.coordinates(samples)
        values = torch.einsum("...k,jkl,...l->...j", p, self.curvatures, p) + p @ self.slopes.mT
        return torch.cat([p, values * self.weights], -1)


class _Encoder(nn.Module):
    """Features of one side, and a perceptron with a linear shortcut on them."""

    whitening: Tensor
    scales: Tensor

    def __init__(
        self,
        linear: _Coordinates,
        quadratic: _Coordinates,
        forms: _Forms,
        whitening: Float[Tensor, "d e"],
        relevance: Float[Tensor, " d"],
        widths: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.linear, self.quadratic, self.forms = linear, quadratic, forms
        self.register_buffer("whitening", whitening.float())
        # Together, many columns of noise weigh about as much as one that matters.
        least = min(0.25, 1.25 / math.sqrt(len(relevance)))
        found = bool(relevance.any())
        self.register_buffer("scales", relevance.clamp(min=least) if found else relevance + 1)
        simple = linear.map.shape[1] + quadratic.map.shape[1] + forms.width
        features = simple + len(relevance) + 1
        self.network = Shortcut(features, *widths)

    def forward(self, samples: Tensor) -> Tensor:
        centred = samples - self.linear.mean
        white = centred @ self.whitening
        # Mean 0 and variance 1 for Gaussians.
        radius = (white.square().mean(-1, keepdim=True) - 1) * math.sqrt(white.shape[-1] / 2)
        simple = [self.linear(samples), self.quadratic(samples.square()), self.forms(samples)]
        return self.network(torch.cat([*simple, centred * self.scales, radius], -1))
