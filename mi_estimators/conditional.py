"""Information of more than two variables, by the chain rule: conditional, and total correlation."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mi_estimators.baselines import Baseline, TCopula
from mi_estimators.combination import Combination, Part, combine
from mi_estimators.estimate import estimate_mi
from mi_estimators.ksg import KSG
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import Objective
from mi_estimators.preprocess import Compress, NormalScores, OneHot, Preprocessor
from mi_estimators.samples import as_matrix, check_varies, device_of
from mi_estimators.training import Budget


def estimate_conditional_mi(
    x: Any,
    y: Any,
    z: Any,
    *,
    objective: Objective | Sequence[Objective] | None = None,
    negatives: NegativeSampler | None = None,
    preprocess: Sequence[Preprocessor] | None = (OneHot(), NormalScores(), Compress()),
    baseline: Baseline | None = TCopula(),
    neighbours: KSG | None = KSG(),
    budget: Budget = Budget(),
    groups: Any = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> Combination:
    """Estimate I(X; Y | Z), what X and Y share beyond Z, in nats.

    I(X; Y | Z) = I(X, Z; Y) - I(Z; Y), the chain rule (Cover & Thomas 2006, Theorem 2.5.2), each by
    `estimate_mi` with the same seed and so the same folds: what one sample does to both cancels in
    the standard error. A difference of two lower bounds is no bound: its kind is "neither". What
    both estimates miss cancels too, but not what one alone misses: that may be the one with more
    dimensions, in which case the value is low.

    Args:
        x: Samples, shape `[N]` or `[N, d_x]`, in any container that `estimate_mi` takes.
        y: Shape `[N]` or `[N, d_y]`.
        z: What is known, shape `[N]` or `[N, d_z]`.
        objective: As of `estimate_mi`, like all that follow. There is no `critic` among them: the
            two estimates differ in dimensions, and each has a `canonical_critic` of its own.
        negatives: For training.
        preprocess: Maps of (x, z) and of y, column by column.
        baseline: `TCopula()`, `GaussianCopula()` or None.
        neighbours: For few continuous dimensions of x, y and z together; None: never.
        budget: How much work, for each of the two.
        groups: A label for each sample, shape `[N]`, where samples are not independent.
        seed: Same seed, same machine: same number.
        device: Where to compute; by default where x is, if a tensor, else the CPU.
        progress: Whether to show progress bars.

    Returns:
        The difference, with its paired standard error and the two estimates.

    Raises:
        TypeError: If x, y or z is not numeric, or a part is no instance of its class.
        ValueError: If x, y and z differ in length, or one of them is nothing that `estimate_mi`
            takes (NaN, constant columns, too few samples).
        FloatingPointError: If a readout overflows.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z, *noise = torch.randn(3, 1000, generator=generator)
        >>> x, y = z + noise[0], z + noise[1]  # independent, once z is known
        >>> result = estimate_conditional_mi(x, y, z, budget=Budget(folds=2, steps=50))
        >>> abs(result.value) < 0.05 < result.parts[1].estimate.value
        True
    """
    known = _as_matrices({"x": x, "y": y, "z": z})
    estimate = partial(
        estimate_mi,
        objective=objective,
        negatives=negatives,
        preprocess=preprocess,
        baseline=baseline,
        neighbours=neighbours,
        budget=budget,
        groups=groups,
        seed=seed,
        device=device_of(x, device),
        progress=progress,
    )
    both = torch.cat([known["x"], known["z"]], 1)
    parts = [
        Part(1, "I(X, Z; Y)", estimate(both, known["y"])),
        Part(-1, "I(Z; Y)", estimate(known["z"], known["y"])),
    ]
    return combine("I(X; Y | Z)", parts, groups)


def estimate_total_correlation(
    *variables: Any,
    objective: Objective | Sequence[Objective] | None = None,
    negatives: NegativeSampler | None = None,
    preprocess: Sequence[Preprocessor] | None = (OneHot(), NormalScores(), Compress()),
    baseline: Baseline | None = TCopula(),
    neighbours: KSG | None = KSG(),
    budget: Budget = Budget(),
    groups: Any = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> Combination:
    """Estimate how far k variables are from independence of one another, in nats.

    KL(p(x_1, ..., x_k) || p(x_1) ... p(x_k)) = Σ_j I(X_1, ..., X_{j-1}; X_j), the chain rule of
    total correlation (Watanabe 1960): k - 1 estimates by `estimate_mi` on the same folds. A sum of
    lower bounds is a lower bound. The order of the variables does not matter to the quantity, only
    to how hard the single estimates are.

    Args:
        variables: Two or more, each of shape `[N]` or `[N, d]`. Dependence among the columns of one
            variable does not count.
        objective: As of `estimate_mi`, like all that follow; as in `estimate_conditional_mi`, there
            is no `critic` among them.
        negatives: For training.
        preprocess: Maps of the variables, column by column.
        baseline: `TCopula()`, `GaussianCopula()` or None.
        neighbours: For few continuous dimensions together; None: never.
        budget: How much work, for each of the k - 1.
        groups: A label for each sample, shape `[N]`, where samples are not independent.
        seed: Same seed, same machine: same number.
        device: Where to compute; by default where the first variable is, if a tensor, else the CPU.
        progress: Whether to show progress bars.

    Returns:
        The sum, with its paired standard error and its k - 1 estimates.

    Raises:
        TypeError: If a variable is not numeric, or a part is no instance of its class.
        ValueError: If there is only one variable, they differ in length, or one of them is nothing
            that `estimate_mi` takes.
        FloatingPointError: If a readout overflows.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, *noise = torch.randn(3, 1000, generator=generator)
        >>> result = estimate_total_correlation(x, *noise, budget=Budget(folds=2, steps=50))
        >>> abs(result.value) < 0.05, len(result.parts)
        (True, 2)
    """
    if len(variables) < 2:
        raise ValueError(
            f"variables: expected two or more, received {len(variables)}; pass each as an argument "
            f"of its own, as in estimate_total_correlation(*columns)"
        )
    known = _as_matrices({f"variables[{k}]": v for k, v in enumerate(variables)})
    estimate = partial(
        estimate_mi,
        objective=objective,
        negatives=negatives,
        preprocess=preprocess,
        baseline=baseline,
        neighbours=neighbours,
        budget=budget,
        groups=groups,
        seed=seed,
        device=device_of(variables[0], device),
        progress=progress,
    )
    sides, names = list(known.values()), [f"X_{k + 1}" for k in range(len(known))]
    parts = [
        Part(
            1, f"I({', '.join(names[:j])}; {names[j]})", estimate(torch.cat(sides[:j], 1), sides[j])
        )
        for j in range(1, len(sides))
    ]
    return combine(f"TC({', '.join(names)})", parts, groups)


def _as_matrices(variables: Mapping[str, Any]) -> dict[str, Float[Tensor, "N _"]]:
    """Float64 matrices by their names, as long as each other, no column of them constant."""
    sides = {name: as_matrix(name, data) for name, data in variables.items()}
    first, *_ = sides
    for name, side in sides.items():
        if len(side) != len(sides[first]):
            raise ValueError(
                f"{name}: expected as many samples as {first}, {len(sides[first])}, received "
                f"{len(side)}; row i of all of them must be one observation"
            )
        check_varies(name, side)
    return sides
