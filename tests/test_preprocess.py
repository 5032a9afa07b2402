"""Maps of x alone and y alone: exact on small tables, fitted on the rows that they are given."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from mi_estimators.preprocess import Compress, NormalScores, OneHot, Preprocessor, fit_all


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def with_ties(n=200, dim=3):
    """Columns of many, few and two distinct values."""
    values = torch.randn(n, dim, generator=seeded(), dtype=torch.float64)
    values[:, 1] = (2 * values[:, 1]).round()
    values[:, 2] = values[:, 2].sign()
    return values


# --- normal scores --------------------------------------------------------------------------------


def test_normal_scores_are_scipys_ranks_as_normal_quantiles():
    x = with_ties()
    expected = stats.norm.ppf(stats.rankdata(x.numpy(), axis=0) / (len(x) + 1))
    np.testing.assert_allclose(NormalScores().fit(x)(x).numpy(), expected, atol=1e-12)


def test_new_rows_are_ranked_among_the_fitted_ones():
    fitted = column(3, 1, 2, 2)
    new = column(3, 2.5, 2, 1, 99, -99)
    middle = column(3.5, 3, 2, 0.5, 4, 0)  # fitted values below, and half of those that are equal
    expected = torch.special.ndtri((middle + 0.5) / 5)
    torch.testing.assert_close(NormalScores().fit(fitted)(new), expected)


def test_new_rows_do_not_rank_each_other():
    map_ = NormalScores().fit(with_ties())
    new = with_ties()[:50] + 0.1
    torch.testing.assert_close(map_(new)[7:9], map_(new[7:9]), rtol=0, atol=0)


@pytest.mark.parametrize("increasing", [torch.exp, lambda x: x**3 - 5, lambda x: 1e-3 * x + 1e3])
def test_increasing_maps_of_the_columns_change_no_score(increasing):
    x, new = with_ties(), with_ties(90) * 1.3
    plain = NormalScores().fit(x)
    mapped = NormalScores().fit(increasing(x))
    assert torch.equal(mapped(increasing(x)), plain(x))
    assert torch.equal(mapped(increasing(new)), plain(new))


def test_a_decreasing_map_changes_the_sign_alone():
    x = with_ties()
    torch.testing.assert_close(NormalScores().fit(-x)(-x), -NormalScores().fit(x)(x))


def test_scores_have_the_moments_of_a_normal_column():
    x = torch.rand(4000, 2, generator=seeded()).double() ** 9
    scores = NormalScores().fit(x)(x)
    assert scores.mean(0).abs().max() < 1e-8
    assert scores.var(0).tolist() == pytest.approx([1, 1], abs=0.01)


def test_a_column_constant_in_the_fitted_rows_gives_finite_scores():
    map_ = NormalScores().fit(torch.full((640, 1), 0.1, dtype=torch.float64))
    expected = torch.special.ndtri(column(0.5, 320.5, 640.5) / 641)
    torch.testing.assert_close(map_(column(-0.7, 0.1, 0.7)), expected)


# --- one-hot --------------------------------------------------------------------------------------


def test_labels_become_indicators_of_all_values_but_the_first():
    labels = column(*[-2, 0, 5, 5, 0, -2] * 5)
    map_ = OneHot().fit(labels)
    expected = [[0, 0], [1, 0], [0, 1], [0, 0]]  # 7 was not among the fitted labels
    assert map_(column(-2, 0, 5, 7)).tolist() == expected


def test_other_columns_stay_as_they_are():
    binary = (torch.arange(100) % 2).double()
    continuous = torch.randn(100, generator=seeded()).double()
    numbers = torch.arange(100).double()
    halves = (torch.arange(100) % 4).double() / 2
    x = torch.stack([binary, continuous, numbers, halves], 1)
    assert torch.equal(OneHot().fit(x)(x), x)


def test_columns_keep_their_order():
    labels = (torch.arange(60) % 3).double()
    numbers = torch.arange(60).double() / 7
    x = torch.stack([numbers, labels, -numbers], 1)
    expected = torch.stack([numbers, (labels == 1).double(), (labels == 2).double(), -numbers], 1)
    assert torch.equal(OneHot().fit(x)(x), expected)


@pytest.mark.parametrize(
    ("distinct", "n", "columns"),
    [(20, 200, 19), (21, 210, 1), (20, 199, 1), (5, 50, 4), (5, 49, 1), (3, 30, 2), (3, 29, 1)],
)
def test_labels_are_up_to_20_values_seen_10_times_on_average(distinct, n, columns):
    x = (torch.arange(n) % distinct).double()[:, None]
    assert OneHot().fit(x)(x).shape == (n, columns)


def test_how_many_values_are_labels_can_be_chosen():
    x = (torch.arange(400) % 30).double()[:, None]
    assert OneHot(most=30).fit(x)(x).shape == (400, 29)
    assert OneHot(most=29).fit(x)(x).shape == (400, 1)


def test_indicators_have_the_type_of_the_samples():
    labels = (torch.arange(30) % 3).float()[:, None]
    assert OneHot().fit(labels)(labels).dtype == torch.float32


# --- compress -------------------------------------------------------------------------------------


def test_few_columns_are_left_alone():
    x = torch.randn(80, 10, generator=seeded())
    assert Compress().fit(x)(x) is x


def test_components_are_the_directions_of_largest_variance():
    # 3 directions of 20 hold nearly all; 3 = 24 // 8 are kept.
    signal = torch.randn(24, 3, generator=seeded(), dtype=torch.float64)
    directions = torch.randn(3, 20, generator=seeded(1), dtype=torch.float64)
    x = signal @ directions + 1e-6 * torch.randn(24, 20, generator=seeded(2)).double() + 5
    components = Compress().fit(x)(x)
    assert components.shape == (24, 3)
    covariance = components.T.cov()
    variances = torch.linalg.eigvalsh(x.T.cov())[-3:].flip(0)
    torch.testing.assert_close(covariance, variances.diag())
    back, *_ = torch.linalg.lstsq(components, signal - signal.mean(0))
    torch.testing.assert_close(components @ back, signal - signal.mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("n", "kept"), [(7, 1), (16, 2), (50, 6), (400, 30)])
def test_one_component_for_so_many_samples(n, kept):
    x = torch.randn(n, 30, generator=seeded())
    assert Compress().fit(x)(x).shape == (n, kept)
    assert Compress(samples_per_column=n).fit(x)(x).shape == (n, 1)


def test_new_rows_are_projected_by_the_fitted_rows_alone():
    x = torch.randn(40, 30, generator=seeded())
    map_ = Compress().fit(x)
    assert torch.equal(map_(x + 1)[:3], map_(x[:3] + 1))
    assert map_(x).mean(0).abs().max() < 1e-5
    assert map_(x + 1).mean(0).abs().max() > 0.1


# --- one after the other --------------------------------------------------------------------------


class Recorded(Preprocessor):
    """Adds a number; remembers what it was fitted on."""

    def __init__(self, number):
        self.number = number

    def fit(self, samples):
        self.seen = samples.clone()
        return lambda rows: 2 * rows + self.number


def test_each_part_is_fitted_on_what_the_ones_before_it_make():
    first, second = Recorded(1.0), Recorded(10.0)
    map_ = fit_all([first, second], column(0, 1))
    assert torch.equal(first.seen, column(0, 1))
    assert torch.equal(second.seen, column(1, 3))
    assert torch.equal(map_(column(5)), column(32))
    assert torch.equal(fit_all([], column(1, 2))(column(9)), column(9))


def test_order_matters_and_maps_pickle():
    labels = (torch.arange(90) % 3).double()[:, None]
    parts = [OneHot(), NormalScores(), Compress()]
    map_ = fit_all(parts, labels)
    assert map_(labels).shape == (90, 2)
    assert fit_all(parts[1:], labels)(labels).shape == (90, 1)
    assert torch.equal(pickle.loads(pickle.dumps(map_))(labels), map_(labels))


def test_normal_scores_of_float32_are_float64():
    x = torch.tensor([[3.0], [1.0], [2.0]])
    scores = NormalScores().fit(x)(x)
    torch.testing.assert_close(scores, NormalScores().fit(x.double())(x.double()))


def test_normal_scores_keep_a_short_table_only_where_it_is_exact():
    short = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    for x, dtype in ((short, torch.float32), (short / 3, torch.float64)):
        fitted = NormalScores().fit(x)
        assert fitted.args[0].dtype == dtype
        ranks = x.argsort(0).argsort(0) + 1
        torch.testing.assert_close(fitted(x), torch.special.ndtri(ranks / 51).double())
