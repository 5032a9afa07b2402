"""estimate_mi: its input, its splits, its standard error, and the numbers that it must reach."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

import mi_estimators.estimate as estimate_module
from mi_estimators import (
    DV,
    JSD,
    NWJ,
    SMILE,
    Bilinear,
    Critic,
    InfoNCE,
    MIEstimate,
    MIEstimator,
    Separable,
    Shuffled,
    estimate_mi,
)
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.estimate import read_out, split_folds, train_critic

FAST = {"max_steps": 50, "folds": 2, "progress": False}


def pairs(n=120, dim=1, rho=0.7, seed=0):
    """Float64 samples of correlated Gaussians."""
    return CorrelatedGaussian(dim, rho).sample(n, generator=torch.Generator().manual_seed(seed))


class Exact(Critic):
    """The true log-ratio of a law, to be trained in its scale alone."""

    def __init__(self, law):
        super().__init__()
        self.law = law
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def encode_x(self, x):
        return x

    def encode_y(self, y):
        return y

    def score(self, u, v):
        return self.scale * self.law.log_ratio(u, v)


# --- the README's lines ---------------------------------------------------------------------------


def frame(array):
    return pd.DataFrame(array.numpy(), columns=[f"column {i}" for i in range(array.shape[1])])


@pytest.mark.parametrize(
    "container",
    [
        lambda a: a,
        lambda a: a.numpy(),
        lambda a: a.tolist(),
        frame,
        lambda a: a.clone().requires_grad_(),
    ],
    ids=["tensor", "numpy", "list", "pandas", "leaf"],
)
def test_every_container_gives_the_same_number(container):
    x, y = pairs(dim=2)
    assert estimate_mi(container(x), container(y), **FAST).value == estimate_mi(x, y, **FAST).value


@pytest.mark.parametrize("flat", [lambda a: a[:, 0].numpy(), lambda a: pd.Series(a[:, 0].numpy())])
def test_one_axis_is_one_column(flat):
    x, y = pairs()
    assert estimate_mi(flat(x), y, **FAST).value == estimate_mi(x, flat(y), **FAST).value


def test_x_and_y_may_differ_in_dimension_and_type():
    x, y = pairs(dim=3)
    result = estimate_mi((x[:, :2] * 10).int(), y[:, 0] > 0, **FAST)
    assert math.isfinite(result.value)


def test_result_has_all_that_is_needed_to_read_it():
    x, y = pairs(n=300)
    result = estimate_mi(x, y, max_steps=100, folds=3, progress=False)
    assert result.value > 0.1
    assert 0 < result.standard_error < 0.2
    assert result.kind == "lower bound"
    assert result.ceiling == pytest.approx(math.log(100))
    assert result.pointwise.shape == (300,)
    assert [look[:2] for look in result.history] == [
        (fold, step) for fold in range(3) for step in (0, 50, 100)
    ]
    assert result.objective == "JSD()"
    sentence = str(result)
    assert sentence.count(".") - len(re.findall(r"\d\.\d", sentence)) == 1
    for part in (f"{result.value:.3f} ± {result.standard_error:.3f} nats", "lower bound", "300"):
        assert part in sentence


@pytest.mark.parametrize("objective", [JSD(), DV(), NWJ(), InfoNCE(), SMILE()], ids=repr)
def test_every_objective_critic_and_sampler_goes(objective):
    x, y = pairs(dim=3, n=200)
    result = estimate_mi(
        x, y, objective=objective, critic=Bilinear(3, 3), negatives=Shuffled(2), **FAST
    )
    assert math.isfinite(result.value)
    assert result.kind == objective.kind
    assert result.ceiling == pytest.approx(math.log(100))


def test_same_seed_same_number_and_the_global_generator_is_untouched():
    x, y = pairs(n=100)
    state = torch.random.get_rng_state()
    first, second, other = (estimate_mi(x, y, seed=seed, **FAST).value for seed in (3, 3, 4))
    assert first == second
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_callers_critic_and_arrays_are_untouched():
    (x, y), critic = pairs(), Separable.mlp(1, 1)
    before = x.clone(), y.clone(), critic.f.linear.weight.clone()
    estimate_mi(x, y, critic=critic, **FAST)
    for now, then in zip((x, y, critic.f.linear.weight), before, strict=True):
        assert torch.equal(now, then)


def test_scale_and_shift_of_columns_change_nothing():
    x, y = pairs(n=200)
    plain, moved = estimate_mi(x, y, **FAST), estimate_mi(1e-3 * x + 5, 1e4 * y - 7, **FAST)
    assert moved.value == pytest.approx(plain.value, abs=1e-3)


def test_pointwise_is_in_the_order_of_the_input():
    law = CorrelatedGaussian(1, 0.8)
    x, y = law.sample(300, generator=torch.Generator().manual_seed(0))
    result = estimate_mi(x, y, critic=Exact(law), **FAST)
    assert np.corrcoef(result.pointwise, law.log_ratio(x, y).numpy())[0, 1] > 0.95


# --- mistakes -------------------------------------------------------------------------------------


def spoiled(value):
    x, _ = pairs()
    x[[3, 7]] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (pairs(60)[0], pairs(61)[1], {}, ValueError, "y: expected as many samples as x, 60, rec"),
        (spoiled(math.nan), pairs()[1], {}, ValueError, "x: expected finite numbers, received NaN"),
        (pairs()[1], spoiled(math.inf), {}, ValueError, "in 2 of 120 rows, the first of them 3"),
        (spoiled(0.0) * 0, pairs()[1], {}, ValueError, "x: expected columns that vary"),
        (["a"] * 60, pairs(60)[1], {}, TypeError, "x: expected real numbers, received dtype <U1"),
        (pd.Series(["a", 1] * 30), pairs(60)[1], {}, TypeError, "received dtype object"),
        (pairs()[0], pairs()[1].to(torch.complex64), {}, TypeError, "received dtype complex64"),
        (torch.zeros(60, 2, 2), pairs(60)[1], {}, ValueError, "received [60, 2, 2]; flatten"),
        (torch.tensor(1.0), pairs(60)[1], {}, ValueError, "x: expected shape [N] or [N, d]"),
        (*pairs(49), {}, ValueError, "expected at least 50 samples to train and test on, rec"),
        (*pairs(60), {"folds": 1}, ValueError, "folds: expected 2 to 6 for 60 samples, received 1"),
        (*pairs(60), {"folds": 7}, ValueError, "folds: expected 2 to 6 for 60 samples, received 7"),
    ],
)
def test_mistakes_are_named(x, y, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        estimate_mi(x, y, **options)


def test_interrupting_says_what_was_lost(monkeypatch):
    def interrupted(*args, **options):
        yield estimate_module.Look(0, 0.0, 0.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(estimate_module, "train_critic", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped in critic 1 of 5: no estimate was made"):
        estimate_mi(*pairs(), progress=False)


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
def test_an_overflowing_readout_is_an_error_and_not_a_number(value):
    with pytest.raises(FloatingPointError, match="its exponential overflowed; try InfoNCE"):
        reading(value)


# --- splits and training --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "folds"), [(50, 5), (53, 4), (1000, 2)])
def test_parts_are_disjoint_and_every_sample_is_reported_on_once(n, folds):
    parts = split_folds(n, folds, torch.Generator().manual_seed(0))
    assert len(parts) == folds
    for part in parts:
        assert torch.equal(torch.cat(part).sort().values, torch.arange(n))
        assert len(part.stop) >= 2
        assert len(part.train) > len(part.stop)
    assert torch.equal(torch.cat([part.report for part in parts]).sort().values, torch.arange(n))


def test_what_is_reported_on_trains_nothing():
    x, y = pairs(n=100)
    part = split_folds(100, 2, torch.Generator().manual_seed(0))[0]
    plain = estimate_mi(x, y, **FAST)
    y_changed = y.clone()
    y_changed[part.report] = 3 * y[part.report].flip(0)
    changed = estimate_mi(x, y_changed, **FAST)
    of_first_fold = [look for look in plain.history if look.fold == 0]
    assert [look for look in changed.history if look.fold == 0] == of_first_fold


@pytest.mark.parametrize("learning_rate", [3e-3, 1.0, 1e6])
def test_training_leaves_the_best_weights(learning_rate):
    x, y = (part.float() for part in pairs(n=300))
    estimator = MIEstimator(Separable.mlp(1, 1))
    stop = [x[200:], y[200:]]
    looks = list(
        train_critic(
            estimator,
            [x[:200], y[:200]],
            stop,
            batch_size=64,
            learning_rate=learning_rate,
            max_steps=300,
            patience=8,
            generator=torch.Generator().manual_seed(0),
        )
    )
    seen = [look.stop for look in looks if math.isfinite(look.stop)]
    kept = estimate_module._evaluate(
        estimator.objective, estimate_module._blocks(estimator.critic, *stop)
    )
    independent = isinstance(estimator.critic, estimate_module._Independence)
    assert kept.value == (0 if independent else pytest.approx(max(seen), abs=1e-6))
    assert not (independent and learning_rate < 1)


def test_diverged_training_reads_a_number():
    result = estimate_mi(*pairs(), learning_rate=1e6, **FAST)
    assert math.isfinite(result.value)
    assert np.isfinite(result.pointwise).all()


@pytest.mark.parametrize("objective", [JSD(), InfoNCE()], ids=repr)
def test_an_overfit_critic_does_not_read_below_independence(objective):
    x, y = torch.randn(2, 60, 10, generator=torch.Generator().manual_seed(0))
    options = FAST | {"max_steps": 200, "learning_rate": 3e-3}
    result = estimate_mi(x, y, objective=objective, **options)
    assert max(look.train for look in result.history) > 0.3  # the critic did overfit
    assert result.value == pytest.approx(0, abs=1e-9)


# --- reading the number ---------------------------------------------------------------------------


def reading(value, ceiling=math.inf, pointwise=1.0, kind="lower bound"):
    return MIEstimate(value, 0.1, kind, ceiling, np.full(9, pointwise), (), "DV()")


def test_the_sentence_says_what_the_number_is():
    by = "lower bound by DV(), standard error over 9 held-out samples"
    assert str(reading(1.0)) == f"I(X; Y) = 1.000 ± 0.100 nats ({by})."
    assert "no bound by DV()" in str(reading(1.0, kind="neither"))
    assert "negative, so no dependence was found." in str(reading(-0.1))
    assert "no critic told the pairs from independent ones." in str(reading(0.0, pointwise=0.0))
    assert "at its ceiling of 4.00, the most that so many samples can show" in str(
        reading(3.7, 4.0)
    )
    assert "ceiling" not in str(reading(3.5, 4.0))


def test_infonce_on_few_strongly_dependent_samples_says_that_it_is_saturated():
    law = CorrelatedGaussian(8, 0.98)  # 12.9 nats
    x, y = law.sample(120, generator=torch.Generator().manual_seed(0))
    result = estimate_mi(x, y, objective=InfoNCE(), critic=Exact(law), **FAST)
    assert result.ceiling == pytest.approx(math.log(60))
    assert result.saturated
    assert "at its ceiling of 4.09" in str(result)


@pytest.mark.parametrize(
    ("objective", "n"), [(DV(), 100), (JSD(), 100), (InfoNCE(), 40), (SMILE(tau=1.0), 100)]
)
def test_standard_error_is_the_spread_over_repetitions(objective, n):
    law = CorrelatedGaussian(2, 0.4)
    generator = torch.Generator().manual_seed(0)
    estimator = MIEstimator(Exact(law), objective)
    values, errors = [], []
    for _ in range(300):
        evaluation, _ = read_out(estimator, *law.sample(n, generator=generator))
        values.append(evaluation.value)
        errors.append(evaluation.standard_error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.12)


def test_standard_error_pools_the_influence_of_all_folds():
    law = CorrelatedGaussian(1, 0.4)
    x, y = law.sample(900, generator=torch.Generator().manual_seed(0))
    result = estimate_mi(x, y, critic=Exact(law), max_steps=50, folds=3, progress=False)
    whole, _ = read_out(MIEstimator(Exact(law)), x, y)
    assert result.standard_error == pytest.approx(whole.influence.std().item() / 30, rel=0.15)


@pytest.mark.parametrize("objective", [DV(), JSD(), InfoNCE()], ids=repr)
def test_readout_in_blocks_pools_and_keeps_the_order(objective, monkeypatch):
    monkeypatch.setattr(estimate_module, "BLOCK", 50)
    law = CorrelatedGaussian(1, 0.5)
    x, y = law.sample(130, generator=torch.Generator().manual_seed(0))
    (value, influence), pointwise = read_out(MIEstimator(Exact(law), objective), x, y)
    assert abs(value - law.mutual_information()) < 0.15
    assert influence.mean().item() == pytest.approx(0, abs=1e-9)
    truth = law.log_ratio(x, y)
    if isinstance(objective, JSD):
        torch.testing.assert_close(pointwise, truth)
    else:  # a constant is fixed block by block, from 43 samples
        assert torch.corrcoef(torch.stack([pointwise, truth]))[0, 1] > 0.8


# --- edges ----------------------------------------------------------------------------------------


def test_ceiling_is_that_of_the_blocks_that_were_read_out():
    x, y = pairs(2200)
    assert estimate_mi(x, y, objective=InfoNCE(), **FAST).ceiling == pytest.approx(math.log(550))


@pytest.mark.parametrize("name", ["batch_size", "max_steps", "patience"])
def test_numbers_that_mean_no_training_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least [12], received 0"):
        estimate_mi(*pairs(), **(FAST | {name: 0}))


def test_comparing_results_compares_no_arrays():
    result = reading(1.0)
    assert result == result
    assert result != reading(1.0)


def test_normal_scores_are_ranks_among_the_training_rows():
    samples = torch.tensor([[3.0], [1.0], [2.0], [2.0], [99.0], [-99.0]], dtype=torch.float64)
    scores = estimate_module._normal_scores(samples, torch.arange(4)).squeeze()
    middle = torch.tensor([3.5, 0.5, 2.0, 2.0, 4.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(scores, torch.special.ndtri((middle + 0.5) / 5).float())


def test_increasing_maps_of_the_columns_change_nothing():
    x, y = pairs()
    plain, mapped = estimate_mi(x, y, **FAST), estimate_mi(x.exp(), y**3, **FAST)
    assert mapped.value == plain.value


def test_a_column_constant_in_training_gives_finite_scores():
    samples = torch.full((641, 1), 0.1, dtype=torch.float64)
    samples[-1] = 0.7
    assert estimate_module._normal_scores(samples, torch.arange(640)).abs().max() < 4


def test_one_pair_far_out_cannot_explode():
    """A critic that is sure of what is not so: e^T alone would read -10^16."""
    law = CorrelatedGaussian(1, 0.9)
    critic = Exact(law)
    torch.nn.init.constant_(critic.scale, 10.0)
    x, y = law.sample(200, generator=torch.Generator().manual_seed(0))
    evaluation, pointwise = read_out(MIEstimator(critic), x, y)
    assert -200 < evaluation.value < law.mutual_information()
    assert pointwise.abs().max() <= math.log(200)
    assert estimate_mi(x, y, critic=Exact(law), **FAST).ceiling == pytest.approx(math.log(100))


def test_bfloat16_tensors_are_taken():
    x, y = pairs()
    assert math.isfinite(estimate_mi(x.bfloat16(), y, **FAST).value)


@pytest.mark.parametrize("nothing", [[], np.zeros((60, 0))], ids=["no rows", "no columns"])
def test_empty_arrays_are_named(nothing):
    with pytest.raises(ValueError, match=r"^x: expected|^x, y: expected"):
        estimate_mi(nothing, nothing, **FAST)


def test_a_batch_size_of_2_has_no_batch_of_1():
    sizes = {
        len(batch)
        for batch, _ in zip(
            estimate_module._minibatches(5, 2, torch.Generator()), range(9), strict=False
        )
    }
    assert sizes == {2}


@pytest.mark.slow
def test_few_independent_pairs_read_near_0():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 200, 1))
    assert estimate_mi(x, y, seed=1, progress=False, max_steps=400).value > -0.3


# --- trained estimates against the truth ----------------------------------------------------------


def trained(dim, n, seeds, *, nats=None, rho=None):
    law = CorrelatedGaussian(dim, rho) if nats is None else CorrelatedGaussian.with_mi(dim, nats)
    results = [
        estimate_mi(
            *law.sample(n, generator=torch.Generator().manual_seed(seed)), seed=seed, progress=False
        )
        for seed in range(seeds)
    ]
    return results, np.mean([result.value for result in results]) - law.mutual_information()


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9])
def test_one_dimension_is_within_3_hundredths_of_a_nat(rho):
    _, error = trained(1, 10_000, seeds=2, rho=rho)
    assert abs(error) < 0.03


@pytest.mark.slow
def test_5_dimensions_at_1_nat_are_within_6_hundredths():
    _, error = trained(5, 10_000, seeds=2, nats=1.0)
    assert abs(error) < 0.06


@pytest.mark.slow
def test_20_dimensions_at_2_nats_are_within_3_tenths():
    _, error = trained(20, 20_000, seeds=2, nats=2.0)
    assert abs(error) < 0.3


@pytest.mark.slow
def test_independent_10_dimensional_pairs_are_within_3_standard_errors_of_0():
    (result,), _ = trained(10, 5_000, seeds=1, rho=0.0)
    assert abs(result.value) <= 3 * result.standard_error


def test_a_critic_with_batch_norm_trains_and_is_read_in_evaluation_mode():
    f, g = (
        torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
        for _ in range(2)
    )
    x, y = pairs(n=200)
    assert math.isfinite(estimate_mi(x, y, critic=Separable(f, g), **FAST).value)
    before = f[1].running_mean.clone()
    MIEstimator(Separable(f, g)).estimate(x.float(), y.float())
    assert torch.equal(before, f[1].running_mean)
    assert f[1].training


def test_a_closed_form_is_read_out_without_training():
    law = CorrelatedGaussian(1, 0.8)
    critic = Exact(law)
    critic.scale.requires_grad_(False)
    x, y = law.sample(2000, generator=torch.Generator().manual_seed(0))
    result = estimate_mi(x, y, critic=critic, **FAST)
    assert abs(result.value - law.mutual_information()) < 3 * result.standard_error + 0.02
