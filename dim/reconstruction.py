"""How much of an image its code keeps: MS-SSIM of what a decoder makes of it."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from dim.data import ImageData
from dim.decoder import Decoder, ReconstructionTerm
from dim.extras import require_packages
from dim.measures import Codes, Measure
from mi_estimators.estimator import seeded

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from fine to coarse
COARSEST = 16  # pixels a side, where a window of 11 still has places to be in
BATCH = 500


def scales(side: int) -> int:
    """How many scales `ms_ssim` looks at in images of so many pixels a side.

    Raises:
        ValueError: If there is no room for one.

    Example:
        >>> [scales(side) for side in (16, 32, 64, 96, 256, 512)]
        [1, 2, 3, 3, 5, 5]
    """
    if side < COARSEST:
        raise ValueError(
            f"image_size: expected at least {COARSEST} pixels for MS-SSIM, received {side}; leave "
            f"it out, or train on larger images with --image-size"
        )
    return min(len(WEIGHTS), int(math.log2(side / COARSEST)) + 1)


def require_decodable(side: int) -> None:
    """Refuse, before anything is trained, images that a decoder cannot make or `ms_ssim` compare.

    Raises:
        ValueError: If they are too small, or their side is no multiple of 8.
        ModuleNotFoundError: If torchmetrics is absent.
    """
    _require_torchmetrics()
    scales(side)
    Decoder(1, side, channels=4)


def ms_ssim(
    images: Float[Tensor, "N 3 h w"], others: Float[Tensor, "N 3 h w"]
) -> Float[Tensor, " N"]:
    """Multi-scale structural similarity of images in [0, 1] (Wang et al. 2003): 1 if equal, else <.

    The window is the original's, a Gaussian of sd 1.5 over 11 pixels, for whose five scales an
    image needs more than 160. A smaller one is halved for as long as 16 pixels are left, twice a
    side of 64 and once one of 32: that is 3 and 2 scales, and their weights are the original's over
    their sum. So values compare between images of one size, and with others' by the same choice
    alone. (What Hjelm et al. 2019 released under this name has one scale.)

    Raises:
        ValueError: If the images have less than 16 pixels a side.
        ModuleNotFoundError: If torchmetrics is absent.

    Example:
        >>> images = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)
        >>> ms_ssim(images, images)
        tensor([1.])
    """
    _require_torchmetrics()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = WEIGHTS[: scales(images.shape[-1])]
    betas = tuple(weight / sum(weights) for weight in weights)
    return multiscale_structural_similarity_index_measure(
        others, images, data_range=1.0, betas=betas, reduction="none"
    )


def _require_torchmetrics() -> None:
    require_packages("torchmetrics", argument="MS-SSIM", purpose="to compute it")


def fit_decoder(
    codes: Float[Tensor, "N d"], images: UInt8[Tensor, "N 3 h w"], *, epochs: int, seed: int = 0
) -> Decoder:
    """A decoder of frozen codes by the L2 loss, in eval mode, where the codes are.

    Adam at 1e-3, in batches of 64.

    Args:
        codes: Of training images.
        images: These.
        epochs: Passes over them.
        seed: Of initial weights and order.

    Raises:
        ValueError: If the image size is no multiple of 8.
    """
    device = codes.device
    with seeded(seed, device), torch.enable_grad():
        decoder = Decoder(codes.shape[1], images.shape[-1]).to(device)
        loss = ReconstructionTerm(decoder)
        optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3, fused=True)
        for _ in tqdm(range(epochs), desc="decoder", disable=None, leave=False, unit="epoch"):
            for rows in torch.randperm(len(codes)).split(64):
                if len(rows) > 1:  # one row has no batch statistics
                    optimiser.zero_grad()
                    loss(codes[rows.to(device)], images[rows].to(device)).backward()
                    optimiser.step()
    return decoder.eval()


@torch.no_grad()
def reconstruction(
    codes: Codes, data: ImageData, *, epochs: int = 20, seed: int = 0
) -> Float[Tensor, " M"]:
    """MS-SSIM of each test image and what a decoder makes of its code.

    What Hjelm et al. 2019 take for how much of the image is in the code. The decoder learns on
    the training images; dimensions are standardised, so that no code is the worse for its scale.

    Args:
        codes: z_mean of the images.
        data: The images.
        epochs: Of the decoder.
        seed: Of the decoder.

    Raises:
        ValueError: If the images have less than 16 pixels a side, or no multiple of 8.
        ModuleNotFoundError: If torchmetrics is absent.
    """
    image = data.x_test[:1] / 255
    ms_ssim(image, image)  # what it refuses, it refuses before the decoder takes minutes
    mean, scale = codes.train.mean(0), codes.train.std(0).clamp(min=1e-6)
    decoder = fit_decoder((codes.train - mean) / scale, data.x_train, epochs=epochs, seed=seed)
    found = []
    for z, images in zip(codes.test.split(BATCH), data.x_test.split(BATCH), strict=True):
        again = (decoder((z - mean) / scale) + 1) / 2
        found.append(ms_ssim(images.to(again.device) / 255, again))
    return torch.cat(found)


def reconstruction_measure(codes: Codes, data: ImageData, about: str, *, epochs: int) -> Measure:
    """The mean of `reconstruction` over test images; `about` says whose code it is."""
    found = reconstruction(codes, data, epochs=epochs)
    levels = scales(data.x_test.shape[-1])
    return Measure(
        f"MS-SSIM of images decoded from {about}",
        found.mean().item(),
        f"1: the image itself; scales: {levels}; epochs of the decoder: {epochs}",
        found.std().item() / len(found) ** 0.5,
    )
