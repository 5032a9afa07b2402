"""Probes: how well labels can be read off fixed features, each by a classifier of its own kind.

Each is fitted on training features alone; test features are scored, and choose nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dim.capture import capture
from mi_estimators.estimator import evaluating, seeded

Loss = Callable[[Float[Tensor, "N C"], Int64[Tensor, "N"]], Float[Tensor, ""]]
PENALTIES = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)  # on ½‖W‖², beside a mean loss


# --- Nearest neighbours -----------------------------------------------------------------------


def nearest(
    queries: Float[Tensor, "Q d"],
    gallery: Float[Tensor, "G d"],
    *,
    k: int,
    metric: Literal["cosine", "l2"],
) -> Int64[Tensor, "Q k"]:
    """Indices of the k rows of the gallery nearest to each query, nearest first.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]])
        >>> nearest(torch.tensor([[1.0, 1.0]]), gallery, k=2, metric="l2")
        tensor([[0, 2]])
        >>> nearest(torch.tensor([[1.0, 1.0]]), gallery, k=1, metric="cosine")
        tensor([[1]])
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(
            f"k: expected 1 to {len(gallery)}, the size of the gallery, received {k}; ask for "
            "fewer neighbours or add images"
        )
    if metric == "l2":  # far from the origin, squares would cancel
        centre = gallery.mean(0)
        queries, gallery = queries - centre, gallery - centre
    else:
        # For unit vectors |q − g|² = 2 − 2 cos(q, g): the same order, and one code path.
        queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    chunks = queries.split(1000)  # a Q × G matrix of distances would outgrow memory
    return torch.cat([torch.cdist(q, gallery).topk(k, largest=False).indices for q in chunks])


def knn_accuracies(
    train_x: Float[Tensor, "N d"],
    train_y: Int64[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Int64[Tensor, "M"],
    *,
    ks: Sequence[int],
) -> list[float]:
    """Share of test points whose k cosine-nearest training points vote for their class, each k.

    Every neighbour has one vote. Among classes with equally many votes the one with the nearest
    neighbour wins.
    """
    labels = train_y[nearest(test_x, train_x, k=max(ks), metric="cosine")]
    return [_share(_elected(labels[:, :k]) == test_y) for k in ks]


def _elected(labels: Int64[Tensor, "M k"]) -> Int64[Tensor, "M"]:
    chunks = []
    for some in labels.split(1000):  # M × k × k votes would outgrow memory
        votes = (some[:, :, None] == some[:, None, :]).sum(dim=2)  # each neighbour's followers
        winner = votes.argmax(dim=1, keepdim=True)  # the first maximum, so the nearest
        chunks.append(some.gather(1, winner).squeeze(1))
    return torch.cat(chunks)


# --- Linear probes ----------------------------------------------------------------------------


def squared_hinge(logits: Float[Tensor, "N C"], targets: Int64[Tensor, "N"]) -> Float[Tensor, ""]:
    """The loss of a linear support-vector machine, one class against the rest, summed over classes.

    Squared, as in liblinear's default: it has a gradient everywhere.
    """
    signs = 2 * F.one_hot(targets, logits.shape[1]) - 1
    return (1 - signs * logits).clamp(min=0).square().sum(1).mean()


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear classifier; call it on features to predict classes.

    Attributes:
        mean: Subtracted from the features.
        scale: Divides what remains.
        weight: A column a class; its last row is the bias.
        classes: The class of each column.
        penalty: The chosen weight of ½‖W‖².
    """

    mean: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]
    weight: Float[Tensor, "d+1 C"]
    classes: Int64[Tensor, "C"]
    penalty: float

    def __call__(self, x: Float[Tensor, "N d"]) -> Int64[Tensor, "N"]:
        """The class of each row's largest score."""
        return self.classes[_logits((x - self.mean) / self.scale, self.weight).argmax(dim=1)]


def fit_linear_probe(
    x: Float[Tensor, "N d"], y: Int64[Tensor, "N"], loss: Loss = F.cross_entropy
) -> LinearProbe:
    """Multinomial logistic regression, or by `squared_hinge` a linear support-vector machine.

    Features are standardised. A fifth of the rows (a fixed random choice) is set aside; the
    penalty goes from strong to weak, each fit starting from the one before, for as long as the
    loss on that fifth falls; then all rows are fitted with the best: no test data have a part in
    it. Fitted by full-batch L-BFGS in torch, on a GPU where the features are there.

    Args:
        x: Features.
        y: Their classes.
        loss: Of scores and class numbers, a mean over rows.

    Raises:
        ValueError: There are fewer than two rows.
    """
    if len(x) < 2:
        raise ValueError(f"x: expected at least 2 rows, received {len(x)}; add labelled images")
    mean, scale = x.mean(dim=0), x.std(dim=0)
    scale = torch.where(scale > 0, scale, 1)  # a constant feature says nothing
    x = (x - mean) / scale
    classes, targets = y.unique(return_inverse=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    held_out = max(1, len(x) // 5)
    validation, fitting = order[:held_out], order[held_out:]
    x_fitting, x_validation = x[fitting], x[validation]

    weight = x.new_zeros(x.shape[1] + 1, len(classes))
    best, best_weight, penalty = math.inf, weight, PENALTIES[0]
    for candidate in PENALTIES:
        weight = _fit(x_fitting, targets[fitting], candidate, loss, start=weight)
        error = loss(_logits(x_validation, weight), targets[validation]).item()
        if error >= best:
            break
        best, best_weight, penalty = error, weight, candidate
    weight = _fit(x, targets, penalty, loss, start=best_weight)
    return LinearProbe(mean, scale, weight, classes, penalty)


def linear_accuracy(
    train_x: Float[Tensor, "N d"],
    train_y: Int64[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Int64[Tensor, "M"],
    loss: Loss = F.cross_entropy,
) -> float:
    """Share of test points that a linear probe of the training points classifies correctly."""
    return _share(fit_linear_probe(train_x, train_y, loss)(test_x) == test_y)


def _logits(x: Float[Tensor, "N d"], weight: Float[Tensor, "d+1 C"]) -> Float[Tensor, "N C"]:
    return torch.addmm(weight[-1], x, weight[:-1])


def _fit(
    x: Float[Tensor, "N d"],
    targets: Int64[Tensor, "N"],
    penalty: float,
    loss: Loss,
    *,
    start: Float[Tensor, "d+1 C"],
) -> Float[Tensor, "d+1 C"]:
    """Minimise loss + ½ penalty ‖W‖², with a free bias."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=100,
        history_size=10,
        # Tighter ones take longer, and move accuracies by much less than their standard errors.
        tolerance_grad=1e-3,
        tolerance_change=1e-4,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        ridge = weight[:-1].square().sum()
        value = loss(_logits(x, weight), targets) + 0.5 * penalty * ridge
        value.backward()
        return value.item()

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()


# --- A probe with one hidden layer ------------------------------------------------------------


@dataclass(frozen=True)
class MLPAccuracy:
    """Two readings of a probe with one hidden layer.

    Attributes:
        last: Fitted on all training points; the mean test accuracy over the last 100 epochs (the
            second half, of fewer than 200), as in the paper, which chose the schedule by what test
            accuracies it gives.
        validated: Fitted on nine tenths; the test accuracy after the epoch that did best on the
            tenth.
    """

    last: float
    validated: float


def mlp_accuracy(
    train_x: Float[Tensor, "N d"],
    train_y: Int64[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Int64[Tensor, "M"],
    *,
    epochs: int = 200,
    seed: int = 0,
) -> MLPAccuracy:
    """Accuracy of the classifier of the paper's tables (Hjelm et al. 2019, Section 4.1).

    200 hidden units, dropout and batch norm, by Adam at 1e-4, a tenth of that after 50 and again
    after 100 epochs, in batches of 64 (rdevon/DIM's settings). The paper's 1,000 epochs end at the
    learning rate of the 101st: by default it is 200 of them. Of fewer, the rate falls after a
    quarter and half.

    Args:
        train_x: Features to fit on.
        train_y: Their classes.
        test_x: Features to score.
        test_y: Their classes.
        epochs: Passes over the training points.
        seed: Of initial weights, order, dropout and the tenth that is held out.
    """
    classes, targets = train_y.unique(return_inverse=True)

    def share(network: nn.Module, x: Tensor, y: Tensor) -> float:
        return _share(classes[network(x).argmax(1)] == y)

    order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(seed))
    held_out, fitting = order.to(train_x.device).tensor_split([max(1, len(order) // 10)])
    curve: list[float] = []
    looks: list[tuple[float, float]] = []
    _train_mlp(train_x, targets, epochs, seed, lambda net: curve.append(share(net, test_x, test_y)))
    _train_mlp(
        train_x[fitting],
        targets[fitting],
        epochs,
        seed,
        lambda net: looks.append(
            (share(net, train_x[held_out], train_y[held_out]), share(net, test_x, test_y))
        ),
    )
    last = curve[-min(100, math.ceil(epochs / 2)) :]
    _, validated = max(looks, key=lambda look: look[0])  # the first of equals
    return MLPAccuracy(sum(last) / len(last), validated)


def _train_mlp(
    x: Float[Tensor, "N d"],
    targets: Int64[Tensor, "N"],
    epochs: int,
    seed: int,
    look: Callable[[nn.Module], None],
) -> None:
    """Train, and look at the network in eval mode after each epoch."""
    with seeded(seed, x.device), torch.enable_grad():
        network = nn.Sequential(
            nn.Linear(x.shape[1], 200),
            nn.Dropout(0.1),
            nn.BatchNorm1d(200),
            nn.ReLU(),
            nn.Linear(200, int(targets.max()) + 1),
        ).to(x.device)
        rate = torch.tensor(1e-4, device=x.device)  # a graph reads it anew at each step
        optimiser = torch.optim.Adam(
            network.parameters(), lr=rate, betas=(0.5, 0.999), fused=True, capturable=x.is_cuda
        )
        first = min(50, math.ceil(epochs / 4))
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [first, 2 * first])

        def step(rows: Int64[Tensor, " B"]) -> None:
            optimiser.zero_grad()
            F.cross_entropy(network(x[rows]), targets[rows]).backward()
            optimiser.step()

        step_of_64: Callable[[Tensor], None] = step
        if x.is_cuda and len(x) >= 64:  # most of such a small step would be starting its kernels
            step_of_64 = capture(
                step,
                torch.arange(64, device=x.device),
                model=network,
                optimiser=optimiser,
                generator=torch.cuda.default_generators[x.device.index],
            )
        for _ in range(epochs):
            network.train()
            order = torch.randperm(len(x), device=x.device)
            for rows in order.split(64):
                if len(rows) == 64:
                    step_of_64(rows)
                elif len(rows) > 1:  # one row has no batch statistics
                    step(rows)
            schedule.step()
            with torch.no_grad(), evaluating(network):
                look(network)


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
