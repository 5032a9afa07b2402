"""preflight: each finding on data made for it, none on sound data, never an exception."""

import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mi_estimators.bijections import Cubic
from mi_estimators.distributions import (
    AdditiveUniformNoise,
    CorrelatedGaussian,
    LabelledGaussians,
    NoisyCircles,
    Pushforward,
    StudentT,
    beyond_normal,
)
from mi_estimators.preflight import Finding, Report, preflight

N = 1000
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 2))
NOISE = RNG.normal(size=(2 * N, 3))
WALK = np.cumsum(NOISE[:N], axis=0)


def found(x, y, text):
    """The one finding that says so."""
    (finding,) = [f for f in preflight(x, y).findings if re.search(text, f.what)]
    return finding


# --- sound data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "law",
    [
        CorrelatedGaussian(1, 0.99),
        CorrelatedGaussian(3, -0.7),
        AdditiveUniformNoise(0.1),
        NoisyCircles((1,), sigma=0.1),
        StudentT(torch.eye(4), dim_x=2, df=1),
        Pushforward(CorrelatedGaussian(2, 0.9), g=Cubic()),
        beyond_normal()["spiral-multinormal-sparse-3-3-2-2.0"],
        beyond_normal()["swissroll_x-normal_cdf-1v1-normal-0.75"],
        beyond_normal()["wiggly-1v1-normal-0.75"],
    ],
    ids=repr,
)
def test_nothing_is_found_in_sound_samples(law):
    report = preflight(*law.sample(N, generator=torch.Generator().manual_seed(0)))
    assert report == Report((), N, law.dim_x, law.dim_y)
    assert report.ok


def test_binary_columns_are_sound():
    assert preflight(X > 0, Y > 0).findings == ()


# --- one finding each -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "what", "where"),
    [
        (np.where(X > 3, np.nan, X), Y, r"NaN or infinity in \d of 1,000 rows", r"x\[\d\]"),
        (X, np.where(np.arange(N)[:, None] == 7, np.inf, Y), r"1 of 1,000 rows \(row 7\)", "y"),
        (X * [1, 0, 1], Y, "constant", r"x\[1\]"),
        (X[:30], Y[:30], "only 30 pairs", "x, y"),
        (X, Y[:-1], "1000 and 999 samples", "x, y"),
        (X.reshape(N, 3, 1), Y, r"3 axes, of shape \[1000, 3, 1\]", "x"),
        (X, np.array(["a", "b"] * 500), "no real numbers", r"y\[0\]"),
        (X, Y + 1j, "no real numbers, but complex", r"y\[0\], y\[1\]"),
        (pd.DataFrame({"a": X[:, 0], "b": ["u", "v"] * 500}), Y, "no real numbers", r"x\[1\]"),
        (X.astype(object), Y, "numbers held as object", r"x\[0\], x\[1\], x\[2\]"),
        (None, Y, "no samples, but NoneType", "x"),
        (X, [[1.0], [1.0, 2.0]], "no samples, but list", "y"),
        (X[:0], Y[:0], r"no samples, but ndarray of shape \[0, 3\]", "x"),
    ],
)
def test_errors(x, y, what, where):
    report = preflight(x, y)
    assert not report.ok
    first = next(f for f in report.findings if re.search(what, f.what))
    assert first.level == "error"
    assert re.match(where, first.where)
    assert first.remedy


@pytest.mark.parametrize(
    ("x", "y", "what", "where"),
    [
        (X[:200], Y[:200], "only 200 pairs", "x, y"),
        (np.r_[X, X[:10]], np.r_[Y, Y[:10]], r"10 of 1,010 rows repeat .*\(row 1000, ", "x, y"),
        (np.tile(X, (3, 1)), np.tile(Y, (3, 1)), "2,000 of 3,000 rows repeat", "x, y"),
        (X.round(1), Y, r"rounded, to \d+, \d+, \d+ distinct", r"x\[0\], x\[1\], x\[2\]"),
        (X, np.maximum(Y, 0), r"one value among continuous ones, 0 in 5\d% of rows", "y"),
        (X, np.c_[Y, np.exp(-X[:, 1])], "the same column.*infinite", r"x\[1\], y\[2\]"),
        (X, X @ [1, 2, 3.0], "a function of x", r"y\[0\]"),
        (X[:, :2], np.c_[Y[:, 0], X[:, 0] * X[:, 1]], "a function of x", r"y\[1\]"),
        (np.sin(3 * Y[:, 0]), Y, "a function of y", r"x\[0\]"),
        (X[:, 0], X[:, 0] ** 2, "a function of x", r"y\[0\]"),
        (NOISE[:N, :1], WALK[:, :1], "each row is like the one before", r"y\[0\]"),
        (X[1:] + X[:-1], Y[1:], "each row is like the one before", r"x\[0\], x\[1\], x\[2\]"),
        (NOISE.reshape(60, -1), NOISE.reshape(60, -1)[::-1], "noise, so weak", "x, y"),
    ],
)
def test_warnings(x, y, what, where):
    report = preflight(x, y)
    assert report.ok
    finding = found(x, y, what)
    assert finding.level == "warning"
    assert re.match(where, finding.where)
    if len(x) >= 500:  # few pairs have a finding of their own
        assert report.findings == (finding,)


@pytest.mark.parametrize(
    ("x", "y", "what", "where"),
    [
        (X[:, [0, 1, 0]], Y, r"a copy of x\[0\]", r"x\[2\]"),
        (X, RNG.integers(5, size=N), "taken for labels", r"y\[0\]"),
        (X, RNG.poisson(30, size=N), "taken for quantities", r"y\[0\]"),
        (np.sort(X[:, 0]), Y, "rows are sorted", r"x\[0\]"),
        (np.arange(N), np.arange(N) + N * Y[:, 0], "rows are sorted", r"x\[0\]"),
    ],
)
def test_notes(x, y, what, where):
    report = preflight(x, y)
    assert report.findings == (found(x, y, what),)
    assert report.findings[0].level == "note"
    assert re.fullmatch(where, report.findings[0].where)


def test_labels_that_repeat_are_no_copies_and_their_entropy_is_finite():
    labels = RNG.integers(4, size=N)
    report = preflight(labels, labels)
    assert {f.level for f in report.findings} == {"note"}
    assert "its entropy, 1.3" in found(labels, labels, "the same column").what


def test_a_little_noise_is_no_function():
    for function in (np.sin, np.square, np.exp):
        y = function(X[:, 0]) + 0.02 * Y[:, 0]
        assert preflight(X[:, 0], y).findings == ()


def test_more_nats_than_the_samples_can_show():
    x, y = CorrelatedGaussian.with_mi(10, 7.0).sample(N, generator=torch.Generator().manual_seed(0))
    finding = found(x, y, r"about [67].\d nats already in closed form, where the 200 pairs")
    assert finding.level == "warning"


def test_compressed_columns_are_noted():
    x = np.random.default_rng(1).normal(size=(500, 60))
    assert "of which `Compress` keeps 43" in found(x, x[:, 0] + Y[:500, 0], "Compress").what


def test_stretches_of_time_are_as_long_as_the_memory():
    memory = np.convolve(NOISE[:, 0], np.ones(10))[: 2 * N]  # forgotten after ten rows
    remedy = found(memory[:, None], NOISE[:, 1:], "each row is like").remedy
    length = int(re.search(r"// (\d+)", remedy)[1])
    assert 30 <= length <= 60


def test_labels_with_classes_far_apart_are_sound():
    law = LabelledGaussians.on_simplex(classes=5, dim=10, distance=8)
    report = preflight(*law.sample(N, generator=torch.Generator().manual_seed(0)))
    assert [f.level for f in report.findings] == ["note"]


# --- the report -----------------------------------------------------------------------------------


def test_the_worst_comes_first_and_it_prints_as_a_list():
    x = np.where(np.arange(N)[:, None] == 3, np.nan, X)[:, [0, 1, 0]]
    report = preflight(x, np.c_[Y, X[:, 1]])
    assert [f.level for f in report.findings] == ["error", "warning", "note"]
    lines = str(report).splitlines()
    assert lines[0] == (
        "999 usable pairs of 3 and 3 columns, which can show up to 6.9 nats; 1 error, 1 warning, "
        "1 note."
    )
    assert [line.split()[0] for line in lines[1:]] == ["error", "warning", "note"]
    assert lines[1] == (
        "error    x[0], x[1], x[2]: NaN or infinity in 1 of 1,000 rows (row 3); drop or impute "
        "these rows in x and y"
    )
    assert report.ceiling == pytest.approx(np.log(999))


def test_nothing_found_prints_as_such():
    assert str(preflight(X, Y)).endswith("nats; nothing was found.")
    finding = Finding("note", "something", "x[0]", "do nothing")
    assert str(Report((finding, finding), 50, 1, 1)).count("2 notes") == 1


def test_long_lists_are_cut():
    assert found(np.ones((N, 9)), Y, "constant").where == "x[0], x[1], x[2], x[3], x[4] and 4 more"


@pytest.mark.parametrize("container", [torch.from_numpy, np.ndarray.tolist, pd.DataFrame])
def test_containers(container):
    x = X.copy()
    x[:, 1] = 5
    assert preflight(container(x), container(Y)) == preflight(x, Y)


def test_bfloat16_and_gradients_are_fine():
    x = torch.from_numpy(X).bfloat16().requires_grad_()
    assert preflight(x, Y).dim_x == 3


# --- never raises ---------------------------------------------------------------------------------

SHAPES = st.one_of(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70))
DTYPES = st.one_of(
    hnp.floating_dtypes(endianness="="), hnp.integer_dtypes(endianness="="), hnp.boolean_dtypes()
)
ARRAYS = st.one_of(
    hnp.arrays(DTYPES, SHAPES),
    hnp.arrays(np.float64, st.tuples(st.integers(50, 80), st.integers(1, 4))),
    st.lists(st.one_of(st.floats(), st.text(max_size=2), st.none(), st.integers()), max_size=60),
)


@settings(max_examples=60, deadline=None)
@given(ARRAYS, ARRAYS)
def test_nothing_raises(x, y):
    str(preflight(x, y))


@pytest.mark.parametrize(
    "x",
    [
        1,
        "text",
        {"a": 1},
        {1, 2},
        object(),
        [10**400] * 100,
        [Fraction(k, 7) for k in range(100)],
        np.full((100, 2), np.nan),
        RNG.uniform(-1, 1, size=(100, 2)) * 1.7e308,
        RNG.integers(-9, 9, size=(100, 2)) * 5e-324,
        np.r_[RNG.normal(size=99) * 1e-300, 1e300],
        np.zeros((100, 3)),
        np.zeros(100, dtype=[("a", float)]),
        np.arange("2000-01-01", "2000-04-10", dtype="datetime64[D]"),
        pd.Series([1, 2, pd.NA] * 40),
    ],
    ids=lambda x: type(x).__name__,
)
def test_nothing_raises_on_what_is_no_data(x):
    for pair in ((x, RNG.normal(size=100)), (RNG.normal(size=(100, 2)), x), (x, x)):
        str(preflight(*pair))
