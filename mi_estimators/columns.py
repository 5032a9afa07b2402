"""Pairs of columns: what goes on between one column of x and one of y, found and learnt cheaply."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.polynomial.hermite_e import hermegauss, hermevander
from numpy.polynomial.legendre import legvander
from scipy.special import factorial, ndtr
from scipy.stats import chi2
from torch import Tensor, nn

DEGREE = 4  # of the polynomials that the search looks at
LEVEL = 1e-3  # nominal probability that the search finds anything where there is nothing
MOST = 32  # pairs
NUMBERS, PRODUCTS = 2**21, 2_000_000_000  # that the search is limited to: of samples, of pairs


def two_valued(samples: Float[Tensor, "N d"]) -> Bool[Tensor, " d"]:
    """Which columns have no more than two values, as there are for labels (`OneHot`)."""
    return ((samples == samples.amin(0)) | (samples == samples.amax(0))).all(0)


def curved_pairs(x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> list[tuple[int, int]]:
    """Columns of x and of y that depend on each other as no two Gaussians do, each in one pair.

    Polynomials of their quantiles have correlations that a Gaussian pair's own correlation tells
    (Mehler 1866). Pairs that depart from these by more than chance are found, the strongest first,
    among columns of at least five values.

    Args:
        x: Columns with margins near standard normal.
        y: Their partners.

    Example:
        >>> x, noise = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0))
        >>> y = torch.stack([noise[:, 0], x[:, 1] * noise[:, 1], x[:, 2] + noise[:, 2]], 1)
        >>> curved_pairs(x, y)
        [(1, 1)]
    """
    dx, dy = x.shape[1], y.shape[1]
    rows = slice(max(100, min(NUMBERS // (dx + dy), PRODUCTS // (dx * dy))))
    x, y = x[rows].detach().cpu(), y[rows].detach().cpu()
    (f, many_x), (g, many_y) = _polynomials(x), _polynomials(y)
    seen = torch.einsum("nia,njb->ijab", f, g) / len(x)
    departures = (seen - _of_gaussians(_correlations(x, y))).square().sum((2, 3))
    surprises = torch.from_numpy(chi2.logsf((len(x) * departures).numpy(), DEGREE**2))
    significant = surprises < math.log(LEVEL / surprises.numel())
    departures = departures.where(significant & many_x[:, None] & many_y, 0)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < MOST and departures.any():
        i, j = divmod(int(departures.argmax()), departures.shape[1])
        departures[i], departures[:, j] = 0, 0
        pairs.append((i, j))
    return pairs


def _polynomials(samples: Float[Tensor, "N d"]) -> tuple[Tensor, Tensor]:
    """Orthonormal polynomials of quantiles, `[N, d, DEGREE]`; which columns have so many, `[d]`."""
    legendre = _legendre(torch.special.ndtr(samples.float())).float()
    gram = torch.einsum("nda,ndb->dab", legendre, legendre) / len(samples)
    triangle = torch.linalg.cholesky(gram + 1e-3 * torch.eye(DEGREE + 1))
    basis = torch.einsum("dab,ndb->nda", torch.linalg.inv(triangle), legendre)
    # Few distinct values have few polynomials, and the next one is nearly a sum of these.
    return basis[..., 1:], (triangle.diagonal(dim1=1, dim2=2) > 0.1).all(1)


def _legendre(quantiles: Tensor) -> Tensor:
    """Polynomials of degree 0 to DEGREE on a new last axis, orthonormal for uniform quantiles."""
    norms = np.sqrt(2 * np.arange(DEGREE + 1) + 1)
    return torch.from_numpy(legvander(2 * quantiles.numpy() - 1, DEGREE) * norms)


def _correlations(x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> Float[Tensor, "dx dy"]:
    u, v = ((w - w.mean(0)) / w.std(0).clamp(min=1e-6) for w in (x.float(), y.float()))
    return u.mT @ v / len(u)


def _of_gaussians(rho: Float[Tensor, "dx dy"]) -> Float[Tensor, "dx dy a b"]:
    """What polynomials of the quantiles of Gaussians correlate by."""
    nodes, weights = hermegauss(64)
    degrees = np.arange(20)
    hermite = hermevander(nodes, degrees[-1]) / np.sqrt(factorial(degrees))
    legendre = _legendre(torch.from_numpy(ndtr(nodes)))[:, 1:]
    coefficients = legendre.mT @ torch.from_numpy(weights[:, None] / weights.sum() * hermite)
    powers = rho[..., None].double() ** torch.from_numpy(degrees)
    return torch.einsum("am,bm,ijm->ijab", coefficients, coefficients, powers)


class ColumnPerceptrons(nn.Module):
    """A perceptron of its own for each of some columns, their outputs side by side.

    Args:
        columns: Which columns; one may be there several times.
        hidden: Width of the two hidden layers.
        embedding: Outputs for each column.

    Example:
        >>> ColumnPerceptrons([0, 0, 2], hidden=8, embedding=4)(torch.zeros(10, 3)).shape
        torch.Size([10, 12])
    """

    columns: Tensor

    def __init__(self, columns: list[int], *, hidden: int = 32, embedding: int = 16) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns))
        n = len(columns)
        # The kinks of the lines are spread like the values of a standard normal column.
        self.slopes = nn.Parameter(torch.randn(n, hidden))
        self.offsets = nn.Parameter(-self.slopes.detach() * torch.randn(n, hidden))
        self.hidden = nn.Parameter(torch.randn(n, hidden, hidden) / hidden**0.5)
        self.biases = nn.Parameter(torch.zeros(n, hidden))
        self.outputs = nn.Parameter(torch.randn(n, hidden, embedding) / hidden**0.5)

    def start_at_zero(self) -> "ColumnPerceptrons":
        """Itself, with outputs of 0 until it is trained."""
        nn.init.zeros_(self.outputs)
        return self

    def forward(self, samples: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """The outputs of the first column, then those of the second, and so on."""
        lines = samples[..., self.columns, None] * self.slopes + self.offsets
        bent = torch.einsum("...ph,phk->...pk", lines.relu(), self.hidden) + self.biases
        return torch.einsum("...ph,phk->...pk", bent.relu(), self.outputs).flatten(-2)
