"""estimate_mi: two arrays in, one number in nats out.

The samples are cut into folds. For each, a critic trains on one part of the other folds, stops on a
second part, and is read out on the fold, which saw neither: so every sample is scored exactly once,
by a critic that it had no influence on. A baseline in closed form says what it can; the critic
learns what that lacks, and counts only if it is seen to, on the samples it is read out on.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mi_estimators.baselines import Baseline, TCopula
from mi_estimators.canonical import MANY, Canonical, gaussian_information, nats_of_noise
from mi_estimators.columns import two_valued
from mi_estimators.critics import Critic
from mi_estimators.cross_fitting import (
    SIGNIFICANT,
    Fold,
    MeanScorer,
    Recipe,
    cross_fit,
    split_folds,
)
from mi_estimators.estimator import seeded
from mi_estimators.ksg import KSG
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import DV, JSD, Objective
from mi_estimators.preprocess import Compress, NormalScores, OneHot, Preprocessor, fit_all
from mi_estimators.readout import Evaluation, Readout, certified_bound, mean_of
from mi_estimators.result import MIEstimate
from mi_estimators.samples import Samples, as_samples, check_estimable, device_of
from mi_estimators.training import Budget

REFUTED = 4.0  # by neighbours: on 200 Gaussian pairs, 1 difference in 50 is above 3 errors
ROUNDING = 1e-9  # nats that a difference of equal numbers may show
FEW_DIMENSIONS = 4  # of x and y together, for nearest neighbours
TIED = 0.05  # share of a column's values that may be there already, for nearest neighbours
PER_LABEL = 50  # samples of a combination of labels, on average, that neighbours are found among


def estimate_mi(
    x: Any,
    y: Any,
    *,
    objective: Objective | Sequence[Objective] | None = None,
    critic: Critic | None = None,
    negatives: NegativeSampler | None = None,
    preprocess: Sequence[Preprocessor] | None = (OneHot(), NormalScores(), Compress()),
    baseline: Baseline | None = TCopula(),
    neighbours: KSG | None = KSG(),
    budget: Budget = Budget(),
    groups: Any = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> MIEstimate:
    """Estimate the mutual information of paired samples, in nats.

    1. `preprocess` makes columns easy (normal scores of ranks), which changes no information but
       what is between the values of neighbouring ranks.
    2. `baseline` gives a log-ratio T_0 and its information C in closed form.
    3. A critic r trains on T = T_0 + r: by default first by JSD, whose low variance finds the
       structure, then by DV, whose value is the number in question; stopped on samples of its own.
       Where the log-ratio of a Gaussian mixture is no worse there than a critic that was trained,
       a second one begins with that, and the better one goes on.
    4. Held-out samples decide. r counts if T beats T_0 there by two standard errors. With
       G = R(T) - E_P[T_0], the value is C + G if G exceeds two standard errors; R(T) if G is as
       far below 0, as the baseline then claims too much; else C. R is the last objective's
       estimate, or InfoNCE's where that bound was tighter on the samples that training stopped
       on. In up to four dimensions, labels aside, nearest `neighbours` take the critic's place
       where they are above it; not with groups, nor where values repeat.

    Where noise alone would fit more than half a nat (many dimensions), C is E_P[T_0], and what its
    directions miss for having been found among noise is added (`Canonical.corrected`).

    Without baseline and neighbours the value is R(T): of `MIEstimate.kind`, mostly a lower bound.
    The default critic then begins at the log-ratio of a Gaussian like the training rows.

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
        neighbours: For few continuous dimensions, beside labels or not; None: never.
        budget: How much work: folds, steps, batch size.
        groups: A label for each sample, shape `[N]`, where samples are not independent: of one
            patient, or of one stretch of time (`stretches`). A group is never split between
            training and report, and never its own negative; standard errors are over groups.
        seed: Same seed, same machine: same number.
        device: Where to compute; by default where x is, if a tensor, else the CPU.
        progress: Whether to show a progress bar and the time that remains; by default in a
            terminal, for longer work.

    Returns:
        The estimate, with its standard error from the per-sample influence.

    Raises:
        TypeError: If x or y is not numeric, or a part is no instance of its class.
        ValueError: If x and y differ in length, hold NaN or infinities, have constant columns or
            more than 2 axes, or have fewer than 50 samples, than 10 (or 2 groups) a fold, or than
            `neighbours` need; if columns do not fit `baseline`, or float32; if an objective is not
            maximised by a log-ratio (`CLUB`, `LogLikelihood`).
        FloatingPointError: If the readout overflows.

    Example:
        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> y = x + noise  # I = log(2) / 2 = 0.347 nats
        >>> result = estimate_mi(x, y, budget=Budget(folds=2, steps=100))
        >>> abs(result.value - 0.347) < 4 * result.standard_error
        True
    """
    samples = as_samples(x, y, groups)
    check_estimable(samples)
    if isinstance(preprocess, Preprocessor):
        raise TypeError(f"preprocess: expected a sequence, received {preprocess!r}; wrap it in ()")
    objectives = _as_objectives(objective)
    recipe = Recipe(
        objectives,
        critic,
        negatives,
        tuple(preprocess or ()),
        baseline,
        budget,
        device_of(x, device),
    )
    recipe.check()
    check_folds(budget.folds, samples)
    if not isinstance(neighbours, KSG | None):
        raise TypeError(f"neighbours: expected KSG(k=3) or None, received {neighbours!r}")
    if samples.groups is not None:
        neighbours = None  # those of a sample would be of its own group
    check_columns(recipe, neighbours, samples)

    generator = torch.Generator().manual_seed(seed)
    folds: list[Fold] = []
    bar = tqdm(
        total=budget.folds * len(objectives) * budget.steps,
        disable=None if progress is None else not progress,  # None: unless in a terminal
        delay=0 if progress else 2,
        smoothing=0,  # the time that remains counts what happens between the steps as well
    )
    try:
        # Initial weights come from the global generator; the caller may be under no_grad.
        with seeded(seed, recipe.device), torch.enable_grad():
            for parts in split_folds(len(samples), budget.folds, generator, samples.groups):
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


def check_folds(folds: int, samples: Samples) -> None:
    """Refuse (ValueError) folds of fewer than 10 samples, or than 2 groups."""
    most = len(samples) // 10
    needs = "10 samples"
    if samples.groups is not None and samples.independent // 2 < most:
        most, needs = samples.independent // 2, "2 groups"
    if folds > most:
        raise ValueError(
            f"budget: expected 2 to {most} folds for {len(samples)} samples, received {folds}; "
            f"each fold needs {needs}"
        )


def check_columns(recipe: Recipe, neighbours: KSG | None, samples: Samples) -> None:
    """Refuse (ValueError), before anything is trained, columns that cannot be worked on."""
    x, y = (fit_all(recipe.preprocess, side)(side) for side in (samples.x, samples.y))
    of_ranks = any(isinstance(part, NormalScores) for part in recipe.preprocess)
    for name, side in (("x", x), ("y", y)):
        mean, deviation = side.mean(0), side.std(0)
        lost = (side.float().double() - side).abs().amax(0)
        if not bool(((lost <= 1e-3 * deviation) & lost.isfinite()).all()):
            raise ValueError(
                f"{name}: expected columns whose differences float32 tells, received deviations "
                f"from {deviation.min():.3g} around means up to {mean.abs().max():.3g}; "
                f"standardise them, or keep NormalScores() in preprocess"
            )
        standard = (mean.abs() <= 0.5) & (deviation >= 0.5) & (deviation <= 2) | two_valued(side)
        if isinstance(recipe.baseline, TCopula) and not of_ranks and not bool(standard.all()):
            raise ValueError(
                f"baseline: TCopula() expects columns that are standard normal, received means up "
                f"to {mean.abs().max():.3g} and deviations from {deviation.min():.3g} to "
                f"{deviation.max():.3g} in {name}; keep NormalScores() in preprocess, or take "
                f"GaussianCopula()"
            )
    if (
        neighbours is not None
        and len(samples) < neighbours.least
        and few_and_continuous(x, y, neighbours)
    ):
        neighbours.check(len(samples))


def combine(
    recipe: Recipe, neighbours: KSG | None, samples: Samples, folds: Sequence[Fold]
) -> MIEstimate:
    """One estimate from the folds, the baseline and the neighbours; see `estimate_mi`."""
    order = torch.cat([fold.rows for fold in folds]).argsort()
    groups = samples.groups
    last = recipe.objectives[-1]
    ceiling = sum(fold.ceiling for fold in folds) / len(folds)
    held_out = pool([fold.readout for fold in folds], order)
    scorers = [fold.scorer for fold in folds]
    chosen, origin, closed_form = held_out.estimate, "critic", None
    x, y = (fit_all(recipe.preprocess, side)(side) for side in (samples.x, samples.y))
    # What groups share makes noise as large as in as many samples as there are groups.
    noise = nats_of_noise(samples.independent, x.shape[1], y.shape[1])
    before = samples.x.shape[1], samples.y.shape[1]
    simulated = 0.0
    if recipe.baseline is not None:
        known = [fold.known for fold in folds if fold.known is not None]
        of_baseline = pool([part.readout for part in known], order)
        if not held_out.estimate.less(of_baseline.estimate).exceeds(SIGNIFICANT, groups):
            held_out, scorers = of_baseline, [part.scorer for part in known]
        mean = mean_of(torch.cat([part.pointwise for part in known])[order])
        # T_0 is all held out where the closed form would be mostly noise, or how much is not known.
        columns = x.shape[1] + y.shape[1]
        known_noise = groups is None and columns < len(samples) - 1
        closed = mean
        if known_noise and noise <= MANY:
            closed = recipe.baseline.information(x, y)
        shortfall = Evaluation.pool(part.shortfall for part in known)
        closed_form = closed.value
        chosen, origin, simulated = correct(
            closed, mean, held_out.estimate, shortfall, ceiling, groups
        )
        if known_noise and noise > MANY and mean.value > 0:
            missed = missed_by_directions(x, y, [part.correlations for part in known])
            confirmed = min(max(chosen.value / mean.value, 0.0), 1.0)
            chosen = Evaluation(chosen.value + confirmed * missed, chosen.influence)
            closed_form += missed
    if neighbours is not None and few_and_continuous(x, y, neighbours):
        nearest = neighbours.estimate(x, y)
        # A critic that corrects a closed form mostly misses something, too; a critic alone, and a
        # closed form all the more, must be refuted: of two chances the larger is biased. And a
        # closed form also without the noise that extrapolation adds.
        errors = {"baseline": REFUTED, "critic": SIGNIFICANT}.get(origin, 0.0)
        above = nearest.less(chosen).exceeds(errors, groups)
        if above and origin == "baseline":
            published = mean_of(neighbours.pointwise(x, y))
            above = published.less(chosen).exceeds(errors, groups)
        if above:
            chosen, origin = nearest, "neighbours"
    beyond = 0.0
    if origin.startswith("baseline"):
        # The coefficients of a closed form vary also where, at independence, no sample pulls at it.
        beyond = math.hypot(simulated, math.sqrt(noise / samples.independent))
    readouts = {name: part.value for name, part in held_out.others.items()}
    readouts |= {"plug-in": held_out.pointwise.mean().item()}
    sums = torch.stack([fold.shuffled for fold in folds]).sum(0)
    return MIEstimate(
        value=chosen.value,
        standard_error=math.hypot(chosen.standard_error(groups), beyond),
        kind=last.kind if origin == "critic" else "neither",
        origin=origin,
        ceiling=ceiling,
        certified=certified_bound([fold.certificate for fold in folds]),
        p_value=(sums >= sums[0]).double().mean().item() if groups is None else None,
        pointwise=held_out.pointwise.numpy(),
        influence=chosen.influence.numpy(),
        baseline=closed_form,
        effective_sample_size=held_out.effective_sample_size,
        readouts=readouts,
        history=tuple(look for fold in folds for look in fold.looks),
        objective=", ".join(map(repr, recipe.objectives)),
        warnings=tuple(warnings_of(origin, held_out, before, x, y, noise)),
        error_beyond_samples=beyond,
        groups=None if groups is None else samples.independent,
        scorer=MeanScorer(tuple(scorers), before),
    )


def missed_by_directions(
    x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], found: Sequence[Float[Tensor, " k"]]
) -> float:
    """What Gaussian columns share beyond what directions show that had to be found among noise.

    Args:
        x: All samples.
        y: Their partners.
        found: For each fold, correlations along its directions, on samples that did not choose
            them, or 0.

    Returns:
        Nats, of as many correlations as the fold with the most has found.
    """
    most = max(int((correlations > 0).sum()) for correlations in found)
    of_all = Canonical.fit(x, y).denoised(len(x)).corrected(len(x))
    seen = [gaussian_information(correlations) for correlations in found]
    return gaussian_information(of_all.correlations[:most]) - sum(seen) / len(seen)


def correct(
    closed: Evaluation,
    mean: Evaluation,
    held_out: Evaluation,
    shortfall: Evaluation,
    ceiling: float,
    groups: Tensor | None,
) -> tuple[Evaluation, str, float]:
    """A closed form, and what held-out samples show that it lacks or claims too much.

    Args:
        closed: C, of all samples.
        mean: E_P[T_0], held out.
        held_out: R(T), T being T_0 or a critic that corrects it.
        shortfall: What R(T_0) would be below E_P[T_0], were T_0 right; see `Known`.
        ceiling: What R(T) cannot exceed.
        groups: Of the samples.

    Returns:
        The estimate, its origin, and the standard error of what was simulated for it.
    """
    expected, expected_error = 0.0, 0.0
    if abs(shortfall.value) > SIGNIFICANT * shortfall.standard_error():
        expected, expected_error = shortfall.value, shortfall.standard_error()
    lacks = held_out.less(mean)
    gain = lacks.value - expected
    gain_error = math.hypot(expected_error, lacks.standard_error(groups), ROUNDING)
    # A readout at its ceiling says nothing against a closed form that is above it.
    silent = closed.value > 0.8 * ceiling < held_out.value
    if silent or abs(gain) <= SIGNIFICANT * gain_error:
        return closed, "baseline", 0.0
    # What C is above E_P[T_0] is what more samples would add to a T_0 that is incomplete; of one
    # that claims too much, they would add more of what is wrong. And where there is less
    # information, finite samples hide less of it: they do so in proportion to e^I.
    value = (
        closed.value + gain
        if gain > 0
        else min(closed.value, mean.value) + lacks.value - expected * math.exp(gain)
    )
    return Evaluation(value, held_out.influence), "baseline and critic", expected_error


def warnings_of(
    origin: str,
    readout: Readout,
    columns: tuple[int, int],
    x: Tensor,
    y: Tensor,
    noise: float,
) -> Iterator[str]:
    """What a reader of the number should know, and could do about it."""
    for name, side, before in (("x", x, columns[0]), ("y", y, columns[1])):
        if side.shape[1] < before:
            yield (
                f"{name}: {before} columns compressed to {side.shape[1]} principal components, as "
                f"there are too few samples for more; what they left out is not in the value"
            )
    if origin.endswith("critic") and readout.effective_sample_size < 100:
        yield (
            f"effective sample size: {readout.effective_sample_size:.0f} independent pairs carry "
            f"the normaliser of the critic; value and standard error may be far off; collect more "
            f"samples, or reduce the dimensions"
        )
    if noise > MANY:
        yield (
            f"dimensions: {x.shape[1]} x {y.shape[1]} for {len(x)} samples; noise fits "
            f"{noise:.1f} nats, so dependence that is not much clearer is missed"
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


def few_and_continuous(x: Float[Tensor, "N dx"], y: Float[Tensor, "N dy"], neighbours: KSG) -> bool:
    """Whether nearest neighbours can be trusted: few dimensions, and hardly a value twice.

    Where a column is rounded, as many samples are at one distance, and counting them says little.
    Columns of two values do not count, as there are for labels (`OneHot`), if there are many
    samples of each combination: nearest neighbours then have the same, and counting those is the
    estimator of Ross (2014).
    """
    both = torch.cat([x, y], 1)
    of_labels = two_valued(both)
    labels, numbers = both[:, of_labels], both[:, ~of_labels]
    if not 0 < numbers.shape[1] <= FEW_DIMENSIONS:
        return False
    if min(len(column.unique()) for column in numbers.mT) < (1 - TIED) * len(both):
        return False
    if int(both.unique(dim=0, return_counts=True)[1].max()) > neighbours.k:
        return False
    return not labels.shape[1] or PER_LABEL * len(labels.unique(dim=0)) <= len(labels)


def _as_objectives(objective: Objective | Sequence[Objective] | None) -> tuple[Objective, ...]:
    if objective is None:
        return JSD(), DV()
    if isinstance(objective, Sequence) and objective and not isinstance(objective, str):
        return tuple(objective)
    return (objective,)  # type: ignore[return-value]  # MIEstimator refuses what is none
