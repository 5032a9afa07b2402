"""A look at the data before an estimate: what would stop it, what would spoil it, what to do.

Nothing here trains, and nothing raises: bad data is what it is for.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from torch import Tensor

from mi_estimators.baselines import GaussianCopula
from mi_estimators.canonical import LARGEST, MANY, nats_of_noise
from mi_estimators.preprocess import Compress, NormalScores, OneHot
from mi_estimators.samples import MIN_SAMPLES
from mi_estimators.training import Budget

Level = Literal["error", "warning", "note"]

FEW = 500  # pairs, below which little is seen
CONTINUOUS = 0.5  # of the rows are distinct values, at least
HEAVY = 0.05  # of the rows are on one value of a column that is else continuous
AUTOCORRELATED = 0.1  # rank correlation of rows with those before them
LOOKED_AT = 4096  # rows, for functions of one another
SMOOTH = 3  # columns at most, among which neighbours are near enough to show a function
UNEXPLAINED = 0.05  # of a column's quartile range, at most, is left by a function
EXACT = 1e-9  # of it is left by rounding
NAMED = 5  # columns or rows at most in one finding


@dataclass(frozen=True)
class Finding:
    """Something about the data.

    Attributes:
        level: "error": `estimate_mi` refuses it; "warning": the number would mislead; "note": good
            to know.
        what: Was found.
        where: In which of x and y, which columns or rows.
        remedy: What to do about it.
    """

    level: Level
    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level:<7}  {self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Report:
    """What was found; `print` it for a list, the worst first.

    Attributes:
        findings: In that order.
        n: Samples that can be used.
        dim_x: Columns of x.
        dim_y: Columns of y.
    """

    findings: tuple[Finding, ...]
    n: int
    dim_x: int
    dim_y: int

    @property
    def ok(self) -> bool:
        """Whether `estimate_mi` takes the data: there is no finding of level "error"."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def ceiling(self) -> float:
        """ln n in nats: the most that n samples can certify (McAllester & Stratos 2020)."""
        return math.log(max(1, self.n))

    def __str__(self) -> str:
        head = (
            f"{self.n:,} usable pairs of {self.dim_x} and {self.dim_y} columns, which can show up "
            f"to {self.ceiling:.1f} nats; "
        )
        if not self.findings:
            return head + "nothing was found."
        counts = [(level, sum(f.level == level for f in self.findings)) for level in _ORDER]
        found = ", ".join(f"{n} {level}{'s' * (n > 1)}" for level, n in counts if n)
        return "\n".join([f"{head}{found}.", *map(str, self.findings)])


_ORDER: tuple[Level, ...] = ("error", "warning", "note")


def preflight(x: Any, y: Any) -> Report:
    """Look for what would stop or spoil an estimate of I(X; Y). Never raises on bad data.

    NaN and infinities; constant columns; copies of rows and of columns; labels, ties and rounding;
    a column that x and y share, or one side that is a function of the other (the information is
    then infinite); too many columns, or too much information, for so few samples; rows in order of
    time. Findings about values are of the rows without NaN and infinities.

    Args:
        x: Samples, meant to be of shape `[N]` or `[N, d_x]`.
        y: Their partners, meant to be of shape `[N]` or `[N, d_y]`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(1000, 2))
        >>> y = np.exp(x[:, 0])
        >>> x[3] = np.nan
        >>> print(preflight(x, y))
        999 usable pairs of 2 and 1 columns, which can show up to 6.9 nats; 1 error, 1 warning.
        error    x[0], x[1]: NaN or infinity in 1 of 1,000 rows (row 3); drop or impute these ...
        warning  x[0], y[0]: the same column, up to an increasing or decreasing map: the infor...
    """
    found: list[Finding] = []
    sides = {name: _as_matrix(name, data, found) for name, data in (("x", x), ("y", y))}
    (a, b), lengths = sides.values(), [len(side) for side in sides.values()]
    if min(lengths) and lengths[0] != lengths[1]:
        found.append(
            Finding(
                "error",
                f"{lengths[0]} and {lengths[1]} samples",
                "x, y",
                "row i of x and of y must be one pair: align them (here, the first rows were "
                "taken for pairs)",
            )
        )
    a, b = a[: min(lengths)], b[: min(lengths)]
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    for name, side in (("x", a), ("y", b)):
        bad = np.flatnonzero(~np.isfinite(side).all(1))
        if len(bad):
            found.append(
                Finding(
                    "error",
                    f"NaN or infinity in {len(bad):,} of {len(side):,} rows (row {_some(bad)})",
                    _columns(name, np.flatnonzero(~np.isfinite(side).all(0))),
                    "drop or impute these rows in x and y",
                )
            )
    pairs = _Pairs(a[finite], b[finite])
    for check in _CHECKS:
        found += check(pairs)
    found.sort(key=lambda finding: _ORDER.index(finding.level))
    return Report(tuple(found), len(pairs.x), a.shape[1], b.shape[1])


class _Pairs(NamedTuple):
    """Finite float64 matrices of as many rows, maybe of none, maybe without columns."""

    x: np.ndarray
    y: np.ndarray

    def sides(self) -> Iterator[tuple[str, np.ndarray]]:
        """Both, by name."""
        yield from (("x", self.x), ("y", self.y))


def _as_matrix(name: str, data: Any, found: list[Finding]) -> np.ndarray:
    """Shape [N, d], float64; what is no number is numbered."""
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = data.double() if data.is_floating_point() else data  # NumPy has no bfloat16
    try:
        array = np.asarray(data)
    except (ValueError, TypeError):  # rows of different lengths, a sparse tensor
        array = np.empty(0)
    if array.ndim == 0 or not array.size:
        what = f"no samples, but {type(data).__name__} of shape {list(array.shape)}"
        found.append(Finding("error", what, name, "pass an array of shape [N] or [N, d]"))
        return np.empty((0, 0))
    if array.ndim > 2:
        what = f"{array.ndim} axes, of shape {list(array.shape)}"
        remedy = f"flatten each sample to one row: {name}.reshape(len({name}), -1)"
        found.append(Finding("error", what, name, remedy))
    array = array.reshape(len(array), -1)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    columns = [_numbers(column) for column in array.T]
    names = [k for k, column in enumerate(columns) if column is None]
    if names:
        what, remedy = (
            f"no real numbers, but {array.dtype}",
            "encode categories as numbers, np.unique(..., return_inverse=True)[1], drop the rest",
        )
    else:
        what, remedy = f"numbers held as {array.dtype}", f"pass np.asarray({name}, dtype=float)"
    found.append(Finding("error", what, _columns(name, names or range(len(columns))), remedy))
    return np.stack(
        [_codes(c) if n is None else n for c, n in zip(array.T, columns, strict=True)], 1
    )


def _numbers(column: np.ndarray) -> np.ndarray | None:
    """Shape [N] in float64; None if there are things that are no real numbers."""
    if column.dtype.kind != "O":  # names, dates, complex numbers
        return None
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _codes(column: np.ndarray) -> np.ndarray:
    """Things of any kind, numbered; shape [N]."""
    return np.unique(column.astype(str), return_inverse=True)[1].astype(np.float64)


# --- Checks: findings about finite numbers --------------------------------------------------------


def _too_few(pairs: _Pairs) -> Iterator[Finding]:
    n, folds = len(pairs.x), Budget().folds
    if n < MIN_SAMPLES:
        remedy = f"collect {MIN_SAMPLES}, better 1,000 or more"
        yield Finding("error", f"only {n} pairs to train and test on", "x, y", remedy)
    elif n < FEW:
        yield Finding(
            "warning",
            f"only {n} pairs, of which each critic is tested on {n // folds}",
            "x, y",
            "expect wide intervals, and that weak or intricate dependence is missed",
        )


def _too_wide(pairs: _Pairs) -> Iterator[Finding]:
    n, dim_x, dim_y = len(pairs.x), pairs.x.shape[1], pairs.y.shape[1]
    noise = nats_of_noise(n, dim_x, dim_y) if n else 0.0
    if n < MIN_SAMPLES:
        return
    if noise > MANY:
        yield Finding(
            "warning",
            f"{dim_x} x {dim_y} columns for {n:,} pairs: a linear map fits {noise:.1f} nats to "
            f"noise, so weak dependence is missed",
            "x, y",
            f"reduce the dimensions (principal components, an encoder), or collect "
            f"{round(dim_x * dim_y / (2 * MANY)):,} pairs",
        )
    most = n * (1 - 1 / Budget().folds) * 7 / 8 // Compress().samples_per_column
    for name, side in pairs.sides():
        if side.shape[1] > most:
            yield Finding(
                "note",
                f"{side.shape[1]} columns, of which `Compress` keeps {most:.0f} principal "
                f"components",
                name,
                "choose the components, or an encoder, yourself: what they leave out is not in "
                "the value",
            )


def _too_much(pairs: _Pairs) -> Iterator[Finding]:
    n, sides = len(pairs.x), [torch.from_numpy(_varying(side)) for _, side in pairs.sides()]
    dim_x, dim_y = (side.shape[1] for side in sides)
    if n < MIN_SAMPLES or not min(dim_x, dim_y) or nats_of_noise(n, dim_x, dim_y) > MANY:
        return
    if dim_x + dim_y > n // 2:
        return
    x, y = (NormalScores().fit(side)(side) for side in sides)
    if GaussianCopula().fit(x, y).correlations.max() >= LARGEST:
        return  # a function, or the same
    nats, ceiling = GaussianCopula().information(x, y).value, math.log(n / Budget().folds)
    if nats > 0.8 * ceiling:
        yield Finding(
            "warning",
            f"about {nats:.1f} nats already in closed form, where the {n // Budget().folds:,} "
            f"pairs that a critic is tested on can show {ceiling:.1f}",
            "x, y",
            f"collect about {5 * Budget().folds * math.exp(min(nats, 20)):,.0f} pairs, or read "
            f"the value as 'at least'",
        )


def _constant(pairs: _Pairs) -> Iterator[Finding]:
    for name, side in pairs.sides():
        constant = np.setdiff1d(np.arange(side.shape[1]), _varying_columns(side))
        if len(side) and len(constant):
            what = "constant, so without information"
            yield Finding("error", what, _columns(name, constant), "drop it")


def _copied_columns(pairs: _Pairs) -> Iterator[Finding]:
    for name, side in pairs.sides():
        first: dict[bytes, int] = {}
        columns = {int(k): np.ascontiguousarray(side[:, k]) for k in _varying_columns(side)}
        of = {k: first.setdefault(column.tobytes(), k) for k, column in columns.items()}
        copies = {k: original for k, original in of.items() if original != k}
        if copies:
            yield Finding(
                "note",
                f"a copy of {_columns(name, dict.fromkeys(copies.values()))}",
                _columns(name, copies),
                "drop it: it adds no information",
            )


def _copied_rows(pairs: _Pairs) -> Iterator[Finding]:
    copies = _copies(pairs)
    if len(copies):
        yield Finding(
            "warning",
            f"{len(copies):,} of {len(pairs.x):,} rows repeat an earlier one (row "
            f"{_some(copies)}), so that critics are tested on what they were trained on",
            "x, y",
            "drop them, or keep them together: groups=np.unique(np.column_stack([x, y]), axis=0, "
            "return_inverse=True)[1].ravel()",
        )


def _ties(pairs: _Pairs) -> Iterator[Finding]:
    originals = np.setdiff1d(np.arange(len(pairs.x)), _copies(pairs))
    n = len(originals)
    if n < MIN_SAMPLES:
        return
    for name, side in _Pairs(pairs.x[originals], pairs.y[originals]).sides():
        labels, counts, heavy, rounded = [], [], {}, {}
        for k in map(int, _varying_columns(side)):
            values, times = np.unique(side[:, k], return_counts=True)
            whole = bool((values == values.round()).all())
            rest = np.delete(values, times.argmax())
            if len(values) == 2:
                continue
            if whole and len(values) <= min(OneHot().most, n // 10):
                labels.append(k)
            elif times.max() > HEAVY * n and len(rest) > CONTINUOUS * (n - times.max()):
                heavy[k] = f"{values[times.argmax()]:g} in {times.max() / n:.0%} of rows"
            elif len(values) > CONTINUOUS * n:
                continue
            elif whole:
                counts.append(k)
            else:
                rounded[k] = len(values)
        if labels:
            yield Finding(
                "note",
                f"up to {OneHot().most} whole numbers, which are taken for labels",
                _columns(name, labels),
                "if they are quantities, leave `OneHot` out: preprocess=(NormalScores(), "
                "Compress())",
            )
        if counts:
            yield Finding(
                "note",
                "whole numbers that repeat, which are taken for quantities",
                _columns(name, counts),
                "if they are labels, pass indicators, or preprocess=(OneHot(most=...), ...)",
            )
        if heavy:
            yield Finding(
                "warning",
                f"one value among continuous ones, {_some(heavy.values())}",
                _columns(name, heavy),
                f"if it stands for something else (missing, off the scale), add a column that "
                f"says where: {name}[:, k] == value",
            )
        if rounded:
            yield Finding(
                "warning",
                f"rounded, to {_some(rounded.values())} distinct values in {n:,} rows: distances "
                f"between neighbours are those of the grid",
                _columns(name, rounded),
                "use the data from before rounding, or pass neighbours=None",
            )


def _shared(pairs: _Pairs) -> Iterator[Finding]:
    if len(pairs.x) < MIN_SAMPLES:
        return
    for k, j in _shared_columns(pairs).items():
        times = np.unique(pairs.y[:, k], return_counts=True)[1]
        share = times / times.sum()
        where, what = f"x[{j}], y[{k}]", "the same column, up to an increasing or decreasing map"
        if len(times) > CONTINUOUS * len(pairs.y):
            what += ": the information is infinite, and an estimate only counts samples"
            yield Finding("warning", what, where, "drop it from one side")
        else:
            what += f": its entropy, {-(share * np.log(share)).sum():.2f} nats, is in the value"
            yield Finding("note", what, where, "drop it from one side, unless that is meant")


def _functions(pairs: _Pairs) -> Iterator[Finding]:
    unique = np.unique(np.concatenate(pairs, 1), axis=0, return_index=True)[1]
    rows = np.random.default_rng(0).permutation(unique)[:LOOKED_AT]
    if len(rows) < MIN_SAMPLES:
        return
    known = _shared_columns(pairs)
    for of, source, to, target, skip in (
        ("x", pairs.x, "y", pairs.y, set(known)),
        ("y", pairs.y, "x", pairs.x, set(known.values())),
    ):
        given = _scaled(_varying(source[rows]))
        left = [k for k in map(int, _varying_columns(target[rows])) if k not in skip]
        left = [k for k in left if len(np.unique(target[rows, k])) > CONTINUOUS * len(rows)]
        if not left or not given.shape[1]:
            continue
        sought = _scaled(target[rows][:, left])
        exact = _linear(given, sought)
        if given.shape[1] <= SMOOTH and len(np.unique(given, axis=0)) > CONTINUOUS * len(rows):
            exact |= _smooth(given, sought)
        if exact.any():
            yield Finding(
                "warning",
                f"a function of {of}, as far as {len(rows):,} rows can tell: the information is "
                f"then infinite, and an estimate only counts samples",
                _columns(to, np.array(left)[exact]),
                "drop it, or add the noise that it is measured with",
            )


def _linear(x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]) -> Bool[np.ndarray, " dy"]:
    """Which columns of y are linear in those of x, up to rounding."""
    if 2 * (x.shape[1] + 1) > len(x):
        return np.zeros(y.shape[1], dtype=bool)
    design = np.column_stack([x, np.ones(len(x))])
    basis = np.linalg.qr(design)[0]
    rest = y - basis @ (basis.T @ y)
    return rest.std(0) < EXACT * y.std(0)


def _smooth(x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]) -> Bool[np.ndarray, " dy"]:
    """Which columns of y are smooth in x: what neighbours leave unexplained shrinks with n.

    Of planes through a point's neighbours, the error at the point is the square of their distance,
    n^(-2/d), where y is a function, and that of the noise, whatever n, where it is not.
    """
    few = len(x) // 4
    now, before = _unexplained(x, y), _unexplained(x[:few], y[:few])
    shrinks = np.log(np.maximum(before, EXACT) / np.maximum(now, EXACT)) / math.log(4)
    return (now < EXACT) | (now < UNEXPLAINED) & (shrinks > 0.6 * 2 / x.shape[1])


def _unexplained(
    x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]
) -> Float[np.ndarray, " dy"]:
    """Median error of y as predicted by a plane through the neighbours in x."""
    dim = x.shape[1]
    near = cKDTree(x).query(x, 2 * (dim + 1) + 1)[1][:, 1:]
    design = np.concatenate([np.ones((*near.shape, 1)), x[near] - x[:, None]], 2)
    gram = design.transpose(0, 2, 1) @ design
    ridge = EXACT * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(dim + 1)
    planes = np.linalg.solve(gram + ridge, design.transpose(0, 2, 1) @ y[near])
    return np.median(np.abs(planes[:, 0] - y), 0)


def _ordered(pairs: _Pairs) -> Iterator[Finding]:
    n = len(pairs.x)
    if n < MIN_SAMPLES:
        return
    sorted_by: list[str] = []
    like_last: dict[tuple[str, int], float] = {}
    for name, side in pairs.sides():
        columns = _varying_columns(side)
        before, after = side[:-1, columns], side[1:, columns]
        ordered = (before <= after).all(0) | (before >= after).all(0)
        sorted_by += [f"{name}[{k}]" for k in columns[ordered]]
        ranks = _scaled_ranks(side[:, columns])
        correlations = (ranks[1:] * ranks[:-1]).mean(0)
        like_last |= {(name, int(k)): r for k, r in zip(columns, correlations, strict=True)}
    if sorted_by:
        yield Finding(
            "note",
            "the rows are sorted, so that no order of time can be looked for",
            _some(sorted_by),
            "if it is time, it may be all that x and y share: condition on it by "
            "estimate_conditional_mi(x, y, time)",
        )
        return
    least = max(AUTOCORRELATED, 5 / math.sqrt(n))
    found = {key: r for key, r in like_last.items() if r > least}
    if found:
        name, k = max(found, key=lambda key: found[key])
        length = _stretch(_scaled_ranks(getattr(pairs, name)[:, [k]])[:, 0])
        yield Finding(
            "warning",
            f"each row is like the one before it (rank correlation {found[name, k]:.2f} in "
            f"{name}[{k}]), as in order of time: the samples are fewer than they seem",
            _some([f"{name}[{k}]" for name, k in found]),
            f"keep stretches together: groups=np.arange(len(x)) // {length}",
        )


def _stretch(column: Float[np.ndarray, " n"]) -> int:
    """Rows in a stretch, five times as long as a standardised column remembers; 20 stretches."""
    n = len(column)
    spectrum = np.abs(np.fft.rfft(column, 2 * n)) ** 2
    remembered = np.fft.irfft(spectrum)[:n] / n
    forgotten = int((remembered < AUTOCORRELATED).argmax()) or n
    return max(2, min(5 * forgotten, n // 20))


_CHECKS: tuple[Callable[[_Pairs], Iterator[Finding]], ...] = (
    _too_few,
    _constant,
    _copied_rows,
    _shared,
    _functions,
    _too_wide,
    _too_much,
    _ordered,
    _ties,
    _copied_columns,
)


# --- Parts of them --------------------------------------------------------------------------------


def _varying_columns(side: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " e"]:
    return np.flatnonzero((side != side[:1]).any(0))


def _varying(side: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
    return np.ascontiguousarray(side[:, _varying_columns(side)])


def _copies(pairs: _Pairs) -> Int[np.ndarray, " c"]:
    """Rows that repeat an earlier one; none where all columns are labels, which have to repeat."""
    both = np.concatenate(pairs, 1)
    if not both.size or max(len(np.unique(column)) for column in both.T) <= len(both) / 10:
        return np.array([], dtype=np.int64)
    first = np.unique(both, axis=0, return_index=True)[1]
    return np.setdiff1d(np.arange(len(both)), first)


def _shared_columns(pairs: _Pairs) -> dict[int, int]:
    """Columns of y whose ranks, or reversed ranks, are those of a column of x: the first such."""
    of_x: dict[bytes, int] = {}
    for j in _varying_columns(pairs.x):
        of_x.setdefault(rankdata(pairs.x[:, j]).tobytes(), int(j))
    shared = {}
    for k in _varying_columns(pairs.y):
        for sign in (1, -1):
            ranks = rankdata(sign * pairs.y[:, k]).tobytes()
            if ranks in of_x:
                shared[int(k)] = of_x[ranks]
    return shared


def _scaled(side: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Columns of median 0 and quartiles 1 apart, or of unit variance; no number is beyond 1e9."""
    side = side / np.abs(side).max(0)  # so that nothing overflows
    low, middle, high = np.quantile(side, [0.25, 0.5, 0.75], axis=0)
    scale = np.maximum(np.where(high > low, high - low, side.std(0)), 1e-100)
    return ((side - middle) / scale).clip(-1e9, 1e9)


def _scaled_ranks(side: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    ranks = rankdata(side, axis=0)
    return (ranks - ranks.mean(0)) / ranks.std(0)


def _columns(name: str, columns: Iterable[Any]) -> str:
    """As in "x[0], x[3]"."""
    return _some([f"{name}[{k}]" for k in columns])


def _some(items: Iterable[Any]) -> str:
    """The first of them, and how many more."""
    items = list(items)
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return ", ".join(map(str, items[:NAMED])) + more
