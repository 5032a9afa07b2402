"""Mutual information by scikit-learn's conventions: an estimator, and a score for features.

The only module here that needs scikit-learn; `mi_estimators` does not import it.

    from mi_estimators.sklearn import MutualInformation, mutual_information_scores
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch

from mi_estimators.baselines import Baseline, TCopula
from mi_estimators.critics import Critic
from mi_estimators.estimate import estimate_mi
from mi_estimators.ksg import KSG
from mi_estimators.negatives import NegativeSampler
from mi_estimators.objectives import Objective
from mi_estimators.preprocess import Compress, NormalScores, OneHot, Preprocessor
from mi_estimators.result import MIEstimate
from mi_estimators.training import Budget

try:
    from sklearn.base import BaseEstimator, clone
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mi_estimators.sklearn: expected scikit-learn 1.6 or newer, which is not installed; "
        "pip install scikit-learn"
    ) from error


class MutualInformation(BaseEstimator):
    """`estimate_mi` as a scikit-learn estimator.

    Args:
        objective: As of `estimate_mi`, like all that follow.
        critic: An untrained critic; None: `canonical_critic`.
        negatives: For training; None: all other samples of the minibatch.
        preprocess: Maps of X alone and y alone, or None.
        baseline: `TCopula()`, `GaussianCopula()` or None.
        neighbours: For few continuous dimensions, or None.
        budget: How much work.
        random_state: An integer is `estimate_mi`'s `seed`: the same number each time. A
            `RandomState`, or None for NumPy's own, gives another seed for each fit.
        device: Where to compute.
        progress: Whether to show a progress bar; None: in a terminal, for longer work.

    Attributes:
        estimate_: The `MIEstimate`, in nats: its sentence, error, warnings, figure.
        mi_: Its value.
        n_features_in_: Columns of X.
        feature_names_in_: Their names, if X was a data frame with names.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 2))
        >>> y = X[:, 0] + rng.normal(size=1000)  # I = log(2) / 2 = 0.347 nats
        >>> model = MutualInformation(budget=Budget(folds=2, steps=50)).fit(X, y)
        >>> abs(model.mi_ - 0.347) < 4 * model.estimate_.standard_error
        True
        >>> model.score_samples(X[:3], y[:3]).shape
        (3,)
    """

    def __init__(
        self,
        *,
        objective: Objective | Sequence[Objective] | None = None,
        critic: Critic | None = None,
        negatives: NegativeSampler | None = None,
        preprocess: Sequence[Preprocessor] | None = (OneHot(), NormalScores(), Compress()),
        baseline: Baseline | None = TCopula(),
        neighbours: KSG | None = KSG(),
        budget: Budget = Budget(),
        random_state: int | np.random.RandomState | None = 0,
        device: torch.device | str | None = None,
        progress: bool | None = None,
    ) -> None:
        self.objective = objective
        self.critic = critic
        self.negatives = negatives
        self.preprocess = preprocess
        self.baseline = baseline
        self.neighbours = neighbours
        self.budget = budget
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any, groups: Any = None) -> "MutualInformation":
        """Estimate I(X; y).

        Args:
            X: Samples, shape `[N, d_x]`.
            y: Their partners, shape `[N]` or `[N, d_y]`, numbers; encode names of classes first.
            groups: A label for each sample, shape `[N]`, where samples are not independent.

        Returns:
            This object.

        Raises:
            TypeError: If X is sparse, or a part is no instance of its class.
            ValueError: If X and y are nothing that `estimate_mi` takes.
            FloatingPointError: If the readout overflows.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2)
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        self.estimate_: MIEstimate = estimate_mi(
            X,
            y,
            objective=self.objective,
            critic=self.critic,
            negatives=self.negatives,
            preprocess=self.preprocess,
            baseline=self.baseline,
            neighbours=self.neighbours,
            budget=self.budget,
            groups=groups,
            seed=int(seed),
            device=self.device,
            progress=self.progress,
        )
        self.mi_ = self.estimate_.value
        return self

    def score_samples(self, X: Any, y: Any) -> np.ndarray:
        """Pointwise mutual information log p(x, y) / p(x)p(y) of pairs, shape [M], in nats.

        By the mean of the critics, which have seen the pairs that were fitted: for these take
        `estimate_.pointwise`, which is held out.

        Args:
            X: Shape `[M, d_x]`.
            y: Shape `[M]` or `[M, d_y]`.

        Raises:
            NotFittedError: Before `fit`.
            ValueError: If X or y has other columns than in `fit`, or they differ in length.
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, reset=False)
        return self.estimate_.score(X, y)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def mutual_information_scores(
    X: Any, y: Any, *, estimator: MutualInformation | None = None
) -> np.ndarray:
    """I(X_k; y) of each column of X, shape `[d_x]`, in nats: a `score_func` for `SelectKBest`.

    Like scikit-learn's `mutual_info_regression` and `mutual_info_classif`, whose place it takes:
    columns may be continuous or labels, and so may y, which may also have several columns. A
    constant column has 0. Others may have a little less than 0: values are not clipped.

    Args:
        X: Samples, shape `[N, d_x]`.
        y: Their partners, shape `[N]` or `[N, d_y]`.
        estimator: Cloned for each column; by default `MutualInformation()`. With `SelectKBest`:
            `partial(mutual_information_scores, estimator=...)`.

    Raises:
        TypeError: If X is sparse.
        ValueError: If X and y are nothing that `estimate_mi` takes.

    Example:
        >>> from functools import partial
        >>> from sklearn.feature_selection import SelectKBest
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(500, 3))
        >>> y = X[:, 1] ** 2 + 0.1 * rng.normal(size=500)
        >>> quick = MutualInformation(budget=Budget(folds=2, steps=50))
        >>> score = partial(mutual_information_scores, estimator=quick)
        >>> SelectKBest(score, k=1).fit(X, y).get_support()
        array([False,  True, False])
    """
    template = MutualInformation() if estimator is None else estimator
    columns = check_array(X, ensure_min_samples=2).T
    return np.array(
        [
            0.0 if (column == column[0]).all() else clone(template).fit(column[:, None], y).mi_
            for column in columns
        ]
    )
