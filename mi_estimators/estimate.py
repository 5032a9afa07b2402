"""estimate_mi: two arrays in, one number in nats out.

The samples are cut into folds. For each, a critic trains on one part of the other folds, stops on a
second part, and is read out on the fold, which saw neither: so every sample is scored exactly once,
by a critic that it had no influence on.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from mi_estimators.critics import Critic, Separable
from mi_estimators.estimator import MIEstimator, evaluating
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import Objective
from mi_estimators.reductions import Statistics, statistics_of
from mi_estimators.result import Checkpoint, MIEstimate
from mi_estimators.scores import PairScores

BLOCK = 1024  # samples that are read out together, all against all
LOOK_EVERY = 50  # steps between looks at the stopping part
MIN_SAMPLES = 50


def estimate_mi(
    x: Any,
    y: Any,
    *,
    objective: Objective | None = None,
    critic: Critic | None = None,
    negatives: NegativeSampler | None = None,
    folds: int = 5,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    max_steps: int = 5000,
    patience: int = 8,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> MIEstimate:
    """Estimate the mutual information of paired samples, in nats.

    Args:
        x: Samples, shape `[N]` or `[N, d_x]`: NumPy array, tensor, pandas object or nested list.
        y: Their partners, shape `[N]` or `[N, d_y]`.
        objective: What trains the critic and reads it out; `JSD()` by default: trained on the
            Jensen-Shannon objective, read out as the lower bound 1 + E_P[T] - E_Q[e^T].
        critic: An untrained critic, copied for each fold; by default `Separable.mlp`. It sees each
            column as normal scores (ranks among the training rows, as quantiles of N(0, 1)), and
            its scores are taken as log-ratios (`Objective.from_log_ratio`).
        negatives: For training; all other samples of the minibatch by default. The readout always
            pairs all with all, in blocks of up to 1,024.
        folds: Number of critics; each is read out on 1/folds of the samples.
        batch_size: Samples in a minibatch.
        learning_rate: Of AdamW.
        max_steps: Steps at most for each critic.
        patience: Training stops after this many looks (50 steps apart) without a better one.
        seed: Same seed, same machine: same number.
        device: Where to compute; by default where x is, if a tensor, else the CPU.
        progress: Whether to show a progress bar; by default in a terminal, for longer work.

    Returns:
        The estimate, with its standard error from the per-sample influence.

    Raises:
        TypeError: If x or y is not numeric, or a part is no instance of its class.
        ValueError: If x and y differ in length, hold NaN or infinities, have constant columns or
            more than 2 axes, or have fewer than 50 samples; if folds is less than 2.
        FloatingPointError: If the readout overflows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=1000)
        >>> y = x + rng.normal(size=1000)  # I = log(2) / 2 = 0.347 nats
        >>> result = estimate_mi(x, y, max_steps=100, progress=False)
        >>> abs(result.value - 0.347) < 4 * result.standard_error + 0.05
        True
    """
    a, b = _as_pairs(x, y)
    for name, number, least in (
        ("batch_size", batch_size, 2),
        ("max_steps", max_steps, 1),
        ("patience", patience, 1),
    ):
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, received {number}")
    if not 2 <= folds <= len(a) // 10:
        raise ValueError(
            f"folds: expected 2 to {len(a) // 10} for {len(a)} samples, received {folds}; each "
            f"fold needs 10 samples"
        )
    if device is None:
        device = x.device if isinstance(x, Tensor) else "cpu"
    generator = torch.Generator().manual_seed(seed)
    if critic is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critic = Separable.mlp(a.shape[1], b.shape[1])
    template = MIEstimator(critic, objective, negatives)

    parts = split_folds(len(a), folds, generator)
    evaluations: list[Evaluation] = []
    history: list[Checkpoint] = []
    pointwise = torch.empty(len(a), dtype=torch.float64)
    bar = tqdm(
        total=folds * max_steps,
        disable=None if progress is None else not progress,  # None: unless in a terminal
        delay=0 if progress else 2,
    )
    try:
        for fold, (train, stop, report) in enumerate(parts):
            bar.set_description(f"critic {fold + 1} of {folds}")
            pairs = [_normal_scores(samples, train).to(device) for samples in (a, b)]
            estimator = copy.deepcopy(template).to(device)
            looks: list[Checkpoint] = []
            for look in train_critic(
                estimator,
                [p[train] for p in pairs],
                [p[stop] for p in pairs],
                batch_size=batch_size,
                learning_rate=learning_rate,
                max_steps=max_steps,
                patience=patience,
                generator=generator,
            ):
                bar.update(look.step - looks[-1].step if looks else 0)
                looks.append(Checkpoint(fold, *look))
                bar.set_postfix({"objective on unseen data": f"{look.stop:.3f}"}, refresh=False)
            history += looks
            bar.total -= max_steps - looks[-1].step
            evaluation, pointwise[report] = read_out(estimator, *[p[report] for p in pairs])
            evaluations.append(evaluation)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"estimate_mi was stopped in critic {len(evaluations) + 1} of {folds}: no estimate was "
            f"made and its training is lost; x and y are untouched"
        ) from None
    finally:
        bar.close()

    n = len(a)
    pooled = Evaluation(
        sum(e.value * len(e.influence) for e in evaluations) / n,
        torch.cat([e.influence for e in evaluations]),
    )
    return MIEstimate(
        value=pooled.value,
        standard_error=pooled.standard_error,
        kind=template.objective.kind,
        ceiling=_ceiling(template.objective, -(-n // folds)),
        pointwise=pointwise.numpy(),
        history=tuple(history),
        objective=repr(template.objective),
    )


class Parts(NamedTuple):
    """Row numbers of one fold: what trains, what stops, what is reported on."""

    train: Tensor
    stop: Tensor
    report: Tensor


def split_folds(n: int, folds: int, generator: torch.Generator) -> list[Parts]:
    """Cut n samples into folds; of the rest of each, one part in eight is for stopping."""
    chunks = torch.randperm(n, generator=generator).tensor_split(folds)
    parts = []
    for k, report in enumerate(chunks):
        rest = torch.cat([*chunks[k + 1 :], *chunks[:k]])
        stop = max(2, len(rest) // 8)
        parts.append(Parts(rest[stop:], rest[:stop], report))
    return parts


class Look(NamedTuple):
    """A look at the critic in training; see `Checkpoint`."""

    step: int
    train: float
    stop: float


def train_critic(
    estimator: MIEstimator,
    train: list[Tensor],
    stop: list[Tensor],
    *,
    batch_size: int,
    learning_rate: float,
    max_steps: int,
    patience: int,
    generator: torch.Generator,
) -> Iterator[Look]:
    """Train the estimator's critic in place; leaves the weights that did best on `stop`.

    The candidates are moving averages of the weights, which generalise better than the weights
    themselves, and independence: unless a critic beats T = 0 on `stop` by a standard error, T is 0
    ever after. Diverged training ends it; what was best stays.
    """
    critic, objective = estimator.critic, estimator.objective
    average: Any = AveragedModel(critic, multi_avg_fn=_moving_average)
    optimiser = torch.optim.AdamW(
        [*critic.parameters()] or [torch.zeros(())], lr=learning_rate, weight_decay=1e-2
    )
    best: dict[str, Tensor] | None = None
    best_stop, best_step = 0.0, 0
    recent: list[Tensor] = []
    yield Look(0, 0.0, 0.0)
    for step, batch in enumerate(_minibatches(len(train[0]), batch_size, generator), start=1):
        batch = batch.to(train[0].device)
        scores = estimator.scores(*[part[batch] for part in train], generator=generator)
        value = objective(scores.map(objective.from_log_ratio))
        optimiser.zero_grad()
        if value.requires_grad:  # a closed form has nothing to learn, and is looked at all the same
            (-value).backward()
        optimiser.step()
        average.update_parameters(critic)
        recent.append(value.detach())
        if step % LOOK_EVERY == 0 or step == max_steps:
            unseen = _evaluate(objective, _blocks(average.module, *stop))
            look = Look(step, torch.stack(recent).mean().item(), unseen.value)
            recent.clear()
            if look.stop > max(best_stop, unseen.standard_error):
                best_stop, best_step = look.stop, step
                best = copy.deepcopy(average.module.state_dict())
            yield look
            patient = step - best_step < patience * LOOK_EVERY
            if step == max_steps or not patient or not np.isfinite(look.train):
                break
    if best is None:
        estimator.critic = _Independence()
    else:
        critic.load_state_dict(best)


class Evaluation(NamedTuple):
    """What an objective says of samples that the critic never saw.

    Attributes:
        value: Of the objective.
        influence: How far each sample pulls it, shape [n].
    """

    value: float
    influence: Tensor

    @property
    def standard_error(self) -> float:
        """Of the value, over the samples."""
        n = len(self.influence)
        return (self.influence.square().sum() / (n * (n - 1))).sqrt().item()


@torch.no_grad()
def read_out(estimator: MIEstimator, x: Tensor, y: Tensor) -> tuple[Evaluation, Tensor]:
    """The estimate of a critic of log-ratios, in nats, and the log-ratio of each sample.

    Where the constant in T counts, T is clipped to [-ln n, ln n]. It then still is a critic, and a
    lower bound a lower bound; more than ln n cannot be certified from n samples (McAllester &
    Stratos 2020), and a single pair far out can no longer explode in e^T.
    """
    objective = estimator.objective
    limit = math.log(len(x)) if objective.reduction.sees_constants else math.inf

    pointwise = []

    def blocks() -> Iterator[PairScores]:
        for scores in _blocks(estimator.critic, x, y):
            clipped = scores.map(lambda t: t.clamp(-limit, limit))
            ratios = objective.log_ratio(clipped.map(objective.from_log_ratio))
            pointwise.append(ratios.joint.cpu())
            yield clipped

    evaluation = _evaluate(objective.readout(), blocks())
    return evaluation, torch.cat(pointwise)


def _ceiling(objective: Objective, n: int) -> float:
    """The most that can be certified from n samples, or that the objective can reach, in nats."""
    return min(math.log(n), objective.ceiling(_block_size(n) - 1))


@torch.no_grad()
def _evaluate(objective: Objective, blocks: Iterable[PairScores]) -> Evaluation:
    """An objective on blocks of log-ratios, pooled."""
    tiles, columns = [], []
    for scores in blocks:
        terms = objective.apply_terms(scores.map(objective.from_log_ratio))
        tile = statistics_of(terms, objective.reduction)
        tiles.append(tile)
        columns.append(objective.reduction.column_totals(tile, terms.product, scores.mask))
    statistics = Statistics.cat(tiles)
    influence = objective.reduction.influence(statistics, torch.cat(columns))
    return Evaluation(objective.value(statistics).item(), influence.cpu())


@torch.no_grad()
def _blocks(critic: Critic, x: Tensor, y: Tensor) -> Iterator[PairScores]:
    """Float64 scores of all pairs within blocks of nearly equal size."""
    estimator = MIEstimator(critic)
    with evaluating(critic):
        for u, v in zip(*[part.tensor_split(_block_count(len(x))) for part in (x, y)], strict=True):
            yield estimator.scores(u, v).map(Tensor.double)


def _block_size(n: int) -> int:
    """Samples in the largest block when n are cut into as few, nearly equal blocks as allowed."""
    return -(-n // _block_count(n))


def _block_count(n: int) -> int:
    return -(-n // BLOCK)


def _minibatches(n: int, size: int, generator: torch.Generator) -> Iterator[Int64[Tensor, " B"]]:
    """Epoch after epoch of shuffled minibatches; a tail of less than half a batch is left out."""
    while True:
        for batch in torch.randperm(n, generator=generator).split(size):
            if len(batch) >= max(2, min(n, size) / 2):
                yield batch


@torch.no_grad()
def _moving_average(average: Any, new: Any, count: Tensor | int) -> None:
    # Over the last ~100 steps, fewer at the start, so that the initial weights fade at once. The
    # count is read on the device: a number on the host would wait for it.
    weight = 1 - (torch.as_tensor(count) / (torch.as_tensor(count) + 10)).clamp(max=0.99)
    for a, b in zip(average, new, strict=True):
        a.lerp_(b, weight.to(a))


class _Independence(Critic):
    """T = 0: what is left when no critic beats it."""

    def encode_x(self, x: Tensor) -> Float[Tensor, "*b e"]:
        return torch.zeros_like(x[:, :1])

    def encode_y(self, y: Tensor) -> Float[Tensor, "*b e"]:
        return torch.zeros_like(y[:, :1])

    def score(self, u: Float[Tensor, "*a e"], v: Float[Tensor, "*b e"]) -> Float[Tensor, "..."]:
        return (u + v).squeeze(-1)


def _normal_scores(
    samples: Float[Tensor, "N d"], train: Int64[Tensor, " A"]
) -> Float[Tensor, "N d"]:
    """Each column's ranks among the training rows, as quantiles of the standard normal law.

    MI does not change under increasing maps of the columns, but heavy tails, on which a critic
    extrapolates, are gone. Ties share their middle rank.
    """
    reference, values = samples[train].T.contiguous().sort().values, samples.T.contiguous()
    below = torch.searchsorted(reference, values)
    at_most = torch.searchsorted(reference, values, right=True)
    quantiles = ((below + at_most) / 2 + 0.5) / (len(train) + 1)
    return torch.special.ndtri(quantiles.double()).T.float().contiguous()


def _as_pairs(x: Any, y: Any) -> tuple[Float[Tensor, "N dx"], Float[Tensor, "N dy"]]:
    a, b = _as_samples("x", x), _as_samples("y", y)
    if len(a) != len(b):
        raise ValueError(
            f"y: expected as many samples as x, {len(a)}, received {len(b)}; row i of x and of y "
            f"must be one pair"
        )
    if len(a) < MIN_SAMPLES:
        raise ValueError(
            f"x, y: expected at least {MIN_SAMPLES} samples to train and test on, received "
            f"{len(a)}; collect more pairs"
        )
    return a, b


def _as_samples(name: str, data: Any) -> Float[Tensor, "N d"]:
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
    constant = np.flatnonzero(np.ptp(array, axis=0) == 0)
    if len(constant):
        raise ValueError(
            f"{name}: expected columns that vary, received constant columns {list(constant)}; "
            f"they carry no information: drop them"
        )
    return torch.from_numpy(array)
