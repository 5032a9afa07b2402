"""Signed sums of estimates: values, paired errors, kinds, units, the sentence."""

import math

import numpy as np
import pytest
import torch

from mi_estimators.combination import Part, combine, difference
from mi_estimators.result import MIEstimate


def estimate(value=1.0, influence=(-2.0, -1.0, 1.0, 2.0), **changes):
    given = {
        "value": value,
        "standard_error": 0.1,
        "kind": "lower bound",
        "origin": "critic",
        "ceiling": 7.0,
        "certified": 0.5,
        "p_value": 0.001,
        "pointwise": np.zeros(len(influence)),
        "influence": np.array(influence),
        "baseline": None,
        "effective_sample_size": 1234.5,
        "readouts": {},
        "history": (),
        "objective": "DV()",
    }
    return MIEstimate(**given | changes)


def test_a_difference_is_of_the_values_and_its_error_of_the_influences():
    a, b = estimate(1.5), estimate(0.5, influence=(-2.0, 1.0, -1.0, 2.0))
    result = difference(a, b)
    assert result.value == 1.0
    np.testing.assert_array_equal(result.influence, [0, -2, 2, 0])
    assert result.standard_error == pytest.approx(math.sqrt(8 / (4 * 3)))
    low, high = result.interval(0.6826894921370859)  # one standard error to each side
    assert (low, high) == pytest.approx((1 - result.standard_error, 1 + result.standard_error))


def test_what_pulls_both_alike_cancels():
    a = estimate(1.5)
    assert difference(a, estimate(0.5)).standard_error == 0
    assert combine("", [Part(1, "", a)] * 2).standard_error == pytest.approx(2 * math.sqrt(10 / 12))


def test_groups_add_up_before_they_are_squared():
    a, b = estimate(influence=(-3.0, -1.0, 1.0, 3.0)), estimate(influence=(0.0,) * 4)
    grouped = difference(a, b, groups=["p", "q", "q", "p"])
    assert grouped.standard_error == 0  # -3 + 3 and -1 + 1
    assert difference(a, b, groups=[5, 5, 7, 7]).standard_error == pytest.approx(
        math.sqrt(2 * 4**2 * 2 / 1) / 4
    )


def test_units_are_the_first_ones():
    a, b = estimate(1.5), estimate(0.5, influence=(0.0, 0.0, 1.0, -1.0))
    nats, bits = difference(a, b.to("bits")), difference(a.to("bits"), b)
    assert (nats.units, nats.value) == ("nats", pytest.approx(1.0))
    assert (bits.units, bits.value) == ("bits", pytest.approx(1 / math.log(2)))
    converted = nats.to("bits")
    for name in ("value", "standard_error"):
        assert getattr(converted, name) == pytest.approx(getattr(bits, name))
    np.testing.assert_allclose(converted.influence, bits.influence)
    assert [part.estimate.units for part in converted.parts] == ["bits", "bits"]


@pytest.mark.parametrize(
    ("signs", "kinds", "expected"),
    [
        ((1, 1), ("lower bound", "lower bound"), "lower bound"),
        ((1, -1), ("lower bound", "lower bound"), "neither"),
        ((1, -1), ("lower bound", "upper bound"), "lower bound"),
        ((1, -1), ("upper bound", "lower bound"), "upper bound"),
        ((1, 1), ("lower bound", "neither"), "neither"),
        ((1, -1), ("neither", "neither"), "neither"),
    ],
)
def test_a_bound_only_if_all_err_to_the_same_side(signs, kinds, expected):
    parts = [Part(s, "", estimate(kind=kind)) for s, kind in zip(signs, kinds, strict=True)]
    assert combine("", parts).kind == expected


def test_one_sentence():
    a, b = estimate(1.5, kind="neither"), estimate(0.25, influence=(-2.0, -1.0, 1.5, 1.5))
    parts = [Part(1, "I(X, Z; Y)", a), Part(-1, "I(Z; Y)", b)]
    assert str(combine("I(X; Y | Z)", parts)) == (
        "I(X; Y | Z) = 1.250 ± 0.204 nats (no bound: I(X, Z; Y) - I(Z; Y) = 1.500 - 0.250; paired "
        "standard error over 4 samples)."
    )
    assert str(difference(b, b)).endswith("samples), not told from 0.")
    full = difference(estimate(6.9), b)
    assert str(full).endswith("samples), with A at the ceiling: do not trust it.")
    both = combine("TC", [Part(1, "first", b), Part(1, "second", b)])
    assert "TC = 0.500 ± " in str(both)
    assert "(lower bound: first + second = 0.250 + 0.250;" in str(both)


def test_warnings_say_whose_they_are():
    a, b = estimate(warnings=("few samples",)), estimate(warnings=("ties", "more ties"))
    assert difference(a, b).warnings == ("A: few samples", "B: ties", "B: more ties")


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ValueError, match=r"same samples, in the same order, received \[4, 2\]"):
        difference(estimate(), estimate(influence=(1.0, -1.0)))
    with pytest.raises(ValueError, match=r"one label for each of 4 samples, received shape \[3\]"):
        difference(estimate(), estimate(), groups=torch.arange(3))
    with pytest.raises(ValueError, match="level"):
        difference(estimate(), estimate()).interval(95.0)
