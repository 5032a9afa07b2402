"""The run folder: configuration, weights and training state, written so that none is ever half."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dim.config import TrainConfig
from dim.encoder import Encoder
from dim.model import DeepInfoMax, build_model

CONFIG, WEIGHTS, STATE = "config.json", "encoder.safetensors", "training.pt"
MAY_CHANGE = {"epochs"}  # a finished run may be trained on


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


@dataclasses.dataclass
class TrainingState:
    """All that training needs to go on as if it had never stopped.

    Attributes:
        model: The model's state dict.
        optimiser: The optimiser's.
        generator: State of the source of all randomness.
        history: One row of metrics for each finished epoch.
    """

    model: dict[str, Any]
    optimiser: dict[str, Any]
    generator: torch.Tensor
    history: list[dict[str, float | int]]


def open_run(run: Path, config: TrainConfig, *, resume: bool) -> TrainingState | None:
    """Make the run folder, or read the state of the run that is in it.

    Returns:
        The last state, or None for a run that starts.

    Raises:
        RunError: If the folder holds something and `resume` is off, or a run of another
            configuration.
    """
    if run.exists() and not run.is_dir():
        raise RunError(f"out: expected a folder, received the file {run}; choose another --out")
    if not run.exists() or not any(run.iterdir()):
        run.mkdir(parents=True, exist_ok=True)
        write_atomically(
            run / CONFIG,
            lambda path: path.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n"),
        )
        return None
    if not resume:
        raise RunError(
            f"out: expected a new folder, received {run}, which is not empty; continue that run "
            f"with --resume, or choose another --out"
        )
    saved = dataclasses.asdict(load_config(run))
    for name, value in dataclasses.asdict(config).items():
        if name not in MAY_CHANGE and saved[name] != value:
            raise RunError(
                f"{name}: the run in {run} has {saved[name]!r}, received {value!r}; resume it with "
                f"its own configuration, or choose another --out"
            )
    if not (run / STATE).exists():
        return None
    try:
        return TrainingState(**torch.load(run / STATE, map_location="cpu", weights_only=True))
    except Exception as error:
        raise RunError(
            f"{run / STATE}: expected a training state, could not read it ({error}); start again "
            f"with another --out"
        ) from error


def save_run(run: Path, model: DeepInfoMax, state: TrainingState) -> None:
    """Write the encoder's weights and the training state; a crash leaves the ones before."""
    weights = {name: tensor.contiguous() for name, tensor in model.encoder.state_dict().items()}
    write_atomically(run / WEIGHTS, lambda path: save_file(weights, path))
    write_atomically(run / STATE, lambda path: torch.save(vars(state), path))


def load_config(run: Path) -> TrainConfig:
    """Read the configuration of a run.

    Raises:
        RunError: If the folder is no run, or its configuration does not fit this version.
    """
    try:
        return TrainConfig(**json.loads((run / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"run: expected the folder of a run, with a {CONFIG} of this version, received {run} "
            f"({error}); make one with python -m dim.train --out {run}"
        ) from error


def load_encoder(run: Path | str) -> Encoder:
    """The trained encoder of a run, a plain module in eval mode, on the CPU.

    Args:
        run: A run folder.

    Raises:
        RunError: If the folder is no run or has no weights yet.
    """
    run = Path(run)
    encoder = untrained_encoder(run)
    try:
        encoder.load_state_dict(load_file(run / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"run: expected weights in {run / WEIGHTS}, could not read them ({error}); let the run "
            f"finish an epoch, with python -m dim.train --resume --out {run}"
        ) from error
    return encoder


def untrained_encoder(run: Path | str) -> Encoder:
    """The encoder of a run as it was before training, rebuilt from the seed, in eval mode."""
    config = load_config(Path(run))
    if config.image_size is None:
        raise RunError(f"image_size: expected a number in {run}/{CONFIG}, received null")
    # Class means are drawn after the encoder, so leaving them out does not change it.
    plain = dataclasses.replace(config, class_conditional=False)
    return build_model(plain, config.image_size).encoder.eval()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
