"""Decoders and the models that reconstruct, against literal twins."""

import dataclasses
import math

import pytest
import torch

from dim import PRESETS, Decoder, ReconstructionTerm, build_model


def images(n=6, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_images_have_the_size_asked_for_and_lie_between_black_and_white(size):
    decoded = Decoder(5, size, channels=8)(10 * torch.randn(4, 5))
    assert decoded.shape == (4, 3, size, size)
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize("size", [4, 30])
def test_a_size_that_cannot_be_doubled_to_is_refused(size):
    with pytest.raises(ValueError, match=f"image_size: expected a multiple of 8.*{size}"):
        Decoder(5, size)


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_reconstruction_is_half_the_squared_error_of_every_pixel(variance):
    term = ReconstructionTerm(Decoder(3, 8, channels=8), variance=variance).eval()
    batch, z = images(3, 8), torch.randn(3, 3)
    decoded, expected = term.decoder(z), 0.0
    for image, again in zip(batch, decoded, strict=True):
        for pixel, value in zip(image.flatten().tolist(), again.flatten().tolist(), strict=True):
            expected += (pixel / 127.5 - 1 - value) ** 2 / (2 * variance) / 3
    assert term(z, batch).item() == pytest.approx(expected, rel=1e-5)
    assert term(z, batch / 255).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("preset", "stochastic", "divergence"),
    [("autoencoder", False, False), ("vae", True, True), ("class-conditional-vae", True, True)],
)
def test_the_total_of_a_preset_is_its_evidence_lower_bound(preset, stochastic, divergence):
    config = PRESETS[preset]
    assert config.stochastic == stochastic
    model = build_model(config, 16, classes=3).eval()
    batch, labels = images(), torch.arange(6) % 3
    losses, features = model(batch, labels, generator=torch.Generator().manual_seed(0))
    z = features.z_mean
    if stochastic:
        z = features.sample(torch.Generator().manual_seed(0))
    expected = model.reconstruction_term(z, batch)
    if divergence:
        mean = features.z_mean
        if preset.startswith("class"):
            mean = mean - model.prior.class_means(labels)
        variance = features.z_log_var.exp()
        expected = expected + 0.5 * (mean**2 + variance - variance.log() - 1).sum(1).mean()
    torch.testing.assert_close(losses.total, expected)


def test_an_autoencoder_learns_to_tell_images_apart():
    config = dataclasses.replace(PRESETS["autoencoder"], z_dim=8)
    model = build_model(config, 16)
    level = torch.tensor([20, 90, 160, 240], dtype=torch.uint8)
    batch = level[:, None, None, None].expand(4, 3, 16, 16).repeat(4, 1, 1, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = []
    for _ in range(60):
        optimiser.zero_grad()
        losses, _ = model(batch)
        losses.total.backward()
        optimiser.step()
        seen.append(losses.total.item())
    assert seen[-1] < 0.1 * seen[0]
    assert all(math.isfinite(value) for value in seen)
