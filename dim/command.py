"""What the command lines share: a run's images, the device, and how a refusal reads."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from dim.checkpoint import RunError, fingerprint, load_config, require_same_images
from dim.config import TrainConfig
from dim.data import Corrupt, DataError, ImageData, load_data

Device = Literal["auto", "cpu", "cuda"]


Run = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
Runs = tyro.conf.Positional[
    Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
]


def images_of(config: TrainConfig, source: str | None = None) -> ImageData:
    """The images of a run, or of another source as that run would have read them.

    Raises:
        DataError: If they cannot be used.
    """
    return load_data(
        source or config.data,
        image_size=config.image_size,
        seed=config.seed,
        corrupt=config.corrupt,
    )


def images_of_run(
    run: Path, source: str | None = None, *, corrupt: Corrupt | None = None
) -> ImageData:
    """The images that a run was trained and is to be tested on, or those of another source.

    Args:
        run: A run folder.
        source: What to read in place of the run's own images.
        corrupt: What to do with a damaged file; by default as in training.

    Raises:
        DataError: If they cannot be used.
        RunError: If the folder is no run, or its images changed since it was trained: some of those
            held out for testing now may have been trained on.
    """
    config = load_config(run)
    if corrupt:
        config = replace(config, corrupt=corrupt)
    data = images_of(config, source)
    if source is None:
        images = fingerprint(data.x_train)
        require_same_images(run, images, "restore them, or train on what is there now")
    return data


def resolve_device(name: Device) -> torch.device:
    """The torch device meant; auto takes CUDA where there is a device.

    Raises:
        ValueError: If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device: expected a CUDA device, received none; pass --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def one_line_refusals() -> Iterator[None]:
    """End the process with code 2 and one line where something inside cannot be done as asked.

    That says what was expected and received, comes from the system, or is the device's memory; all
    else is a bug, and keeps its traceback.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[:2])  # what follows is about torch's allocator
        print(f"error: {asked}; take smaller images or batches, or --device cpu", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        ours = isinstance(error, DataError | RunError | OSError) or ", received " in str(error)
        if not ours:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def check_same(runs: Sequence[Path], names: Collection[str], remedy: str) -> None:
    """Refuse (RunError) runs that differ in one of these options, or none at all."""
    if not runs:
        raise RunError("runs: expected at least one run folder, received none")
    first, *others = map(load_config, runs)
    for run, other in zip(runs[1:], others, strict=True):
        for name in names:
            if (received := getattr(other, name)) != (expected := getattr(first, name)):
                raise RunError(
                    f"{name}: expected {expected!r} in {run} as in {runs[0]}, received "
                    f"{received!r}; {remedy}"
                )
