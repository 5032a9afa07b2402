"""What an objective says of samples that its critic never saw: a value and its error.

All samples are paired with all, in blocks, of which one is in memory at a time. In a block of b
samples each has b - 1 negatives; a million samples need fewer of them each than a thousand do.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import brentq
from torch import Tensor

from mi_estimators.critics import Critic
from mi_estimators.estimator import MIEstimator, evaluating
from mi_estimators.objectives import DV, JSD, InfoNCE, Objective
from mi_estimators.reductions import Statistics, log_sum_exp, statistics_of
from mi_estimators.samples import Samples
from mi_estimators.scores import PairScores

BLOCK = 1024  # samples that are read out together, all against all
PAIRS = 2**25  # that are scored of samples by the ten thousands; then blocks become smaller
SHUFFLED = 4 * BLOCK  # samples of a fold that the test of independence looks at
CLIP = 3.0  # of log-ratios in the certificate, in nats
SPAN = 2 * CLIP  # between the largest and the smallest of its terms
BRACKET = (JSD(), DV(), InfoNCE())  # whose readouts are compared; they have no state


class Evaluation(NamedTuple):
    """What an objective says of samples that the critic never saw.

    Attributes:
        value: Of the objective.
        influence: How far each sample pulls it, shape [n].
    """

    value: float
    influence: Tensor

    def standard_error(self, groups: Int64[Tensor, " n"] | None = None) -> float:
        """Of the value, over the samples, or over groups 0 ... G - 1 of dependent samples."""
        n, pulls = len(self.influence), self.influence
        if groups is not None:
            pulls = pulls.new_zeros(int(groups.max()) + 1).index_add(0, groups, pulls)
        return (pulls.square().sum() * len(pulls) / (len(pulls) - 1)).sqrt().item() / n

    def exceeds(self, errors: float, groups: Int64[Tensor, " n"] | None = None) -> bool:
        """Whether the value is above 0 by more than so many standard errors."""
        return self.value > errors * self.standard_error(groups)

    def less(self, other: "Evaluation") -> "Evaluation":
        """The difference of two values on the same samples, whose errors mostly cancel."""
        return Evaluation(self.value - other.value, self.influence - other.influence)

    def reordered(self, order: Tensor) -> "Evaluation":
        """The same with the samples in another order."""
        return Evaluation(self.value, self.influence[order])

    @staticmethod
    def pool(parts: "Iterable[Evaluation]") -> "Evaluation":
        """One value over parts of the samples, each weighted by how many it holds."""
        parts = list(parts)
        n = sum(len(part.influence) for part in parts)
        return Evaluation(
            sum(part.value * len(part.influence) for part in parts) / n,
            torch.cat([part.influence for part in parts]),
        )


class Readout(NamedTuple):
    """A critic of log-ratios, read out on n samples.

    Attributes:
        estimate: Mutual information in nats.
        others: The same by the readouts of JSD, DV and InfoNCE.
        pointwise: Log-ratio of each sample, shape [n].
        effective_sample_size: Of the weights e^T over the independent pairs (Kish): how many of
            them carry E_Q[e^T].
    """

    estimate: Evaluation
    others: dict[str, Evaluation]
    pointwise: Tensor
    effective_sample_size: float


@torch.no_grad()
def read_out(
    critic: Critic,
    objective: Objective,
    samples: Samples,
    *,
    constant: float | None = 0.0,
    by: Objective | None = None,
) -> Readout:
    """The objective's estimate at a critic of log-ratios.

    Args:
        critic: Of log-ratios, up to `constant`.
        objective: That it was trained with.
        samples: That took no part in its training.
        constant: In T; see `clipped_blocks`.
        by: What estimates; by default the objective's own readout.
    """
    pointwise, weights, squares = [], [], []

    def noted() -> Iterator[PairScores]:
        for scores in clipped_blocks(critic, samples, constant):
            ratios = objective.log_ratio(scores.map(objective.from_log_ratio))
            pointwise.append(ratios.joint.cpu())
            weights.append(log_sum_exp(ratios.product, ratios.mask).logsumexp(0))
            squares.append(log_sum_exp(2 * ratios.product, ratios.mask).logsumexp(0))
            yield scores

    estimate, *others = evaluate_all(
        [by or objective.readout(), *(of.readout() for of in BRACKET)], noted()
    )
    size = 2 * torch.stack(weights).logsumexp(0) - torch.stack(squares).logsumexp(0)
    names = [type(of).__name__ for of in BRACKET]
    return Readout(
        estimate, dict(zip(names, others, strict=True)), torch.cat(pointwise), size.exp().item()
    )


def tightest(
    critic: Critic,
    objective: Objective,
    samples: Samples,
    constant: float | None,
    *,
    size: int = BLOCK,
) -> Objective:
    """What estimates best: the objective's own readout, or InfoNCE.

    Both bound from below, so that a value that is larger, by a standard error, is the closer one.
    InfoNCE forgives T an error that depends on x alone, but ends at log b in blocks of b samples.
    To be chosen on other samples than those that are reported, as the larger of two chances is no
    bound; but in blocks of their `size`.
    """
    own, other = objective.readout(), InfoNCE()
    if objective.kind != "lower bound":
        return own
    blocks = clipped_blocks(critic, samples, constant, size=size)
    of_own, of_other = evaluate_all([own, other], blocks)
    return other if of_other.less(of_own).exceeds(1.0, samples.group_numbers()) else own


def mean_of(terms: Float[Tensor, " n"]) -> Evaluation:
    """The mean of one term a sample."""
    return Evaluation(terms.mean().item(), terms - terms.mean())


@torch.no_grad()
def free_constant(critic: Critic, objective: Objective, samples: Samples) -> float | None:
    """The constant in a trained critic's T that its objective cannot see; None if one a row."""
    offsets = [objective.reduction.offset(scores) for scores in score_blocks(critic, samples)]
    return None if offsets[0].ndim else torch.stack(offsets).mean().item()


def evaluate(objective: Objective, blocks: Iterable[PairScores]) -> Evaluation:
    """An objective on blocks of log-ratios, pooled."""
    return evaluate_all([objective], blocks)[0]


@torch.no_grad()
def evaluate_all(objectives: Sequence[Objective], blocks: Iterable[PairScores]) -> list[Evaluation]:
    """Several objectives on the same blocks of log-ratios, each pooled over all of them."""
    tiles: list[list[Statistics]] = [[] for _ in objectives]
    columns: list[list[Tensor]] = [[] for _ in objectives]
    for scores in blocks:
        for k, objective in enumerate(objectives):
            terms = objective.apply_terms(scores.map(objective.from_log_ratio))
            tile = statistics_of(terms, objective.reduction)
            tiles[k].append(tile)
            columns[k].append(objective.reduction.column_totals(tile, terms.product, scores.mask))
    evaluations = []
    for objective, of_rows, of_columns in zip(objectives, tiles, columns, strict=True):
        statistics = Statistics.cat(of_rows)
        influence = objective.reduction.influence(statistics, torch.cat(of_columns))
        evaluations.append(Evaluation(objective.value(statistics).item(), influence.cpu()))
    return evaluations


@torch.no_grad()
def score_blocks(critic: Critic, samples: Samples, *, size: int = BLOCK) -> Iterator[PairScores]:
    """Float64 scores of all pairs within blocks of nearly equal size, `size` at most."""
    estimator = MIEstimator(critic)
    with evaluating(critic):
        blocks = max(_blocks(len(samples)), -(-len(samples) // size))
        for rows in torch.arange(len(samples)).tensor_split(blocks):
            block = samples[rows]
            yield estimator.scores(block.x, block.y, groups=block.groups).map(Tensor.double)


def clipped_blocks(
    critic: Critic, samples: Samples, constant: float | None, *, size: int = BLOCK
) -> Iterator[PairScores]:
    """As `score_blocks`, without the free constant of T, and clipped to [-ln n, ln n].

    Clipped, T still is a critic, and a lower bound a lower bound; more than ln n cannot be
    certified from n samples (McAllester & Stratos 2020), and a single pair far out can no longer
    explode in e^T. None for the constant is one a row (`free_constant`): then T stays as it is.
    """
    shift, limit = (0.0, math.inf) if constant is None else (constant, math.log(len(samples)))
    for scores in score_blocks(critic, samples, size=size):
        yield scores.map(lambda t: (t - shift).clamp(-limit, limit))


def block_size(n: int) -> int:
    """Samples in the largest block when n are cut into as few, nearly equal blocks as allowed."""
    return -(-n // _blocks(n))


def _blocks(n: int) -> int:
    return -(-n // min(BLOCK, max(64, PAIRS // n)))


def certified_bound(bounds: Sequence[Tensor], *, level: float = 0.95) -> float:
    """A mutual information that is exceeded with confidence `level`, in nats, at any sample size.

    `bounds` holds, for each critic, independent terms of the held-out 2 JS (`divergence_terms`).
    For each, an empirical-Bernstein limit (Maurer & Pontil 2009, Theorem 4) is below 2 JS(P, Q)
    with confidence 1 - (1 - level) / critics, hence all of them together with confidence `level`;
    and I >= Ξ(JS), Ξ being `information_of_divergence`.
    """
    failure = (1 - level) / len(bounds)
    limits = []
    for terms in bounds:
        m, log = len(terms), math.log(2 / failure)
        if m < 2:
            continue
        slack = math.sqrt(2 * terms.var().item() * log / m) + 7 * SPAN * log / (3 * (m - 1))
        limits.append(terms.mean().item() - slack)
    return information_of_divergence(max(limits, default=0.0) / 2)


@torch.no_grad()
def divergence_terms(critic: Critic, samples: Samples, constant: float) -> Float[Tensor, " m"]:
    """Independent terms whose mean is at most 2 JS(P, Q), in nats; one for two samples.

    T is clipped to [-CLIP, CLIP], which keeps it a critic and its terms within `SPAN`. The samples
    2i and 2i + 1 give each other their negatives, so that no two terms share a sample.
    """
    if samples.groups is not None:  # one sample of each group
        first = np.unique(samples.groups.cpu().numpy(), return_index=True)[1]
        samples = samples[torch.from_numpy(np.sort(first))]
    rows = torch.arange(len(samples) // 2) * 2
    even, odd = samples[rows], samples[rows + 1]
    with evaluating(critic):
        scores = [
            (critic(a.x, b.y).double() - constant).clamp(-CLIP, CLIP)
            for a, b in ((even, even), (odd, odd), (even, odd), (odd, even))
        ]
    first, second, third, fourth = scores
    jsd = JSD()
    joint = jsd.joint_term(first) + jsd.joint_term(second)
    product = jsd.product_term(third) + jsd.product_term(fourth)
    return ((joint - product) / 2).cpu()


@torch.no_grad()
def shuffled_sums(
    critic: Critic, samples: Samples, generator: torch.Generator, shuffles: int = 999
) -> Float[Tensor, " S"]:
    """Sums of T over the pairs, and over pairs whose y are shuffled within blocks.

    Without dependence, and for a critic that never saw these samples, all of them have one law: the
    share that is as large as the first is a p-value of independence, exact at any sample size.
    """
    sums = torch.zeros(shuffles + 1, dtype=torch.float64)
    some = torch.arange(min(len(samples), SHUFFLED))
    for scores in score_blocks(critic, Samples(samples.x, samples.y)[some]):
        every = scores.product.cpu()  # with the real pairs on the diagonal
        n = len(every)
        order = torch.rand(shuffles, n, generator=generator, dtype=torch.float64).argsort(1)
        of_shuffled = every[torch.arange(n), order].sum(1)
        sums += torch.cat([every.trace()[None], of_shuffled])
    return sums


def information_of_divergence(divergence: float) -> float:
    """The least mutual information that goes with a Jensen-Shannon divergence, both in nats: Ξ.

    Attained by P a point and Q a Bernoulli law of parameter nu: JS = log 2 - (1 + nu) log(1 + nu) /
    2 + nu log(nu) / 2 and KL = -log nu. 0 for a divergence of 0 or less.

    Raises:
        ValueError: If the divergence is log 2 or more, which no two laws with finite KL reach.

    Example:
        >>> round(information_of_divergence(0.255), 2)  # correlated Gaussians with I = 1 nat
        0.84
    """
    if divergence <= 0:
        return 0.0
    if divergence >= math.log(2):
        raise ValueError(f"divergence: expected less than log 2, received {divergence}")

    def excess(log_nu: float) -> float:
        nu = math.exp(log_nu)
        return math.log(2) - (1 + nu) / 2 * math.log1p(nu) + nu / 2 * log_nu - divergence

    return -brentq(excess, -700.0, 0.0)
