"""Figures of a run: its curves, and what its decoder makes of codes."""

import math
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from dim.checkpoint import load_metrics, write_atomically
from dim.decoder import Decoder
from dim.encoder import Encoder
from dim.health import PERCENTILES
from dim.model import LOSSES
from dim.terms import TERMS
from mi_estimators.estimator import evaluating

SHOWN = 10  # images in a row of the figure
DRAWN = 4  # images of each class, beside that of its mean


def draw_curves(run: Path) -> None:
    """Draw the losses of `metrics.csv` over the epochs, and the scores, into `curves.png`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = load_metrics(run)
    numbers = {name: [row[name] for row in rows] for name in rows[-1]}
    epochs = numbers["epoch"]
    losses = [name for name in LOSSES if any(v > 0 or v < 0 for v in numbers[name])]  # not 0 or NaN
    terms = [name for name in TERMS if f"{name}_negative_p50" in numbers]
    count = len(losses) + len(terms)
    columns = min(count, 4)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(2.9 * columns, 2.8 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.remove()
    panels = panels[:count]
    for axes, name in zip(panels, losses, strict=False):
        axes.plot(epochs, numbers[name], marker=".")
        axes.set(title=f"{name} loss", ylabel="nats")
    for axes, name in zip(panels[len(losses) :], terms, strict=True):
        for kind, colour in (("positive", "tab:blue"), ("negative", "tab:orange")):
            low, *_, high = (numbers[f"{name}_{kind}_p{percent:02}"] for percent in PERCENTILES)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.25, label=f"{kind}, 5-95 %")
            axes.plot(epochs, numbers[f"{name}_{kind}_p50"], color=colour, marker=".")
        axes.set(title=f"{name} scores")
        axes.legend(fontsize=7)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    write_atomically(run / "curves.png", lambda part: figure.savefig(part, dpi=120, format="png"))


@torch.no_grad()
def draw_reconstructions(
    encoder: Encoder, decoder: Decoder, images: UInt8[Tensor, "N 3 h w"], *, path: Path
) -> None:
    """Draw images above what the decoder makes of the mean of their codes.

    Args:
        encoder: Images to codes.
        decoder: Codes to images.
        images: The first ten are drawn; best some that training never saw.
        path: PNG to write.
    """
    shown = images[:SHOWN]
    device = next(encoder.parameters()).device
    with evaluating(encoder), evaluating(decoder):
        again = decoder(encoder(shown.to(device)).z_mean).float().cpu()
    _save(torch.stack([shown.cpu(), _as_bytes(again)]), path)


@torch.no_grad()
def draw_classes(decoder: Decoder, means: Float[Tensor, "C d"], *, path: Path) -> None:
    """Draw a column a class: the decoder's image of its mean, then of draws of its prior.

    Args:
        decoder: Codes to images.
        means: Of the priors N(mean, 1) of the classes.
        path: PNG to write.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(DRAWN, *means.shape, generator=generator).to(means)
    codes = torch.cat([means[None], means + noise])
    with evaluating(decoder):
        images = decoder(codes.flatten(0, 1)).float().cpu()
    _save(_as_bytes(images).unflatten(0, codes.shape[:2]), path)


def _as_bytes(images: Float[Tensor, "N 3 h w"]) -> UInt8[Tensor, "N 3 h w"]:
    """Images in [-1, 1] as bytes."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _save(images: UInt8[Tensor, "r n 3 h w"], path: Path) -> None:
    """Rows of images as one PNG, three times their size."""
    from PIL import Image

    grid = rearrange(images, "r n c h w -> (r h) (n w) c")
    enlarged = Image.fromarray(grid.repeat_interleave(3, 0).repeat_interleave(3, 1).numpy())
    write_atomically(path, lambda part: enlarged.save(part, format="png"))
