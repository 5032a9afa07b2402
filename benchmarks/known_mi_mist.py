"""torch-mist (Federici et al. 2023) in `known_mi.py`: its `estimate_mi`, whose default is SMILE.

Runs in an environment of its own, which `known_mi_environments.py` makes.
"""

import random
from functools import partial

import numpy as np
import torch
import torch_mist
from known_mi_worker import serve


def estimate(x: np.ndarray, y: np.ndarray, seed: int, *, estimator: str) -> float:
    """Its defaults, early stopping too, but 16 negatives a pair, where SMILE and JS have one."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, it draws from NumPy's global state
    torch.manual_seed(seed)
    value, _log = torch_mist.estimate_mi(
        data=(x.astype(np.float32), y.astype(np.float32)),
        estimator=estimator,
        neg_samples=16,
        verbose=False,
    )
    return float(value)


METHODS = {f"mist-{name}": partial(estimate, estimator=name) for name in ("smile", "js", "infonce")}

if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(METHODS)
