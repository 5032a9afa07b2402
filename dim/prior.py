"""Priors: what the code z should be distributed like, and what keeps it near."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, Uniform
from torch.func import functional_call
from torch.nn.functional import softplus

from dim.encoder import Features
from mi_estimators import mlp


class Prior(nn.Module, ABC):
    """A loss that is small where the code is distributed as it should be.

    Attributes:
        law: What each dimension of `seen(z)` should be distributed like, if that is one law.
        seen_as: What `seen` makes of z, in words.
    """

    law: Distribution | None = None
    seen_as = "{}"

    def seen(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        """The code as `law` is about it."""
        return z

    @abstractmethod
    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        labels: Int64[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch, for the encoder to lower."""

    def own_loss(
        self, z: Float[Tensor, "N d"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """What the prior's own parameters lower, by default 0; it does not reach the encoder."""
        return z.new_zeros((), dtype=torch.float32)


class NoPrior(Prior):
    """Any code will do."""

    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        labels: Int64[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        """0."""
        return z.new_zeros((), dtype=torch.float32)


def kl_to_standard_normal(
    mean: Float[Tensor, "N d"], log_var: Float[Tensor, "N d"]
) -> Float[Tensor, "N d"]:
    """KL(N(mean, e^log_var) || N(0, 1)) of each dimension, in nats."""
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1)


class KLPrior(Prior):
    """E_x KL(p(z|x) || N(m, 1)) in nats, in closed form.

    1/2 [(mu - m)^2 + sigma^2 - log sigma^2 - 1], over the batch a mean, over the dimensions of z a
    sum (the KL divergence) or a mean (as the blog's code has it, d times smaller). m is 0 (VAE
    blog, Eq. 4) or a learned mean for each class (Eq. 8).

    Args:
        reduction: "sum" or "mean" over the dimensions of z.
        class_means: One mean a class, `nn.Embedding(classes, z_dim)`; needs labels. By default 0.

    Raises:
        ValueError: On call, if there are class means and no labels.

    Example:
        >>> features = Features(*[torch.zeros(2, 1, 1, 1)] * 2, *[torch.zeros(2, 3)] * 3)
        >>> KLPrior("sum")(features, features.z_mean).item()
        0.0
    """

    def __init__(
        self, reduction: Literal["sum", "mean"], class_means: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.class_means = class_means
        if class_means is None:
            self.law = Normal(0.0, 1.0)

    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        labels: Int64[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        """The divergence, averaged over the batch; of z it needs no sample."""
        mean, log_var = features.z_mean.float(), features.z_log_var.float()
        if self.class_means is not None:
            if labels is None:
                raise ValueError(
                    "labels: expected class labels for the class-conditional prior, received none; "
                    "use labelled data or leave the class means out"
                )
            mean = mean - self.class_means(labels)
        divergence = kl_to_standard_normal(mean, log_var)
        total = divergence.sum(-1) if self.reduction == "sum" else divergence.mean(-1)
        return total.mean()

    def extra_repr(self) -> str:
        """The reduction."""
        return f"reduction={self.reduction!r}"


class AdversarialPrior(Prior):
    """A discriminator D that tells sigmoid(z) from uniform noise on [0, 1]^d, and is to be fooled.

    The encoder lowers the non-saturating -E log D(sigmoid(z)), with D as it is; D lowers the
    cross-entropy -E log D(u) - E log(1 - D(sigmoid(z))), with z as it is (Hjelm et al. 2019, Eq. 7;
    Goodfellow et al. 2014). So one backward pass of both losses takes each to its own side.

    Args:
        z_dim: Dimensions of z.
        widths: Of D's hidden layers.

    Example:
        >>> prior = AdversarialPrior(3)
        >>> prior.own_loss(torch.zeros(8, 3)).item() > 0
        True
    """

    law = Uniform(0.0, 1.0)
    seen_as = "sigmoid({})"

    def __init__(self, z_dim: int, widths: tuple[int, ...] = (1000, 200)) -> None:
        super().__init__()
        self.discriminator = mlp(z_dim, *widths, 1, activation=nn.ReLU)

    def seen(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        """sigmoid(z)."""
        return z.float().sigmoid()

    def forward(
        self,
        features: Features,
        z: Float[Tensor, "N d"],
        labels: Int64[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        """-E log D(sigmoid(z)) in nats; log 2 where D cannot tell."""
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logits = functional_call(self.discriminator, frozen, (self.seen(z),))
        return softplus(-logits.float()).mean()

    def own_loss(
        self, z: Float[Tensor, "N d"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """The discriminator's cross-entropy in nats, of both kinds together; 2 log 2 at chance."""
        real, fake = self._logits(z.detach(), generator)
        return softplus(-real).mean() + softplus(fake).mean()

    @torch.no_grad()
    def accuracy(
        self, z: Float[Tensor, "N d"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Share of codes and of as much uniform noise that the discriminator tells right."""
        real, fake = self._logits(z, generator)
        return torch.cat([real > 0, fake <= 0]).float().mean()

    def _logits(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """D's of uniform noise, and of codes."""
        drawn_on = z.device if generator is None else generator.device
        uniform = torch.rand(z.shape, generator=generator, device=drawn_on).to(z.device)
        return self.discriminator(uniform).float(), self.discriminator(self.seen(z)).float()
