"""Conditional information and total correlation, against the closed forms of Gaussians."""

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch

from mi_estimators import Budget, GaussianCopula, estimate_mi
from mi_estimators.conditional import estimate_conditional_mi, estimate_total_correlation

QUICK = {"budget": Budget(folds=2, steps=50), "progress": False}
QUICKEST = {"budget": Budget(folds=2, steps=1), "progress": False, "baseline": GaussianCopula()}

COVARIANCE = torch.tensor([[1, 0.7, 0.5], [0.7, 1, 0.6], [0.5, 0.6, 1]], dtype=torch.float64)


def gaussian(n=2000, covariance=COVARIANCE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, len(covariance), generator=generator, dtype=torch.float64)
    return (normal @ torch.linalg.cholesky(covariance).mT).T


def partial_information(covariance):
    """-1/2 log(1 - ρ²), ρ being the correlation of the first two given all others."""
    precision = torch.linalg.inv(covariance)
    rho = precision[0, 1] / (precision[0, 0] * precision[1, 1]).sqrt()
    return -0.5 * math.log(1 - rho**2)


def noise(n, dim, seed):
    return np.random.default_rng(seed).normal(size=(n, dim))


# --- the numbers ----------------------------------------------------------------------------------


def test_gaussians_reach_their_partial_correlation():
    x, y, z = gaussian()
    result = estimate_conditional_mi(x, y, z, **QUICKEST)
    assert abs(result.value - partial_information(COVARIANCE)) < 3 * result.standard_error < 0.06
    assert result.kind == "neither"
    joint, known = (part.estimate for part in result.parts)
    assert result.value == joint.value - known.value
    assert result.standard_error < joint.standard_error  # what cancels


def test_several_columns_each():
    x, y, z = noise(2000, 2, 0), noise(2000, 3, 1), noise(2000, 2, 2)
    y[:, :2] += x + z  # given Z, two pairs of correlation 1/sqrt(2)
    result = estimate_conditional_mi(x, y, z, **QUICKEST)
    assert abs(result.value - math.log(2)) < 3 * result.standard_error < 0.12


def test_nothing_is_left_of_a_chain():
    z = noise(2000, 2, 0)
    x, y = z + noise(2000, 2, 1), z + noise(2000, 2, 2)
    result = estimate_conditional_mi(x, y, z, **QUICKEST)
    assert abs(result.value) < 0.01
    assert result.parts[1].estimate.value > 0.6


@pytest.mark.slow
def test_nothing_is_left_of_a_chain_whose_links_are_no_lines():
    z = noise(2000, 1, 0)
    x = z[:, 0] ** 2 + 0.3 * noise(2000, 1, 3)[:, 0]
    y = np.sin(2 * z[:, 0]) + 0.3 * noise(2000, 1, 4)[:, 0]
    result = estimate_conditional_mi(x, y, z[:, 0], **QUICK)
    assert abs(result.value) < 0.08  # what neighbours miss in three dimensions, and not in two
    assert result.parts[1].estimate.value > 0.6


@pytest.mark.slow
def test_what_only_a_third_variable_reveals():
    x, z = np.random.default_rng(0).integers(2, size=(2, 1000))
    result = estimate_conditional_mi(x, x ^ z, z, budget=Budget(folds=2, steps=150), progress=False)
    assert abs(result.parts[1].estimate.value) < 0.02  # Z alone knows nothing of X xor Z
    assert abs(result.value - math.log(2)) < 0.04


def test_x_that_z_holds_already_adds_nothing():
    x, y, _ = gaussian()
    result = estimate_conditional_mi(x, y, x, **QUICKEST)
    assert abs(result.value) < 0.005
    assert result.parts[1].estimate.value > 0.3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_total_correlation_of_gaussians(order):
    variables = gaussian()
    result = estimate_total_correlation(*variables[list(order)], **QUICKEST)
    true = -0.5 * torch.logdet(COVARIANCE).item()
    assert abs(result.value - true) < 3 * result.standard_error < 0.1
    assert [part.quantity for part in result.parts] == ["I(X_1; X_2)", "I(X_1, X_2; X_3)"]
    assert str(result).startswith("TC(X_1, X_2, X_3) = ")


def test_two_variables_are_mutual_information_and_their_own_columns_do_not_count():
    x, y, _ = gaussian()
    x = torch.stack([x, x + y.roll(1)], 1)
    total, pair = estimate_total_correlation(x, y, **QUICKEST), estimate_mi(x, y, **QUICKEST)
    assert total.value == pair.value
    assert total.standard_error == pytest.approx(pair.standard_error, rel=1e-2)  # less T_0's noise
    np.testing.assert_array_equal(total.influence, pair.influence)


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [estimate_conditional_mi, estimate_total_correlation])
def test_the_standard_error_is_the_spread_of_estimates(estimate):
    results = [estimate(*gaussian(n=500, seed=s), **QUICKEST) for s in range(40)]
    spread = np.std([r.value for r in results], ddof=1)
    claimed = np.mean([r.standard_error for r in results])
    assert 0.7 < spread / claimed < 1.4  # 40 draws know their spread to about 11 %


# --- what goes in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [estimate_conditional_mi, estimate_total_correlation])
def test_keywords_and_defaults_are_those_of_estimate_mi(ours):
    def keywords(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}

    theirs = keywords(estimate_mi)
    del theirs["critic"]
    assert keywords(ours) == theirs


def test_keywords_reach_both_estimates():
    given = QUICKEST | {"baseline": None, "neighbours": None, "preprocess": None, "seed": 3}
    x, y, z = gaussian(n=100)
    result = estimate_conditional_mi(x, y, z, **given)
    again = estimate_mi(z, y, **given), estimate_mi(torch.stack([x, z], 1), y, **given)
    assert result.parts[1].estimate.value == again[0].value
    assert result.parts[0].estimate.value == again[1].value
    assert {part.estimate.origin for part in result.parts} == {"critic"}


def test_groups_widen_the_error_of_repeated_samples():
    rows = torch.arange(400).repeat_interleave(4)
    x, y, z = gaussian(n=400)[:, rows] + 1e-3 * gaussian(n=1600, seed=1)
    options = QUICKEST | {"neighbours": None}  # which take a sample's copies for its neighbours
    alone = estimate_conditional_mi(x, y, z, **options)
    grouped = estimate_conditional_mi(x, y, z, **options, groups=rows)
    assert 1.5 < grouped.standard_error / alone.standard_error < 2.5  # sqrt(4)


def test_containers_mix():
    x, y, z = gaussian(n=100)
    plain = estimate_conditional_mi(x, y, z, **QUICKEST)
    mixed = estimate_conditional_mi(x.tolist(), pd.Series(y), z.numpy()[:, None], **QUICKEST)
    assert mixed.value == plain.value


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": torch.zeros(100)}, ValueError, r"z: .* constant columns \[0\]"),
        ({"x": torch.ones(100, 2)}, ValueError, r"x: .* constant columns \[0, 1\]"),
        ({"z": torch.arange(99.0)}, ValueError, "z: expected as many samples as x, 100, rec.* 99"),
        ({"y": torch.full((100,), math.nan)}, ValueError, "y: expected finite numbers"),
        ({"z": ["a"] * 100}, TypeError, "z: expected real numbers"),
        ({"baseline": 3}, TypeError, "baseline"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    x, y, z = gaussian(n=100)
    with pytest.raises(error, match=message):
        estimate_conditional_mi(**{"x": x, "y": y, "z": z} | change)


def test_one_variable_has_no_total_correlation():
    with pytest.raises(ValueError, match="expected two or more, received 1"):
        estimate_total_correlation(gaussian())
    with pytest.raises(ValueError, match=r"variables\[1\]: expected as many samples"):
        estimate_total_correlation(torch.arange(100.0), torch.arange(99.0))


def test_there_is_no_critic_for_two_widths():
    with pytest.raises(TypeError, match="critic"):
        estimate_conditional_mi(*gaussian(n=100), critic=None)
