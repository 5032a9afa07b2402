"""What a decoder makes of codes, drawn."""

import errno
from pathlib import Path

import pytest
import torch
from PIL import Image

from dim import PRESETS, Decoder, RunError, build_model
from dim.figures import DRAWN, draw_classes, draw_reconstructions


def test_images_are_drawn_above_their_reconstructions(tmp_path):
    model = build_model(PRESETS["autoencoder"], 16)
    model.train()
    batch = torch.randint(
        0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    path = tmp_path / "reconstructions.png"
    draw_reconstructions(model.encoder, model.reconstruction_term.decoder, batch, path=path)
    assert model.encoder.training
    picture = Image.open(path)
    assert picture.size == (10 * 16 * 3, 2 * 16 * 3)
    assert picture.getpixel((16 * 3, 0)) == tuple(batch[1, :, 0, 0].tolist())


def test_a_column_for_each_class_begins_with_the_image_of_its_mean(tmp_path):
    decoder = Decoder(3, 16, channels=8)
    means = torch.randn(2, 3)
    path = tmp_path / "classes.png"
    draw_classes(decoder, means, path=path)
    picture = Image.open(path)
    assert picture.size == (2 * 16 * 3, (1 + DRAWN) * 16 * 3)
    with torch.no_grad():
        image = decoder.eval()(means)[1]
    expected = ((image[:, 0, 0] + 1) * 127.5).round().tolist()
    assert picture.getpixel((16 * 3, 0)) == tuple(map(int, expected))
    rows = [picture.crop((0, row * 48, 96, row * 48 + 48)).tobytes() for row in range(1 + DRAWN)]
    assert len(set(rows)) == 1 + DRAWN


def test_a_figure_that_cannot_be_written_leaves_that_of_before(tmp_path, monkeypatch):
    path = tmp_path / "classes.png"
    path.write_bytes(b"before")

    def full(image, part, **_):
        Path(part).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match=r"received: No space left on device; make room"):
        draw_classes(Decoder(3, 16, channels=8), torch.randn(2, 3), path=path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]
