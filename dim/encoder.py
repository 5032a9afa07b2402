"""Encoders: images to a feature map, a hidden layer and a stochastic code."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What an encoder makes of N images.

    Attributes:
        feature_map: The local features C_ij.
        hidden: The layer right before the code's heads.
        z_mean: Mean of p(z|x).
        z_log_var: Log-variance of p(z|x).
    """

    feature_map: Float[Tensor, "N c h w"]
    hidden: Float[Tensor, "N f"]
    z_mean: Float[Tensor, "N d"]
    z_log_var: Float[Tensor, "N d"]
