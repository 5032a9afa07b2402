"""Image data for Deep InfoMax: built-in digits, CIFAR-10 by name, an ``.npz`` file or a folder.

Whatever the source, the result is the same: square uint8 RGB images of one size, kept in memory,
with a test part that training never sees. Nothing is normalised: encoders scale pixels themselves.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor
from tqdm import tqdm

SMALLEST_SIDE = 8  # three halvings, which is what the encoders do at least, leave one pixel
SMALLEST_TRAINING_SET = 20  # the 20-nearest-neighbour probe
HELD_OUT = 0.2  # of the training images, where a source has no test part
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PROGRESS = {"disable": None, "leave": False, "unit": "image"}  # None: a bar on terminals only


class DataError(ValueError):
    """Images or labels that cannot be used; says what was expected, received, and what to do."""


@dataclass(frozen=True)
class ImageData:
    """Images for training and testing, with labels where the source has them.

    Attributes:
        name: What the data are, for reports; says so where the test part is held out of the
            training part.
        x_train: Training images, RGB.
        y_train: Their class numbers, or None.
        x_test: Test images of the same size.
        y_test: Their class numbers, or None.
        classes: Names by class number, where the source has names.
    """

    name: str
    x_train: UInt8[Tensor, "N 3 h w"]
    y_train: Int64[Tensor, "N"] | None
    x_test: UInt8[Tensor, "M 3 h w"]
    y_test: Int64[Tensor, "M"] | None
    classes: tuple[str, ...] | None


def load_data(source: str, *, image_size: int | None = None, seed: int = 0) -> ImageData:
    """Load images by name or from a path.

    Args:
        source: One of

            - ``digits``: scikit-learn's 1,797 handwritten digits, enlarged from 8 to 32 pixels;
            - ``cifar10``: CIFAR-10 from the Hugging Face hub (cached there by ``datasets``);
            - an ``.npz`` file with ``x_train`` and optionally ``x_test``, ``y_train``, ``y_test``:
              images N×H×W×3 or N×H×W, integers in 0..255 or floats in [0, 1];
            - a folder of images, possibly with ``train/`` and ``test/`` (or ``val/``) in it, each
              possibly with one subfolder a class.

            A source without a test part has a fifth of its images held out as one.
        image_size: Side in pixels. Images of another size are resized and cropped around their
            centre. None keeps the size of the source, which must then be square and the same
            for all.
        seed: Chooses the images to hold out, where the source has no test part.

    Raises:
        DataError: The source does not exist, is empty or damaged, or holds something else.

    Example:
        >>> data = load_data("digits")
        >>> data.x_train.shape, data.x_test.shape
        (torch.Size([1397, 3, 32, 32]), torch.Size([400, 3, 32, 32]))
    """
    if image_size is not None and image_size < SMALLEST_SIDE:
        raise DataError(
            f"image_size: expected at least {SMALLEST_SIDE} pixels, received {image_size}; "
            "leave it out to keep the images' own size"
        )
    path = Path(source).expanduser()
    if source == "digits":
        data = _digits(image_size or 32)
    elif source == "cifar10":
        data = _cifar10(image_size)
    elif path.is_dir():
        data = _folder(path, image_size, seed)
    elif path.is_file():
        data = _npz(path, image_size, seed)
    else:
        raise DataError(
            f"data: expected 'digits', 'cifar10', an .npz file or a folder of images, received "
            f"{source!r}, which is neither a known name nor an existing path"
        )
    if (side := data.x_train.shape[-1]) < SMALLEST_SIDE:
        raise DataError(
            f"{data.name}: expected images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, "
            f"received {side}×{side}; pass image_size (say, 32) to enlarge them"
        )
    if len(data.x_train) < SMALLEST_TRAINING_SET:
        raise DataError(
            f"{data.name}: expected at least {SMALLEST_TRAINING_SET} training images, received "
            f"{len(data.x_train)}; add more"
        )
    return data


def _digits(image_size: int) -> ImageData:
    """Scikit-learn's digits, always split the same way: 1,397 for training, 400 for testing."""
    with _requires("scikit-learn"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    grey, labels = load_digits(return_X_y=True)
    images = _images(grey.reshape(-1, 8, 8) / 16, "digits", image_size)  # 0..16 → [0, 1]
    train, test = train_test_split(
        np.arange(len(labels)), test_size=400, random_state=0, stratify=labels
    )
    y = torch.from_numpy(labels).long()
    classes = tuple(str(digit) for digit in range(10))
    return ImageData("digits", images[train], y[train], images[test], y[test], classes)


def _cifar10(image_size: int | None) -> ImageData:
    with _requires("datasets"):
        import datasets

    try:
        splits = datasets.load_dataset("uoft-cs/cifar10")
    except (OSError, datasets.exceptions.DatasetsError) as error:  # OSError: ConnectionError too
        raise DataError(
            f"cifar10: expected to fetch uoft-cs/cifar10 from the Hugging Face hub, received: "
            f"{error}; without a network, pass the path of an .npz file (x_train, y_train, "
            "x_test, y_test) or of a folder of images instead"
        ) from error

    images, labels = {}, {}
    for part in ("train", "test"):
        decoded = tqdm(splits[part]["img"], desc=f"cifar10 {part}", **PROGRESS)
        stacked = np.stack([np.asarray(image) for image in decoded])
        images[part] = _images(stacked, "cifar10", image_size)
        labels[part] = torch.tensor(splits[part]["label"][:])
    return ImageData(
        name="cifar10",
        x_train=images["train"],
        y_train=labels["train"],
        x_test=images["test"],
        y_test=labels["test"],
        classes=tuple(splits["train"].features["label"].names),
    )


def _npz(path: Path, image_size: int | None, seed: int) -> ImageData:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: expected an .npz archive, received another kind of file; write it with "
            "numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)"
        )
    try:
        with np.load(path) as archive:
            names = ("x_train", "y_train", "x_test", "y_test")
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
        images = _images(arrays[f"x_{split}"], f"{path}: x_{split}", image_size)
        if (labels := arrays.get(f"y_{split}")) is None:
            return images, None
        return images, _labels(labels, len(images), f"{path}: y_{split}")

    x, y = part("train")
    if "x_test" not in arrays:
        return _hold_out(path.name, x, y, None, seed)
    x_test, y_test = part("test")
    if x_test.shape[-1] != x.shape[-1]:
        raise DataError(
            f"{path}: expected training and test images of one size, received {x.shape[-1]} and "
            f"{x_test.shape[-1]} pixels; pass image_size to bring them to one"
        )
    return ImageData(path.name, x, y, x_test, y_test, None)


def _folder(root: Path, image_size: int | None, seed: int) -> ImageData:
    """Images below a folder, in the order of their paths.

    Read with Pillow, not through ``datasets``' image folders: errors name the file, and no copy is
    left in a cache that could go stale.
    """
    train = root / "train" if (root / "train").is_dir() else root
    test = next((d for n in ("test", "val") if train != root and (d := root / n).is_dir()), None)
    train_paths = _image_paths(train)
    test_paths = _image_paths(test) if test else []
    # A class is the first folder on the way; a single folder tells nothing apart.
    names = sorted({_class_name(path, train) for path in train_paths})
    classes = tuple(names) if len(names) > 1 else None
    if classes and "" in classes:
        raise DataError(
            f"{train}: expected either images or class folders, received both; move "
            f"{next(p.name for p in train_paths if p.parent == train)} and its like into a folder"
        )

    def labels(paths: Sequence[Path], part: Path) -> Int64[Tensor, "N"] | None:
        if classes is None:
            return None
        received = [_class_name(path, part) for path in paths]
        if unknown := sorted(set(received) - set(classes)):
            raise DataError(
                f"{part}: expected the class folders of {train}, received also "
                f"{', '.join(name or 'images outside any' for name in unknown)}; sort them into "
                f"the training classes, or remove {part.name}/ to have a part held out"
            )
        return torch.tensor([classes.index(name) for name in received])

    y_train = labels(train_paths, train)
    y_test = labels(test_paths, test) if test else None
    images = _read_images(train_paths + test_paths, root, image_size)
    x_train, x_test = images[: len(train_paths)], images[len(train_paths) :]
    if test is None:
        return _hold_out(root.resolve().name, x_train, y_train, classes, seed)
    return ImageData(root.resolve().name, x_train, y_train, x_test, y_test, classes)


def _image_paths(folder: Path) -> list[Path]:
    """Image files anywhere below a folder, without hidden files and folders."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DataError(
            f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), received none; "
            "check the path, or convert the images to one of these formats"
        )
    return paths


def _class_name(path: Path, folder: Path) -> str:
    """First folder between ``folder`` and an image; empty for an image right inside."""
    first, *rest = path.relative_to(folder).parts
    return first if rest else ""


def _read_images(
    paths: Sequence[Path], root: Path, image_size: int | None
) -> UInt8[Tensor, "N 3 h w"]:
    """Decode image files one at a time, so that large photographs are never in memory together."""
    with _requires("pillow"):
        from PIL import Image, ImageOps

    arrays: list[UInt8[np.ndarray, "h w 3"]] = []
    for path in tqdm(paths, desc=root.name, **PROGRESS):
        try:
            with Image.open(path) as image:
                mode = image.mode
                layer = ImageOps.exif_transpose(image).convert("RGBA")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: expected an image, received a damaged file ({error}); repair or remove it"
            ) from error
        # What is transparent shows white: the colours below it are arbitrary.
        opaque = Image.new("RGB", layer.size, "white")
        opaque.paste(layer, mask=layer)
        if image_size is not None:
            opaque = ImageOps.fit(opaque, (image_size, image_size), Image.Resampling.BICUBIC)
        array = np.asarray(opaque)
        if mode[0] in "IF":  # Pillow would clip 16 bits to white instead of scaling them
            raise DataError(
                f"{path}: expected 8 bits a channel, received Pillow mode {mode}; convert the "
                "images to 8 bits"
            )
        if arrays and array.shape != arrays[0].shape:
            (height, width, _), (first_height, first_width, _) = array.shape, arrays[0].shape
            raise DataError(
                f"{root}: expected images of one size, received {first_width}×{first_height} "
                f"({paths[0].name}) and {width}×{height} ({path.name}); pass image_size to resize "
                "and crop them"
            )
        arrays.append(array)
    return _images(np.stack(arrays), str(root), image_size)


def _images(
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
    images = torch.from_numpy(array.astype(np.uint8))
    if images.ndim == 3:
        images = images[..., None].expand(-1, -1, -1, 3)
    return _square(images.permute(0, 3, 1, 2), image_size, name).contiguous()


def _labels(array: Shaped[np.ndarray, "..."], count: int, name: str) -> Int64[Tensor, "N"]:
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


def _square(
    images: UInt8[Tensor, "N 3 h w"], size: int | None, name: str
) -> UInt8[Tensor, "N 3 s s"]:
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


def _hold_out(
    name: str,
    images: UInt8[Tensor, "N 3 h w"],
    labels: Int64[Tensor, "N"] | None,
    classes: tuple[str, ...] | None,
    seed: int,
) -> ImageData:
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
    )


@contextmanager
def _requires(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this data source needs {package}: pip install 'mi-estimators[dim]'"
        ) from error
