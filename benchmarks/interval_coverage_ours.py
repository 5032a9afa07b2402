"""The methods of `interval_coverage.py`: short, for there are thousands of estimates to make."""

from functools import partial

from known_mi_ours import estimate
from known_mi_worker import Method

import mi_estimators as mi

BUDGET = mi.Budget(folds=4, steps=150)
METHODS: dict[str, Method] = {
    "all parts": partial(estimate, budget=BUDGET),
    "critic alone": partial(estimate, baseline=None, neighbours=None, budget=BUDGET),
}
# Only for tests: means nothing.
SMOKE: dict[str, Method] = {"smoke": partial(estimate, budget=mi.Budget(folds=2, steps=10))}
