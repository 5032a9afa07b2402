"""Uniformly random rotations."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def random_rotation(dim: int, generator: Generator) -> Float[Tensor, "d d"]:
    """Draw an orthogonal matrix by the Haar measure: Q of a QR whose R has a positive diagonal."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()
