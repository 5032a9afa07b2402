"""Expectations over standard normals: what mutual information is where it has no closed form."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Integrand = Callable[[Float[Tensor, "*b d"]], Float[Tensor, "*b"]]


def trapezoid(
    f: Integrand, dim: int, *, coarsest: int = 128, finest: int = 2048, tolerance: float = 1e-9
) -> tuple[float, float]:
    """Return E[f(Z)] for Z standard normal in dim dimensions, and by how much it last moved.

    The trapezoid rule over 8 standard deviations each way converges geometrically for f analytic
    near the real axis. The step is halved until two values agree to the tolerance.
    """
    value, previous = math.nan, math.nan
    intervals = coarsest
    while intervals <= finest:
        z = torch.linspace(-8, 8, intervals + 1, dtype=torch.float64)
        mass = torch.softmax(-0.5 * z.square(), 0)
        values = f(torch.stack(torch.meshgrid(*[z] * dim, indexing="ij"), -1))
        for _ in range(dim):
            values = values @ mass
        value, previous = values.item(), value
        if abs(value - previous) < tolerance:
            break
        intervals *= 2
    return value, abs(value - previous)


def quasi_monte_carlo(
    f: Integrand, dim: int, *, tolerance: float = 2e-4, most: int = 2**14
) -> tuple[float, float]:
    """Return E[f(Z)] for Z standard normal in dim dimensions, and its standard error.

    16 scrambled Sobol' sequences of fixed seeds (Matoušek 1998), whose means spread as the error
    does; their length is doubled until the standard error is below the tolerance, or to `most`.
    """
    scrambles = 16
    for exponent in itertools.count(10):
        n = 2**exponent
        means = torch.empty(scrambles, dtype=torch.float64)
        for seed in range(scrambles):
            points = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed).draw(
                n, dtype=torch.float64
            )
            # Points have 30 bits; half of the last one keeps them off 0 and 1.
            means[seed] = f(torch.special.ndtri(points + 2.0**-31)).mean()
        error = means.std().item() / math.sqrt(scrambles)
        if error < tolerance or n >= most:
            break
    return means.mean().item(), error


def gauss_legendre(
    low: float, high: float, panels: int, order: int = 20
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Return nodes and weights of the Gauss-Legendre rule, panel by panel of equal width."""
    jacobi = torch.zeros(order, order, dtype=torch.float64)
    k = torch.arange(1, order, dtype=torch.float64)
    off_diagonal = k / (4 * k * k - 1).sqrt()
    jacobi.diagonal(1)[:] = jacobi.diagonal(-1)[:] = off_diagonal  # Golub & Welsch 1969
    nodes, vectors = torch.linalg.eigh(jacobi)
    half = (high - low) / panels / 2
    middles = low + half * (2 * torch.arange(panels, dtype=torch.float64) + 1)
    weights = 2 * vectors[0].square()
    return (middles[:, None] + half * nodes).flatten(), (half * weights).repeat(panels)
