"""MIEstimator: a critic, an objective and a negative sampler, composed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mi_estimators.critics import Critic
from mi_estimators.negatives import InBatch, NegativeSampler
from mi_estimators.objectives import JSD, Objective
from mi_estimators.scores import PairScores


class MIEstimator(nn.Module):
    """Mutual information of batches, for a training loop of your own.

    Row i is (x_i, y_i). Encodings may carry locations after the batch axis: with u of shape
    `N 1 e` and v of shape `N L e` the scores have shape `N L`, one for each location.

    Args:
        critic: Scores pairs.
        objective: Turns scores into a number to maximise; `JSD()` by default.
        negatives: Chooses the pairs that stand for p(x)p(y); `InBatch()` by default.

    Raises:
        TypeError: If a part is no instance of its class, as in `"jsd"` or `JSD` for `JSD()`.
        ValueError: On call, if x and y differ in length or the batch has fewer than 2 samples.

    Example:
        >>> from mi_estimators import Separable
        >>> estimator = MIEstimator(Separable.mlp(5, 3))
        >>> x, y = torch.randn(64, 5), torch.randn(64, 3)
        >>> estimator.loss(x, y).backward()  # minimise: maximises the mutual information
        >>> estimator.estimate(x, y).shape  # nats; on data that took no part in training
        torch.Size([])
    """

    def __init__(
        self,
        critic: Critic,
        objective: Objective | None = None,
        negatives: NegativeSampler | None = None,
    ) -> None:
        super().__init__()
        objective = JSD() if objective is None else objective
        negatives = InBatch() if negatives is None else negatives
        for name, part, kind, such_as in (
            ("critic", critic, Critic, "Separable(f, g)"),
            ("objective", objective, Objective, "InfoNCE()"),
            ("negatives", negatives, NegativeSampler, "Shuffled(k=1)"),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name}: expected an instance of {kind.__name__}, such as {such_as}, "
                    f"received {part!r}"
                )
        self.critic, self.objective, self.negatives = critic, objective, negatives

    def scores(
        self,
        x: Tensor,
        y: Tensor,
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> PairScores:
        """Scores of the batch's pairs and of their negatives, in float32 or wider."""
        u, v = self.critic.encode_x(x), self.critic.encode_y(y)
        if u.shape[0] != v.shape[0]:
            raise ValueError(
                f"y: expected as many samples as x, {u.shape[0]}, received {v.shape[0]}; row i of "
                f"x and of y must be one pair"
            )
        if u.ndim != v.ndim:
            raise ValueError(
                f"critic: expected encodings with as many axes for x as for y, received shapes "
                f"{list(u.shape)} and {list(v.shape)}; give the side without locations an axis of "
                f"length 1, as in x[:, None]"
            )
        drawn = self.negatives(v.shape[:-1], groups=groups, generator=generator, device=v.device)
        with torch.autocast(v.device.type, enabled=False):
            u, v = u.to(_wide(u)), v.to(_wide(v))
            joint = self.critic.score(u, v)
            product = self.critic.score(u.unsqueeze(-2), v.flatten(0, -2)[drawn.indices])
        return PairScores(joint, product, drawn.mask)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The objective's value on the batch: maximise it."""
        return self.objective(self.scores(x, y, groups=groups, generator=generator))

    def loss(
        self,
        x: Tensor,
        y: Tensor,
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Minus the objective: minimise it to maximise the mutual information."""
        return -self(x, y, groups=groups, generator=generator)

    @torch.no_grad()
    def estimate(
        self,
        x: Tensor,
        y: Tensor,
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mutual information in nats on this batch; give it data that trained nothing.

        The critic is in evaluation mode meanwhile.
        """
        with evaluating(self.critic):
            return self.objective.estimate(self.scores(x, y, groups=groups, generator=generator))

    def extra_repr(self) -> str:
        """The sampler, which is not a module."""
        return f"(negatives): {self.negatives}"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule is then left as it was found."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _wide(t: Tensor) -> torch.dtype:
    return torch.promote_types(t.dtype, torch.float32)
