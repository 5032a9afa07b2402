"""Measures of a code that need no labels: what it says of images, and how its dimensions depend."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from scipy.stats import ks_1samp, uniform
from torch import Tensor, nn

from dim.data import ImageData
from dim.encoder import Features, Layer, encode
from dim.health import ACTIVE, active_units
from dim.model import DeepInfoMax
from dim.prior import AdversarialPrior, Prior, kl_to_standard_normal
from dim.terms import Encoded, InfoMaxTerm, code_with_code
from mi_estimators import DV, InfoNCE, PairScores, Shuffled, mlp
from mi_estimators.estimator import evaluating, seeded

SHUFFLES = 10  # of test codes, for the readout
BATCH = 100  # test images that are each other's negatives, or as many more as a sampler needs


@dataclass(frozen=True)
class Measure:
    """A number about a code.

    Attributes:
        name: What it is, with its unit.
        value: The number.
        note: What to compare it with.
        error: Its standard error, if it is a mean over test images.
    """

    name: str
    value: float
    note: str
    error: float | None = None

    def __str__(self) -> str:
        """The number, with its error.

        Example:
            >>> print(Measure("MS-SSIM", 0.12345, "", 0.0067))
            0.123 ± 0.007
        """
        return f"{self.value:.3g}" + ("" if self.error is None else f" ± {self.error:.1g}")


@dataclass(frozen=True)
class Codes:
    """z_mean of all images of a data set, or another layer or what is compared with it.

    Attributes:
        train: Of the training images.
        test: Of the test images.
    """

    train: Float[Tensor, "N d"]
    test: Float[Tensor, "M d"]


def codes_of(encoder: nn.Module, data: ImageData, layer: Layer = "z_mean") -> Codes:
    """Encode both parts of a data set, by a layer, which is flattened."""
    return Codes(*(encode(encoder, x, layer).flatten(1) for x in (data.x_train, data.x_test)))


def pixels_of(data: ImageData, device: torch.device | str = "cpu") -> Codes:
    """The images as they are, in [-1, 1]: with mid-grey as origin, cosine is fairest to them."""
    parts = (images.to(device).flatten(1) for images in (data.x_train, data.x_test))
    return Codes(*(part / 127.5 - 1 for part in parts))


def measures_of(model: DeepInfoMax, data: ImageData, codes: Codes) -> list[Measure]:
    """All that apply to a model, of its test images; training images train what has to be."""
    mean = codes.test
    measures = [
        Measure("sd of z_mean over images, mean over dimensions", mean.std(0).mean().item(), ""),
        Measure(
            "share of dimensions whose z_mean varies over images (active units)",
            active_units(mean).item(),
            f"variance above {ACTIVE} (Burda et al. 2016)",
        ),
    ]
    if model.stochastic:
        log_var = encode(model.encoder, data.x_test, "z_log_var")
        rate = kl_to_standard_normal(mean, log_var).sum(1).mean()
        measures.append(
            Measure(
                "rate, KL of p(z given x) to N(0, 1), nats", rate.item(), "I(X; Z) is not above it"
            )
        )
    layer: Layer = "z" if model.stochastic else "z_mean"
    measures += against_prior(model.prior, encode(model.encoder, data.x_test, layer), layer)
    for name, term in model.terms.items():
        negatives = term.estimator.negatives
        batch_size = max(BATCH, negatives.k + 1) if isinstance(negatives, Shuffled) else BATCH
        if len(data.x_test) >= batch_size:
            found = held_out_information(
                model.encoder,
                term,
                data.x_test,
                stochastic=model.stochastic,
                batch_size=batch_size,
            )
            note = f"of at most {found.ceiling:.2f} with {batch_size} images"
            if term.pairing is code_with_code:  # one sample, noise and all, on both sides
                note += "; of z with itself, which has no upper limit"
            elif name == "locations" or not model.stochastic:  # noise is on z alone
                note += "; an encoder without noise has no upper limit"
            measures.append(
                Measure(f"{name} term, information of unseen pairs, nats", found.nats, note)
            )
    dependence = dependence_within(codes.train, mean)
    most = f"{math.log(len(mean)):.1f}"
    note = f"0: independent; a lower bound, of {most} at most, and less trained than the paper's"
    name = "dependence within z_mean (neural dependency measure), nats"
    measures.append(Measure(name, dependence, note))
    return measures


def against_prior(prior: Prior, z: Float[Tensor, "M d"], name: str) -> list[Measure]:
    """How near codes of that name are to the law that the prior is for, if there is one."""
    if (law := prior.law) is None:
        return []
    seen = prior.seen(z)
    code, dimensions = prior.seen_as.format(name), z.shape[1]
    # As far as the furthest of so many dimensions is to be expected, by Massart's bound.
    chance = math.sqrt(math.log(2 * dimensions) / (2 * len(z)))
    means = seen.mean(0)
    furthest = means[(means - law.mean).abs().argmax()]
    distances = [
        ks_1samp(column, uniform.cdf, method="asymp").statistic
        for column in law.cdf(seen.double()).T.cpu().numpy()
    ]
    measures = [
        Measure(
            f"mean of {code}, of the dimension furthest off",
            furthest.item(),
            f"{law.mean:.3g} under the prior, {type(law).__name__.lower()}",
        ),
        Measure(
            f"sd of {code}, mean over dimensions",
            seen.std(0).mean().item(),
            f"{law.stddev:.3g} under the prior",
        ),
        Measure(
            f"distance of {code} from the prior, of the dimension furthest off",
            max(distances),
            f"about {chance:.2g} for draws of the prior; at most 1 (Kolmogorov-Smirnov)",
        ),
    ]
    if isinstance(prior, AdversarialPrior):
        generator = torch.Generator(z.device).manual_seed(0)
        measures.append(
            Measure(
                "accuracy of the prior's discriminator on codes and as much noise",
                prior.accuracy(z, generator=generator).item(),
                "0.5: it cannot tell them apart",
            )
        )
    return measures


@dataclass(frozen=True)
class HeldOutInformation:
    """What the critic of a term shows of images that it never saw.

    Attributes:
        nats: A lower bound on the term's mutual information, by InfoNCE.
        ceiling: What it cannot exceed with so many negatives, in nats.
    """

    nats: float
    ceiling: float


@torch.no_grad()
def held_out_information(
    encoder: nn.Module,
    term: InfoMaxTerm,
    images: UInt8[Tensor, "N 3 h w"],
    *,
    stochastic: bool = False,
    batch_size: int = BATCH,
) -> HeldOutInformation:
    """Mutual information of a term's pair, on batches of test images, each other's negatives.

    Images are as they are: of a term between two views, both are the image itself.

    Of an encoder without noise, what its code tells of the image has no upper limit: then this is
    a number about the critic, and about batches of this size.

    Args:
        encoder: Maps images to `Features`.
        term: One of the model's, with its trained critic.
        images: Test images; a last, smaller batch is left out.
        stochastic: Whether the pair is of a sample of p(z|x), or of its mean.
        batch_size: Images that are each other's negatives.

    Raises:
        ValueError: If there are fewer images than a batch.
    """
    if len(images) < batch_size:
        raise ValueError(
            f"images: expected at least {batch_size}, a batch, received {len(images)}; lower "
            f"batch_size"
        )
    device = next(encoder.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    values, objective = [], term.estimator.objective
    with evaluating(encoder), evaluating(term):
        for batch in images.split(batch_size):
            if len(batch) == batch_size:
                features: Features = encoder(batch.to(device))
                z = features.sample(generator) if stochastic else features.z_mean
                (pair,) = term.pairs([Encoded(features, z)], generator=generator)
                scores = term.estimator.scores(*pair, generator=generator)
                values.append(InfoNCE().estimate(scores.map(objective.to_log_ratio)).item())
    drawn = scores.negatives if scores.mask is None else int(scores.mask.sum(-1).max())
    return HeldOutInformation(sum(values) / len(values), InfoNCE().ceiling(drawn))


def dependence_within(
    train: Float[Tensor, "N d"],
    test: Float[Tensor, "M d"],
    *,
    steps: int = 500,
    batch_size: int = 1000,
    seed: int = 0,
) -> float:
    """How much the dimensions of a code depend on one another, in nats: a lower bound, by DV.

    KL(p(z) || Π p(z_k)), 0 if they are independent, by a discriminator between codes and codes with
    every dimension shuffled on its own: the neural dependency measure of Hjelm et al. 2019. It
    trains on codes of training images and is read out on those of test images, with log-ratios
    clipped at what M test codes can bear, ± ln M, which is the most that is claimed: unclipped, DV
    of a few hundred codes exceeds any truth.

    Args:
        train: Codes of training images.
        test: Codes of test images.
        steps: Of Adam.
        batch_size: Codes in a batch.
        seed: Of initial weights, batches and shuffles.
    """
    mean, scale = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = ((codes - mean) / scale for codes in (train, test))
    generator = torch.Generator().manual_seed(seed)

    def pairs(codes: Tensor) -> PairScores:
        order = torch.rand(codes.shape, generator=generator).argsort(0).to(codes.device)
        joint, product = discriminator(codes)[:, 0], discriminator(codes.gather(0, order))
        return PairScores(joint, product)

    with seeded(seed), torch.enable_grad():
        discriminator = mlp(train.shape[1], 1000, 200, 1).to(train.device)
        optimiser = torch.optim.Adam(discriminator.parameters(), lr=1e-4)
        for _ in range(steps):
            rows = torch.randint(len(train), (min(batch_size, len(train)),), generator=generator)
            optimiser.zero_grad()
            (-DV()(pairs(train[rows.to(train.device)]))).backward()
            optimiser.step()
    most = math.log(len(test))
    with torch.no_grad():
        constant = pairs(train).product.logsumexp(0) - math.log(len(train))
        repeated = [pairs(test) for _ in range(SHUFFLES)]
        product = torch.cat([scores.product.mT for scores in repeated], 1)
        scores = PairScores(repeated[0].joint, product)
        found = DV().estimate(scores.map(lambda t: (t - constant).clamp(-most, most))).item()
    return min(found, most)  # shuffles that are all told apart would add as much again
