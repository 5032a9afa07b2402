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

from mi_estimators.critics import Separable, mlp

MANY = 0.5  # nats of bias from which on directions and correlations need samples of their own


@dataclass(frozen=True)
class Canonical:
    """Linear maps to canonical coordinates.

    Attributes:
        mean_x: Shape `[dx]`, as all of these in float64.
        map_x: Shape `[dx, ex]`: `(x - mean_x) @ map_x` is white, its first coordinates paired.
        mean_y: Shape `[dy]`.
        map_y: Shape `[dy, ey]`.
        correlations: ρ, shape `[k]` with k = min(ex, ey), the largest first.
    """

    mean_x: Float[Tensor, " dx"]
    map_x: Float[Tensor, "dx ex"]
    mean_y: Float[Tensor, " dy"]
    map_y: Float[Tensor, "dy ey"]
    correlations: Float[Tensor, " k"]

    @classmethod
    def fit(cls, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "Canonical":
        """Analyse samples; directions in which they do not vary are dropped.

        Raises:
            ValueError: If x or y does not vary at all.
        """
        (mean_x, white_x), (mean_y, white_y) = _whitening("x", x), _whitening("y", y)
        u, v = (x.double() - mean_x) @ white_x, (y.double() - mean_y) @ white_y
        left, correlations, right = torch.linalg.svd(u.mT @ v / len(u))
        # With fewer samples than dimensions some correlations are 1 by chance alone.
        correlations = correlations.clamp(max=1 - 1e-9)
        return cls(mean_x, white_x @ left, mean_y, white_y @ right.mT, correlations)

    @classmethod
    def reproducible(cls, x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> "Canonical":
        """As `fit`, with the correlations that other samples will show too, and 0 for the others.

        Noise fits dim_x dim_y / 2N nats of its own. Where that is much, directions come from three
        quarters of the samples, and the correlations along them from the last quarter.
        """
        n = len(x)
        if x.shape[1] * y.shape[1] / (2 * n) <= MANY:
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
        return replace(self, correlations=correlations.where(kept, 0.0))

    @property
    def information(self) -> float:
        """-1/2 Σ log(1 - ρ²), in nats: what Gaussians with these correlations share."""
        return -0.5 * torch.log1p(-self.correlations.square()).sum().item()


def information_bias(n: int, dim_x: int, dim_y: int) -> float:
    """What n samples of independent Gaussians are expected to show as `Canonical.information`.

    E log|S| of a Wishart matrix is a sum of digamma functions, so that the bias of the plug-in
    1/2 (log|Sx| + log|Sy| - log|Sxy|) is exact, whatever the correlations; to first order it is
    dim_x dim_y / 2n.

    Raises:
        ValueError: If there are not more samples than dimensions.

    Example:
        >>> information_bias(1000, 10, 10), 10 * 10 / 2000
        (0.05055..., 0.05)
    """
    if n - 1 < dim_x + dim_y:
        raise ValueError(
            f"n: expected more than dim_x + dim_y = {dim_x + dim_y} samples, received {n}; reduce "
            f"the dimensions first"
        )

    def log_determinant(dim: int) -> float:
        return torch.digamma((n - 1 - torch.arange(dim, dtype=torch.float64)) / 2).sum().item()

    return 0.5 * (log_determinant(dim_x) + log_determinant(dim_y) - log_determinant(dim_x + dim_y))


def _whitening(name: str, samples: Float[Tensor, "N d"]) -> tuple[Tensor, Tensor]:
    samples = samples.double()
    mean = samples.mean(0)
    variances, directions = torch.linalg.eigh((samples - mean).mT @ (samples - mean) / len(samples))
    varies = variances > 1e-10 * variances[-1]
    if not bool(varies[-1]):
        raise ValueError(f"{name}: expected samples that vary, received {len(samples)} equal rows")
    return mean, directions[:, varies] * variances[varies].rsqrt()


def canonical_critic(
    canonical: Canonical, *, hidden: int = 128, layers: int = 3, embedding: int = 16
) -> Separable:
    """<f(x), g(y)> of perceptrons that see canonical coordinates; T = 0 at the start.

    Coordinates come scaled by their correlations, as those in which something linear goes on are
    the likeliest for something else to go on too; in 25 dimensions nothing is found without.
    Beside them stands the radius |u|², which no coordinate shows and rotations and tails depend on.

    Args:
        canonical: Of the samples that the critic will train on.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        embedding: Dimensions of f and g.
    """
    sides = (
        (canonical.mean_x, canonical.map_x, canonical.correlations),
        (canonical.mean_y, canonical.map_y, canonical.correlations),
    )
    f, g = (_CanonicalEncoder(*side, widths=(*[hidden] * layers, embedding)) for side in sides)
    for parameter in (*g.perceptron[-1].parameters(), *g.linear.parameters()):
        nn.init.zeros_(parameter)
    return Separable(f, g)


class _CanonicalEncoder(nn.Module):
    mean: Tensor
    map: Tensor
    scales: Tensor

    def __init__(
        self, mean: Tensor, map_: Tensor, correlations: Tensor, *, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        dim = map_.shape[1]
        self.register_buffer("mean", mean.float())
        self.register_buffer("map", map_.float())
        self.register_buffer("scales", _relevance(correlations, dim).float())
        self.perceptron = mlp(dim + 1, *widths)
        self.linear = nn.Linear(dim + 1, widths[-1], bias=False)

    def forward(self, samples: Tensor) -> Tensor:
        white = (samples - self.mean) @ self.map
        dim = white.shape[-1]
        # Mean 0 and variance 1 for Gaussians.
        radius = (white.square().mean(-1, keepdim=True) - 1) * math.sqrt(dim / 2)
        features = torch.cat([white * self.scales, radius], -1)
        return self.perceptron(features) + self.linear(features)


def _relevance(correlations: Float[Tensor, " k"], dim: int) -> Float[Tensor, " d"]:
    """Weights of `dim` canonical coordinates: 1 for the first, and together little for the rest."""
    if not bool(correlations.any()):
        return torch.ones(dim, dtype=torch.float64)
    weights = torch.zeros(dim, dtype=torch.float64)
    weights[: len(correlations)] = correlations / correlations.max()
    return weights.clamp(min=min(0.25, 1.25 / math.sqrt(dim)))
