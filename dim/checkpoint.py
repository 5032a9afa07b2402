"""The run folder: configuration, weights and training state, written so that none is ever half."""

import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from dim.board import BOARD
from dim.config import TrainConfig
from dim.encoder import Encoder
from dim.model import DeepInfoMax, build_model

CONFIG, WEIGHTS, STATE = "config.json", "encoder.safetensors", "training.pt"
METRICS, BAD_BATCH = "metrics.csv", "bad_batch.safetensors"
IMAGES = "images"  # in the weights' metadata


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


def open_run(run: Path, config: TrainConfig, images: str, *, resume: bool) -> TrainingState | None:
    """Make the run folder, or read the state of the run that is in it.

    Args:
        run: The folder.
        config: What is to be trained.
        images: The `fingerprint` of what it is trained on.
        resume: Whether to go on with what is there.

    Returns:
        The last state, or None for a run that starts.

    Raises:
        RunError: If the folder holds something and `resume` is off, or a run of another
            configuration, on other images, or of more epochs.
    """
    (require_folder if resume else require_new)(run)
    if not run.exists() or not _kept(run):
        run.mkdir(parents=True, exist_ok=True)
        _write_config(run, config)
        return None
    saved, state = dataclasses.asdict(load_config(run)), load_state(run)
    # A finished run may be trained on; images may move, as their fingerprint tells, labels may not.
    may_change = {"epochs", "data"} if state and not config.class_conditional else {"epochs"}
    for name, value in dataclasses.asdict(config).items():
        if name not in may_change and saved[name] != value:
            raise RunError(
                f"{name}: the run in {run} has {saved[name]!r}, received {value!r}; resume it with "
                f"its own configuration, or choose another --out"
            )
    if state is not None:
        require_same_images(run, images, "restore them, or choose another --out")
        if len(state.history) > config.epochs:
            raise RunError(
                f"epochs: the run in {run} has had {len(state.history)}, received {config.epochs}; "
                f"resume it with no fewer, or choose another --out"
            )
    if any(saved[name] != getattr(config, name) for name in may_change):
        _write_config(run, config)
    return state


def require_new(run: Path) -> None:
    """Refuse (RunError) a folder in which there is something."""
    require_folder(run)
    if run.exists() and _kept(run):
        raise RunError(
            f"out: expected a new folder, received {run}, which is not empty; continue that run "
            f"with --resume, or choose another --out"
        )


@contextmanager
def begun(run: Path) -> Iterator[None]:
    """Leave a folder in which nothing is finished when something stops it to the next run."""
    try:
        yield
    except BaseException:
        if _kept(run) == {CONFIG}:
            (run / CONFIG).unlink()
        raise


def require_same_images(run: Path, images: str, remedy: str) -> None:
    """Refuse (RunError) training images, by their `fingerprint`, that a run was not trained on."""
    try:
        with safe_open(run / WEIGHTS, "pt") as weights:
            expected = (weights.metadata() or {}).get(IMAGES)
    except (OSError, SafetensorError) as error:
        raise _without_weights(run, error) from error
    if expected != images:
        raise RunError(
            f"data: expected the training images of the run in {run}, received others, or in "
            f"another order; {remedy}"
        )


def fingerprint(images: UInt8[Tensor, "N 3 h w"]) -> str:
    """The same for the same images in the same order."""
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


def load_state(run: Path) -> TrainingState | None:
    """Read the training state of a run, or None before its first epoch is finished.

    Raises:
        RunError: If it is damaged, or holds more than numbers: nothing in it is ever executed.
    """
    if not (run / STATE).exists():
        return None
    try:
        return TrainingState(**torch.load(run / STATE, map_location="cpu", weights_only=True))
    except Exception as error:
        raise RunError(
            f"{run / STATE}: expected a training state, could not read it ({error}); start again "
            f"with another --out"
        ) from error


def save_run(run: Path, model: DeepInfoMax, state: TrainingState, images: str) -> None:
    """Write weights, metrics and training state; where there is no room, all stay as they were.

    The weights say by `fingerprint` which images they were trained on.

    The state comes last: a run that is killed between two files goes on from the state before, so
    nothing else may be older.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.encoder.state_dict().items()}
    content = save(weights, {IMAGES: images})
    # Written as bytes: on a full disk, torch.save to a path hides the reason.
    training = io.BytesIO()
    torch.save(vars(state), training)
    write_together(
        {
            run / WEIGHTS: lambda path: path.write_bytes(content),
            run / METRICS: lambda path: _write_metrics(state.history, path),
            run / STATE: lambda path: path.write_bytes(training.getbuffer()),
        }
    )


def load_metrics(run: Path) -> list[dict[str, float]]:
    """Read the metrics of a run, a row for each finished epoch; what an epoch lacks is NaN."""
    with (run / METRICS).open() as file:
        rows = csv.DictReader(file)
        return [{name: float(text or "nan") for name, text in row.items()} for row in rows]


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
            f"({error}); choose another, or make one with python -m dim.train --out FOLDER"
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
        weights = load_file(run / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _without_weights(run, error) from error
    with of_this_version(f"run: expected an encoder of this version in {run / WEIGHTS}"):
        encoder.load_state_dict(weights)
    return encoder


def load_model(run: Path | str) -> DeepInfoMax:
    """The trained model of a run with its critics and its prior, in eval mode, on the CPU.

    Raises:
        RunError: If the folder is no run, or has no training state of this version.
    """
    run = Path(run)
    config, state = load_config(run), load_state(run)
    size = _image_size(run, config)
    if state is None:
        raise RunError(
            f"run: expected a training state in {run / STATE}, received none; let the run finish "
            f"an epoch, with python -m dim.train --resume --out {run}"
        )
    means = state.model.get("prior.class_means.weight", ())
    model = build_model(config, size, len(means))
    with of_this_version(f"run: expected a model of this version in {run / STATE}"):
        model.load_state_dict(state.model)
    return model.eval()


@contextmanager
def of_this_version(expected: str, remedy: str = "train it again") -> Iterator[None]:
    """Refuse (RunError) what is loaded inside where it does not fit; `expected` says what would."""
    try:
        yield
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(f"{expected}, received another ({error}); {remedy}") from error


def untrained_encoder(run: Path | str) -> Encoder:
    """The encoder of a run as it was before training, rebuilt from the seed, in eval mode."""
    config = load_config(Path(run))
    # Class means are drawn after the encoder, so leaving them out does not change it.
    plain = dataclasses.replace(config, class_conditional=False)
    return build_model(plain, _image_size(Path(run), config)).encoder.eval()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place, whole or not at all.

    Raises:
        RunError: If the system refuses, as on a full disk; what was at `path` is still there.
    """
    write_together({path: write})


def write_together(files: Mapping[Path, Callable[[Path], Any]]) -> None:
    """`write_atomically` for several files, which take their places when all have been written.

    Raises:
        RunError: If the system refuses. On a full disk all that was there before still is; if it
            refuses one its place, those before it have theirs.
    """
    try:
        for path, write in files.items():
            write(_part(path))
            with _part(path).open("rb") as file:
                os.fsync(file.fileno())
        for path in files:
            _part(path).replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room" if full else "see to its folder"
        raise RunError(
            f"{path}: expected to write it, received: {error.strerror or error}; {remedy}, then "
            f"run this again (training with --resume); nothing that was written before is lost"
        ) from error
    finally:
        for path in files:
            _part(path).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, in UTF-8.

    Raises:
        RunError: If the system refuses.
    """
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def require_folder(path: Path) -> None:
    """Refuse (RunError) a file where there is to be a folder."""
    if path.exists() and not path.is_dir():
        raise RunError(f"out: expected a folder, received the file {path}; choose another --out")


def _image_size(run: Path, config: TrainConfig) -> int:
    if config.image_size is None:
        raise RunError(
            f"image_size: expected a number in {run / CONFIG}, received null; train it again"
        )
    return config.image_size


def _write_config(run: Path, config: TrainConfig) -> None:
    write_text(run / CONFIG, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def _without_weights(run: Path, error: Exception) -> RunError:
    if (run / STATE).exists():  # which does not come without them
        remedy = "restore them, or train again with another --out"
    else:
        remedy = f"let the run finish an epoch, with python -m dim.train --resume --out {run}"
    return RunError(
        f"run: expected weights in {run / WEIGHTS}, could not read them ({error}); {remedy}"
    )


def _kept(run: Path) -> set[str]:
    """What is in a folder, but for what a run leaves that ends before its first epoch does."""
    return {path.name for path in run.iterdir()} - {_part(run / CONFIG).name, BAD_BATCH, BOARD}


def _part(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(f".{path.name}.part")


def _write_metrics(history: list[dict[str, float | int]], path: Path) -> None:
    with path.open("w", newline="") as file:
        # Of all rows, for those of an older version may have others.
        writer = csv.DictWriter(file, dict.fromkeys(name for row in history for name in row))
        writer.writeheader()
        writer.writerows(history)
