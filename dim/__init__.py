"""Deep InfoMax: representations by maximising mutual information.

Train with `python -m dim.train`; then `dim.load_encoder("runs/...")` is a plain module.
"""

from dim.checkpoint import RunError, load_encoder
from dim.config import PRESETS, TrainConfig
from dim.data import DataError, ImageData, load_data
from dim.decoder import Decoder, ReconstructionTerm
from dim.encoder import Encoder, Features
from dim.model import DeepInfoMax, Losses, Weights, build_model
from dim.negatives import ShuffledLocations
from dim.prior import AdversarialPrior, KLPrior, NoPrior, Prior
from dim.terms import CoordinateTerm, Encoded, InfoMaxTerm, RelativeCoordinateTerm

__all__ = [
    "PRESETS",
    "AdversarialPrior",
    "CoordinateTerm",
    "DataError",
    "Decoder",
    "DeepInfoMax",
    "Encoded",
    "Encoder",
    "Features",
    "ImageData",
    "InfoMaxTerm",
    "KLPrior",
    "Losses",
    "NoPrior",
    "Prior",
    "ReconstructionTerm",
    "RelativeCoordinateTerm",
    "RunError",
    "ShuffledLocations",
    "TrainConfig",
    "Weights",
    "build_model",
    "load_data",
    "load_encoder",
]
