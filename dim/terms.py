"""The InfoMax terms: which two things of one image should be informative about each other."""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dim.encoder import Features
from mi_estimators import MIEstimator

Pairing = Callable[[Features, Tensor], tuple[Tensor, Tensor]]


class InfoMaxTerm(nn.Module):
    """A mutual-information term: an estimator and the pair (x, y) it is given.

    Args:
        estimator: Scores the pairs; its negatives come from the other images of the batch.
        pairing: Features and a sample of z to the pair.
    """

    def __init__(self, estimator: MIEstimator, pairing: Pairing) -> None:
        super().__init__()
        self.estimator = estimator
        self.pairing = pairing

    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The estimator's loss; 0 at chance for every objective but NWJ."""
        return self.estimator.loss(*self.pairing(features, z), generator=generator)


def code_with_itself(
    features: Features, z: Float[Tensor, "N d"]
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """(z, z), the blog's global pair: z stands for x, which it encodes; codes must differ."""
    return z, z


def map_with_code(
    features: Features, z: Float[Tensor, "N d"]
) -> tuple[Float[Tensor, "N chw"], Float[Tensor, "N d"]]:
    """(C, z), the paper's global pair: the whole feature map and the code."""
    return features.feature_map.flatten(1), z


def code_with_locations(
    features: Features, z: Float[Tensor, "N d"]
) -> tuple[Float[Tensor, "N 1 d"], Float[Tensor, "N L c"]]:
    """(z, C_ij), the local pair: the code and each location of the feature map."""
    return z[:, None], rearrange(features.feature_map, "n c h w -> n (h w) c")
