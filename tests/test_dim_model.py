"""Deep InfoMax: the losses against literal twins, the priors, the shapes."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from dim import PRESETS, AdversarialPrior, KLPrior, NoPrior, TrainConfig, build_model
from dim.encoder import Features, alex64x64, basic32x32, resnet18, su
from dim.model import NEGATIVES, OBJECTIVES
from dim.terms import CoordinateTerm, RelativeCoordinateTerm, coarsen, occlude


def images(n=6, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_features(n=5, d=3):
    shapes = (n, 2, 2, 2), (n, 2, 1, 1), (n, 4), (n, d), (n, d)
    return Features(*[torch.randn(shape) for shape in shapes])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_floats_of_any_width_are_images(dtype):
    encoder, batch = basic32x32(16).eval(), images() / 255
    found, expected = encoder(batch.to(dtype)).z_mean, encoder(batch).z_mean
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_su_kl_is_the_blogs_loss_written_out():
    """The total loss of the blog, by loops over images, locations and the one negative of each."""
    model = build_model(PRESETS["su-kl"], 16).eval()
    batch = images()
    losses, features = model(batch, generator=seeded())

    generator = seeded()
    z = features.sample(generator)
    drawn = [model.global_term.estimator.negatives((6,), generator=generator).indices]
    drawn.append(model.local_term.estimator.negatives((6, 4), generator=generator).indices)
    n, log_sigmoid = len(batch), lambda t: -math.log1p(math.exp(-t))
    t1, t2 = model.global_term.estimator.critic, model.local_term.estimator.critic
    global_ = local = prior = 0.0
    for i in range(n):
        j = drawn[0][i, 0].item()
        global_ += log_sigmoid(t1(z[i], z[i]).item()) + log_sigmoid(-t1(z[i], z[j]).item())
        for place in range(4):
            row, column = divmod(place, 2)
            j, other = divmod(drawn[1][i, place, 0].item(), 4)
            assert other == place
            c = features.feature_map[:, :, row, column]
            local += log_sigmoid(t2(z[i], c[i]).item()) + log_sigmoid(-t2(z[i], c[j]).item())
        for mu, log_var in zip(features.z_mean[i], features.z_log_var[i], strict=True):
            prior += 0.5 * (mu**2 + log_var.exp() - log_var - 1).item()
    shift = 2 * math.log(2)  # ours is 0 at chance, the blog's cross-entropy is 2 log 2
    assert losses.global_.item() + shift == pytest.approx(-global_ / n, rel=1e-4)
    assert losses.local.item() + shift == pytest.approx(-local / (n * 4), rel=1e-4)
    assert losses.prior.item() == pytest.approx(prior / (n * 256), rel=1e-4)
    total = 0.5 * losses.global_ + 1.5 * losses.local + 0.01 * losses.prior
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-4)


@pytest.mark.parametrize("negatives", ["in-batch", "all-locations"])
def test_a_local_term_by_jsd_is_over_all_pairs_written_out(negatives):
    config = dataclasses.replace(PRESETS["default"], alpha=0.0, objective="jsd")
    model = build_model(dataclasses.replace(config, negatives=negatives), 16).eval()
    losses, features = model(images(4), generator=seeded())
    z = features.sample(seeded())
    critic = model.local_term.estimator.critic
    softplus = lambda t: math.log1p(math.exp(-abs(t))) + max(t, 0)  # noqa: E731
    joint, product = [], []
    for i in range(4):
        for j in range(4):
            for place in range(16):
                c = features.feature_map[j].flatten(1)[:, place]
                t = critic(z[i][None], c[None]).item()
                (joint if i == j else product).append(softplus(-t) if i == j else softplus(t))
    twin = sum(joint) / len(joint) + sum(product) / len(product) - 2 * math.log(2)
    assert losses.local.item() == pytest.approx(twin, rel=1e-4)
    assert losses.global_ == 0


def test_terms_are_zero_at_chance():
    model = build_model(dataclasses.replace(PRESETS["su-kl"], negatives="in-batch"), 16)
    for term in (model.global_term, model.local_term):
        last = term.estimator.critic.rest[1][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    losses, _ = model(images(), generator=seeded())
    assert losses.global_.item() == pytest.approx(0, abs=1e-6)
    assert losses.local.item() == pytest.approx(0, abs=1e-6)


def test_the_two_terms_draw_their_negatives_independently():
    model = build_model(PRESETS["su-kl"], 16)
    generator = seeded()
    samplers = [term.estimator.negatives for term in (model.global_term, model.local_term)]
    first, second = (sampler((64,), generator=generator).indices for sampler in samplers)
    assert not torch.equal(first, second)


def test_shuffled_negatives_are_as_many_as_asked_for():
    config = dataclasses.replace(PRESETS["su-kl"], negatives_k=3)
    model = build_model(config, 16)
    for term in (model.global_term, model.local_term):
        assert term.estimator.negatives((6,)).indices.shape == (6, 3)


def test_the_local_term_trains_the_encoder_and_both_heads():
    model = build_model(dataclasses.replace(PRESETS["default"], alpha=0.0, gamma=0.0), 16)
    losses, _ = model(images(), generator=seeded())
    losses.total.backward()
    critic = model.local_term.estimator.critic
    for module in (model.encoder.local, model.encoder.z_mean, critic.f, critic.g):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_a_step_against_the_prior_alone_brings_z_closer_to_it():
    model = build_model(dataclasses.replace(PRESETS["default"], alpha=0.0, beta=0.0, gamma=1.0), 16)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    before, _ = model(images(), generator=seeded())
    before.total.backward()
    optimiser.step()
    after, _ = model(images(), generator=seeded())
    assert after.prior < before.prior


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("global_input", ["z", "feature-map"])
@pytest.mark.parametrize("heads", ["dot", "concat"])
def test_every_choice_of_the_command_line_trains(objective, negatives, global_input, heads):
    config = dataclasses.replace(
        PRESETS["default"],
        alpha=0.5,
        objective=objective,
        negatives=negatives,
        global_input=global_input,
        heads=heads,
        head_units=8,
    )
    model = build_model(config, 8)
    losses, _ = model(images(4, 8), generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    for term in (model.global_term, model.local_term):
        gradients = [p.grad for p in term.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_kl_prior_is_torchs_kl_divergence(reduction):
    features = random_features()
    q = Normal(features.z_mean, (0.5 * features.z_log_var).exp())
    divergence = kl_divergence(q, Normal(0.0, 1.0))
    expected = getattr(divergence, reduction)(-1).mean()
    torch.testing.assert_close(KLPrior(reduction)(features, features.z_mean), expected)


def test_class_conditional_prior_is_centred_on_the_class_mean():
    features, labels = random_features(), torch.tensor([0, 1, 1, 0, 2])
    means = nn.Embedding(3, 3)
    q = Normal(features.z_mean, (0.5 * features.z_log_var).exp())
    expected = kl_divergence(q, Normal(means(labels), 1.0)).sum(-1).mean()
    prior, z = KLPrior("sum", means), features.z_mean
    torch.testing.assert_close(prior(features, z, labels), expected)
    with pytest.raises(ValueError, match="labels: expected class labels"):
        prior(features, z)


def accuracy(prior, z, generator):
    """Of the discriminator, on codes and as much uniform noise."""
    uniform = torch.rand(z.shape, generator=generator)
    right = (prior.discriminator(uniform) > 0).float().mean()
    return ((right + (prior.discriminator(z.sigmoid()) < 0).float().mean()) / 2).item()


def test_the_discriminator_learns_to_tell_and_a_step_of_the_encoder_fools_it():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = AdversarialPrior(4, widths=(32, 16))
    generator = seeded()
    codes = nn.Parameter(torch.randn(256, 4, generator=generator) - 1)
    optimiser = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        prior.own_loss(codes, generator=generator).backward()
        optimiser.step()
    assert codes.grad is None
    before = accuracy(prior, codes, seeded(1))
    assert before > 0.7
    optimiser.zero_grad()
    encoder = torch.optim.SGD([codes], lr=100.0)
    for _ in range(20):
        encoder.zero_grad()
        prior(random_features(256, 4), codes).backward()
        encoder.step()
    assert all(p.grad is None for p in prior.parameters())
    assert accuracy(prior, codes, seeded(1)) < before - 0.1


def test_adversarial_losses_are_the_cross_entropies_written_out():
    prior, z = AdversarialPrior(3), torch.randn(5, 3)
    uniform = torch.rand(5, 3, generator=seeded())
    real, fake = (prior.discriminator(u).sigmoid() for u in (uniform, z.sigmoid()))
    torch.testing.assert_close(
        prior.own_loss(z, generator=seeded()), -(real.log() + (1 - fake).log()).mean()
    )
    torch.testing.assert_close(prior(random_features(), z), -fake.log().mean())


def test_one_backward_pass_takes_each_side_its_own_way():
    config = dataclasses.replace(PRESETS["paper-local-jsd"], head_units=8)
    model = build_model(config, 16)
    batch = images()
    losses, _ = model(batch, generator=seeded())
    (losses.total + losses.adversary).backward()
    both = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for loss, mine in (("adversary", True), ("total", False)):
        model.zero_grad()
        losses, _ = model(batch, generator=seeded())
        getattr(losses, loss).backward()
        for name, parameter in model.named_parameters():
            own = name.startswith("prior.")
            moved = parameter.grad is not None and bool(parameter.grad.any())
            assert not moved or own == mine, name
            if moved:
                torch.testing.assert_close(parameter.grad, both[name])
        trained = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()]
        assert any(n.startswith("prior." if mine else "encoder.") for n in trained)


def test_no_prior_costs_nothing():
    features = random_features()
    assert NoPrior()(features, features.z_mean).item() == 0
    with pytest.raises(
        ValueError, match="alpha, beta, gamma, delta, eta, rho, kappa: expected a weight"
    ):
        TrainConfig(alpha=0.0, beta=0.0, delta=0.0, prior="none")


@pytest.mark.parametrize("without", [{"prior": "adversarial"}, {"gamma": 0.0}])
def test_class_means_without_their_prior_are_refused(without):
    with pytest.raises(ValueError, match="class_conditional: expected the KL prior and a gamma"):
        TrainConfig(class_conditional=True, **without)


@pytest.mark.parametrize("prior", ["kl", "adversarial"])
def test_a_prior_of_no_weight_is_left_out(prior):
    model = build_model(TrainConfig(prior=prior, gamma=0.0, head_units=8), 16)
    assert isinstance(model.prior, NoPrior)
    assert model(images(4), generator=seeded())[0].adversary == 0


# --- Additions --------------------------------------------------------------------------------


def test_the_coordinate_term_is_a_cross_entropy_written_out():
    term = CoordinateTerm(2, 6, 3, units=4)
    torch.nn.init.normal_(term.classifier[-1].weight)
    features = dataclasses.replace(random_features(5), feature_map=torch.randn(5, 2, 2, 3))
    z = torch.randn(5, 3)
    expected = -math.log(6)
    for image in range(5):
        for row in range(2):
            for column in range(3):
                local = torch.cat([features.feature_map[image, :, row, column], z[image]])
                scores = term.classifier(local)
                place = row * 3 + column
                expected += (scores.logsumexp(0) - scores[place]).item() / 30
    assert term(features, z).item() == pytest.approx(expected, rel=1e-5)


def test_features_that_tell_their_place_reach_the_bound_and_others_stay_at_chance():
    place = torch.eye(4).view(1, 4, 2, 2).expand(64, -1, -1, -1)
    told, untold = (
        dataclasses.replace(random_features(64), feature_map=m) for m in (place, 0 * place)
    )
    z, term = torch.randn(64, 3, generator=seeded()), CoordinateTerm(4, 4, 3)
    optimiser = torch.optim.Adam(term.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        term(told, z).backward()
        optimiser.step()
    assert -math.log(4) <= term(told, z).item() < -0.95 * math.log(4)
    assert term(untold, z).item() > -0.01


def test_the_relative_coordinate_term_is_a_cross_entropy_written_out():
    term = RelativeCoordinateTerm(2, 2, 3, 3, units=4)
    torch.nn.init.normal_(term.classifier[-1].weight)
    features = dataclasses.replace(random_features(5), feature_map=torch.randn(5, 2, 2, 3))
    z, places = torch.randn(5, 3), [(row, column) for row in range(2) for column in range(3)]
    pairs = [(a, b) for a in places for b in places if a != b]
    away = lambda a, b: (a[0] - b[0], a[1] - b[1])  # noqa: E731
    shares = Counter(away(*pair) for pair in pairs)
    entropy = -sum(n / 30 * math.log(n / 30) for n in shares.values())
    kinds = sorted(shares)
    assert term.entropy == pytest.approx(entropy)
    log_share = torch.tensor([math.log(shares[kind] / 30) for kind in kinds])
    elsewhere = torch.rand(6, generator=seeded()).argsort()
    elsewhere = dict(zip(elsewhere.tolist(), elsewhere.roll(-1).tolist(), strict=True))
    expected = -entropy
    for image in range(5):
        for here, there in elsewhere.items():
            one, other = (features.feature_map[image, :, *places[p]] for p in (here, there))
            scores = term.classifier(torch.cat([one, other, z[image]])) + log_share
            kind = kinds.index(away(places[here], places[there]))
            expected += (scores.logsumexp(0) - scores[kind]).item() / 30
    assert term(features, z, generator=seeded()).item() == pytest.approx(expected, rel=1e-5)


def test_features_that_tell_their_place_tell_how_they_lie_to_each_other():
    place = torch.eye(9).view(1, 9, 3, 3).expand(64, -1, -1, -1)
    told, untold = (
        dataclasses.replace(random_features(64), feature_map=m) for m in (place, 0 * place)
    )
    z, term = torch.randn(64, 3, generator=seeded()), RelativeCoordinateTerm(9, 3, 3, 3)
    optimiser, generator = torch.optim.Adam(term.parameters(), lr=1e-2), seeded()
    at_chance = [term(untold, z, generator=generator).item() for _ in range(400)]
    assert abs(sum(at_chance) / 400) < 0.03
    for _ in range(300):
        optimiser.zero_grad()
        term(told, z, generator=generator).backward()
        optimiser.step()
    losses = [term(told, z, generator=generator).item() for _ in range(20)]
    assert -term.entropy <= sum(losses) / 20 < -0.95 * term.entropy


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_square_of_each_image_is_grey_and_the_rest_as_it_was(dtype):
    grey = 127 if dtype == torch.uint8 else 0.5
    batch = torch.full((200, 3, 12, 12), 1, dtype=dtype)
    hidden = occlude(batch, 0.25, generator=seeded()) == grey
    assert bool((hidden[:, :1] == hidden).all())
    corners = set()
    for mask in hidden[:, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == 3
        assert mask.sum() == 9  # and they are neighbours, or there would be fewer of one kind
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 2
        corners.add((int(rows[0]), int(columns[0])))
    assert {0, 9} <= {row for row, _ in corners}
    assert {0, 9} <= {column for _, column in corners}
    assert torch.equal(batch, torch.ones_like(batch))


def test_the_code_is_of_the_occluded_image_and_the_feature_map_of_the_whole_one():
    config = dataclasses.replace(PRESETS["default"], occlusion=0.5, stochastic=False)
    model = build_model(config, 16).eval()
    batch = images(6)
    _, features = model(batch, generator=seeded())
    whole = model.encoder(batch)
    part = model.encoder(occlude(batch, 0.5, generator=seeded()))
    assert torch.equal(features.feature_map, whole.feature_map)
    assert torch.equal(features.z_mean, part.z_mean)
    assert not torch.allclose(part.z_mean, whole.z_mean)


@pytest.mark.parametrize(
    ("weights", "term", "task"),
    [
        ({"delta": 2.0, "eta": 0.0}, "coordinate_term", "coordinates"),
        ({"delta": 0.0, "eta": 2.0}, "relative_term", "relative"),
    ],
)
def test_a_coordinate_task_is_a_part_of_the_total(weights, term, task):
    config = dataclasses.replace(PRESETS["default"], alpha=0.0, gamma=0.0, **weights)
    model = build_model(config, 16)
    torch.nn.init.normal_(getattr(model, term).classifier[-1].weight)
    losses, _ = model(images(4), generator=seeded())
    loss = getattr(losses, task)
    torch.testing.assert_close(losses.total, losses.local + 2 * loss)
    loss.backward()
    assert model.encoder.local[0].weight.grad.any()
    assert model.encoder.z_mean.weight.grad.any()


def test_the_locations_term_is_jsd_between_two_locations_written_out():
    """One other location for each, the same in all images; negatives from the other images."""
    config = dataclasses.replace(PRESETS["default"], objective="jsd", negatives="in-batch")
    config = dataclasses.replace(config, alpha=0.0, beta=0.0, gamma=0.0, kappa=2.0)
    model = build_model(config, 16).eval()
    losses, features = model(images(4), generator=seeded())
    generator = seeded()
    features.sample(generator)
    elsewhere = torch.rand(16, generator=generator).argsort()
    elsewhere = dict(zip(elsewhere.tolist(), elsewhere.roll(-1).tolist(), strict=True))
    assert sorted(elsewhere) == sorted(elsewhere.values()) == list(range(16))
    places, critic = features.feature_map.flatten(2), model.location_term.estimator.critic
    softplus = lambda t: math.log1p(math.exp(-abs(t))) + max(t, 0)  # noqa: E731
    joint, product = [], []
    for i in range(4):
        for j in range(4):
            for place, other in elsewhere.items():
                assert place != other
                t = critic(places[i, :, place][None], places[j, :, other][None]).item()
                (joint if i == j else product).append(softplus(-t) if i == j else softplus(t))
    twin = sum(joint) / len(joint) + sum(product) / len(product) - 2 * math.log(2)
    assert losses.locations.item() == pytest.approx(twin, rel=1e-4)
    assert losses.total.item() == pytest.approx(2 * twin, rel=1e-4)
    assert losses.global_ == losses.local == 0
    losses.locations.backward()
    for module in (model.encoder.local, critic.f, critic.g):
        assert any(p.grad is not None and p.grad.any() for p in module.parameters())
    assert model.encoder.z_mean.weight.grad is None


def test_which_other_location_is_drawn_anew_at_each_call():
    config = dataclasses.replace(PRESETS["default"], kappa=1.0, stochastic=False)
    model = build_model(config, 16).eval()
    batch, generator = images(4), seeded()
    first, second = (model(batch, generator=generator)[0] for _ in range(2))
    assert first.locations != second.locations
    assert first.local == second.local


def test_the_locations_term_changes_nothing_of_the_others():
    config = dataclasses.replace(PRESETS["default"], alpha=0.5, negatives="shuffled")
    without, with_it = (
        build_model(dataclasses.replace(config, kappa=kappa), 16)(images(4), generator=seeded())[0]
        for kappa in (0.0, 1.0)
    )
    assert without.locations == 0
    assert with_it.locations != 0
    for name in ("global_", "local", "prior", "coordinates", "reconstruction"):
        assert getattr(without, name) == getattr(with_it, name)
    torch.testing.assert_close(with_it.total, without.total + with_it.locations)


@pytest.mark.parametrize("name", ["kappa", "eta"])
def test_a_term_between_locations_needs_two(name):
    config = dataclasses.replace(PRESETS["su-kl"], **{name: 1.0})
    with pytest.raises(ValueError, match=f"{name}: expected a feature map of at least 2 locations"):
        build_model(config, 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_coarse_image_has_the_means_of_areas_and_its_size(dtype):
    batch = images(3, 12)
    batch = batch if dtype == torch.uint8 else batch / 255
    before, coarse = batch.clone(), coarsen(batch, 4)
    assert coarse.dtype == dtype
    assert coarse.shape == batch.shape
    assert torch.equal(batch, before)
    level = 1.0 if dtype == torch.uint8 else 1 / 255
    for image, small in zip(batch.double(), coarse.double(), strict=True):
        for channel in range(3):
            for row in range(12):
                for column in range(12):
                    # Bilinear between the centres of 3 x 3 areas of 4 x 4, flat beyond the outer.
                    y, x = (min(max((k + 0.5) / 4 - 0.5, 0), 2) for k in (row, column))
                    expected = 0.0
                    for i in range(3):
                        for j in range(3):
                            weight = max(1 - abs(y - i), 0) * max(1 - abs(x - j), 0)
                            area = image[channel, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                            expected += weight * area.mean().item()
                    assert abs(small[channel, row, column].item() - expected) < 0.51 * level
    assert torch.equal(coarsen(batch, 1), batch)


def test_a_side_that_is_no_multiple_coarsens_too():
    flat = torch.full((2, 3, 10, 10), 7, dtype=torch.uint8)
    assert torch.equal(coarsen(flat, 4), flat)
    assert coarsen(images(2, 10), 10).flatten(2).unique(dim=-1).shape[-1] == 1


@pytest.mark.parametrize("occlusion", [0.0, 0.5])
def test_the_code_is_of_the_coarse_image_and_the_feature_map_of_the_fine_one(occlusion):
    config = dataclasses.replace(PRESETS["default"], coarseness=4, occlusion=occlusion)
    model = build_model(config, 16).eval()
    batch = images(6)
    _, features = model(batch, generator=seeded())
    hidden = occlude(batch, occlusion, generator=seeded()) if occlusion else batch
    coarse = model.encoder(coarsen(hidden, 4))
    assert torch.equal(features.feature_map, model.encoder(batch).feature_map)
    assert torch.equal(features.z_mean, coarse.z_mean)
    assert not torch.allclose(coarse.z_mean, model.encoder(batch).z_mean)


def test_what_is_occluded_does_not_leak_into_what_is_coarse():
    config = dataclasses.replace(PRESETS["default"], coarseness=4, occlusion=0.5, stochastic=False)
    model = build_model(config, 16).eval()
    batch = images(4)
    other = batch.clone()
    hidden = occlude(torch.zeros_like(batch), 0.5, generator=seeded()) > 0
    other[hidden] = 255 - other[hidden]
    codes = [model(each, generator=seeded())[1].z_mean for each in (batch, other)]
    assert torch.equal(*codes)


@pytest.mark.parametrize("coarseness", [0, 17])
def test_a_coarseness_that_leaves_nothing_is_refused(coarseness):
    with pytest.raises(ValueError, match="coarseness: expected at"):
        build_model(TrainConfig(coarseness=coarseness), 16)


@pytest.mark.parametrize("occlusion", [-0.1, 1.0])
def test_an_occlusion_that_leaves_nothing_is_refused(occlusion):
    with pytest.raises(ValueError, match="occlusion: expected"):
        TrainConfig(occlusion=occlusion)


# --- Presets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_says_its_name_and_takes_a_step(preset):
    config = PRESETS[preset]
    assert config.preset == preset
    model = build_model(dataclasses.replace(config, head_units=8), 16, classes=2)
    losses, _ = model(images(4), torch.arange(4) % 2, generator=seeded())
    (losses.total + losses.adversary).backward()
    assert losses.total.isfinite()
    assert bool(losses.adversary) == (config.prior == "adversarial")
    assert (model.global_term is None, model.local_term is None) == (
        config.alpha == 0,
        config.beta == 0,
    )
    assert model.encoder.z_mean.weight.grad.any()


@pytest.mark.parametrize(("gain", "started_as"), [(None, 16**-0.25), (1.0, 1.0)])
def test_dot_heads_start_with_their_gain(gain, started_as):
    config = dataclasses.replace(PRESETS["default"], head_units=16, head_gain=gain)
    critic = build_model(config, 16).local_term.estimator.critic
    for head in (critic.f, critic.g):
        assert head.out.weight.tolist() == pytest.approx([started_as] * 16)


def test_encoders_have_the_published_sizes():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    paper, large, blog = basic32x32(32), alex64x64(64), su(32)
    assert count(paper) - count(paper.z_log_var) == pytest.approx(4.92e6, rel=2e-3)
    assert count(blog) == pytest.approx(1.68e6, rel=5e-3)
    assert paper(images(2, 32)).feature_map.shape == (2, 128, 8, 8)
    assert paper(images(2, 32)).conv.shape == (2, 256, 4, 4)
    assert paper(images(2, 32)).hidden.shape == (2, 1024)
    assert paper(images(2, 32)).z_mean.shape == (2, 64)
    assert large(images(2, 64)).feature_map.shape == (2, 384, 15, 15)
    assert large(images(2, 64)).conv.shape == (2, 192, 7, 7)
    assert large(images(2, 64)).hidden.shape == (2, 4096)
    assert large(images(2, 64)).z_mean.shape == (2, 64)
    assert blog(images(2, 32)).feature_map.shape == (2, 256, 4, 4)
    assert blog(images(2, 32)).z_mean.shape == (2, 256)


def test_the_large_encoder_takes_sizes_down_to_what_three_maxima_leave():
    assert alex64x64(15)(images(2, 15)).conv.shape == (2, 192, 1, 1)
    with pytest.raises(ValueError, match=r"image_size: expected at least 15, .* received 14"):
        alex64x64(14)


def test_resnet18_has_the_published_size_and_shapes():
    """11,173,962 parameters with the classifier of 512 x 10 + 10, here without."""
    encoder = resnet18(32)
    parts = (encoder.local, encoder.conv, encoder.rest)
    assert sum(p.numel() for part in parts for p in part.parameters()) == 11_173_962 - 5_130
    features = encoder.eval()(images(2, 32))
    assert features.feature_map.shape == (2, 256, 8, 8)
    assert features.conv.shape == (2, 512, 4, 4)
    assert features.z_mean.shape == features.z_log_var.shape == (2, 128)
    torch.testing.assert_close(features.hidden, features.conv.mean((2, 3)))


def test_resnet18_is_its_equations_and_starts_as_torchvisions():
    encoder = resnet18(16).eval()
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 16 + 3  # 3 shortcuts change the shape
    for convolution in convolutions:
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    for norm in (m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.weight.eq(1).all()
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def normed(x, norm):
        mean, variance = (t.view(-1, 1, 1) for t in (norm.running_mean, norm.running_var))
        return (x - mean) / (variance + 1e-5).sqrt()

    def convolved(x, convolution, stride=1):
        size = convolution.kernel_size[0]
        return nn.functional.conv2d(x, convolution.weight, stride=stride, padding=size // 2)

    x = 2 * images(2) / 255 - 1
    layers = list(encoder.local) + list(encoder.conv)
    x = normed(convolved(x, layers[0]), layers[1]).clamp(min=0)
    for number, block in enumerate(layers[3:]):
        stride = 2 if number in (2, 4, 6) else 1
        first, norm, _, second, last = block.residual
        residual = normed(convolved(x, first, stride), norm).clamp(min=0)
        residual = normed(convolved(residual, second), last)
        if stride == 2:
            projection, norm = block.shortcut
            x = normed(convolved(x, projection, stride), norm)
        x = (x + residual).clamp(min=0)
    torch.testing.assert_close(encoder(images(2)).conv, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [basic32x32, su, resnet18])
@pytest.mark.parametrize("size", [4, 28, 30])
def test_a_size_that_cannot_be_halved_is_refused(build, size):
    with pytest.raises(ValueError, match=f"image_size: expected a multiple of 8.*{size}"):
        build(size)


def test_bytes_and_floats_encode_alike_and_floats_must_be_in_range():
    encoder = basic32x32(16).eval()
    batch = images()
    torch.testing.assert_close(encoder(batch).z_mean, encoder(batch / 255).z_mean)
    with pytest.raises(ValueError, match=r"images: expected bytes or floats in \[0, 1\]"):
        encoder(batch.float())


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    a, b = (build_model(PRESETS["default"], 16) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    other = build_model(dataclasses.replace(PRESETS["default"], seed=1), 16)
    assert not torch.equal(a.encoder.z_mean.weight, other.encoder.z_mean.weight)


def test_su_starts_as_keras_does():
    model = build_model(PRESETS["su-kl"], 16)
    critic = model.local_term.estimator.critic
    bound = math.sqrt(6 / (256 + 256 + 256))  # Glorot over the concatenated input
    assert critic.first_x.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert critic.first_y.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert critic.first_y.bias.abs().max() == 0
    assert model.encoder.z_mean.weight.abs().max().item() == pytest.approx(
        math.sqrt(6 / 512), rel=1e-2
    )


@pytest.mark.parametrize(("preset", "hidden"), [("su-kl", 3), ("paper-global", 2)])
def test_concat_heads_have_the_published_layers(preset, hidden):
    critic = build_model(PRESETS[preset], 16).global_term.estimator.critic
    widths = [p.shape[0] for name, p in critic.rest.named_parameters() if name.endswith("weight")]
    units = PRESETS[preset].head_units
    assert [critic.first_x.out_features, *widths] == [*[units] * hidden, 1]
