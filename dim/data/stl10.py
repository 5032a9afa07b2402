"""STL-10's binary files: 5,000 labelled, 8,000 test and 100,000 unlabelled images of 96 pixels."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from dim.data.images import PROGRESS, DataError, ImageData, square

TRAINING_FILES = ("unlabeled_X.bin", "train_X.bin")  # the first that is there
IMAGE_SHAPE = (3, 96, 96)  # channel, column, row: images lie on their side
CLASSES = 10
CHUNK = 1000  # images resized at a time: all at once would be in memory twice
REMEDY = "extract stl10_binary.tar.gz again"


def stl10_training_file(path: Path) -> Path | None:
    """The file of training images that is meant by the data set's folder or by its own path."""
    if path.name in TRAINING_FILES and path.is_file():
        return path
    return next((file for name in TRAINING_FILES if (file := path / name).is_file()), None)


def read_stl10(training: Path, image_size: int | None) -> ImageData:
    """Train on one file, with labels or without; test on ``test_X.bin``."""
    folder = training.parent
    x_train = _images(training, image_size)
    x_test = _images(folder / "test_X.bin", image_size)
    labelled = training.name == "train_X.bin"
    return ImageData(
        name=f"{folder.resolve().name}/{training.name}",
        x_train=x_train,
        y_train=_labels(folder / "train_y.bin", len(x_train)) if labelled else None,
        x_test=x_test,
        y_test=_labels(folder / "test_y.bin", len(x_test)),
        classes=_class_names(folder / "class_names.txt"),
    )


def _images(path: Path, image_size: int | None) -> UInt8[Tensor, "N 3 s s"]:
    _require(path)
    size, image = path.stat().st_size, math.prod(IMAGE_SHAPE)
    if not size or size % image:
        raise DataError(
            f"{path}: expected whole images of {image:,} bytes, received {size:,} bytes; {REMEDY}"
        )
    stored = np.memmap(path, np.uint8, mode="r").reshape(-1, *IMAGE_SHAPE)
    side = image_size or IMAGE_SHAPE[-1]
    images = torch.empty(len(stored), 3, side, side, dtype=torch.uint8)
    with tqdm(total=len(stored), desc=path.name, **PROGRESS) as bar:
        for start in range(0, len(stored), CHUNK):
            upright = torch.from_numpy(stored[start : start + CHUNK].swapaxes(2, 3).copy())
            images[start : start + CHUNK] = square(upright, image_size, str(path))
            bar.update(len(upright))
    return images


def _labels(path: Path, count: int) -> Int64[Tensor, "N"]:
    _require(path)
    labels = np.fromfile(path, np.uint8)
    if len(labels) != count or labels.min() < 1 or labels.max() > CLASSES:
        raise DataError(
            f"{path}: expected {count:,} bytes from 1 to {CLASSES}, received {len(labels):,} from "
            f"{labels.min(initial=255)} to {labels.max(initial=0)}; {REMEDY}"
        )
    return torch.from_numpy(labels.astype(np.int64)) - 1


def _class_names(path: Path) -> tuple[str, ...]:
    _require(path)
    names = tuple(path.read_text(encoding="utf-8").split())
    if len(names) != CLASSES:
        raise DataError(f"{path}: expected {CLASSES} names, received {len(names)}; {REMEDY}")
    return names


def _require(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path.parent}: expected a file {path.name}, received none; {REMEDY}")
