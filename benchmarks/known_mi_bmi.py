"""benchmark-mi (Czyż et al. 2023) in `known_mi.py`: all settings are its own defaults.

Runs in an environment of its own, which `known_mi_environments.py` makes.
"""

from collections.abc import Callable
from typing import Any

import bmi.estimators
import numpy as np
from known_mi_worker import Method, serve


def neural(estimator: Callable[..., Any]) -> Method:
    """One of its trained critics."""

    def method(x: np.ndarray, y: np.ndarray, seed: int) -> float:
        return float(estimator(verbose=False, seed=seed).estimate(x, y))

    return method


def seedless(estimator: Callable[..., Any]) -> Method:
    """An estimator that draws nothing."""

    def method(x: np.ndarray, y: np.ndarray, seed: int) -> float:
        return float(estimator().estimate(x, y))

    return method


METHODS = {
    "bmi-infonce": neural(bmi.estimators.InfoNCEEstimator),
    "bmi-dv": neural(bmi.estimators.DonskerVaradhanEstimator),
    "bmi-nwj": neural(bmi.estimators.NWJEstimator),
    "bmi-mine": neural(bmi.estimators.MINEEstimator),
    "bmi-ksg": seedless(bmi.estimators.KSGEnsembleFirstEstimator),
    "bmi-cca": seedless(bmi.estimators.CCAMutualInformationEstimator),
}

if __name__ == "__main__":
    serve(METHODS)
