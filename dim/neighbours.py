"""What does the encoder find alike? Query images beside their nearest training images.

``python -m dim.neighbours RUN`` draws ``neighbours.png`` into the run's folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dim.checkpoint import load_config, load_encoder, write_atomically
from dim.data import ImageData
from dim.encoder import encode
from dim.evaluate import RunOptions, images_of, one_line_refusals, resolve_device
from dim.probes import nearest

QUERIES = 10
NEIGHBOURS = 9
TITLES: dict[Literal["cosine", "l2"], str] = {
    "cosine": "nearest by cosine similarity",
    "l2": "nearest by Euclidean distance (L2)",
}
# Bluish green and vermilion of Okabe and Ito: told apart with any common colour vision.
WHITE, SAME, OTHER = (255, 255, 255), (0, 158, 115), (213, 94, 0)
# In pixels of the file. An image is enlarged by a whole factor, so that its own stay square.
IMAGE, FRAME, GAP = 96, 5, 3
LEFT, BETWEEN, TOP, BOTTOM = 130, 50, 50, 100


def draw_neighbours(
    features_test: Float[Tensor, "M d"],
    features_train: Float[Tensor, "N d"],
    data: ImageData,
    *,
    path: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Draw ten test images with their nine nearest training images, by cosine and by L2.

    Args:
        features_test: Representation of each test image.
        features_train: Representation of each training image.
        data: The images, shown with the pixels they have, and their labels if there are any.
        path: PNG to write.
        seed: Chooses the ten queries.

    Returns:
        Precision@9 by metric, "cosine" and "l2", over *all* test images: the share of the nine
        nearest training images that are of the query's class. Empty without labels.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "drawing neighbours needs matplotlib: pip install 'mi-estimators[dim]'"
        ) from error

    generator = torch.Generator().manual_seed(seed)
    queries = torch.randperm(len(data.x_test), generator=generator)[:QUERIES]
    caption = (
        f"First column: {len(queries)} random test images. Beside each: its {NEIGHBOURS} nearest "
        "training images."
    )
    panels: dict[str, UInt8[Tensor, "H W 3"]] = {}
    precision: dict[str, float] = {}
    for metric in TITLES:
        found = nearest(features_test, features_train, k=NEIGHBOURS, metric=metric).cpu()
        same = None
        if data.y_train is not None and data.y_test is not None:
            same = data.y_train[found] == data.y_test[:, None]
            precision[metric] = same.float().mean().item()
            same = same[queries]
        panels[metric] = _panel(data.x_test[queries], data.x_train[found[queries]], same)

    height, width, _ = panels["cosine"].shape
    total_width, total_height = LEFT + 2 * (width + BETWEEN), TOP + height + BOTTOM
    figure = Figure(figsize=(total_width / 100, total_height / 100), dpi=100)
    for column, (metric, title) in enumerate(TITLES.items()):
        left = LEFT + column * (width + BETWEEN)
        # Placed to the pixel: any resampling would blur small images.
        axes = figure.add_axes(
            (left / total_width, BOTTOM / total_height, width / total_width, height / total_height)
        )
        axes.imshow(panels[metric].numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=18)
        axes.set_frame_on(False)
        axes.set_xticks([])
        axes.set_yticks([])
        if metric in precision:
            axes.set_xlabel(
                f"precision@{NEIGHBOURS} over all {len(data.x_test):,} test images: "
                f"{100 * precision[metric]:.1f} %",
                fontsize=16,
            )
        if column == 0 and data.y_test is not None:
            row = height / len(queries)
            labels = data.y_test[queries].tolist()
            axes.set_yticks(
                [row * (i + 0.5) for i in range(len(queries))],
                [str(data.classes[label] if data.classes else label)[:11] for label in labels],
                fontsize=16,
            )
            axes.tick_params(left=False)
    if precision:
        caption += " Green frame: of the query's class; orange: of another."
    figure.text(0.5, 0.2 * BOTTOM / total_height, caption, ha="center", fontsize=16)
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


def main(argv: Sequence[str] | None = None) -> None:
    """Draw test images of a run beside their nearest training images, by z_mean."""
    options = tyro.cli(
        RunOptions, prog="python -m dim.neighbours", description=main.__doc__, args=argv
    )
    with one_line_refusals():
        device = resolve_device(options.device)
        config = load_config(options.run)
        encoder = load_encoder(options.run).to(device)
        data = images_of(config)
    path = options.run / "neighbours.png"
    precision = draw_neighbours(
        encode(encoder, data.x_test),
        encode(encoder, data.x_train),
        data,
        path=path,
        seed=config.seed,
    )
    for metric, share in precision.items():
        print(f"precision@{NEIGHBOURS}, {metric}: {100 * share:.1f} %")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
