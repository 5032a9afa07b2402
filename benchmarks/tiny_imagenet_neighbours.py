"""Nearest neighbours on Tiny ImageNet, the blog's figure, for a model of a few minutes.

    OMP_NUM_THREADS=1 python benchmarks/tiny_imagenet_neighbours.py --data tiny-imagenet-200

Trains the `default` preset and draws test images beside their nearest training images, by the
encoder as it was before training and as it is after; precision@9 over all test images is below.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from infomax_terms import few
from provenance import provenance_of_images, results_folder

from dim import PRESETS, load_data
from dim.checkpoint import untrained_encoder
from dim.command import one_line_refusals
from dim.measures import codes_of
from dim.neighbours import draw_side_by_side
from dim.train import train

NAME = "tiny_imagenet_neighbours"


@dataclass(frozen=True)
class Options:
    """What a few minutes of Deep InfoMax on Tiny ImageNet find alike."""

    data: str
    """Folder of Tiny ImageNet or of some of its classes; see python -m dim.train."""
    image_size: int = 32
    """Side to which the images are resized."""
    epochs: int = 4
    """Passes over the training images."""
    delta: float = PRESETS["default"].delta
    """Weight of the coordinate task; 0 leaves it out."""
    seed: int = 0
    """Of the training and of the ten queries."""
    out: Path | None = None
    """Folder of the results; by default benchmarks/results."""
    smoke: bool = False
    """One epoch of small critics on a few images, in a temporary folder."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train, draw, save what made it."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog=f"python benchmarks/{NAME}.py", args=argv)
    config = replace(
        PRESETS["default"],
        data=options.data,
        image_size=options.image_size,
        epochs=options.epochs,
        delta=options.delta,
        seed=options.seed,
    )
    with one_line_refusals(), tempfile.TemporaryDirectory() as folder:
        data = load_data(options.data, image_size=options.image_size, seed=options.seed)
        if options.smoke:
            data, config = few(data), replace(config, epochs=1, head_units=8)
        start, cpu = time.perf_counter(), time.process_time()
        run = Path(folder) / "run"
        model = train(config, data, run, device=torch.device("cpu"))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        after = f"after {config.epochs} epochs"
        encoders = {"untrained": untrained_encoder(run), after: model.encoder}
        codes = {title: codes_of(encoder, data) for title, encoder in encoders.items()}
    out = results_folder(options.out, smoke=options.smoke)
    precision = draw_side_by_side(codes, data, path=out / f"{NAME}.png", seed=options.seed)
    content = provenance_of_images(f"{NAME}.py", argv, asdict(options), "cpu")
    content |= {
        "data": data.name,
        "images": {"train": len(data.x_train), "test": len(data.x_test)},
        "classes": len(data.classes or ()),
        "config": asdict(config) | {"data": Path(options.data).name},
        "threads": torch.get_num_threads(),
        "seconds_of_training": round(seconds, 1),
        "cpu_seconds_of_training": round(cpu_seconds, 1),
        "precision_at_9": precision,
    }
    (out / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n")
    for title, share in precision.items():
        print(f"precision@9, {title}: {100 * share:.1f} %")
    print(f"results in {out}")


if __name__ == "__main__":
    main()
