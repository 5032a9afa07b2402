"""Samples: pairs of rows, and the checks that arrays pass to become some."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

MIN_SAMPLES = 50
MIN_GROUPS = 20


@dataclass(frozen=True)
class Samples:
    """Pairs (x_i, y_i), row by row.

    Attributes:
        x: Shape `[N, dx]`.
        y: Shape `[N, dy]`.
        groups: A label for each; samples of one group are not independent of each other. None:
            each is its own group.
    """

    x: Float[Tensor, "N dx"]
    y: Float[Tensor, "N dy"]
    groups: Int64[Tensor, " N"] | None = None

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.x)

    @property
    def independent(self) -> int:
        """How many are independent of each other: as many as there are groups."""
        return len(self) if self.groups is None else len(self.groups.unique())

    def group_numbers(self) -> Int64[Tensor, " N"] | None:
        """The groups as 0 ... G - 1, on the CPU: of a part of the samples, labels have gaps."""
        return None if self.groups is None else self.groups.cpu().unique(return_inverse=True)[1]

    def __getitem__(self, rows: Tensor) -> "Samples":
        """Some of the pairs, by their numbers."""
        rows = rows.to(self.x.device)
        groups = None if self.groups is None else self.groups[rows.to(self.groups.device)]
        return Samples(self.x[rows], self.y[rows], groups)


def as_samples(x: Any, y: Any, groups: Any = None) -> Samples:
    """Pairs from two arrays, as float64 matrices, and groups numbered from 0 from labels.

    Raises:
        TypeError: If x or y does not hold real numbers.
        ValueError: If x, y and groups differ in length, hold NaN or infinities, or have more than 2
            axes (groups: 1).
    """
    a, b = as_matrix("x", x), as_matrix("y", y)
    if len(a) != len(b):
        raise ValueError(
            f"y: expected as many samples as x, {len(a)}, received {len(b)}; row i of x and of y "
            f"must be one pair"
        )
    if groups is None:
        return Samples(a, b)
    labels = np.asarray(groups)
    if labels.shape != (len(a),):
        raise ValueError(
            f"groups: expected one label for each of {len(a)} samples, received shape "
            f"{list(labels.shape)}"
        )
    return Samples(a, b, torch.from_numpy(np.unique(labels, return_inverse=True)[1]))


def stretches(n: int, length: int, *, gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut a time series into stretches that know little of each other, as groups of samples.

    Neighbours in time are alike: one that trained a critic gives away the other, and is no negative
    for it. In the same stretch they are never on two sides, and between two stretches `gap`
    samples are left out.

    Args:
        n: Samples, in the order of time.
        length: Samples in a stretch, the last one excepted; many times the correlation time.
        gap: Samples left out after each stretch; the correlation time, or a few of it.

    Returns:
        The numbers of the samples that are kept, and the group of each of them.

    Raises:
        ValueError: If length is less than 1, gap is negative, or n has fewer than 20 stretches.

    Example:
        >>> rows, groups = stretches(2000, length=40, gap=10)
        >>> len(rows), len(set(groups.tolist()))
        (1600, 40)

        Then `estimate_mi(x[rows], y[rows], groups=groups)`; with pandas, `x.iloc[rows]`.
    """
    for name, value, least in (("length", length, 1), ("gap", gap, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, received {value}")
    number, place = np.divmod(np.arange(n), length + gap)
    rows = np.flatnonzero(place < length)
    groups = number[rows]
    if len(rows) == 0 or groups[-1] + 1 < MIN_GROUPS:
        raise ValueError(
            f"n: expected at least {MIN_GROUPS} stretches of {length} + {gap} samples, received "
            f"{n} samples; make the stretches shorter, or collect more"
        )
    return rows, groups


def check_estimable(samples: Samples) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        ValueError: With fewer than 50 samples or 20 groups, or constant columns.
    """
    if len(samples) < MIN_SAMPLES:
        raise ValueError(
            f"x, y: expected at least {MIN_SAMPLES} samples to train and test on, received "
            f"{len(samples)}; collect more pairs"
        )
    if samples.groups is not None:
        sizes = samples.groups.bincount()
        if len(sizes) < MIN_GROUPS:
            raise ValueError(
                f"groups: expected at least {MIN_GROUPS} groups, received {len(sizes)}; make them "
                f"smaller, or leave them out"
            )
        if 2 * int(sizes.max()) > len(samples):
            raise ValueError(
                f"groups: expected none with more than half of the {len(samples)} samples, "
                f"received one with {int(sizes.max())}; take some samples of it"
            )
    for name, side in (("x", samples.x), ("y", samples.y)):
        check_varies(name, side)


def check_varies(name: str, samples: Float[Tensor, "N d"]) -> None:
    """Refuse columns that carry no information.

    Raises:
        ValueError: With constant columns.
    """
    constant = (samples == samples[:1]).all(0).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"{name}: expected columns that vary, received constant columns {constant}; they "
            f"carry no information: drop them"
        )


def device_of(data: Any, device: torch.device | str | None) -> torch.device:
    """The device that was asked for, else where the data is, if a tensor, else the CPU."""
    if device is not None:
        return torch.device(device)
    return data.device if isinstance(data, Tensor) else torch.device("cpu")


def as_matrix(name: str, data: Any) -> Float[Tensor, "N d"]:
    """Samples in any container as a float64 matrix; a single axis is a single column.

    Raises:
        TypeError: If the data does not hold real numbers.
        ValueError: If it holds NaN, infinities or nothing, or has more than 2 axes.
    """
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = data.double() if data.is_floating_point() else data  # NumPy has no bfloat16
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: expected real numbers, received dtype {array.dtype}; encode categories as "
            f"numbers and drop other columns"
        )
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name}: expected shape [N] or [N, d], received {list(array.shape)}; flatten each "
            f"sample to one row, as in {name}.reshape(len({name}), -1)"
        )
    if not array.size:
        raise ValueError(f"{name}: expected samples, received shape {list(array.shape)}: none")
    array = array.astype(np.float64).reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: expected finite numbers, received NaN or infinity in {len(bad)} of "
            f"{len(array)} rows, the first of them {bad[0]}; drop or impute these rows in x and y"
        )
    return torch.from_numpy(array)
