"""Folders of images, whose subfolders are classes.

Read with Pillow, not through ``datasets``' image folders: errors name the file, and no copy is left
in a cache that could go stale.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from dim.data.images import (
    PROGRESS,
    DataError,
    ImageData,
    as_images,
    hold_out,
    require_one_size,
)
from dim.extras import require_packages

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
Corrupt = Literal["refuse", "skip"]


class DamagedImage(DataError):
    """A file that is named like an image and cannot be decoded."""


@dataclass(frozen=True)
class Part:
    """Image files of one part of a data set, not read yet.

    Attributes:
        paths: The files.
        labels: Their class numbers, or None.
    """

    paths: Sequence[Path]
    labels: Int64[Tensor, "N"] | None


def read_folder(root: Path, image_size: int | None, seed: int, corrupt: Corrupt) -> ImageData:
    """Images below a folder, in the order of their paths."""
    train = root / "train" if (root / "train").is_dir() else root
    test = next((d for n in ("test", "val") if train != root and (d := root / n).is_dir()), None)
    paths = image_paths(train)
    classes: Sequence[str] = class_folders(paths, train)
    if len(classes) == 1:  # a single folder tells nothing apart
        classes = ()

    def part(paths: Sequence[Path], folder: Path) -> Part:
        if not classes:
            return Part(paths, None)
        received = [class_folder(path, folder) for path in paths]
        return Part(paths, number_labels(received, classes, folder, train))

    return read_parts(
        root,
        part(paths, train),
        part(image_paths(test), test) if test else None,
        tuple(classes) or None,
        image_size=image_size,
        seed=seed,
        corrupt=corrupt,
    )


def read_parts(
    root: Path,
    train: Part,
    test: Part | None,
    classes: tuple[str, ...] | None,
    *,
    image_size: int | None,
    seed: int,
    corrupt: Corrupt,
) -> ImageData:
    """Decode the files of a training and a test part; without the latter, hold one out."""
    x_train, y_train, files_train = _read(train, root, image_size, corrupt)
    x_test, y_test, files_test = _read(test, root, image_size, corrupt) if test else (None,) * 3
    name = root.resolve().name
    total = len(train.paths) + (len(test.paths) if test else 0)
    if skipped := total - len(files_train) - len(files_test or ()):
        print(f"{root}: skipped {skipped:,} of {total:,} image files, damaged", file=sys.stderr)
        name += f" without {skipped:,} damaged file{'s' if skipped > 1 else ''}"
    if x_test is None:
        return hold_out(name, x_train, y_train, classes, seed, files_train)
    require_one_size(str(root), x_train, x_test)
    return ImageData(name, x_train, y_train, x_test, y_test, classes, files_train, files_test)


def image_paths(folder: Path) -> list[Path]:
    """Image files anywhere below a folder, also by links, without hidden files and folders."""
    paths = sorted(_images_below(folder, {}))
    if not paths:
        raise DataError(
            f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), received none; "
            "check the path, or convert the images to one of these formats"
        )
    return paths


def _images_below(folder: Path, seen: dict[Path, Path]) -> Iterator[Path]:
    """Image files, in no order; `seen` are the folders so far, by where they really are."""
    if (known := seen.setdefault(place := folder.resolve(), folder)) is not folder:
        raise DataError(
            f"{folder}: expected each folder once, received {place} here and as {known}; remove "
            f"one of the links"
        )
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _images_below(Path(entry), seen)
                elif Path(entry).suffix.lower() in IMAGE_SUFFIXES:
                    yield Path(entry)
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be read, received: {error}; see to its rights "
            f"and links, or move it elsewhere"
        ) from error


def class_folder(path: Path, folder: Path) -> str:
    """First folder between ``folder`` and an image; empty for an image right inside."""
    first, *rest = path.relative_to(folder).parts
    return first if rest else ""


def class_folders(paths: Sequence[Path], folder: Path) -> list[str]:
    """The class folders of all images, sorted."""
    names = sorted({class_folder(path, folder) for path in paths})
    if len(names) > 1 and "" in names:
        raise DataError(
            f"{folder}: expected either images or class folders, received both; move "
            f"{next(p.name for p in paths if p.parent == folder)} and its like into a folder"
        )
    return names


def number_labels(
    received: Sequence[str], classes: Sequence[str], part: Path, train: Path
) -> Int64[Tensor, "N"]:
    """Class folders to class numbers; those of a test part must be among the training part's."""
    if unknown := sorted(set(received) - set(classes)):
        raise DataError(
            f"{part}: expected the class folders of {train}, received also "
            f"{', '.join(name or 'images outside any' for name in unknown)}; sort them into "
            f"the training classes, or remove {part.name}/ to have a part held out"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[name] for name in received])


def _read(
    part: Part, root: Path, image_size: int | None, corrupt: Corrupt
) -> tuple[UInt8[Tensor, "N 3 s s"], Int64[Tensor, "N"] | None, tuple[str, ...]]:
    """Decode files one at a time, so that large photographs are never in memory together."""
    require_packages("pillow", argument="data", purpose="to read this source")
    images = np.empty(0, np.uint8)
    kept: list[int] = []
    for i, path in enumerate(tqdm(part.paths, desc=root.name, **PROGRESS)):
        try:
            image = _decode(path, image_size)
        except DamagedImage:
            if corrupt == "refuse":
                raise
            continue
        if not kept:
            images = np.empty((len(part.paths), *image.shape), np.uint8)
        elif image.shape != images.shape[1:]:
            first, this = (f"{shape[1]}×{shape[0]}" for shape in (images[0].shape, image.shape))
            raise DataError(
                f"{root}: expected images of one size, received {first} "
                f"({part.paths[kept[0]].name}) and {this} ({path.name}); pass image_size to resize "
                "and crop them"
            )
        images[len(kept)] = image
        kept.append(i)
    if not kept:
        raise DataError(
            f"{root}: expected images, received {len(part.paths):,} damaged files, "
            f"{part.paths[0]} among them; fetch the data again"
        )
    return (
        as_images(images[: len(kept)], str(root), image_size),
        None if part.labels is None else part.labels[kept],
        tuple(part.paths[i].relative_to(root).as_posix() for i in kept),
    )


def _decode(path: Path, image_size: int | None) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            mode = image.mode
            layer = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DamagedImage(
            f"{path}: expected an image, received a damaged file ({error}); repair or remove it, "
            "or skip its like with corrupt='skip'"
        ) from error
    if mode[0] in "IF":  # Pillow would clip 16 bits to white instead of scaling them
        raise DataError(
            f"{path}: expected 8 bits a channel, received Pillow mode {mode}; convert the "
            "images to 8 bits"
        )
    # What is transparent shows white: the colours below it are arbitrary.
    opaque = Image.new("RGB", layer.size, "white")
    opaque.paste(layer, mask=layer)
    if image_size is not None:
        opaque = ImageOps.fit(opaque, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(opaque)
