"""Deep InfoMax's presets, trained and probed one after the other, beside the paper's figures.

    python benchmarks/presets.py --data cifar10.npz --minutes 9   # as often as it takes

What takes longer than `--minutes` stops with a checkpoint, and the same command goes on: finished
runs are read from the results and not repeated. Each row keeps its own command, hardware and time.
"""

import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from infomax_terms import few
from known_mi import chosen, markdown
from provenance import provenance

from dim import PRESETS, TrainConfig, load_data
from dim.checkpoint import load_model, load_state, write_atomically
from dim.evaluate import (
    LAYERS,
    Battery,
    Device,
    one_line_refusals,
    probe_encoder,
    resolve_device,
)
from dim.measures import codes_of, measures_of
from dim.train import train

Row = dict[str, Any]
COLUMNS = ("MLP Y", "MLP fc", "MLP conv")  # of LAYERS
NOT_RUN = "not run"

# By importance: what is cut off last matters least.
RUNS: dict[str, TrainConfig] = {
    "paper-local-jsd": PRESETS["paper-local-jsd"],
    "paper-local-infonce": PRESETS["paper-local-infonce"],
    "su-kl": PRESETS["su-kl"],
    "su-kl, global only": replace(PRESETS["su-kl"], beta=0.0),
    "su-kl, local only": replace(PRESETS["su-kl"], alpha=0.0),
    "default": PRESETS["default"],
    "default, coordinates": replace(PRESETS["default"], delta=1.0),
    "default, occlusion": replace(PRESETS["default"], occlusion=0.4),
    "paper-global": PRESETS["paper-global"],
    "paper-local-dv": PRESETS["paper-local-dv"],
    "paper-local-global": PRESETS["paper-local-global"],
    "autoencoder": PRESETS["autoencoder"],
    "vae": PRESETS["vae"],
    "class-conditional-vae": PRESETS["class-conditional-vae"],
    "two-view": PRESETS["two-view"],
}
# Hjelm et al. 2019, Table 1, CIFAR-10: Y, fc and conv by the MLP. Those marked (v5) are of the
# preprint's last version, not checked against the paper.
PAPER = {
    "paper-local-jsd": ("66.96", "73.62", "73.25"),
    "paper-local-infonce": ("69.13", "75.57", "75.21"),
    "paper-local-dv": ("64.71 (v5)", "70.60 (v5)", "72.66 (v5)"),
    "paper-global": ("43.17", "52.84", "52.2"),
    "vae": ("54.61", "60.54", "60.71"),
    "autoencoder": ("54.47 (v5)", "55.78 (v5)", "62.19 (v5)"),
}


@dataclass(frozen=True)
class Options:
    """The presets of Deep InfoMax, trained, probed and put beside the paper's figures."""

    data: str
    """An .npz file or a name; see python -m dim.train."""
    runs: tuple[str, ...] = ()
    """Which (su-kl*); default: all."""
    seeds: tuple[int, ...] = (0,)
    """A run for each."""
    epochs: int | None = None
    """In place of each preset's own number; the table says so."""
    mlp_epochs: int = 200
    """Epochs of the paper's probe; 0 leaves it out."""
    minutes: float = 60.0
    """After which no more training is begun, and what trains is stopped at a checkpoint."""
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


def configuration(name: str, seed: int, options: Options) -> TrainConfig:
    """The configuration of a run."""
    config = replace(RUNS[name], data=options.data, seed=seed)
    if options.smoke:
        config = replace(config, head_units=8, batch_size=min(config.batch_size, 64))
    return replace(config, epochs=options.epochs or config.epochs)


def known_rows(path: Path) -> list[Row]:
    """The rows of a result file, if there is one."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def train_and_probe(name: str, seed: int, options: Options, folder: Path, made: Row) -> Row:
    """One run, from its last checkpoint on, and its probes."""
    device = resolve_device(options.device)
    config = configuration(name, seed, options)
    data = load_data(config.data, seed=seed)
    if options.smoke:
        data = few(data)
    config = replace(config, image_size=data.x_train.shape[-1])
    short = name.replace(", ", "-").replace(" ", "-")
    run = folder / Path(config.data).stem / f"{short}-{config.epochs}-{seed}"
    start = time.perf_counter()
    graph = options.graph and config.views == 1
    train(config, data, run, device=device, resume=True, graph=graph)
    trained = time.perf_counter()
    model = load_model(run).to(device)
    battery = Battery(mlp_epochs=options.mlp_epochs)
    codes = codes_of(model.encoder, data)
    rows = probe_encoder(model.encoder, "trained", data, battery, LAYERS, codes=codes)
    measures = measures_of(model, data, codes)
    state = load_state(run)
    assert state is not None
    speed = [row["images_per_second"] for row in state.history]
    return {
        "run": name,
        "seed": seed,
        "epochs": config.epochs,
        "source": Path(config.data).name,
        "data": data.name,
        "minutes": round(len(data.x_train) * config.epochs / statistics.median(speed) / 60, 2),
        "images_per_second": round(statistics.median(speed)),
        "seconds_here": round(trained - start, 1),
        "seconds_of_probes": round(time.perf_counter() - trained, 1),
        "graph": graph,
        "config": asdict(config) | {"data": Path(config.data).name},
        "probes": [asdict(row) for row in rows],
        "measures": [asdict(measure) for measure in measures],
        **made,
    }


def table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A line for each run and number of epochs: mean ± sd over its seeds, beside the paper's."""

    def cell(found: Sequence[Row], layer: str, probe: str) -> str:
        values = [
            100 * row["accuracy"][probe]
            for each in found
            for row in each["probes"]
            if row["layer"] == layer and probe in row["accuracy"]
        ]
        if not values:
            return NOT_RUN
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}"

    header = ("run", "epochs", "n", "kNN Y", "linear Y", *COLUMNS, "paper Y / fc / conv", "minutes")
    lines = []
    for name in names:
        of_name = [row for row in rows if row["run"] == name]
        paper = " / ".join(PAPER.get(name, ())) or ""
        if not of_name:
            lines.append([name, str(RUNS[name].epochs), "0", *[NOT_RUN] * 5, paper, NOT_RUN])
        for epochs in sorted({row["epochs"] for row in of_name}):
            found = [row for row in of_name if row["epochs"] == epochs]
            lines.append(
                [
                    name,
                    str(epochs),
                    str(len(found)),
                    cell(found, "z_mean", "20-NN"),
                    cell(found, "z_mean", "linear"),
                    *(cell(found, layer, "MLP") for layer in LAYERS),
                    paper,
                    f"{statistics.mean(row['minutes'] for row in found):.1f}",
                ]
            )
    return markdown(header, lines)


class TimeOver(BaseException):
    """No Exception: what writes and reads checkpoints would take it for a failure of its own."""


def stop(*_: object) -> None:
    """The time is over."""
    raise TimeOver


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, in order; save after each; print the table."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/presets.py", args=argv)
    with one_line_refusals():
        names = chosen("runs", options.runs, RUNS)
        device = resolve_device(options.device)
    temporary = Path(tempfile.mkdtemp())
    folder = temporary / "runs" if options.smoke else options.folder
    if options.smoke:
        options = replace(options, epochs=1, mlp_epochs=min(options.mlp_epochs, 1))
    here = Path(__file__).parent / "results"
    out = options.out or (temporary if options.smoke else here)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "presets.json"
    settings = asdict(options) | {"data": Path(options.data).name}
    for place in ("out", "folder"):
        del settings[place]
    command = [Path(a).name if a == options.data else a for a in argv]
    made = provenance("presets.py", command, settings, device.type)

    rows, source = known_rows(path), Path(options.data).name
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    try:
        for seed in options.seeds:
            for name in names:
                epochs = configuration(name, seed, options).epochs
                wanted = {"run": name, "seed": seed, "epochs": epochs, "source": source}
                if any(wanted.items() <= row.items() for row in rows):
                    continue
                print(f"{name}, seed {seed}, {epochs} epochs", file=sys.stderr)
                with one_line_refusals():
                    rows.append(train_and_probe(name, seed, options, folder, made))
                    write_atomically(path, lambda part: part.write_text(as_json(rows)))
    except TimeOver:
        print(f"{options.minutes:g} minutes are over; the same command goes on", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(table([row for row in rows if row["source"] == source], names))


def as_json(rows: Sequence[Row]) -> str:
    """The result file."""
    return json.dumps({"rows": rows}, indent=1, allow_nan=False) + "\n"


if __name__ == "__main__":
    main()
