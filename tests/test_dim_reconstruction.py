"""MS-SSIM against values in closed form, and what a decoder makes of good and of bad codes."""

import dataclasses
import sys

import pytest
import torch

import dim.reconstruction
from dim import PRESETS, ImageData, build_model
from dim.measures import Codes, codes_of
from dim.reconstruction import (
    WEIGHTS,
    fit_decoder,
    ms_ssim,
    reconstruction,
    reconstruction_measure,
    scales,
)


def noise(n=3, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_an_image_is_like_itself_and_less_like_noise_of_it_the_more_there_is(size):
    images = noise(size=size)
    torch.testing.assert_close(ms_ssim(images, images), torch.ones(3))
    little, much = (ms_ssim(images, images + s * noise(size=size, seed=1)) for s in (0.1, 0.5))
    assert (little < 0.995).all()
    assert (much < little - 0.02).all()


@pytest.mark.parametrize(("size", "levels"), [(16, 1), (32, 2), (64, 3)])
def test_of_plain_images_luminance_alone_counts_and_at_the_coarsest_scale(size, levels):
    dark, bright = (torch.full((1, 3, size, size), level) for level in (0.2, 0.8))
    luminance = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    weight = WEIGHTS[levels - 1] / sum(WEIGHTS[:levels])
    assert scales(size) == levels
    assert ms_ssim(dark, bright).item() == pytest.approx(luminance**weight, rel=1e-4)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match=r"image_size: expected at least 16 pixels.*received 8"):
        ms_ssim(noise(size=8), noise(size=8))


def test_without_its_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(
        ModuleNotFoundError,
        match="MS-SSIM: expected torchmetrics to compute it, received no torchmetrics; pip install",
    ):
        ms_ssim(noise(), noise())


def bumps(n, seed):
    """Images of a bright bump on grey, by its place: two numbers make each image."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(n, 2, 1, generator=generator) * 10 + 3
    row, column = (torch.exp(-((torch.arange(16) - p) ** 2) / 8) for p in place.unbind(1))
    image = 60 + 190 * row[:, :, None] * column[:, None, :]
    return image[:, None].expand(-1, 3, -1, -1).to(torch.uint8), place.squeeze(-1)


@pytest.fixture(scope="module")
def data():
    return ImageData("bumps", bumps(256, 0)[0], None, bumps(100, 1)[0], None, None)


def test_the_code_that_made_an_image_makes_it_again_and_one_of_chance_does_not(data):
    kept = Codes(bumps(256, 0)[1], bumps(100, 1)[1])
    lost = Codes(kept.train.roll(1, 0), kept.test.roll(1, 0))
    good, bad = (reconstruction(codes, data, epochs=12) for codes in (kept, lost))
    assert good.shape == (100,)
    assert good.mean() > bad.mean() + 0.2


def test_scale_and_place_of_a_code_do_not_count(data):
    codes = codes_of(build_model(PRESETS["default"], 16).encoder, data)
    moved = Codes(1e-3 * codes.train - 0.1, 1e-3 * codes.test - 0.1)
    found, again = (reconstruction(each, data, epochs=1).mean().item() for each in (codes, moved))
    assert again == pytest.approx(found, abs=0.02)


def test_the_same_seed_gives_the_same_decoder_and_leaves_the_global_generator_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    codes = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        fit_decoder(codes, data.x_train, epochs=1, seed=seed)(codes[:2]) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_measure_is_a_mean_over_test_images_with_its_error(data, monkeypatch):
    given = Codes(torch.zeros(4, 2), torch.zeros(4, 2))

    def reconstruction(codes, data, *, epochs):
        assert codes is given
        assert epochs == 7
        return torch.tensor([0.2, 0.4])

    monkeypatch.setattr(dim.reconstruction, "reconstruction", reconstruction)
    measure = reconstruction_measure(given, data, "z_mean", epochs=7)
    assert measure.name == "MS-SSIM of images decoded from z_mean"
    assert measure.value == pytest.approx(0.3)
    assert measure.error == pytest.approx(0.1)  # an sd of sqrt(2)/10, over sqrt(2)
    assert measure.note == "1: the image itself; scales: 1; epochs of the decoder: 7"


@pytest.mark.slow
def test_the_code_of_an_autoencoder_keeps_more_than_that_of_an_untrained_encoder(data):
    model = build_model(dataclasses.replace(PRESETS["autoencoder"], z_dim=3), 16)
    untrained = codes_of(model.encoder, data)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        for rows in torch.randperm(256, generator=generator).split(64):
            optimiser.zero_grad()
            model(data.x_train[rows])[0].total.backward()
            optimiser.step()
    trained = codes_of(model.encoder, data)
    more, less = (reconstruction(codes, data, epochs=12).mean() for codes in (trained, untrained))
    assert more > less + 0.05
