"""NumPy archives of images and labels."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from dim.data.images import DataError, ImageData, as_images, hold_out, require_one_size


def read_npz(path: Path, image_size: int | None, seed: int) -> ImageData:
    """Arrays `x_train`, `y_train`, `x_test`, `y_test` and `classes`, all but the first optional."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: expected an .npz archive, received another kind of file; write it with "
            "numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)"
        )
    try:
        with np.load(path) as archive:
            names = ("x_train", "y_train", "x_test", "y_test", "classes")
            arrays = {name: archive[name] for name in names if name in archive.files}
            received = ", ".join(archive.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: expected plain numeric arrays, received: {error}; the file is damaged or "
            "holds Python objects, so write it again with numpy.savez"
        ) from error
    if "x_train" not in arrays:
        raise DataError(
            f"{path}: expected an array x_train (and optionally y_train, x_test, y_test), "
            f"received {received or 'nothing'}; save the images under that name"
        )
    if "y_test" in arrays and "x_test" not in arrays:
        raise DataError(
            f"{path}: expected x_test beside y_test, received y_test alone; add the test images, "
            "or leave y_test out to have a part of x_train held out"
        )

    def part(split: str) -> tuple[UInt8[Tensor, "N 3 h w"], Int64[Tensor, "N"] | None]:
        images = as_images(arrays[f"x_{split}"], f"{path}: x_{split}", image_size)
        if (labels := arrays.get(f"y_{split}")) is None:
            return images, None
        return images, _labels(labels, len(images), f"{path}: y_{split}")

    x, y = part("train")
    x_test, y_test = part("test") if "x_test" in arrays else (None, None)
    numbers = [labels for labels in (y, y_test) if labels is not None]
    classes = None
    if "classes" in arrays:
        count = 1 + max((int(labels.max()) for labels in numbers), default=-1)
        classes = _class_names(arrays["classes"], count, f"{path}: classes")
    if x_test is None:
        return hold_out(path.name, x, y, classes, seed)
    require_one_size(str(path), x, x_test)
    return ImageData(path.name, x, y, x_test, y_test, classes)


def _labels(array: Shaped[np.ndarray, "..."], count: int, name: str) -> Int64[Tensor, "N"]:
    if array.shape == (count, 1):  # as Keras has them
        array = array[:, 0]
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise DataError(
            f"{name}: expected {count} class numbers, one an image, received {array.dtype} of "
            f"shape {array.shape}; number the classes (numpy.unique(y, return_inverse=True)[1])"
        )
    if array.min() < 0:
        raise DataError(
            f"{name}: expected class numbers from 0, received {array.min()}; shift them, or leave "
            "the labels out if they mark unlabelled images"
        )
    return torch.from_numpy(array.astype(np.int64))


def _class_names(array: Shaped[np.ndarray, "..."], count: int, name: str) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1 or len(array) < count:
        raise DataError(
            f"{name}: expected the names of {count} classes, by their numbers, received "
            f"{array.dtype} of shape {array.shape}; save a list of strings, or leave it out"
        )
    return tuple(array.tolist())
