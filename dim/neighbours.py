"""What does the encoder find alike? Query images beside their nearest training images.

``python -m dim.neighbours RUN`` draws ``neighbours.png`` into the run's folder and report.
Of several runs ``python -m dim.neighbours RUN RUN ... --out FILE`` draws a panel each, with the
same queries: the comparison of the blog (Su 2018), whose runs are of the global term, of the local
one, and of both. ``--references`` adds raw pixels and the encoder before training.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from dim.checkpoint import (
    RunError,
    fingerprint,
    load_config,
    load_encoder,
    require_same_images,
    untrained_encoder,
    write_atomically,
)
from dim.command import Device, Runs, check_same, images_of_run, one_line_refusals, resolve_device
from dim.data import ImageData
from dim.encoder import Layer
from dim.extras import require_packages
from dim.measures import Codes, codes_of, pixels_of
from dim.page import write_page
from dim.probes import nearest

TITLES: dict[Literal["cosine", "l2"], str] = {
    "cosine": "nearest by cosine similarity",
    "l2": "nearest by Euclidean distance (L2)",
}
# Bluish green and vermilion of Okabe and Ito: told apart with any common colour vision.
WHITE, SAME, OTHER = (255, 255, 255), (0, 158, 115), (213, 94, 0)
PIXELS, UNTRAINED = "raw pixels", "untrained"  # titles of the references
NAME = 14  # letters of a class that fit into LEFT
# In pixels of the file. An image is enlarged by a whole factor, so that its own stay square.
IMAGE, FRAME, GAP = 96, 5, 3
LEFT, BETWEEN, TOP, BOTTOM = 200, 50, 50, 100
LARGEST = 2**16  # which matplotlib does not draw any more
TEXT = 560  # least width of a panel, for what is written above and below it
LETTER, LINE = 12, 30  # of the caption: width, on the safe side, and height


@dataclass(frozen=True)
class Retrieval:
    """What is looked for, and how much of it is drawn."""

    queries: int = 10
    """How many test images to draw; all, if there are fewer."""
    k: int = 9
    """Nearest training images of each; precision@k is below."""
    layer: Layer = "z_mean"
    """By which of the encoder's layers they are found; the caption names any but z_mean."""

    def check(self, data: ImageData) -> None:
        """Refuse (ValueError) numbers that cannot be drawn, before anything is encoded."""
        if self.queries < 1:
            raise ValueError(f"queries: expected at least 1, received {self.queries}; ask for one")
        if not 1 <= self.k <= len(data.x_train):
            raise ValueError(
                f"k: expected 1 to {len(data.x_train)}, the number of training images, received "
                f"{self.k}; choose one of these"
            )


OF_BLOG = Retrieval()


def draw_neighbours(
    features_test: Float[Tensor, "M d"],
    features_train: Float[Tensor, "N d"],
    data: ImageData,
    *,
    path: Path,
    retrieval: Retrieval = OF_BLOG,
    seed: int = 0,
) -> dict[str, float]:
    """Draw test images with their nearest training images, by cosine and by L2.

    Args:
        features_test: Representation of each test image.
        features_train: Representation of each training image.
        data: The images, shown with the pixels they have, and their labels if there are any.
        path: PNG to write.
        retrieval: How much is drawn, and the layer that the features are of.
        seed: Chooses the queries.

    Returns:
        Precision@k by metric, "cosine" and "l2", over *all* test images: the share of the k nearest
        training images that are of the query's class. Empty without labels.

    Raises:
        ValueError: If queries or k is less than 1, k more than there are training images, or the
            figure too large to be drawn.
    """
    retrieval.check(data)
    found = {
        title: nearest(features_test, features_train, k=retrieval.k, metric=metric)
        for metric, title in TITLES.items()
    }
    precision = _draw(found, data, "", path, retrieval, seed)
    return {metric: precision[title] for metric, title in TITLES.items() if title in precision}


def draw_side_by_side(
    codes: Mapping[str, Codes],
    data: ImageData,
    *,
    path: Path,
    retrieval: Retrieval = OF_BLOG,
    seed: int = 0,
) -> dict[str, float]:
    """Draw test images with their nearest training images by cosine, a panel a code.

    Args:
        codes: The codes of each encoder, by the title of its panel.
        data: The images, shown with the pixels they have, and their labels if there are any.
        path: PNG to write.
        retrieval: How much is drawn, and the layer that the codes are of.
        seed: Chooses the queries.

    Returns:
        Precision@k by title, as in `draw_neighbours`.

    Raises:
        ValueError: As in `draw_neighbours`.
    """
    retrieval.check(data)
    found = {title: _by_cosine(each, retrieval.k) for title, each in codes.items()}
    return _draw(found, data, " by cosine similarity", path, retrieval, seed)


def draw_runs(
    runs: Mapping[str, Path],
    data: ImageData,
    *,
    path: Path,
    references: bool = False,
    device: torch.device | str = "cpu",
    retrieval: Retrieval = OF_BLOG,
    seed: int = 0,
) -> dict[str, float]:
    """`draw_side_by_side` for the encoders of runs.

    Args:
        runs: Folders of runs, by the titles of their panels.
        data: The images, and their labels if there are any.
        path: PNG to write.
        references: Whether to begin with raw pixels and the first run's encoder before training.
        device: Where to compute.
        retrieval: What is looked for, and how much of it is drawn.
        seed: Chooses the queries.

    Returns:
        Precision@k by title, as in `draw_neighbours`.

    Raises:
        RunError: If a folder is no run or has no weights yet.
        ValueError: As in `draw_neighbours`; or if a run has the title of a reference.
    """
    retrieval.check(data)
    encoders = {title: load_encoder(run) for title, run in runs.items()}
    found = {}
    if references:
        if taken := {PIXELS, UNTRAINED} & runs.keys():
            raise ValueError(
                f"runs: expected other titles than those of the references, received "
                f"{', '.join(sorted(taken))}; rename them, or leave the references out"
            )
        found[PIXELS] = _by_cosine(pixels_of(data, device), retrieval.k)
        encoders = {UNTRAINED: untrained_encoder(next(iter(runs.values()))), **encoders}
    for title, encoder in encoders.items():  # codes of one at a time: maps of all are large
        codes = codes_of(encoder.to(device), data, retrieval.layer)
        found[title] = _by_cosine(codes, retrieval.k)
    return _draw(found, data, " by cosine similarity", path, retrieval, seed)


def _by_cosine(codes: Codes, k: int) -> Int64[Tensor, "M k"]:
    return nearest(codes.test, codes.train, k=k, metric="cosine")


def _draw(
    ranked: Mapping[str, Int64[Tensor, "M k"]],
    data: ImageData,
    how: str,
    path: Path,
    retrieval: Retrieval,
    seed: int,
) -> dict[str, float]:
    """Draw a panel of each title, by the numbers of the nearest training images."""
    require_packages("matplotlib", argument="neighbours", purpose="to draw them")
    from matplotlib.figure import Figure

    generator = torch.Generator().manual_seed(seed)
    queries = torch.randperm(len(data.x_test), generator=generator)[: retrieval.queries]
    k, layer = retrieval.k, retrieval.layer
    of_layer = "" if layer == "z_mean" else f" (layer: {layer})"
    caption = (
        f"First column: {len(queries)} random test images. Beside each: its {k} nearest "
        f"training images{how}{of_layer}."
    )
    panels: dict[str, UInt8[Tensor, "H W 3"]] = {}
    precision: dict[str, float] = {}
    for title, indices in ranked.items():
        found, same = indices.cpu(), None
        if data.y_train is not None and data.y_test is not None:
            same = data.y_train[found] == data.y_test[:, None]
            precision[title] = same.float().mean().item()
            same = same[queries]
        panels[title] = _panel(data.x_test[queries], data.x_train[found[queries]], same)

    if precision:
        caption += " Green frame: of the query's class; orange: of another."
    height, width, _ = next(iter(panels.values())).shape
    slot = max(width, TEXT)
    total_width = LEFT + len(panels) * (slot + BETWEEN)
    lines = textwrap.wrap(caption, total_width // LETTER)
    bottom = BOTTOM + LINE * (len(lines) - 1)
    total_height = TOP + height + bottom
    if max(total_width, total_height) >= LARGEST:
        raise ValueError(
            f"queries, k: expected a figure of less than {LARGEST:,} pixels a side, received "
            f"{total_width:,}×{total_height:,}; draw fewer"
        )
    figure = Figure(figsize=(total_width / 100, total_height / 100), dpi=100)
    for column, (title, panel) in enumerate(panels.items()):
        left = LEFT + column * (slot + BETWEEN) + (slot - width) // 2
        # Placed to the pixel: any resampling would blur small images.
        axes = figure.add_axes(
            (left / total_width, bottom / total_height, width / total_width, height / total_height)
        )
        axes.imshow(panel.numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=18)
        axes.set_frame_on(False)
        axes.set_xticks([])
        axes.set_yticks([])
        if title in precision:
            axes.set_xlabel(
                f"precision@{k} over all {len(data.x_test):,} test images: "
                f"{100 * precision[title]:.1f} %",
                fontsize=16,
            )
        if column == 0 and data.y_test is not None:
            row = height / len(queries)
            labels = data.y_test[queries].tolist()
            axes.set_yticks(
                [row * (i + 0.5) for i in range(len(queries))],
                [str(data.classes[label] if data.classes else label)[:NAME] for label in labels],
                fontsize=16,
            )
            axes.tick_params(left=False)
    figure.text(0.5, 0.2 * BOTTOM / total_height, "\n".join(lines), ha="center", fontsize=16)
    write_atomically(path, lambda part: figure.savefig(part, format="png"))
    return precision


def _panel(
    queries: UInt8[Tensor, "R 3 h w"],
    neighbours: UInt8[Tensor, "R K 3 h w"],
    same: Bool[Tensor, "R K"] | None,
) -> UInt8[Tensor, "H W 3"]:
    """A row a query: the query, a gap, its neighbours, framed by whether they are of its class."""
    colours = torch.tensor(WHITE, dtype=torch.uint8).expand(*neighbours.shape[:2], 3)
    if same is not None:
        agreement = torch.tensor([OTHER, SAME], dtype=torch.uint8)
        colours = agreement[same.long()]
    first = _framed(queries[:, None], torch.full_like(colours[:, :1], 255))
    gap = torch.full_like(first[:, : 4 * GAP], 255)
    return torch.cat([first, gap, _framed(neighbours, colours)], dim=1)


def _framed(
    images: UInt8[Tensor, "R C 3 h w"], colours: UInt8[Tensor, "R C 3"]
) -> UInt8[Tensor, "H W 3"]:
    """A grid of images, each in a frame of its colour."""
    rows = len(images)
    images = rearrange(images, "r c rgb h w -> (r c) rgb h w")
    if (side := images.shape[-1]) > IMAGE:
        images = F.interpolate(images, size=(IMAGE, IMAGE), mode="bicubic", antialias=True)
    else:
        images = images.repeat_interleave(IMAGE // side, -1).repeat_interleave(IMAGE // side, -2)
    side = images.shape[-1] + 2 * FRAME
    framed = rearrange(colours, "r c rgb -> (r c) rgb 1 1").repeat(1, 1, side, side)
    framed[..., FRAME:-FRAME, FRAME:-FRAME] = images
    framed = F.pad(framed, (GAP, GAP, GAP, GAP), value=255)
    return rearrange(framed, "(r c) rgb h w -> (r h) (c w) rgb", r=rows)


@dataclass(frozen=True)
class Options:
    """Draw test images of a run, or of several, beside their nearest training images."""

    runs: Runs
    """Folders of runs of `python -m dim.train`; several are drawn side by side."""
    out: Path | None = None
    """PNG to write; by default neighbours.png in the folder of the run, if it is one."""
    references: bool = False
    """Draw beside them what raw pixels find alike, and the first run's encoder before training."""
    retrieval: tyro.conf.OmitArgPrefixes[Retrieval] = OF_BLOG
    seed: int | None = None
    """Chooses the test images; by default the run's."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA where there is a device."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    with one_line_refusals():
        options = tyro.cli(Options, prog="python -m dim.neighbours", args=argv)
        runs, device = options.runs, resolve_device(options.device)
        check_same(runs, ("data", "image_size", "corrupt"), "compare runs on the same images")
        own, text = runs[0] / "neighbours.png", runs[0] / "report.md"
        path = options.out or own
        if len(runs) > 1 and options.out is None:
            raise RunError(
                f"out: expected a file for the figure of {len(runs)} runs, received none; pass "
                f"--out comparison.png"
            )
        data, retrieval = images_of_run(runs[0]), options.retrieval
        retrieval.check(data)
        if len(runs) > 1:
            images = fingerprint(data.x_train)  # of all images, so not for each run anew
            for run in runs[1:]:
                require_same_images(
                    run, images, "compare runs on the same images (--seed may hold some out)"
                )
        seed = load_config(runs[0]).seed if options.seed is None else options.seed
        if len(runs) > 1 or options.references:
            names = [run.name for run in runs]
            titles = names if len(set(names)) == len(names) else map(str, runs)
            precision = draw_runs(
                dict(zip(titles, runs, strict=True)),
                data,
                path=path,
                references=options.references,
                device=device,
                retrieval=retrieval,
                seed=seed,
            )
        else:
            code = codes_of(load_encoder(runs[0]).to(device), data, retrieval.layer)
            precision = draw_neighbours(
                code.test, code.train, data, path=path, retrieval=retrieval, seed=seed
            )
        for name, share in precision.items():
            print(f"precision@{retrieval.k}, {name}: {100 * share:.1f} %")
        print(f"written: {path}")
        if path.resolve() == own.resolve() and text.exists():
            write_page(text)  # it has the figure inside, and that of before


if __name__ == "__main__":
    main()
