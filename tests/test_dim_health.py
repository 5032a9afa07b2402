"""Health of a training run: the numbers against literal twins, the alarms on what is broken."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from dim import PRESETS, AdversarialPrior, ImageData, build_model, load_data, train
from dim.health import RANGES, alarms, health_table, measure

CPU = torch.device("cpu")
SMALL = dataclasses.replace(PRESETS["default"], head_units=8, batch_size=8, epochs=3)
ADVERSARIAL = dataclasses.replace(SMALL, prior="adversarial", stochastic=False)


def images(n=32, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def stepped(config, labels=None):
    """A model after the backward pass of a batch, the features and what is measured then."""
    model = build_model(config, 16, classes=3)
    losses, features = model(images(8), labels, generator=torch.Generator().manual_seed(0))
    (losses.total + losses.adversary).backward()
    return model, features, measure(model, features, labels)


def test_the_numbers_of_the_code_are_their_definitions():
    model, features, numbers = stepped(SMALL)
    mean = features.z_mean.detach()
    assert numbers["z_mean_std"] == pytest.approx(mean.std(0).mean().item())
    unit = torch.stack([row / row.norm() for row in mean])
    assert numbers["z_unit_std"] == pytest.approx(math.sqrt(64) * unit.std(0).mean().item())
    active = sum(float(mean[:, u].var()) > 0.01 for u in range(64)) / 64
    assert numbers["active_units"] == pytest.approx(active)
    squares = [p.grad.square().sum() for p in model.encoder.parameters() if p.grad is not None]
    assert numbers["gradient_norm"] == pytest.approx(math.sqrt(sum(squares)), rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("class_conditional", [False, True])
def test_the_rate_is_the_divergence_from_the_prior_in_nats(reduction, class_conditional):
    config = dataclasses.replace(
        SMALL, prior_reduction=reduction, class_conditional=class_conditional
    )
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]) if class_conditional else None
    model, features, numbers = stepped(config, labels)
    centre = model.prior.class_means(labels) if class_conditional else torch.zeros(8, 64)
    q = Normal(features.z_mean, (0.5 * features.z_log_var).exp())
    rate = kl_divergence(q, Normal(centre, 1.0)).sum(-1).mean()
    assert numbers["kl_rate"] == pytest.approx(rate.item(), rel=1e-5)


@pytest.mark.parametrize("negatives", ["in-batch", "all-locations"])
def test_the_scores_are_those_of_pairs_and_of_valid_negatives(negatives):
    model, features, numbers = stepped(
        dataclasses.replace(SMALL, stochastic=False, negatives=negatives)
    )
    critic = model.eval().local_term.estimator.critic
    z, places = features.z_mean, features.feature_map.flatten(2).movedim(1, -1)
    scores = torch.stack(
        [torch.stack([critic(z[i].expand(16, -1), places[j]) for j in range(8)]) for i in range(8)]
    )
    pairs = torch.eye(8, dtype=torch.bool)
    for kind, of_kind in (("positive", scores[pairs]), ("negative", scores[~pairs])):
        assert numbers[f"local_{kind}"] == pytest.approx(of_kind.mean().item(), abs=1e-5)
        for percent in (5, 25, 50, 75, 95):
            expected = np.percentile(of_kind.detach().numpy(), percent, method="nearest")
            assert numbers[f"local_{kind}_p{percent:02}"] == pytest.approx(expected, abs=1e-5)
    gap = numbers["local_positive"] - numbers["local_negative"]
    assert numbers["local_gap"] == pytest.approx(gap, abs=1e-6)
    assert "global_gap" in numbers
    assert "locations_gap" not in numbers
    assert "discriminator_accuracy" not in numbers


def test_the_locations_term_has_its_own_scores():
    """Of constant maps all scores are the same; of others they are not."""
    config = dataclasses.replace(SMALL, kappa=1.0)
    model, features, numbers = stepped(config)
    gap = numbers["locations_positive"] - numbers["locations_negative"]
    assert numbers["locations_gap"] == pytest.approx(gap, abs=1e-6)
    assert numbers["locations_gap"] != numbers["local_gap"]
    assert "locations_gap" in RANGES
    alike = dataclasses.replace(features, feature_map=torch.ones_like(features.feature_map))
    assert measure(model, alike)["locations_gap"] == pytest.approx(0, abs=1e-6)


def test_the_discriminators_accuracy_is_the_share_it_tells_right():
    model, features, _ = stepped(ADVERSARIAL)
    last = model.prior.discriminator[-1]
    for bias, accuracy in ((1e3, 0.5), (-1e3, 0.5)):
        nn.init.constant_(last.bias, bias)
        assert measure(model, features)["discriminator_accuracy"] == accuracy
    model.prior.discriminator = nn.Sequential(nn.Linear(64, 1))
    nn.init.constant_(model.prior.discriminator[0].weight, 1.0)
    nn.init.constant_(model.prior.discriminator[0].bias, -64.0 + 1e-3)  # codes saturate at 1
    saturated = dataclasses.replace(features, z_mean=torch.full((8, 64), 1e3))
    numbers = measure(model, saturated)
    assert numbers["discriminator_accuracy"] == 0.0
    assert "kl_rate" not in numbers


@pytest.mark.parametrize("config", [SMALL, ADVERSARIAL, PRESETS["su-kl"]])
def test_measuring_leaves_no_trace(config):
    config = dataclasses.replace(config, head_units=8)
    model, features, first = stepped(config)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    assert measure(model, features) == first
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("name", RANGES)
def test_each_alarm_sounds_outside_its_range_and_not_within(name):
    low, high, below, above = RANGES[name]
    assert low < high
    for number in (low, min(high, 1e9)):
        assert alarms({name: number}) == {}
    for number, meaning in ((low - 1e-3, below), (high * 1.01, above)):
        if math.isfinite(number):
            assert meaning
            assert meaning in alarms({name: number})[name]
    for number in (math.nan, math.inf, -math.inf):
        assert "is not finite" in alarms({name: number})[name]
    assert not alarms({"epoch": 1, "images_per_second": 0.0})


def test_the_table_has_a_line_for_each_range_and_says_what_is_outside():
    numbers = {"epoch": 3, "z_unit_std": 0.01, "local_positive": 99.0, "local_gap": 2.5}
    _, _, *lines = health_table(numbers).splitlines()
    assert lines == [
        "| z_unit_std | 0.01 | ≥ 0.1 | all codes point the same way: collapse of direction |",
        "| local_positive | 99 | -88 to 88 | scores saturate, and where they are exponentiated "
        "overflow; lower --learning-rate |",
        "| local_gap | 2.5 | ≥ 0.05 | yes |",
    ]


def test_health_is_printed_ever_less_often_and_at_the_end(tmp_path, capsys):
    data = ImageData("noise", images(16), None, images(16), None, None)
    config = dataclasses.replace(SMALL, alpha=0.0, delta=0.0, epochs=6)
    train.train(config, data, tmp_path / "run", device=CPU)
    printed = re.findall(r"epoch (\d+): z_mean_std .*local_gap", capsys.readouterr().err)
    assert printed == ["1", "2", "5", "6"]


class Middle(nn.Module):
    """A discriminator that has found out that all codes are in the middle."""

    def forward(self, u):
        return (u - 0.5).abs().sum(-1, keepdim=True) - 1e-3


def collapsed(model):
    """The model with the same code for all images, and no way to learn otherwise."""
    for head in (model.encoder.z_mean, model.encoder.z_log_var):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return model.requires_grad_(False)


@pytest.mark.parametrize("config", [dataclasses.replace(SMALL, stochastic=False), ADVERSARIAL])
def test_a_collapsed_encoder_sounds_every_alarm_once(config, tmp_path, monkeypatch, capsys):
    """With a discriminator that has found out."""

    def build(*args):
        model = collapsed(build_model(*args))
        if isinstance(model.prior, AdversarialPrior):
            model.prior.discriminator = Middle()
        # A loss needs something to learn, which makes no difference here.
        model.encoder.z_mean.bias.requires_grad_(True)
        model.encoder.z_mean.bias.register_hook(torch.zeros_like)
        return model

    monkeypatch.setattr("dim.train.build_model", build)
    data = ImageData("noise", images(), None, images(), None, None)
    train.train(config, data, tmp_path / "run", device=CPU)
    printed = re.split("[\r\n]", capsys.readouterr().err)
    (line,) = [text for text in printed if "below" in text or "above" in text]
    assert line.startswith("epoch 1: ")
    expected = ["z_mean_std", "z_unit_std", "active_units", "gradient_norm"]
    expected += ["global_gap", "local_gap"]
    expected += ["discriminator_accuracy" if config is ADVERSARIAL else "kl_rate"]
    assert set(re.findall(r"(\w+) \S+ (?:below|above)", line)) == set(expected)


@pytest.mark.slow
def test_the_default_run_on_digits_sounds_none(tmp_path, capsys):
    config = dataclasses.replace(PRESETS["default"], epochs=2, image_size=32)
    train.train(config, load_data("digits"), tmp_path / "run", device=CPU)
    error = capsys.readouterr().err
    assert "below" not in error
    assert "above" not in error
