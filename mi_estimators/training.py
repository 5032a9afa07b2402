"""Training a critic on samples: minibatches, moving averages of the weights, when to stop."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from mi_estimators.critics import Critic
from mi_estimators.estimator import MIEstimator
from mi_estimators.readout import evaluate, score_blocks
from mi_estimators.samples import Samples

LOOK_EVERY = 50  # steps between looks at the stopping part


@dataclass(frozen=True)
class Budget:
    """How much work goes into an estimate.

    Attributes:
        folds: Number of critics; each is read out on 1/folds of the samples.
        steps: Optimiser steps at most, for each critic and objective.
        batch_size: Samples in a minibatch.
        learning_rate: Of AdamW, at the peak of a one-cycle schedule.
        patience: Training stops after this many looks (50 steps apart) without a better one.

    Raises:
        ValueError: If a number is too small to train with.

    Example:
        >>> Budget(folds=2, steps=100).batch_size
        256
    """

    folds: int = 5
    steps: int = 600
    batch_size: int = 256
    learning_rate: float = 4e-3
    patience: int = 6

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("steps", 1), ("batch_size", 2), ("patience", 1)):
            number = getattr(self, name)
            if number < least or int(number) != number:
                raise ValueError(
                    f"{name}: expected at least {least}, a whole number, received {number}"
                )
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"learning_rate: expected a positive number, received {self.learning_rate}; try "
                f"3e-3"
            )


class Look(NamedTuple):
    """A look at the critic in training; see `Checkpoint`."""

    step: int
    train: float
    stop: float


def train_critic(
    estimator: MIEstimator,
    train: Samples,
    stop: Samples,
    *,
    fallback: Critic,
    budget: Budget,
    generator: torch.Generator,
    margin: float = 1.0,
) -> Iterator[Look]:
    """Train the estimator's critic in place; it ends as the one that did best on `stop`.

    The candidates are moving averages of the weights, which generalise better than the weights
    themselves, and the fallback: unless a critic beats that on `stop` by `margin` standard errors
    (of their difference), it takes the critic's place. Diverged training ends it; what was best
    stays.
    """
    critic, objective = estimator.critic, estimator.objective
    parameters = [*critic.parameters()]  # none, if it is a closed form
    average = copy.deepcopy(critic)
    optimiser = torch.optim.AdamW(
        parameters or [torch.zeros(())],
        lr=budget.learning_rate,
        weight_decay=1e-2,
        fused=True,
    )
    steps = budget.steps + 1
    rise = max(0.1, 2 / steps)  # a share that is a whole step at least
    schedule = OneCycleLR(
        optimiser, budget.learning_rate, steps, pct_start=rise, cycle_momentum=False
    )
    known = evaluate(objective, score_blocks(fallback, stop))
    stop_groups = stop.group_numbers()
    best: dict[str, Tensor] | None = None
    best_gain, best_step = 0.0, 0
    recent: list[Tensor] = []
    yield Look(0, known.value, known.value)
    for step, rows in enumerate(_minibatches(len(train), budget.batch_size, generator), start=1):
        batch = train[rows]
        scores = estimator.scores(batch.x, batch.y, groups=batch.groups, generator=generator)
        value = objective(scores.map(objective.from_log_ratio))
        optimiser.zero_grad()
        if value.requires_grad:  # a closed form has nothing to learn, and is looked at all the same
            (-value).backward()
        optimiser.step()
        schedule.step()
        _follow(average.parameters(), parameters, step)
        recent.append(value.detach())
        if step % LOOK_EVERY == 0 or step == budget.steps:
            for mean, now in zip(average.buffers(), critic.buffers(), strict=True):
                mean.copy_(now)  # statistics of a normalisation layer
            unseen = evaluate(objective, score_blocks(average, stop))
            look = Look(step, torch.stack(recent).mean().item(), unseen.value)
            recent.clear()
            gain = unseen.less(known)
            if gain.value > max(best_gain, margin * gain.standard_error(stop_groups)):
                best_gain, best_step = gain.value, step
                best = copy.deepcopy(average.state_dict())
            yield look
            patient = step - best_step < budget.patience * LOOK_EVERY
            if step == budget.steps or not patient or not np.isfinite(look.train):
                break
    if best is None:
        estimator.critic = fallback
    else:
        critic.load_state_dict(best)


def _minibatches(n: int, size: int, generator: torch.Generator) -> Iterator[Int64[Tensor, " B"]]:
    """Epoch after epoch of shuffled minibatches; a tail of less than half a batch is left out."""
    while True:
        for batch in torch.randperm(n, generator=generator).split(size):
            if len(batch) >= max(2, min(n, size) / 2):
                yield batch


@torch.no_grad()
def _follow(averages: Iterable[Tensor], parameters: Iterable[Tensor], step: int) -> None:
    """Average over the last tenth of the steps, 100 at most: initial weights fade at once."""
    weight = max(0.01, 10 / (step + 9))
    for average, parameter in zip(averages, parameters, strict=True):
        average.lerp_(parameter, weight)
