"""Train Deep InfoMax: `python -m dim.train`, one visible loop."""

import argparse
import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import tyro
from jaxtyping import Float, Int64
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from dim.board import board, require_tensorboard
from dim.capture import capture
from dim.checkpoint import (
    BAD_BATCH,
    CONFIG,
    STATE,
    RunError,
    TrainingState,
    begun,
    fingerprint,
    load_config,
    load_state,
    of_this_version,
    open_run,
    require_new,
    save_run,
    untrained_encoder,
    write_atomically,
)
from dim.command import Device, images_of, one_line_refusals, resolve_device
from dim.config import PRESETS, TrainConfig
from dim.data import ImageData
from dim.encoder import Features
from dim.evaluate import probe_table, write_report
from dim.figures import draw_classes, draw_curves, draw_reconstructions
from dim.health import alarms, health_line, measure
from dim.measures import codes_of
from dim.model import LOSSES, DeepInfoMax, Losses, build_model
from dim.neighbours import draw_neighbours
from dim.parallel import in_turn, joined, processes, rank, require_alike, shared
from dim.views import augmentation, two_views

LOG_EVERY = 50  # steps
NARROW = ("NO AVX", "AVX2")  # x86 CPUs without AVX-512, as torch calls them
SAVING = 0.05  # share of the time, at most, that goes into checkpoints


@dataclasses.dataclass(frozen=True)
class Options:
    """Train Deep InfoMax and evaluate it: a run folder with weights, curves and a report."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig]
    out: Path | None = None
    """Run folder; by default runs/PRESET-DATA."""
    resume: bool = False
    """Continue the run in that folder, if there is one, by its own configuration: of options that
    make one, --epochs may change, and --data where images have moved. A finished run keeps its
    report."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA where there is a device."""
    graph: bool = False
    """On CUDA, record the training step as a graph and replay it: for small batches."""
    tensorboard: bool = False
    """Write what metrics.csv holds for TensorBoard, too, into the run's folder `tensorboard`."""


class Training:
    """A model, what moves it and what it draws from; the same configuration takes the same steps.

    Attributes:
        model: What is trained.
        steps: Batches in an epoch.
        taken: Steps so far, which decide the two views of the next; a graph does not count its own.

    Raises:
        RunError: If the batch does not fit the data.
        ValueError: If the model does not fit it (`build_model`).
        ModuleNotFoundError: If there are to be two views, and kornia is absent.
    """

    def __init__(self, config: TrainConfig, data: ImageData, device: torch.device) -> None:
        self.images = data.x_train.to(device)
        self.labels = data.y_train.to(device) if data.y_train is not None else None
        if not 2 <= config.batch_size <= len(self.images):
            raise RunError(
                f"batch_size: expected 2 to {len(self.images)}, the number of training images, "
                f"received {config.batch_size}"
            )
        if config.batch_size % processes():
            raise RunError(
                f"batch_size: expected a multiple of {processes()}, the number of processes, "
                f"received {config.batch_size}"
            )
        classes = 0 if self.labels is None else int(self.labels.max()) + 1
        if not config.class_conditional:
            self.labels = None  # nothing else may see them
        self.model = build_model(config, self.images.shape[-1], classes).to(device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shared = shared(self.model)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, 0.999),
            eps=config.adam_eps,
            fused=True,
            capturable=device.type == "cuda",
        )
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.batch_size = config.batch_size
        self.steps = len(self.images) // config.batch_size
        self.augment = augmentation(self.images.shape[-1]) if config.views == 2 else None
        able = computes_in_bfloat16(device)
        self.bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and device.type == "cuda" and able
        )
        if self.bfloat16 and not able:
            warnings.warn(
                f"precision: this {'CPU' if device.type == 'cpu' else 'GPU'} only imitates "
                f"bfloat16, many times slower; expected float32 or auto",
                stacklevel=2,
            )
        self.seed, self.taken = config.seed, 0

    def restore(self, state: TrainingState) -> None:
        """Go on from a state.

        Raises:
            RunError: If it is of another version, or from another kind of device.
        """
        with of_this_version(
            "resume: expected the state of a model of this version",
            "train it again with another --out",
        ):
            self.model.load_state_dict(state.model)
            self.optimiser.load_state_dict(state.optimiser)
        self.taken = len(state.history) * self.steps
        try:
            self.generator.set_state(state.generator)
        except RuntimeError as error:
            raise RunError(
                f"device: the random state of the run is not one of {self.images.device.type}, "
                f"where its draws would differ; resume it with the --device it was trained on"
            ) from error

    def state(self, history: list[dict[str, float | int]]) -> TrainingState:
        """All that `restore` needs, and the metrics so far."""
        return TrainingState(
            self.model.state_dict(),
            self.optimiser.state_dict(),
            self.generator.get_state(),
            history,
        )

    def batches(self) -> Sequence[Int64[Tensor, " B"]]:
        """An epoch of batches in random order, by the numbers of their images."""
        order = torch.randperm(
            len(self.images), generator=self.generator, device=self.images.device
        )
        return order.split(self.batch_size)[: self.steps]

    def views(self, batch: Int64[Tensor, " B"]) -> tuple[Tensor, Tensor | None]:
        """A batch's images and None, or what the next step sees of them: two views.

        Several processes make the same ones.
        """
        images = self.images[batch]
        if self.augment is None:
            return images, None
        return two_views(images, self.augment, seed=(self.seed, self.taken))

    def step(self, batch: Int64[Tensor, " B"]) -> tuple[Losses, Features]:
        """Learn from a batch."""
        labels = None if self.labels is None else self.labels[batch]
        images, others = self.views(batch)
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses, features = self.shared(images, labels, others=others, generator=self.generator)
        self.optimiser.zero_grad()
        (losses.total + losses.adversary).backward()
        self.optimiser.step()
        self.taken += 1
        return losses, features

    def recorded_step(self) -> Callable[[Tensor], tuple[Losses, Features]]:
        """`step` as a CUDA graph; see `capture`.

        Raises:
            RunError: If there are two views.
        """
        if self.augment is not None:
            raise RunError(
                "graph: expected one view of an image, received 2, which are drawn outside of what "
                "a graph can record; leave --graph out"
            )
        return capture(
            self.step,
            torch.arange(self.batch_size, device=self.images.device),
            model=self.model,
            optimiser=self.optimiser,
            generator=self.generator,
        )


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, or wide ones that make up for them."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() not in NARROW


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Let a CPU count numbers below 1e-38 as 0 for a while.

    Gradients of confident scores are so small, and some processors multiply such numbers up to a
    hundred times slower. It holds for the calling thread, and for good for those that are started
    meanwhile, so a process does it before it computes anything.
    """
    least = torch.finfo(torch.float32).tiny
    before = (torch.tensor(least) / 2).item() == 0  # torch does not say
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@flushing_denormals()
def train(
    config: TrainConfig,
    data: ImageData,
    run: Path,
    *,
    device: torch.device,
    resume: bool = False,
    graph: bool = False,
    tensorboard: bool = False,
) -> DeepInfoMax:
    """Train a model on the images of `data`, with checkpoints after epochs.

    The next one is written when the last has become a twentieth of the time since; the final epoch
    always has one. A thousand short epochs would else take as long to write as to train.

    Several processes (`dim.parallel`) take the same steps together; the first one writes.

    Args:
        config: The experiment.
        data: Its images.
        run: Its folder.
        device: Where to compute.
        resume: Whether to go on with the run that is in the folder.
        graph: Whether to record the step as a CUDA graph (`dim.capture`).
        tensorboard: Whether to write the metrics for TensorBoard, too (`dim.board`).

    Raises:
        RunError: If the run folder cannot be used or written, the batch or the image size does not
            fit the data, a loss or a weight is no longer finite, or a graph is asked for without a
            CUDA device of its own or with two views.
        ValueError: If the model does not fit the images (`build_model`).
        ModuleNotFoundError: If TensorBoard is asked for and absent.
    """
    if tensorboard:
        require_tensorboard()
    if graph and (device.type != "cuda" or processes() > 1):
        raise RunError(
            f"graph: expected one process on CUDA, received {processes()} on {device.type}; leave "
            f"--graph out"
        )
    size = data.x_train.shape[-1]
    if config.image_size not in (None, size):
        raise RunError(
            f"image_size: expected {size}, that of the images, or None, received "
            f"{config.image_size}; give load_data the same"
        )
    config = dataclasses.replace(config, image_size=size)
    training, images = Training(config, data, device), fingerprint(data.x_train)
    data = dataclasses.replace(data, x_train=training.images)  # not a second time to the device
    history: list[dict[str, float | int]] = []
    with in_turn():
        state = open_run(run, config, images, resume=resume or rank() > 0)
    if state:
        training.restore(state)
        history = state.history

    steps, first = training.steps, rank() == 0
    saved, cost = -math.inf, 0.0
    with (
        begun(run) if first else nullcontext(),
        board(run, history) if tensorboard and first else nullcontext() as write,
        tqdm(
            total=config.epochs * steps,
            initial=len(history) * steps,
            unit="step",
            disable=not first,
        ) as bar,
    ):
        require_alike(len(history))
        step_of: Callable[[Tensor], tuple[Losses, Features]] = training.step
        if graph and len(history) < config.epochs:
            step_of = training.recorded_step()
        for epoch in range(len(history) + 1, config.epochs + 1):
            bar.set_description(f"epoch {epoch}/{config.epochs}")
            start, seen = time.perf_counter(), torch.empty(steps, len(LOSSES), device=device)
            for step, batch in enumerate(training.batches(), start=1):
                losses, features = step_of(batch)
                seen[step - 1] = torch.stack(losses).detach()
                bar.update()
                if step % LOG_EVERY == 0 or step == steps:  # reading a loss waits for the device
                    means = dict(zip(LOSSES, seen[:step].double().mean(0).tolist(), strict=True))
                    if not all(map(math.isfinite, means.values())):
                        raise _bad_batch(config, data, run, epoch, seen[:step])
                    shown = {name: f"{value:.3f}" for name, value in means.items() if value}
                    bar.set_postfix(shown)  # what is left out is exactly 0
            seconds = time.perf_counter() - start
            if not _finite(training.model):  # after the last step no loss could tell
                raise _bad_batch(config, data, run, epoch, seen)
            labels = None if training.labels is None else training.labels[batch]
            health = measure(training.model, features, labels, views=config.views) if first else {}
            before = alarms(history[-1]) if history else {}
            new = [text for name, text in alarms(health).items() if name not in before]
            if first and (str(epoch).rstrip("0") in {"1", "2", "5"} or epoch == config.epochs):
                tqdm.write(f"epoch {epoch}: {health_line(health)}", file=sys.stderr)
            if first and new:
                tqdm.write(f"epoch {epoch}: {'; '.join(new)}", file=sys.stderr)
            speed = {"images_per_second": steps * config.batch_size / seconds}
            history.append({"epoch": epoch, **means, **health, **speed})
            if write:  # before the checkpoint, so that none of its epochs is missing there
                write(history[-1])
            now = time.perf_counter()
            if first and (epoch == config.epochs or cost <= SAVING * (now - saved)):
                save_run(run, training.model, training.state(history), images)
                saved = time.perf_counter()
                cost = saved - now
    if first and state is None and not history:
        save_run(run, training.model, training.state(history), images)
    return training.model


def _bad_batch(
    config: TrainConfig,
    data: ImageData,
    run: Path,
    epoch: int,
    seen: Float[Tensor, "steps losses"],
) -> RunError:
    """Keep the batch of an epoch after which the model is lost, and the model that met it.

    That is the first whose losses are not finite, or the one before, if its step already made
    weights so. The model is long past it, so it is trained again up to there, from the checkpoint;
    on CUDA, where sums vary in their last digits, it is as good as the same.
    """
    again = Training(config, data, seen.device)
    state = load_state(run)
    if state:
        again.restore(state)
    for _ in range(len(state.history) + 1 if state else 1, epoch):
        for batch in again.batches():
            again.step(batch)
    batches = again.batches()

    def before(index: int) -> dict[str, Tensor]:
        """What meets a batch, as it is now."""
        tensors = {f"model.{name}": t.clone() for name, t in again.model.state_dict().items()}
        images, others = again.views(batches[index])
        tensors |= {"images": images, "generator": again.generator.get_state()}
        if others is not None:
            tensors["others"] = others
        if again.labels is not None:
            tensors["labels"] = again.labels[batches[index]]
        return tensors

    lost = (~seen.isfinite().all(1)).nonzero()
    index = int(lost[0]) if len(lost) else len(seen)
    for batch in batches[: max(index - 1, 0)]:
        again.step(batch)
    tensors = before(max(index - 1, 0))
    if index:
        again.step(batches[index - 1])
        if index < len(seen) and _finite(again.model):
            tensors = before(index)
        else:
            index -= 1
    received = dict(zip(LOSSES, seen[index].tolist(), strict=True))
    content = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {"epoch": str(epoch), "step": str(index + 1), "losses": str(received)},
    )
    with in_turn():  # or those that are done take the first one, which writes, with them
        if rank() == 0:
            write_atomically(run / BAD_BATCH, lambda path: path.write_bytes(content))
    found = f"loss: expected finite numbers, received {received} at"
    if all(map(math.isfinite, received.values())):
        found = "weights: expected finite numbers, received others after"
    remedy = "" if config.objective in ("jsd", "infonce") else " or choose --objective jsd"
    if (run / STATE).exists():  # of a run whose options stay as they are
        remedy += ", with another --out"
    return RunError(
        f"{found} step {index + 1} of epoch {epoch}; lower --learning-rate{remedy}; "
        f"{run / BAD_BATCH} holds the batch and the model that met it"
    )


def _finite(model: DeepInfoMax) -> bool:
    """Whether all weights and statistics are; waits for the device."""
    return bool(torch.stack([t.isfinite().all() for t in model.state_dict().values()]).all())


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    argv, run = sys.argv[1:] if argv is None else argv, None
    try:
        with one_line_refusals():
            options = tyro.cli(
                Options,
                prog="python -m dim.train",
                args=argv,
                default=Options(_starting_point(argv)),
            )
            run = options.out or _usual_folder(options.config.preset, options.config.data)
            _train_and_evaluate(options, run)
    except KeyboardInterrupt:
        kept = ""
        if run:  # as soon as it is known which
            kept = (
                f"; {run} keeps its last checkpoint: go on with --resume"
                if (run / STATE).exists()
                else "; no epoch was finished, so nothing is kept"
            )
        print(f"\nstopped{kept}", file=sys.stderr)
        raise SystemExit(130) from None


def _starting_point(argv: Sequence[str]) -> TrainConfig:
    """What other options change: the preset asked for, or, resuming, what the run has.

    Raises:
        RunError: If the run to resume has a configuration that does not fit this version.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--data", default=TrainConfig.data)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    told, _ = parser.parse_known_args(argv)
    preset = told.preset or "default"
    run = told.out or _usual_folder(preset, told.data)
    if told.resume and (run / CONFIG).exists():
        config = load_config(run)
        if told.preset in (None, config.preset):
            return config
    return PRESETS[preset]


def _usual_folder(preset: str, data: str) -> Path:
    return Path("runs") / f"{preset}-{Path(data).stem}"


@flushing_denormals()  # from the first thread on
def _train_and_evaluate(options: Options, run: Path) -> None:
    device = resolve_device(options.device)
    config = options.config
    if not options.resume:
        require_new(run)  # before an hour of decoding images
    data = images_of(config)
    with joined(device):
        model = train(
            config,
            data,
            run,
            device=device,
            resume=options.resume,
            graph=options.graph,
            tensorboard=options.tensorboard,
        )
        first = rank() == 0
    if not first:
        return
    # Both: dim.neighbours writes the page anew, of a text that may be older than the last epoch.
    written = (run / "report.md", run / "report.html")
    trained = (run / STATE).stat().st_mtime
    if options.resume and all(p.exists() and p.stat().st_mtime > trained for p in written):
        print((run / "report.md").read_text(encoding="utf-8"))  # dim.evaluate may know more
        print(
            f"{run}: was finished and evaluated before; python -m dim.evaluate {run} does so anew"
        )
        return
    encoder = model.encoder.eval()
    print("evaluating ...", file=sys.stderr)
    if config.epochs:
        draw_curves(run)
    if (term := model.reconstruction_term) is not None:
        path = run / "reconstructions.png"
        draw_reconstructions(encoder, term.decoder, data.x_test, path=path)
        if config.class_conditional:
            means = model.get_parameter("prior.class_means.weight")
            draw_classes(term.decoder, means, path=run / "classes.png")
    codes, path = codes_of(encoder, data), run / "neighbours.png"
    draw_neighbours(codes.test, codes.train, data, path=path, seed=config.seed)
    untrained = untrained_encoder(run).to(device)
    print(write_report(run, probe_table(encoder, untrained, data, codes=codes), data))
    print(f"{run}: report.html, report.md, metrics.csv, encoder.safetensors and the figures")


if __name__ == "__main__":
    main()
