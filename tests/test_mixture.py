"""Gaussian mixtures as the beginning of a critic: the log-ratio, the fit, and when it is used."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from mi_estimators import JSD, GaussianCopula, TCopula, cross_fitting, estimate_mi
from mi_estimators.baselines import Corrected, EllipticalRatio, Independence
from mi_estimators.cross_fitting import Recipe, begin
from mi_estimators.distributions import CorrelatedGaussian, GaussianMixture
from mi_estimators.mixture import FEWEST, MOST, Mixture, MixtureRatio, mixture_ratio, seeded_shares
from mi_estimators.samples import Samples
from mi_estimators.testing import check_critic
from mi_estimators.training import Budget


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(k=4, d=5, seed=0):
    """Weights, means and covariances, drawn at random."""
    generator = seeded(seed)
    weights = torch.rand(k, generator=generator).double() + 0.2
    roots = torch.randn(k, d, d, generator=generator).double()
    means = 2 * torch.randn(k, d, generator=generator).double()
    return weights / weights.sum(), means, roots @ roots.mT + 0.3 * torch.eye(d)


def blobs(k=6, dim=4, spread=1.5):
    """Unit balls around random points."""
    means = spread * torch.randn(k, 2 * dim, generator=seeded(3)).double()
    covariances = torch.eye(2 * dim).double().expand(k, -1, -1)
    return GaussianMixture(torch.full((k,), 1 / k).double(), means, covariances, dim_x=dim)


@pytest.mark.parametrize("dim_x", [1, 2, 4])
def test_the_log_ratio_is_its_literal_twin(dim_x):
    weights, means, covariances = parameters()
    z = 3 * torch.randn(20, 5, generator=seeded(1)).double()

    def log_density(columns):
        parts = MultivariateNormal(means[:, columns], covariances[:, columns][:, :, columns])
        return MixtureSameFamily(Categorical(weights), parts).log_prob(z[:, columns])

    x, y = range(dim_x), range(dim_x, 5)
    expected = log_density(range(5)) - log_density(x) - log_density(y)
    ratio = MixtureRatio(Mixture(weights, means, covariances), dim_x)
    found = ratio(z[:, :dim_x], z[:, dim_x:])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert ratio.encode_x(z[:, :dim_x]).shape == (20, ratio.width)
    law = GaussianMixture(weights, means, covariances, dim_x)
    assert torch.allclose(law.log_ratio(z[:, :dim_x], z[:, dim_x:]), expected)


def test_the_log_ratio_is_a_critic():
    ratio = MixtureRatio(Mixture(*parameters()), dim_x=2)
    x, y = torch.randn(7, 5, generator=seeded(1)).split([2, 3], dim=1)
    check_critic(ratio, x, y)
    check_critic(Corrected(ratio, Independence()), x, y)
    assert not [*ratio.parameters()]


def test_one_component_is_the_gaussian():
    x, y = CorrelatedGaussian.with_mi(2, 0.7).sample(4000, generator=seeded())
    z = torch.cat([x, y], 1)
    one = Mixture.fit(z, seeded_shares(z, 1), 1.0)
    # One part in a thousand of the variance is added.
    assert torch.allclose(one.means[0], z.mean(0))
    assert torch.allclose(one.covariances[0], z.mT.cov(correction=0), atol=2e-3)
    expected = GaussianCopula().fit(x, y)(x, y).mean()
    assert MixtureRatio(one, 2)(x, y).mean().item() == pytest.approx(expected.item(), abs=0.01)


def test_expectation_maximisation_finds_the_clusters():
    law = blobs(k=3, dim=2, spread=4)
    z = torch.cat(law.sample(6000, generator=seeded()), 1)
    mixture = Mixture.fit(z, seeded_shares(z, 3), 1.0)
    distances = torch.cdist(mixture.means, 4 * torch.randn(3, 4, generator=seeded(3)).double())
    assert distances.amin(1).max() < 0.1
    assert distances.argmin(1).sort().values.tolist() == [0, 1, 2]
    assert (mixture.weights - 1 / 3).abs().max() < 0.03
    assert (mixture.covariances - torch.eye(4)).abs().max() < 0.12


def test_the_ratio_of_clusters_is_nearly_the_laws():
    law = blobs()
    ratio = mixture_ratio(*law.sample(8000, generator=seeded()))
    x, y = law.sample(4000, generator=seeded(1))
    errors = ratio(x, y) - law.log_ratio(x, y)
    assert errors.mean().abs() < 0.05 < law.mutual_information()
    assert errors.std() < 0.5


def test_the_search_leaves_the_global_generator_alone_and_is_reproducible():
    x, y = blobs().sample(1000, generator=seeded())
    state = torch.get_rng_state()
    first, second = (mixture_ratio(x, y) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.joint.means, second.joint.means)


def test_one_component_or_columns_that_others_manage_have_no_mixture():
    assert mixture_ratio(*CorrelatedGaussian.with_mi(3, 1).sample(3000, generator=seeded())) is None
    x = torch.randn(500, MOST, generator=seeded())
    x[:250] += 5
    for columns, found in ((FEWEST - 1, False), (FEWEST, True), (MOST, True), (MOST + 1, False)):
        u, v = x[:, :1], x[:, :1].expand(-1, columns - 1) if columns > MOST else x[:, 1:columns]
        assert (mixture_ratio(u, v) is not None) == found


def test_labels_have_no_mixture():
    label = (torch.arange(400) % 2)[:, None].double()
    x = torch.randn(400, 5, generator=seeded()) + 4 * label
    assert mixture_ratio(x[:, :4], x[:, 4:]) is not None
    assert mixture_ratio(x, label) is None


@pytest.mark.parametrize("values", [1, 3])
def test_columns_that_do_not_vary_within_a_component_give_finite_numbers(values):
    y = (torch.arange(400) % values)[:, None].double()
    x = torch.randn(400, 4, generator=seeded()) + 4 * y
    found = mixture_ratio(x, y)
    assert (found is None) == (values == 1)
    if found is not None:
        assert found(x, y).isfinite().all()
    assert Mixture.fit(y, seeded_shares(y, 4), 1.0)(y).isfinite().all()


# --- Its place in an estimate -----------------------------------------------------------------


def beginning(law, **options):
    plain = {"critic": None, "negatives": None, "preprocess": (), "baseline": TCopula()}
    plain |= {"budget": Budget(), "device": torch.device("cpu")}
    train, stop = (Samples(*law.sample(n, generator=seeded(n))) for n in (4000, 1000))
    stop = Samples(stop.x.float(), stop.y.float())
    return begin(Recipe((JSD(),), **(plain | options)), train, stop)


@pytest.mark.parametrize("baseline", [TCopula(), None])
def test_clusters_are_a_second_beginning(baseline):
    critic, clustered, known, fallback = beginning(blobs(), baseline=baseline)
    assert isinstance(clustered.baseline, MixtureRatio)
    assert isinstance(critic.baseline, EllipticalRatio)
    assert fallback is critic.baseline
    assert known is (None if baseline is None else fallback)


def test_both_begin_at_their_closed_form_and_train_apart():
    critic, clustered, _, _ = beginning(blobs())
    x, y = (side.float() for side in blobs().sample(10, generator=seeded()))
    for each in (critic, clustered):
        assert torch.allclose(each(x, y), each.baseline(x, y))
    assert {*critic.parameters()}.isdisjoint(clustered.parameters())


def test_where_there_are_no_clusters_there_is_one_beginning():
    critic, clustered, known, _ = beginning(CorrelatedGaussian.with_mi(3, 1))
    assert clustered is None
    assert critic.baseline is known


def test_a_critic_of_ones_own_begins_as_it_is():
    own = Independence()
    critic, clustered, known, fallback = beginning(blobs(), critic=own, baseline=None)
    assert isinstance(critic, Independence)
    assert critic is not own
    assert clustered is known is None
    assert isinstance(fallback, Independence)


def with_mixture(critic):
    return isinstance(critic, Corrected) and isinstance(critic.baseline, MixtureRatio)


def steps_of_jsd(result):
    return max(look.step for look in result.history if look.objective == "JSD()")


@pytest.mark.slow
def test_an_estimate_of_clusters_ends_with_the_mixture():
    law = blobs()
    result = estimate_mi(
        *law.sample(3000, generator=seeded()), budget=Budget(folds=2, steps=100), neighbours=None
    )
    assert [with_mixture(scorer.critic) for scorer in result.scorer.scorers] == [True, True]
    assert steps_of_jsd(result) == 200  # of both critics
    assert abs(result.value - law.mutual_information()) < 0.1


@pytest.mark.slow
def test_a_mixture_that_a_trained_critic_left_behind_is_not_trained(monkeypatch):
    wrong = MixtureRatio(Mixture(*parameters(d=8)), dim_x=4)
    monkeypatch.setattr(cross_fitting, "mixture_ratio", lambda x, y: wrong)
    samples = blobs().sample(1000, generator=seeded())
    result = estimate_mi(*samples, budget=Budget(folds=2, steps=100), neighbours=None)
    assert not any(with_mixture(scorer.critic) for scorer in result.scorer.scorers)
    assert steps_of_jsd(result) == 100
