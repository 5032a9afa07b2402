"""estimate_mi: two arrays in, one number in nats out.

The samples are cut into folds. For each, a critic trains on one part of the other folds, stops on a
second part, and is read out on the fold, which saw neither: so every sample is scored exactly once,
by a critic that it had no influence on. A baseline in closed form says what it can; the critic
learns what that lacks, and counts only if it is seen to, on the samples it is read out on.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mi_estimators.baselines import (
    Baseline,
    Corrected,
    EllipticalRatio,
    Encoded,
    Independence,
    TCopula,
)
from mi_estimators.canonical import MANY, canonical_critic
from mi_estimators.critics import Critic
from mi_estimators.estimator import MIEstimator, evaluating
from mi_estimators.ksg import KSG
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import DV, JSD, Objective
from mi_estimators.preprocess import Compress, Map, NormalScores, OneHot, Preprocessor, fit_all
from mi_estimators.readout import (
    Evaluation,
    Readout,
    block_size,
    certified_bound,
    divergence_terms,
    free_constant,
    read_out,
)
from mi_estimators.result import Checkpoint, MIEstimate
from mi_estimators.samples import Samples, as_samples, check_estimable
from mi_estimators.training import Budget, train_critic

SIGNIFICANT = 2.0  # standard errors from which on a difference counts
FEW_DIMENSIONS = 3  # of x and y together, for nearest neighbours


def estimate_mi(
    x: Any,
    y: Any,
    *,
    objective: Objective | Sequence[Objective] | None = None,
    critic: Critic | None = None,
    negatives: NegativeSampler | None = None,
    preprocess: Sequence[Preprocessor] | None = (OneHot(), NormalScores(), Compress()),
    baseline: Baseline | None = TCopula(),
    neighbours: KSG | None = KSG(k=5),
    budget: Budget = Budget(),
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> MIEstimate:
    """Estimate the mutual information of paired samples, in nats.

    1. `preprocess` makes columns easy (normal scores of ranks), which changes no information.
    2. `baseline` gives a log-ratio T_0 and its information C in closed form.
    3. A critic r trains on T = T_0 + r: by default first by JSD, whose low variance finds the
       structure, then by DV, whose value is the number in question; stopped on samples of its own.
    4. Held-out samples decide. r counts if T beats T_0 there by two standard errors. The value is
       C + G, where G = R(T) - E_P[T_0], R being the last objective's estimate, if |G| exceeds two
       standard errors, else C: so the value can also fall below the baseline. In up to three
       dimensions nearest `neighbours` take the place of C + G.

    Without baseline and neighbours the value is R(T): of `MIEstimate.kind`, mostly a lower bound.

    Args:
        x: Samples, shape `[N]` or `[N, d_x]`: NumPy array, tensor, pandas object or nested list.
        y: Their partners, shape `[N]` or `[N, d_y]`.
        objective: What trains the critic, or several, one after the other; the last one reads out.
            `(JSD(), DV())` by default.
        critic: An untrained critic of preprocessed samples, copied for each fold; its scores are
            taken as log-ratios (`Objective.from_log_ratio`). By default `canonical_critic`.
        negatives: For training; all other samples of the minibatch by default. The readout always
            pairs all with all, in blocks of up to 1,024.
        preprocess: Maps of x alone and y alone, one after the other, fitted on training rows.
        baseline: `TCopula()`, `GaussianCopula()` or None.
        neighbours: For few continuous dimensions; None: never.
        budget: How much work: folds, steps, batch size.
        seed: Same seed, same machine: same number.
        device: Where to compute; by default where x is, if a tensor, else the CPU.
        progress: Whether to show a progress bar; by default in a terminal, for longer work.

    Returns:
        The estimate, with its standard error from the per-sample influence.

    Raises:
        TypeError: If x or y is not numeric, or a part is no instance of its class.
        ValueError: If x and y differ in length, hold NaN or infinities, have constant columns or
            more than 2 axes, or have fewer than 50 samples, or than 10 a fold.
        FloatingPointError: If the readout overflows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=1000)
        >>> y = x + rng.normal(size=1000)  # I = log(2) / 2 = 0.347 nats
        >>> result = estimate_mi(x, y, budget=Budget(folds=2, steps=100))
        >>> abs(result.value - 0.347) < 4 * result.standard_error
        True
    """
    samples = as_samples(x, y)
    check_estimable(samples)
    if not budget.folds <= len(samples) // 10:
        raise ValueError(
            f"budget: expected 2 to {len(samples) // 10} folds for {len(samples)} samples, "
            f"received {budget.folds}; each fold needs 10 samples"
        )
    objectives = _as_objectives(objective)
    if device is None:
        device = x.device if isinstance(x, Tensor) else "cpu"
    recipe = Recipe(
        objectives,
        critic,
        negatives,
        tuple(preprocess or ()),
        baseline,
        budget,
        torch.device(device),
    )
    recipe.check()

    generator = torch.Generator().manual_seed(seed)
    folds: list[Fold] = []
    bar = tqdm(
        total=budget.folds * len(objectives) * budget.steps,
        disable=None if progress is None else not progress,  # None: unless in a terminal
        delay=0 if progress else 2,
    )
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
            torch.manual_seed(seed)
            for parts in split_folds(len(samples), budget.folds, generator):
                bar.set_description(f"critic {len(folds) + 1} of {budget.folds}")
                folds.append(cross_fit(recipe, samples, parts, len(folds), generator, bar))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"estimate_mi was stopped in critic {len(folds) + 1} of {budget.folds}: no estimate "
            f"was made and its training is lost; x and y are untouched"
        ) from None
    finally:
        bar.close()
    return combine(recipe, neighbours, samples, folds)


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
        """Raise a TypeError for a part that is none."""
        for name, part, kind in (
            *(("preprocess", part, Preprocessor) for part in self.preprocess),
            ("baseline", self.baseline, Baseline | None),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name}: expected an instance of {getattr(kind, '__name__', kind)}, received "
                    f"{part!r}"
                )
        for objective in self.objectives:
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
        looks: The history of training.
        scorer: T for new pairs.
    """

    rows: Tensor
    readout: Readout
    known: "Known | None"
    certificate: Tensor
    looks: list[Checkpoint]
    scorer: "Scorer"


class Known(NamedTuple):
    """A baseline, on samples that it was not fitted on.

    Attributes:
        readout: Of T_0.
        pointwise: T_0 of each sample, unclipped.
        shortfall: R(T_0) - E_P[T_0] on as many samples of a law whose log-ratio *is* T_0: what the
            readout lacks, by its clip and its finite number of pairs, where nothing is lacking.
    """

    readout: Readout
    pointwise: Tensor
    shortfall: Evaluation


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
    """The mean log-ratio of several critics."""

    scorers: tuple[Scorer, ...]

    def __call__(self, x: Any, y: Any) -> np.ndarray:
        """Log-ratios of pairs, shape `[M]`, in nats."""
        samples = as_samples(x, y)
        return torch.stack([scorer(samples) for scorer in self.scorers]).mean(0).numpy()


def split_folds(n: int, folds: int, generator: torch.Generator) -> list[Parts]:
    """Cut n samples into folds; of the rest of each, one part in eight is for stopping."""
    chunks = torch.randperm(n, generator=generator).tensor_split(folds)
    parts = []
    for k, report in enumerate(chunks):
        rest = torch.cat([*chunks[k + 1 :], *chunks[:k]])
        stop = max(2, len(rest) // 8)
        parts.append(Parts(rest[stop:], rest[:stop], report))
    return parts


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
    fitted_on = Samples(x, y)[parts.train]  # in float64, for what is fitted and not trained
    device = recipe.device
    easy = Samples(x.float().to(device), y.float().to(device), samples.groups)
    train, stop, report = (easy[rows] for rows in parts)

    critic = copy.deepcopy(recipe.critic)
    if critic is None:
        critic = canonical_critic(fitted_on.x, fitted_on.y)
    fallback: Critic = Independence()
    known: EllipticalRatio | None = None
    if recipe.baseline is not None:
        known = recipe.baseline.fit(fitted_on.x, fitted_on.y).to(device)
        critic, fallback = Corrected(known, critic), known
    critic = critic.to(device)

    looks: list[Checkpoint] = []
    for template in recipe.objectives:
        objective = copy.deepcopy(template).to(device)
        estimator = MIEstimator(critic, objective, recipe.negatives)
        step = 0
        for look in train_critic(
            estimator,
            train,
            stop,
            fallback=fallback,
            budget=recipe.budget,
            generator=generator,
            # Only the first critic has independence, or a closed form, to prove wrong.
            margin=0.0 if looks else 1.0,
        ):
            bar.update(look.step - step)
            bar.set_postfix({"objective on unseen data": f"{look.stop:.3f}"}, refresh=False)
            step = look.step
            looks.append(Checkpoint(number, repr(template), *look))
        bar.total -= recipe.budget.steps - step
        critic = estimator.critic
        if critic is fallback:  # no objective that follows has anything to build on
            break
        fallback = copy.deepcopy(critic)

    constant = free_constant(critic, objective, stop)
    of_baseline = None
    if known is not None:
        readout = read_out(known, objective, report, constant=free_constant(known, objective, stop))
        with torch.no_grad():
            pointwise = known(report.x, report.y).double().cpu()
        of_baseline = Known(readout, pointwise, shortfall(known, objective, len(report), generator))
    return Fold(
        parts.report,
        read_out(critic, objective, report, constant=constant),
        of_baseline,
        divergence_terms(critic, report, constant or 0.0),
        looks,
        Scorer((map_x, map_y), critic.cpu(), constant or 0.0),
    )


@torch.no_grad()
def shortfall(
    known: EllipticalRatio, objective: Objective, n: int, generator: torch.Generator
) -> Evaluation:
    """R(T_0) - E_P[T_0] on n samples of the law whose log-ratio is T_0; see `Known`."""
    device = known.correlations.device
    samples = Samples(*[part.to(device) for part in known.sample(n, generator)])
    critic = Encoded(known)
    terms = critic(samples.x, samples.y).cpu()
    return read_out(critic, objective, samples, constant=0.0).estimate.less(mean_of(terms))


def combine(
    recipe: Recipe,
    neighbours: KSG | None,
    samples: Samples,
    folds: Sequence[Fold],
) -> MIEstimate:
    """One estimate from the folds, the baseline and the neighbours; see `estimate_mi`."""
    order = torch.cat([fold.rows for fold in folds]).argsort()
    held_out = pool([fold.readout for fold in folds], order)
    value, error, origin = held_out.estimate.value, held_out.estimate.standard_error, "critic"
    closed_form: float | None = None
    x, y = (fit_all(recipe.preprocess, side)(side) for side in (samples.x, samples.y))
    known = [fold.known for fold in folds if fold.known is not None]
    if recipe.baseline is not None:
        of_baseline = pool([part.readout for part in known], order)
        gain = held_out.estimate.less(of_baseline.estimate)
        if not gain.value > SIGNIFICANT * gain.standard_error:
            held_out = of_baseline
        mean = mean_of(torch.cat([part.pointwise for part in known])[order])
        closed_form, its_mean = mean.value, mean
        if (
            x.shape[1] * y.shape[1] / (2 * len(samples)) <= MANY
        ):  # else noise drowns the closed form
            closed_form, in_sample = recipe.baseline.information(x, y)
            its_mean = mean_of(in_sample)
        lacks = held_out.estimate.less(mean)
        expected = Evaluation.pool(part.shortfall for part in known)
        if abs(expected.value) > SIGNIFICANT * expected.standard_error:
            lacks = Evaluation(lacks.value - expected.value, lacks.influence)
        if abs(lacks.value) > SIGNIFICANT * lacks.standard_error:
            value, error = closed_form + lacks.value, held_out.estimate.standard_error
            origin = "baseline and critic"
        else:
            value, error, origin = closed_form, its_mean.standard_error, "baseline"
    if neighbours is not None and origin != "baseline" and few_and_continuous(x, y):
        nearest = mean_of(neighbours.pointwise(x, y))
        if nearest.value > value - SIGNIFICANT * error:
            value, error, origin = nearest.value, nearest.standard_error, "neighbours"
    last = recipe.objectives[-1]
    readouts = {name: part.value for name, part in held_out.others.items()}
    return MIEstimate(
        value=value,
        standard_error=error,
        kind=last.kind if origin == "critic" else "neither",
        origin=origin,
        ceiling=min(
            math.log(-(-len(samples) // len(folds))),
            last.ceiling(block_size(-(-len(samples) // len(folds))) - 1),
        ),
        certified=certified_bound([fold.certificate for fold in folds]),
        pointwise=held_out.pointwise.numpy(),
        baseline=closed_form,
        effective_sample_size=held_out.effective_sample_size,
        readouts=readouts | {"plug-in": held_out.pointwise.mean().item()},
        history=tuple(look for fold in folds for look in fold.looks),
        objective=", ".join(map(repr, recipe.objectives)),
        scorer=MeanScorer(tuple(fold.scorer for fold in folds)),
    )


def pool(readouts: Sequence[Readout], order: Tensor) -> Readout:
    """One readout over parts of the samples, which are then put in order."""
    return Readout(
        Evaluation.pool(part.estimate for part in readouts).reordered(order),
        {
            name: Evaluation.pool(part.others[name] for part in readouts).reordered(order)
            for name in readouts[0].others
        },
        torch.cat([part.pointwise for part in readouts])[order],
        sum(part.effective_sample_size for part in readouts),
    )


def mean_of(terms: Float[Tensor, " N"]) -> Evaluation:
    """The mean of independent terms."""
    return Evaluation(terms.mean().item(), terms - terms.mean())


def few_and_continuous(x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"]) -> bool:
    """Whether nearest neighbours can be trusted: few dimensions, no two samples alike."""
    both = torch.cat([x, y], 1)
    return both.shape[1] <= FEW_DIMENSIONS and len(both.unique(dim=0)) == len(both)


def _as_objectives(objective: Objective | Sequence[Objective] | None) -> tuple[Objective, ...]:
    if objective is None:
        return JSD(), DV()
    if isinstance(objective, Sequence) and objective and not isinstance(objective, str):
        return tuple(objective)
    return (objective,)  # type: ignore[return-value]  # MIEstimator refuses what is none
