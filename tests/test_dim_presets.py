"""Presets of the sources: their constants, their losses written out, and the way these pull."""

import dataclasses
import math

import pytest
import reference
import torch
from torch import nn

from dim import PRESETS, TrainConfig, build_model
from dim.encoder import alex64x64, basic32x32, su
from dim.model import OBJECTIVES, DotHead
from mi_estimators import Concat

# From the sources and their code, not from `dim/config.py`; only what each preset makes use of.
PLAIN = {
    "views": 1,
    "delta": 0.0,
    "eta": 0.0,
    "rho": 0.0,
    "kappa": 0.0,
    "occlusion": 0.0,
    "coarseness": 1,
    "class_conditional": False,
    "batch_size": 64,
}
PAPER = PLAIN | {
    "encoder": "basic32x32",
    "z_dim": 64,
    "stochastic": False,
    "prior": "adversarial",
    "epochs": 1000,
    "learning_rate": 1e-4,
    "adam_beta1": 0.5,
    "adam_eps": 1e-8,
}
DOT = {"heads": "dot", "head_units": 2048, "head_gain": 1.0}
LOCAL = PAPER | DOT | {"alpha": 0.0, "beta": 1.0, "gamma": 0.1}
CONCAT = {"heads": "concat", "head_units": 512, "head_layers": 2}
ONE_NEGATIVE = {"objective": "jsd", "negatives": "shuffled-locations"}
GLOBAL = PAPER | CONCAT | ONE_NEGATIVE | {"global_input": "feature-map", "gamma": 1.0}
SU = PLAIN | {
    "encoder": "su",
    "z_dim": 256,
    "stochastic": True,
    "heads": "concat",
    "head_units": 256,
    "head_layers": 3,
    "objective": "jsd",
    "negatives": "shuffled",
    "negatives_k": 1,
    "global_input": "z",
    "alpha": 0.5,
    "beta": 1.5,
    "gamma": 0.01,
    "prior": "kl",
    "prior_reduction": "mean",
    "epochs": 50,
    "learning_rate": 1e-3,
    "adam_beta1": 0.9,
    "adam_eps": 1e-7,
}
EXPECTED = {
    "paper-local-jsd": LOCAL | {"objective": "jsd", "negatives": "in-batch"},
    "paper-local-infonce": LOCAL | {"objective": "infonce", "negatives": "all-locations"},
    "paper-local-dv": LOCAL | {"objective": "dv", "negatives": "in-batch"},
    "paper-global": GLOBAL | {"alpha": 1.0, "beta": 0.0},
    "paper-local-global": GLOBAL | {"alpha": 0.5, "beta": 0.1},
    "su-kl": SU,
}

# Objective, negatives, and the weights of the losses that are not left out.
LOSSES = {
    "paper-local-jsd": (reference.jsd, "in-batch", {"local": 1.0, "prior": 0.1}),
    "paper-local-infonce": (reference.infonce, "all-locations", {"local": 1.0, "prior": 0.1}),
    "paper-local-dv": (reference.dv, "in-batch", {"local": 1.0, "prior": 0.1}),
    "paper-global": (reference.jsd, "shuffled-locations", {"global_": 1.0, "prior": 1.0}),
    "paper-local-global": (
        reference.jsd,
        "shuffled-locations",
        {"global_": 0.5, "local": 0.1, "prior": 1.0},
    ),
} | dict.fromkeys(
    OURS := ("default", "fast"),
    (
        reference.infonce,
        "all-locations",
        {"global_": 0.1, "local": 1.0, "prior": 1e-3, "coordinates": 1.0},
    ),
)


def images():
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=seeded())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preset", EXPECTED)
def test_a_preset_has_the_constants_of_its_source(preset):
    config = dataclasses.asdict(PRESETS[preset])
    assert {name: config[name] for name in EXPECTED[preset]} == EXPECTED[preset]


def normed(x, norm, eps):
    """Batch norm in training mode, with its constants."""
    over = [d for d in range(x.ndim) if d != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean, variance = x.mean(over).view(shape), x.var(over, correction=0).view(shape)
    x = (x - mean) / (variance + eps).sqrt()
    return x * norm.weight.view(shape) + norm.bias.view(shape)


def shaken(encoder):
    """With scales and shifts that are not those of the start."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return encoder


def layers_of(encoder, kind):
    return iter([module for module in encoder.modules() if isinstance(module, kind)])


def test_the_blogs_encoder_is_its_layers_written_out():
    encoder, batch = shaken(su(16)).train(), images()
    found = encoder(batch)
    convolutions, norms = layers_of(encoder, nn.Conv2d), layers_of(encoder, nn.BatchNorm2d)
    x, first = batch / 255 - 0.5, None
    for pooled in (True, True, True, False, False):
        convolution, norm = next(convolutions), next(norms)
        x = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
        first = (x, norm) if first is None else first
        x = normed(x, norm, 1e-3)
        x = torch.where(x > 0, x, 0.2 * x)
        if pooled:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
            feature_map = x
    torch.testing.assert_close(found.feature_map, feature_map, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.hidden, x.amax((2, 3)), rtol=1e-3, atol=1e-4)
    seen, norm = first  # Keras' momentum of 0.99 is torch's of 0.01
    torch.testing.assert_close(norm.running_mean, 0.01 * seen.mean((0, 2, 3)))
    assert not list(convolutions)


def test_the_papers_encoder_is_its_layers_written_out():
    encoder, batch = shaken(basic32x32(16)).train(), images()
    found = encoder(batch)
    convolutions, norms = layers_of(encoder, nn.Conv2d), layers_of(encoder, nn.BatchNorm2d)
    x, maps = batch / 127.5 - 1, []
    for _ in range(3):
        weight = next(convolutions).weight
        assert weight.shape[2:] == (4, 4)
        x = nn.functional.conv2d(x, weight, stride=2, padding=1)
        x = normed(x, next(norms), 1e-5).clamp(min=0)
        maps.append(x)
    dense, norm = next(layers_of(encoder.rest, nn.Linear)), next(layers_of(encoder, nn.BatchNorm1d))
    hidden = normed(x.flatten(1) @ dense.weight.T, norm, 1e-5).clamp(min=0)
    for part, expected in (("feature_map", maps[1]), ("conv", maps[2]), ("hidden", hidden)):
        torch.testing.assert_close(getattr(found, part), expected, rtol=1e-3, atol=1e-4)
    assert [m.shape[1] for m in maps] == [64, 128, 256]
    assert (hidden.shape[1], found.z_mean.shape[1]) == (1024, 64)


def test_the_papers_larger_encoder_is_its_layers_written_out():
    encoder, batch = shaken(alex64x64(16)).train(), images()
    found = encoder(batch)
    convolutions, norms = layers_of(encoder, nn.Conv2d), layers_of(encoder, nn.BatchNorm2d)
    x, maps = batch / 127.5 - 1, []
    for pooled in (True, True, False, False, True):
        weight = next(convolutions).weight
        assert weight.shape[2:] == (3, 3)
        x = normed(nn.functional.conv2d(x, weight, padding=1), next(norms), 1e-5).clamp(min=0)
        maps.append(x)
        if pooled:
            x = x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
    hidden, norms = x.flatten(1), layers_of(encoder, nn.BatchNorm1d)
    for dense in list(layers_of(encoder.rest, nn.Linear)):
        hidden = normed(hidden @ dense.weight.T, next(norms), 1e-5).clamp(min=0)
    for part, expected in (("feature_map", maps[2]), ("conv", x), ("hidden", hidden)):
        torch.testing.assert_close(getattr(found, part), expected, rtol=1e-3, atol=1e-3)
    assert [m.shape[1] for m in maps] == [96, 192, 384, 384, 192]
    widths = [layer.out_features for layer in layers_of(encoder.rest, nn.Linear)]
    assert widths == [4096, 4096]


def test_the_papers_discriminator_has_its_widths():
    layers = build_model(PRESETS["paper-local-jsd"], 16).prior.discriminator
    assert [layer.out_features for layer in layers_of(layers, nn.Linear)] == [1000, 200, 1]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_a_dot_head_is_its_equations():
    """On all images and locations as rows of one batch, as a convolution of 1x1 sees them."""
    head, x = DotHead(5, 6, 0.7), torch.randn(3, 4, 5)
    for parameter in (head.norm.weight, head.norm.bias, head.out.bias):
        nn.init.normal_(parameter)
    rows = x.reshape(12, 5)
    hidden = normed(rows @ head.first.weight.T, head.norm, 1e-5).clamp(min=0)
    out = hidden @ head.second.weight.T + head.second.bias + rows @ head.shortcut.weight.T
    centred = out - out.mean(1, keepdim=True)
    out = 0.7 * centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() + head.out.bias
    torch.testing.assert_close(head(x), out.reshape(3, 4, 6))


def test_a_dot_head_starts_as_a_noisy_copy():
    head = DotHead(5, 7, 0.7)
    shortcut, diagonal = head.shortcut.weight, torch.eye(7, 5, dtype=torch.bool)
    assert shortcut[diagonal].eq(1).all()
    assert 0.005 < shortcut[~diagonal].abs().max() <= 0.01
    assert shortcut[~diagonal].min() < 0 < shortcut[~diagonal].max()
    assert head.norm.weight.eq(1).all()
    assert head.out.weight.tolist() == pytest.approx([0.7] * 7)
    biases = {name for name, _ in head.named_parameters() if name.endswith("bias")}
    assert biases == {"norm.bias", "second.bias", "out.bias"}
    assert not head.norm.bias.any()
    assert not head.out.bias.any()


def scored(term, x, y, negatives, generator):
    """A row for each image and location: the pair's score, and those of its negatives."""
    critic, n, places = term.estimator.critic, len(x), y.shape[1]
    shape = (n, places) if places > 1 else (n,)
    drawn = term.estimator.negatives(shape, generator=generator).indices.flatten()
    u, v = critic.encode_x(x[:, None]), critic.encode_y(y)
    rows = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for place in range(places):
            if negatives == "in-batch":
                met = [(j, place) for j in others]
            elif negatives == "all-locations":
                met = [(j, other) for j in others for other in range(places)]
            else:
                met = [divmod(drawn[i * places + place].item(), places)]
                assert met[0][0] in others
                assert met[0][1] == place
            met = [(i, place), *met]
            pair, *product = [critic.score(u[i, 0], v[j, other]).item() for j, other in met]
            rows.append((pair, product))
    return rows


def draw_what_starts_near_zero(model):
    """Or scores would be so alike that a wrong loss is, too."""
    critics = [term.estimator.critic for term in model.terms.values()]
    near_zero = [critic.rest for critic in critics if isinstance(critic, Concat)]
    if model.coordinate_term is not None:
        near_zero.append(model.coordinate_term.classifier[-1])
    generator = seeded(1)
    for module in near_zero:
        for parameter in module.parameters():
            parameter.data.normal_(generator=generator)


def divergence(mean, log_var):
    return sum(
        0.5 * (m**2 + math.exp(s) - s - 1)
        for m, s in zip(mean.tolist(), log_var.tolist(), strict=True)
    )


@pytest.mark.parametrize("preset", LOSSES)
def test_the_losses_of_a_preset_written_out(preset):
    objective, negatives, weights = LOSSES[preset]
    model = build_model(dataclasses.replace(PRESETS[preset], head_units=8), 16)
    draw_what_starts_near_zero(model)
    losses, features = model(images(), generator=seeded())

    generator = seeded()
    z = features.sample(generator) if preset in OURS else features.z_mean
    c = features.feature_map.flatten(2).movedim(1, 2)  # images, locations, channels
    expected = {}
    if "global_" in weights:
        x = z if preset in OURS else features.feature_map.flatten(1)
        rows = scored(model.global_term, x, z[:, None], negatives, generator)
        expected["global_"] = -objective(rows)
    if "local" in weights:
        expected["local"] = -objective(scored(model.local_term, z, c, negatives, generator))
    if preset in OURS:
        expected["prior"] = reference.mean(map(divergence, features.z_mean, features.z_log_var))
        guesses = []
        for i in range(4):
            for place in range(16):
                logits = model.coordinate_term.classifier(torch.cat([c[i, place], z[i]]))
                guesses.append(logits.log_softmax(0)[place].item())
        expected["coordinates"] = -reference.mean(guesses) - math.log(16)
    else:
        logits = [model.prior.discriminator(1 / (1 + torch.exp(-code))).item() for code in z]
        expected["prior"] = reference.mean(-math.log(1 / (1 + math.exp(-t))) for t in logits)

    for name in set(losses._fields) - {"total", "adversary"}:
        assert getattr(losses, name).item() == pytest.approx(expected.get(name, 0), rel=1e-4)
    total = sum(weights[name] * value for name, value in expected.items())
    assert losses.total.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("heads", ["dot", "concat"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_critic_that_tells_no_pair_from_another_has_the_loss_of_chance(objective, heads):
    """0; of NWJ, whose scores for independence are 1, at scores of 0: E[T] - E[e^(T - 1)]."""
    config = TrainConfig(objective=objective, heads=heads, head_units=8, alpha=1.0, kappa=1.0)
    model = build_model(config, 16)
    for term in model.terms.values():
        critic = term.estimator.critic
        for parameter in (critic.g.out if heads == "dot" else critic.rest[1][-1]).parameters():
            nn.init.zeros_(parameter)
    losses, _ = model(images(), generator=seeded())
    chance = math.exp(-1) if objective == "nwj" else 0
    for loss in (losses.global_, losses.local, losses.locations):
        assert loss.item() == pytest.approx(chance, abs=1e-6)


@pytest.mark.parametrize("heads", ["dot", "concat"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_local_loss_falls_by_each_pairs_score_and_rises_by_each_negatives(objective, heads):
    model = build_model(TrainConfig(objective=objective, heads=heads, head_units=8), 16)
    caught = []

    def catch(module, inputs):
        inputs[0].joint.retain_grad()
        inputs[0].product.retain_grad()
        caught.append(inputs[0])

    model.local_term.estimator.objective.register_forward_pre_hook(catch)
    model(images(), generator=seeded())[0].local.backward()
    (scores,) = caught
    assert scores.joint.shape == (4, 16)
    assert scores.joint.grad.lt(0).all()
    valid = scores.mask.expand_as(scores.product)
    assert valid.sum() == 4 * 16 * 3
    assert scores.product.grad[valid].gt(0).all()
    assert scores.product.grad[~valid].eq(0).all()


@pytest.mark.parametrize("loss", ["local", "prior", "total"])
@pytest.mark.parametrize("preset", ["paper-local-jsd", "su-kl"])
def test_a_small_step_down_its_gradient_lowers_a_loss_by_as_much_as_it_says(preset, loss):
    model = build_model(dataclasses.replace(PRESETS[preset], head_units=8), 16)
    before = getattr(model(images(), generator=seeded())[0], loss)
    before.backward()
    moved = [p for p in model.parameters() if p.grad is not None]
    squared = sum(p.grad.square().sum() for p in moved)
    with torch.no_grad():
        for parameter in moved:
            parameter -= 2e-4 / squared * parameter.grad
        after = getattr(model(images(), generator=seeded())[0], loss)
    assert (before - after).item() == pytest.approx(2e-4, rel=0.1)
