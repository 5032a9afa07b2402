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


def test_npz_may_name_its_classes(load):
    names = ["cat", "dog", "ship"]
    assert load(classes=names).classes == tuple(names)
    assert load(classes=names, x_test=None, y_test=None).classes == tuple(names)


def test_npz_labels_may_be_a_column(load, arrays):
    data = load(y_train=arrays["y_train"][:, None])
    assert data.y_train.tolist() == arrays["y_train"].tolist()


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
        ({"y_test": np.zeros((10, 2), int)}, r"y_test: expected 10 class numbers, .*\(10, 2\)"),
        ({"y_train": np.zeros(30)}, r"received float64 of shape \(30,\); number the classes"),
        ({"y_train": np.full(30, -1)}, r"expected class numbers from 0, received -1"),
        ({"classes": ["a", "b"]}, r"classes: expected the names of 3 classes, .*\(2,\); save"),
        ({"classes": np.arange(3)}, r"classes: .*, received int64 of shape \(3,\)"),
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


def test_class_folders_may_be_links(tmp_path, rng):
    save_images(tmp_path / "store" / "cat", rng, 20)
    save_images(tmp_path / "data" / "dog", rng, 20)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store" / "cat")
    data = load_data(str(tmp_path / "data"))
    assert data.classes == ("cat", "dog")
    assert len(data.x_train) + len(data.x_test) == 40


@pytest.mark.parametrize(("link", "target"), [("dog/up", "."), ("latest", "dog"), ("loop", "loop")])
def test_links_that_would_show_images_twice_are_refused(tmp_path, rng, link, target):
    save_images(tmp_path / "dog", rng, 20)
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"expected each folder once|expected a folder that can be"):
        load_data(str(tmp_path))


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


@pytest.mark.parametrize("damage", [b"", b"not an image", "truncated"])
def test_a_corrupt_image_is_skipped_on_request_and_counted(tmp_path, rng, capsys, damage):
    for name in ("cat", "dog"):
        save_images(tmp_path / "train" / name, rng, 12)
        save_images(tmp_path / "test" / name, rng, 3)
    whole = load_data(str(tmp_path))
    for name in ("train/cat/000.png", "train/dog/005.png", "test/cat/002.png"):
        victim = tmp_path / name
        victim.write_bytes(victim.read_bytes()[:300] if damage == "truncated" else damage)
    data = load_data(str(tmp_path), corrupt="skip")
    train, test = [i for i in range(24) if i not in (0, 17)], [0, 1, 3, 4, 5]
    assert torch.equal(data.x_train, whole.x_train[train])
    assert torch.equal(data.y_train, whole.y_train[train])
    assert data.files_train == tuple(whole.files_train[i] for i in train)
    assert torch.equal(data.x_test, whole.x_test[test])
    assert torch.equal(data.y_test, whole.y_test[test])
    assert data.files_test == tuple(whole.files_test[i] for i in test)
    assert data.name == f"{tmp_path.name} without 3 damaged files"
    assert capsys.readouterr().err.count("skipped 3 of 30 image files, damaged") == 1


def test_a_corrupt_image_is_skipped_before_a_part_is_held_out(tmp_path, rng):
    save_images(tmp_path, rng, 30)
    (tmp_path / "000.png").write_bytes(b"")
    data = load_data(str(tmp_path), corrupt="skip")
    assert data.name.endswith(
        "without 1 damaged file (6 of 29 images held out for testing, seed 0)"
    )
    assert sorted(data.files_train + data.files_test) == [f"{i:03}.png" for i in range(1, 30)]


def test_skipping_says_nothing_where_nothing_is_damaged(tmp_path, rng, capsys):
    save_images(tmp_path, rng, 30)
    assert "damaged" not in load_data(str(tmp_path), corrupt="skip").name
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_of_damaged_images_alone_is_refused_even_then(tmp_path, rng, part):
    for folder in ("train", "test"):
        save_images(tmp_path / folder, rng, 24)
    for path in (tmp_path / part).iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"received 24 damaged files, .*000\.png among them; fetch"):
        load_data(str(tmp_path), corrupt="skip")


def test_a_folder_names_the_file_of_each_image(tmp_path, rng):
    arrays = {f"cat/{i:03}.png": a for i, a in enumerate(save_images(tmp_path / "cat", rng, 15))}
    arrays |= {f"dog/{i:03}.png": a for i, a in enumerate(save_images(tmp_path / "dog", rng, 15))}
    data = load_data(str(tmp_path))
    for images, files in ((data.x_train, data.files_train), (data.x_test, data.files_test)):
        for image, file in zip(images.permute(0, 2, 3, 1).numpy(), files, strict=True):
            np.testing.assert_array_equal(image, arrays[file])


def test_sources_without_image_files_name_none(load):
    for data in (load(), load_data("digits")):
        assert data.files_train is data.files_test is None


def test_an_array_that_is_split_names_the_row_of_each_image(load):
    whole, data = load().x_train, load(x_test=None, y_test=None)
    for images, rows in ((data.x_train, data.files_train), (data.x_test, data.files_test)):
        assert torch.equal(images, whole[list(map(int, rows))])


def test_parts_of_differing_sizes_need_an_image_size(tmp_path, rng):
    save_images(tmp_path / "train", rng, 24, size=(16, 16))
    save_images(tmp_path / "test", rng, 3, size=(24, 24))
    with pytest.raises(DataError, match=r"received 16 and 24 pixels; pass image_size"):
        load_data(str(tmp_path))
    assert load_data(str(tmp_path), image_size=16).x_test.shape[-1] == 16


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


# --- Tiny ImageNet ----------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, rng):
    """Two classes of Tiny ImageNet, as its archive lays them out."""
    for wnid in ("n02", "n01"):
        save_images(tmp_path / "train" / wnid / "images", rng, 12)
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("000.png\t0\t0\t9\t9\n")
    save_images(tmp_path / "val" / "images", rng, 3)
    save_images(tmp_path / "test" / "images", rng, 5)
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "002.png\tn01\t0\t0\t9\t9\n000.png\tn02\t0\t0\t9\t9\n001.png\tn02\t0\t0\t9\t9\n"
        "9999.png\tn03\t0\t0\t9\t9\n"  # of an image that is not there, as in a part of the set
    )
    (tmp_path / "words.txt").write_text(
        "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tslug\n"
    )
    return tmp_path


def test_tiny_imagenet_takes_the_labels_of_its_test_part_from_the_annotations(tiny):
    data = load_data(str(tiny))
    assert data.classes == ("goldfish", "slug")
    assert data.y_train.tolist() == [0] * 12 + [1] * 12
    assert data.y_test.tolist() == [1, 1, 0]
    assert data.files_train[12] == "train/n02/images/000.png"
    assert data.files_test == tuple(f"val/images/00{i}.png" for i in range(3))
    for images, files in ((data.x_train, data.files_train), (data.x_test, data.files_test)):
        for image, file in zip(images.permute(1, 2, 3, 0).unbind(-1), files, strict=True):
            np.testing.assert_array_equal(
                image.permute(1, 2, 0), np.asarray(Image.open(tiny / file))
            )


def test_tiny_imagenet_without_words_is_named_by_its_folders(tiny):
    (tiny / "words.txt").unlink()
    assert load_data(str(tiny)).classes == ("n01", "n02")


def test_tiny_imagenet_skips_damaged_files_on_request(tiny):
    (tiny / "val" / "images" / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"001\.png: expected an image"):
        load_data(str(tiny))
    assert load_data(str(tiny), corrupt="skip").y_test.tolist() == [1, 0]


def test_test_images_of_tiny_imagenet_without_annotations_are_refused(tiny):
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"test: expected the class folders of .*also images"):
        load_data(str(tiny))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("000.png\tn01\n001.png\tn01\n", r"none for 002\.png and 0 others; extract"),
        ("000.png n01\n", r"expected columns with tabs between, .* in line 1"),
        ("000.png\tn01\n001.png\tn01\n002.png\tn07\n", r"val: expected the class .* also n07"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tiny, annotations, message):
    (tiny / "val" / "val_annotations.txt").write_text(annotations)
    with pytest.raises(DataError, match=message):
        load_data(str(tiny))


# --- STL-10 -----------------------------------------------------------------------------------


@pytest.fixture
def stl10(tmp_path, rng):
    """The files of STL-10 with few images, and the images as they should be seen."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = {}
    for part, n in (("train", 20), ("test", 4), ("unlabeled", 24)):
        images[part] = photographs(rng, n, 96, 96, 3)
        images[part].transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")  # column by column
    (np.arange(20, dtype=np.uint8) % 10 + 1).tofile(folder / "train_y.bin")
    np.array([10, 1, 2, 3], np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n")
    return folder, images


def test_stl10_trains_on_its_unlabelled_images(stl10):
    folder, images = stl10
    data = load_data(str(folder))
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), images["unlabeled"])
    assert data.y_train is None
    np.testing.assert_array_equal(data.x_test.permute(0, 2, 3, 1), images["test"])
    assert data.y_test.tolist() == [9, 0, 1, 2]
    assert data.classes[9] == "class9"
    assert data.name == "stl10_binary/unlabeled_X.bin"


@pytest.mark.parametrize("asked", ["train_X.bin", ""])
def test_stl10_trains_on_its_labelled_images_where_asked_or_where_there_are_no_others(stl10, asked):
    folder, images = stl10
    if not asked:
        (folder / "unlabeled_X.bin").unlink()
    data = load_data(str(folder / asked))
    np.testing.assert_array_equal(data.x_train.permute(0, 2, 3, 1), images["train"])
    assert data.y_train.tolist() == [*range(10), *range(10)]
    assert data.name == "stl10_binary/train_X.bin"


def test_stl10_is_resized_in_pieces_as_it_would_be_whole(stl10, load, monkeypatch):
    folder, images = stl10
    monkeypatch.setattr("dim.data.stl10.CHUNK", 7)
    data = load_data(str(folder), image_size=32)
    expected = load(x_train=images["unlabeled"], y_train=None, image_size=32)
    assert torch.equal(data.x_train, expected.x_train)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_X.bin", None, r"stl10_binary: expected a file test_X\.bin, received none; extract"),
        ("test_y.bin", None, r"expected a file test_y\.bin"),
        ("train_y.bin", None, r"expected a file train_y\.bin"),
        ("class_names.txt", None, r"expected a file class_names\.txt"),
        ("train_X.bin", b"", r"whole images of 27,648 bytes, received 0 bytes"),
        ("train_X.bin", bytes(27_649), r"whole images of 27,648 bytes, received 27,649 bytes"),
        ("test_y.bin", b"\1\2\3", r"expected 4 bytes from 1 to 10, received 3 from 1 to 3"),
        ("test_y.bin", b"\0\1\2\3", r"received 4 from 0 to 3"),
        ("test_y.bin", b"\1\2\3\13", r"received 4 from 1 to 11"),
        ("test_y.bin", b"", r"expected 4 bytes from 1 to 10, received 0"),
        ("class_names.txt", b"cat dog", r"expected 10 names, received 2"),
    ],
)
def test_files_of_stl10_that_do_not_fit_are_refused(stl10, name, content, message):
    folder, _ = stl10
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data(str(folder / "train_X.bin"))


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
