"""MutualInformation and mutual_information_scores, by scikit-learn's own checks and ours."""

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mi_estimators import JSD, Budget, GaussianCopula, Separable, estimate_mi, mlp
from mi_estimators.sklearn import MutualInformation, mutual_information_scores

QUICK = {
    "budget": Budget(folds=2, steps=2, batch_size=16),
    "baseline": GaussianCopula(),
    "progress": False,
}

# Some checks do not pass y, without which there are no pairs; some fit 15 samples or fewer, not 10
# for each fold; and a default has to be a number, where ours are frozen parts (None: without).
PAIRS = "score_samples.* missing 1 required positional argument: 'y'"
FEW = "each fold needs 10 samples"
NOT_APPLICABLE = {
    "check_methods_sample_order_invariance": PAIRS,
    "check_methods_subset_invariance": PAIRS,
    "check_n_features_in_after_fitting": FEW,
    "check_estimators_nan_inf": FEW,
    "check_fit2d_1feature": FEW,
    "check_parameters_default_constructible": "'baseline' .* of type TCopula .* not allowed",
}


def pairs(n=100, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 2))
    return x, x[:, 0] + generator.normal(size=n)


# --- scikit-learn's own checks --------------------------------------------------------------------

# In a process without run-time type checks: parameters of any type have to be set without an error.
# Most checks fit 20 to 50 samples, which estimate_mi refuses: conventions are what counts here.
CHECK = """
import json, sys
import mi_estimators.samples
from mi_estimators import Budget, GaussianCopula
from mi_estimators.sklearn import MutualInformation
from sklearn.utils.estimator_checks import check_estimator

mi_estimators.samples.MIN_SAMPLES = 2
budget = Budget(folds=2, steps=2, batch_size=16)
parts = {"baseline": GaussianCopula(), "neighbours": None}
model = MutualInformation(budget=budget, **parts, progress=False)
results = check_estimator(model, on_fail=None, on_skip=None)
print(json.dumps([(r["check_name"], r["status"], repr(r["exception"])) for r in results]))
"""


def test_conventions():
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    failed = {name: error for name, status, error in results if status == "failed"}
    assert failed.keys() == NOT_APPLICABLE.keys(), failed
    for name, error in failed.items():
        assert re.search(NOT_APPLICABLE[name], error)
    assert sum(status == "passed" for _, status, _ in results) >= 30


# --- the estimator --------------------------------------------------------------------------------


def test_it_is_estimate_mi():
    x, y = pairs()
    model = MutualInformation(**QUICK, random_state=3)
    assert model.fit(x, y) is model
    result = estimate_mi(x, y, **QUICK, seed=3)
    assert model.mi_ == model.estimate_.value == result.value
    np.testing.assert_array_equal(model.score_samples(x, y), result.score(x, y))


def test_every_parameter_reaches_estimate_mi():
    x, y = pairs()
    given = QUICK | {"objective": JSD(), "preprocess": None, "baseline": None, "neighbours": None}
    given |= {"critic": Separable(mlp(2, 8), mlp(1, 8))}
    model = MutualInformation(**given).fit(x, y)
    assert model.mi_ == estimate_mi(x, y, **given).value
    assert model.estimate_.origin == "critic"
    assert model.estimate_.objective == "JSD()"


def test_y_may_have_columns_and_samples_groups():
    x, y = pairs()
    two = np.column_stack([y, x[:, 1] + y])
    groups = np.arange(100) // 2
    model = MutualInformation(**QUICK).fit(x, two, groups=groups)
    assert model.mi_ == estimate_mi(x, two, **QUICK, groups=groups).value
    assert model.score_samples(x[:7], two[:7]).shape == (7,)


def test_score_samples_is_the_log_ratio():
    x, y = pairs(n=2000)
    model = MutualInformation(**QUICK).fit(x[:, :1], y)
    rho = np.sqrt(0.5)
    u, v = x[:, 0], y / np.sqrt(2)
    true = -0.5 * np.log(0.5) - (rho**2 * (u**2 + v**2) - 2 * rho * u * v) / (2 * 0.5)
    assert np.corrcoef(model.score_samples(x[:, :1], y), true)[0, 1] > 0.98


def test_clones_and_parameters():
    critic = Separable(mlp(2, 8), mlp(1, 8))
    model = MutualInformation(**QUICK, critic=critic, random_state=5)
    copy = clone(model)
    parameters = copy.get_params()
    assert parameters["budget"] == QUICK["budget"]
    assert parameters["random_state"] == 5
    assert parameters["critic"] is not critic
    assert copy.set_params(random_state=6, baseline=None) is copy
    assert (copy.random_state, copy.baseline) == (6, None)
    assert "random_state=5" in repr(model)
    with pytest.raises(ValueError, match="Invalid parameter 'seed'"):
        copy.set_params(seed=3)


def test_random_states_give_seeds_of_their_own():
    x, y = pairs()
    plain = {"preprocess": None, "baseline": None, "neighbours": None}
    model = MutualInformation(**QUICK | plain, random_state=np.random.RandomState(0))
    first, second = (model.fit(x, y).estimate_ for _ in range(2))
    assert not np.array_equal(first.pointwise, second.pointwise)
    model.set_params(random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(model.fit(x, y).estimate_.pointwise, first.pointwise)


def test_names_of_columns_are_kept():
    x, y = pairs()
    model = MutualInformation(**QUICK).fit(pd.DataFrame(x, columns=["a", "b"]), pd.Series(y))
    assert list(model.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(pd.DataFrame(x, columns=["b", "a"]), y)


def test_errors_are_those_of_estimate_mi_and_of_scikit_learn():
    x, y = pairs()
    with pytest.raises(ValueError, match="at least 50 samples"):
        MutualInformation(**QUICK).fit(x[:40], y[:40])
    with pytest.raises(ValueError, match=r"constant columns \[1\]"):
        MutualInformation(**QUICK).fit(x * [1, 0], y)
    with pytest.raises(NotFittedError):
        MutualInformation(**QUICK).score_samples(x, y)


# --- feature scores -------------------------------------------------------------------------------


def test_scores_are_one_estimate_a_column():
    x, y = pairs()
    quick = MutualInformation(**QUICK)
    scores = mutual_information_scores(np.column_stack([x, np.ones(100)]), y, estimator=quick)
    assert scores.tolist() == [quick.fit(x[:, [k]], y).mi_ for k in (0, 1)] + [0.0]
    assert scores[0] > scores[1]


def test_the_estimator_is_not_fitted_itself():
    quick = MutualInformation(**QUICK)
    mutual_information_scores(*pairs(), estimator=quick)
    assert not hasattr(quick, "estimate_")


def test_select_k_best_finds_what_is_no_line():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 3))
    labels = (np.abs(x[:, 2]) > 0.7).astype(int)  # uncorrelated with every column
    quick = MutualInformation(**QUICK | {"budget": Budget(folds=2, steps=50)})
    select = SelectKBest(partial(mutual_information_scores, estimator=quick), k=1)
    chosen = make_pipeline(StandardScaler(), select).fit(x, labels)
    assert chosen[-1].get_support().tolist() == [False, False, True]


def test_scores_by_default_are_of_mutual_information_by_default(monkeypatch):
    seen = []

    def fit(self, X, y):
        seen.append((self.get_params()["budget"], X.shape))
        self.mi_ = 1.0
        return self

    monkeypatch.setattr(MutualInformation, "fit", fit)
    assert mutual_information_scores(*pairs()).tolist() == [1.0, 1.0]
    assert seen == [(Budget(), (100, 1))] * 2


# --- without scikit-learn -------------------------------------------------------------------------


def test_without_scikit_learn_it_says_so_and_the_rest_works():
    program = """
import sys
sys.modules["sklearn"] = None  # importing it fails from here on
import mi_estimators
try:
    import mi_estimators.sklearn
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "expected scikit-learn 1.6 or newer, which is not installed" in done.stdout
