"""Directions: what goes on between combinations of columns that no column shows, found cheaply."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mi_estimators.estimator import seeded

RANK = 2  # directions of a form: one for a square, two for a product
CANDIDATES = 8  # pairs of forms that are tried
ROUNDS = 10  # of refinement
SURE = 5.0  # standard errors of a correlation on samples that chose nothing
MOST = 2500  # products a side: 69 columns
NUMBERS = 2**26  # that the search is limited to: products of samples


class Form(NamedTuple):
    """f(u) = pᵀAp + bᵀp of the few coordinates p = uᵀB: a quadratic form of low rank, or a slope.

    Attributes:
        basis: B, orthonormal, shape `[d, k]`.
        curvature: A, shape `[k, k]`.
        slope: b, shape `[k]`.
    """

    basis: Float[Tensor, "d k"]
    curvature: Float[Tensor, "k k"]
    slope: Float[Tensor, " k"]

    def __call__(self, u: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """The form's values."""
        p = u @ self.basis
        return (p @ self.curvature * p).sum(-1) + p @ self.slope


class FormPair(NamedTuple):
    """Two forms that correlate.

    Attributes:
        of_u: f, of deviation 1.
        of_v: g, of deviation 1.
        correlation: Of f(u) and g(v), above 0.
    """

    of_u: Form
    of_v: Form
    correlation: float


def curved_forms(u: Float[Tensor, "N dx"], v: Float[Tensor, "N dy"]) -> list[FormPair]:
    """Pairs of forms f(u), g(v) that correlate although u and v do not, the strongest first.

    They begin as singular vectors of the covariance of all products of coordinates, and improve in
    turns, each as what the other one correlates with most. A pair counts if it correlates on a
    quarter of the samples, which chose nothing. Its directions are then taken out, and the search
    goes on. Of many samples, only some are looked at.

    Args:
        u: White coordinates that are not correlated with any of v's.
        v: Their partners.

    Example:
        >>> u = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0))
        >>> v = torch.randn(3000, 12, generator=torch.Generator().manual_seed(1))
        >>> v[:, 0] *= u[:, 3]  # not correlated, but their squares are
        >>> (found,) = curved_forms(u, v)
        >>> found.of_u.basis.abs().argmax(0)
        tensor([3])
    """
    few, many = sorted([u.shape[1], v.shape[1]])
    if few < 1 or many < 2 or _products(many) > MOST:
        return []
    rows = slice(NUMBERS // _products(many))
    u, v = (_on_sphere(w[rows].detach().float().cpu()) for w in (u, v))
    first, last = slice(3 * len(u) // 4), slice(3 * len(u) // 4, None)
    forms = []
    for start in _singular_forms(u[first], v[first]):
        f, g = _in_turns(start, u[first], v[first])
        correlation = _correlation(f(u[last]), g(v[last]))
        if correlation > SURE / math.sqrt(len(u[last])):
            f, g = _in_turns(f, u, v)
            forms.append(FormPair(_of_deviation_1(f, u), _of_deviation_1(g, v), correlation))
            u, v = u - u @ f.basis @ f.basis.mT, v - v @ g.basis @ g.basis.mT
    return sorted(forms, key=lambda pair: -pair.correlation)


def _products(d: int) -> int:
    """Products of two of d coordinates, and the coordinates."""
    return d * (d + 3) // 2


def _on_sphere(w: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    """Without the common radius of columns, which makes all squares correlate (heavy tails)."""
    if w.shape[1] == 1:
        return w
    return w * (math.sqrt(w.shape[1]) / w.norm(dim=1, keepdim=True).clamp(min=1e-6))


def _singular_forms(u: Float[Tensor, "N dx"], v: Float[Tensor, "N dy"]) -> list[Form]:
    """Forms of u whose covariance with some form of v is large."""
    of_u, of_v = _all_products(u), _all_products(v)
    covariance = of_u.mT @ of_v / len(u)
    covariance[-u.shape[1] :, -v.shape[1] :] = 0  # of coordinates themselves there is none
    some = min(2 * CANDIDATES, *covariance.shape)
    with seeded(0):
        left, _, _ = torch.svd_lowrank(covariance, q=some, niter=6)
    forms = []
    for vector in left.mT[:CANDIDATES]:
        products, slope = vector[: -u.shape[1]], vector[-u.shape[1] :]
        upper = torch.zeros(u.shape[1], u.shape[1])
        upper[torch.triu_indices(*upper.shape).unbind()] = products
        forms.append(_low_rank((upper + upper.mT) / 2, slope))
    return forms


def _all_products(u: Float[Tensor, "N d"]) -> Float[Tensor, "N f"]:
    """Products of two coordinates, and the coordinates, all centred."""
    i, j = torch.triu_indices(u.shape[1], u.shape[1])
    features = torch.cat([u[:, i] * u[:, j], u], 1)
    return features - features.mean(0)


def _in_turns(f: Form, u: Float[Tensor, "N dx"], v: Float[Tensor, "N dy"]) -> tuple[Form, Form]:
    """A form of u that began as f, and one of v, each of which the other correlates with most."""
    for _ in range(ROUNDS):
        g = _fitted(v, f(u))
        f = _fitted(u, g(v))
    return _beyond_chance(f, len(u)), _beyond_chance(g, len(v))


def _fitted(u: Float[Tensor, "N d"], g: Float[Tensor, " N"]) -> Form:
    """The form of u that g correlates with most, of low rank."""
    g = (g - g.mean()) / g.std().clamp(min=1e-6)
    return _low_rank((u.mT * g) @ u / len(u), u.mT @ g / len(u))


def _low_rank(matrix: Float[Tensor, "d d"], slope: Float[Tensor, " d"]) -> Form:
    values, vectors = torch.linalg.eigh(matrix)
    strongest = values.abs().topk(min(RANK, len(values))).indices
    return _spanned_by(vectors[:, strongest], values[strongest], slope)


def _spanned_by(
    vectors: Float[Tensor, "d k"], values: Float[Tensor, " k"], slope: Float[Tensor, " d"]
) -> Form:
    """A form from the eigenvectors and eigenvalues of its curvature, and its slope."""
    spanned = torch.cat([vectors, slope[:, None]], 1)
    basis, _ = torch.linalg.qr(spanned[:, spanned.any(0)])
    turned = basis.mT @ vectors
    return Form(basis, turned * values @ turned.mT, slope @ basis)


def _beyond_chance(form: Form, n: int) -> Form:
    """What is left of a form of what n samples of something independent would show as well."""
    chance = 1.5 * math.sqrt(len(form.basis) / n)
    values, vectors = torch.linalg.eigh(form.curvature)
    kept = values.abs() > max(2 * chance, values.abs().max().item() / 2)
    slope = form.slope if form.slope.norm() > chance else torch.zeros_like(form.slope)
    left = _spanned_by(vectors[:, kept], values[kept], slope)
    return left._replace(basis=form.basis @ left.basis)


def _of_deviation_1(form: Form, u: Float[Tensor, "N d"]) -> Form:
    deviation = form(u).std()
    return Form(form.basis, form.curvature / deviation, form.slope / deviation)


def _correlation(f: Float[Tensor, " N"], g: Float[Tensor, " N"]) -> float:
    f, g = f - f.mean(), g - g.mean()
    return ((f * g).mean() / (f.std() * g.std()).clamp(min=1e-6)).item()
