"""The InfoMax terms: which two things of one image should be informative about each other.

And what makes that harder, to the code's benefit: images of which it sees only a part, or which it
sees coarsely.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from dim.encoder import Features
from mi_estimators import MIEstimator, Shuffled, mlp

TERMS = ("global", "local", "locations")  # of InfoMax, by the names of their losses


class Encoded(NamedTuple):
    """Images, or a view of each, as an encoder sees them.

    Attributes:
        features: What it makes of them.
        z: Their codes: a sample of p(z|x), or its mean.
    """

    features: Features
    z: Float[Tensor, "N d"]

    def chunk(self, views: int) -> list["Encoded"]:
        """Apart, where several views of the images were encoded as one batch, view after view."""
        if views == 1:
            return [self]
        parts = zip(*(part.chunk(views) for part in vars(self.features).values()), strict=True)
        return [
            Encoded(Features(*features), z)
            for features, z in zip(parts, self.z.chunk(views), strict=True)
        ]


Pairing = Callable[[Encoded, Encoded, torch.Generator | None], tuple[Tensor, Tensor]]


class InfoMaxTerm(nn.Module):
    """A mutual-information term: an estimator and the pair (x, y) it is given.

    Args:
        estimator: Scores the pairs; its negatives come from the other images of the batch.
        pairing: Two views, which may be one and the same, and a source of randomness to the pair: x
            of the first view, y of the second.
    """

    def __init__(self, estimator: MIEstimator, pairing: Pairing) -> None:
        super().__init__()
        self.estimator = estimator
        self.pairing = pairing

    def forward(
        self, views: Sequence[Encoded], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """The estimator's loss, a mean over `pairs`; 0 at chance for every objective but NWJ."""
        losses = [
            self.estimator.loss(*pair, generator=generator)
            for pair in self.pairs(views, generator=generator)
        ]
        return torch.stack(losses).mean()

    def pairs(
        self, views: Sequence[Encoded], *, generator: torch.Generator | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Of one view the pair with itself; of two those of each with the other."""
        return [
            self.pairing(one, other, generator)
            for one, other in zip(views, reversed(views), strict=True)
        ]


def code_with_code(
    one: Encoded, other: Encoded, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """(z, z), the blog's global pair: z stands for x, which it encodes; codes must differ."""
    return one.z, other.z


def map_with_code(
    one: Encoded, other: Encoded, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "N chw"], Float[Tensor, "N d"]]:
    """(C, z), the paper's global pair: the whole feature map and the code."""
    return one.features.feature_map.flatten(1), other.z


def code_with_locations(
    one: Encoded, other: Encoded, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "N 1 d"], Float[Tensor, "N L c"]]:
    """(z, C_ij), the local pair: the code and each location of the feature map."""
    return one.z[:, None], _locations(other.features)


def location_with_another(
    one: Encoded, other: Encoded, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "N L c"], Float[Tensor, "N L c"]]:
    """(C_ij, C_i'j'), the locations pair: each location of the feature map and another one.

    The blog's "other information" (Su 2018). Which other one is drawn for all images alike, as a
    permutation of the locations that leaves none in place.
    """
    here, there = _locations(one.features), _locations(other.features)
    return here, there[:, _another(here, generator)]


def _locations(features: Features) -> Float[Tensor, "N L c"]:
    return rearrange(features.feature_map, "n c h w -> n (h w) c")


def _another(
    local: Float[Tensor, "N L c"], generator: torch.Generator | None
) -> Int64[Tensor, " L"]:
    """Another location for each, each other one as likely."""
    drawn = Shuffled()(local.shape[1:2], generator=generator, device=local.device)
    return drawn.indices[:, 0]


def _undecided(*widths: int) -> nn.Sequential:
    """A classifier, a perceptron whose logits start at 0."""
    classifier = mlp(*widths, activation=nn.ReLU)
    for parameter in classifier[-1].parameters():
        nn.init.zeros_(parameter)
    return classifier


class CoordinateTerm(nn.Module):
    """I(C_ij; (i, j) | z): where in its image a local feature is from, told by it and the code.

    Every location is as likely, so a classifier's cross-entropy below log(h w) is a lower bound on
    that information (Barber and Agakov 2003). With `RelativeCoordinateTerm` it is the task that
    Hjelm et al. 2019 (Section 4.3) add to infoNCE, where both together bring the code 0.9 points.

    Args:
        channels: Of the feature map.
        locations: h w.
        z_dim: Dimensions of the code.
        units: Width of the classifier's hidden layer.

    Example:
        >>> term = CoordinateTerm(2, 4, 3)
        >>> features = Features(*[torch.randn(5, 2, 2, 2)] * 2, *[torch.zeros(5, 3)] * 3)
        >>> abs(term(features, torch.randn(5, 3)).item()) < 1e-6  # knows nothing yet
        True
    """

    def __init__(self, channels: int, locations: int, z_dim: int, *, units: int = 512) -> None:
        super().__init__()
        self.classifier = _undecided(channels + z_dim, units, locations)

    def forward(self, features: Features, z: Float[Tensor, "N d"]) -> Float[Tensor, ""]:
        """The bound's negative, in nats: 0 at chance, -log(h w) where every location is known."""
        local = _locations(features)
        n, locations, _ = local.shape
        logits = self.classifier(torch.cat([local, z[:, None].expand(-1, locations, -1)], -1))
        places = torch.arange(locations, device=z.device).repeat(n)
        return F.cross_entropy(logits.flatten(0, 1).float(), places) - math.log(locations)


class RelativeCoordinateTerm(nn.Module):
    """I(C_ij, C_i'j'; (i - i', j - j') | z): how two local features of an image lie to each other.

    As `CoordinateTerm`, but of each location and another one, drawn as `location_with_another`
    does. Small displacements are the likelier ones, and the classifier starts from that.

    Args:
        channels: Of the feature map.
        height: h.
        width: w.
        z_dim: Dimensions of the code.
        units: Width of the classifier's hidden layer.

    Attributes:
        entropy: Of the displacement, in nats.

    Example:
        >>> term = RelativeCoordinateTerm(2, 2, 2, 3)
        >>> round(term.entropy, 3)  # four displacements at 1/6, four across at 1/12
        2.023
        >>> features = Features(*[torch.randn(64, 2, 2, 2)] * 2, *[torch.zeros(64, 3)] * 3)
        >>> abs(term(features, torch.randn(64, 3)).item()) < 0.5  # knows nothing yet
        True
    """

    places: Int64[Tensor, " L"]
    log_share: Float[Tensor, " K"]

    def __init__(
        self, channels: int, height: int, width: int, z_dim: int, *, units: int = 512
    ) -> None:
        super().__init__()
        down, across = torch.arange(1 - height, height), torch.arange(1 - width, width)
        pairs = ((height - down.abs())[:, None] * (width - across.abs())).flatten()
        counts = torch.cat([pairs[: len(pairs) // 2], pairs[len(pairs) // 2 + 1 :]])  # not itself
        log_share = (counts / counts.sum()).log()
        self.entropy = -(log_share.exp() * log_share).sum().item()
        # In rows so long that the difference of two places is another for each displacement.
        places = torch.arange(height)[:, None] * (2 * width - 1) + torch.arange(width)
        self.register_buffer("places", places.flatten(), persistent=False)
        self.register_buffer("log_share", log_share, persistent=False)
        self.classifier = _undecided(2 * channels + z_dim, units, len(counts))

    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The bound's negative, in nats: about 0 at chance, -entropy where all is known."""
        local = _locations(features)
        n, locations, _ = local.shape
        another = _another(local, generator)
        code = z[:, None].expand(-1, locations, -1)
        logits = self.classifier(torch.cat([local, local[:, another], code], -1))
        away = self.places - self.places[another]
        kinds = len(self.log_share) // 2 + away - (away > 0).long()  # 0, to itself, is none
        logits = logits.flatten(0, 1).float() + self.log_share
        return F.cross_entropy(logits, kinds.repeat(n)) - self.entropy


def occlude(
    images: Float[Tensor, "N 3 h w"] | UInt8[Tensor, "N 3 h w"],
    share: float,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Grey out a square of each image, at a random place inside.

    Args:
        images: Bytes, or floats in [0, 1].
        share: The square's side, as a share of the image's.
        generator: Source of the places.

    Example:
        >>> hidden = occlude(torch.ones(2, 3, 8, 8), 0.5)
        >>> (hidden == 0.5).sum((1, 2, 3)).tolist()  # 3 channels of 4 x 4
        [48, 48]
    """
    n, _, height, width = images.shape
    drawn_on = images.device if generator is None else generator.device
    masks = []
    for length in (height, width):
        side = round(share * length)
        start = torch.randint(length - side + 1, (n, 1), generator=generator, device=drawn_on)
        place = torch.arange(length, device=images.device) - start.to(images.device)
        masks.append((place >= 0) & (place < side))
    rows, columns = masks
    grey = 127 if images.dtype == torch.uint8 else 0.5
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], grey)


def coarsen(
    images: Float[Tensor, "N 3 h w"] | UInt8[Tensor, "N 3 h w"], factor: int
) -> Float[Tensor, "N 3 h w"] | UInt8[Tensor, "N 3 h w"]:
    """Lower the resolution of images, and keep their size.

    Each pixel becomes a mean over an area; bilinear interpolation between these makes an image of
    the same size, so that one encoder takes both.

    Args:
        images: Bytes, which stay bytes, or floats in [0, 1].
        factor: Side of the area, in pixels; at most the image's.

    Example:
        >>> pixels = torch.tensor([0.0, 1.0]).repeat(4, 2).expand(1, 3, 4, 4)
        >>> coarsen(pixels, 2).unique().tolist()
        [0.5]
    """
    height, width = images.shape[-2:]
    pixels = images.float()
    small = F.interpolate(pixels, (height // factor, width // factor), mode="area")
    large = F.interpolate(small, (height, width), mode="bilinear")
    return large.round().to(torch.uint8) if images.dtype == torch.uint8 else large
