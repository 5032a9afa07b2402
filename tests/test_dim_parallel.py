"""Several processes train like one: losses and gradients of the whole batch, one run folder."""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from dim import PRESETS, ImageData, RunError, load_encoder
from dim.checkpoint import METRICS, load_state
from dim.parallel import joined
from dim.train import Training, train

CPU = torch.device("cpu")
SMALL = dataclasses.replace(
    PRESETS["default"],
    head_units=8,
    objective="jsd",
    negatives="in-batch",
    batch_size=8,
    alpha=0.5,
)
CONFIGS = {
    "jsd": SMALL,
    "dv, shuffled": dataclasses.replace(SMALL, objective="dv", negatives="shuffled"),
    "infonce, all locations": dataclasses.replace(
        SMALL, objective="infonce", negatives="all-locations", global_input="feature-map"
    ),
    "class means": dataclasses.replace(SMALL, class_conditional=True, gamma=1.0),
    "coordinates, locations, a coarse part": dataclasses.replace(
        SMALL, delta=1.0, eta=1.0, kappa=1.0, occlusion=0.4, coarseness=4
    ),
    "two views": dataclasses.replace(SMALL, views=2),
    "vae": dataclasses.replace(PRESETS["vae"], batch_size=8),
    "adversarial": dataclasses.replace(SMALL, prior="adversarial", stochastic=False, gamma=1.0),
    "concat, shuffled locations": dataclasses.replace(
        PRESETS["paper-local-global"], batch_size=8, head_units=8
    ),
    "su-kl": dataclasses.replace(PRESETS["su-kl"], batch_size=8, head_units=8),
}


def lopsided(n=24):
    """Images of growing brightness: no process's share is like another's."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 100, (n, 3, 16, 16), generator=generator)
    images = (noise + torch.arange(n).view(-1, 1, 1, 1) * 6).to(torch.uint8)
    labels = torch.arange(n) % 3
    return ImageData("lopsided", images, labels, images, labels, None)


def one_step(config):
    """Losses and gradients of one batch, by name.

    Batch norm in the encoder is fixed, for on the CPU it knows only its own process's images.
    """
    training = Training(config, lopsided(), CPU)
    for module in training.model.encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    losses, _ = training.step(training.batches()[0])
    gradients = {
        name: parameter.grad
        for name, parameter in training.model.named_parameters()
        if parameter.grad is not None
    }
    return {**{f"loss {i}": loss.detach() for i, loss in enumerate(losses)}, **gradients}


def steps_of(rank, world, folder):
    """What a process of several does: a step of each configuration, then a run that is resumed."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    with contextlib.redirect_stderr(io.StringIO()):
        results = {name: one_step(config) for name, config in CONFIGS.items()}
        torch.save(results, f"{folder}/{rank}.pt")
        config = dataclasses.replace(SMALL, image_size=16)
        train(dataclasses.replace(config, epochs=1), lopsided(), folder / "run", device=CPU)
        train(
            dataclasses.replace(config, epochs=2),
            lopsided(),
            folder / "run",
            device=CPU,
            resume=True,
        )
        with pytest.raises(
            RunError, match=f"batch_size: expected a multiple of {world}, the number of"
        ):
            Training(dataclasses.replace(config, batch_size=9), lopsided(), CPU)
        own = folder / f"own{rank}"  # as on machines that share none
        if rank == 0:
            shutil.copytree(folder / "run", own)
        longer = dataclasses.replace(config, epochs=3)
        with pytest.raises(RunError, match=r"out: expected a folder that all processes share"):
            train(longer, lopsided(), own, device=CPU, resume=True)
    dist.destroy_process_group()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with (
        pytest.raises(RunError, match=r"nproc-per-node: expected at most 2, .* received 3"),
        joined(torch.device("cuda")),
    ):
        pass


def start(world, target, *args):
    several = multiprocessing.get_context("forkserver")
    several.set_forkserver_preload(["dim.train", "matplotlib.figure", "pytest", "torch._dynamo"])
    processes = [several.Process(target=target, args=(rank, world, *args)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * world


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_have_the_losses_and_gradients_of_one(tmp_path, world):
    start(world, steps_of, tmp_path)
    for rank in range(world):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, config in CONFIGS.items():
            alone = one_step(config)
            for part, expected in alone.items():
                error = (results[name][part] - expected).norm()
                # What is 0 but for rounding, as a bias whose shift cancels, has no digits left.
                assert error <= 1e-5 * max(expected.norm(), 0.1), (name, part)
    run = tmp_path / "run"
    assert [row["epoch"] for row in load_state(run).history] == [1, 2]
    assert len((run / METRICS).read_text().splitlines()) == 3
    assert load_encoder(run)(lopsided().x_test).z_mean.shape == (24, 64)


def torchrun(folder, *more):
    """Two processes that train on the images of a file."""
    data = lopsided()
    images = data.x_train.permute(0, 2, 3, 1).numpy()
    labels = data.y_train.numpy()
    np.savez(folder / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = ["--data", "x.npz", "--out", "run", "--epochs", "1", "--batch-size", "8", *more]
    return subprocess.run(
        [sys.executable, *command, "-m", "dim.train", *flags, "--device", "cpu"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_bad_batch_of_several_processes_is_kept_whole(tmp_path):
    done = torchrun(tmp_path, "--learning-rate", "1e30")
    assert done.returncode != 0
    assert "bad_batch.safetensors holds the batch and the model" in done.stderr
    kept = load_file(tmp_path / "run" / "bad_batch.safetensors")
    assert kept["images"].shape == (8, 3, 16, 16)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["bad_batch.safetensors"]


def test_torchrun_trains_and_the_first_process_writes_and_reports(tmp_path):
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| z_mean | trained |") == 1
    assert [row["epoch"] for row in load_state(tmp_path / "run").history] == [1]
    assert (tmp_path / "run" / "report.md").exists()
