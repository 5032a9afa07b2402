"""Data sets that come by name: scikit-learn's digits, CIFAR-10 from the hub."""

import numpy as np
import torch
from tqdm import tqdm

from dim.data.images import PROGRESS, DataError, ImageData, as_images
from dim.extras import require_packages


def read_digits(image_size: int) -> ImageData:
    """Scikit-learn's digits, always split the same way: 1,397 for training, 400 for testing."""
    require_packages("scikit-learn", argument="data", purpose="to read this source")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    grey, labels = load_digits(return_X_y=True)
    images = as_images(grey.reshape(-1, 8, 8) / 16, "digits", image_size)  # 0..16 → [0, 1]
    train, test = train_test_split(
        np.arange(len(labels)), test_size=400, random_state=0, stratify=labels
    )
    y = torch.from_numpy(labels).long()
    classes = tuple(str(digit) for digit in range(10))
    return ImageData("digits", images[train], y[train], images[test], y[test], classes)


def read_cifar10(image_size: int | None) -> ImageData:
    """CIFAR-10 as the Hugging Face hub has it: 50,000 for training, 10,000 for testing."""
    require_packages("datasets", argument="data", purpose="to read this source")
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
        images[part] = as_images(stacked, "cifar10", image_size)
        labels[part] = torch.tensor(splits[part]["label"][:])
    return ImageData(
        name="cifar10",
        x_train=images["train"],
        y_train=labels["train"],
        x_test=images["test"],
        y_test=labels["test"],
        classes=tuple(splits["train"].features["label"].names),
    )
