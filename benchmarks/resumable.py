"""Runs of Deep InfoMax, one after the other, by a command that is repeated until all are there.

What takes longer than `--minutes` stops with a checkpoint, and the same command goes on: finished
runs are read from the results and not repeated. Each row keeps its own command, hardware and time.
"""

import fcntl
import hashlib
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from infomax_terms import few
from provenance import provenance_of_images

from dim import DataError, DeepInfoMax, ImageData, TrainConfig, load_data
from dim.checkpoint import STATE, RunError, load_model, load_state, write_text
from dim.command import Device, resolve_device
from dim.config import Precision
from dim.train import train

Row = dict[str, Any]
NOT_RUN = "not run"
Look = Callable[[TrainConfig, DeepInfoMax, ImageData], Row]
Chosen = TypeVar("Chosen", bound="TrainingOptions")


@dataclass(frozen=True)
class TrainingOptions:
    """What the scripts that train many models are told."""

    data: str
    """An .npz file or a name; see python -m dim.train."""
    seeds: tuple[int, ...] = (0,)
    """A run for each."""
    epochs: int | None = None
    """In place of each preset's own number; the table says so."""
    precision: Precision = "auto"
    """Of convolutions and matrix products; see python -m dim.train."""
    mlp_epochs: int = 200
    """Epochs of the paper's probe; 0 leaves it out."""
    minutes: float = 60.0
    """After which no run is begun, and what trains stops, to go on from its last checkpoint the
    next time; what is trained is still probed."""
    graph: bool = False
    """Record training steps as CUDA graphs, but for two views, which cannot be."""
    device: Device = "auto"
    """Where to compute."""
    folder: Path = Path("runs/presets")
    """Of the run folders."""
    out: Path | None = None
    """Folder of the results; by default benchmarks/results."""
    smoke: bool = False
    """One epoch of small critics on a few images, in temporary folders."""

    def __post_init__(self) -> None:
        """Refuse (ValueError) what would train for no epoch: a run that does not has a name."""
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, received {self.epochs}")


class Outcome(NamedTuple):
    """What came of runs.

    Attributes:
        rows: All that the file now has of these runs, of any seed.
        failed: Which could not be trained now, and why.
    """

    rows: list[Row]
    failed: list[str]

    def check(self) -> None:
        """Raise a RunError for what failed."""
        if self.failed:
            raise RunError("; ".join(self.failed))


class TimeOver(BaseException):
    """No Exception: what writes and reads checkpoints would take it for a failure of its own."""


def stop(*_: object) -> None:
    """The time is over."""
    raise TimeOver


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Stop what is inside at a time of `time.monotonic` (TimeOver)."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeOver
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def in_place(options: Chosen) -> tuple[Chosen, Path]:
    """The options, which a smoke test cuts short, and the folder of the results."""
    if not options.smoke:
        return options, options.out or Path(__file__).parent / "results"
    temporary = Path(tempfile.mkdtemp())
    probe = min(options.mlp_epochs, 1)
    short = replace(options, epochs=1, mlp_epochs=probe, folder=temporary / "runs")
    return short, options.out or temporary


def known_rows(path: Path) -> list[Row]:
    """The rows of a result file, if there is one."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def over_seeds(values: Sequence[float]) -> str:
    """Mean ± sd of what seeds gave, where there are several; "not run" of none."""
    if not values:
        return NOT_RUN
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def as_json(rows: Sequence[Row]) -> str:
    """The result file."""
    return json.dumps({"rows": rows}, indent=1, allow_nan=False) + "\n"


def added(path: Path, row: Row) -> list[Row]:
    """All rows of a result file with a new one, which is saved beside what others saved there."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        rows = [*known_rows(path), row]
        write_text(path, as_json(rows))
        return rows
    finally:
        os.close(folder)


def carry_out(
    runs: Mapping[str, TrainConfig],
    options: TrainingOptions,
    look: Look,
    *,
    path: Path,
    script: str,
    argv: Sequence[str],
) -> Outcome:
    """Run what is missing, in order, seed by seed; save after each.

    A row counts for a run if it is of the same configuration, but for what the run does not use,
    probed for as many epochs, on the same kind of device. A run that fails, as one whose loss is no
    longer finite, keeps no other from its turn; whatever a library or a device raises counts as a
    failure, too.

    Args:
        runs: Configurations by name; data, seed, epochs and precision are the options'.
        options: From `in_place`.
        look: What a row says of a trained model.
        path: File of the results.
        script: Name of the script, without its ending.
        argv: Its command line.

    Raises:
        ValueError: If the images cannot be had as asked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, made = known_rows(path), made_by(options, script, argv)

    def is_of(row: Row, name: str, seed: int) -> bool:
        there = row["run"], row["options"]["mlp_epochs"], row["hardware"]["gpu"]
        if there != (name, options.mlp_epochs, made["hardware"]["gpu"]):
            return False
        return not changes(row, as_told(runs[name], options, seed))

    deadline, failed = time.monotonic() + 60 * options.minutes, []
    wanted = [(name, seed) for seed in options.seeds for name in runs]
    missing = [each for each in wanted if not any(is_of(row, *each) for row in rows)]
    try:
        for name, seed in missing:
            told = as_told(runs[name], options, seed)
            print(f"{name}, seed {seed}, {told.epochs} epochs", file=sys.stderr)
            of_run = {
                "run": name,
                "seed": seed,
                "epochs": told.epochs,
                "source": Path(options.data).name,
                "precision": told.precision,
            }
            try:
                row = of_run | run(name, told, options, look, deadline) | made
                as_json([row])  # a number that JSON does not have fails here
            except DataError:  # no run can have them
                raise
            except Exception as error:
                if not isinstance(error, RunError):
                    traceback.print_exc()
                failed.append(f"{name}, seed {seed}: {error}")
                continue
            rows = added(path, row)
    except TimeOver:
        more = ""
        had_all_of_it = (name, seed) == missing[0]
        if had_all_of_it and not (folder_of(name, told, options) / STATE).exists():
            more = f", and with more --minutes: {name} has not finished an epoch"
        print(
            f"{options.minutes:g} minutes are over; the same command goes on{more}", file=sys.stderr
        )
    else:
        print(f"{path}: {len(wanted) - len(failed)} of {len(wanted)} runs", file=sys.stderr)
    found = [row for row in rows if any(is_of(row, name, row["seed"]) for name in runs)]
    return Outcome(found, failed)


def unused(config: TrainConfig) -> set[str]:
    """The options that change nothing: those of InfoMax terms, where none is trained."""
    trained = config.epochs and (config.alpha or config.beta or config.kappa)
    return set() if trained else {"objective", "negatives"}


def changes(row: Row, config: TrainConfig) -> Row:
    """What of a row's configuration is not as in this one, and what it is there.

    An option that is younger than the row has its default.
    """
    expected = recorded(config, row["config"]["image_size"])
    there, of_no_use = asdict(TrainConfig()) | row["config"], unused(config)
    return {
        name: there.get(name)
        for name in expected | there
        if name not in of_no_use and there.get(name) != expected.get(name)
    }


def recorded(config: TrainConfig, image_size: int | None) -> Row:
    """A configuration as a row has it."""
    return asdict(config) | {"data": Path(config.data).name, "image_size": image_size}


def made_by(options: TrainingOptions, script: str, argv: Sequence[str]) -> Row:
    """What made a result."""
    device = resolve_device(options.device).type
    return provenance_of_images(f"{script}.py", argv, asdict(options), device)


def as_told(config: TrainConfig, options: TrainingOptions, seed: int) -> TrainConfig:
    """The configuration with what the options say of it."""
    if options.smoke:
        config = replace(config, head_units=8, batch_size=min(config.batch_size, 64))
    return replace(
        config,
        data=options.data,
        seed=seed,
        epochs=config.epochs and (options.epochs or config.epochs),  # 0: untrained
        precision=options.precision,
    )


def folder_of(name: str, config: TrainConfig, options: TrainingOptions) -> Path:
    """Where a run is."""
    short = name.replace(", ", "-").replace(" ", "-")
    of_run = f"{short}-{config.epochs}-{config.precision}-{config.seed}"
    # A preset that has changed since begins anew, and does not stumble over its folder.
    told = json.dumps(recorded(config, None), sort_keys=True).encode()
    digest = hashlib.sha256(told).hexdigest()[:8]
    return options.folder / Path(config.data).stem / f"{of_run}-{digest}"


def images(options: TrainingOptions, seed: int) -> ImageData:
    """The images of a run; few, for a smoke test."""
    data = load_data(options.data, seed=seed)
    return few(data) if options.smoke else data


def run(
    name: str, config: TrainConfig, options: TrainingOptions, look: Look, deadline: float
) -> Row:
    """One run, from its last checkpoint on, and what there is to see of it."""
    device, data = resolve_device(options.device), images(options, config.seed)
    folder = folder_of(name, config, options)
    start = time.perf_counter()
    graph = options.graph and config.views == 1
    with until(deadline):
        train(config, data, folder, device=device, resume=True, graph=graph)
    trained = time.perf_counter()
    seen = look(config, load_model(folder).to(device), data)
    state = load_state(folder)
    assert state is not None
    speeds = [row["images_per_second"] for row in state.history]
    speed = statistics.median(speeds) if speeds else math.inf
    seen_in_epoch = len(data.x_train) // config.batch_size * config.batch_size
    return {
        "data": data.name,
        "minutes": round(config.epochs * seen_in_epoch / speed / 60, 2),
        "images_per_second": round(speed) if speeds else None,
        "seconds_of_epochs": round(sum(seen_in_epoch / each for each in speeds), 1),  # all sittings
        "seconds_here": round(trained - start, 1),
        "seconds_of_probes": round(time.perf_counter() - trained, 1),
        "graph": graph,
        "config": recorded(config, data.x_train.shape[-1]),
        **seen,
    }
