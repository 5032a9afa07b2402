"""DeepInfoMax: an encoder, a global and a local InfoMax term, and a prior, weighted."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dim.config import TrainConfig
from dim.decoder import Decoder, ReconstructionTerm
from dim.encoder import Encoder, Features, alex64x64, basic32x32, glorot_uniform, resnet18, su
from dim.negatives import ShuffledLocations
from dim.prior import AdversarialPrior, KLPrior, NoPrior, Prior
from dim.terms import (
    TERMS,
    CoordinateTerm,
    Encoded,
    InfoMaxTerm,
    RelativeCoordinateTerm,
    coarsen,
    code_with_code,
    code_with_locations,
    location_with_another,
    map_with_code,
    occlude,
)
from mi_estimators import (
    DV,
    JSD,
    MINE,
    NWJ,
    SMILE,
    AllLocations,
    Concat,
    Critic,
    InBatch,
    InfoNCE,
    InfoNCEAnchor,
    MIEstimator,
    NegativeSampler,
    Objective,
    Separable,
    Shuffled,
    SquaredHellinger,
)
from mi_estimators.estimator import evaluating, seeded

# The command line's names; inside the library a class is its own name.
OBJECTIVES: dict[str, type[Objective]] = {
    "jsd": JSD,
    "dv": DV,
    "infonce": InfoNCE,
    "nwj": NWJ,
    "mine": MINE,
    "smile": SMILE,
    "squared-hellinger": SquaredHellinger,
    "infonce-anchor": InfoNCEAnchor,
}
NEGATIVES: dict[str, type[NegativeSampler]] = {
    "in-batch": InBatch,
    "shuffled": Shuffled,
    "shuffled-locations": ShuffledLocations,
    "all-locations": AllLocations,
}
ENCODERS = {
    "basic32x32": basic32x32,
    "alex64x64": alex64x64,
    "su": su,
    "resnet18": resnet18,
}


class Weights(NamedTuple):
    """alpha, beta and gamma, as in the paper and in the blog; the others, of further losses."""

    alpha: float
    beta: float
    gamma: float
    delta: float = 0.0
    rho: float = 0.0
    kappa: float = 0.0
    eta: float = 0.0


class Losses(NamedTuple):
    """The named losses of one batch; left-out terms are 0.

    Attributes:
        global_: Of the global term.
        local: Of the local term.
        prior: Of the prior.
        coordinates: Of the coordinate task.
        reconstruction: Of the image from the code.
        locations: Of the locations term.
        relative: Of the relative coordinate task.
        total: Their weighted sum, which encoder and critics lower.
        adversary: What the prior's own parameters lower (`Prior.own_loss`). Train on `total +
            adversary`: the two share no parameter that learns.
    """

    global_: Float[Tensor, ""]
    local: Float[Tensor, ""]
    prior: Float[Tensor, ""]
    coordinates: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    locations: Float[Tensor, ""]
    relative: Float[Tensor, ""]
    total: Float[Tensor, ""]
    adversary: Float[Tensor, ""]


LOSSES = tuple(name.rstrip("_") for name in Losses._fields)  # as metrics and figures call them


class DeepInfoMax(nn.Module):
    """A sum of weighted losses, to be minimised.

    total = alpha global + beta local + gamma prior + delta coordinates + rho reconstruction
        + kappa locations + eta relative.

    Args:
        encoder: Images to features.
        global_term: About the image as a whole; None leaves it out.
        local_term: About each location, averaged over them; None leaves it out.
        prior: On the code.
        weights: alpha, beta, gamma, delta, rho, kappa, eta.
        coordinate_term: Which asks where locations are; None leaves it out.
        reconstruction_term: Which makes the image of the code; None leaves it out.
        location_term: About two locations of an image; None leaves it out.
        relative_term: Which asks how two of them lie to each other; None leaves it out.
        stochastic: Whether the terms see a sample of p(z|x), or its mean.
        occlusion: Side of a square hidden from the code, as a share of the image's.
        coarseness: Side of what is one pixel to the code.
    """

    def __init__(
        self,
        encoder: Encoder,
        global_term: InfoMaxTerm | None,
        local_term: InfoMaxTerm | None,
        prior: Prior,
        weights: Weights,
        *,
        coordinate_term: CoordinateTerm | None = None,
        reconstruction_term: ReconstructionTerm | None = None,
        location_term: InfoMaxTerm | None = None,
        relative_term: RelativeCoordinateTerm | None = None,
        stochastic: bool = True,
        occlusion: float = 0.0,
        coarseness: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.global_term = global_term
        self.local_term = local_term
        self.prior = prior
        self.weights = weights
        self.coordinate_term = coordinate_term
        self.reconstruction_term = reconstruction_term
        self.location_term = location_term
        self.relative_term = relative_term
        self.stochastic = stochastic
        self.occlusion = occlusion
        self.coarseness = coarseness

    @property
    def terms(self) -> dict[str, InfoMaxTerm]:
        """The InfoMax terms that are not left out, by the names of their losses."""
        named = zip(TERMS, (self.global_term, self.local_term, self.location_term), strict=True)
        return {name: term for name, term in named if term is not None}

    def forward(
        self,
        images: Tensor,
        labels: Int64[Tensor, " N"] | None = None,
        *,
        others: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Losses, Features]:
        """Losses of a batch, and the features they were computed on.

        Args:
            images: Images, or a view of each.
            labels: Their classes, if the prior needs them.
            others: A second view of each. The InfoMax terms are then between the two, both ways; of
                everything else it is so many images more, which follow the first in the features.
            generator: Source of randomness.

        Raises:
            ValueError: If there are not as many second views, of the same size.
        """
        views = 1 if others is None else 2
        if others is not None:
            if others.shape != images.shape:
                raise ValueError(
                    f"others: expected a view of each image, of shape {list(images.shape)}, "
                    f"received {list(others.shape)}; leave it out for one view"
                )
            images = torch.cat([images, others])
            labels = None if labels is None else labels.repeat(views)
        features = self.encoder(images)  # all of it: batch norms are to know whole images, too
        if self.occlusion or self.coarseness > 1:
            # In this order, or what is hidden would be in the means around the square.
            part = images
            if self.occlusion:
                part = occlude(part, self.occlusion, generator=generator)
            if self.coarseness > 1:
                part = coarsen(part, self.coarseness)
            features = replace(self.encoder(part), feature_map=features.feature_map)
        z = features.sample(generator) if self.stochastic else features.z_mean
        zero = z.new_zeros((), dtype=torch.float32)
        encoded = Encoded(features, z).chunk(views)
        infomax = {name: term(encoded, generator=generator) for name, term in self.terms.items()}
        coordinates = zero if self.coordinate_term is None else self.coordinate_term(features, z)
        reconstruct = self.reconstruction_term
        reconstruction = zero if reconstruct is None else reconstruct(z, images)
        relative = zero
        if self.relative_term is not None:
            relative = self.relative_term(features, z, generator=generator)
        prior = self.prior(features, z, labels)
        adversary = self.prior.own_loss(z, generator=generator)
        global_, local, locations = (infomax.get(name, zero) for name in TERMS)
        parts = (global_, local, prior, coordinates, reconstruction, locations, relative)
        total = sum((weight * loss for weight, loss in zip(self.weights, parts, strict=True)), zero)
        return Losses(*parts, total, adversary), features


def build_model(config: TrainConfig, image_size: int, classes: int = 0) -> DeepInfoMax:
    """The model of a configuration, initialised from its seed; the global RNG stays as it is.

    Raises:
        ValueError: If the encoder cannot halve the image size, a class-conditional prior has no
            classes, a term between locations not two of them, or the image is smaller than
            `coarseness`.
    """
    if config.coarseness > image_size:
        raise ValueError(
            f"coarseness: expected at most {image_size}, the image's side, received "
            f"{config.coarseness}"
        )
    if config.class_conditional and not classes:
        raise ValueError(
            "class_conditional: expected labelled training images, received none; leave it out"
        )
    with seeded(config.seed):
        encoder = ENCODERS[config.encoder](image_size, config.z_dim)
        channels, height, width = _map_shape(encoder, image_size)
        locations = height * width
        for name in ("kappa", "eta"):
            if getattr(config, name) and locations < 2:
                raise ValueError(
                    f"{name}: expected a feature map of at least 2 locations, received "
                    f"{locations}; enlarge the images with --image-size, or leave it out"
                )
        if config.global_input == "z":
            pairing, dim_x = code_with_code, config.z_dim
        else:
            pairing, dim_x = map_with_code, channels * locations
        global_, local = None, None
        if config.alpha:
            global_ = InfoMaxTerm(_estimator(config, dim_x, config.z_dim), pairing)
        if config.beta:
            estimator = _estimator(config, config.z_dim, channels)
            local = InfoMaxTerm(estimator, code_with_locations)
        prior = _prior(config, classes)
        coordinates = CoordinateTerm(channels, locations, config.z_dim) if config.delta else None
        reconstruction = None
        if config.rho:
            reconstruction = ReconstructionTerm(Decoder(config.z_dim, image_size))
        between = None
        if config.kappa:
            between = InfoMaxTerm(_estimator(config, channels, channels), location_with_another)
        relative = None
        if config.eta:
            relative = RelativeCoordinateTerm(channels, height, width, config.z_dim)
        return DeepInfoMax(
            encoder,
            global_,
            local,
            prior,
            Weights(*(getattr(config, name) for name in Weights._fields)),
            coordinate_term=coordinates,
            reconstruction_term=reconstruction,
            location_term=between,
            relative_term=relative,
            stochastic=config.stochastic,
            occlusion=config.occlusion,
            coarseness=config.coarseness,
        )


class DotHead(nn.Module):
    """One side of an encode-and-dot critic (Hjelm et al. 2019), on the last axis.

    A perceptron beside a linear shortcut that starts as the identity; then a layer norm.

    Args:
        dim: Features.
        units: Dimensions of the embedding.
        gain: What the scale of the layer norm starts as.
    """

    def __init__(self, dim: int, units: int, gain: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, units, bias=False)
        self.norm = nn.BatchNorm1d(units)
        self.second = nn.Linear(units, units)
        self.shortcut = nn.Linear(dim, units, bias=False)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight.fill_diagonal_(1.0)
        self.out = nn.LayerNorm(units)
        nn.init.constant_(self.out.weight, gain)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """Embed."""
        rows = x.flatten(0, -2)
        hidden = self.second(self.norm(self.first(rows)).relu())
        return self.out(hidden + self.shortcut(rows)).unflatten(0, x.shape[:-1])


def _prior(config: TrainConfig, classes: int) -> Prior:
    if config.prior == "none" or not config.gamma:
        return NoPrior()
    if config.prior == "adversarial":
        return AdversarialPrior(config.z_dim)
    means = nn.Embedding(classes, config.z_dim) if config.class_conditional else None
    return KLPrior(config.prior_reduction, means)


def _estimator(config: TrainConfig, dim_x: int, dim_y: int) -> MIEstimator:
    units = config.head_units
    critic: Critic
    if config.heads == "dot":
        # With a gain of 1, scores of two layer-normed vectors start with a spread of sqrt(units),
        # and the first epochs go into unlearning them.
        gain = units**-0.25 if config.head_gain is None else config.head_gain
        critic = Separable(DotHead(dim_x, units, gain), DotHead(dim_y, units, gain))
    else:
        layers = config.head_layers
        critic = Concat(dim_x, dim_y, hidden=units, layers=layers, activation=nn.ReLU)
        if config.encoder == "su":
            critic.apply(glorot_uniform)
            bound = math.sqrt(6 / (dim_x + dim_y + units))  # the split layer is one, as in Keras
            nn.init.uniform_(critic.first_x.weight, -bound, bound)
            nn.init.uniform_(critic.first_y.weight, -bound, bound)
    sampler = NEGATIVES[config.negatives]
    negatives = Shuffled(config.negatives_k) if sampler is Shuffled else sampler()
    return MIEstimator(critic, OBJECTIVES[config.objective](), negatives)


def _map_shape(encoder: Encoder, image_size: int) -> torch.Size:
    with torch.no_grad(), evaluating(encoder):  # batch statistics stay as they are
        return encoder.local(torch.zeros(1, 3, image_size, image_size)).shape[1:]
