"""How long a whole run takes, in a process of its own.

    python benchmarks/whole_run.py --data cifar10.npz --preset su-kl --graph

From the command to its report: training, the figure, the probes.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from provenance import provenance_of_images, results_folder

from dim.checkpoint import load_config, load_metrics
from dim.command import Device, one_line_refusals, resolve_device

NAME = "whole_run"


@dataclass(frozen=True)
class Options:
    """Time python -m dim.train, in a process of its own."""

    data: str
    """An .npz file or a name; see python -m dim.train."""
    preset: str = "su-kl"
    """Of python -m dim.train."""
    epochs: int | None = None
    """In place of the preset's own number."""
    graph: bool = False
    """Record the training step as a CUDA graph."""
    device: Device = "auto"
    """Where to compute."""
    out: Path | None = None
    """Folder of the results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """One epoch of small critics: the numbers mean nothing."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run it, save what made it."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog=f"python benchmarks/{NAME}.py", args=argv)
    more = ["--epochs", str(options.epochs)] if options.epochs else []
    more += ["--graph"] * options.graph
    more += ["--epochs", "1", "--head-units", "8"] * options.smoke
    with one_line_refusals(), tempfile.TemporaryDirectory() as folder:
        device, run = resolve_device(options.device), Path(folder) / "run"
        command = ["--preset", options.preset, "--data", options.data, "--device", device.type]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dim.train", *command, "--out", str(run), *more], check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.returncode)  # it has said why
        config, metrics = load_config(run), load_metrics(run)
    content = provenance_of_images(f"{NAME}.py", argv, asdict(options), device.type)
    content |= {
        "config": asdict(config) | {"data": Path(options.data).name},
        "seconds": round(seconds, 1),
        "images_per_second": [round(row["images_per_second"]) for row in metrics],
    }
    out = results_folder(options.out, smoke=options.smoke)
    (out / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{options.preset}, {config.epochs} epochs, figure and probes: {seconds:.1f} s")


if __name__ == "__main__":
    main()
