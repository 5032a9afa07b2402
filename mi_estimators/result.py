"""MIEstimate: one number in nats, with all that is needed to read it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from mi_estimators.objectives import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Units = Literal["nats", "bits"]
NATS = {"nats": 1.0, "bits": math.log(2)}  # in one unit


def conversion(old: Units, new: Units) -> float:
    """What to multiply by on the way from old to new units.

    Raises:
        ValueError: If the new units are neither "nats" nor "bits".
    """
    if new not in NATS:
        raise ValueError(f"units: expected 'nats' or 'bits', received {new!r}")
    return NATS[old] / NATS[new]


def normal_interval(value: float, standard_error: float, level: float) -> tuple[float, float]:
    """A confidence interval, by the normal approximation.

    Raises:
        ValueError: If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, received {level}")
    half = float(ndtri((1 + level) / 2)) * standard_error
    return value - half, value + half


class Checkpoint(NamedTuple):
    """One look at a critic in training.

    Attributes:
        fold: Which of the cross-fitted critics.
        objective: What trained it at the time.
        step: Optimiser steps so far; 0 is what it must beat: the baseline, or T = 0.
        train: Mean of the objective over the minibatches since the last look.
        stop: The objective on the stopping part, which training did not see.
    """

    fold: int
    objective: str
    step: int
    train: float
    stop: float


@dataclass(frozen=True, eq=False)
class MIEstimate:
    """An estimate of mutual information; `print` it for one sentence.

    Attributes:
        value: Mutual information, in `units`. Never clipped at 0.
        standard_error: Of `value`, over the samples. It does not hold what the critic failed to
            learn.
        kind: "lower bound", "upper bound" or "neither", in expectation.
        origin: What produced the value: the "critic" alone, the "baseline" alone, "baseline and
            critic", or "neighbours".
        ceiling: Where the value stops meaning what it says: the most that the objective can reach
            (InfoNCE), or ln n, the most that any method can certify from the n samples of a fold
            (McAllester & Stratos 2020).
        certified: With 95 % confidence, at any sample size, I is at least this much: Ξ of a lower
            limit of the held-out Jensen-Shannon divergence (see `readout.certified_bound`). Far
            below `value`, and the only figure here that no critic can spoil.
        p_value: Of independence, by shuffling y among the held-out samples under the same critics:
            the probability of a dependence as clear as this by chance; with 999 shuffles, 0.001 at
            least. Exact for each fold. Over all it is too small where the critics tell noise from
            noise, as each knows the others' samples: linear critics of 20 independent columns show
            0.05 or less 12 % of the time; the default critic mostly falls back on its baseline and
            showed it never in 72 runs. None with groups.
        pointwise: log p(x, y) / p(x)p(y) of every sample by a critic that never saw it, shape [N],
            in the order of the input. Its mean is the plug-in estimate E_P[log r], which is no
            bound and in general not `value`.
        influence: How far each sample pulls the value, shape [N], mean 0: differences of estimates
            on the same samples have their standard error from the difference of these.
        baseline: The closed form's part of the value, None without one.
        effective_sample_size: Of the weights e^T over the independent pairs: how many carry the
            normaliser of the critic. Below about 100 it is not to be trusted, nor its standard
            error.
        readouts: What the same critics say by other readouts: the JSD readout, DV, InfoNCE (lower
            bounds) and the plug-in E_P[log r]. If they differ by much, trust none.
        history: Every look at every critic in training.
        objective: The objectives, as they print.
        warnings: What was noticed, and what to do about it.
        units: "nats" or "bits", of all of these but `history`.
        error_beyond_samples: Part of `standard_error` that no sample's influence shows: of a closed
            form's coefficients, and of what is simulated to judge it.
        groups: How many, if the samples were in groups: independent of each other.
    """

    value: float
    standard_error: float
    kind: Kind
    origin: str
    ceiling: float
    certified: float
    p_value: float | None
    pointwise: np.ndarray = field(repr=False)
    influence: np.ndarray = field(repr=False)
    baseline: float | None
    effective_sample_size: float
    readouts: dict[str, float]
    history: tuple[Checkpoint, ...] = field(repr=False)
    objective: str
    warnings: tuple[str, ...] = ()
    units: Units = "nats"
    error_beyond_samples: float = 0.0
    groups: int | None = None
    scorer: Callable[..., np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error)):
            raise FloatingPointError(
                f"value: expected a finite estimate, received {self.value} ± {self.standard_error} "
                f"from {self.objective}: its exponential overflowed; try InfoNCE() or SMILE(), "
                f"or more samples"
            )

    @property
    def gain(self) -> float | None:
        """What the value adds to the baseline, maybe negative; None without one."""
        return None if self.baseline is None else self.value - self.baseline

    @property
    def saturated(self) -> bool:
        """Whether the value is within 10 % of its ceiling, or above it."""
        return self.value > 0.9 * self.ceiling

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A confidence interval for the value, by its standard error (normal approximation).

        It covers the mutual information as often as it says where the critic, or the baseline, is
        adequate; what they miss it does not know of.

        Raises:
            ValueError: If `level` is not between 0 and 1.
        """
        return normal_interval(self.value, self.standard_error, level)

    def to(self, units: Units) -> "MIEstimate":
        """The same estimate in "nats" or "bits".

        Raises:
            ValueError: If `units` is neither.
        """
        factor = conversion(self.units, units)
        return replace(
            self,
            value=self.value * factor,
            standard_error=self.standard_error * factor,
            error_beyond_samples=self.error_beyond_samples * factor,
            ceiling=self.ceiling * factor,
            certified=self.certified * factor,
            pointwise=self.pointwise * factor,
            influence=self.influence * factor,
            baseline=None if self.baseline is None else self.baseline * factor,
            readouts={name: value * factor for name, value in self.readouts.items()},
            units=units,
        )

    def score(self, x: Any, y: Any) -> np.ndarray:
        """Log-ratios of new pairs by the mean of the critics, shape [M], in `units`.

        Raises:
            ValueError: If the estimate was loaded from a file, which holds no critics.
        """
        if self.scorer is None:
            raise ValueError(
                "score: expected an estimate with its critics, received one from a file; estimate "
                "again with the same seed"
            )
        return self.scorer(x, y) / NATS[self.units]

    def save(self, path: str | Path) -> None:
        """Write all but the critics as JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scorer"}
        values |= {name: getattr(self, name).tolist() for name in ("pointwise", "influence")}
        Path(path).write_text(json.dumps(values, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "MIEstimate":
        """Read what `save` wrote."""
        values = json.loads(Path(path).read_text())
        return cls(
            **values
            | {
                "pointwise": np.array(values["pointwise"]),
                "influence": np.array(values["influence"]),
                "history": tuple(Checkpoint(*look) for look in values["history"]),
                "warnings": tuple(values["warnings"]),
            }
        )

    def __str__(self) -> str:
        sentence = f"I(X; Y) = {self.value:.3f} ± {self.standard_error:.3f} {self.units} ("
        kind = self.kind if self.kind != "neither" else "no bound"
        closed = "" if self.baseline is None else f"{self.baseline:.3f} in closed form"
        gain = f"{self.gain or 0:+.3f} by a critic of {self.objective} on held-out samples"
        sentence += {
            "critic": f"{kind} by {self.objective}, on held-out samples",
            "baseline": f"{kind}: {closed}, to which a critic had nothing to add",
            "baseline and critic": f"{kind}: {closed}, {gain}",
            "neighbours": f"{kind}, by nearest neighbours",
        }[self.origin]
        over = f"{len(self.pointwise):,} samples"
        if self.groups is not None:
            over = f"{self.groups:,} groups of {over}"
        sentence += f"; standard error over {over})"
        if self.saturated:
            place = "above" if self.value > self.ceiling else "at"
            sentence += (
                f", {place} its ceiling of {self.ceiling:.2f}, the most that so many samples can "
                f"show: the true value is likely higher"
            )
        elif self.value == 0 and not np.any(self.pointwise):
            sentence += ": no critic told the pairs from independent ones"
        elif self.value < 0:
            sentence += ": negative, so no dependence was found"
        if self.warnings:
            sentence += "; read its warnings"
        return sentence + "."

    def plot(self) -> "Figure":
        """Training, pointwise log-ratios, and the bracket of readouts, as a matplotlib figure.

        Raises:
            ModuleNotFoundError: Without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "plot: expected matplotlib, which is not installed; pip install matplotlib"
            ) from error
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        training, histogram, bracket = figure.subplots(1, 3)
        self._plot_training(training)
        histogram.hist(self.pointwise, bins=80, color="#0072B2")
        histogram.axvline(self.value, color="black", label="value")
        histogram.set(xlabel=f"pointwise log-ratio ({self.units})", ylabel="samples")
        histogram.legend()
        names = ["value", "certified", *self.readouts]
        numbers = [self.value, self.certified, *self.readouts.values()]
        bracket.plot(numbers, range(len(names)), "o", color="#0072B2")
        low, high = self.interval()
        bracket.plot([low, high], [0, 0], color="#0072B2", label="95 % interval")
        bracket.axvline(self.ceiling, color="grey", linestyle=":", label="ceiling")
        bracket.set_yticks(range(len(names)), names)
        bracket.invert_yaxis()
        bracket.set(xlabel=self.units)
        bracket.legend()
        figure.suptitle(str(self), fontsize=9)
        return figure

    def _plot_training(self, axes: Any) -> None:
        colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
        objectives = list(dict.fromkeys(look.objective for look in self.history))
        for fold, objective in dict.fromkeys((look.fold, look.objective) for look in self.history):
            looks = [look for look in self.history if look[:2] == (fold, objective)]
            axes.plot(
                [look.step for look in looks],
                [look.stop for look in looks],
                color=colours[objectives.index(objective) % len(colours)],
                label=objective if fold == 0 else None,
                alpha=0.7,
            )
        axes.set(xlabel="step", ylabel="objective on the stopping part (nats)")
        axes.legend()
