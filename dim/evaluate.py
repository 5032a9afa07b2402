"""How good are the representations? Probes of a frozen encoder.

``python -m dim.evaluate RUN`` probes the encoder of a run beside the same encoder untrained and
beside raw pixels, and writes ``report.md``, ``report.html`` and ``probes.json`` into the run's
folder. Of several runs, of a few seeds each of a few configurations, it also writes one comparison,
``comparison.md``, ``.html`` and ``.json``, with mean and standard deviation over the seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from dim.checkpoint import (
    fingerprint,
    load_config,
    load_model,
    require_folder,
    untrained_encoder,
)
from dim.command import Device, Runs, check_same, images_of_run, one_line_refusals, resolve_device
from dim.comparison import Evaluated, group_names, write_comparison
from dim.data import ImageData
from dim.encoder import Layer, encode
from dim.measures import Codes, Measure, codes_of, measures_of, pixels_of
from dim.probes import knn_accuracies, linear_accuracy, mlp_accuracy, squared_hinge
from dim.reconstruction import reconstruction_measure, require_decodable
from dim.report import ProbeRow, size_of, write_report

LAYERS: tuple[Layer, ...] = ("z_mean", "hidden", "conv")


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
    data: ImageData, battery: Battery = QUICK, device: torch.device | str = "cpu"
) -> list[ProbeRow]:
    """Probe the images as they are, on a device."""
    if data.y_train is None or data.y_test is None:
        return []
    pixels = pixels_of(data, device)
    return [_probe("pixels", "none", pixels.train, pixels.test, data, battery)]


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


# --- Command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Probe the encoders of one or several runs; print the reports, and one that compares them."""

    runs: Runs
    """Folders of runs of `python -m dim.train`; several, of the same images, are compared, by their
    mean if they differ in their seed alone."""
    out: Path | None = None
    """Folder of the comparison; by default the one that the first run is in."""
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
        """Refuse (ValueError) fewer epochs than none, and a comparison of one run."""
        if self.decoder_epochs < 0:
            raise ValueError(f"decoder_epochs: expected at least 0, received {self.decoder_epochs}")
        if self.out and len(self.runs) < 2:
            raise ValueError(
                f"out: expected several runs to compare, received {len(self.runs)}; leave it out"
            )


@dataclass(frozen=True)
class Shared:
    """What several runs have in common, measured once: pixels, and encoders before training.

    Attributes:
        rows: Of probes: of pixels by their images, of an encoder by its images, all that its
            initial weights depend on, and layer.
        decoded: MS-SSIM of what is decoded from an encoder's codes, by the same but for the layer.
    """

    rows: dict[tuple[str | int, ...], list[ProbeRow]] = field(default_factory=dict)
    decoded: dict[tuple[str | int, ...], Measure] = field(default_factory=dict)


def _evaluated(
    run: Path, group: str, data: ImageData, options: Options, device: torch.device, shared: Shared
) -> Evaluated:
    """Probe a run, and measure its code."""
    config, images = load_config(run), fingerprint(data.x_train)
    model, untrained = load_model(run).to(device), untrained_encoder(run).to(device)
    before = (images, config.encoder, config.z_dim, config.seed)
    layers: tuple[Layer, ...] = ("z", *LAYERS) if config.stochastic else LAYERS
    codes = codes_of(model.encoder, data)
    measures = measures_of(model, data, codes)
    if epochs := options.decoder_epochs:
        measures.append(reconstruction_measure(codes, data, "z_mean", epochs=epochs))
        if before not in shared.decoded:
            shared.decoded[before] = reconstruction_measure(
                codes_of(untrained, data), data, "z_mean of the untrained encoder", epochs=epochs
            )
        measures.append(shared.decoded[before])
    rows = probe_encoder(model.encoder, "trained", data, options.battery, layers, codes=codes)
    for layer in layers:
        key = (*before, layer)
        if key not in shared.rows:
            shared.rows[key] = probe_encoder(untrained, "untrained", data, options.battery, [layer])
        rows += shared.rows[key]
    if (images,) not in shared.rows:
        shared.rows[images,] = probe_pixels(data, options.battery, device)
    rows += shared.rows[images,]
    return Evaluated(run, group, config, f"{data.name}: {size_of(data)}", images, rows, measures)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    with one_line_refusals():
        options = tyro.cli(Options, prog="python -m dim.evaluate", args=argv)
        device = resolve_device(options.device)
        runs, other = options.runs, Path(options.data).stem if options.data else ""
        check_same(runs, ("data", "image_size", "corrupt"), "evaluate the two apart")
        groups = group_names(runs, [load_config(run) for run in runs])
        out = options.out or runs[0].absolute().parent  # of "." the folder that it is in, too
        require_folder(out)
        for run in runs:  # before the first, which may take hours
            load_model(run)
        if options.decoder_epochs and (side := load_config(runs[0]).image_size):
            require_decodable(side)
        out.mkdir(parents=True, exist_ok=True)
        shared = Shared()
        evaluated = []
        for run, group in zip(runs, groups, strict=True):
            data = images_of_run(run, options.data)
            found = _evaluated(run, group, data, options, device, shared)
            evaluated.append(found)
            print(write_report(run, found.rows, data, found.measures, other=other))
        if len(runs) > 1:
            path = write_comparison(out, evaluated, other=other)
            print(path.read_text(encoding="utf-8"))
            print(f"written: {path}, and as .html and .json")


if __name__ == "__main__":
    main()
