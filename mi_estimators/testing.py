"""The conformance suite: what every objective and every critic must satisfy, values included.

The truth comes from laws on few atoms. With X and Y uniform on n letters and p(x, y) a multiple of
one count, lists of equally likely pairs *are* P and Q: every expectation below is exact, there is
no sampling error to hide behind, and log r and the mutual information are known to all digits.

Example:
    >>> from mi_estimators import JSD, Separable
    >>> check_objective(JSD())
    >>> check_critic(Separable.mlp(5, 3), torch.randn(6, 5), torch.randn(6, 3))
"""

import copy
import math
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from mi_estimators.critics import Critic
from mi_estimators.estimator import evaluating
from mi_estimators.objectives import Kind, Objective
from mi_estimators.reductions import Statistics
from mi_estimators.scores import PairScores

NEGATIVES = 4096  # a row, for reductions whose value depends on how many there are
EXACT = 1e-9
NEAR = 1e-3  # what so many negatives may lack of infinitely many


def check_objective(objective: Objective) -> None:
    """Check that an objective is what its parts, `kind` and `generator` say it is.

    The objective itself stays as it is: a copy is checked.

    Args:
        objective: The plug-in, ready to be called.

    Raises:
        AssertionError: At the first property that fails: which one, expected, received.

    Example:
        >>> from mi_estimators import InfoNCE
        >>> check_objective(InfoNCE())
    """
    objective = copy.deepcopy(objective).eval()
    _check_statements(objective)
    _check_mechanics(objective)
    _check_state(objective)
    value_at, estimate_at = (
        NEAR if one.reduction.needs_many else EXACT for one in (objective, objective.readout())
    )
    for law in (_law(5, 4, 4, 3), _law(8, 4, 2, 1, 1)):
        _check_optimum(objective, law, value_at)
        if objective.kind != "neither" or law.log_ratio.abs().max() < 0.5:
            _check_estimate(objective, law, estimate_at)
        _check_few_negatives(objective, law)


def check_critic(critic: Critic, x: Tensor, y: Tensor) -> None:
    """Check that encoding once and scoring many is the same as scoring pair by pair.

    The critic is checked in evaluation mode, and every part is left in the mode that it was in;
    parameters that do not train are not asked for a gradient.

    Args:
        critic: The plug-in, whose encodings have shape `N ... e`.
        x: A batch of at least 2 samples.
        y: Their partners.

    Raises:
        AssertionError: At the first property that fails: which one, expected, received.

    Example:
        >>> from mi_estimators import Bilinear
        >>> check_critic(Bilinear(5, 3), torch.randn(4, 5), torch.randn(4, 3))
    """
    with evaluating(critic):
        u, v, joint = critic.encode_x(x), critic.encode_y(y), critic(x, y)
        shape = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
        _equal("shape of critic(x, y)", list(shape), list(joint.shape))
        square = critic.score(u[:, None], v[None])
        one_by_one = [
            [critic(x[i : i + 1], y[j : j + 1]).squeeze(0) for j in range(len(y))]
            for i in range(len(x))
        ]
        pairs = torch.stack([torch.stack(row) for row in one_by_one])
        _close("score(u[:, None], v[None])[i, j] = T(x_i, y_j)", pairs, square, 1e-4)
        locations = torch.stack([v, v.flip(0)], dim=1)
        each = torch.stack([critic.score(u, v), critic.score(u, v.flip(0))], dim=1)
        _close("score of N 1 e with N L e", each, critic.score(u[:, None], locations), 1e-4)
        for name, parameter in critic.named_parameters():
            if not parameter.requires_grad:
                continue
            (gradient,) = torch.autograd.grad(
                square.sum(), parameter, retain_graph=True, allow_unused=True
            )
            reached = gradient is not None and bool(gradient.isfinite().all())
            _true(f"gradient of {name}", reached, "finite numbers", gradient)


class _Law(NamedTuple):
    """X, Y on n letters: log r and all equally likely pairs, as indices into it."""

    log_ratio: Tensor  # n n
    partners: Tensor  # n m: the y of each x, each as often as p(y|x) has it

    @property
    def information(self) -> float:
        return self.log_ratio.gather(1, self.partners).mean().item()

    def scores(self, table: Tensor) -> PairScores:
        """Every pair of P and of Q, scored by a table."""
        repeats = NEGATIVES // len(table)
        return PairScores(table.gather(1, self.partners).T, table.repeat(1, repeats)[None])

    def scenes(self, table: Tensor, negatives: int) -> PairScores:
        """Every pair of P with every tuple of negatives, scored by a table: all expectations."""
        letters = torch.arange(len(table))
        tuples = torch.cartesian_prod(*[letters] * negatives).view(-1, negatives)
        shape = (*self.partners.shape, len(tuples))
        joint = table.gather(1, self.partners)[..., None].expand(shape)
        return PairScores(joint, table[:, tuples][:, None].expand(*shape, negatives))


def _law(*counts: int) -> _Law:
    n = len(counts)
    weights = torch.tensor([counts[-i:] + counts[:-i] for i in range(n)], dtype=torch.float64)
    partners = [torch.arange(n).repeat_interleave(row.long()) for row in weights]
    return _Law((weights * n / sum(counts)).log(), torch.stack(partners))


def _check_statements(objective: Objective) -> None:
    kinds = get_args(Kind)
    _true("kind", objective.kind in kinds, f"one of {kinds}", objective.kind)
    stated = bool(objective.source) and objective.source != Objective.source
    _true("source", stated, "a paper and an equation", objective.source)
    name = type(objective).__name__
    _true("repr", name in repr(objective), f"a text with {name}", repr(objective))
    log_ratio = torch.linspace(-8, 8, 33, dtype=torch.float64)
    back = objective.to_log_ratio(objective.from_log_ratio(log_ratio))
    _close("to_log_ratio(from_log_ratio(log r))", log_ratio, back, EXACT)


def _check_mechanics(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(0)
    joint, product = (
        3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((6,), (6, 5))
    )
    scores = PairScores(joint, product)
    value = objective(scores)
    _equal("shape of the value", [], list(value.shape))
    _close("mean of terms(scores)", value, objective.terms(scores).mean(), EXACT)
    parts: list[Statistics] = [
        objective.statistics(PairScores(joint[rows], product[rows]))
        for rows in (slice(0, 2), slice(2, 6))
    ]
    _close("value over row tiles", value, objective.value(Statistics.cat(parts)), EXACT)
    left, right = (
        objective.statistics(PairScores(joint, product[:, columns]))
        for columns in (slice(0, 2), slice(2, 5))
    )
    tiled = objective.value(objective.reduction.add(left, right))
    _close("value over column tiles", value, tiled, EXACT)

    apart = PairScores(
        objective.from_log_ratio(torch.full_like(joint, 20.0)),
        objective.from_log_ratio(torch.full_like(product, -20.0)),
    )
    if math.isfinite(objective.ceiling(5)):
        reached = objective.estimate(apart)
        _close(
            "estimate where pairs are told apart, ceiling(5)", objective.ceiling(5), reached, 1e-6
        )

    mask = (torch.arange(5) < 3).expand(6, 5)
    masked = PairScores(joint, product.masked_fill(~mask, 1e4), mask)
    deleted = PairScores(joint, product[:, :3])
    for name, of in (("value", objective), ("estimate", objective.estimate)):
        _close(f"{name} with pairs masked", of(deleted), of(masked), EXACT)
    for dtype in (torch.float16, torch.bfloat16):
        low_scores = PairScores(joint.to(dtype), product.to(dtype))
        for name, of in (("value", objective), ("estimate", objective.estimate)):
            low = of(low_scores)
            _equal(f"dtype of the {name} on {dtype} scores", torch.float32, low.dtype)
    numbers = _value_and_gradients(objective, scores)
    finite = all(bool(number.isfinite().all()) for number in numbers)
    _true("value and gradients on scores of size 3", finite, "finite numbers", numbers)


def _check_state(objective: Objective) -> None:
    scores = PairScores(torch.arange(3.0), torch.arange(6.0).view(3, 2).cos())
    used, fresh = (copy.deepcopy(objective).train() for _ in range(2))
    used(scores)
    used(scores.map(lambda t: 3 * t))
    fresh.load_state_dict(used.state_dict())
    numbers = _value_and_gradients(used, scores)
    for a, b in zip(numbers, _value_and_gradients(fresh, scores), strict=True):
        _close("value and gradients after a state-dict round trip", a, b, 1e-6)
    _close("value in evaluation mode, as in training", numbers[0], fresh.eval()(scores), 1e-6)


def _check_optimum(objective: Objective, law: _Law, tolerance: float) -> None:
    optimum = objective.from_log_ratio(law.log_ratio)
    at_optimum = objective(law.scores(optimum))
    divergence = objective.generator(law.log_ratio).mean()
    _close("value at the exact critic, E_Q[generator(log r)]", divergence, at_optimum, tolerance)
    independent = objective.from_log_ratio(torch.zeros_like(law.log_ratio))
    _close("value at log r = 0", 0.0, objective(law.scores(independent)), EXACT)
    recovered = objective.log_ratio(law.scores(optimum)).product[0, :, : len(optimum)]
    near = NEAR if objective.density else tolerance  # a density is log r up to a sum over negatives
    _close("log_ratio of the exact critic", law.log_ratio, recovered, near)
    if objective.kind == "upper bound":  # which no critic is to maximise
        return
    for column in range(len(optimum)):
        for step in (-0.3, -0.05, 0.05, 0.3):
            other = optimum.clone()
            other[0, column] += step
            if objective.density:  # moved within the densities: x uniform, they sum to its letters
                other -= other.logsumexp(0) - math.log(len(other))
            value = objective(law.scores(other))
            _true(
                f"value with the exact critic moved by {step} where log r = "
                f"{law.log_ratio[0, column]:.2f}: from_log_ratio is the optimum of the terms",
                bool(value < at_optimum),
                f"less than {at_optimum.item()}",
                value.item(),
            )


def _check_estimate(objective: Objective, law: _Law, tolerance: float) -> None:
    truth, exact = law.information, law.log_ratio

    def estimate(log_ratio: Tensor) -> Tensor:
        return objective.estimate(law.scores(objective.from_log_ratio(log_ratio)))

    if objective.kind == "upper bound":
        at_exact = estimate(exact)
        above = bool(at_exact > truth - tolerance)
        _true("estimate at the exact critic", above, f"at least {truth} nats", at_exact.item())
        return
    _close("estimate in nats at the exact critic", truth, estimate(exact), tolerance)
    if objective.kind == "neither":
        return
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).double()
    wrong = {f"{scale} log r": scale * exact for scale in (-1, 0, 0.5, 0.9, 1.1, 2)}
    wrong |= {f"log r + {shift}": exact + shift for shift in (-1, -0.1, 0.1, 1)}
    wrong |= {f"log r + {sd} noise": exact + sd * noise for sd in (0.1, 0.5, 1)}
    for name, log_ratio in wrong.items():
        value = estimate(log_ratio)
        below = bool(value < truth + tolerance)
        _true(f"estimate at the critic {name}", below, f"at most {truth} nats", value.item())


def _check_few_negatives(objective: Objective, law: _Law) -> None:
    """A bound on MI is one in expectation, however few negatives a row has."""
    truth = law.information
    for negatives in (1, 2, 3):
        for scale in (0.5, 1, 2) if objective.kind == "lower bound" else (1,):
            critic = objective.from_log_ratio(scale * law.log_ratio)
            value = objective.estimate(law.scenes(critic, negatives)).item()
            what = f"expected estimate at the critic {scale} log r with {negatives} negatives a row"
            if objective.kind == "lower bound":
                _true(what, value < truth + EXACT, f"at most {truth} nats", value)
            if objective.kind == "upper bound":
                _true(what, value > truth - EXACT, f"at least {truth} nats", value)


def _value_and_gradients(objective: Objective, scores: PairScores) -> tuple[Tensor, ...]:
    leaves = scores.joint.clone().requires_grad_(), scores.product.clone().requires_grad_()
    value = objective(PairScores(*leaves))
    # A likelihood has no product terms, hence no gradient by them.
    gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return value.detach(), *gradients


def _true(what: str, holds: bool, expected: object, received: object) -> None:
    if not holds:
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def _equal(what: str, expected: object, received: object) -> None:
    _true(what, expected == received, expected, received)


def _close(what: str, expected: Any, received: Tensor, tolerance: float) -> None:
    a, b = torch.as_tensor(expected, dtype=received.dtype), received
    near = a.shape == b.shape and bool(((a - b).abs() <= tolerance * (1 + a.abs())).all())
    _true(what, near, a.detach().tolist(), b.detach().tolist())
