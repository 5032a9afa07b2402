"""Training runs: what they leave behind, how they resume, and what they refuse."""

import csv
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dim import PRESETS, RunError, load_data, load_encoder, train
from dim.checkpoint import STATE, load_config, untrained_encoder, write_atomically

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Small real-looking images: three classes of coloured gradients with noise."""
    rng = np.random.default_rng(0)

    def make(n):
        labels = rng.integers(0, 3, n)
        ramp = np.linspace(0, 120, 16)
        images = np.zeros((n, 16, 16, 3))
        for i, label in enumerate(labels):
            images[i, ..., label] = ramp if label else ramp[:, None]
        return (images + rng.uniform(0, 100, images.shape)).astype(np.uint8), labels

    path = tmp_path_factory.mktemp("data") / "small.npz"
    (x, y), (u, v) = make(96), make(40)
    np.savez(path, x_train=x, y_train=y, x_test=u, y_test=v)
    return path


@pytest.fixture
def config(npz):
    return dataclasses.replace(
        PRESETS["default"],
        data=str(npz),
        image_size=16,
        batch_size=16,
        head_units=16,
        epochs=3,
    )


def arguments(npz, out, *more):
    flags = ["--data", npz, "--out", out, "--batch-size", 16, "--head-units", 16, "--epochs", 2]
    return [str(a) for a in (*flags, "--device", "cpu", *more)]


def run_main(*args):
    from dim.train import main

    main([str(a) for a in args])


def weights(run):
    return load_encoder(run).state_dict()


def test_a_run_leaves_everything_and_its_encoder_loads(npz, tmp_path, capsys):
    run = tmp_path / "run"
    run_main(*arguments(npz, run))
    out = capsys.readouterr().out
    assert "| z_mean | trained |" in out
    assert "| z_mean | untrained |" in out
    assert "| pixels |" in out
    for name in ("config.json", "report.md", "curves.png", "neighbours.png", "probes.json"):
        assert (run / name).stat().st_size > 100, name
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert json.loads((run / "config.json").read_text())["image_size"] == 16
    encoder = load_encoder(run)
    images = load_data(str(npz)).x_test
    assert not encoder.training
    assert encoder(images).z_mean.shape == (40, 64)
    assert not torch.equal(encoder(images).z_mean, untrained_encoder(run)(images).z_mean)
    assert not list(run.glob(".*")), "temporary files are left"


def test_evaluate_and_neighbours_redo_their_part(npz, tmp_path, capsys):
    from dim import evaluate, neighbours

    run = tmp_path / "run"
    run_main(*arguments(npz, run, "--epochs", 1))
    first = (run / "report.md").read_text()
    for name in ("report.md", "neighbours.png"):
        (run / name).unlink()
    capsys.readouterr()
    neighbours.main([str(run), "--device", "cpu"])
    quick = ["--no-svm", "--mlp-epochs", "0"]  # as training ends
    evaluate.main([str(run), "--device", "cpu", *quick])
    assert (run / "neighbours.png").exists()
    lines = (run / "report.md").read_text().splitlines()
    assert "| z | trained |" in "\n".join(lines)
    assert [line for line in lines if not line.startswith("| z |")] == first.splitlines()
    assert "| z_mean | trained |" in capsys.readouterr().out


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(config, npz, tmp_path):
    data = load_data(str(npz))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, data, whole, device=CPU)
    train.train(dataclasses.replace(config, epochs=1), data, parts, device=CPU)
    train.train(config, data, parts, device=CPU, resume=True)
    for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
        assert torch.equal(a, b), name
    a, b = (torch.load(run / STATE, weights_only=True) for run in (whole, parts))
    assert torch.equal(a["generator"], b["generator"])


def test_a_killed_run_loads_and_resumes_to_the_same_end(config, npz, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "dim.train", *arguments(npz, killed, "--epochs", 400)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (killed / STATE).exists():
            assert process.poll() is None, "training ended before its first checkpoint"
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
    done = len(torch.load(killed / STATE, weights_only=True)["history"])
    load_encoder(killed)
    longer = dataclasses.replace(config, epochs=done + 1)
    data = load_data(str(npz))
    train.train(longer, data, killed, device=CPU, resume=True)
    train.train(longer, data, whole, device=CPU)
    for (name, a), b in zip(weights(whole).items(), weights(killed).values(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--objective", "nonsense"], "objective"),
        (["--preset", "nonsense"], "preset"),
        (["--data", "no/such/place"], "no/such/place"),
        (["--batch-size", "97"], "batch_size: expected 2 to 96"),
        (["--batch-size", "1"], "batch_size: expected at least 2"),
        (["--image-size", "20"], "image_size: expected a multiple of 8"),
    ],
)
def test_a_users_mistake_exits_with_2_and_no_traceback(npz, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        run_main(*arguments(npz, tmp_path / "run", *more))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert "Traceback" not in error


def test_an_existing_folder_and_another_configuration_are_refused(config, npz, tmp_path, capsys):
    run = tmp_path / "run"
    train.train(dataclasses.replace(config, epochs=1), load_data(str(npz)), run, device=CPU)
    before = (run / STATE).read_bytes()
    for more, message in [
        ([], "out: expected a new folder"),
        (["--resume", "--z-dim", "32"], "z_dim: the run in"),
    ]:
        with pytest.raises(SystemExit) as stop:
            run_main(*arguments(npz, run, *more))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert (run / STATE).read_bytes() == before


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_epoch(config, npz, tmp_path):
    run = tmp_path / "run"
    data = load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    state = torch.load(run / STATE, weights_only=True)
    for group in state["optimiser"]["param_groups"]:
        group["lr"] = float("nan")
    torch.save(state, run / STATE)
    before = (run / STATE).read_bytes()
    with pytest.raises(RunError, match=r"loss: expected finite numbers.*in epoch 2"):
        train.train(config, data, run, device=CPU, resume=True)
    assert (run / STATE).read_bytes() == before
    load_encoder(run)


def test_a_broken_or_malicious_checkpoint_is_refused(config, npz, tmp_path):
    run = tmp_path / "run"
    data = load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)

    class Malice:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "owned"),)

    for content in (b"half a file", pickle.dumps(Malice())):
        (run / STATE).write_bytes(content)
        with pytest.raises(RunError, match="expected a training state"):
            train.train(config, data, run, device=CPU, resume=True)
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_file_before(tmp_path):
    path = tmp_path / "weights"
    path.write_text("before")

    def fill(temporary):
        temporary.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fill)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="run: expected the folder of a run"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"colour": "blue"}')
    with pytest.raises(RunError, match="colour"):
        load_config(tmp_path)


def test_ctrl_c_says_what_is_kept(npz, tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupt)
    with pytest.raises(SystemExit) as stop:
        run_main(*arguments(npz, tmp_path / "run"))
    assert stop.value.code == 130
    assert "no epoch was finished, so nothing is kept" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).touch()
    with pytest.raises(SystemExit):
        run_main(*arguments(npz, tmp_path / "run"))
    assert "keeps the last finished epoch: go on with --resume" in capsys.readouterr().err


def test_a_class_conditional_prior_trains_with_labels_and_needs_them(config, npz, tmp_path):
    conditional = dataclasses.replace(config, class_conditional=True, epochs=1)
    data = load_data(str(npz))
    model = train.train(conditional, data, tmp_path / "run", device=CPU)
    assert model.prior.class_means.weight.shape == (3, 64)
    load_encoder(tmp_path / "run")
    unlabelled = dataclasses.replace(data, y_train=None, y_test=None, classes=None)
    with pytest.raises(ValueError, match="class_conditional: expected labelled"):
        train.train(conditional, unlabelled, tmp_path / "other", device=CPU)


def test_images_without_labels_train_and_are_drawn(npz, tmp_path, capsys):
    with np.load(npz) as arrays:
        np.savez(tmp_path / "bare.npz", x_train=arrays["x_train"], x_test=arrays["x_test"])
    run_main(*arguments(tmp_path / "bare.npz", tmp_path / "run", "--epochs", 1))
    assert "no labels" in capsys.readouterr().out
    assert (tmp_path / "run" / "neighbours.png").exists()


def test_running_as_a_module_does_not_warn():
    command = [sys.executable, "-W", "error", "-m", "dim.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--objective" in done.stdout


def test_a_run_is_not_resumed_on_another_kind_of_device(config, npz, tmp_path):
    run = tmp_path / "run"
    data = load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    state = torch.load(run / STATE, weights_only=True)
    torch.save(state | {"generator": state["generator"][:16]}, run / STATE)  # as CUDA's are
    with pytest.raises(RunError, match="device: the random state"):
        train.train(config, data, run, device=CPU, resume=True)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"z_dim": 0}, {"head_units": 0}, {"alpha": -1.0}, {"batch_size": 1}]
)
def test_numbers_that_cannot_train_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}: expected at least"):
        dataclasses.replace(PRESETS["default"], **change)


def test_a_file_is_no_run_folder(npz, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(*arguments(npz, npz))
    assert stop.value.code == 2
    assert "out: expected a folder" in capsys.readouterr().err
