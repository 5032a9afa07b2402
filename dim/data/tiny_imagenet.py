"""Tiny ImageNet as it comes: annotations in place of class folders for its labelled test images."""

from pathlib import Path

from dim.data.folder import (
    Corrupt,
    Part,
    class_folder,
    class_folders,
    image_paths,
    number_labels,
    read_parts,
)
from dim.data.images import DataError, ImageData

ANNOTATIONS = "val_annotations.txt"


def is_tiny_imagenet(root: Path) -> bool:
    """Whether ``val/`` has annotations beside its images."""
    return (root / "val" / ANNOTATIONS).is_file() and (root / "val" / "images").is_dir()


def read_tiny_imagenet(root: Path, image_size: int | None, corrupt: Corrupt) -> ImageData:
    """All or some classes: ``train/`` for training, ``val/`` for testing; ``test/`` has no labels.

    Class numbers follow the sorted folders of ``train/``; names are the first in ``words.txt``.
    """
    train, val = root / "train", root / "val"
    train_paths, val_paths = image_paths(train), image_paths(val / "images")
    wnids = class_folders(train_paths, train)
    annotated = _columns(val / ANNOTATIONS)
    if missing := [path.name for path in val_paths if path.name not in annotated]:
        raise DataError(
            f"{val / ANNOTATIONS}: expected a line for each image of val/images, received none for "
            f"{missing[0]} and {len(missing) - 1:,} others; extract the archive again"
        )
    words = _columns(root / "words.txt") if (root / "words.txt").exists() else {}
    return read_parts(
        root,
        Part(
            train_paths,
            number_labels([class_folder(p, train) for p in train_paths], wnids, train, train),
        ),
        Part(val_paths, number_labels([annotated[p.name] for p in val_paths], wnids, val, train)),
        tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids),
        image_size=image_size,
        seed=0,  # nothing is held out
        corrupt=corrupt,
    )


def _columns(path: Path) -> dict[str, str]:
    """The second column of a table by its first."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    if broken := [number for number, row in enumerate(rows, start=1) if len(row) < 2]:
        raise DataError(
            f"{path}: expected columns with tabs between, received one column in line {broken[0]}; "
            "extract the archive again"
        )
    return {first: second for first, second, *_ in rows}
