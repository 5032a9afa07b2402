"""Two views of an image: random changes that leave what it shows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from dim.extras import require_packages
from mi_estimators.estimator import seeded

Augmentation = Callable[[Tensor], Tensor]


def augmentation(image_size: int) -> nn.Module:
    """What makes a view of each image of a batch, pixels in [0, 1]: SimCLR's changes for CIFAR-10.

    A crop, back at full size; mirrored or not; of four in five brightness, contrast, saturation and
    hue; one in five grey; no blur (Chen et al. 2020, Appendix B.9). Crops are of at least a fifth
    of the area, as in MoCo (He et al. 2020), and not of 0.08.

    Raises:
        ModuleNotFoundError: If kornia is absent.
    """
    require_packages(
        "kornia",
        argument="views",
        purpose="for two views of an image",
        extra="views",
        otherwise="leave --views at 1",
    )
    from kornia import augmentation as changes

    size = (image_size, image_size)
    return nn.Sequential(
        changes.RandomResizedCrop(size, scale=(0.2, 1.0), cropping_mode="resample"),
        changes.RandomHorizontalFlip(),
        changes.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        changes.RandomGrayscale(p=0.2),
    )


def two_views(
    images: UInt8[Tensor, "N 3 h w"], augment: Augmentation, *, seed: Sequence[int]
) -> tuple[UInt8[Tensor, "N 3 h w"], UInt8[Tensor, "N 3 h w"]]:
    """Two random views of each image; of one seed always the same two.

    Args:
        images: Bytes; so are the views.
        augment: Makes a view of each image of a batch, pixels in [0, 1]. It draws from torch's
            global CPU generator, as kornia does, which is then put back.
        seed: Whole numbers that decide what is drawn.

    Example:
        >>> images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
        >>> noise = lambda pixels: torch.rand(pixels.shape)
        >>> one, other = two_views(images, noise, seed=(0, 1))
        >>> torch.equal(one, other), torch.equal(one, two_views(images, noise, seed=(0, 1))[0])
        (False, True)
    """
    sequence = np.random.SeedSequence([number % 2**64 for number in seed])
    pixels = images / 255
    with seeded(int(sequence.generate_state(1, np.uint64)[0])):
        one, other = ((augment(pixels) * 255).round().to(torch.uint8) for _ in range(2))
    return one, other
