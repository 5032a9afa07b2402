"""Pluggable mutual-information estimators in PyTorch.

    critic  x  negatives  -->  PairScores(joint, product, mask)  -->  objective  -->  nats

Two arrays and one number: `estimate_mi(x, y)`. A term in a training loop: `MIEstimator(critic)`.
"""

from mi_estimators.baselines import GaussianCopula, TCopula
from mi_estimators.conditional import estimate_conditional_mi, estimate_total_correlation
from mi_estimators.critics import (
    TUBA,
    Bilinear,
    Concat,
    ConditionalGaussian,
    Critic,
    Separable,
    mlp,
)
from mi_estimators.estimate import estimate_mi
from mi_estimators.estimator import MIEstimator
from mi_estimators.ksg import KSG
from mi_estimators.negatives import AllLocations, InBatch, Negatives, NegativeSampler, Shuffled
from mi_estimators.objectives import (
    CLUB,
    DV,
    JSD,
    MINE,
    NWJ,
    SMILE,
    AlphaInfoNCE,
    InfoNCE,
    InfoNCEAnchor,
    L1Out,
    LogLikelihood,
    Objective,
    PearsonChi2,
    ReverseKL,
    SquaredHellinger,
)
from mi_estimators.preflight import preflight
from mi_estimators.preprocess import Compress, NormalScores, OneHot
from mi_estimators.result import MIEstimate
from mi_estimators.samples import stretches
from mi_estimators.scores import PairScores
from mi_estimators.training import Budget

__version__ = "0.1.0"

__all__ = [
    "CLUB",
    "DV",
    "JSD",
    "KSG",
    "MINE",
    "NWJ",
    "SMILE",
    "TUBA",
    "AllLocations",
    "AlphaInfoNCE",
    "Bilinear",
    "Budget",
    "Compress",
    "Concat",
    "ConditionalGaussian",
    "Critic",
    "GaussianCopula",
    "InBatch",
    "InfoNCE",
    "InfoNCEAnchor",
    "L1Out",
    "LogLikelihood",
    "MIEstimate",
    "MIEstimator",
    "NegativeSampler",
    "Negatives",
    "NormalScores",
    "Objective",
    "OneHot",
    "PairScores",
    "PearsonChi2",
    "ReverseKL",
    "Separable",
    "Shuffled",
    "SquaredHellinger",
    "TCopula",
    "estimate_conditional_mi",
    "estimate_mi",
    "estimate_total_correlation",
    "mlp",
    "preflight",
    "stretches",
]
