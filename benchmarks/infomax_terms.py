"""Which InfoMax term makes the representation? Global only, local only and both, for both presets.

And why `su-kl` with its local term alone falls below its own untrained encoder: the same run with
one thing changed at a time. Prints a table of frozen-encoder probes on the test images and saves it
with its provenance. For small image sets; each run takes about five minutes on one core.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from provenance import provenance_of_images, results_folder
from tqdm import tqdm

from dim import PRESETS, ImageData, TrainConfig, build_model, load_data
from dim.evaluate import probe_encoder, probe_pixels
from dim.report import standard_error
from dim.train import train

Row = dict[str, Any]
UNTRAINED = "untrained"

JSD = replace(PRESETS["default"], objective="jsd", negatives="in-batch")  # what default was
# The InfoMax terms alone, and of both presets by one objective.
BASES = {"default": replace(JSD, delta=0.0), "su-kl": PRESETS["su-kl"]}
TERMS: dict[str, dict[str, Row]] = {
    "default": {
        "global only": {"alpha": 1.0, "beta": 0.0},
        "local only": {"alpha": 0.0},
        "both": {},
    },
    "su-kl": {
        "global only": {"beta": 0.0},
        "local only": {"alpha": 0.0},
        "both": {},
    },
}
# What is different about su-kl's local term, one at a time.
STUDY: dict[str, Row] = {
    "local only, all pairs": {"negatives": "in-batch"},
    "local only, dot heads": {"heads": "dot"},
    "local only, no noise on z": {"stochastic": False},
    "local only, paper's encoder": {"encoder": "basic32x32", "z_dim": 64},
    "local only, a tenth of the learning rate": {"learning_rate": 1e-4},
}


@dataclass(frozen=True)
class Options:
    """Deep InfoMax by its terms."""

    data: str
    """An .npz file, `digits` or `cifar10`; see python -m dim.train."""
    default_epochs: int = 16
    """Epochs of the `default` preset."""
    su_epochs: int = 8
    """Epochs of the `su-kl` preset."""
    study: bool = True
    """Also take su-kl's local term apart."""
    seed: int = 0
    """Of every run."""
    workers: int = 2
    """Runs side by side, one thread each."""
    out: Path | None = None
    """Folder of the results; by default benchmarks/results."""
    smoke: bool = False
    """One epoch on a few images, in a temporary folder: seconds."""


def plan(options: Options) -> list[tuple[str, str, TrainConfig]]:
    """Preset (or encoder), name and configuration of every run."""
    epochs = {"default": options.default_epochs, "su-kl": options.su_epochs}
    runs = []
    for preset, arms in TERMS.items():
        base = replace(BASES[preset], data=options.data, seed=options.seed, epochs=epochs[preset])
        runs += [(preset, name, replace(base, **change)) for name, change in arms.items()]
    if options.study:
        local = replace(base, alpha=0.0)
        runs += [("su-kl", name, replace(local, **change)) for name, change in STUDY.items()]
    shapes = {(config.encoder, config.z_dim): config for _, _, config in reversed(runs)}
    untrained = [(encoder, UNTRAINED, config) for (encoder, _), config in shapes.items()]
    return untrained + runs


def run(preset: str, name: str, config: TrainConfig, smoke: bool) -> list[Row]:
    """Train and probe one configuration."""
    torch.set_num_threads(1)
    data = load_data(config.data, seed=config.seed)
    if smoke:
        data = few(data)
    start = time.perf_counter()
    epochs = 0 if name == UNTRAINED else config.epochs
    if epochs:
        with tempfile.TemporaryDirectory() as folder:
            model = train(config, data, Path(folder) / "run", device=torch.device("cpu"))
    else:
        model = build_model(config, data.x_train.shape[-1])
    seconds = round(time.perf_counter() - start, 1)
    rows = probe_encoder(model.encoder, "trained" if epochs else "untrained", data)
    return [
        {"preset": preset, "run": name, "epochs": epochs, "seconds": seconds, **asdict(row)}
        for row in rows
    ]


def few(data: ImageData) -> ImageData:
    """The first 200 images, for the smoke test."""
    assert data.y_train is not None
    assert data.y_test is not None
    return replace(
        data,
        x_train=data.x_train[:200],
        y_train=data.y_train[:200],
        x_test=data.x_test[:100],
        y_test=data.y_test[:100],
    )


def run_all(runs: Sequence[tuple[str, str, TrainConfig]], options: Options) -> Iterator[list[Row]]:
    """The rows of every run, as they come."""
    os.environ["TQDM_DISABLE"] = "1"  # of the workers: this script has a bar of its own
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        futures = [pool.submit(run, *each, options.smoke) for each in runs]
        for future in as_completed(futures):
            yield future.result()


def table(rows: Sequence[Row], order: Sequence[tuple[str, str, TrainConfig]]) -> str:
    """Markdown: one line a run, and one for each untrained encoder and the pixels."""

    def cell(row: Row, probe: str) -> str:
        accuracy = row["accuracy"][probe]
        return f"{100 * accuracy:.1f} ± {100 * standard_error(accuracy, row['n_test']):.1f}"

    def line(name: str, epochs: str, chosen: Sequence[Row]) -> str:
        by_layer = {row["layer"]: row for row in chosen}
        z = by_layer.get("z_mean") or by_layer["pixels"]
        cells = [cell(z, probe) for probe in ("5-NN", "20-NN", "linear")]
        cells += [
            cell(by_layer[layer], "linear") if layer in by_layer else ""
            for layer in ("hidden", "conv")
        ]
        return " | ".join([f"| {name}", epochs, *cells]) + " |"

    lines = [
        "| preset, terms | epochs | z_mean 5-NN | z_mean 20-NN | z_mean linear | hidden linear "
        "| conv linear |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for preset, name, _ in order:
        mine = [row for row in rows if (row["preset"], row["run"]) == (preset, name)]
        lines.append(line(f"{preset}, {name}", str(mine[0]["epochs"]), mine))
    lines.append(line("raw pixels", "", [row for row in rows if row["layer"] == "pixels"]))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print the table, save it."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/infomax_terms.py", args=argv)
    if options.smoke:
        options = replace(options, default_epochs=1, su_epochs=1)
    runs = plan(options)
    rows: list[Row] = []
    try:
        data = load_data(options.data)
        for new in tqdm(run_all(runs, options), total=len(runs), unit="run"):
            rows += new
        data = few(data) if options.smoke else data
        rows += [
            {"preset": "", "run": "", "epochs": 0, **asdict(row)} for row in probe_pixels(data)
        ]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    text = table(rows, runs)
    print(text)
    out = results_folder(options.out, smoke=options.smoke)
    head = provenance_of_images("infomax_terms.py", argv, asdict(options), "cpu")
    order = {(preset, name): i for i, (preset, name, _) in enumerate(runs)}
    rows.sort(key=lambda row: order.get((row["preset"], row["run"]), len(order)))
    (out / "infomax_terms.json").write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
    (out / "infomax_terms.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
