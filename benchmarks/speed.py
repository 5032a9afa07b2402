"""How fast `paper-local-jsd` trains, and how soon it is accurate, beside a plain port of it.

The port is what most are: a DataLoader that prepares images one by one, float32, kernels started
one after the other, each loss read at each step, numbers below 1e-38 multiplied as they come.
Modules, first weights, batch size and losses are the same, so that only the speed differs. Variants
take turns, and ratios are within a turn.

    python benchmarks/speed.py --data cifar10.npz               # images per second
    python benchmarks/speed.py --data cifar10.npz --epochs 20   # and accuracy against seconds
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from infomax_terms import few
from jaxtyping import Float, UInt8
from known_mi import markdown
from provenance import provenance_of_images, results_folder
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, Dataset

from dim import PRESETS, ImageData, TrainConfig, build_model, load_data
from dim.command import Device, one_line_refusals, resolve_device
from dim.encoder import Encoder, encode
from dim.prior import AdversarialPrior
from dim.probes import knn_accuracies
from dim.train import Training, computes_in_bfloat16, flushing_denormals
from mi_estimators import Separable

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Speed of training, beside a plain port."""

    data: str
    """An .npz file or a name; see python -m dim.train."""
    rounds: int = 5
    """Turns of each variant."""
    steps: int = 50
    """Steps in a turn."""
    epochs: int = 0
    """Also train each variant from scratch for so many, with nearest neighbours after each."""
    compile: bool = False
    """Also let torch.compile make the model's kernels; takes minutes before the first step."""
    device: Device = "auto"
    """Where to compute."""
    out: Path | None = None
    """Folder of the results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """A step of small critics on a few images: the numbers mean nothing."""


class Variant(Protocol):
    """A way to train.

    Attributes:
        encoder: What is trained.
        steps: Batches in an epoch.
    """

    encoder: Encoder
    steps: int

    def advance(self, steps: int) -> None:
        """Take so many steps."""


class Prepared(Dataset[Tensor]):
    """Images one by one, as floats in [-1, 1]."""

    def __init__(self, images: UInt8[Tensor, "N 3 h w"]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Float[Tensor, "3 h w"]:
        return (self.images[index].float() / 255 - 0.5) / 0.5


class Port:
    """The recipe, written down as it is read."""

    def __init__(self, config: TrainConfig, data: ImageData, device: torch.device) -> None:
        model = build_model(config, data.x_train.shape[-1]).to(device).train()
        assert model.local_term is not None
        assert isinstance(model.prior, AdversarialPrior)
        critic = model.local_term.estimator.critic
        assert isinstance(critic, Separable)
        self.encoder, self.critic = model.encoder, critic
        self.discriminator = model.prior.discriminator
        self.gamma, self.device = config.gamma, device
        self.optimiser, self.adversary = (
            torch.optim.Adam(
                chain.from_iterable(part.parameters() for part in parts),
                lr=config.learning_rate,
                betas=(config.adam_beta1, 0.999),
            )
            for parts in ((self.encoder, self.critic), (self.discriminator,))
        )
        workers = 4 if device.type == "cuda" else 0
        loader = DataLoader(
            Prepared(data.x_train),
            config.batch_size,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
            generator=torch.Generator().manual_seed(config.seed),
        )
        self.noise = torch.Generator(device).manual_seed(config.seed)
        self.steps = len(loader)
        self.batches: Iterator[Tensor] = chain.from_iterable(repeat(loader))

    def advance(self, steps: int) -> None:
        """Take so many steps."""
        for _ in range(steps):
            self.step(next(self.batches).to(self.device))

    def step(self, images: Float[Tensor, "N 3 h w"]) -> float:
        """Learn from a batch; the local loss."""
        feature_map = self.encoder.local(images)
        z = self.encoder.z_mean(self.encoder.rest(self.encoder.conv(feature_map)))
        of_code = self.critic.f(z)
        of_locations = self.critic.g(rearrange(feature_map, "n c h w -> n (h w) c"))
        scores = torch.einsum("ie,jle->ijl", of_code, of_locations)
        own = torch.eye(len(images), dtype=torch.bool, device=images.device)
        joint = math.log(2) - softplus(-scores[own])
        product = softplus(scores[~own]) - math.log(2)
        local = product.mean() - joint.mean()

        logits = self.discriminator(z.sigmoid())
        fooled = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        self.optimiser.zero_grad()
        (local + self.gamma * fooled).backward()
        self.optimiser.step()

        uniform = torch.rand(z.shape, generator=self.noise, device=z.device)
        real = self.discriminator(uniform)
        fake = self.discriminator(z.detach().sigmoid())
        told = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        told = told + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self.adversary.zero_grad()
        told.backward()
        self.adversary.step()
        return local.item()


class Ours:
    """`dim.train`'s own step, eager, replayed, or of a compiled model."""

    def __init__(
        self,
        config: TrainConfig,
        data: ImageData,
        device: torch.device,
        *,
        graph: bool = False,
        compiled: bool = False,
    ) -> None:
        self.training = Training(config, data, device)
        if compiled:
            self.training.shared.compile()
        self.encoder, self.steps = self.training.model.encoder, self.training.steps
        self.step: Callable[[Tensor], object] = self.training.step
        if graph:
            self.step = self.training.recorded_step()
        self.batches = self._batches()

    def _batches(self) -> Iterator[Tensor]:
        while True:
            yield from self.training.batches()

    def advance(self, steps: int) -> None:
        """Take so many steps."""
        with flushing_denormals():
            for _ in range(steps):
                self.step(next(self.batches))


def variants(
    config: TrainConfig, data: ImageData, device: torch.device, *, compiled: bool
) -> dict[str, Variant]:
    """Each of them, not yet trained."""
    made: dict[str, Variant] = {
        "port": Port(config, data, device),
        "eager": Ours(config, data, device),
    }
    if device.type == "cuda":  # where all but the port is bfloat16 as it is
        made["graph"] = Ours(config, data, device, graph=True)
    elif computes_in_bfloat16(device):
        config = replace(config, precision="bfloat16")
        made["eager, bfloat16"] = Ours(config, data, device)
    if compiled:
        made["compiled"] = Ours(config, data, device, compiled=True)
    return made


def seconds_of(variant: Variant, steps: int, device: torch.device) -> float:
    """How long so many steps take, until the device is done with them."""
    start = time.perf_counter()
    variant.advance(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(config: TrainConfig, data: ImageData, options: Options, device: torch.device) -> Row:
    """Images per second of each variant, turn by turn."""
    made = variants(config, data, device, compiled=options.compile)
    for variant in made.values():
        seconds_of(variant, min(5, options.steps), device)  # libraries choose their kernels
    speeds: Row = {name: [] for name in made}
    for _ in range(options.rounds):
        for name, variant in made.items():
            seconds = seconds_of(variant, options.steps, device)
            speeds[name].append(options.steps * config.batch_size / seconds)
    return speeds


def curve(variant: Variant, data: ImageData, epochs: int, device: torch.device) -> list[Row]:
    """Accuracy of 20 neighbours on z_mean after each epoch, and the seconds of training so far."""
    assert data.y_train is not None
    assert data.y_test is not None
    seconds, rows = 0.0, []
    train_y, test_y = data.y_train.to(device), data.y_test.to(device)
    for epoch in range(1, epochs + 1):
        seconds += seconds_of(variant, variant.steps, device)
        train_x, test_x = (encode(variant.encoder, x) for x in (data.x_train, data.x_test))
        (accuracy,) = knn_accuracies(train_x, train_y, test_x, test_y, ks=[20])
        rows.append({"epoch": epoch, "seconds": round(seconds, 2), "accuracy": accuracy})
    return rows


def table(speeds: Row) -> str:
    """A line for each variant."""
    lines = []
    for name, found in speeds.items():
        ratios = [ours / port for ours, port in zip(found, speeds["port"], strict=True)]
        lines.append(
            [
                name,
                f"{statistics.median(found):,.0f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    return markdown(("variant", "images / s", "times the port's"), lines)


def draw(curves: dict[str, list[Row]], path: Path) -> None:
    """Accuracy against seconds of training."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, rows in curves.items():
        points = [[row[key] for row in rows] for key in ("seconds", "accuracy")]
        axes.plot(*points, marker=".", label=name)
    axes.set(xlabel="seconds of training", ylabel="test accuracy, 20 nearest neighbours on z_mean")
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure; print the table, save JSON and, with --epochs, the figure."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/speed.py", args=argv)
    if options.smoke:
        options = replace(options, rounds=2, steps=1, epochs=min(options.epochs, 1))
    config = replace(PRESETS["paper-local-jsd"], data=options.data)
    with one_line_refusals():
        for name in ("rounds", "steps"):
            if getattr(options, name) < 1:
                raise ValueError(
                    f"--{name}: expected at least 1, received {getattr(options, name)}"
                )
        device = resolve_device(options.device)
        data = load_data(config.data, seed=config.seed)
        if options.epochs and data.y_train is None:
            raise ValueError("--epochs: expected labelled images, received none; leave it out")
    if options.smoke:
        data, config = few(data), replace(config, head_units=8)
    out = results_folder(options.out, smoke=options.smoke)

    speeds = measure(config, data, options, device)
    print(table(speeds))
    curves: dict[str, list[Row]] = {}
    if options.epochs:
        made = variants(config, data, device, compiled=False)  # which would count its compilation
        for name, variant in made.items():
            curves[name] = curve(variant, data, options.epochs, device)
            last = curves[name][-1]
            print(f"{name}: {last['accuracy']:.1%} after {last['seconds']:,.0f} s")
        draw(curves, out / "speed.png")
    content = provenance_of_images("speed.py", argv, asdict(options), device.type)
    content |= {"threads": torch.get_num_threads(), "data": data.name}
    content |= {"images_per_second": speeds, "curves": curves}
    (out / "speed.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(f"JSON is in {out}")


if __name__ == "__main__":
    main()
