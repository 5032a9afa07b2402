"""Pluggable mutual-information estimators in PyTorch.

    critic  x  negatives  -->  PairScores(joint, product, mask)  -->  objective  -->  nats

Two arrays and one number: `estimate_mi(x, y)`. A term in a training loop: `MIEstimator(critic)`.
"""

from mi_estimators.critics import Bilinear, Concat, Critic, Separable, mlp
from mi_estimators.estimate import estimate_mi
from mi_estimators.estimator import MIEstimator
from mi_estimators.negatives import AllLocations, InBatch, Negatives, NegativeSampler, Shuffled
from mi_estimators.objectives import DV, JSD, MINE, NWJ, SMILE, InfoNCE, Objective
from mi_estimators.result import MIEstimate
from mi_estimators.scores import PairScores

__version__ = "0.1.0"

__all__ = [
    "DV",
    "JSD",
    "MINE",
    "NWJ",
    "SMILE",
    "AllLocations",
    "Bilinear",
    "Concat",
    "Critic",
    "InBatch",
    "InfoNCE",
    "MIEstimate",
    "MIEstimator",
    "NegativeSampler",
    "Negatives",
    "Objective",
    "PairScores",
    "Separable",
    "Shuffled",
    "estimate_mi",
    "mlp",
]
