"""Encoders: images to a feature map, a hidden layer and a stochastic code z."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mi_estimators.estimator import evaluating

FixedLayer = Literal["z_mean", "z_log_var", "hidden", "conv", "feature_map"]
Layer = Literal["z", FixedLayer]  # with the one that is drawn


@dataclass(frozen=True)
class Features:
    """What an encoder makes of N images.

    Attributes:
        feature_map: The local features C_ij.
        conv: The last convolution's ("conv" in the paper).
        hidden: The layer right before the code's heads ("fc").
        z_mean: Mean of p(z|x) ("Y").
        z_log_var: Log-variance of p(z|x).
    """

    feature_map: Float[Tensor, "N c h w"]
    conv: Float[Tensor, "N e i j"]
    hidden: Float[Tensor, "N f"]
    z_mean: Float[Tensor, "N d"]
    z_log_var: Float[Tensor, "N d"]

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "N d"]:
        """z = mean + sd * noise, differentiable in both (reparameterisation)."""
        mean, log_var = self.z_mean.float(), self.z_log_var.float()
        drawn_on = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, device=drawn_on).to(mean.device)
        return mean + (0.5 * log_var).exp() * noise


class Encoder(nn.Module):
    """Images to `Features`: convolutions up to the local features, others, the rest, two heads.

    Takes bytes, or floats in [0, 1], of shape `N 3 h w`; normalises them itself.

    Args:
        local: Normalised images to the feature map.
        conv: The feature map to the last convolution's output.
        rest: That to the hidden layer.
        hidden_dim: Size of the hidden layer.
        z_dim: Size of the code.
        centre: Pixel value (of [0, 1]) that becomes 0.
        scale: What a unit of pixel value becomes.

    Raises:
        ValueError: On call, if the images are floats outside [0, 1].
    """

    def __init__(
        self,
        local: nn.Module,
        conv: nn.Module,
        rest: nn.Module,
        *,
        hidden_dim: int,
        z_dim: int,
        centre: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.local = local
        self.conv = conv
        self.rest = rest
        self.z_mean = nn.Linear(hidden_dim, z_dim)
        self.z_log_var = nn.Linear(hidden_dim, z_dim)
        self.centre, self.scale = centre, scale

    def forward(self, images: Tensor) -> Features:
        """Encode a batch."""
        feature_map = self.local(self.normalise(images))
        conv = self.conv(feature_map)
        hidden = self.rest(conv)
        return Features(feature_map, conv, hidden, self.z_mean(hidden), self.z_log_var(hidden))

    def normalise(self, images: Tensor) -> Float[Tensor, "N 3 h w"]:
        """Bytes or floats in [0, 1] to the range that the encoder was designed for."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not torch.compiler.is_compiling() and bool(((images < 0) | (images > 1)).any()):
            raise ValueError(
                f"images: expected bytes or floats in [0, 1], received floats from "
                f"{images.min():.3g} to {images.max():.3g}; rescale them, the encoder normalises"
            )
        # Convolutions are faster with channels last, on CUDA and on most CPUs.
        centred = (images.float() - self.centre) * self.scale
        return centred.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode(
    encoder: nn.Module,
    images: UInt8[Tensor, "N 3 h w"],
    layer: Layer = "z_mean",
    *,
    batch_size: int = 500,
) -> Float[Tensor, "N ..."]:
    """One layer's features of all images, as float32, where the encoder is.

    Runs in eval mode, and leaves every submodule in the mode it was found in. A sample z is the
    same at each call.

    Args:
        encoder: Maps uint8 images to `Features`.
        images: Images, anywhere.
        layer: Which features.
        batch_size: Images encoded at a time.
    """
    device = next(encoder.parameters()).device
    generator = torch.Generator(device).manual_seed(0)

    def of(features: Features) -> Tensor:
        chosen = features.sample(generator) if layer == "z" else getattr(features, layer)
        return chosen.float()

    with evaluating(encoder):
        return torch.cat([of(encoder(batch.to(device))) for batch in images.split(batch_size)])


def basic32x32(image_size: int, z_dim: int = 64) -> Encoder:
    """The encoder of the paper for CIFAR-10 (Hjelm et al. 2019); its "Y" is `z_mean`.

    Three convolutions that halve, the second of which is the feature map (8x8x128 for 32x32
    images), and one hidden layer of 1024.

    Raises:
        ValueError: If the image size is no multiple of 8.
    """
    side = _halve(image_size, 3)
    return Encoder(
        nn.Sequential(*_strided(3, 64), *_strided(64, 128)),
        nn.Sequential(*_strided(128, 256)),
        nn.Sequential(nn.Flatten(), *_dense(256 * side * side, 1024)),
        hidden_dim=1024,
        z_dim=z_dim,
        centre=0.5,
        scale=2.0,
    )


def alex64x64(image_size: int, z_dim: int = 64) -> Encoder:
    """The encoder of the paper for Tiny ImageNet and STL-10 (Hjelm et al. 2019); "Y" is `z_mean`.

    Five convolutions as in AlexNet, each 3x3 at stride 1, the first, second and last followed by an
    overlapping maximum; the third is the feature map (15x15x384 for 64x64 images). Two hidden
    layers of 4096.

    Raises:
        ValueError: If the image has fewer than 15 pixels a side.
    """
    side = image_size
    for _ in range(3):
        side = (side - 3) // 2 + 1
    if side < 1:
        raise ValueError(
            f"image_size: expected at least 15, for the encoder halves it 3 times, received "
            f"{image_size}; resize with --image-size"
        )
    return Encoder(
        nn.Sequential(
            *_same(3, 96), nn.MaxPool2d(3, 2), *_same(96, 192), nn.MaxPool2d(3, 2), *_same(192, 384)
        ),
        nn.Sequential(*_same(384, 384), *_same(384, 192), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.Flatten(), *_dense(192 * side * side, 4096), *_dense(4096, 4096)),
        hidden_dim=4096,
        z_dim=z_dim,
        centre=0.5,
        scale=2.0,
    )


def su(image_size: int, z_dim: int = 256) -> Encoder:
    """The blog's encoder (Su 2018, spaces.ac.cn/archives/6024 and its code).

    Three blocks of convolution and pooling make the feature map (4x4x256 for 32x32 images), two
    more convolutions and a global maximum the hidden layer of 256. As in Keras: Glorot-uniform
    weights, zero biases, its batch-norm constants.

    Raises:
        ValueError: If the image size is no multiple of 8.
    """
    _halve(image_size, 3)
    encoder = Encoder(
        nn.Sequential(
            *_convolution(3, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            nn.MaxPool2d(2),
            *_convolution(128, 256),
            nn.MaxPool2d(2),
        ),
        nn.Sequential(*_convolution(256, 256), *_convolution(256, 256)),
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        hidden_dim=256,
        z_dim=z_dim,
        centre=0.5,
        scale=1.0,
    )
    encoder.apply(glorot_uniform)
    return encoder


def resnet18(image_size: int, z_dim: int = 128) -> Encoder:
    """ResNet-18 (He et al. 2016) for small images: a first convolution of 3x3 and no first pooling.

    Four stages of two residual blocks; the third makes the feature map (8x8x256 for 32x32 images),
    the mean of the fourth over locations is the hidden layer of 512, which the field probes.

    Raises:
        ValueError: If the image size is no multiple of 8.
    """
    _halve(image_size, 3)
    encoder = Encoder(
        nn.Sequential(*_same(3, 64), *_stage(64, 64, 1), *_stage(64, 128, 2), *_stage(128, 256, 2)),
        nn.Sequential(*_stage(256, 512, 2)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        hidden_dim=512,
        z_dim=z_dim,
        centre=0.5,
        scale=2.0,
    )
    encoder.apply(_he_normal)
    return encoder


class ResidualBlock(nn.Module):
    """x + f(x), rectified: two convolutions of 3x3, each with batch norm (He et al. 2016, Fig. 2).

    Where the shape changes, x goes through a convolution of 1x1 and batch norm.

    Args:
        channels_in: Of x.
        channels_out: Of the output.
        stride: Of the first convolution.

    Example:
        >>> ResidualBlock(4, 8, 2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_same(channels_in, channels_out, stride),
            *_same(channels_out, channels_out)[:-1],  # rectified after the sum
        )
        self.shortcut: nn.Module = nn.Identity()
        if (channels_in, stride) != (channels_out, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Float[Tensor, "N c h w"]) -> Float[Tensor, "N d i j"]:
        """The sum."""
        return (self.residual(x) + self.shortcut(x)).relu()


def glorot_uniform(module: nn.Module) -> None:
    """Keras' default weights for a layer; for `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _strided(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def _same(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def _stage(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    first = ResidualBlock(channels_in, channels_out, stride)
    return [first, ResidualBlock(channels_out, channels_out, 1)]


def _he_normal(module: nn.Module) -> None:
    """He et al. 2015, by the outputs of a convolution, as torchvision's ResNets begin."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _dense(dim_in: int, dim_out: int) -> list[nn.Module]:
    return [nn.Linear(dim_in, dim_out, bias=False), nn.BatchNorm1d(dim_out), nn.ReLU()]


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01),
        nn.LeakyReLU(0.2),
    ]


def _halve(image_size: int, times: int) -> int:
    if image_size < 2**times or image_size % 2**times:
        raise ValueError(
            f"image_size: expected a multiple of {2**times}, for the encoder halves it {times} "
            f"times, received {image_size}; resize with --image-size"
        )
    return image_size // 2**times
