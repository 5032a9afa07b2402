"""Is training healthy? What a batch shows, where each number belongs, and what it means outside."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from dim.encoder import Features
from dim.model import DeepInfoMax
from dim.prior import AdversarialPrior, KLPrior
from dim.terms import TERMS, Encoded
from mi_estimators import PairScores
from mi_estimators.estimator import evaluating

ACTIVE = 0.01  # variance over the images from which a unit counts as active
PERCENTILES = (5, 25, 50, 75, 95)  # of the scores


class Range(NamedTuple):
    """Where a number belongs, and what it means to be outside.

    Attributes:
        low: Healthy from here on.
        high: Healthy up to here.
        below: What lower numbers mean.
        above: What higher numbers mean.
    """

    low: float
    high: float
    below: str = ""
    above: str = ""

    def __str__(self) -> str:
        """The healthy numbers.

        Example:
            >>> print(Range(0.35, 0.99), Range(1.0, math.inf), sep=", ")
            0.35 to 0.99, ≥ 1
        """
        return f"≥ {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


_SATURATE = "scores saturate, and where they are exponentiated overflow; lower --learning-rate"
_SCORE = Range(-88.0, 88.0, _SATURATE, _SATURATE)  # exp(88.7) is the largest float32
_GAP = Range(0.05, math.inf, "the critic does not tell pairs of one image from others")

RANGES = {
    "z_mean_std": Range(0.01, math.inf, "the code is the same for all images"),
    "z_unit_std": Range(0.1, math.inf, "all codes point the same way: collapse of direction"),
    "active_units": Range(0.1, math.inf, "most units of the code do not depend on the image"),
    "gradient_norm": Range(1e-6, 1e3, "the encoder no longer learns", "it is about to diverge"),
    "kl_rate": Range(1.0, math.inf, "z hardly tells of x beyond its prior; lower --gamma"),
    "discriminator_accuracy": Range(
        0.35, 0.99, "the discriminator lags behind the encoder", "the code is far from the prior"
    ),
}
for _term in TERMS:
    RANGES |= {f"{_term}_positive": _SCORE, f"{_term}_negative": _SCORE, f"{_term}_gap": _GAP}


def active_units(z_mean: Float[Tensor, "N d"]) -> Float[Tensor, ""]:
    """Share of dimensions that vary over the images."""
    return (z_mean.var(0) > ACTIVE).float().mean()


@torch.no_grad()
def measure(
    model: DeepInfoMax,
    features: Features,
    labels: Int64[Tensor, " N"] | None = None,
    *,
    views: int = 1,
) -> dict[str, float]:
    """The numbers that apply to a model, after its backward pass on a batch.

    - `z_mean_std`: standard deviation of z_mean over the images, a mean over dimensions.
    - `z_unit_std`: the same of z_mean / |z_mean|, times sqrt(d): about 1 if directions are uniform,
      0 if the code collapsed (Chen and He 2021, SimSiam).
    - `active_units`: share of dimensions whose z_mean has a variance above 0.01 over the images
      (Burda et al. 2016, importance-weighted autoencoders).
    - `gradient_norm`: of the encoder.
    - `kl_rate`: E_x KL(p(z|x) || prior) in nats, which no I(X; Z) exceeds (KL prior); with class
      means, no I(X; Z) within a class.
    - `global_positive`, `global_negative`, `global_gap`: mean score of pairs, of negatives, and the
      difference, KL(P, Q) + KL(Q, P) at the best critic; `local_...` and `locations_...` alike.
      Critics in eval mode.
    - `global_positive_p05`, ... `_p95`, `global_negative_p05`, ...: how these scores are
      distributed, by `PERCENTILES`.
    - `discriminator_accuracy`: on codes and as much uniform noise (adversarial prior); chance 0.5.

    With two views, features are of the first and then of the second of all images: pairs are those
    of one view with the other, and every view counts as an image elsewhere.

    What it draws comes from a generator of its own, so that training goes on as without it.
    """
    generator = torch.Generator(features.z_mean.device).manual_seed(0)
    features = Features(**{name: part.float() for name, part in vars(features).items()})
    mean = features.z_mean
    gradients = [p.grad for p in model.encoder.parameters() if p.grad is not None]
    numbers = {
        "z_mean_std": mean.std(0).mean(),
        "z_unit_std": normalize(mean).std(0).mean() * mean.shape[1] ** 0.5,
        "active_units": active_units(mean),
        "gradient_norm": torch.nn.utils.get_total_norm(gradients),
    }
    if isinstance(model.prior, KLPrior):
        labels = None if labels is None else labels.repeat(views)
        numbers["kl_rate"] = KLPrior("sum", model.prior.class_means)(features, mean, labels)
    z = features.sample(generator) if model.stochastic else mean
    with evaluating(model):
        for name, term in model.terms.items():
            pairs = term.pairs(Encoded(features, z).chunk(views), generator=generator)
            scores = [term.estimator.scores(*pair, generator=generator) for pair in pairs]
            kinds = {
                "positive": torch.cat([each.joint.flatten() for each in scores]),
                "negative": torch.cat([_negatives(each) for each in scores]),
            }
            for kind, values in kinds.items():
                numbers[f"{name}_{kind}"] = values.mean()
                ordered = values.sort().values  # torch.quantile refuses more than 2^24
                for percent in PERCENTILES:
                    rank = round(percent / 100 * (len(values) - 1))
                    numbers[f"{name}_{kind}_p{percent:02}"] = ordered[rank]
            numbers[f"{name}_gap"] = numbers[f"{name}_positive"] - numbers[f"{name}_negative"]
    if isinstance(model.prior, AdversarialPrior):
        numbers["discriminator_accuracy"] = model.prior.accuracy(z, generator=generator)
    return dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))


def outside(name: str, number: float) -> tuple[str, str] | None:
    """By how much a number is outside its range and what that means, or None."""
    low, high, below, above = RANGES[name]
    if not math.isfinite(number):
        return "is not finite", "a value before it overflowed"
    if number < low:
        return f"{number:.3g} below {low:g}", below
    return (f"{number:.3g} above {high:g}", above) if number > high else None


def alarms(numbers: Mapping[str, float | int]) -> dict[str, str]:
    """What is outside its range, and what that means, by name; other names pass.

    Example:
        >>> alarms({"z_mean_std": 0.001, "active_units": 0.9})
        {'z_mean_std': 'z_mean_std 0.001 below 0.01: the code is the same for all images'}
    """
    found = {name: outside(name, numbers[name]) for name in RANGES if name in numbers}
    return {name: f"{name} {': '.join(what)}" for name, what in found.items() if what}


def health_line(numbers: Mapping[str, float | int]) -> str:
    """The numbers of an epoch that have a healthy range, each with it, but for the scores.

    Example:
        >>> health_line({"epoch": 3, "active_units": 0.9, "local_gap": 0.01})
        'active_units 0.9 (≥ 0.1), local_gap 0.01 (≥ 0.05)'
    """
    shown = [name for name in RANGES if name in numbers and RANGES[name] is not _SCORE]
    return ", ".join(f"{name} {numbers[name]:.3g} ({RANGES[name]})" for name in shown)


def health_table(numbers: Mapping[str, float | int]) -> str:
    """All that have one, in Markdown, with what is the matter outside."""
    lines = ["| number | value | healthy | |", "|---|---:|---:|---|"]
    for name, expected in RANGES.items():
        if name in numbers:
            _, meaning = outside(name, numbers[name]) or ("", "yes")
            lines.append(f"| {name} | {numbers[name]:.3g} | {expected} | {meaning} |")
    return "\n".join(lines)


def _negatives(scores: PairScores) -> Float[Tensor, " n"]:
    """Scores of all valid negatives."""
    if scores.mask is None:
        return scores.product.flatten()
    return scores.product[scores.mask.expand_as(scores.product)]
