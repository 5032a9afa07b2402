"""Cross-fitting: a critic for each fold, and what it says of samples that it never saw."""

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from mi_estimators.baselines import (
    Baseline,
    Corrected,
    EllipticalRatio,
    Encoded,
    GaussianCopula,
    Independence,
    RowNormalised,
)
from mi_estimators.canonical import canonical_critic
from mi_estimators.critics import Critic
from mi_estimators.estimator import MIEstimator, evaluating
from mi_estimators.mixture import mixture_ratio
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import Objective
from mi_estimators.preprocess import Map, Preprocessor, fit_all
from mi_estimators.readout import (
    Evaluation,
    Readout,
    block_size,
    clipped_blocks,
    divergence_terms,
    evaluate,
    free_constant,
    mean_of,
    read_out,
    score_blocks,
    shuffled_sums,
    tightest,
)
from mi_estimators.result import Checkpoint
from mi_estimators.samples import Samples, as_samples
from mi_estimators.training import Budget, train_critic

SIGNIFICANT = 2.0  # standard errors from which on a difference counts
STOPPING = 4096  # samples at most that decide when to stop


@dataclass(frozen=True)
class Recipe:
    """What `estimate_mi` was asked for; see there."""

    objectives: tuple[Objective, ...]
    critic: Critic | None
    negatives: NegativeSampler | None
    preprocess: tuple[Preprocessor, ...]
    baseline: Baseline | None
    budget: Budget
    device: torch.device

    def check(self) -> None:
        """Refuse what is no part (TypeError), and objectives without log-ratio (ValueError)."""
        for name, part, kind in (
            ("budget", self.budget, Budget),
            *(("preprocess", part, Preprocessor) for part in self.preprocess),
            ("baseline", self.baseline, Baseline | None),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name}: expected an instance of {getattr(kind, '__name__', kind)}, received "
                    f"{part!r}"
                )
        for objective in self.objectives:
            if getattr(objective, "density", False):
                raise ValueError(
                    f"objective: expected one that is maximised by a log-ratio, received "
                    f"{objective!r}, whose critic is a density; train it in a loop of your own, by "
                    f"MIEstimator(ConditionalGaussian(dim_x, dim_y), LogLikelihood())"
                )
            MIEstimator(self.critic or Independence(), objective, self.negatives)


class Parts(NamedTuple):
    """Row numbers of one fold: what trains, what stops, what is reported on."""

    train: Tensor
    stop: Tensor
    report: Tensor


class Fold(NamedTuple):
    """A critic and what was read out of it on samples that it never saw.

    Attributes:
        rows: Numbers of these samples.
        readout: Of T = T_0 + r, or of the critic alone.
        known: What the baseline alone says, if there is one.
        certificate: Terms of T's Jensen-Shannon divergence; see `certified_bound`.
        shuffled: Sums of T over the samples, then over shuffled ones; see `shuffled_sums`.
        looks: The history of training.
        scorer: T for new pairs.
        ceiling: What the readout cannot exceed, in nats.
    """

    rows: Tensor
    readout: Readout
    known: "Known | None"
    certificate: Tensor
    shuffled: Tensor
    looks: list[Checkpoint]
    scorer: "Scorer"
    ceiling: float


class Known(NamedTuple):
    """A baseline, on samples that it was not fitted on.

    Attributes:
        readout: Of T_0.
        pointwise: T_0 of each sample, unclipped.
        shortfall: R(T_0) - E_P[T_0] on as many samples of a law whose log-ratio *is* T_0: what the
            readout lacks, by its clip and its finite number of pairs, where nothing is lacking.
        correlations: T_0's canonical ones, 0 where it found none.
        scorer: T_0 for new pairs.
    """

    readout: Readout
    pointwise: Tensor
    shortfall: Evaluation
    correlations: Tensor
    scorer: "Scorer"


@dataclass(frozen=True)
class Scorer:
    """A trained critic and all that it needs to score new pairs."""

    maps: tuple[Map, Map]
    critic: Critic
    constant: float

    @torch.no_grad()
    def __call__(self, samples: Samples) -> Float[Tensor, " M"]:
        """Log-ratios, in nats."""
        with evaluating(self.critic):
            x, y = (f(s) for f, s in zip(self.maps, (samples.x, samples.y), strict=True))
            return self.critic(x.float(), y.float()).double() - self.constant


@dataclass(frozen=True)
class MeanScorer:
    """The mean log-ratio of several critics, of x and y with so many `columns`."""

    scorers: tuple[Scorer, ...]
    columns: tuple[int, int]

    def __call__(self, x: Any, y: Any) -> np.ndarray:
        """Log-ratios of pairs, shape `[M]`, in nats.

        Raises:
            ValueError: If they have other columns.
        """
        samples = as_samples(x, y)
        for name, side, expected in zip("xy", (samples.x, samples.y), self.columns, strict=True):
            if side.shape[1] != expected:
                raise ValueError(
                    f"{name}: expected {expected} columns, as the estimate was made of, received "
                    f"{side.shape[1]}"
                )
        return torch.stack([scorer(samples) for scorer in self.scorers]).mean(0).numpy()


def split_folds(
    n: int,
    folds: int,
    generator: torch.Generator,
    groups: Int64[Tensor, " n"] | None = None,
) -> list[Parts]:
    """Cut n samples into folds; of the rest of each, one part in eight is for stopping.

    That part is looked at again and again, so `STOPPING` samples (or groups) are enough.

    With `groups`, labels 0 ... G - 1, it is groups that are cut, so that none is in two parts.
    """
    units = n if groups is None else int(groups.max()) + 1
    chunks = torch.randperm(units, generator=generator).tensor_split(folds)
    parts = []
    for k, report in enumerate(chunks):
        rest = torch.cat([*chunks[k + 1 :], *chunks[:k]])
        stop = max(2, min(len(rest) // 8, STOPPING))
        parts.append(Parts(rest[stop:], rest[:stop], report))
    if groups is None:
        return parts
    # Members of a group scattered among the others: minibatches and blocks meet many groups.
    order = torch.randperm(n, generator=generator)
    return [Parts(*(order[torch.isin(groups[order], part)] for part in cut)) for cut in parts]


def cross_fit(
    recipe: Recipe,
    samples: Samples,
    parts: Parts,
    number: int,
    generator: torch.Generator,
    bar: tqdm,
) -> Fold:
    """Fit and train on `parts.train`, stop on `parts.stop`, read out on `parts.report`."""
    fitted_on = samples[parts.train]
    map_x, map_y = (fit_all(recipe.preprocess, side) for side in (fitted_on.x, fitted_on.y))
    x, y = map_x(samples.x), map_y(samples.y)
    # In float64, for what is fitted and not trained.
    fitted_on = Samples(x, y, samples.groups)[parts.train]
    device = recipe.device
    easy = Samples(x.float().to(device), y.float().to(device), samples.groups)
    train, stop, report = (easy[rows] for rows in parts)

    looks: list[Checkpoint] = []

    def learn(critic: Critic, template: Objective, fallback: Critic, *, margin: float) -> Critic:
        """Train a critic; it, or the fallback, if that is better on the stopping part."""
        objective = copy.deepcopy(template).to(device)
        estimator = MIEstimator(critic, objective, recipe.negatives)
        # Of several critics trained by one objective, the steps add up.
        same = [look.step for look in looks if look.objective == repr(template)]
        before, step = max(same, default=0), 0
        for look in train_critic(
            estimator,
            train,
            stop,
            fallback=fallback,
            budget=recipe.budget,
            generator=generator,
            margin=margin,
        ):
            bar.update(look.step - step)
            bar.set_postfix({"objective on unseen data": f"{look.stop:.3f}"}, refresh=False)
            step = look.step
            looks.append(Checkpoint(number, repr(template), before + step, *look[1:]))
        bar.total -= recipe.budget.steps - step
        return estimator.critic

    begun, clustered, known, fallback = begin(recipe, fitted_on, stop)
    first, *others = recipe.objectives
    critic = learn(begun, first, fallback, margin=1.0)
    if clustered is not None:
        behind = on_stop(first, critic, stop).less(on_stop(first, clustered, stop))
        if not behind.exceeds(1.0, stop.group_numbers()):
            bar.total += recipe.budget.steps
            critic = learn(clustered, first, critic, margin=1.0)
    if critic is not fallback:  # else nothing that follows has anything to build on
        for template in others:
            critic = learn(critic, template, copy.deepcopy(critic), margin=0.0)

    last = recipe.objectives[-1]
    constant = free_constant(critic, last, stop)
    size = block_size(len(report))
    by = tightest(critic, last, stop, constant, size=size)
    of_baseline, nothing_learnt = None, critic is known
    if constant is None and not nothing_learnt:  # what follows takes T for a log-ratio
        critic = RowNormalised(critic, stop.y)
    if known is not None:
        of_baseline = read_out_known(known, last, by, stop, report, (map_x, map_y), generator)
    if of_baseline is not None and nothing_learnt:
        readout = of_baseline.readout
    else:
        readout = read_out(critic, last, report, constant=constant, by=by)
    return Fold(
        parts.report,
        readout,
        of_baseline,
        divergence_terms(critic, report, constant or 0.0),
        shuffled_sums(critic, report, generator),
        looks,
        Scorer((map_x, map_y), critic.cpu(), constant or 0.0),
        min(math.log(len(report)), by.ceiling(size - 1)),
    )


class Beginning(NamedTuple):
    """What training begins with.

    Attributes:
        critic: What is trained.
        clustered: The same from the log-ratio of a Gaussian mixture, if the critic is the default
            one, and there are clusters: to be trained if already this is no worse than the critic.
        known: The baseline T_0, if there is one.
        fallback: What the critic has to prove better than.
    """

    critic: Critic
    clustered: Critic | None
    known: EllipticalRatio | None
    fallback: Critic


def begin(recipe: Recipe, fitted_on: Samples, stop: Samples) -> Beginning:
    """Fit what needs no training to `fitted_on`; the best of it on `stop` is the fallback."""
    device = recipe.device
    known: EllipticalRatio | None = None
    if recipe.baseline is not None:
        known = recipe.baseline.fit(fitted_on.x, fitted_on.y, independent=fitted_on.independent).to(
            device
        )
    if recipe.critic is not None:
        own = copy.deepcopy(recipe.critic)
        critic = own if known is None else Corrected(known, own)
        return Beginning(critic.to(device), None, known, known or Independence())
    fallback: Critic
    if known is None:  # what is linear need not be learnt by steps
        start = GaussianCopula().fit(fitted_on.x, fitted_on.y, independent=fitted_on.independent)
        start.to(device)
        untrained = (Independence(), start)
        fallback = max(untrained, key=lambda f: on_stop(recipe.objectives[0], f, stop).value)
    else:
        start = fallback = known
    residual = canonical_critic(fitted_on.x, fitted_on.y).float()
    clusters = mixture_ratio(fitted_on.x, fitted_on.y)
    clustered = clusters and Corrected(clusters, copy.deepcopy(residual)).to(device)
    return Beginning(Corrected(start, residual).to(device), clustered, known, fallback)


def on_stop(objective: Objective, critic: Critic, stop: Samples) -> Evaluation:
    """An objective of a critic on the stopping part, with all pairs of its blocks."""
    return evaluate(copy.deepcopy(objective).to(stop.x.device), score_blocks(critic, stop))


@torch.no_grad()
def read_out_known(
    known: EllipticalRatio,
    objective: Objective,
    by: Objective,
    stop: Samples,
    report: Samples,
    maps: tuple[Map, Map],
    generator: torch.Generator,
) -> Known:
    """What a baseline says of `report`, and what it would say of samples of its own law.

    By the same readout as the critic's, or the two could not be compared.
    """
    constant = free_constant(known, objective, stop)
    own = Samples(*[part.to(report.x.device) for part in known.sample(len(report), generator)])
    its = Encoded(known)
    blocks = clipped_blocks(its, own, None if constant is None else 0.0)
    return Known(
        read_out(known, objective, report, constant=constant, by=by),
        known(report.x, report.y).double().cpu(),
        evaluate(by, blocks).less(mean_of(its(own.x, own.y).cpu())),
        known.correlations.cpu(),
        Scorer(maps, copy.deepcopy(known).cpu(), constant or 0.0),
    )
