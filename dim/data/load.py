"""One entry to all sources: what is asked for decides which reader reads it."""

from pathlib import Path

from dim.data.folder import Corrupt, read_folder
from dim.data.images import DataError, ImageData
from dim.data.named import read_cifar10, read_digits
from dim.data.npz import read_npz
from dim.data.stl10 import read_stl10, stl10_training_file
from dim.data.tiny_imagenet import is_tiny_imagenet, read_tiny_imagenet

SMALLEST_SIDE = 8  # three halvings, which is what the encoders do at least, leave one pixel
SMALLEST_TRAINING_SET = 20  # the 20-nearest-neighbour probe


def load_data(
    source: str,
    *,
    image_size: int | None = None,
    seed: int = 0,
    corrupt: Corrupt = "refuse",
) -> ImageData:
    """Load images by name or from a path.

    Args:
        source: One of

            - ``digits``: scikit-learn's 1,797 handwritten digits, enlarged from 8 to 32 pixels;
            - ``cifar10``: CIFAR-10 from the Hugging Face hub (cached there by ``datasets``);
            - an ``.npz`` file with ``x_train`` and optionally ``x_test``, ``y_train``, ``y_test``:
              images N×H×W×3 or N×H×W, integers in 0..255 or floats in [0, 1];
            - a folder of images, possibly with ``train/`` and ``test/`` (or ``val/``) in it, each
              possibly with one subfolder a class;
            - the folder of Tiny ImageNet as it comes: ``val/`` is the test part, ``test/``, which
              has no labels, is not read;
            - the folder ``stl10_binary`` of STL-10: trains on its 100,000 unlabelled images where
              they are there, else on its 5,000 labelled ones. Its file ``unlabeled_X.bin`` or
              ``train_X.bin`` in place of the folder says which. The test part is ``test_X.bin``.

            A source without a test part has a fifth of its images held out as one.
        image_size: Side in pixels. Images of another size are resized and cropped around their
            centre. None keeps the size of the source, which must then be square and the same
            for all.
        seed: Chooses the images to hold out, where the source has no test part.
        corrupt: What to do with a file in a folder that cannot be decoded: refuse the data, or
            skip it. How many were skipped is printed to stderr and kept in the name of the data.

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
        data = read_digits(image_size or 32)
    elif source == "cifar10":
        data = read_cifar10(image_size)
    elif training := stl10_training_file(path):
        data = read_stl10(training, image_size)
    elif is_tiny_imagenet(path):
        data = read_tiny_imagenet(path, image_size, corrupt)
    elif path.is_dir():
        data = read_folder(path, image_size, seed, corrupt)
    elif path.is_file():
        data = read_npz(path, image_size, seed)
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
