"""estimate_mi: its input, its splits, what decides on its number, and numbers it must reach."""

import math
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch

import mi_estimators.cross_fitting as cross_fitting_module
import mi_estimators.estimate as estimate_module
from mi_estimators import (
    DV,
    JSD,
    NWJ,
    SMILE,
    Bilinear,
    Concat,
    Critic,
    InfoNCE,
    MIEstimate,
    Separable,
    Shuffled,
    estimate_mi,
    estimate_total_correlation,
)
from mi_estimators.baselines import Baseline, GaussianCopula, Independence
from mi_estimators.canonical import canonical_critic
from mi_estimators.cross_fitting import Fold, Known, Recipe, Scorer, split_folds
from mi_estimators.distributions import (
    CorrelatedGaussian,
    Embedded,
    Gaussian,
    GaussianMixture,
    IntegerPlusUniform,
    NoisyCircles,
    Xor,
    beyond_normal,
)
from mi_estimators.estimate import combine, few_and_continuous
from mi_estimators.ksg import KSG
from mi_estimators.preprocess import Compress, NormalScores
from mi_estimators.readout import Evaluation, Readout
from mi_estimators.result import Checkpoint
from mi_estimators.samples import as_samples
from mi_estimators.training import Budget, Look

DEFAULT = {"budget": Budget(folds=2, steps=10), "progress": False}
FAST = DEFAULT | {"baseline": GaussianCopula()}
BARE = DEFAULT | {"preprocess": (), "baseline": None, "neighbours": None}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(n=120, dim=1, rho=0.7, seed=0):
    """Float64 samples of correlated Gaussians."""
    return CorrelatedGaussian(dim, rho).sample(n, generator=seeded(seed))


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


# --- two arrays in --------------------------------------------------------------------------------


def frame(array):
    return pd.DataFrame(array.numpy(), columns=[f"column {i}" for i in range(array.shape[1])])


@pytest.mark.parametrize(
    "container",
    [lambda a: a.numpy(), lambda a: a.tolist(), frame, lambda a: a.clone().requires_grad_()],
    ids=["numpy", "list", "pandas", "leaf"],
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
    assert math.isfinite(estimate_mi(x.bfloat16(), y[:, :1].half(), **FAST).value)


def test_labels_are_no_quantities():
    label = torch.randint(4, (600,), generator=seeded())
    heights = torch.tensor([0.0, 3, 1, 2])[label] + 0.1 * torch.randn(600, generator=seeded(1))
    plain, renamed = (
        estimate_mi(of, heights, **FAST, neighbours=None)
        for of in (label, torch.tensor([7, 0, 5, 30])[label])
    )
    assert renamed.baseline == pytest.approx(plain.baseline, abs=1e-6)


@pytest.mark.parametrize(
    ("of_x", "of_y"), [(torch.exp, lambda y: y**3), (lambda x: 1e-3 * x + 5, lambda y: 1e4 * y - 7)]
)
def test_increasing_maps_of_the_columns_change_nothing(of_x, of_y):
    x, y = pairs(dim=2)
    plain, mapped = estimate_mi(x, y, **FAST), estimate_mi(of_x(x), of_y(y), **FAST)
    assert mapped.value == plain.value
    assert np.array_equal(mapped.pointwise, plain.pointwise)


def test_same_seed_same_number_and_the_global_generator_is_untouched():
    x, y = pairs(n=100)
    state = torch.random.get_rng_state()
    first, second, other = (estimate_mi(x, y, seed=seed, **BARE) for seed in (3, 3, 4))
    assert first.value == second.value
    assert np.array_equal(first.pointwise, second.pointwise)
    assert first.history == second.history
    assert not np.array_equal(first.pointwise, other.pointwise)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_callers_critic_and_arrays_are_untouched():
    (x, y), critic = pairs(), Separable.mlp(1, 1)
    before = x.clone(), y.clone(), *(p.clone() for p in critic.parameters())
    estimate_mi(x, y, critic=critic, **FAST)
    for now, then in zip((x, y, *critic.parameters()), before, strict=True):
        assert torch.equal(now, then)


def test_progress_is_shown_when_asked_for(capsys):
    estimate_mi(*pairs(), **FAST)
    assert capsys.readouterr() == ("", "")
    estimate_mi(*pairs(), **FAST | {"progress": True})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "critic 2 of 2" in shown.err


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
        (torch.zeros(60, 2, 2), pairs(60)[1], {}, ValueError, "received [60, 2, 2]; flatten"),
        ([], [], {}, ValueError, "x: expected samples, received shape [0]: none"),
        (*pairs(49), {}, ValueError, "expected at least 50 samples to train and test on, rec"),
        (
            *pairs(60),
            {"budget": Budget(folds=7)},
            ValueError,
            "budget: expected 2 to 6 folds for 60 samples, received 7; each fold needs 10 samples",
        ),
    ],
)
def test_mistakes_are_named(x, y, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        estimate_mi(x, y, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "dv"},
        {"objective": DV},
        {"objective": [DV(), "jsd"]},
        {"critic": "mlp"},
        {"negatives": 3},
        {"baseline": GaussianCopula},
        {"preprocess": [NormalScores]},
        {"preprocess": NormalScores()},
        {"neighbours": 3},
        {"preprocess": ["ranks"]},
        {"budget": 100},
    ],
    ids=repr,
)
def test_parts_of_another_type_are_refused_before_any_work(options, monkeypatch):
    monkeypatch.setattr(estimate_module, "cross_fit", None)
    with pytest.raises(TypeError):
        estimate_mi(*pairs(), **FAST | options)


def test_interrupting_says_what_was_lost(monkeypatch):
    def interrupted(*args, **options):
        yield Look(0, 0.0, 0.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_fitting_module, "train_critic", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped in critic 1 of 5: no estimate was made"):
        estimate_mi(*pairs(), progress=False)


# --- folds -------------------------------------------------------------------------------------


def test_what_is_reported_on_trains_nothing():
    x, y = pairs(n=100)
    part = split_folds(100, 2, seeded())[0]
    plain = estimate_mi(x, y, **FAST)
    y_changed = y.clone()
    y_changed[part.report] = 3 * y[part.report].flip(0)
    changed = estimate_mi(x, y_changed, **FAST)
    of_first_fold = [look for look in plain.history if look.fold == 0]
    assert [look for look in changed.history if look.fold == 0] == of_first_fold
    assert torch.equal(
        plain.scorer.scorers[0](as_samples(x, y)), changed.scorer.scorers[0](as_samples(x, y))
    )


@pytest.mark.parametrize("objective", [JSD(), DV(), NWJ(), InfoNCE(), SMILE()], ids=repr)
def test_every_objective_critic_and_sampler_goes(objective):
    x, y = pairs(dim=3, n=200)
    result = estimate_mi(
        x, y, objective=objective, critic=Bilinear(3, 3), negatives=Shuffled(2), **BARE
    )
    assert math.isfinite(result.value)
    assert (result.kind, result.origin) == (objective.kind, "critic")
    assert result.ceiling == pytest.approx(math.log(100))
    assert result.objective == repr(objective)
    assert {look.objective for look in result.history} == {repr(objective)}
    corrected = estimate_mi(
        x, y, objective=objective, critic=Bilinear(3, 3), negatives=Shuffled(2), **FAST
    )
    assert corrected.kind == "neither"
    assert corrected.baseline is not None


def test_objectives_train_one_after_the_other():
    x, y = pairs(n=400)
    result = estimate_mi(x, y, objective=[JSD(), NWJ(), InfoNCE()], **BARE)
    assert result.objective == "JSD(), NWJ(), InfoNCE()"
    first = list(dict.fromkeys(look.objective for look in result.history if look.fold == 0))
    assert first == ["JSD()", "NWJ()", "InfoNCE()"][: len(first)]
    assert estimate_mi(x, y, **BARE).objective == "JSD(), DV()"
    alone, in_a_list = (estimate_mi(x, y, objective=of, **BARE) for of in (DV(), [DV()]))
    assert alone.value == in_a_list.value


def test_an_objective_with_a_state_is_copied_for_each_fold():
    objective = Counting()
    estimate_mi(*pairs(), objective=objective, critic=Bilinear(1, 1), **BARE)
    assert objective.calls.item() == 0
    assert objective.training


class Counting(JSD):
    """Counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, scores):
        self.calls += 1
        return super().forward(scores)


def test_without_a_baseline_the_default_critic_begins_with_what_is_linear():
    law = CorrelatedGaussian(3, 0.8)
    x, y = law.sample(600, generator=seeded())
    result = estimate_mi(x, y, **BARE | {"budget": Budget(folds=2, steps=1)})
    assert (result.kind, result.origin) == ("lower bound", "critic")
    assert abs(result.value - law.mutual_information()) < 3 * result.standard_error < 0.5
    # A critic of the caller's own begins as it is.
    alone = estimate_mi(
        x, y, critic=canonical_critic(x, y).float(), **BARE | {"budget": Budget(2, steps=1)}
    )
    assert alone.value < result.value / 2


def test_without_a_baseline_the_value_is_the_critics():
    x, noise = pairs(n=300, rho=0.0)
    y = x.abs() + 0.3 * noise  # uncorrelated, so that there is something to learn
    budget = Budget(folds=3, steps=60)
    result = estimate_mi(x, y, **BARE | {"budget": budget})
    assert (result.kind, result.origin) == ("lower bound", "critic")
    assert result.baseline is None
    assert result.gain is None
    assert result.value > 0.1
    # Each fold by the bound that was tighter on its stopping part.
    bounds = result.readouts["DV"], result.readouts["InfoNCE"]
    assert min(bounds) - 1e-6 <= result.value <= max(bounds) + 1e-6
    assert max(bounds) - min(bounds) < 0.05
    assert 0 < result.standard_error < 0.2
    assert result.ceiling == pytest.approx(math.log(100))
    assert result.pointwise.shape == (300,)
    assert result.readouts["plug-in"] == pytest.approx(result.pointwise.mean())
    assert list(result.readouts) == ["JSD", "DV", "InfoNCE", "plug-in"]
    assert 0 < result.effective_sample_size < 3 * 100 * 99
    assert [look[:3] for look in result.history] == [
        (fold, objective, step)
        for fold in range(3)
        for objective in ("JSD()", "DV()")
        for step in (0, 50, 60)
    ]
    assert f"{result.value:.3f} ± {result.standard_error:.3f} nats (lower bound" in str(result)


def test_pointwise_is_in_the_order_of_the_input_and_of_critics_that_never_saw_it():
    x, y = pairs(n=300, dim=2)
    result = estimate_mi(x, y, **BARE | {"preprocess": (NormalScores(),)})
    samples = as_samples(x, y)
    parts = split_folds(300, 2, seeded())
    for part, scorer in zip(parts, result.scorer.scorers, strict=True):
        limit = math.log(len(part.report))
        scores = scorer(samples[part.report]).clamp(-limit, limit)
        # DV's constant is fixed anew on what is read out.
        constant = result.pointwise[part.report.numpy()] - scores.numpy()
        assert np.ptp(constant) < 1e-5
        assert abs(constant[0]) < 0.5


def test_new_pairs_are_scored_by_the_mean_of_the_critics():
    law = CorrelatedGaussian(2, 0.7)
    x, y = law.sample(600, generator=seeded())
    result = estimate_mi(x, y, **FAST)
    new_x, new_y = law.sample(200, generator=seeded(1))
    scores = result.score(new_x.numpy(), new_y.numpy())
    each = [scorer(as_samples(new_x, new_y)) for scorer in result.scorer.scorers]
    np.testing.assert_allclose(scores, torch.stack(each).mean(0))
    np.testing.assert_allclose(result.score(new_x[:1], new_y[:1]), scores[:1], atol=1e-5)
    assert np.corrcoef(scores, law.log_ratio(new_x, new_y))[0, 1] > 0.95
    np.testing.assert_allclose(result.to("bits").score(new_x, new_y), scores / math.log(2))


def test_estimates_pickle_and_go_through_files(tmp_path):
    x, y = pairs(n=200, dim=2)
    result = estimate_mi(x, y, **FAST)
    copied = pickle.loads(pickle.dumps(result))
    assert np.array_equal(copied.score(x, y), result.score(x, y))
    result.save(tmp_path / "estimate.json")
    loaded = MIEstimate.load(tmp_path / "estimate.json")
    assert str(loaded) == str(result)
    assert np.array_equal(loaded.pointwise, result.pointwise)
    assert loaded.history == result.history
    assert len(result.plot().axes) == 3


def test_diverged_training_reads_a_number():
    budget = Budget(folds=2, steps=100, learning_rate=1e6)
    result = estimate_mi(*pairs(), **BARE | {"budget": budget})
    assert math.isfinite(result.value)
    assert np.isfinite(result.pointwise).all()


@pytest.mark.parametrize("objective", [JSD(), InfoNCE()], ids=repr)
def test_an_overfit_critic_does_not_read_below_independence(objective):
    x, y = torch.randn(2, 60, 10, generator=seeded())
    budget = Budget(folds=2, steps=100)
    result = estimate_mi(x, y, objective=objective, **BARE | {"budget": budget})
    assert max(look.train for look in result.history) > 0.3  # the critic did overfit
    assert result.value == pytest.approx(0, abs=1e-9)
    assert "no critic told the pairs from independent ones" in str(result)


def test_a_critic_with_batch_norm_trains():
    f, g = (
        torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
        for _ in range(2)
    )
    x, y = pairs(n=200)
    assert math.isfinite(estimate_mi(x, y, critic=Separable(f, g), **FAST).value)
    assert f[1].training


def test_a_closed_form_is_read_out_without_training():
    law = CorrelatedGaussian(1, 0.8)
    critic = Exact(law)
    critic.scale.requires_grad_(False)
    x, y = law.sample(2000, generator=seeded())
    result = estimate_mi(x, y, critic=critic, **BARE)
    assert abs(result.value - law.mutual_information()) < 3 * result.standard_error + 0.02
    assert 0 < result.certified < law.mutual_information()
    truth = law.log_ratio(x, y).numpy()
    assert np.corrcoef(result.pointwise, truth)[0, 1] > 0.999


def test_infonce_on_few_strongly_dependent_samples_says_that_it_is_saturated():
    law = CorrelatedGaussian(8, 0.98)  # 12.9 nats
    x, y = law.sample(120, generator=seeded())
    result = estimate_mi(x, y, objective=InfoNCE(), critic=Exact(law), **BARE)
    assert result.ceiling == pytest.approx(math.log(60))
    assert result.saturated
    assert "at its ceiling of 4.09" in str(result)


def test_the_ceiling_is_that_of_the_blocks_that_were_read_out():
    x, y = pairs(2200)  # two folds of 1,100, each in two blocks
    result = estimate_mi(x, y, objective=InfoNCE(), critic=Bilinear(1, 1), **BARE)
    assert result.ceiling == pytest.approx(math.log(550))


# --- groups ---------------------------------------------------------------------------------------


def test_groups_of_one_change_no_error_and_copies_count_once():
    x, y = pairs(n=200, dim=2)
    plain = estimate_mi(x, y, **FAST)
    assert plain.p_value == pytest.approx(1 / 1000)
    groups = np.arange(200).repeat(4)
    options = FAST | {"neighbours": None}
    copied = estimate_mi(x.repeat_interleave(4, 0), y.repeat_interleave(4, 0), **options)
    grouped = estimate_mi(
        x.repeat_interleave(4, 0), y.repeat_interleave(4, 0), groups=groups, **options
    )
    assert grouped.p_value is None
    assert grouped.origin == "baseline"
    # Four copies of each sample halve the error of those who do not know. (With groups, every fold
    # has a closed form of its own.)
    assert grouped.standard_error == pytest.approx(2 * copied.standard_error, rel=0.15)
    assert grouped.standard_error == pytest.approx(plain.standard_error, rel=0.15)
    assert "standard error over 200 groups of 800 samples" in str(grouped)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            np.arange(119),
            "groups: expected one label for each of 120 samples, received shape [119]",
        ),
        (np.arange(120) % 19, "groups: expected at least 20 groups, received 19"),
    ],
)
def test_mistakes_in_groups_are_named(groups, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        estimate_mi(*pairs(), groups=groups, **FAST)


# --- what decides ---------------------------------------------------------------------------------

N = 40


class Stated(Baseline):
    """Says what it is told to."""

    def __init__(self, value):
        self.value = value

    def information(self, x, y):
        return Evaluation(self.value, spread_of(0.3))

    def _fit(self, x, y, independent):
        raise NotImplementedError

    def _fit_all(self, x, y):
        raise NotImplementedError


def spread_of(error):
    """Numbers of mean 0 whose mean has this standard error."""
    terms = torch.randn(N, generator=seeded(), dtype=torch.float64)
    terms = terms - terms.mean()
    return terms * error * math.sqrt(N) / terms.std()


def reading(value, error):
    evaluation = Evaluation(value, spread_of(error)[: N // 2])
    others = dict.fromkeys(("JSD", "DV", "InfoNCE"), evaluation)
    return Readout(evaluation, others, torch.full((N // 2,), value).double(), 10.0)


def scorer_of(critic):
    return Scorer((torch.sin, torch.sin), critic, 0.0)


def decided(
    *, critic, known=None, t_0=0.0, shortfall=0.0, closed_form=None, neighbours=None, dim=1
):
    """Combine two folds of stated (value, error); `t_0` is the mean of T_0 over all samples."""
    baseline = None if closed_form is None else Stated(closed_form)
    folds = []
    for fold, rows in enumerate(torch.randperm(N, generator=seeded()).tensor_split(2)):
        stated = None
        if known is not None:
            lacking = Evaluation(shortfall, spread_of(0.01)[: N // 2])
            terms = torch.full((N // 2,), t_0).double()
            none = torch.zeros(dim).double()
            stated = Known(reading(*known), terms, lacking, none, scorer_of(Independence()))
        looks = [Checkpoint(fold, "DV()", 0, 0.0, 0.0)]
        sums = torch.tensor([1.0, 3.0, 0.0, 0.5]) - 2 * fold * torch.arange(4)  # 2, 4, -4, -5
        scorer = scorer_of(Independence())
        folds.append(
            Fold(
                rows,
                reading(*critic),
                stated,
                torch.zeros(10).double(),
                sums,
                looks,
                scorer,
                ceiling=math.log(len(rows)),
            )
        )
    recipe = Recipe((DV(),), None, None, (), baseline, Budget(), torch.device("cpu"))
    x, y = torch.randn(2, N, dim, generator=seeded(1)).double()
    return combine(recipe, neighbours, as_samples(x, y), folds)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"critic": (0.6, 0.01), "known": (0.6, 0.01)}, 1.0),  # all that T_0 claims
        ({"critic": (0.3, 0.01), "known": (0.3, 0.01)}, 0.3 + 0.4 / 2),  # half of it
        ({"critic": (-0.2, 0.01), "known": (-0.2, 0.01)}, -0.2),  # nothing of it
        ({"critic": (0.8, 0.01), "known": (0.6, 0.01)}, 1.2),  # and what a critic found besides
    ],
)
def test_what_directions_miss_counts_as_far_as_held_out_samples_confirm_them(
    monkeypatch, said, value
):
    dim = math.isqrt(N) + 1  # squared, and divided by 2N: above half a nat of noise
    monkeypatch.setattr("mi_estimators.estimate.missed_by_directions", lambda *_: 0.4)
    result = decided(**said, t_0=0.6, closed_form=5.0, dim=dim)
    assert result.value == pytest.approx(value, abs=1e-6)
    assert result.baseline == pytest.approx(1.0)


@pytest.mark.parametrize("rho", [0.8, 0.0])
def test_among_many_columns_noise_hides_little_of_a_gaussian_and_adds_nothing(rho):
    law = Embedded(CorrelatedGaussian(2, rho), 150, 150)  # noise fits 7 nats
    x, y = law.sample(1500, generator=seeded())
    result = estimate_mi(x, y, budget=Budget(folds=3, steps=50))
    assert result.origin == "baseline"
    assert abs(result.value - law.mutual_information()) < min(2 * result.standard_error, 0.15)


class Near(KSG):
    """Neighbours that say what they are told to."""

    said = 0.0

    plain = math.inf

    def estimate(self, x, y):
        return Evaluation(self.said, spread_of(0.01))

    def pointwise(self, x, y):
        return min(self.said, self.plain) + spread_of(0.01)


def saying(value, plain=math.inf):
    """Neighbours whose value is extrapolated from `plain`."""
    neighbours = Near()
    object.__setattr__(neighbours, "said", value)
    object.__setattr__(neighbours, "plain", plain)
    return neighbours


def test_no_gain_leaves_the_closed_form():
    result = decided(critic=(0.8, 0.1), known=(0.8, 0.1), t_0=0.8, closed_form=0.75)
    assert (result.value, result.origin, result.kind) == (0.75, "baseline", "neither")
    assert result.standard_error == pytest.approx(math.hypot(0.3, math.sqrt(1 / 2) / N))
    np.testing.assert_allclose(result.influence, spread_of(0.3))
    assert result.p_value == 0.5  # of the sums 2, 2, -4 and -5, over both folds
    assert result.gain == 0
    assert result.readouts["DV"] == 0.8


def test_a_gain_adds_what_the_critic_knows_beyond_the_baseline():
    result = decided(critic=(1.4, 0.1), known=(0.8, 0.05), t_0=0.7, closed_form=0.75)
    assert result.origin == "baseline and critic"
    assert result.value == pytest.approx(0.75 + 1.4 - 0.7)
    assert result.baseline == 0.75
    assert result.pointwise.tolist() == pytest.approx([1.4] * N)


def test_a_gain_within_its_error_does_not_count():
    # The errors of the difference of both are those of the difference of their influences.
    result = decided(critic=(0.85, 0.10), known=(0.8, 0.05), t_0=0.8, closed_form=0.75)
    assert (result.value, result.origin) == (0.75, "baseline")
    assert result.pointwise.tolist() == pytest.approx([0.8] * N)
    counted = decided(critic=(0.85, 0.06), known=(0.8, 0.05), t_0=0.7, closed_form=0.75)
    assert counted.readouts["DV"] == 0.85


def test_a_poor_critic_does_not_take_from_the_baseline():
    result = decided(critic=(-3.0, 0.1), known=(0.8, 0.1), t_0=0.8, closed_form=0.75)
    assert (result.value, result.origin) == (0.75, "baseline")


def test_a_baseline_that_claims_too_much_is_corrected_downwards():
    result = decided(critic=(2.0, 0.05), known=(1.0, 0.05), t_0=4.6, closed_form=4.62)
    # Not 4.62 + 2.0 - 4.6: what C is above the held-out T_0 is wrong as well.
    assert result.value == pytest.approx(2.0)
    assert result.origin == "baseline and critic"
    assert result.gain == pytest.approx(-2.62)
    alone = decided(critic=(1.0, 0.05), known=(1.0, 0.05), t_0=4.6, closed_form=4.62)
    assert alone.value == pytest.approx(1.0)
    below = decided(critic=(2.0, 0.05), known=(1.0, 0.05), t_0=4.6, closed_form=4.5)
    assert below.value == pytest.approx(4.5 + 2.0 - 4.6)


def test_what_the_readout_would_lack_were_the_baseline_true_is_not_held_against_it():
    said = {"critic": (2.0, 0.05), "known": (2.0, 0.05), "t_0": 12.0, "closed_form": 12.9}
    result = decided(**said, shortfall=-10.0)
    assert (result.value, result.origin) == (12.9, "baseline")
    result = decided(**said, shortfall=-9.0)
    # It is 1 nat short of what would be expected: so much less is hidden than there.
    assert result.value == pytest.approx(2.0 + 9.0 * math.exp(-1))
    within_its_error = decided(**said, shortfall=0.01)
    assert within_its_error.value == pytest.approx(2.0)


def test_a_readout_at_its_ceiling_says_nothing_against_a_closed_form_above_it():
    said = {"known": (2.9, 0.05), "t_0": 12.0, "closed_form": 12.9}  # the ceiling is ln 20 = 3.0
    assert decided(critic=(2.9, 0.05), **said).value == 12.9
    assert decided(critic=(2.9, 0.05), **(said | {"closed_form": 2.0})).value != 2.0


def test_a_difference_made_of_rounding_does_not_count():
    result = decided(critic=(1e-15, 0.0), known=(1e-15, 0.0), t_0=0.0, closed_form=0.01)
    assert (result.value, result.origin) == (0.01, "baseline")


def test_without_a_baseline_only_neighbours_can_take_the_critics_place():
    plain = decided(critic=(0.5, 0.1))
    assert (plain.value, plain.origin, plain.kind) == (0.5, "critic", "lower bound")
    assert plain.standard_error == pytest.approx(
        reading(0.0, 0.1).estimate.influence.square().sum().mul(2).div(N * (N - 1)).sqrt().item()
    )
    result = decided(critic=(0.5, 0.1), neighbours=saying(0.9))
    assert (result.value, result.origin, result.kind) == (0.9, "neighbours", "neither")
    assert result.standard_error == pytest.approx(0.01)
    assert result.baseline is None


@pytest.mark.parametrize(
    ("said", "origin"), [(0.9, "neighbours"), (0.51, "critic"), (0.49, "critic")]
)
def test_neighbours_must_be_clearly_above_a_critic(said, origin):
    """Of two chances, the larger would be biased where there is no dependence."""
    assert decided(critic=(0.5, 0.1), neighbours=saying(said)).origin == origin


def test_neighbours_above_a_corrected_baseline_count():
    said = {"critic": (1.4, 0.1), "known": (0.8, 0.05), "t_0": 0.7, "closed_form": 0.75}
    assert decided(**said, neighbours=saying(1.46)).origin == "neighbours"
    assert decided(**said, neighbours=saying(1.44)).origin == "baseline and critic"


def test_neighbours_must_refute_a_baseline_and_are_not_asked_in_many_dimensions():
    enough = {"critic": (0.8, 0.1), "known": (0.8, 0.1), "t_0": 0.8, "closed_form": 0.75}
    assert decided(**enough, neighbours=saying(0.8)).origin == "baseline"
    assert decided(**enough, neighbours=saying(0.2)).origin == "baseline"
    assert decided(**enough, neighbours=saying(5.0)).origin == "neighbours"
    assert decided(**enough, neighbours=saying(5.0, plain=0.8)).origin == "baseline"
    assert decided(critic=(0.5, 0.1), neighbours=saying(5.0), dim=3).origin == "critic"


def test_few_effective_samples_of_a_critic_are_warned_of():
    carried, left = "effective sample size: 20 independent pairs carry", "effective sample"
    assert decided(critic=(0.5, 0.1)).warnings[0].startswith(carried)
    closed = decided(critic=(0.8, 0.1), known=(0.8, 0.1), t_0=0.8, closed_form=0.75)
    assert not any(warning.startswith(left) for warning in closed.warnings)


def test_where_noise_would_drown_the_closed_form_the_baseline_is_all_held_out():
    # 7 x 7 columns for 40 samples: 0.6 nats of noise.
    result = decided(critic=(0.8, 0.1), known=(0.8, 0.1), t_0=0.8, closed_form=5.0, dim=7)
    assert (result.value, result.origin) == (pytest.approx(0.8), "baseline")
    assert "7 x 7 for 40 samples; noise fits 0.6 nats" in result.warnings[-1]


def few(*sides):
    return few_and_continuous(*sides, KSG())


def test_few_and_continuous():
    x, y = torch.randn(2, 100, 2, generator=seeded()).double()
    assert few(x, y)
    assert not few(torch.cat([x, y[:, :1]], 1), y)
    assert not few(x[:, :1].round(decimals=1), y[:, :1]), "as many samples are at one distance"
    x[:3], y[:3] = x[0], y[0]
    assert few(x, y), "three alike have a third neighbour"
    x[3], y[3] = x[0], y[0]
    assert not few(x, y)


def test_labels_are_no_dimension_if_there_are_many_samples_of_each():
    numbers, y = torch.randn(2, 1000, 2, generator=seeded()).double()
    one_hot = torch.nn.functional.one_hot(torch.arange(1000) % 10).double()
    assert few(one_hot, y)
    assert few(torch.cat([one_hot, numbers], 1), y)
    assert not few(torch.cat([one_hot, numbers, y[:, :1] ** 2], 1), y)
    many = torch.randn(1000, 10, generator=seeded(1)).sign().double()
    assert not few(many, y)  # about one sample of each combination
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 10).double()
    assert not few(every, 1 - every)  # no two alike, and nothing near


@pytest.mark.parametrize("swap", [False, True])
def test_neighbours_know_labels_beside_a_number(swap):
    """Of uniform noise about five whole numbers, whose edges a critic rounds off."""
    law = IntegerPlusUniform(5)
    pair = law.sample(2000, generator=seeded())
    x, y = reversed(pair) if swap else pair
    result = estimate_mi(x, y, budget=Budget(folds=2, steps=50))
    assert result.origin == "neighbours"
    assert abs(result.value - law.mutual_information()) < 3 * result.standard_error < 0.06


# --- what decides, on samples ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [DEFAULT, FAST], ids=["student", "gaussian"])
@pytest.mark.parametrize(("dim", "rho", "n"), [(1, 0.5, 300), (3, 0.5, 500), (4, 0.975, 500)])
def test_on_gaussians_the_closed_form_is_enough(dim, rho, n, options):
    law = CorrelatedGaussian(dim, rho)
    result = estimate_mi(*law.sample(n, generator=seeded()), **options)
    assert result.origin == "baseline"
    assert result.value == result.baseline
    assert abs(result.value - law.mutual_information()) < 3 * result.standard_error
    assert "to which a critic had nothing to add" in str(result)


@pytest.mark.parametrize(("dim", "n"), [(5, 500), (20, 1000)])
def test_independent_samples_are_within_3_standard_errors_of_0(dim, n):
    x, y = torch.randn(2, n, dim, generator=seeded()).double()
    result = estimate_mi(x, y, **DEFAULT)
    assert abs(result.value) < 3 * result.standard_error
    assert result.certified == 0


@pytest.mark.parametrize(("law", "tolerance"), [(NoisyCircles(), 0.1), (Xor(), 0.2)], ids=repr)
def test_in_few_dimensions_neighbours_see_what_is_not_linear(law, tolerance):
    x, y = law.sample(600, generator=seeded())
    result = estimate_mi(x, y, **FAST | {"budget": Budget(folds=2, steps=40)})
    assert (result.origin, result.kind) == ("neighbours", "neither")
    assert abs(result.baseline) < 0.05
    assert abs(result.value - law.mutual_information()) < tolerance


def test_columns_beyond_what_so_few_samples_bear_are_compressed():
    law = Gaussian(torch.eye(120).double() + 0.5, 60)
    x, y = law.sample(100, generator=seeded())
    result = estimate_mi(x, y, **FAST)
    assert math.isfinite(result.value)
    again = estimate_mi(x, y, **FAST | {"preprocess": [NormalScores(), Compress()]})
    assert again.value == result.value  # no labels among them
    x_warning, y_warning, *_ = result.warnings
    for name, warning in (("x", x_warning), ("y", y_warning)):
        assert warning.startswith(f"{name}: 60 columns compressed to 12 principal components")


# --- trained estimates against the truth ----------------------------------------------------------


def trained(law, n, *, seed=0, **budget):
    x, y = law.sample(n, generator=seeded(seed))
    result = estimate_mi(x, y, seed=seed, budget=Budget(**budget), progress=False)
    return result, result.value - law.mutual_information()


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_one_dimension_is_within_3_hundredths_of_a_nat(rho):
    _, error = trained(CorrelatedGaussian(1, rho), 10_000, folds=2, steps=100)
    assert abs(error) < 0.03


@pytest.mark.slow
def test_20_dimensions_at_2_nats_are_within_a_tenth():
    result, error = trained(CorrelatedGaussian.with_mi(20, 2.0), 10_000, folds=2, steps=100)
    assert abs(error) < 0.1
    assert result.origin == "baseline"


@pytest.mark.slow
def test_few_independent_pairs_read_near_0():
    x, y = np.random.default_rng(1).normal(size=(2, 200, 1))
    result = estimate_mi(x, y, seed=1, budget=Budget(folds=3), progress=False)
    assert abs(result.value) < 3 * result.standard_error


@pytest.mark.slow
def test_a_spiral_is_within_15_hundredths():
    result, error = trained(
        beyond_normal()["spiral-multinormal-sparse-3-3-2-2.0"], 5000, folds=2, steps=400
    )
    assert abs(error) < 0.15
    assert result.origin == "baseline and critic"
    assert result.gain > 0.4


@pytest.mark.slow
def test_a_mixture_of_opposite_correlations_is_within_a_tenth():
    swapped = torch.eye(4).roll(2, 0)
    law = GaussianMixture(
        weights=torch.tensor([0.5, 0.5]),
        means=torch.zeros(2, 4),
        covariances=torch.stack([torch.eye(4) + 0.8 * swapped, torch.eye(4) - 0.8 * swapped]),
        dim_x=2,
    )
    result, error = trained(law, 4000, folds=2, steps=400)
    assert abs(error) < 0.1
    assert 0.05 < result.certified < law.mutual_information()


@pytest.mark.slow
def test_where_the_copula_claims_too_much_the_estimate_goes_below_it():
    """X = (a, s a) with a hidden sign s, Y = X + noise: I = 3.26 nats, its Gaussian copula 4.62."""
    n, generator = 3000, seeded()
    a = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
    x = torch.cat([a, sign * a], 1)
    y = x + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    gaussian = GaussianCopula().information(x, y).value
    assert gaussian == pytest.approx(4.62, abs=0.1)
    budget = Budget(folds=2, steps=400)
    options = {"baseline": GaussianCopula(), "neighbours": None, "progress": False}
    result = estimate_mi(x, y, budget=budget, **options)
    assert result.value < result.baseline - 0.5
    assert result.value == pytest.approx(3.26, abs=0.4)
    assert result.origin == "baseline and critic"
    assert result.certified < 3.26


# --- awkward samples ------------------------------------------------------------------------------


def awkward():
    x, noise = torch.randn(2, 200, 2, generator=seeded()).double()
    event = torch.zeros(200, 1).double()
    event[0] = 1
    return {
        "y is x": (x, x),
        "a shared column": (x, torch.cat([x[:, :1], noise[:, :1]], 1)),
        "a rare event": (event, x),
        "a rare event among others": (torch.cat([event, x], 1), x + noise),
        "two values": (x.sign(), x),
    }


@pytest.mark.parametrize("name", awkward())
@pytest.mark.parametrize("preprocess", [(NormalScores(),), ()], ids=["scores", "raw"])
def test_awkward_samples_give_a_number(name, preprocess):
    x, y = awkward()[name]
    result = estimate_mi(x, y, preprocess=preprocess, budget=Budget(folds=2, steps=10))
    assert math.isfinite(result.value)
    assert result.saturated or name not in ("y is x", "a shared column") or result.value > 2


def test_training_needs_no_gradients_of_the_callers():
    x, y = Xor().sample(600, generator=seeded())
    budget = Budget(folds=2, steps=100)
    outside = estimate_mi(x, y, budget=budget, neighbours=None).value
    with torch.no_grad():
        assert estimate_mi(x, y, budget=budget, neighbours=None).value == outside
    assert outside > 0.05


# --- what is refused before anything is trained ---------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "options", "message"),
    [
        (1e3, {}, r"baseline: TCopula\(\) expects columns that are standard normal"),
        (1e200, {"baseline": None}, "x: expected columns whose differences float32 tells"),
        (1e-200, {"baseline": None}, "x: expected columns whose differences float32 tells"),
    ],
)
def test_columns_that_do_not_fit_are_refused(scale, options, message):
    x, y = pairs()
    budget = Budget(folds=2, steps=1)
    with pytest.raises(ValueError, match=message):
        estimate_mi(scale * x, y, preprocess=None, budget=budget, **options)
    estimate_mi(scale * x, y, budget=budget, **options)
    with pytest.raises(ValueError, match="x: expected columns whose differences float32 tells"):
        estimate_mi(1e9 + x, y, preprocess=None, baseline=None, budget=budget)


def test_groups_need_folds_of_at_least_two():
    x, y = pairs(600)
    groups = np.arange(600) % 20
    with pytest.raises(ValueError, match=r"budget: expected 2 to 10 folds .*; each fold needs 2"):
        estimate_mi(x, y, groups=groups, budget=Budget(folds=11))
    with pytest.raises(ValueError, match="groups: expected none with more than half of the 600"):
        estimate_mi(x, y, groups=np.maximum(np.arange(600) - 500, 0))


@pytest.mark.parametrize(
    "options", [{"budget": 100}, {"neighbours": 3}, {"preprocess": NormalScores()}]
)
def test_parts_of_another_kind_are_refused(options):
    with pytest.raises(TypeError):
        estimate_mi(*pairs(), **options)


def test_few_steps_train_and_few_samples_do_without_the_neighbours_they_have_no_use_for():
    x, y = pairs(60, dim=3)
    for steps in (1, 8, 9, 10):
        estimate_mi(x, y, neighbours=KSG(k=20), budget=Budget(folds=2, steps=steps))
    with pytest.raises(ValueError, match="neighbours: expected at least 162 samples"):
        estimate_mi(*pairs(60), neighbours=KSG(k=20))


# --- independence that looks like dependence ------------------------------------------------------


def of_groups(dim, noise, seed, groups=60, members=15):
    """Independent x and y, each nearly the same throughout a group."""
    rng = np.random.default_rng(seed)
    labels = np.arange(groups).repeat(members)
    x, y = (
        rng.normal(size=(groups, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
        for _ in range(2)
    )
    return x, y, labels


@pytest.mark.parametrize(("dim", "noise"), [(1, 0.05), (5, 0.3)])
def test_what_a_group_shares_is_no_dependence(dim, noise):
    x, y, groups = of_groups(dim, noise, seed=0)
    result = estimate_mi(x, y, groups=groups, budget=Budget(folds=3, steps=50))
    assert result.origin != "neighbours"
    assert abs(result.value) < 2.5 * result.standard_error < 0.3
    unaware = estimate_mi(x, y, budget=Budget(folds=3, steps=50))
    assert unaware.value > 0.3


def test_rounded_values_are_no_matter_for_neighbours():
    x, y = pairs(2000)
    near = KSG().estimate(*(NormalScores().fit(s)(s) for s in (x, y.round(decimals=1)))).value
    truth = CorrelatedGaussian(1, 0.7).mutual_information()
    assert abs(near - truth) > 0.06, "which is why"
    result = estimate_mi(x, y.round(decimals=1), budget=Budget(folds=2, steps=50))
    assert abs(result.value - truth) < 0.05


def test_scores_of_new_pairs_are_log_ratios_after_infonce_too():
    x, y = pairs(600)
    options = BARE | {"budget": Budget(folds=2, steps=100)}
    result = estimate_mi(x, y, objective=InfoNCE(), critic=Concat(1, 1, hidden=16), **options)
    scored = result.score(x, y).mean()
    assert scored == pytest.approx(result.pointwise.mean(), abs=0.1)
    assert result.readouts["JSD"] == pytest.approx(result.value, abs=0.1)
    with pytest.raises(ValueError, match=r"y: expected 1 columns, .* received 2"):
        result.score(x, torch.cat([y, y], 1))


def test_the_errors_of_a_sum_hold_what_no_sample_shows():
    x, y = torch.randn(2, 500, 1, generator=seeded()).double()
    alone = estimate_mi(x, y, budget=Budget(folds=2, steps=20))
    assert alone.error_beyond_samples > 0
    total = estimate_total_correlation(x, y, budget=Budget(folds=2, steps=20))
    assert total.standard_error == pytest.approx(alone.standard_error)
