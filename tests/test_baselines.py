"""Log-ratios in closed form: against the laws that they are the log-ratio of."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from mi_estimators import DV, Bilinear, Separable
from mi_estimators.baselines import (
    Corrected,
    EllipticalRatio,
    Encoded,
    GaussianCopula,
    Independence,
    RowNormalised,
    TCopula,
)
from mi_estimators.canonical import Canonical, information_bias
from mi_estimators.distributions import CorrelatedGaussian, Gaussian, Independent, StudentT
from mi_estimators.preprocess import NormalScores
from mi_estimators.readout import read_out
from mi_estimators.samples import Samples
from mi_estimators.testing import check_critic


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_correlation(d, seed=0):
    a = torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)
    covariance = a @ a.mT / d + 0.3 * torch.eye(d).double()
    sd = covariance.diagonal().sqrt()
    return covariance / sd / sd[:, None]


def canonical_of(law):
    """The law's own canonical coordinates and correlations."""
    zeros = torch.zeros(law.dim_x).double(), torch.zeros(law.dim_y).double()
    return Canonical(zeros[0], law.whiten_x.mT, zeros[1], law.whiten_y.mT, law.correlations)


def scores_of_t(df, *sides):
    """Standard Student-t columns as the standard normal ones that they are increasing maps of."""
    return [torch.from_numpy(stats.norm.ppf(stats.t.cdf(side.numpy(), df))) for side in sides]


def normal_scores(*sides):
    return [NormalScores().fit(side)(side) for side in sides]


def on_halves(baseline, x, y):
    """The log-ratio fitted on one half of the samples, read out on the other."""
    half = len(x) // 2
    ratio = baseline.fit(x[:half], y[:half])
    return read_out(ratio, DV(), Samples(x[half:], y[half:])).estimate


# --- the log-ratio --------------------------------------------------------------------------------

SPLITS = [(1, 1), (3, 2), (2, 4)]


@pytest.mark.parametrize(("dim_x", "dim_y"), SPLITS)
def test_the_gaussian_ratio_is_the_laws(dim_x, dim_y):
    law = Gaussian(random_correlation(dim_x + dim_y), dim_x)
    ratio = EllipticalRatio(canonical_of(law))
    x, y = law.sample(50, generator=seeded())
    torch.testing.assert_close(ratio(x, y), law.log_ratio(x, y))
    square = ratio.score(ratio.encode_x(x)[:, None], ratio.encode_y(y)[None])
    torch.testing.assert_close(square, law.log_ratio(x[:, None], y[None]))


@pytest.mark.parametrize("df", [1.0, 2.5, 10.0])
@pytest.mark.parametrize(("dim_x", "dim_y"), SPLITS)
def test_the_students_ratio_is_the_laws(dim_x, dim_y, df):
    dispersion = random_correlation(dim_x + dim_y)  # unit diagonal: the margins are standard t
    law = StudentT(dispersion, dim_x, df)
    x, y = law.sample(500, generator=seeded())
    ratio = EllipticalRatio(canonical_of(Gaussian(dispersion, dim_x)), df)
    a, b = scores_of_t(df, x, y)
    torch.testing.assert_close(ratio(a, b), law.log_ratio(x, y), atol=1e-4, rtol=0)


def test_many_degrees_of_freedom_are_the_gaussian_ratio():
    law = Gaussian(random_correlation(4), 2)
    x, y = law.sample(50, generator=seeded())
    gaussian, student = (EllipticalRatio(canonical_of(law), df) for df in (math.inf, 1e7))
    torch.testing.assert_close(student(x, y), gaussian(x, y), atol=1e-4, rtol=0)


def test_the_mean_ratio_in_sample_is_the_information_of_the_correlations():
    x, y = Gaussian(random_correlation(5), 2).sample(80, generator=seeded())
    fitted = Canonical.fit(x, y)
    assert EllipticalRatio(fitted)(x, y).mean().item() == pytest.approx(fitted.information)


def test_float32_scores_are_those_of_float64():
    law = Gaussian(random_correlation(5), 2)
    x, y = law.sample(200, generator=seeded())
    for df in (math.inf, 3.0):
        ratio = EllipticalRatio(canonical_of(law), df)
        low = ratio(x.float(), y.float())
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), ratio(x, y), atol=1e-3, rtol=1e-4)


def test_far_out_scores_stay_finite():
    law = Gaussian(random_correlation(3), 2)
    far = torch.tensor([[9.0, -9.0], [-1e3, 6.0]]).double()
    assert EllipticalRatio(canonical_of(law), 1.0)(far, far[:, :1]).isfinite().all()


@pytest.mark.parametrize("df", [math.inf, 2.5])
@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (3, 2)])
def test_pairs_drawn_from_the_ratio_have_the_laws_information(dim_x, dim_y, df):
    dispersion = random_correlation(dim_x + dim_y)
    gaussian = Gaussian(dispersion, dim_x)
    law = gaussian if df == math.inf else StudentT(dispersion, dim_x, df)
    ratio = EllipticalRatio(canonical_of(gaussian), df)
    u, v = ratio.sample(5000, seeded())
    assert u.shape == v.shape == (5000, ratio.width)
    terms = Encoded(ratio)(u, v)
    error = terms.std().item() / math.sqrt(5000)
    assert abs(terms.mean().item() - law.mutual_information()) < 4 * error
    shuffled = Encoded(ratio)(u, v.roll(1, 0)).exp()  # E_Q[r] = 1
    assert abs(shuffled.mean().item() - 1) < 4 * shuffled.std().item() / math.sqrt(5000)
    if df == math.inf:  # radii and coordinates have the moments of standard normal ones
        assert u[:, -1].mean().item() == pytest.approx(dim_x, abs=0.2)
        second = u[:, :-1].mT @ u[:, :-1] / 5000
        torch.testing.assert_close(second, torch.eye(len(second)).double(), atol=0.1, rtol=0)


def test_encoded_scores_encodings():
    ratio, x, y = fitted_on_8(3.0)
    torch.testing.assert_close(Encoded(ratio)(ratio.encode_x(x), ratio.encode_y(y)), ratio(x, y))


def test_a_ratio_has_no_parameters_says_its_df_and_pickles():
    ratio = EllipticalRatio(canonical_of(Gaussian(random_correlation(3), 2)), 2.5)
    x, y = torch.randn(2, 5, 3, generator=seeded()).double()
    assert not list(ratio.parameters())
    assert "df=2.5" in repr(ratio)
    for copied in (pickle.loads(pickle.dumps(ratio)), copy.deepcopy(ratio)):
        assert torch.equal(copied(x[:, :2], y[:, :1]), ratio(x[:, :2], y[:, :1]))


# --- conformance ----------------------------------------------------------------------------------


def fitted_on_8(df=math.inf):
    x, y = Gaussian(random_correlation(5), 3).sample(200, generator=seeded())
    return EllipticalRatio(Canonical.fit(x, y), df), x[:8], y[:8]


@pytest.mark.parametrize("df", [math.inf, 3.0])
def test_every_critic_conforms(df):
    ratio, x, y = fitted_on_8(df)
    check_critic(ratio, x, y)
    check_critic(Independence(), x, y)
    for residual in (Separable.mlp(3, 2), Bilinear(3, 2), Independence(), ratio):
        check_critic(Corrected(ratio, residual), x.float(), y.float())


def test_corrected_is_the_sum_of_both():
    ratio, x, y = fitted_on_8(3.0)
    residual = Bilinear(3, 2).double()
    critic = Corrected(ratio, residual)
    torch.testing.assert_close(critic(x, y), ratio(x, y) + residual(x, y))
    u, v = critic.encode_x(x)[:, None], critic.encode_y(y)[None]
    expected = ratio.score(ratio.encode_x(x)[:, None], ratio.encode_y(y)[None])
    expected = expected + residual.score(residual.encode_x(x)[:, None], residual.encode_y(y)[None])
    torch.testing.assert_close(critic.score(u, v), expected)
    assert {id(p) for p in critic.parameters()} == {id(p) for p in residual.parameters()}


def test_independence_is_0():
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    assert Independence()(x, y).tolist() == [0.0] * 6
    critic = Independence()
    assert critic.score(critic.encode_x(x)[:, None], critic.encode_y(y)).tolist() == [[0.0] * 6] * 6


# --- Gaussian copula ------------------------------------------------------------------------------

LAWS = [
    CorrelatedGaussian(1, 0.6),
    CorrelatedGaussian(5, 0.3),
    Gaussian(random_correlation(6, seed=2), 2),
    Gaussian(random_correlation(20, seed=3), 8),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_gaussian_information_is_unbiased_and_its_error_is_honest(law):
    values, errors = [], []
    for seed in range(200):
        x, y = law.sample(150, generator=seeded(seed))
        found = GaussianCopula().information(x, y)
        values.append(found.value)
        errors.append(found.standard_error())
    spread = torch.tensor(values).std().item()
    assert abs(sum(values) / 200 - law.mutual_information()) < 4 * spread / math.sqrt(200)
    assert math.sqrt(sum(e**2 for e in errors) / 200) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("baseline", [GaussianCopula(), TCopula()], ids=repr)
def test_an_estimate_is_the_information_of_normal_scores(baseline):
    x, y = CorrelatedGaussian(2, 0.6).sample(400, generator=seeded())
    expected = baseline.information(*normal_scores(x, y))
    found = baseline.estimate(x.exp().numpy(), (3 * y).tolist())
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    torch.testing.assert_close(found.influence, expected.influence)


def test_an_estimate_refuses_what_nothing_can_be_learnt_from():
    with pytest.raises(ValueError, match="x: expected columns that vary"):
        GaussianCopula().estimate(np.zeros(100), np.arange(100))


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_increasing_maps_of_the_columns_keep_the_information(law):
    x, y = law.sample(5000, generator=seeded())
    found = GaussianCopula().information(*normal_scores(x.exp(), y**3 + y))
    assert abs(found.value - law.mutual_information()) < 4 * found.standard_error()


def test_information_is_that_of_all_correlations_less_their_bias():
    x, y = CorrelatedGaussian(3, 0.1).sample(100, generator=seeded())
    found = GaussianCopula().information(x, y)
    expected = Canonical.fit(x, y).information - information_bias(100, 3, 3)
    assert found.value == pytest.approx(expected, abs=1e-12)
    terms = EllipticalRatio(Canonical.fit(x, y))(x, y)
    torch.testing.assert_close(found.influence, terms - terms.mean())
    fitted = GaussianCopula().fit(x, y)
    assert fitted.correlations.count_nonzero() < 3  # those that noise explains


def test_a_repeated_column_costs_no_bias():
    x, y = CorrelatedGaussian(2, 0.5).sample(100, generator=seeded())
    repeated = GaussianCopula().information(torch.cat([x, x], 1), y)
    assert repeated.value == pytest.approx(GaussianCopula().information(x, y).value, abs=1e-9)


@pytest.mark.parametrize("baseline", [GaussianCopula(), TCopula()], ids=repr)
def test_too_many_dimensions_are_refused(baseline):
    x = torch.randn(50, 3, generator=seeded()).double()
    wide = torch.randn(50, 48, generator=seeded(1)).double()
    with pytest.raises(ValueError, match=r"n: expected more than dim_x \+ dim_y = 51 samples, rec"):
        baseline.information(x, wide)


# --- Student-t copula -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("df", "near"), [(1, {1.0}), (2, {2.0}), (3, {2.0, 3.0, 4.0}), (8, {6.0, 10.0, 20.0})]
)
def test_degrees_of_freedom_are_found(df, near):
    x, y = StudentT(random_correlation(4), 2, df).sample(2000, generator=seeded())
    assert TCopula().fit(*normal_scores(x, y)).df in near


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_gaussians_are_seen_to_be_gaussian_or_nearly_so(law):
    x, y = law.sample(2000, generator=seeded())
    assert TCopula().fit(x, y).df >= 20


@pytest.mark.parametrize(("dim", "df"), [(1, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("increasing", [lambda x: x, torch.asinh], ids=["plain", "asinh"])
def test_student_information_is_near_the_truth_and_beats_the_gaussian(dim, df, increasing):
    law = StudentT(random_correlation(2 * dim), dim, df)
    x, y = (increasing(side) for side in law.sample(2500, generator=seeded()))
    x, y = normal_scores(x, y)
    student, gaussian = TCopula().information(x, y), GaussianCopula().information(x, y)
    truth, error = law.mutual_information(), student.standard_error()
    assert abs(student.value - truth) < 4 * error
    assert gaussian.value < truth - 4 * error


def test_tails_beat_the_gaussian_on_samples_that_were_not_fitted():
    x, y = normal_scores(*StudentT(torch.eye(4), 2, df=1).sample(3000, generator=seeded()))
    student, gaussian = on_halves(TCopula(), x, y), on_halves(GaussianCopula(), x, y)
    more = student.less(gaussian)
    assert more.value > 10 * more.standard_error()
    assert student.value == pytest.approx(0.4317, abs=4 * student.standard_error())


@pytest.mark.parametrize("baseline", [GaussianCopula(), TCopula()], ids=repr)
@pytest.mark.parametrize("seed", range(2))
def test_heavy_tails_of_independent_columns_are_no_dependence(baseline, seed):
    sides = Independent(3, 3, df=1).sample(1500, generator=seeded(seed))
    for x, y in (sides, normal_scores(*sides)):
        claimed = on_halves(baseline, x, y)
        assert claimed.value < 3 * claimed.standard_error() + 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_tails_that_the_columns_of_x_share_are_not_dependence_on_y(seed):
    # Likelihood would choose one degree of freedom here; y has a scale of its own.
    x, y = (
        torch.cat(StudentT(torch.eye(6), 3, df=1).sample(1500, generator=seeded(2 * seed + k)), 1)
        for k in range(2)
    )
    claimed = on_halves(TCopula(), *normal_scores(x, y))
    assert claimed.value < 3 * claimed.standard_error() + 1e-9


@pytest.mark.parametrize("df", [(0.0,), (2.0, -1.0), (math.inf,), (math.nan,)])
def test_degrees_of_freedom_that_are_none_are_refused(df):
    with pytest.raises(ValueError, match=r"df: expected numbers from 0.5, .* received .*; try"):
        TCopula(df=df)


def test_degrees_of_freedom_can_be_chosen():
    x, y = normal_scores(*StudentT(torch.eye(2), 1, df=1).sample(1000, generator=seeded()))
    assert TCopula(df=(5.0,)).fit(x, y).df == 5
    assert TCopula(df=()).fit(x, y).df == math.inf


def test_more_samples_than_a_chunk_choose_on_the_first_and_fit_to_all(monkeypatch):
    law, baseline = StudentT(torch.eye(4).double(), dim_x=2, df=3), TCopula(df=(3.0,))
    x, y = normal_scores(*law.sample(3000, generator=seeded()))
    whole, information = baseline.fit(x, y), baseline.information(x, y)
    monkeypatch.setattr("mi_estimators.baselines.CHUNK", 1000)
    found, chunked = baseline.fit(x, y), baseline.information(x, y)
    assert found.df == whole.df == 3
    torch.testing.assert_close(found(x, y), whole(x, y))
    torch.testing.assert_close(chunked.influence, information.influence)
    few = baseline.fit(x[:1000], y[:1000])
    assert not torch.allclose(found(x, y), few(x, y), atol=0.01)


@pytest.mark.parametrize("by", [lambda z: z[:, 0], lambda z: z.square().sum(1)])
def test_the_order_of_the_rows_does_not_matter(by):
    z = torch.cat(StudentT(torch.eye(4).double(), 2, df=2.0).sample(6000, generator=seeded()), 1)
    ordered = z[by(z).argsort()]
    as_drawn, as_sorted = (TCopula().estimate(w[:, :2], w[:, 2:]).value for w in (z, ordered))
    assert as_sorted == pytest.approx(as_drawn, abs=1e-3)
    assert as_drawn > 0.1


def test_a_critic_that_is_normalised_by_row_has_no_constant_of_x():
    law = CorrelatedGaussian(1, 0.8)
    x, y = (side.float() for side in law.sample(2000, generator=seeded()))

    class Shifted(Independence):
        def score(self, u, v):
            return law.log_ratio(u, v).float() + 7 * u.squeeze(-1)

        def encode_x(self, x):
            return x

        def encode_y(self, y):
            return y

    critic = RowNormalised(Shifted(), y[:1000])
    error = critic(x, y) - law.log_ratio(x, y)
    assert abs(error.mean()) < 0.02
    assert error.std() < 0.1
    check_critic(critic, x[:4], y[:4])
