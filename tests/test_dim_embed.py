"""Embeddings are those of the encoder, a row an image, each with its file, part and class."""

import csv
import errno
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from dim import PRESETS, RunError, load_data, load_encoder
from dim.checkpoint import load_config
from dim.embed import main, write_embeddings
from dim.encoder import encode
from dim.train import main as train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    sizes = ["--batch-size", "12", "--head-units", "8", "--z-dim", "5", "--epochs", "1"]
    train(["--data", str(folder), "--out", str(out), "--device", "cpu", *sizes])
    return out


def run_main(*args):
    main([str(arg) for arg in (*args, "--device", "cpu")])


def expected(run, data, layer):
    encoder = load_encoder(run)
    parts = [encode(encoder, x, layer) for x in (data.x_train, data.x_test)]
    return torch.cat(parts).flatten(1).numpy()


NAMES = [
    *(f"train/{name}/{i:02}.png" for name in ("cat", "dog") for i in range(12)),
    *(f"test/{name}/{i:02}.png" for name in ("cat", "dog") for i in range(3)),
]
SPLITS = ["train"] * 24 + ["test"] * 6
LABELS = [0] * 12 + [1] * 12 + [0] * 3 + [1] * 3


@pytest.mark.parametrize(
    ("layer", "dimensions"), [("z_mean", 5), ("hidden", 1024), ("feature_map", 128 * 4 * 4)]
)
def test_npy_and_its_table_agree_with_the_encoder(
    run, folder, tmp_path, monkeypatch, capsys, layer, dimensions
):
    monkeypatch.setattr("dim.embed.BATCH", 7)
    out = tmp_path / "embeddings.npy"
    run_main(run, "--out", out, "--layer", layer)
    array = np.load(out)
    assert array.shape == (30, dimensions)
    assert array.dtype == np.float32
    np.testing.assert_allclose(
        array, expected(run, load_data(str(folder)), layer), rtol=1e-4, atol=1e-5
    )
    with (tmp_path / "embeddings.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == NAMES
    assert [row["split"] for row in table] == SPLITS
    assert [int(row["label"]) for row in table] == LABELS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings.csv", "embeddings.npy"]
    assert f"30 × {dimensions:,}, {layer} of {folder.name}" in capsys.readouterr().out


def test_parquet_holds_all_in_one_table(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dim.embed.BATCH", 7)
    out = tmp_path / "embeddings.parquet"
    run_main(run, "--out", out)
    table = parquet.read_table(out)
    assert table.column("file").to_pylist() == NAMES
    assert table.column("split").to_pylist() == SPLITS
    assert table.column("label").to_pylist() == LABELS
    assert table.schema.field("embedding").type.list_size == 5
    embeddings = np.array(table.column("embedding").to_pylist(), np.float32)
    np.testing.assert_allclose(
        embeddings, expected(run, load_data(str(folder)), "z_mean"), rtol=1e-4, atol=1e-5
    )
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_other_images_without_names_and_labels_are_embedded_at_the_runs_size(run, tmp_path, suffix):
    images = np.random.default_rng(1).integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", x_train=images[:24], x_test=images[24:])
    out = tmp_path / f"other.{suffix}"
    run_main(run, "--out", out, "--data", tmp_path / "other.npz")
    other = load_data(str(tmp_path / "other.npz"), image_size=16)
    if suffix == "npy":
        embeddings = np.load(out)
        with (tmp_path / "other.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows == [{"file": "", "split": split, "label": ""} for split in SPLITS]
    else:
        table = parquet.read_table(out)
        embeddings = np.array(table.column("embedding").to_pylist(), np.float32)
        assert table.column("file").to_pylist() == table.column("label").to_pylist() == [None] * 30
    np.testing.assert_allclose(embeddings, expected(run, other, "z_mean"), rtol=1e-4, atol=1e-5)


def test_damaged_files_are_refused_as_in_training_and_skipped_on_request(
    run, folder, tmp_path, capsys
):
    other = tmp_path / "other"
    other.mkdir()
    for i, path in enumerate(folder.rglob("*.png")):
        (other / f"{i}.png").write_bytes(b"" if i == 4 else path.read_bytes())
    with pytest.raises(SystemExit) as stop:
        run_main(run, "--out", tmp_path / "e.npy", "--data", other)
    assert stop.value.code == 2
    assert "4.png: expected an image" in capsys.readouterr().err
    run_main(run, "--out", tmp_path / "e.npy", "--data", other, "--corrupt", "skip")
    assert len(np.load(tmp_path / "e.npy")) == 29
    assert "without 1 damaged file" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_what_fails_on_the_way_leaves_the_files_before(run, folder, tmp_path, suffix):
    out = tmp_path / f"embeddings.{suffix}"
    run_main(run, "--out", out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    encoder, batches = load_encoder(run), []

    def fail(*_):
        batches.append(1)
        if len(batches) == 3:  # one is asked for the number of dimensions
            raise OSError(errno.ENOSPC, "No space left on device")

    encoder.register_forward_hook(fail)
    with pytest.raises(RunError, match=r"received: No space left on device; make room"):
        write_embeddings(out, encoder, load_data(str(folder)))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_pyarrow_parquet_names_the_way_out(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit) as stop:
        run_main(run, "--out", tmp_path / "embeddings.parquet")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "expected pyarrow" in error
    assert "or choose an .npy file" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "embeddings.txt"], r"ends in .npy or .parquet, received embeddings.txt; rename"),
        (["--out", "no/such/folder/e.npy"], "no/such/folder"),
        (["--out", "e.npy", "--data", "no/such/place"], "no/such/place"),
    ],
)
def test_a_users_mistake_exits_with_2(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_main(run, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_skips_damaged_files_remembers_it(folder, tmp_path):
    assert PRESETS["default"].corrupt == "refuse"
    data = tmp_path / "data"
    data.mkdir()
    for i, path in enumerate(folder.rglob("*.png")):
        (data / f"{i}.png").write_bytes(b"" if i == 4 else path.read_bytes())
    sizes = ["--batch-size", "12", "--head-units", "8", "--epochs", "1", "--corrupt", "skip"]
    train(["--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", *sizes])
    assert load_config(tmp_path / "run").corrupt == "skip"
    assert "without 1 damaged file" in (tmp_path / "run" / "report.md").read_text()
    run_main(tmp_path / "run", "--out", tmp_path / "e.npy")
    assert len(np.load(tmp_path / "e.npy")) == 29
