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

    To maximise MI over what makes x and y, minimise `loss`, which trains the critic as well. To
    minimise MI, an upper bound is needed, at a critic that is trained to be a density: minimise
    `penalty`, which leaves the critic alone, and train that by `LogLikelihood` in between.

    Args:
        critic: Scores pairs.
        objective: Turns scores into a number to maximise; `JSD()` by default.
        negatives: Chooses the pairs that stand for p(x)p(y); `InBatch()` by default.

    Raises:
        TypeError: If a part is no instance of its class, as in `"jsd"` or `JSD` for `JSD()`.
        ValueError: If the objective needs a critic that is a density, and it is none; on call, if x
            and y differ in length or the batch has fewer than 2 samples.

    Example:
        >>> from mi_estimators import Separable
        >>> estimator = MIEstimator(Separable.mlp(5, 3))
        >>> x, y = torch.randn(64, 5), torch.randn(64, 3)
        >>> estimator.loss(x, y).backward()  # minimise: maximises the mutual information
        >>> estimator.estimate(x, y).shape  # nats; on data that took no part in training
        torch.Size([])

        How little can z tell of y? CLUB's critic q is shared with the likelihood that trains it.

        >>> from mi_estimators import CLUB, ConditionalGaussian, LogLikelihood, Shuffled
        >>> q, encoder = ConditionalGaussian(2, 3), nn.Linear(5, 2)
        >>> fit, bound = MIEstimator(q, LogLikelihood(), Shuffled(1)), MIEstimator(q, CLUB())
        >>> z = encoder(x)
        >>> fit.loss(z.detach(), y).backward()  # then a step of q's optimiser, or several
        >>> bound.penalty(z, y).backward()  # then a step of the encoder's
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
        if objective.density and not critic.density:
            raise ValueError(
                f"critic: expected a conditional density log q(x | y) for {objective!r}, such as "
                f"ConditionalGaussian(dim_x, dim_y), received {type(critic).__name__}; a density "
                f"of your own states density = True"
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
            product = self.critic.score(u.unsqueeze(-2), self.negatives.select(v, drawn))
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
        """Minus the objective: minimise it to maximise the mutual information.

        Raises:
            ValueError: If the objective is an upper bound.
        """
        if self.objective.kind == "upper bound":
            raise ValueError(
                f"objective: expected one to maximise, received {self.objective!r}, an upper "
                f"bound: the larger, the looser; train the critic by LogLikelihood(), and minimise "
                f"the bound by penalty(x, y)"
            )
        return -self(x, y, groups=groups, generator=generator)

    def penalty(
        self,
        x: Tensor,
        y: Tensor,
        *,
        groups: Int64[Tensor, " N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """An upper bound on the mutual information, in nats: minimise it to minimise that.

        Gradients reach x and y and pass by the critic, whose part is to be a good density:
        minimised over the critic, the bound would only stop to be one. Train the critic on detached
        x and y, before and in between: where it lags behind, there is no bound (see `CLUB`).

        Raises:
            ValueError: If the objective is no upper bound. Minimised, a lower bound falls off the
                mutual information by a worse critic, whatever becomes of x and y.
        """
        if self.objective.kind != "upper bound":
            kind = "no bound" if self.objective.kind == "neither" else f"a {self.objective.kind}"
            raise ValueError(
                f"objective: expected an upper bound to minimise, such as CLUB(), received "
                f"{self.objective!r}, {kind}: minimising it would not minimise the mutual "
                f"information; use MIEstimator(ConditionalGaussian(dim_x, dim_y), CLUB())"
            )
        with frozen(self.critic):
            return self(x, y, groups=groups, generator=generator)

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
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Global draws, on the CPU and on `device`, from a seed for a while; no generator remembers it.

    Example:
        >>> before = torch.random.get_rng_state()
        >>> with seeded(0):
        ...     drawn = torch.rand(2)
        >>> torch.equal(before, torch.random.get_rng_state())
        True
    """
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed: it would leave the generators of every CUDA device seeded.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


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


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the module's parameters from what is computed meanwhile."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _wide(t: Tensor) -> torch.dtype:
    return torch.promote_types(t.dtype, torch.float32)
