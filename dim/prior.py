"""Priors: what keeps the code z close to a standard normal distribution."""

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor, nn

from dim.encoder import Features


class KLPrior(nn.Module):
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
        >>> import torch
        >>> features = Features(*[torch.zeros(2, 1, 1, 1), *[torch.zeros(2, 3)] * 3])
        >>> KLPrior("sum")(features).item()
        0.0
    """

    def __init__(
        self, reduction: Literal["sum", "mean"], class_means: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.class_means = class_means

    def forward(
        self, features: Features, labels: Int64[Tensor, " N"] | None = None
    ) -> Float[Tensor, ""]:
        """The divergence, averaged over the batch."""
        mean, log_var = features.z_mean.float(), features.z_log_var.float()
        if self.class_means is not None:
            if labels is None:
                raise ValueError(
                    "labels: expected class labels for the class-conditional prior, received none; "
                    "use labelled data or leave the class means out"
                )
            mean = mean - self.class_means(labels)
        divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1)
        total = divergence.sum(-1) if self.reduction == "sum" else divergence.mean(-1)
        return total.mean()

    def extra_repr(self) -> str:
        """The reduction."""
        return f"reduction={self.reduction!r}"
