"""Gaussian mixtures: clusters, and what goes on inside of each, as a log-ratio in closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mi_estimators.columns import two_valued
from mi_estimators.critics import Critic

COMPONENTS = (2, 3, 4, 6, 8, 12, 16)  # that are tried, for as long as more of them help
FEWEST, MOST = 5, 64  # columns: in fewer, perceptrons and nearest neighbours find clusters as well
ROWS = 2**13  # that mixtures are fitted to
ITERATIONS, TOLERANCE = 50, 3e-4  # of expectation-maximisation; in nats a sample
WEAK, STRONG = 1.0, 8.0  # pull of the covariances towards each other; see `Mixture.fit`
LEAST_VARIANCE = 1e-3  # of columns that vary by 1: some do not vary within a component


class Mixture(nn.Module):
    """The law Σ_k w_k N(m_k, S_k), in float64.

    Args:
        weights: w, shape `[K]`.
        means: m, shape `[K, d]`.
        covariances: S, shape `[K, d, d]`.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions: Tensor
    constants: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights.double())
        self.register_buffer("means", means.double())
        self.register_buffer("covariances", covariances.double())
        self.register_buffer("precisions", torch.linalg.inv(self.covariances))
        volumes = torch.logdet(2 * math.pi * self.covariances)
        # log w_k N(m_k; m_k, S_k)
        self.register_buffer("constants", self.weights.log() - 0.5 * volumes)

    def forward(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b K"]:
        """log w_k N(z; m_k, S_k), whose logsumexp is the log-density."""
        centred = z.double()[..., None, :] - self.means
        mapped = torch.einsum("...kd,kde->...ke", centred, self.precisions)
        return self.constants - 0.5 * (mapped * centred).sum(-1)

    def of(self, columns: slice) -> "Mixture":
        """The law of some of the columns, a mixture again."""
        return Mixture(self.weights, self.means[:, columns], self.covariances[:, columns, columns])

    @classmethod
    def fit(cls, z: Float[Tensor, "N d"], shares: Float[Tensor, "N K"], pull: float) -> "Mixture":
        """Expectation-maximisation.

        Each covariance is drawn towards the mean of all, as by `pull` samples for each of its
        parameters: those of few samples, or of many columns, are not left to chance.

        Args:
            z: Samples, of columns with variance near 1.
            shares: The components' shares of each, to begin with.
            pull: 0 or more.
        """
        n, d = z.shape
        prior = pull * d * (d + 1) / 2
        ridge = LEAST_VARIANCE * torch.eye(d, dtype=torch.float64)
        before = -math.inf
        for _ in range(ITERATIONS):
            sizes = shares.sum(0).clamp(min=1e-6)
            means = shares.mT @ z / sizes[:, None]
            centred = z[:, None] - means
            scatters = torch.einsum("nk,nkd,nke->kde", shares, centred, centred)
            drawn = (scatters + prior * scatters.sum(0) / n) / (sizes + prior)[:, None, None]
            mixture = cls(sizes / n, means, drawn + ridge)
            parts = mixture(z)
            likelihood = parts.logsumexp(1).mean().item()
            if likelihood < before + TOLERANCE:
                break
            before, shares = likelihood, parts.softmax(1)
        return mixture


def seeded_shares(z: Float[Tensor, "N d"], components: int) -> Float[Tensor, "N K"]:
    """Each sample to the nearest of seeds that are far apart, as those of k-means++.

    (Arthur and Vassilvitskii 2007.)
    """
    generator = torch.Generator().manual_seed(0)
    seeds = z[torch.randint(len(z), (1,), generator=generator)]
    for _ in range(components - 1):
        farness = torch.cdist(z, seeds).square().amin(1) + 1e-12  # all may coincide
        seeds = torch.cat([seeds, z[torch.multinomial(farness, 1, generator=generator)]])
    return one_hot(torch.cdist(z, seeds).argmin(1), components).to(z)


class MixtureRatio(Critic):
    """log p(x, y) / p(x)p(y) of a Gaussian mixture, whose margins are mixtures, too.

    With x and y centred on m_k, and P_k the inverse of S_k, a component's joint log-density is
    a_k(x) + b_k(y) - xᵀ P_k,xy y.

    Args:
        joint: Of the columns of x, then those of y.
        dim_x: Columns of x.
    """

    def __init__(self, joint: Mixture, dim_x: int) -> None:
        super().__init__()
        self.joint, self.dim_x = joint, dim_x
        self.margin_x, self.margin_y = joint.of(slice(dim_x)), joint.of(slice(dim_x, None))

    @property
    def width(self) -> int:
        """Dimensions of an encoding."""
        components, dim_y = self.margin_y.means.shape
        return components * (dim_y + 2)

    def encode_x(self, x: Float[Tensor, "*b dx"]) -> Float[Tensor, "*b e"]:
        """-P_k,yx x, a_k(x) - log p(x) and 1, for each component."""
        centred = x.double()[..., None, :] - self.margin_x.means
        of_x, of_y = self.joint.precisions[:, : self.dim_x].tensor_split([self.dim_x], dim=2)
        own = -0.5 * torch.einsum("...kd,kde,...ke->...k", centred, of_x, centred)
        own = (own - self.margin_x(x).logsumexp(-1, keepdim=True))[..., None]
        slopes = -torch.einsum("...kd,kde->...ke", centred, of_y)
        return torch.cat([slopes, own, torch.ones_like(own)], -1).flatten(-2).to(x)

    def encode_y(self, y: Float[Tensor, "*b dy"]) -> Float[Tensor, "*b e"]:
        """y, 1 and b_k(y) - log p(y), for each component."""
        centred = y.double()[..., None, :] - self.margin_y.means
        of_y = self.joint.precisions[:, self.dim_x :, self.dim_x :]
        own = -0.5 * torch.einsum("...kd,kde,...ke->...k", centred, of_y, centred)
        own = own + self.joint.constants - self.margin_y(y).logsumexp(-1, keepdim=True)
        own = own[..., None]
        return torch.cat([centred, torch.ones_like(own), own], -1).flatten(-2).to(y)

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        """The log-ratio; all pairs cost one matrix product a component."""
        u, v = (w.unflatten(-1, (len(self.joint.weights), -1)).movedim(-2, 0) for w in (u, v))
        return torch.einsum("k...e,k...e->k...", u, v).logsumexp(0)


def mixture_ratio(x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> MixtureRatio | None:
    """The log-ratio of a Gaussian mixture, with as many components as explain an eighth best.

    That eighth of the samples is not fitted to, until all is chosen. Components are added for as
    long as the likelihood there grows.

    Args:
        x: Samples, of columns with variance near 1.
        y: Their partners.

    Returns:
        The log-ratio; or None, where one component explains that eighth as well, within two
        standard errors, or there are too few columns or too many, or labels, which are normal in
        no component.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> cluster = torch.randint(2, (2000, 1), generator=generator)
        >>> noise = torch.randn(2000, 6, generator=generator)
        >>> x, y = (4 * cluster - 2 + noise).split(3, dim=1)  # they share a bit: log 2 nats
        >>> abs(mixture_ratio(x, y)(x, y).mean().item() - 0.693) < 0.02
        True
    """
    z = torch.cat([x[:ROWS], y[:ROWS]], 1).detach().double().cpu()
    if not FEWEST <= z.shape[1] <= MOST or two_valued(z).any():
        return None
    fitting, left_out = z.tensor_split([7 * len(z) // 8])
    pull = WEAK
    best = Mixture.fit(fitting, seeded_shares(fitting, 1), pull)
    explained = of_one = best(left_out).logsumexp(1)
    for components in COMPONENTS:
        mixture = Mixture.fit(fitting, seeded_shares(fitting, components), pull)
        likelihoods = mixture(left_out).logsumexp(1)
        if not likelihoods.mean() > explained.mean():
            break
        best, explained = mixture, likelihoods
    gain = explained - of_one
    if not gain.mean() > 2 * gain.std() / math.sqrt(len(gain)):
        return None
    alike = Mixture.fit(fitting, best(fitting).softmax(1), STRONG)
    if alike(left_out).logsumexp(1).mean() > explained.mean():
        best, pull = alike, STRONG
    return MixtureRatio(Mixture.fit(z, best(z).softmax(1), pull), x.shape[1])
