"""Every source gives the same kind of images, and every bad input a useful error."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from dim.data import DataError, load_data

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def photographs(rng, n, *shape):
    return rng.integers(0, 256, size=(n, *shape), dtype=np.uint8)


def save_images(folder, rng, n, size=(16, 16), mode="RGB", suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    channels = len(mode) if mode in ("RGB", "RGBA") else 1
    arrays = photographs(rng, n, *size, channels)
    for i, array in enumerate(arrays):
        Image.fromarray(array.squeeze()).save(folder / f"{i:03}.{suffix}")
    return arrays


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_the_same_every_time_whatever_the_seed():
    first, second = load_data("digits"), load_data("digits", seed=7)
    assert torch.equal(first.x_train, second.x_train)
    assert torch.equal(first.y_test, second.y_test)


def test_digits_fill_their_range_are_grey_and_balanced():
    data = load_data("digits")
    assert (len(data.x_train), len(data.x_test)) == (1397, 400)
    assert (data.x_train.min(), data.x_train.max()) == (0, 255)
    assert torch.equal(data.x_train[:, 0], data.x_train[:, 2])
    assert data.y_test.bincount().min() >= 38
    assert data.classes == tuple("0123456789")


def test_no_digit_is_in_both_parts():
    data = load_data("digits")
    distances = torch.cdist(data.x_test.flatten(1).float(), data.x_train.flatten(1).float())
    assert distances.min() > 0


def test_digits_shrunk_back_are_scikit_learns_own():
    from sklearn.datasets import load_digits

    shrunk = load_data("digits", image_size=8).x_train[:, 0].flatten(1)
    originals = torch.from_numpy(load_digits().data * 255 / 16)
    assert torch.cdist(shrunk.double(), originals).min(dim=1).values.max() < 8 * 0.5  # rounding


# --- cifar10 by name --------------------------------------------------------------------------


def test_cifar10_by_name_reads_the_hubs_columns(monkeypatch, rng):
    columns = datasets.Features(
        img=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    images = {"train": photographs(rng, 24, 32, 32, 3), "test": photographs(rng, 6, 32, 32, 3)}
    hub = {
        part: datasets.Dataset.from_dict(
            {"img": [Image.fromarray(a) for a in arrays], "label": [0, 1] * (len(arrays) // 2)},
            features=columns,
        )
        for part, arrays in images.items()
    }
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or hub)
    data = load_data("cifar10")
    assert asked == ["uoft-cs/cifar10"]
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), images["train"])
    np.testing.assert_array_equal(data.x_test.permute(0, 2, 3, 1), images["test"])
    assert data.y_test.tolist() == [0, 1] * 3
    assert data.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "failure",
    [ConnectionError("no route"), datasets.exceptions.DatasetGenerationError("bad parquet")],
)
def test_cifar10_without_a_network_names_the_way_out(monkeypatch, failure):
    def unreachable(name):
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"cifar10: .*without a network, pass the path of an .npz"):
        load_data("cifar10")


# --- .npz -------------------------------------------------------------------------------------


@pytest.fixture
def arrays(rng):
    return {
        "x_train": photographs(rng, 30, 16, 16, 3),
        "y_train": np.arange(30, dtype=np.uint8) % 3,
        "x_test": photographs(rng, 10, 16, 16, 3),
        "y_test": np.arange(10, dtype=np.uint8) % 3,
    }


@pytest.fixture
def load(tmp_path, arrays):
    """Save the arrays, with changes (None: left out), and load them."""

    def load(*, image_size=None, seed=0, **changes):
        path = tmp_path / "images.npz"
        changed = {k: v for k, v in (arrays | changes).items() if v is not None}
        np.savez_compressed(path, **changed)
        return load_data(str(path), image_size=image_size, seed=seed)

    return load


def test_npz_keeps_pixels_and_labels(load, arrays):
    data = load()
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), arrays["x_train"])
    np.testing.assert_array_equal(data.y_test, arrays["y_test"])
    assert data.x_train.dtype == torch.uint8
    assert data.classes is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_npz_of_floats_gives_the_same_pixels_as_of_bytes(load, arrays, dtype):
    data = load(x_train=(arrays["x_train"] / 255).astype(dtype))
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), arrays["x_train"])


@pytest.mark.parametrize("dtype", [np.int64, ">u2"])
def test_npz_of_wider_integers_gives_the_same_pixels(load, arrays, dtype):
    data = load(x_train=arrays["x_train"].astype(dtype))
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), arrays["x_train"])


def test_npz_of_grey_images_has_three_equal_channels(load, arrays):
    data = load(x_train=arrays["x_train"][..., 0])
    for channel in range(3):
        np.testing.assert_array_equal(data.x_train[:, channel], arrays["x_train"][..., 0])


def test_npz_without_labels(load):
    data = load(y_train=None, y_test=None)
    assert data.y_train is None
    assert data.y_test is None


def test_npz_without_a_test_part_holds_one_out_and_says_so(load, arrays):
    data = load(x_test=None, y_test=None, seed=3)
    assert "6 of 30 images held out for testing, seed 3" in data.name
    both = torch.cat([data.x_train, data.x_test]).permute(0, 2, 3, 1).numpy()
    assert {x.tobytes() for x in both} == {x.tobytes() for x in arrays["x_train"]}
    where = {x.tobytes(): y for x, y in zip(arrays["x_train"], arrays["y_train"], strict=True)}
    for x, y in zip(data.x_test.permute(0, 2, 3, 1).numpy(), data.y_test, strict=True):
        assert where[x.tobytes()] == y


def test_the_held_out_part_follows_the_seed(load):
    first, again, other = (load(x_test=None, y_test=None, seed=s).x_test for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_resizing_crops_around_the_centre(load):
    striped = np.zeros((30, 16, 48, 3), np.uint8)
    striped[:, :, 16:32] = 200
    data = load(x_train=striped, image_size=32)
    assert data.x_train.shape == (30, 3, 32, 32)
    assert data.x_test.shape == (10, 3, 32, 32)
    assert (data.x_train == 200).all()


def nan_image():
    images = np.full((30, 16, 16, 3), 0.5)
    images[3, 2, 1, 0] = np.nan
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, r"expected an array x_train .* received y_train, x_test, y_test"),
        ({"x_test": None}, r"expected x_test beside y_test"),
        ({"x_train": np.zeros((30, 3, 16, 16), np.uint8)}, r"move channels last"),
        ({"x_train": np.zeros((30, 16, 16, 4), np.uint8)}, r"drop an alpha channel"),
        ({"x_train": np.zeros((30, 768), np.uint8)}, r"N×H×W×3 or N×H×W, received \(30, 768\)"),
        ({"x_train": np.zeros((0, 16, 16, 3), np.uint8)}, r"received \(0, 16, 16, 3\)"),
        ({"x_train": nan_image()}, r"x_train: .*0\.\.1, received values from nan.*replace NaN"),
        ({"x_train": np.full((30, 16, 16, 3), 255.0)}, r"to 255\.0; .*divide by"),
        ({"x_train": np.full((30, 16, 16, 3), -0.1)}, r"values from -0\.1"),
        ({"x_train": np.full((30, 16, 16, 3), 256)}, r"0\.\.255, received values from 256"),
        ({"x_test": np.full((10, 16, 16, 3), -1)}, r"x_test: .*values from -1"),
        ({"x_train": np.zeros((30, 16, 16, 3), bool)}, r"received bool; save .* as uint8"),
        ({"x_train": np.zeros((30, 16, 24, 3), np.uint8)}, r"received 24×16 .*pass image_size"),
        ({"x_test": np.zeros((10, 8, 8, 3), np.uint8)}, r"received 16 and 8 .*pass image_size"),
        (
            {"x_train": np.zeros((30, 4, 4), np.uint8), "x_test": np.zeros((10, 4, 4), np.uint8)},
            r"at least 8×8 pixels, received 4×4",
        ),
        ({"y_train": np.zeros(29, int)}, r"y_train: expected 30 class numbers, .*\(29,\)"),
        ({"y_test": np.zeros((10, 1), int)}, r"y_test: expected 10 class numbers, .*\(10, 1\)"),
        ({"y_train": np.zeros(30)}, r"received float64 of shape \(30,\); number the classes"),
        ({"y_train": np.full(30, -1)}, r"expected class numbers from 0, received -1"),
        ({"y_train": np.array([{}] * 30)}, r"expected plain numeric arrays, received: Object"),
        (
            {"x_train": np.zeros((19, 16, 16, 3), np.uint8), "y_train": None},
            r"at least 20 training images, received 19",
        ),
    ],
)
def test_unusable_arrays_are_refused(load, changes, message):
    with pytest.raises(DataError, match=message):
        load(**changes)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "images.npz"
    path.write_text("not an archive")
    with pytest.raises(DataError, match=r"images\.npz: expected an \.npz archive"):
        load_data(str(path))


def test_a_damaged_archive_is_refused(load, tmp_path):
    load()
    path = tmp_path / "images.npz"
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match="the file is damaged"):
        load_data(str(path))


# --- A folder ---------------------------------------------------------------------------------


def test_a_flat_folder_has_no_labels_and_a_held_out_part(tmp_path, rng):
    arrays = save_images(tmp_path, rng, 30)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._000.png").write_text("a hidden file of another system")
    data = load_data(str(tmp_path), seed=1)
    assert (len(data.x_train), len(data.x_test)) == (24, 6)
    assert data.y_train is data.y_test is data.classes is None
    both = torch.cat([data.x_train, data.x_test]).permute(0, 2, 3, 1).numpy()
    assert {x.tobytes() for x in both} == {x.tobytes() for x in arrays}


def test_subfolders_are_classes(tmp_path, rng):
    cats = save_images(tmp_path / "cat", rng, 20)
    save_images(tmp_path / "dog" / "images", rng, 10)  # as Tiny ImageNet nests them
    data = load_data(str(tmp_path))
    assert data.classes == ("cat", "dog")
    known = {x.tobytes() for x in cats}
    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        for image, label in zip(images.permute(0, 2, 3, 1).numpy(), labels, strict=True):
            assert (image.tobytes() in known) == (label == 0)


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_kept_apart(tmp_path, rng, test):
    for name in ("cat", "dog"):
        save_images(tmp_path / "train" / name, rng, 12)
    expected = save_images(tmp_path / test / "dog", rng, 3)
    data = load_data(str(tmp_path))
    assert data.y_train.tolist() == [0] * 12 + [1] * 12
    assert data.y_test.tolist() == [1] * 3
    np.testing.assert_array_equal(data.x_test.permute(0, 2, 3, 1), expected)
    assert data.name == tmp_path.name


def test_a_single_subfolder_is_no_class(tmp_path, rng):
    save_images(tmp_path / "images", rng, 30)
    assert load_data(str(tmp_path)).y_train is None


def test_grey_images_become_three_channels(tmp_path, rng):
    arrays = save_images(tmp_path / "train", rng, 24, mode="L")
    save_images(tmp_path / "test", rng, 2, mode="L")
    data = load_data(str(tmp_path))
    for channel in range(3):
        np.testing.assert_array_equal(data.x_train[:, channel], arrays[..., 0])


def test_transparent_pixels_are_white_and_opaque_ones_keep_their_colour(tmp_path):
    array = np.zeros((16, 16, 4), np.uint8)
    array[:8] = (10, 20, 30, 255)  # below, black with alpha 0
    for i in range(30):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    image = load_data(str(tmp_path)).x_train[0]
    assert (image[:, :8] == torch.tensor([10, 20, 30])[:, None, None]).all()
    assert (image[:, 8:] == 255).all()


def test_palettes_with_transparency_are_resolved(tmp_path):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 8, 16, 16))
    for i in range(30):
        image.save(tmp_path / f"{i}.png", transparency=b"\x00\xff")
    loaded = load_data(str(tmp_path)).x_train[0]
    assert (loaded[:, :8] == torch.tensor([10, 20, 30])[:, None, None]).all()
    assert (loaded[:, 8:] == 255).all()


def test_images_of_differing_sizes_need_an_image_size(tmp_path, rng):
    save_images(tmp_path / "a", rng, 15, size=(16, 16))
    save_images(tmp_path / "b", rng, 15, size=(24, 40))
    with pytest.raises(DataError, match=r"received 16×16 \(000\.png\) and 40×24 .*pass image_size"):
        load_data(str(tmp_path))
    data = load_data(str(tmp_path), image_size=20)
    assert data.x_train.shape == (24, 3, 20, 20)


def test_images_that_have_the_asked_size_keep_their_pixels(tmp_path, rng):
    save_images(tmp_path, rng, 30)
    asked, natural = load_data(str(tmp_path), image_size=16), load_data(str(tmp_path))
    assert torch.equal(asked.x_train, natural.x_train)


def test_non_square_images_need_an_image_size(tmp_path, rng):
    save_images(tmp_path, rng, 30, size=(16, 24))
    with pytest.raises(DataError, match=r"expected square images, received 24×16 .*image_size"):
        load_data(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"expected images \(\.bmp, .*\), received none"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"not an image", "truncated"])
def test_a_corrupt_image_is_named(tmp_path, rng, damage):
    save_images(tmp_path, rng, 30)
    victim = tmp_path / "017.png"
    victim.write_bytes(victim.read_bytes()[:300] if damage == "truncated" else damage)
    with pytest.raises(DataError, match=r"017\.png: expected an image, received a damaged file"):
        load_data(str(tmp_path))


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path):
    for i in range(30):
        Image.fromarray(np.full((16, 16), 1000, np.uint16)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"expected 8 bits a channel, received Pillow mode I"):
        load_data(str(tmp_path))


def test_images_beside_class_folders_are_refused(tmp_path, rng):
    save_images(tmp_path, rng, 3)
    save_images(tmp_path / "cat", rng, 30)
    with pytest.raises(DataError, match=r"either images or class folders, received both; move 00"):
        load_data(str(tmp_path))


def test_a_class_that_only_the_test_part_has_is_refused(tmp_path, rng):
    for name in ("cat", "dog"):
        save_images(tmp_path / "train" / name, rng, 12)
    save_images(tmp_path / "val" / "images", rng, 3)
    with pytest.raises(DataError, match=r"received also images; sort them .*or remove val/"):
        load_data(str(tmp_path))


# --- Anything else ----------------------------------------------------------------------------


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(DataError, match=r"'digits', 'cifar10', an \.npz file or a folder.*'mnist'"):
        load_data("mnist")


def test_an_image_size_too_small_is_refused():
    with pytest.raises(DataError, match=r"image_size: expected at least 8 pixels, received 4"):
        load_data("digits", image_size=4)


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared/data/cifar10-small.npz")
def test_real_cifar10_images():
    data = load_data(str(SHARED / "cifar10-small.npz"))
    assert data.x_train.shape == (5000, 3, 32, 32)
    assert data.y_train.bincount().tolist() == [500] * 10
