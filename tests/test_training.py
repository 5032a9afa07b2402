"""Training: what it ends with, when it stops, and how it draws its minibatches."""

import itertools
import math
from collections import Counter

import pytest
import torch

import mi_estimators.training as training_module
from mi_estimators import DV, JSD, NWJ, Critic, MIEstimator, Separable, Shuffled
from mi_estimators.baselines import Independence
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.readout import evaluate, score_blocks
from mi_estimators.samples import Samples
from mi_estimators.training import (
    LOOK_EVERY,
    Budget,
    _follow,
    _minibatches,
    train_critic,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n, dim=1, rho=0.7, seed=0):
    x, y = CorrelatedGaussian(dim, rho).sample(n, generator=seeded(seed))
    return Samples(x.float(), y.float())


class Exact(Critic):
    """The true log-ratio of a law, times a scale."""

    def __init__(self, law, scale=1.0):
        super().__init__()
        self.law, self.scale = law, torch.nn.Parameter(torch.tensor(scale))

    def encode_x(self, x):
        return x

    def encode_y(self, y):
        return y

    def score(self, u, v):
        return self.scale * self.law.log_ratio(u, v).to(u)


def mlp(dim=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Separable.mlp(dim, dim)


def trained(estimator, samples, *, fallback=None, margin=1.0, **budget):
    """Train on two thirds; returns the looks and the third to stop on."""
    cut = 2 * len(samples) // 3
    rows = torch.arange(len(samples))
    stop = samples[rows[cut:]]
    looks = list(
        train_critic(
            estimator,
            samples[rows[:cut]],
            stop,
            fallback=fallback or Independence(),
            budget=Budget(**{"batch_size": 64, "steps": 300} | budget),
            generator=seeded(),
            margin=margin,
        )
    )
    return looks, stop


def value_on(stop, estimator):
    return evaluate(estimator.objective, score_blocks(estimator.critic, stop)).value


# --- what it ends with ----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [JSD(), DV(), NWJ()], ids=repr)
def test_the_critic_ends_as_the_one_that_did_best_on_the_stopping_part(objective):
    estimator = MIEstimator(mlp(), objective)
    critic = estimator.critic
    looks, stop = trained(estimator, gaussian(450), patience=100)
    assert estimator.critic is critic
    best = max(look.stop for look in looks)
    assert value_on(stop, estimator) == pytest.approx(best, abs=1e-6)
    assert best > 0.1
    assert looks[0] == (0, 0.0, 0.0)
    assert looks[-1].train > 0.1


def test_what_is_best_early_is_gone_back_to():
    samples = gaussian(360, dim=4, rho=0.7)
    estimator = MIEstimator(mlp(4), DV())
    looks, stop = trained(estimator, samples, patience=100, learning_rate=1e-2, steps=800)
    best = max(looks, key=lambda look: look.stop)
    assert 0 < best.step < 800
    assert looks[-1].stop < best.stop - 0.03  # learnt by heart since
    assert value_on(stop, estimator) == pytest.approx(best.stop, abs=1e-6)


@pytest.mark.parametrize("objective", [JSD(), DV()], ids=repr)
def test_a_critic_of_noise_gives_way_to_the_fallback(objective):
    fallback = Independence()
    estimator = MIEstimator(mlp(10), objective)
    looks, _ = trained(estimator, gaussian(180, dim=10, rho=0.0), fallback=fallback, steps=200)
    assert estimator.critic is fallback
    assert max(look.train for look in looks) > 0.3  # it did learn, by heart


def test_a_fallback_that_is_the_truth_is_not_beaten():
    law = CorrelatedGaussian(1, 0.7)
    fallback = Exact(law)
    estimator = MIEstimator(mlp())
    looks, stop = trained(estimator, gaussian(450), fallback=fallback)
    assert estimator.critic is fallback
    assert looks[0].train == looks[0].stop == pytest.approx(value_on(stop, estimator))


def test_the_margin_is_in_standard_errors():
    # The better critic is better by an unknown number of standard errors, between 0 and 1000.
    fallback = Exact(CorrelatedGaussian(1, 0.7), scale=0.5)
    kept = []
    for margin in (0.0, 1000.0):
        estimator = MIEstimator(mlp())
        trained(estimator, gaussian(450), fallback=fallback, margin=margin)
        kept.append(estimator.critic is fallback)
    assert kept == [False, True]


def test_a_poor_fallback_is_beaten():
    poor = Exact(CorrelatedGaussian(1, 0.7), scale=-1.0)
    estimator = MIEstimator(mlp())
    looks, stop = trained(estimator, gaussian(450), fallback=poor)
    assert estimator.critic is not poor
    assert value_on(stop, estimator) > looks[0].stop + 0.3


@pytest.mark.parametrize("learning_rate", [1.0, 1e6])
def test_diverged_training_leaves_the_best_or_the_fallback(learning_rate):
    estimator, fallback = MIEstimator(mlp(), DV()), Independence()
    looks, stop = trained(estimator, gaussian(450), fallback=fallback, learning_rate=learning_rate)
    seen = [look.stop for look in looks if math.isfinite(look.stop)]
    kept = value_on(stop, estimator)
    assert kept == 0 if estimator.critic is fallback else kept == pytest.approx(max(seen), abs=1e-6)
    assert math.isfinite(kept)


def test_what_is_not_finite_stops_training():
    estimator = MIEstimator(Exact(CorrelatedGaussian(1, 0.7), scale=math.nan))
    looks, _ = trained(estimator, gaussian(450), fallback=(fallback := Independence()))
    assert [look.step for look in looks] == [0, LOOK_EVERY]
    assert estimator.critic is fallback


def test_a_closed_form_is_looked_at_and_not_trained():
    critic = Exact(CorrelatedGaussian(1, 0.7))
    critic.scale.requires_grad_(False)
    estimator = MIEstimator(critic)
    looks, stop = trained(estimator, gaussian(450), patience=2)
    assert estimator.critic is critic
    assert critic.scale == 1
    assert looks[1].stop == looks[-1].stop == pytest.approx(value_on(stop, estimator))


def test_scores_are_those_that_the_objective_learns():
    # NWJ learns 1 + log r, of which it is given log r: nothing to gain from a constant.
    law = CorrelatedGaussian(1, 0.4)
    estimator = MIEstimator(Exact(law, scale=0.5), NWJ())
    looks, _ = trained(estimator, gaussian(3000, rho=0.4), steps=300, patience=10)
    assert abs(estimator.critic.scale.item() - 1) < 0.3
    assert looks[-1].stop < law.mutual_information() + 0.05


# --- when it stops --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [0, 1]), (50, [0, 50]), (120, [0, 50, 100, 120])]
)
def test_looks_are_50_steps_apart_and_at_the_end(steps, expected):
    looks, _ = trained(MIEstimator(mlp()), gaussian(300), steps=steps)
    assert [look.step for look in looks] == expected


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_looks_without_a_better_one(patience):
    fallback = Exact(CorrelatedGaussian(1, 0.7))  # nothing beats it
    looks, _ = trained(MIEstimator(mlp()), gaussian(300), fallback=fallback, patience=patience)
    assert looks[-1].step == patience * LOOK_EVERY


def test_patience_begins_anew_with_each_better_look():
    # Small steps towards the truth: every look is better than the one before.
    critic = Exact(CorrelatedGaussian(1, 0.7), scale=0.1)
    looks, _ = trained(MIEstimator(critic), gaussian(900), patience=1, learning_rate=1e-3)
    assert looks[-1].step == 300


def test_the_train_value_is_the_mean_since_the_last_look():
    law = CorrelatedGaussian(1, 0.7)
    critic = Exact(law)
    critic.scale.requires_grad_(False)
    samples = gaussian(192)
    looks, _ = trained(MIEstimator(critic), samples, batch_size=128, steps=50)
    whole = Samples(samples.x[:128], samples.y[:128])  # each batch is all of it, in some order
    assert looks[1].train == pytest.approx(value_on(whole, MIEstimator(critic)), abs=1e-5)


# --- how it draws ---------------------------------------------------------------------------------


def batches(n, size, count, seed=0):
    return list(itertools.islice(_minibatches(n, size, seeded(seed)), count))


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (10, 5, [5, 5]),
        (13, 5, [5, 5, 3]),
        (12, 5, [5, 5]),  # a tail of less than half a batch is left out
        (5, 2, [2, 2]),
        (3, 256, [3]),
        (2, 2, [2]),
    ],
)
def test_an_epoch_is_of_batches_and_a_tail_of_half_a_batch(n, size, sizes):
    epochs = batches(n, size, 3 * len(sizes))
    assert [len(batch) for batch in epochs] == 3 * sizes
    for epoch in (epochs[: len(sizes)], epochs[len(sizes) : 2 * len(sizes)]):
        rows = torch.cat(epoch).tolist()
        assert len(set(rows)) == len(rows) == sum(sizes)
        assert set(rows) <= set(range(n))


def test_every_row_has_its_turn():
    counts = Counter(torch.cat(batches(12, 5, 200)).tolist())
    assert set(counts) == set(range(12))
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_the_generator_decides_and_training_repeats():
    assert all(map(torch.equal, batches(20, 5, 8), batches(20, 5, 8)))
    assert not all(map(torch.equal, batches(20, 5, 8), batches(20, 5, 8, seed=1)))
    first, second = (
        trained(MIEstimator(mlp(), negatives=Shuffled(2)), gaussian(300), steps=50)[0]
        for _ in range(2)
    )
    assert first == second


def test_the_sampler_is_told_the_groups_of_each_batch():
    class Recorded(Shuffled):
        def __call__(self, shape, *, groups=None, **options):
            seen.append(groups)
            return super().__call__(shape, groups=groups, **options)

    seen = []
    samples = gaussian(90)  # of which 60 train
    samples = Samples(samples.x, samples.y, torch.arange(90) // 2)
    trained(MIEstimator(mlp(), negatives=Recorded(1)), samples, steps=2, batch_size=30)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(60) // 2)


# --- the moving average ---------------------------------------------------------------------------


def test_the_average_forgets_its_start_and_keeps_100_steps():
    for step, kept in ((1, 0.0), (11, 0.5), (91, 0.9), (991, 0.99), (10**6, 0.99)):
        average = [torch.tensor([1.0, 0.0])]
        _follow(average, [torch.tensor([0.0, 1.0])], step)
        assert average[0].tolist() == pytest.approx([kept, 1 - kept])


def test_the_averaged_weights_are_what_is_kept(monkeypatch):
    averages, weights = [], []

    def recorded(average, parameters, step):
        weights.append(parameters[0].item())
        average = [*average]
        _follow(average, parameters, step)
        averages.append(average[0].item())

    monkeypatch.setattr(training_module, "_follow", recorded)
    critic = Exact(CorrelatedGaussian(1, 0.7), scale=0.3)
    trained(MIEstimator(critic), gaussian(450), steps=50, learning_rate=0.1)
    expected = 0.0
    for step, weight in enumerate(weights, start=1):
        expected += (weight - expected) * 10 / (step + 9)
    assert averages[-1] == pytest.approx(expected)
    assert critic.scale.item() == averages[-1]
    assert abs(expected - weights[-1]) > 1e-3


class Centred(Separable):
    """Inner products of embeddings that a layer with running statistics normalises."""

    def __init__(self):
        super().__init__(*(torch.nn.Sequential(torch.nn.BatchNorm1d(1)) for _ in range(2)))


def test_running_statistics_are_kept_as_they_are():
    critic, samples = Centred(), gaussian(450)
    trained(MIEstimator(critic), Samples(samples.x + 100, samples.y), steps=50)
    assert critic.f[0].running_mean.item() == pytest.approx(100, abs=2)


# --- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"), [("folds", 2), ("steps", 1), ("batch_size", 2), ("patience", 1)]
)
def test_numbers_that_mean_no_training_are_refused(name, least):
    assert getattr(Budget(**{name: least}), name) == least
    with pytest.raises(
        ValueError, match=f"{name}: expected at least {least}, a whole number, received {least - 1}"
    ):
        Budget(**{name: least - 1})


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="learning_rate: expected a positive number, received"):
        Budget(learning_rate=rate)


def test_budgets_compare_and_hash_by_their_numbers():
    assert Budget(steps=5) == Budget(steps=5)
    assert len({Budget(), Budget(), Budget(folds=2)}) == 2
