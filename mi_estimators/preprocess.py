"""Maps of x alone and of y alone: the mutual information stays, the critic's work shrinks.

Each part is fitted on training rows, so that nothing of the reported samples leaks into it. Parts
are used in a list, one after the other: `preprocess=[OneHot(), NormalScores()]`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from jaxtyping import Float
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Preprocessor(ABC):
    """A family of maps of samples, one of which `fit` chooses."""

    @abstractmethod
    def fit(self, samples: Float[Tensor, "N d"]) -> Map:
        """The map for samples like these, from shape `[M, d]` to `[M, e]`."""


def fit_all(parts: Sequence[Preprocessor], samples: Float[Tensor, "N d"]) -> Map:
    """Fit the parts one after the other, each on what the ones before it make of the samples."""
    maps: list[Map] = []
    for part in parts:
        maps.append(part.fit(samples))
        samples = maps[-1](samples)
    return partial(_apply, maps)


def _apply(maps: Sequence[Map], samples: Tensor) -> Tensor:
    return reduce(lambda value, f: f(value), maps, samples)


@dataclass(frozen=True)
class NormalScores(Preprocessor):
    """Each column's ranks among the fitted rows, as quantiles of the standard normal law.

    MI does not change under increasing maps of the columns, but heavy tails, on which a critic
    extrapolates, are gone, and margins are no longer anyone's problem: what is left is the copula.
    Ties share their middle rank.

    Example:
        >>> x = torch.tensor([[1.0], [10.0], [100.0]]).double()
        >>> NormalScores().fit(x)(x).squeeze()
        tensor([-0.6745,  0.0000,  0.6745], dtype=torch.float64)
    """

    def fit(self, samples: Float[Tensor, "N d"]) -> Map:
        """Remember the sorted columns."""
        ordered = samples.T.contiguous().sort().values
        # Of a million samples every fold keeps a table: half as large, where that loses nothing.
        short = ordered.float()
        return partial(
            _normal_scores, short if torch.equal(short.to(ordered), ordered) else ordered
        )


def _normal_scores(
    reference: Float[Tensor, "d N"], samples: Float[Tensor, "M d"]
) -> Float[Tensor, "M d"]:
    # Column by column: the temporaries of a million rows of all columns would not fit so well.
    scores = torch.empty_like(samples, dtype=torch.float64)
    for column, (known, values) in enumerate(zip(reference, samples.T, strict=True)):
        known, values = known.double(), values.contiguous().double()
        below = torch.searchsorted(known, values)
        at_most = torch.searchsorted(known, values, right=True)
        quantiles = ((below + at_most).double() / 2 + 0.5) / (len(known) + 1)
        scores[:, column] = torch.special.ndtri(quantiles)
    return scores


@dataclass(frozen=True)
class OneHot(Preprocessor):
    """Columns of few distinct whole numbers (class labels, counts) as indicators of their values.

    A label is a name, not a quantity: as a number, class 3 would lie between 2 and 4. The map is
    invertible on the fitted values; a value that was not among them gets no indicator.

    Args:
        most: Columns of 3 to this many distinct values are taken for labels; two values need one
            indicator, which the column itself is.

    Example:
        >>> labels = torch.tensor([[0.0], [5.0], [7.0], [5.0]]).repeat(10, 1)
        >>> OneHot().fit(labels)(labels)[:4]
        tensor([[0., 0.],
                [1., 0.],
                [0., 1.],
                [1., 0.]])
    """

    most: int = 20

    def fit(self, samples: Float[Tensor, "N d"]) -> Map:
        """Remember the distinct values of the columns that hold labels."""
        return partial(_indicators, [self._labels(column) for column in samples.T])

    def _labels(self, column: Float[Tensor, " N"]) -> Float[Tensor, " L"] | None:
        if not bool((column == column.round()).all()):
            return None
        labels = column.unique()
        # All but one: the last indicator follows from the others.
        return labels[1:] if 3 <= len(labels) <= min(self.most, len(column) // 10) else None


def _indicators(
    labels: Sequence[Float[Tensor, " L"] | None], samples: Float[Tensor, "M d"]
) -> Float[Tensor, "M e"]:
    columns = zip(samples.T, labels, strict=True)
    return torch.cat(
        [c[:, None] if of is None else (c[:, None] == of).to(samples) for c, of in columns], dim=1
    )


@dataclass(frozen=True)
class Compress(Preprocessor):
    """Principal components, where there are too many columns for so few samples.

    Not invertible: what the components left out knew is lost, and the mutual information can only
    shrink (data-processing inequality). Nothing happens to samples with few columns.

    Args:
        samples_per_column: At most N / samples_per_column components are kept.

    Example:
        >>> x = torch.randn(100, 50)
        >>> Compress().fit(x)(x).shape
        torch.Size([100, 12])
    """

    samples_per_column: int = 8

    def fit(self, samples: Float[Tensor, "N d"]) -> Map:
        """Choose the directions of largest variance."""
        most = max(1, len(samples) // self.samples_per_column)
        if samples.shape[1] <= most:
            return partial(_apply, [])
        mean = samples.mean(0)
        _, _, directions = torch.linalg.svd(samples - mean, full_matrices=False)
        return partial(_project, mean, directions[:most].mT)


def _project(
    mean: Float[Tensor, " d"], directions: Float[Tensor, "d e"], samples: Float[Tensor, "M d"]
) -> Float[Tensor, "M e"]:
    return (samples - mean) @ directions
