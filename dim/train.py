"""Train Deep InfoMax: `python -m dim.train`, one visible loop."""

import argparse
import csv
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from dim.checkpoint import (
    STATE,
    RunError,
    TrainingState,
    open_run,
    save_run,
    untrained_encoder,
    write_atomically,
)
from dim.config import PRESETS, TrainConfig
from dim.data import ImageData
from dim.decoder import draw_reconstructions
from dim.evaluate import (
    Device,
    encode,
    images_of,
    probe_table,
    resolve_device,
    write_report,
)
from dim.model import DeepInfoMax, Losses, build_model
from dim.neighbours import draw_neighbours

LOSSES = tuple(name.rstrip("_") for name in Losses._fields)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train Deep InfoMax and evaluate it: a run folder with weights, curves and a report."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig]
    out: Path | None = None
    """Run folder; by default runs/PRESET-DATA."""
    resume: bool = False
    """Continue the run in that folder, if there is one."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA where there is a device."""


def train(
    config: TrainConfig, data: ImageData, run: Path, *, device: torch.device, resume: bool = False
) -> DeepInfoMax:
    """Train a model on the images of `data`, with a checkpoint after every epoch.

    Raises:
        RunError: If the run folder cannot be used, the batch does not fit the data, or the loss is
            no longer finite.
    """
    images = data.x_train.to(device)
    labels = data.y_train.to(device) if data.y_train is not None else None
    if not 2 <= config.batch_size <= len(images):
        raise RunError(
            f"batch_size: expected 2 to {len(images)}, the number of training images, received "
            f"{config.batch_size}"
        )
    model = build_model(config, images.shape[-1], 0 if labels is None else int(labels.max()) + 1)
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, 0.999),
        eps=config.adam_eps,
    )
    generator = torch.Generator(device).manual_seed(config.seed)
    history: list[dict[str, float | int]] = []
    if state := open_run(run, config, resume=resume):
        model.load_state_dict(state.model)
        optimiser.load_state_dict(state.optimiser)
        try:
            generator.set_state(state.generator)
        except RuntimeError as error:
            raise RunError(
                f"device: the random state of {run} is not one of {device.type}, where its draws "
                f"would differ; resume it with the --device it was trained on"
            ) from error
        history = state.history

    steps = len(images) // config.batch_size
    bar = tqdm(total=config.epochs * steps, initial=len(history) * steps, unit="step")
    for epoch in range(len(history), config.epochs):
        model.train()
        bar.set_description(f"epoch {epoch + 1}/{config.epochs}")
        start, sums = time.perf_counter(), torch.zeros(len(LOSSES), device=device)
        order = torch.randperm(len(images), generator=generator, device=device)
        for step, batch in enumerate(order.split(config.batch_size)[:steps], start=1):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                losses, features = model(
                    images[batch],
                    labels[batch] if config.class_conditional and labels is not None else None,
                    generator=generator,
                )
            optimiser.zero_grad()
            (losses.total + losses.adversary).backward()
            optimiser.step()
            sums += torch.stack(losses).detach()
            bar.update()
            if step % 50 == 0 or step == steps:  # reading a loss waits for the device
                means = dict(zip(LOSSES, (sums / step).tolist(), strict=True))
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
        if not math.isfinite(means["total"]):
            bar.close()
            raise RunError(
                f"loss: expected finite numbers, received {means} in epoch {epoch + 1}; lower "
                f"--learning-rate or choose --objective jsd; {run} keeps what was before"
            )
        seconds = time.perf_counter() - start
        history.append(
            {
                "epoch": epoch + 1,
                **means,
                "z_mean_std": features.z_mean.detach().float().std(0).mean().item(),  # last batch
                "images_per_second": steps * config.batch_size / seconds,
            }
        )
        state = TrainingState(
            model.state_dict(), optimiser.state_dict(), generator.get_state(), history
        )
        save_run(run, model, state)
        write_atomically(run / "metrics.csv", lambda path: _write_metrics(history, path))
    bar.close()
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    preset = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    preset.add_argument("--preset", choices=PRESETS, default="default")
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = tyro.cli(
            Options,
            prog="python -m dim.train",
            args=argv,
            default=Options(PRESETS[preset.parse_known_args(argv)[0].preset]),
        )
        run = (
            options.out
            or Path("runs") / f"{options.config.preset}-{Path(options.config.data).stem}"
        )
        _train_and_evaluate(options, run)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        kept = (
            f"{run} keeps the last finished epoch: go on with --resume"
            if (run / STATE).exists()
            else "no epoch was finished, so nothing is kept"
        )
        print(f"\nstopped; {kept}", file=sys.stderr)
        raise SystemExit(130) from None


def _train_and_evaluate(options: Options, run: Path) -> None:
    device = resolve_device(options.device)
    config = options.config
    data = images_of(config)
    config = dataclasses.replace(config, image_size=data.x_train.shape[-1])
    model = train(config, data, run, device=device, resume=options.resume)
    encoder = model.encoder.eval()
    print("evaluating ...", file=sys.stderr)
    draw_curves(run)
    if (term := model.reconstruction_term) is not None:
        path = run / "reconstructions.png"
        draw_reconstructions(encoder, term.decoder, data.x_test, path=path)
    queries, gallery = (encode(encoder, images) for images in (data.x_test, data.x_train))
    draw_neighbours(queries, gallery, data, path=run / "neighbours.png", seed=config.seed)
    print(write_report(run, probe_table(encoder, untrained_encoder(run).to(device), data), data))
    print(f"{run}: report.md, curves.png, neighbours.png, metrics.csv, encoder.safetensors")


def draw_curves(run: Path) -> None:
    """Draw the losses of `metrics.csv` over the epochs into `curves.png`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    curves = {name: [float(row[name]) for row in rows] for name in LOSSES}
    drawn = {name: values for name, values in curves.items() if any(values)}  # others: left out
    figure = Figure(figsize=(2.9 * len(drawn), 2.8), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (name, values) in zip(panels, drawn.items(), strict=True):
        axes.plot(epochs, values, marker=".")
        axes.set(title=f"{name} loss", xlabel="epoch", ylabel="nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(run / "curves.png", dpi=120)


def _write_metrics(history: list[dict[str, float | int]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


if __name__ == "__main__":
    main()
