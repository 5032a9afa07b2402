"""Sums and differences of estimates on the same samples: their errors are paired, not added.

What pulls one estimate mostly pulls the other, so a difference is known better than its two parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from mi_estimators.objectives import Kind
from mi_estimators.readout import Evaluation
from mi_estimators.result import MIEstimate, Units, conversion, normal_interval

OPPOSITE: dict[Kind, Kind] = {
    "lower bound": "upper bound",
    "upper bound": "lower bound",
    "neither": "neither",
}


class Part(NamedTuple):
    """One estimate in a sum.

    Attributes:
        sign: 1, or -1 where it is taken off.
        quantity: What it estimates, as in "I(X, Z; Y)".
        estimate: Of that.
    """

    sign: int
    quantity: str
    estimate: MIEstimate


@dataclass(frozen=True, eq=False)
class Combination:
    """A signed sum of estimates on the same samples; `print` it for one sentence.

    Attributes:
        quantity: What it estimates, as in "I(X; Y | Z)".
        value: The sum, in `units`. Never clipped at 0.
        standard_error: Of `value`, from the sum of the parts' influences, and from what no
            influence shows (`MIEstimate.error_beyond_samples`).
        influence: How far each sample pulls the value, shape [N], mean 0.
        parts: What is summed.
        units: "nats" or "bits", of all of the above.
    """

    quantity: str
    value: float
    standard_error: float
    influence: np.ndarray = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    units: Units

    @property
    def kind(self) -> Kind:
        """What the value is in expectation: a bound only if all parts err to the same side."""
        kinds = {p.estimate.kind if p.sign > 0 else OPPOSITE[p.estimate.kind] for p in self.parts}
        return kinds.pop() if len(kinds) == 1 else "neither"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the parts warn of."""
        return tuple(f"{part.quantity}: {w}" for part in self.parts for w in part.estimate.warnings)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A confidence interval for the value, by its standard error (normal approximation).

        Where the truth is 0 and so is its first-order error (X independent of Y given Z), the law
        of the value is not normal, and the level holds only roughly.

        Raises:
            ValueError: If `level` is not between 0 and 1.
        """
        return normal_interval(self.value, self.standard_error, level)

    def to(self, units: Units) -> "Combination":
        """The same in "nats" or "bits".

        Raises:
            ValueError: If `units` is neither.
        """
        parts = tuple(part._replace(estimate=part.estimate.to(units)) for part in self.parts)
        factor = conversion(self.units, units)
        return replace(
            self,
            value=self.value * factor,
            standard_error=self.standard_error * factor,
            influence=self.influence * factor,
            parts=parts,
            units=units,
        )

    def __str__(self) -> str:
        def joined(texts: Sequence[str]) -> str:
            signs = [" + " if part.sign > 0 else " - " for part in self.parts]
            return "".join(map("".join, zip(signs, texts, strict=True))).removeprefix(" + ")

        kind = self.kind if self.kind != "neither" else "no bound"
        sentence = (
            f"{self.quantity} = {self.value:.3f} ± {self.standard_error:.3f} {self.units} ({kind}: "
            f"{joined([part.quantity for part in self.parts])} = "
            f"{joined([f'{part.estimate.value:.3f}' for part in self.parts])}; paired standard "
            f"error over {len(self.influence):,} samples)"
        )
        full = [part.quantity for part in self.parts if part.estimate.saturated]
        if full:
            sentence += f", with {' and '.join(full)} at the ceiling: do not trust it"
        elif abs(self.value) <= 2 * self.standard_error:
            sentence += ", not told from 0"
        return sentence + "."


def combine(quantity: str, parts: Sequence[Part], groups: Any = None) -> Combination:
    """The signed sum of estimates on the same samples, in the units of the first.

    Args:
        quantity: What it estimates.
        parts: What is summed.
        groups: The labels that the estimates were made with, shape `[N]`, if any: the standard
            error is then over groups.

    Raises:
        ValueError: If the estimates, or groups, are of different numbers of samples.
    """
    units = parts[0].estimate.units
    parts = tuple(part._replace(estimate=part.estimate.to(units)) for part in parts)
    sizes = [len(part.estimate.influence) for part in parts]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"estimates: expected all of the same samples, in the same order, received {sizes} "
            f"samples; estimate again on the rows that they share"
        )
    labels = None
    if groups is not None:
        array = np.asarray(groups)
        if array.shape != (sizes[0],):
            raise ValueError(
                f"groups: expected one label for each of {sizes[0]} samples, received shape "
                f"{list(array.shape)}"
            )
        labels = torch.from_numpy(np.unique(array, return_inverse=True)[1])
    influence = sum(part.sign * part.estimate.influence for part in parts)
    value = sum(part.sign * part.estimate.value for part in parts)
    error = math.hypot(
        Evaluation(value, torch.as_tensor(influence)).standard_error(labels),
        *(part.estimate.error_beyond_samples for part in parts),
    )
    return Combination(quantity, value, error, np.asarray(influence), parts, units)


def difference(a: MIEstimate, b: MIEstimate, *, groups: Any = None) -> Combination:
    """a - b of two estimates on the same samples, with the standard error of the difference.

    For two pairs of variables observed together, or two methods on one pair. Its error is over the
    samples: what the seed does to the critics, beyond that, only estimates with other seeds show.

    Args:
        a: An estimate.
        b: Another, on the same samples in the same order.
        groups: The labels that both were made with, shape `[N]`, if any.

    Returns:
        The difference, in the units of a.

    Raises:
        ValueError: If a, b and groups are of different numbers of samples.

    Example:
        >>> from mi_estimators import Budget, estimate_mi
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=1000)
        >>> y, z = x + rng.normal(size=(2, 1000))  # both know as much of x
        >>> a, b = (estimate_mi(x, of, budget=Budget(folds=2, steps=50)) for of in (y, z))
        >>> gap = difference(a, b)
        >>> abs(gap.value) < 4 * gap.standard_error
        True
    """
    return combine("A - B", [Part(1, "A", a), Part(-1, "B", b)], groups)
