"""Two views: what they are, and that the terms are between them, both ways."""

import dataclasses
import math
import random
import sys

import numpy as np
import pytest
import torch

from dim import PRESETS, ImageData, RunError, build_model
from dim.health import measure
from dim.terms import Encoded
from dim.train import Training, main
from dim.views import augmentation, two_views

CPU = torch.device("cpu")
SMALL = dataclasses.replace(
    PRESETS["default"],
    views=2,
    batch_size=8,
    head_units=8,
    objective="jsd",
    negatives="in-batch",
    alpha=0.5,
    stochastic=False,
)


def images(n=8, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def noise(n=32):
    return ImageData("noise", images(n), torch.arange(n) % 3, images(n), torch.arange(n) % 3, None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(n):
    """Images whose first channel grows to the right and whose second downwards, by 1 in all."""
    rows, columns = torch.meshgrid(*[torch.linspace(0, 1, 16)] * 2, indexing="ij")
    return torch.stack([columns, rows, torch.zeros(16, 16)]).expand(n, -1, -1, -1)


# --- What views are ---------------------------------------------------------------------------


def test_views_are_bytes_that_differ_and_come_again_with_their_seed():
    batch, augment = images(), augmentation(16)
    before = batch.clone()
    one, other = two_views(batch, augment, seed=(0, 5))
    for view in (one, other):
        assert view.dtype == torch.uint8
        assert view.shape == batch.shape
        assert all(not torch.equal(a, b) for a, b in zip(view, batch, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(batch, before)
    again = two_views(batch, augment, seed=(0, 5))
    assert torch.equal(again[0], one)
    assert torch.equal(again[1], other)
    for seed in ((0, 6), (1, 5), (5, 0), (-1, 5)):
        assert not torch.equal(two_views(batch, augment, seed=seed)[0], one)


def test_no_global_generator_is_moved_and_none_decides():
    augment = augmentation(16)
    ours, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = two_views(images(), augment, seed=(0,))
    assert torch.equal(torch.get_rng_state(), ours)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()
    assert torch.equal(two_views(images(), augment, seed=(0,))[0], first[0])


def test_a_view_that_changes_nothing_is_the_image():
    for view in two_views(images(), lambda pixels: pixels, seed=(0,)):
        assert torch.equal(view, images())
    for view in two_views(images(), lambda pixels: 0.999 + 0 * pixels, seed=(0,)):
        assert (view == 255).all()


def test_crops_are_of_a_fifth_to_all_of_the_area_and_half_are_mirrored():
    crop, mirror, *_ = augmentation(16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cropped = crop(ramps(2000))
        mirrored = mirror(ramps(2000))
    width = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]
    height = cropped[:, 1, -1, 0] - cropped[:, 1, 0, 0]
    # In pixels: an inclusive box of w pixels spans (w - 1) / 15 of the ramp.
    width, height = (15 * side + 1 for side in (width, height))
    assert 0.17 < (width * height).min() / 256 < 0.25  # sides are whole numbers of pixels
    assert (width * height).max() / 256 > 0.95
    assert 0.65 < (width / height).min() < 0.85
    assert 1.2 < (width / height).max() < 1.55
    # Not 0.6: large areas that do not fit in their shape are drawn again.
    assert (width * height / 256).mean().item() == pytest.approx(0.565, abs=0.03)
    slopes = mirrored[:, 0, 0, -1] - mirrored[:, 0, 0, 0]
    assert (slopes < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_four_in_five_change_colour_and_one_in_five_turns_grey():
    _, _, colour, grey = augmentation(16)
    assert (colour.contrast, colour.saturation, colour.hue) == (0.4, 0.4, 0.1)
    batch = (images(2000) / 255) * 0.5 + 0.25
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coloured, greyed = colour(batch), grey(batch)
    changed = (coloured - batch).abs().amax((1, 2, 3)) > 1e-3
    assert changed.float().mean().item() == pytest.approx(0.8, abs=0.04)
    ratios = coloured.mean((1, 2, 3)) / batch.mean((1, 2, 3))
    assert 0.5 < ratios.min() < 0.65
    assert 1.35 < ratios.max() < 1.45  # brightness by up to 0.4, whites cut off
    flat = (greyed.amax(1) - greyed.amin(1)).amax((1, 2)) < 1e-3
    assert flat.float().mean().item() == pytest.approx(0.2, abs=0.04)


def test_without_kornia_views_are_refused_by_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mi-estimators\[views\]'"):
        augmentation(16)
    with pytest.raises(SystemExit) as stop:
        main(["--views", "2", "--device", "cpu", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert "error: views: expected kornia" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- Losses between them ----------------------------------------------------------------------


@pytest.mark.parametrize("global_input", ["z", "feature-map"])
def test_of_identical_views_the_losses_are_those_of_one(global_input, monkeypatch):
    """Also of batch norm: a batch that is there twice has the same mean and variance."""
    monkeypatch.setattr("dim.train.augmentation", lambda size: lambda pixels: pixels)
    config = dataclasses.replace(SMALL, global_input=global_input, delta=1.0, eta=1.0, rho=1e-3)
    single, double = (
        Training(dataclasses.replace(config, views=views), noise(), CPU) for views in (1, 2)
    )
    for each in (single, double):
        torch.nn.init.ones_(each.model.coordinate_term.classifier[-1].weight[0])
    (one, _), (two, features) = (each.step(each.batches()[0]) for each in (single, double))
    assert features.z_mean.shape == (16, 64)
    for name, expected in one._asdict().items():
        assert getattr(two, name).item() == pytest.approx(expected.item(), rel=1e-4), name
        assert expected or name in ("locations", "adversary")


def written_out(scores):
    """The loss by JSD and the mean scores, of scores[i][j][place]; i = j belong together."""
    n, softplus = len(scores), lambda t: math.log1p(math.exp(-abs(t))) + max(t, 0)
    joint = [t for i in range(n) for t in scores[i][i]]
    product = [t for i in range(n) for j in range(n) if i != j for t in scores[i][j]]
    loss = sum(softplus(-t) for t in joint) / len(joint)
    loss += sum(softplus(t) for t in product) / len(product) - 2 * math.log(2)
    return loss, sum(joint) / len(joint), sum(product) / len(product)


@pytest.mark.parametrize("global_input", ["z", "feature-map"])
def test_every_term_is_between_the_views_both_ways_written_out(global_input):
    """One view is dark and the other bright, so that the two ways have different losses."""
    model = build_model(dataclasses.replace(SMALL, global_input=global_input, kappa=1.0), 8).eval()
    views = images(4, 8) // 4, 128 + images(4, 8, seed=1) // 2
    losses, features = model(views[0], others=views[1], generator=seeded())
    losses.total.backward()
    numbers = measure(model, features, views=2)
    encoded = [model.encoder(view) for view in views]
    critics = {name: term.estimator.critic for name, term in model.terms.items()}
    generator, found = seeded(), {name: [] for name in critics}
    for one, other in (encoded, encoded[::-1]):
        cycle = torch.rand(4, generator=generator).argsort().tolist()
        elsewhere = {place: cycle[k - 3] for k, place in enumerate(cycle)}
        assert all(here != there for here, there in elsewhere.items())
        x = one.z_mean if global_input == "z" else one.feature_map.flatten(1)
        here, there = (each.feature_map.flatten(2).movedim(1, 2) for each in (one, other))
        pairs = {
            "global": [[[(x[i], z)] for z in other.z_mean] for i in range(4)],
            "local": [[[(z, c) for c in places] for places in there] for z in one.z_mean],
            "locations": [
                [[(mine[k], its[elsewhere[k]]) for k in range(4)] for its in there] for mine in here
            ],
        }
        for name, rows in pairs.items():
            scores = [
                [[critics[name](a[None], b[None]).item() for a, b in cell] for cell in row]
                for row in rows
            ]
            found[name].append(written_out(scores))
    for name, (forth, back) in found.items():
        loss = losses.global_ if name == "global" else getattr(losses, name)
        assert loss.item() == pytest.approx((forth[0] + back[0]) / 2, rel=1e-4)
        assert abs(forth[0] - back[0]) > 1e-4
    for name in ("global", "local"):  # health draws other locations of its own
        for i, number in enumerate(("positive", "negative"), start=1):
            expected = sum(way[i] for way in found[name]) / 2
            assert numbers[f"{name}_{number}"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_what_is_not_between_images_is_a_mean_over_both_views():
    config = dataclasses.replace(SMALL, class_conditional=True, gamma=1.0, delta=1.0, rho=1.0)
    model = build_model(config, 16, classes=3).eval()
    torch.nn.init.normal_(model.prior.class_means.weight)
    torch.nn.init.normal_(model.coordinate_term.classifier[-1].weight)
    views, labels = (images(6), images(6, seed=1)), torch.arange(6) % 3
    both, features = model(views[0], labels, others=views[1])
    each = [model(view, labels)[0] for view in views]
    for name in ("prior", "coordinates", "reconstruction"):
        expected = (getattr(each[0], name) + getattr(each[1], name)) / 2
        torch.testing.assert_close(getattr(both, name), expected, rtol=1e-4, atol=1e-5)
    rate = measure(model, features, labels, views=2)["kl_rate"]
    assert rate == pytest.approx(both.prior.item(), rel=1e-4)


def test_views_come_apart_as_they_were_put_together():
    model = build_model(SMALL, 16).eval()
    views = images(3), images(3, seed=1)
    features = model.encoder(torch.cat(views))
    apart = Encoded(features, features.z_mean).chunk(2)
    for view, (own, z) in zip(views, apart, strict=True):
        expected = model.encoder(view)
        for name, part in vars(own).items():
            torch.testing.assert_close(part, getattr(expected, name))
        torch.testing.assert_close(z, expected.z_mean)


def test_the_code_of_a_view_may_be_of_a_part_of_it_or_coarse():
    config = dataclasses.replace(SMALL, occlusion=0.5, coarseness=2)
    losses, features = build_model(config, 16)(images(), others=images(seed=1), generator=seeded())
    assert losses.total.isfinite()
    assert features.z_mean.shape[0] == features.feature_map.shape[0] == 16


# --- Training ---------------------------------------------------------------------------------


def test_views_are_other_ones_at_every_step_and_a_restored_training_knows_which():
    data = noise()
    training = Training(SMALL, data, CPU)
    batch = torch.arange(8)
    seen = []
    for _ in range(3):
        seen.append(training.views(batch))
        training.step(batch)
    assert not torch.equal(seen[0][0], seen[1][0])
    again = Training(SMALL, data, CPU)
    assert torch.equal(again.views(batch)[1], seen[0][1])
    assert not torch.equal(
        Training(dataclasses.replace(SMALL, seed=1), data, CPU).views(batch)[0], seen[0][0]
    )
    again.restore(training.state([{}, {}]))  # two epochs of four steps
    assert again.taken == 8


def test_a_graph_of_two_views_is_refused():
    with pytest.raises(RunError, match=r"graph: expected one view of an image, received 2"):
        Training(SMALL, noise(), CPU).recorded_step()


def test_a_second_view_that_is_not_of_the_images_is_refused():
    with pytest.raises(ValueError, match=r"others: expected a view of each image, of shape \[8,"):
        build_model(SMALL, 16)(images(), others=images(4))
