"""MIEstimate: one number in nats, with all that is needed to read it."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mi_estimators.objectives import Kind


class Checkpoint(NamedTuple):
    """One look at a critic in training.

    Attributes:
        fold: Which of the cross-fitted critics.
        step: Optimiser steps so far; 0 is independence, T = 0.
        train: Mean of the objective over the minibatches since the last look.
        stop: The objective on the stopping part, which training did not see.
    """

    fold: int
    step: int
    train: float
    stop: float


@dataclass(frozen=True, eq=False)
class MIEstimate:
    """An estimate of mutual information; `print` it for one sentence.

    Attributes:
        value: Mutual information in nats. Never clipped at 0.
        standard_error: Of `value`, in nats, over the samples that it is reported on. It does not
            hold what the critic failed to learn.
        kind: "lower bound", "upper bound" or "neither", in expectation.
        ceiling: Where the value stops meaning what it says, in nats: the most that the objective
            can reach (InfoNCE), or ln n, the most that any method can certify from the n samples of
            a fold (McAllester & Stratos 2020).
        pointwise: log p(x, y) / p(x)p(y) of every sample by a critic that never saw it, shape [N],
            in nats and in the order of the input. Its mean is the plug-in estimate E_P[log r],
            which is no bound and in general not `value`.
        history: Every look at every critic in training.
        objective: The objective, as it prints.
    """

    value: float
    standard_error: float
    kind: Kind
    ceiling: float
    pointwise: np.ndarray = field(repr=False)
    history: tuple[Checkpoint, ...] = field(repr=False)
    objective: str

    @property
    def saturated(self) -> bool:
        """Whether the value is within 10 % of its ceiling, or above it."""
        return self.value > 0.9 * self.ceiling

    def __str__(self) -> str:
        sentence = f"I(X; Y) = {self.value:.3f} ± {self.standard_error:.3f} nats"
        kind = self.kind if self.kind != "neither" else "no bound"
        sentence += f" ({kind} by {self.objective}, standard error over {len(self.pointwise):,}"
        sentence += " held-out samples)"
        if self.saturated:
            sentence += (
                f", at its ceiling of {self.ceiling:.2f}, the most that so many samples can show: "
                f"the true value is likely higher"
            )
        elif self.value == 0 and not np.any(self.pointwise):
            sentence += ": no critic told the pairs from independent ones"
        elif self.value < 0:
            sentence += ": negative, so no dependence was found"
        return sentence + "."

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error)):
            raise FloatingPointError(
                f"value: expected a finite estimate, received {self.value} ± {self.standard_error} "
                f"from {self.objective}: its exponential overflowed; try InfoNCE() or SMILE(), "
                f"or more samples"
            )
