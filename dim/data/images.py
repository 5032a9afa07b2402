"""What every source makes: square uint8 RGB images of one size, with a test part."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

HELD_OUT = 0.2  # of the training images, where a source has no test part
PROGRESS = {"disable": None, "leave": False, "unit": "image"}  # None: a bar on terminals only


class DataError(ValueError):
    """Images or labels that cannot be used; says what was expected, received, and what to do."""


@dataclass(frozen=True)
class ImageData:
    """Images for training and testing, with labels where the source has them.

    Encoders and probes are fitted on the training part; what asks for labels is left out where it
    has none. The test part is only ever encoded, to score and to show.

    Attributes:
        name: What the data are, for reports; says so where the test part is held out of the
            training part, or damaged files were skipped.
        x_train: Training images, RGB.
        y_train: Their class numbers, or None.
        x_test: Test images of the same size.
        y_test: Their class numbers, or None.
        classes: Names by class number, where the source has names.
        files_train: Where the source has image files, the training images' paths in its folder; of
            an array that a test part is held out of, their rows.
        files_test: The same for the test images.
    """

    name: str
    x_train: UInt8[Tensor, "N 3 h w"]
    y_train: Int64[Tensor, "N"] | None
    x_test: UInt8[Tensor, "M 3 h w"]
    y_test: Int64[Tensor, "M"] | None
    classes: tuple[str, ...] | None
    files_train: tuple[str, ...] | None = None
    files_test: tuple[str, ...] | None = None


def as_images(
    array: Shaped[np.ndarray, "..."], name: str, image_size: int | None
) -> UInt8[Tensor, "N 3 s s"]:
    """Arrays of images as they are commonly kept, to square uint8 RGB with channels first."""
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)) or not array.size:
        raise DataError(
            f"{name}: expected images of shape N×H×W×3 or N×H×W, received {array.shape}; move "
            "channels last (x.transpose(0, 2, 3, 1)), and drop an alpha channel (x[..., :3]) or a "
            "single channel (x[..., 0])"
        )
    if array.dtype.kind == "f":
        low, high, limit = array.min(), array.max(), 1
        remedy = "replace NaN, and divide by the largest possible value"
    elif array.dtype.kind in "iu":
        low, high, limit = array.min(), array.max(), 255
        remedy = "rescale the values and save them as uint8"
    else:
        raise DataError(
            f"{name}: expected integers in 0..255 or floats in [0, 1], received {array.dtype}; "
            "save the images as uint8"
        )
    if not (low >= 0 and high <= limit):  # False for NaN, too
        raise DataError(
            f"{name}: expected {array.dtype} images in 0..{limit}, received values from {low} to "
            f"{high}; {remedy}"
        )
    if limit == 1:
        array = np.rint(array.astype(np.float32) * 255)
    images = torch.from_numpy(array.astype(np.uint8, copy=False))
    if images.ndim == 3:
        images = images[..., None].expand(-1, -1, -1, 3)
    return square(images.permute(0, 3, 1, 2), image_size, name).contiguous()


def square(
    images: UInt8[Tensor, "N 3 h w"], size: int | None, name: str
) -> UInt8[Tensor, "N 3 s s"]:
    """Crop around the centre and resize; None asks for images that are square already."""
    height, width = images.shape[-2:]
    if size is None:
        if height != width:
            raise DataError(
                f"{name}: expected square images, received {width}×{height} pixels (width×height); "
                "pass image_size to resize and crop them"
            )
        return images
    if height == width == size:
        return images
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cropped = images[..., top : top + side, left : left + side]
    return F.interpolate(cropped, size=(size, size), mode="bicubic", antialias=True)


def require_one_size(
    name: str, train: UInt8[Tensor, "N 3 h w"], test: UInt8[Tensor, "M 3 s s"]
) -> None:
    """Refuse parts that no one encoder takes."""
    if train.shape[-1] != test.shape[-1]:
        raise DataError(
            f"{name}: expected training and test images of one size, received {train.shape[-1]} "
            f"and {test.shape[-1]} pixels; pass image_size to bring them to one"
        )


def hold_out(
    name: str,
    images: UInt8[Tensor, "N 3 h w"],
    labels: Int64[Tensor, "N"] | None,
    classes: tuple[str, ...] | None,
    seed: int,
    files: tuple[str, ...] | None = None,
) -> ImageData:
    """Set a fifth of the images aside as the test part."""
    if files is None:
        files = tuple(map(str, range(len(images))))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(HELD_OUT * len(images)))
    test, train = order[:held_out], order[held_out:]
    return ImageData(
        f"{name} ({held_out:,} of {len(images):,} images held out for testing, seed {seed})",
        images[train],
        None if labels is None else labels[train],
        images[test],
        None if labels is None else labels[test],
        classes,
        tuple(files[i] for i in train.tolist()),
        tuple(files[i] for i in test.tolist()),
    )
