"""How good are the representations? Probes of a frozen encoder.

``python -m dim.evaluate RUN`` probes the encoder of a run beside the same encoder untrained and
beside raw pixels, and writes ``report.md``, ``report.html`` and ``probes.json`` into the run's
folder. Of several runs that differ in their seed it also prints mean and standard deviation.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn

from dim.checkpoint import load_config, load_model, untrained_encoder, write_atomically
from dim.command import Device, check_same, images_of_run, one_line_refusals, resolve_device
from dim.config import TrainConfig
from dim.data import ImageData
from dim.encoder import Layer, encode
from dim.measures import Codes, Measure, codes_of, measures_of, pixels_of
from dim.page import page
from dim.probes import knn_accuracies, linear_accuracy, mlp_accuracy, squared_hinge
from dim.reconstruction import reconstruction_measures

LAYERS: tuple[Layer, ...] = ("z_mean", "hidden", "conv")
PROTOCOL = (
    "Frozen encoder in eval mode, no augmentation; probes are fitted on the training images and "
    "scored on the test images. k-NN: cosine similarity, unweighted majority vote. Linear: "
    "multinomial logistic regression on standardised features; SVM: linear, squared hinge, one "
    "class against the rest; the penalty of both chosen on a fifth of the training images. MLP: "
    "200 hidden units, the paper's schedule; mean over the last 100 epochs (of fewer than 200, the "
    "second half). MLP, validated: fitted on nine tenths, the epoch chosen on the tenth. z_mean is "
    "the paper's Y, hidden its fc, z a sample of p(z|x). Pixels: scaled to [-1, 1]. ±: binomial "
    "standard error of the test accuracy."
)


@dataclass(frozen=True)
class Battery:
    """Which probes are run."""

    neighbours: tuple[int, ...] = (1, 5, 20, 200)
    """k-NN for each of these k; those above the number of training images are left out."""
    linear: bool = True
    """Logistic regression."""
    svm: bool = True
    """A linear support-vector machine."""
    mlp_epochs: int = 200
    """Epochs of the paper's probe with one hidden layer; 0 leaves it out."""

    def __post_init__(self) -> None:
        """Refuse (ValueError) what cannot be run."""
        if min(self.neighbours, default=1) < 1 or self.mlp_epochs < 0:
            raise ValueError(
                f"neighbours, mlp_epochs: expected at least 1 and 0, received {self.neighbours} "
                f"and {self.mlp_epochs}"
            )


QUICK = Battery(svm=False, mlp_epochs=0)  # what training ends with


# --- The table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeRow:
    """Test accuracies of one representation.

    Attributes:
        layer: One of `Layer`, or "pixels".
        encoder: "trained", "untrained" (the same architecture and initial weights), or "none".
        dimensions: Its size.
        accuracy: By probe: "5-NN", "linear", "SVM", "MLP", "MLP, validated".
        n_test: Test images behind each accuracy.
    """

    layer: str
    encoder: str
    dimensions: int
    accuracy: dict[str, float]
    n_test: int


def standard_error(accuracy: float, n_test: int) -> float:
    """Binomial standard error of an accuracy on n_test independent test points.

    It covers the choice of test images alone, not the choice of training images or of a seed.
    """
    return math.sqrt(accuracy * (1 - accuracy) / n_test)


def probe_table(
    encoder: nn.Module,
    untrained: nn.Module,
    data: ImageData,
    battery: Battery = QUICK,
    layers: Sequence[Layer] = LAYERS,
    *,
    codes: Codes | None = None,
) -> list[ProbeRow]:
    """Probe layers of an encoder beside the same encoder untrained and beside raw pixels.

    Probes run where the encoder is. Without labels on both parts the table is empty. Where the
    encoder's z_mean is known already, `codes` saves encoding again.
    """
    device = next(untrained.parameters()).device
    return [
        *probe_encoder(encoder, "trained", data, battery, layers, codes=codes),
        *probe_encoder(untrained, "untrained", data, battery, layers),
        *probe_pixels(data, battery, device),
    ]


def probe_encoder(
    encoder: nn.Module,
    name: str,
    data: ImageData,
    battery: Battery = QUICK,
    layers: Sequence[Layer] = LAYERS,
    *,
    codes: Codes | None = None,
) -> list[ProbeRow]:
    """Probe layers of an encoder, called `name` in the rows; `codes` are its z_mean, if known."""
    if data.y_train is None or data.y_test is None:
        return []
    rows = []
    for layer in layers:  # one by one: those of 50,000 images are not in memory together
        if codes is not None and layer == "z_mean":
            train, test = codes.train, codes.test
        else:
            train, test = (encode(encoder, images, layer) for images in (data.x_train, data.x_test))
        rows.append(_probe(layer, name, train, test, data, battery))
    return rows


def probe_pixels(
    data: ImageData, battery: Battery = QUICK, device: torch.device | None = None
) -> list[ProbeRow]:
    """Probe the images as they are, on a device, by default the CPU."""
    if data.y_train is None or data.y_test is None:
        return []
    pixels = pixels_of(data)
    train, test = pixels.train.to(device), pixels.test.to(device)
    return [_probe("pixels", "none", train, test, data, battery)]


def _probe(
    layer: str, encoder: str, train: Tensor, test: Tensor, data: ImageData, battery: Battery
) -> ProbeRow:
    """Fit on the training images, where their features are; score on the test images."""
    assert data.y_train is not None
    assert data.y_test is not None
    train_x, test_x = train.flatten(1), test.flatten(1)
    points = (train_x, data.y_train.to(train.device), test_x, data.y_test.to(train.device))
    ks = [k for k in battery.neighbours if k <= len(train)]
    accuracy: dict[str, float] = {}
    if ks:
        names = [f"{k}-NN" for k in ks]
        accuracy |= zip(names, knn_accuracies(*points, ks=ks), strict=True)
    if battery.linear:
        accuracy["linear"] = linear_accuracy(*points)
    if battery.svm:
        accuracy["SVM"] = linear_accuracy(*points, squared_hinge)
    if battery.mlp_epochs:
        of_mlp = mlp_accuracy(*points, epochs=battery.mlp_epochs)
        accuracy |= {"MLP": of_mlp.last, "MLP, validated": of_mlp.validated}
    return ProbeRow(layer, encoder, train_x.shape[1], accuracy, len(test))


def report(
    data: ImageData,
    rows: Sequence[ProbeRow],
    measures: Sequence[Measure] = (),
    *,
    figures: Sequence[str] = (),
) -> str:
    """The probe table and what it was measured on, in Markdown.

    Args:
        data: What the encoder was trained and probed on.
        rows: From `probe_table`; empty without labels.
        measures: From `measures_of`; none are shown without.
        figures: Image files, relative to the report, to show below the table.
    """
    side = data.x_train.shape[-1]
    lines = [
        f"# Deep InfoMax on {data.name}",
        "",
        f"{len(data.x_train):,} training and {len(data.x_test):,} test images of {side}×{side} "
        "pixels.",
        "",
        "## Probes",
        "",
    ]
    if rows:
        lines += ["Test accuracy in %.", "", *_table(rows, _with_error), "", PROTOCOL]
    else:
        lines.append("no labels: probes not run")
    if measures:
        lines += ["", "## The code", "", "| measure, on test images | value | |", "|---|---:|---|"]
        lines += [f"| {m.name} | {m} | {m.note} |" for m in measures]
    for figure in figures:
        lines += ["", f"![{Path(figure).stem}]({figure})"]
    return "\n".join(lines) + "\n"


def over_runs(tables: Sequence[Sequence[ProbeRow]]) -> str:
    """Mean and standard deviation of the accuracies of several runs, in Markdown."""

    def cell(row: ProbeRow, probe: str) -> str:
        found = [
            100 * other.accuracy[probe]
            for table in tables
            for other in table
            if (other.layer, other.encoder) == (row.layer, row.encoder)
        ]
        return f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}"

    heading = f"Test accuracy in %, mean ± standard deviation of {len(tables)} runs."
    return "\n".join([heading, "", *_table(tables[0], cell)])


def _table(rows: Sequence[ProbeRow], cell: Callable[[ProbeRow, str], str]) -> list[str]:
    probes = list(rows[0].accuracy)
    lines = [
        f"| representation | encoder | dimensions | {' | '.join(probes)} |",
        "|---|---|---:|" + "---:|" * len(probes),
    ]
    for row in rows:
        cells = [row.layer, row.encoder, f"{row.dimensions:,}", *(cell(row, p) for p in probes)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _with_error(row: ProbeRow, probe: str) -> str:
    accuracy = row.accuracy[probe]
    return f"{100 * accuracy:.1f} ± {100 * standard_error(accuracy, row.n_test):.1f}"


def write_report(
    run: Path,
    rows: Sequence[ProbeRow],
    data: ImageData,
    measures: Sequence[Measure] = (),
    *,
    other: str = "",
) -> str:
    """Write ``report.md``, the same as a page, and ``probes.json`` into a run's folder.

    Those of other images than the run's do not replace its own: ``report-OTHER.md``, and so on.
    The run's figures are not of them, so they are left out there.

    Returns:
        The report.
    """
    known = ("neighbours.png", "reconstructions.png", "classes.png", "curves.png")
    figures = [name for name in known if (run / name).exists() and not other]
    of_other = f"-{other}" if other else ""
    text = report(data, rows, measures, figures=figures)
    found = {
        "data": data.name,
        "protocol": PROTOCOL,
        "rows": [asdict(row) for row in rows],
        "measures": [asdict(measure) for measure in measures],
    }
    content = json.dumps(found, indent=2) + "\n"
    for name, written in (
        (f"probes{of_other}.json", content),
        (f"report{of_other}.md", text),
        (f"report{of_other}.html", page(text, run)),
    ):
        write_atomically(run / name, partial(Path.write_text, data=written, encoding="utf-8"))
    return text


# --- Command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Probe the encoders of one or several runs; print the reports."""

    runs: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
    ]
    """Folders of runs of `python -m dim.train`; several may differ in their seed alone."""
    battery: tyro.conf.OmitArgPrefixes[Battery] = Battery()
    decoder_epochs: int = 0
    """Epochs of a decoder of the frozen code, whose images are compared with the test images by
    MS-SSIM; 0 leaves it out. 20 take minutes on a CPU."""
    data: str | None = None
    """Other images than the run's, as for training; resized to the run's size. Their report is
    `report-DATA.md`, beside the run's own."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA where there is a device."""

    def __post_init__(self) -> None:
        """Refuse (ValueError) fewer epochs than none."""
        if self.decoder_epochs < 0:
            raise ValueError(f"decoder_epochs: expected at least 0, received {self.decoder_epochs}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    with one_line_refusals():
        options = tyro.cli(Options, prog="python -m dim.evaluate", args=argv)
        device = resolve_device(options.device)
        others = [field.name for field in fields(TrainConfig) if field.name != "seed"]
        check_same(options.runs, others, "evaluate the two apart")
        tables = []
        for run in options.runs:
            config = load_config(run)
            model, untrained = load_model(run).to(device), untrained_encoder(run).to(device)
            data = images_of_run(run, options.data)
            layers: tuple[Layer, ...] = ("z", *LAYERS) if config.stochastic else LAYERS
            codes = codes_of(model.encoder, data)
            measures = measures_of(model, data, codes)
            if epochs := options.decoder_epochs:
                bare = codes_of(untrained, data)
                measures += reconstruction_measures(codes, bare, data, epochs=epochs)
            rows = probe_table(model.encoder, untrained, data, options.battery, layers, codes=codes)
            tables.append(rows)
            other = Path(options.data).stem if options.data else ""
            print(write_report(run, rows, data, measures, other=other))
    if len(tables) > 1 and tables[0]:
        print(over_runs(tables))


if __name__ == "__main__":
    main()
