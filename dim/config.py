"""What makes a run: every choice of an experiment, and the presets."""

from dataclasses import dataclass, replace
from typing import Literal

from dim.data import Corrupt

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig:
    """One experiment; on a CPU, two runs of one configuration are equal."""

    preset: Literal[
        "default",
        "fast",
        "su-kl",
        "paper-local-jsd",
        "paper-local-infonce",
        "paper-local-dv",
        "paper-global",
        "paper-local-global",
        "autoencoder",
        "vae",
        "class-conditional-vae",
        "two-view",
    ] = "default"
    """Where the other values start from: `fast` takes fewer and larger steps than `default`;
    `su-kl` is the blog's model, `paper-...` the paper's; autoencoders are what these are compared
    with; `two-view` is what the field has come to."""
    data: str = "digits"
    """`digits`, `cifar10`, an .npz file, or a folder: of images, Tiny ImageNet, STL-10."""
    image_size: int | None = None
    """Resize the images to this; by default they keep their common size."""
    corrupt: Corrupt = "refuse"
    """What to do with a file of a folder that is no readable image."""
    views: Literal[1, 2] = 1
    """2 makes two random views of each image (crops, mirror images, other colours), anew at every
    step, and every InfoMax term is between them; needs kornia, and goes without --graph."""
    encoder: Literal["basic32x32", "alex64x64", "su", "resnet18"] = "basic32x32"
    """The paper's for 32 and for 64 pixels, the blog's, or ResNet-18 as it is for small images."""
    z_dim: int = 64
    """Dimensions of the code."""
    stochastic: bool = True
    """Train on a sample of p(z|x), as the KL prior means it, or on its mean."""
    heads: Literal["dot", "concat"] = "dot"
    """Critics: encode-and-dot (`Separable`), or concatenate-and-convolve 1x1 (`Concat`)."""
    head_units: int = 256
    """Width of the critics."""
    head_layers: int = 3
    """Hidden layers of a concat critic."""
    head_gain: float | None = None
    """What the scale of a dot critic's layer norms starts as: 1 in the paper's code; by default
    head_units^(-1/4), so that scores start with a spread of 1."""
    objective: Literal[
        "jsd", "dv", "infonce", "nwj", "mine", "smile", "squared-hellinger", "infonce-anchor"
    ] = "infonce"
    """Of every InfoMax term."""
    negatives: Literal["in-batch", "shuffled", "shuffled-locations", "all-locations"] = (
        "all-locations"
    )
    """Of every InfoMax term: all other images; one other image; one other image for each
    location, as in the paper's 2018 code; all locations of all other images."""
    negatives_k: int = 1
    """How many other images, where they are `shuffled`."""
    global_input: Literal["z", "feature-map"] = "z"
    """What the global term pairs with z: z itself, as in the blog, or the feature map."""
    alpha: float = 0.1
    """Weight of the global term; 0 leaves it out."""
    beta: float = 1.0
    """Weight of the local term, a mean over locations; 0 leaves it out."""
    gamma: float = 1e-3
    """Weight of the prior; 0 leaves it out."""
    delta: float = 1.0
    """Weight of the coordinate task, which asks where a location is; 0 leaves it out."""
    eta: float = 0.0
    """Weight of the relative one, which asks how two locations of an image lie to each other; 0
    leaves it out."""
    rho: float = 0.0
    """Weight of the reconstruction of the image from z, summed over its pixels; 0 leaves it out."""
    kappa: float = 0.0
    """Weight of the locations term, between each location and another one of its image; 0 leaves it
    out."""
    occlusion: float = 0.0
    """Side of a grey square, as a share of the image's, on the image that z is made of: the other
    features are of the whole image."""
    coarseness: int = 1
    """Side, in pixels, of what becomes one on the image that z is made of: the other features are
    of all its pixels. 1 leaves it as it is."""
    prior: Literal["kl", "adversarial", "none"] = "kl"
    """N(0, 1) by the KL divergence; uniform on [0, 1]^d after a sigmoid by a discriminator."""
    prior_reduction: Literal["sum", "mean"] = "sum"
    """How the KL prior adds up the dimensions of z."""
    class_conditional: bool = False
    """Give the KL prior a learned mean for each class (needs labels)."""
    epochs: int = 20
    """Passes over the training images; 0 leaves the initial weights, to compare with."""
    batch_size: int = 64
    """Images in a batch; the last, smaller batch is dropped."""
    learning_rate: float = 3e-4
    """Of Adam."""
    adam_beta1: float = 0.5
    """Of Adam; 0.5 is what the paper's released code trains with."""
    adam_eps: float = 1e-8
    """Of Adam."""
    precision: Precision = "auto"
    """Of convolutions and matrix products; scores and losses are float32. By default bfloat16 on
    CUDA, where the GPU has it, and float32 on a CPU; one with AMX is up to 2.7 times as fast in
    bfloat16, one without AVX-512 many times slower. On CUDA float32 leaves convolutions in TF32, as
    torch does."""
    seed: int = 0
    """Of everything drawn."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: If a number is too small, or no term is left.
        """
        least = {"epochs": 0, "z_dim": 1, "head_units": 1, "head_layers": 1, "batch_size": 2}
        least |= {"alpha": 0, "beta": 0, "gamma": 0}
        least |= {"delta": 0, "eta": 0, "rho": 0, "kappa": 0, "occlusion": 0, "coarseness": 1}
        least |= {"negatives_k": 1}
        for name, number in least.items():
            if not getattr(self, name) >= number:
                raise ValueError(
                    f"{name}: expected at least {number}, received {getattr(self, name)}"
                )
        if self.negatives == "shuffled" and self.negatives_k >= self.batch_size:
            raise ValueError(
                f"negatives_k: expected less than the batch's {self.batch_size} images, received "
                f"{self.negatives_k}"
            )
        if self.negatives != "shuffled" and self.negatives_k > 1:
            raise ValueError(
                f"negatives_k: expected shuffled negatives, received {self.negatives!r}, which "
                f"have no number; leave it out, or add --negatives shuffled"
            )
        if not self.learning_rate > 0 or not self.adam_eps > 0:
            raise ValueError(
                f"learning_rate, adam_eps: expected more than 0, received {self.learning_rate} and "
                f"{self.adam_eps}"
            )
        if not 0 <= self.adam_beta1 < 1:
            raise ValueError(f"adam_beta1: expected 0 to less than 1, received {self.adam_beta1}")
        if not self.occlusion < 1:
            raise ValueError(f"occlusion: expected less than 1, received {self.occlusion}")
        if self.class_conditional and (self.prior != "kl" or not self.gamma):
            raise ValueError(
                f"class_conditional: expected the KL prior and a gamma above 0, received "
                f"{self.prior!r} and {self.gamma}; leave it out"
            )
        of_prior = self.gamma and self.prior != "none"
        of_terms = (self.alpha, self.beta, self.delta, self.eta, self.rho, self.kappa)
        if not any(of_terms) and not of_prior:
            raise ValueError(
                "alpha, beta, gamma, delta, eta, rho, kappa: expected a weight above 0, received "
                "none"
            )


# Hjelm et al. 2019: the local presets as in their released code (rdevon/DIM and the framework that
# it runs on), with the paper's prior, but for the penalty on its discriminator's gradient.
_PAPER_LOCAL = TrainConfig(
    preset="paper-local-jsd",
    stochastic=False,
    head_units=2048,
    head_gain=1.0,
    objective="jsd",
    negatives="in-batch",
    global_input="feature-map",
    alpha=0.0,
    beta=1.0,
    gamma=0.1,
    delta=0.0,
    prior="adversarial",
    epochs=1000,
    learning_rate=1e-4,
)
# As in the paper: C and Y, concatenated, through 512 and 512 units to a score; alpha and beta of
# both terms from its DIM(L+G), compared by SVM, MS-SSIM and dependence. One negative a pair, as in
# the 2018 code, whose heads these are.
_PAPER_GLOBAL = replace(
    _PAPER_LOCAL,
    preset="paper-global",
    heads="concat",
    head_units=512,
    head_layers=2,
    negatives="shuffled-locations",
    alpha=1.0,
    beta=0.0,
    gamma=1.0,
)

# The same encoder, trained to reconstruct.
_VAE = TrainConfig(preset="vae", alpha=0.0, beta=0.0, gamma=1.0, delta=0.0, rho=1.0)

PRESETS = {
    "default": TrainConfig(),
    # A quarter of the steps, for a GPU that waits for small ones.
    "fast": TrainConfig(preset="fast", batch_size=256, learning_rate=1e-3),
    "paper-local-jsd": _PAPER_LOCAL,
    # Each location of every other image of the batch is a negative.
    "paper-local-infonce": replace(
        _PAPER_LOCAL,
        preset="paper-local-infonce",
        objective="infonce",
        negatives="all-locations",
    ),
    "paper-local-dv": replace(_PAPER_LOCAL, preset="paper-local-dv", objective="dv"),
    "paper-global": _PAPER_GLOBAL,
    "paper-local-global": replace(_PAPER_GLOBAL, preset="paper-local-global", alpha=0.5, beta=0.1),
    "autoencoder": replace(_VAE, preset="autoencoder", prior="none", stochastic=False),
    "vae": _VAE,
    "class-conditional-vae": replace(_VAE, preset="class-conditional-vae", class_conditional=True),
    # Su 2018 (spaces.ac.cn/archives/6024) and its code; Adam's epsilon is Keras' default.
    "su-kl": TrainConfig(
        preset="su-kl",
        encoder="su",
        z_dim=256,
        heads="concat",
        objective="jsd",
        negatives="shuffled",
        global_input="z",
        alpha=0.5,
        beta=1.5,
        gamma=0.01,
        delta=0.0,
        prior_reduction="mean",
        epochs=50,
        learning_rate=1e-3,
        adam_beta1=0.9,
        adam_eps=1e-7,
    ),
    # Terms between two views, by infoNCE, with all locations of all other images as negatives of a
    # code, as in Bachman et al. 2019 (AMDIM). ResNet-18 and its 200 epochs are those of lightly's
    # CIFAR-10 benchmark; 128 dimensions are SimCLR's (Chen et al. 2020), whose batches are of 256
    # to 4096. Equal weights of both terms and Adam at 1e-3 with its usual beta1, where SimCLR has
    # LARS, are choices of ours, and not tuned.
    "two-view": TrainConfig(
        preset="two-view",
        views=2,
        encoder="resnet18",
        z_dim=128,
        stochastic=False,
        objective="infonce",
        negatives="all-locations",
        alpha=1.0,
        beta=1.0,
        delta=0.0,
        prior="none",
        epochs=200,
        batch_size=512,
        learning_rate=1e-3,
        adam_beta1=0.9,
    ),
}
