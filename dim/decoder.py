"""Decoders: codes back to images, for the models that Deep InfoMax is compared with.

An autoencoder is an encoder and a `ReconstructionTerm`; with the KL prior and a sampled code it is
a variational one, with a mean for each class the class-conditional one of the VAE blog.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Decoder(nn.Module):
    """A code to an image in [-1, 1]: a linear layer, then convolutions that double the size.

    Args:
        z_dim: Dimensions of the code.
        image_size: Side of the image.
        channels: Of what the linear layer makes; half as many after each doubling.

    Raises:
        ValueError: If the image size is no multiple of 8.
    """

    def __init__(self, z_dim: int, image_size: int, *, channels: int = 256) -> None:
        super().__init__()
        if image_size < 8 or image_size % 8:
            raise ValueError(
                f"image_size: expected a multiple of 8, for the decoder doubles it 3 times, "
                f"received {image_size}; resize with --image-size"
            )
        side, half, quarter = image_size // 8, channels // 2, channels // 4
        self.layers = nn.Sequential(
            nn.Linear(z_dim, channels * side * side, bias=False),
            nn.Unflatten(1, (channels, side, side)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            *_doubling(channels, half),
            *_doubling(half, quarter),
            nn.ConvTranspose2d(quarter, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N 3 h w"]:
        """Images, where grey is 0."""
        return self.layers(z)


def _doubling(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, 2, 1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


class ReconstructionTerm(nn.Module):
    """-log p(x|z) in nats, p normal around the decoder's image, on pixels in [-1, 1].

    1/2 Σ (x - decoder(z))² / variance over pixels and colours, averaged over the batch; the
    normalising constant is left out. The KL prior beside it makes the negative evidence lower
    bound (Kingma and Welling 2014).

    Args:
        decoder: Codes to images.
        variance: Of a pixel given z.

    Example:
        >>> term = ReconstructionTerm(Decoder(2, 8, channels=4))
        >>> term(torch.zeros(5, 2), torch.zeros(5, 3, 8, 8, dtype=torch.uint8)).item() > 0
        True
    """

    def __init__(self, decoder: Decoder, *, variance: float = 1.0) -> None:
        super().__init__()
        self.decoder = decoder
        self.variance = variance

    def forward(self, z: Float[Tensor, "N d"], images: Tensor) -> Float[Tensor, ""]:
        """The loss of a batch of bytes, or of floats in [0, 1]."""
        target = 2 * (images / 255 if images.dtype == torch.uint8 else images) - 1
        error = self.decoder(z).float() - target
        return 0.5 * error.square().flatten(1).sum(1).mean() / self.variance
