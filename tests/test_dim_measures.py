"""Measures of a code against laws that know their answer."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from dim import PRESETS, AdversarialPrior, ImageData, KLPrior, build_model
from dim.encoder import Features
from dim.measures import (
    against_prior,
    codes_of,
    dependence_within,
    held_out_information,
    measures_of,
)
from dim.prior import NoPrior
from dim.terms import InfoMaxTerm, code_with_code
from mi_estimators import JSD, Critic, MIEstimator
from mi_estimators.distributions import CorrelatedGaussian


class Brightness(nn.Module):
    """An encoder whose code is how bright an image is, in 256 steps."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        z = images.float().mean((1, 2, 3))[:, None]
        return Features(*[z[..., None, None]] * 2, z, z, torch.zeros_like(z))


class Near(Critic):
    """The closer, the higher."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def encode_x(self, x):
        return x

    def encode_y(self, y):
        return y

    def score(self, u, v):
        return -self.slope * (u - v).abs().sum(-1)


def shades(n):
    return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8)


def term(slope):
    return InfoMaxTerm(MIEstimator(Near(slope), JSD()), code_with_code)


def test_a_critic_that_tells_all_images_apart_reaches_the_ceiling():
    found = held_out_information(Brightness(), term(20.0), shades(120), batch_size=50)
    assert found.ceiling == pytest.approx(math.log(50))
    assert found.nats == pytest.approx(found.ceiling, abs=1e-6)


def test_a_critic_that_tells_nothing_finds_nothing_and_one_that_errs_less_than_nothing():
    nothing = held_out_information(Brightness(), term(0.0), shades(120), batch_size=50)
    assert nothing.nats == pytest.approx(0, abs=1e-6)
    assert held_out_information(Brightness(), term(-1.0), shades(120), batch_size=50).nats < -1


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="images: expected at least 50, a batch, received 49"):
        held_out_information(Brightness(), term(1.0), shades(49), batch_size=50)


def test_modes_and_gradients_are_left_as_they_were():
    encoder, of = Brightness().train(), term(1.0).train()
    held_out_information(encoder, of, shades(50), batch_size=50)
    assert encoder.training
    assert of.training


def test_independent_dimensions_have_none_and_no_scale():
    scale = torch.tensor([1.0, 100.0, 0.01, 1.0])
    train, test = (
        scale * torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (4000, 3000)
    )
    assert -0.1 < dependence_within(train, test, steps=60) < 0.03


@pytest.mark.slow
def test_dependence_of_correlated_dimensions_is_their_mutual_information():
    law = CorrelatedGaussian(1, 0.9)
    train, test = (
        torch.cat(law.sample(n, generator=torch.Generator().manual_seed(n)), 1).float()
        for n in (8000, 6000)
    )
    found = dependence_within(train, test, steps=400)
    assert 0.85 * law.mutual_information() < found < law.mutual_information() + 0.06


def test_dependence_beyond_what_so_few_codes_show_is_not_claimed():
    copies = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 40)
    assert dependence_within(copies[100:], copies[:100], steps=250) == math.log(100)


def test_dependence_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone():
    codes = torch.randn(300, 3)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = dependence_within(codes, codes, steps=3)
    assert torch.equal(torch.rand(1), expected)
    assert dependence_within(codes, codes, steps=3) == first
    assert dependence_within(codes, codes, steps=3, seed=1) != first


def test_negatives_of_which_there_are_more_than_a_batch_has_get_a_larger_one():
    config = dataclasses.replace(
        PRESETS["default"], head_units=8, negatives="shuffled", negatives_k=110, batch_size=128
    )
    model = build_model(config, 16).eval()
    x = torch.randint(0, 256, (120, 3, 16, 16), dtype=torch.uint8)
    data = ImageData("noise", x, None, x, None, None)
    found = measures_of(model, data, codes_of(model.encoder, data))
    (local,) = [each for each in found if each.name.startswith("local term")]
    assert local.note.startswith(f"of at most {math.log(111):.2f} with 111 images")


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("default", {}),
        ("default", {"kappa": 1.0, "global_input": "feature-map"}),
        ("paper-local-jsd", {}),
        ("vae", {}),
    ],
)
def test_what_applies_to_a_model_is_measured(preset, changes):
    config = dataclasses.replace(PRESETS[preset], head_units=8, **changes)
    model = build_model(config, 16).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (120, 3, 16, 16), dtype=torch.uint8, generator=generator)
    data = ImageData("noise", x, None, x, None, None)
    codes = codes_of(model.encoder, data)
    found = {measure.name: measure for measure in measures_of(model, data, codes)}
    assert all(math.isfinite(measure.value) for measure in found.values())
    assert any(name.startswith("rate") for name in found) == model.stochastic
    weights = {"global": config.alpha, "local": config.beta, "locations": config.kappa}
    for term, weight in weights.items():
        name = f"{term} term, information of unseen pairs, nats"
        assert (name in found) == bool(weight)
        if name in found:
            # All 16 locations of 99 other images, or one of each.
            every = term != "global" and config.negatives == "all-locations"
            ceiling = math.log(1 + 99 * (16 if every else 1))
            assert f"of at most {ceiling:.2f} with 100 images" in found[name].note
            # Noise on z limits what it tells of features that have none, but not of itself.
            with_itself = term == "global" and config.global_input == "z"
            limited = model.stochastic and term != "locations" and not with_itself
            assert ("no upper limit" in found[name].note) == (not limited)


def test_rate_and_spread_are_those_of_the_code():
    model = build_model(PRESETS["vae"], 16).eval()
    x = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    features = model.encoder(x)
    normal = torch.distributions.Normal(features.z_mean, (0.5 * features.z_log_var).exp())
    rate = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    data = ImageData("x", x, None, x, None, None)
    found = {m.name: m.value for m in measures_of(model, data, codes_of(model.encoder, data))}
    assert found["rate, KL of p(z given x) to N(0, 1), nats"] == pytest.approx(
        rate.sum(1).mean().item(), rel=1e-4
    )


def against(prior, z):
    """What `against_prior` finds of codes, without the ends of names."""
    return {measure.name.split(",")[0]: measure.value for measure in against_prior(prior, z, "z")}


def test_a_code_is_compared_with_the_normal_prior():
    normal = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    found = against(KLPrior("sum"), normal)
    assert found["mean of z"] == pytest.approx(0, abs=0.05)
    assert found["sd of z"] == pytest.approx(1, abs=0.03)
    assert found["distance of z from the prior"] < 0.03
    found = against(KLPrior("sum"), normal / 2 + torch.tensor([0.0, -3.0, 0.0]))
    assert found["mean of z"] == pytest.approx(-3, abs=0.05)
    assert found["sd of z"] == pytest.approx(0.5, abs=0.02)
    places = torch.linspace(-6, 3, 10_000)
    apart = torch.special.ndtr(2 * (places + 3)) - torch.special.ndtr(places)
    assert found["distance of z from the prior"] == pytest.approx(apart.max().item(), abs=0.01)


def test_a_code_is_compared_with_the_uniform_prior_after_its_sigmoid():
    places = torch.arange(200)[:, None] / 200 + 1 / 400
    codes = torch.cat([places.logit(), (places / 2).logit()], 1)
    found = against(AdversarialPrior(2), codes[:, :1].expand(-1, 2))
    assert found["mean of sigmoid(z)"] == pytest.approx(0.5, abs=1e-4)
    assert found["sd of sigmoid(z)"] == pytest.approx(12**-0.5, abs=1e-2)
    assert found["distance of sigmoid(z) from the prior"] == pytest.approx(1 / 400, abs=1e-5)
    prior = AdversarialPrior(2)
    prior.discriminator = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():  # says "uniform" where the second is above a half: right of half of them
        prior.discriminator[0].weight.copy_(torch.tensor([[0.0, 1.0]]))
        prior.discriminator[0].bias.fill_(-0.5)
    found = against(prior, codes)
    assert found["mean of sigmoid(z)"] == pytest.approx(0.25, abs=1e-4)
    assert found["distance of sigmoid(z) from the prior"] == pytest.approx(0.5, abs=1e-2)
    accuracy = found["accuracy of the prior's discriminator on codes and as much noise"]
    assert accuracy == pytest.approx(0.75, abs=0.06)


def test_without_one_law_for_all_codes_none_is_compared_with():
    assert not against(NoPrior(), torch.zeros(4, 2))
    assert not against(KLPrior("sum", nn.Embedding(2, 2)), torch.zeros(4, 2))
