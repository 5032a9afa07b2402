"""Samples: every container becomes the same pairs, and every mistake is named."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_estimators.cross_fitting import split_folds
from mi_estimators.samples import (
    MIN_GROUPS,
    MIN_SAMPLES,
    Samples,
    as_samples,
    check_estimable,
    stretches,
)


def matrix(n=4, dim=2):
    return torch.arange(n * dim, dtype=torch.float64).view(n, dim)


@pytest.mark.parametrize(
    "container",
    [
        lambda a: a,
        lambda a: a.numpy(),
        lambda a: a.tolist(),
        lambda a: pd.DataFrame(a.numpy()),
        lambda a: a.clone().requires_grad_(),
        lambda a: a.bfloat16(),
        lambda a: a.half(),
        lambda a: a.to(torch.uint8),
        lambda a: a.numpy().astype(np.int16),
        lambda a: a.T.contiguous().T,
    ],
    ids=["f64", "numpy", "list", "pandas", "leaf", "bf16", "f16", "uint8", "int16", "strided"],
)
def test_every_container_becomes_the_same_float64_matrix(container):
    samples = as_samples(container(matrix()), container(matrix(dim=3)))
    assert torch.equal(samples.x, matrix())
    assert torch.equal(samples.y, matrix(dim=3))
    assert samples.x.dtype == samples.y.dtype == torch.float64
    assert not samples.x.requires_grad
    assert samples.groups is None
    assert len(samples) == 4


@pytest.mark.parametrize(
    "flat",
    [torch.arange(3), np.arange(3.0), [0, 1, 2], pd.Series([0.0, 1.0, 2.0], index=[5, 2, 9])],
)
def test_one_axis_is_one_column(flat):
    expected = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    assert torch.equal(as_samples(flat, flat).x, expected)


def test_booleans_are_0_and_1():
    assert as_samples([True, False], np.array([False, True])).x.tolist() == [[1.0], [0.0]]


def test_the_callers_array_is_not_shared():
    array = np.arange(3.0)
    samples = as_samples(array, array)
    samples.x.zero_()
    assert array.tolist() == [0, 1, 2]


def test_rows_are_taken_from_x_y_and_groups_alike():
    samples = Samples(matrix(), matrix(dim=3), torch.tensor([7, 7, 8, 9]))
    some = samples[torch.tensor([3, 1])]
    assert torch.equal(some.x, matrix()[[3, 1]])
    assert torch.equal(some.y, matrix(dim=3)[[3, 1]])
    assert some.groups.tolist() == [9, 7]
    assert Samples(matrix(), matrix())[torch.tensor([0])].groups is None


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "b", "a", "c"],
        [7.5, 7.5, -1.0, 9.0],
        pd.Series([5, 5, 2, 6]),
        torch.tensor([1, 1, 0, 2]),
    ],
    ids=["text", "numbers", "pandas", "tensor"],
)
def test_labels_of_groups_become_numbers_from_0(labels):
    samples = as_samples(matrix(), matrix(), labels)
    assert samples.groups.tolist() == [1, 1, 0, 2]
    assert samples.groups.dtype == torch.int64


@pytest.mark.parametrize("labels", [[0, 1, 2], np.zeros((4, 1)), 3])
def test_groups_need_one_label_for_each_sample(labels):
    with pytest.raises(ValueError, match="groups: expected one label for each of 4 samples, rec"):
        as_samples(matrix(), matrix(), labels)


def test_few_groups_are_refused():
    groups = torch.arange(60) % 20
    check_estimable(Samples(matrix(60), matrix(60), groups))
    with pytest.raises(ValueError, match="groups: expected at least 20 groups, received 19; make"):
        check_estimable(Samples(matrix(60), matrix(60), groups.clamp(max=18)))


def spoiled(value):
    x = matrix(8)
    x[[3, 7]] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (matrix(4), matrix(5), ValueError, "y: expected as many samples as x, 4, received 5; row"),
        (spoiled(math.nan), matrix(8), ValueError, "x: expected finite numbers, received NaN or"),
        (matrix(8), spoiled(-math.inf), ValueError, "in 2 of 8 rows, the first of them 3; drop"),
        (["a"] * 4, matrix(), TypeError, "x: expected real numbers, received dtype <U1; encode"),
        (matrix(), pd.Series(["a", 1]), TypeError, "y: expected real numbers, received dtype obj"),
        (matrix(), matrix() * 1j, TypeError, "y: expected real numbers, received dtype complex128"),
        (np.array(["2020"], "M8[D]"), matrix(1), TypeError, "received dtype datetime64[D]"),
        (torch.zeros(4, 2, 3), matrix(), ValueError, "received [4, 2, 3]; flatten each sample to"),
        (torch.tensor(1.0), matrix(), ValueError, "x: expected shape [N] or [N, d], received []"),
        ([], [], ValueError, "x: expected samples, received shape [0]: none"),
        (np.zeros((4, 0)), matrix(), ValueError, "x: expected samples, received shape [4, 0]"),
    ],
)
def test_mistakes_are_named(x, y, error, message):
    with pytest.raises(error, match=re.escape(message)):
        as_samples(x, y)


def test_enough_samples_that_vary_are_estimable():
    check_estimable(Samples(matrix(MIN_SAMPLES), matrix(MIN_SAMPLES, 1)))


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match=r"x, y: expected at least 50 samples .* received 49; co"):
        check_estimable(Samples(matrix(49), matrix(49)))


@pytest.mark.parametrize("side", ["x", "y"])
def test_constant_columns_are_named_by_their_numbers(side):
    constant = matrix(60, 3)
    constant[:, [0, 2]] = 0.1
    samples = {"x": matrix(60), "y": matrix(60)} | {side: constant}
    with pytest.raises(ValueError, match=rf"^{side}: .* constant columns \[0, 2\]; .* drop them"):
        check_estimable(Samples(**samples))


# --- time -----------------------------------------------------------------------------------------


@given(
    length=st.integers(1, 12),
    gap=st.integers(0, 5),
    n=st.integers(0, 500),
)
def test_stretches_are_whole_and_a_gap_apart(length, gap, n):
    if n <= (MIN_GROUPS - 1) * (length + gap):
        with pytest.raises(ValueError, match="n: expected at least 20 stretches of"):
            stretches(n, length, gap=gap)
        return
    rows, groups = stretches(n, length, gap=gap)
    assert groups[0] == 0
    assert set(np.diff(groups)) <= {0, 1}
    apart = np.diff(rows)
    assert (apart[np.diff(groups) == 0] == 1).all()
    assert (apart[np.diff(groups) == 1] == gap + 1).all()
    assert (np.bincount(groups)[:-1] == length).all()
    assert n - gap <= rows[-1] + 1 <= n


def test_what_trains_is_never_a_neighbour_in_time_of_what_is_reported():
    rows, groups = stretches(2000, 30, gap=7)
    for parts in split_folds(
        len(rows), 4, torch.Generator().manual_seed(0), torch.from_numpy(groups)
    ):
        trained = rows[torch.cat([parts.train, parts.stop]).numpy()]
        distances = np.abs(trained[:, None] - rows[parts.report.numpy()])
        assert distances.min() == 8


@pytest.mark.parametrize(("name", "value"), [("length", 0), ("gap", -1)])
def test_stretches_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected at least {value + 1}, received"):
        stretches(1000, **{"length": 10} | {name: value})
