"""Every bijection against its formula, and back."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mi_estimators.bijections import (
    WIGGLY_X,
    WIGGLY_Y,
    Asinh,
    Bijection,
    Cubic,
    HalfCube,
    NormalCDF,
    NormalToMixture,
    Spiral,
    SwissRoll,
    Wiggly,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


LINE = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
ELEMENTWISE = [
    (Cubic(), lambda x: x * x * x),
    (HalfCube(), lambda x: np.sign(x) * np.abs(x) ** 1.5),
    (Asinh(), np.arcsinh),
    (NormalCDF(), stats.norm.cdf),
    (
        WIGGLY_X,
        lambda x: x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5),
    ),
    (
        WIGGLY_Y,
        lambda x: (
            x - 0.4 * np.sin(0.4 * x) + 0.17 * np.sin(1.3 * x + 3.5) + 0.02 * np.sin(4.3 * x - 2.5)
        ),
    ),
    (
        Wiggly((0.099, 0.9), (10, 0.01), (0, 1)),
        lambda x: x + 0.099 * np.sin(10 * x) + 0.9 * np.sin(0.01 * x + 1),
    ),
    (Wiggly((), (), ()), lambda x: x),
    (NormalToMixture((1,), (2,)), lambda x: x + 2),
]


@pytest.mark.parametrize(
    ("bijection", "formula"),
    ELEMENTWISE,
    ids=lambda p: repr(p)[:30] if isinstance(p, Bijection) else "",
)
def test_elementwise_bijections_increase_and_invert(bijection, formula):
    image = bijection.forward(LINE)
    np.testing.assert_allclose(image, formula(LINE.numpy()), rtol=1e-14, atol=1e-14)
    assert (image.diff(dim=0) > 0).all()
    # Φ(x) rounds at 1e-16, which its flat upper tail magnifies by 1/φ(6) = 1.6e8.
    atol = 1e-7 if isinstance(bijection, NormalCDF) else 1e-12
    torch.testing.assert_close(bijection.inverse(image), LINE, rtol=1e-12, atol=atol)
    central = LINE.abs() < 3
    torch.testing.assert_close(bijection.inverse(image)[central], LINE[central], rtol=0, atol=5e-14)
    assert bijection.out_dim(3) == 3


def test_normal_to_mixture_keeps_probabilities_in_both_tails():
    bimodal = NormalToMixture(weights=(0.3, 0.7), means=(0, 5))
    image = bimodal.forward(LINE)
    assert (image.diff(dim=0) > 0).all()
    torch.testing.assert_close(bimodal.inverse(image), LINE, rtol=0, atol=1e-12)
    y = image.numpy()
    for tail, x in ((stats.norm.cdf, LINE.numpy()), (stats.norm.sf, LINE.numpy())):
        np.testing.assert_allclose(0.3 * tail(y) + 0.7 * tail(y - 5), tail(x), rtol=1e-12)


@pytest.mark.parametrize(
    "spiral",
    [
        Spiral(),
        Spiral(speed=-2.0, planes=((0, 2), (3, 1))),
        Spiral(planes=((1, 2),)),
        Spiral(planes=()),
    ],
)
def test_spiral_is_the_matrix_exponential_and_keeps_norms(spiral):
    x = torch.randn(20, 5, generator=seeded(), dtype=torch.float64)
    generator = torch.zeros(5, 5, dtype=torch.float64)
    for i, j in spiral.planes:
        generator[i, j], generator[j, i] = 1, -1
    turned = spiral.forward(x)
    for row, image in zip(x, turned, strict=True):
        rotation = torch.linalg.matrix_exp(spiral.speed * row.square().sum() * generator)
        torch.testing.assert_close(image, rotation @ row, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(spiral.inverse(turned), x, rtol=1e-12, atol=1e-12)
    assert spiral.out_dim(5) == 5


def test_swiss_roll_inverts():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    torch.testing.assert_close(SwissRoll().inverse(SwissRoll().forward(x)), x, rtol=0, atol=1e-14)
    assert SwissRoll().out_dim(1) == 2


MISTAKES = [
    (
        lambda: NormalToMixture((1,), (1, 2)),
        ValueError,
        r"weights and means .* lengths 1 and 2; give",
    ),
    (
        lambda: NormalToMixture((0.5, 0.6), (1, 2)),
        ValueError,
        r"weights must be .* got \(0.5, 0.6\)",
    ),
    (lambda: NormalToMixture((), ()), ValueError, r"weights must be positive .* got \(\)"),
    (lambda: Wiggly((0.1,), (1,), ()), ValueError, r"equally long, got lengths \(1, 1, 0\)"),
    (lambda: Wiggly((0.5, -0.5), (1, 1), (0, 0)), ValueError, r"less than 1 .* got 1; scale"),
    (
        lambda: Spiral(planes=((0, 1), (1, 2))),
        ValueError,
        r"distinct coordinates >= 0, got .* chain",
    ),
    (lambda: Spiral(planes=((-1, 0),)), ValueError, r"distinct coordinates >= 0, got \(\(-1, 0\)"),
    (lambda: Spiral(planes=((1, 3),)).out_dim(3), ValueError, r"need dim >= 4, got 3; choose"),
    (lambda: SwissRoll().out_dim(2), ValueError, r"SwissRoll needs dim = 1, got 2; roll"),
    (
        lambda: SwissRoll().forward(tensor([[1.5]])),
        ValueError,
        r"x must lie in \[0, 1\], got .*1.5",
    ),
    (lambda: SwissRoll().forward(tensor([[math.nan]])), ValueError, r"x must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(
    ("mistake", "error", "message"), MISTAKES, ids=lambda p: p[:40] if isinstance(p, str) else ""
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
