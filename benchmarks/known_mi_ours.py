"""This library's methods in `known_mi.py`: a name for each, and what it calls."""

from functools import partial
from typing import Any

import numpy as np
from known_mi_worker import Method, serve

import mi_estimators as mi


def estimate(x: np.ndarray, y: np.ndarray, seed: int, **keywords: Any) -> mi.MIEstimate:
    """`estimate_mi` as it comes, or with some of its keywords."""
    return mi.estimate_mi(x, y, seed=seed, progress=False, **keywords)


# A variant is a line here: it is then a method of `known_mi.py` by this name.
METHODS: dict[str, Method] = {
    "ours": estimate,
    "ours-gaussian-copula": partial(estimate, baseline=mi.GaussianCopula()),
    "ours-jsd-only": partial(estimate, objective=mi.JSD()),
    "ours-dv-only": partial(estimate, objective=mi.DV()),
    "ours-plain-jsd": partial(estimate, objective=mi.JSD(), baseline=None, neighbours=None),
    "ours-plain": partial(estimate, baseline=None, neighbours=None),
    "ours-half": partial(estimate, budget=mi.Budget(folds=3, steps=300, patience=3)),
    "ours-quick": partial(estimate, budget=mi.Budget(folds=2, steps=200, patience=2)),
}
# Only for tests: runs in a second, means nothing.
SMOKE: dict[str, Method] = {
    "smoke": partial(estimate, budget=mi.Budget(folds=2, steps=10)),
}

if __name__ == "__main__":
    serve(METHODS | SMOKE)
