"""Training runs: what they leave behind, how they resume, and what they refuse."""

import contextlib
import csv
import dataclasses
import errno
import importlib
import io
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors import safe_open

from dim import PRESETS, Encoder, RunError, build_model, load_data, load_encoder, train
from dim.checkpoint import (
    CONFIG,
    METRICS,
    STATE,
    WEIGHTS,
    load_config,
    load_model,
    load_state,
    open_run,
    untrained_encoder,
    write_atomically,
)
from dim.command import one_line_refusals
from dim.train import flushing_denormals

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


def test_a_finished_run_keeps_its_report_and_a_longer_one_gets_another(npz, tmp_path, capsys):
    run = tmp_path / "run"
    run_main(*arguments(npz, run))
    fuller = (run / "report.md").read_text() + "\nWhat dim.evaluate knows.\n"
    (run / "report.md").write_text(fuller)
    capsys.readouterr()
    run_main(*arguments(npz, run, "--resume"))
    out = capsys.readouterr().out
    assert out.startswith(fuller)
    assert "was finished and evaluated before" in out
    assert (run / "report.md").read_text() == fuller
    (run / "report.html").unlink()  # killed before it was written
    run_main(*arguments(npz, run, "--resume"))
    assert (run / "report.html").exists()
    assert (run / "report.md").read_text() != fuller
    (run / "report.md").write_text(fuller)
    run_main(*arguments(npz, run, "--resume", "--epochs", 3))
    assert (run / "report.md").read_text() != fuller
    (run / "report.md").write_text(fuller)
    before = (run / STATE).stat().st_mtime - 1
    os.utime(run / "report.md", (before, before))  # as if killed before it, and then a new page
    (run / "report.html").touch()
    run_main(*arguments(npz, run, "--resume", "--epochs", 3))
    assert (run / "report.md").read_text() != fuller


def test_a_run_knows_the_size_of_its_images_without_being_told(config, npz, tmp_path):
    data, told = load_data(str(npz)), dataclasses.replace(config, image_size=32, epochs=1)
    with pytest.raises(RunError, match="image_size: expected 16, that of the images, or None"):
        train.train(told, data, tmp_path / "other", device=CPU)
    train.train(dataclasses.replace(told, image_size=None), data, tmp_path / "run", device=CPU)
    assert load_config(tmp_path / "run").image_size == 16
    assert load_encoder(tmp_path / "run")(data.x_test).z_mean.shape == (40, 64)
    assert not load_model(tmp_path / "run").training


def test_only_a_refusal_is_one_line(capsys):
    with pytest.raises(ValueError, match="unpack"), one_line_refusals():
        _, _ = [1]
    with pytest.raises(ModuleNotFoundError, match="No module"), one_line_refusals():
        importlib.import_module("of_nobody")
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stopped, one_line_refusals():
        raise RunError("run: expected a folder, received none; pass one")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: run: expected a folder, received none; pass one\n"
    with pytest.raises(SystemExit), one_line_refusals():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a")
    expected = "error: CUDA out of memory. Tried to allocate 9.00 GiB; take smaller images"
    assert capsys.readouterr().err.startswith(expected)


def test_terms_between_locations_are_in_the_metrics_and_the_curves(npz, tmp_path):
    drawn = []
    for kappa in (0, 1):
        run, more = tmp_path / str(kappa), ("--kappa", kappa, "--eta", kappa, "--coarseness", 2)
        run_main(*arguments(npz, run, *more, "--epochs", 1))
        with (run / METRICS).open() as file:
            (row,) = csv.DictReader(file)
        for name in ("locations", "relative"):
            assert bool(float(row[name])) == bool(kappa)
        assert ("locations_gap" in row) == bool(kappa)
        assert load_config(run).coarseness == 2
        drawn.append(matplotlib.image.imread(run / "curves.png").shape[0])
    assert drawn[0] < drawn[1]  # 7 panels; 9 take another line


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
    code = lines[lines.index("## The code") : lines.index("![neighbours](neighbours.png)")]
    assert "rate, KL" in "\n".join(code)
    same = [line for line in lines if not line.startswith("| z |") and line not in code[:-1]]
    assert set(first.splitlines()) <= {*same, *code}
    assert "| z_mean | trained |" in capsys.readouterr().out


def test_no_epochs_leave_the_initial_weights(npz, tmp_path, capsys):
    run = tmp_path / "run"
    for more in ((), ("--resume",)):
        run_main(*arguments(npz, run, "--epochs", 0, *more))
        assert ("was finished and evaluated before" in capsys.readouterr().out) == bool(more)
        ours, initial = load_encoder(run).state_dict(), untrained_encoder(run).state_dict()
        assert all(torch.equal(ours[name], initial[name]) for name in initial)
    assert table(run) == []
    assert "| z_mean | trained |" in (run / "report.md").read_text()
    assert not (run / "curves.png").exists()


def table(run):
    """The rows of metrics.csv, but for the speed."""
    with (run / METRICS).open() as file:
        return [{**row, "images_per_second": None} for row in csv.DictReader(file)]


def assert_bitwise_equal(a, b):
    """Runs `a` and `b` ended in the same place: weights, optimiser, generator and metrics."""
    for (name, p), q in zip(weights(a).items(), weights(b).values(), strict=True):
        assert torch.equal(p, q), name
    first, second = load_state(a), load_state(b)
    for name in ("model", "optimiser", "generator"):
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), rtol=0, atol=0, msg=name
        )
    assert table(a) == table(b)
    for state, run in ((first, a), (second, b)):
        assert [row["epoch"] for row in state.history] == list(range(1, len(table(run)) + 1))


@pytest.mark.filterwarnings("ignore:precision")  # as slow as it is
@pytest.mark.parametrize("change", [{}, {"views": 2}, {"precision": "bfloat16"}])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(config, npz, tmp_path, change):
    config, data = dataclasses.replace(config, **change), load_data(str(npz))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, data, whole, device=CPU)
    train.train(dataclasses.replace(config, epochs=1), data, parts, device=CPU)
    train.train(config, data, parts, device=CPU, resume=True)
    assert_bitwise_equal(whole, parts)


def test_numbers_too_small_to_multiply_fast_are_0_while_training_alone():
    small = torch.tensor(torch.finfo(torch.float32).tiny)

    def halved():
        return (small / 2).item()

    assert halved() > 0
    with flushing_denormals():
        assert halved() == 0
        with flushing_denormals():
            pass
        assert halved() == 0  # as it was found
    with pytest.raises(KeyError), flushing_denormals():
        raise KeyError
    assert halved() > 0


@pytest.mark.parametrize(("cpu", "warned"), [("AVX2", True), ("AVX512", False)])
def test_bfloat16_on_a_cpu_without_it_is_warned_of(config, npz, cpu, warned, monkeypatch, recwarn):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    for precision in ("auto", "float32", "bfloat16"):
        train.Training(dataclasses.replace(config, precision=precision), load_data(str(npz)), CPU)
    found = [str(w.message) for w in recwarn if "precision: " in str(w.message)]
    assert len(found) == warned


@pytest.mark.parametrize("able", [False, True])
def test_a_gpu_that_imitates_bfloat16_is_one_without_it(able, monkeypatch):
    supported = lambda including_emulation=True: including_emulation or able  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    assert train.computes_in_bfloat16(torch.device("cuda")) == able


@pytest.mark.filterwarnings("ignore:precision")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_convolutions_and_products_have_the_precision_asked_for(config, npz, precision):
    """On a CPU; losses, weights and the optimiser's moments are float32 in any case."""
    config = dataclasses.replace(config, precision=precision)
    training, seen = train.Training(config, load_data(str(npz)), CPU), set()
    for module in training.model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    losses, _ = training.step(training.batches()[0])
    assert seen == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert {loss.dtype for loss in losses} == {torch.float32}
    moments = [state["exp_avg"] for state in training.optimiser.state.values()]
    assert {t.dtype for t in (*moments, *training.model.parameters())} == {torch.float32}


def test_the_two_view_preset_cut_small_trains_and_resumes_bitwise(tmp_path):
    digits = load_data("digits", image_size=8)
    data = dataclasses.replace(digits, x_train=digits.x_train[:32], y_train=None)
    config = dataclasses.replace(
        PRESETS["two-view"], image_size=8, batch_size=16, head_units=8, epochs=2
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(config, data, whole, device=CPU)
    train.train(dataclasses.replace(config, epochs=1), data, parts, device=CPU)
    train.train(config, data, parts, device=CPU, resume=True)
    assert_bitwise_equal(whole, parts)
    first, second = load_state(whole).history
    for name in ("global", "local"):
        assert first[name] != second[name] != 0
    assert first["prior"] == first["locations"] == 0
    assert load_encoder(whole)(data.x_test[:3]).hidden.shape == (3, 512)


def live(argv, fatal=None, times=0):
    """One life of `python -m dim.train`: it dies in the middle of its nth write of a file."""
    torch.set_num_threads(1)
    replace, count = Path.replace, itertools.count(1)

    def dying(temporary, target):
        if target.name == fatal and next(count) == times:
            os.truncate(temporary, temporary.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(temporary, target)

    Path.replace = dying
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train.main(argv)


def test_a_run_killed_again_and_again_ends_bitwise_like_an_uninterrupted_one(npz, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    flags = ["--epochs", 10, "--resume"]
    lives = multiprocessing.get_context("forkserver")  # that not each one imports all this
    lives.set_forkserver_preload(["dim.train", "matplotlib.figure", "pytest", "torch._dynamo"])

    def life(run, *fatal, patience=None):
        process = lives.Process(target=live, args=(arguments(npz, run, *flags), *fatal))
        process.start()
        process.join(patience)
        process.kill()
        process.join()
        return process.exitcode

    assert life(whole) == 0
    # In the middle of each kind of write, in a life's first epoch and in its second.
    assert life(killed, CONFIG, 1) == -signal.SIGKILL
    for times, name in itertools.product((1, 2), (WEIGHTS, METRICS, STATE)):
        assert life(killed, name, times) == -signal.SIGKILL
    assert len(load_state(killed).history) == 3
    # A real process, then more lives, wherever they are.
    command = [sys.executable, "-m", "dim.train", *arguments(npz, killed, *flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = (killed / STATE).stat().st_mtime_ns
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while (killed / STATE).stat().st_mtime_ns == before:
            assert process.poll() is None, "training ended before its next checkpoint"
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert 4 <= len(load_state(killed).history) < 10
    for patience in np.random.default_rng().uniform(0, 1.5, 3):
        life(killed, patience=patience)
        load_encoder(killed)
    assert life(killed) == 0
    assert_bitwise_equal(whole, killed)
    assert not list(killed.glob(".*")), "temporary files are left"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--objective", "nonsense"], "objective"),
        (["--preset", "nonsense"], "preset"),
        (["--data", "no/such/place"], "no/such/place"),
        (["--batch-size", "97"], "batch_size: expected 2 to 96"),
        (["--batch-size", "1"], "batch_size: expected at least 2"),
        (["--image-size", "20"], "image_size: expected a multiple of 8"),
        (
            ["--negatives", "shuffled", "--negatives-k", "16"],
            "negatives_k: expected less than the batch's 16",
        ),
        (["--negatives-k", "2"], "negatives_k: expected shuffled negatives"),
        (["--learning-rate", "0"], "learning_rate, adam_eps: expected more than 0"),
        (["--adam-beta1", "1"], "adam_beta1: expected 0 to less than 1, received 1.0"),
    ],
)
def test_a_users_mistake_exits_with_2_and_no_traceback(npz, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        run_main(*arguments(npz, tmp_path / "run", *more))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_run_that_is_stopped_in_its_first_epoch_leaves_its_folder_to_the_next(
    config, npz, tmp_path, monkeypatch
):
    run, data = tmp_path / "run", load_data(str(npz))

    def interrupted(*_):
        raise KeyboardInterrupt

    def stop(config):
        with monkeypatch.context() as patch:
            patch.setattr(train.Training, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train.train(config, data, run, device=CPU, resume=True)

    stop(config)
    other = dataclasses.replace(config, epochs=1, z_dim=8)
    train.train(other, data, run, device=CPU)
    assert load_config(run) == other
    stop(dataclasses.replace(other, epochs=2))
    load_encoder(run)


@pytest.mark.parametrize("left", ["bad_batch.safetensors", "tensorboard", ".config.json.part"])
def test_what_a_run_leaves_that_ends_in_its_first_epoch_is_in_no_ones_way(
    config, npz, tmp_path, monkeypatch, left
):
    run, data = tmp_path / "run", load_data(str(npz))

    def fail(*_):
        (run / left).write_bytes(b"")
        raise RuntimeError("of another kind")

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "step", fail)
        with pytest.raises(RuntimeError, match="of another kind"):
            train.train(config, data, run, device=CPU)
    other = dataclasses.replace(config, learning_rate=1e-5)
    assert open_run(run, other, "images", resume=False) is None
    assert load_config(run) == other


def test_what_a_loss_that_is_no_number_advises_can_be_done(npz, tmp_path, capsys):
    run = tmp_path / "run"
    too_fast = ("--learning-rate", "1e30")
    with pytest.raises(SystemExit):
        run_main(*arguments(npz, run, *too_fast))
    assert "of epoch 1; lower --learning-rate; " in capsys.readouterr().err
    run_main(*arguments(npz, run, "--epochs", 1))
    state = torch.load(run / STATE, weights_only=True)
    for group in state["optimiser"]["param_groups"]:
        group["lr"] = 1e30
    torch.save(state, run / STATE)
    with pytest.raises(SystemExit):
        run_main(*arguments(npz, run, "--resume"))
    assert "lower --learning-rate, with another --out; " in capsys.readouterr().err


def test_a_run_of_more_epochs_says_so_and_fewer_are_refused(config, npz, tmp_path):
    run, data = tmp_path / "run", load_data(str(npz))
    for epochs in (1, 2):
        longer = dataclasses.replace(config, epochs=epochs)
        train.train(longer, data, run, device=CPU, resume=True)
        assert load_config(run) == longer
    with pytest.raises(RunError, match=r"epochs: the run in .* has had 2, received 1"):
        train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU, resume=True)


def test_a_run_killed_in_its_first_epoch_may_be_told_other_epochs(config, npz, tmp_path):
    run = tmp_path / "run"
    open_run(run, config, "images", resume=False)  # all that it leaves
    other = dataclasses.replace(config, epochs=config.epochs + 1)
    assert open_run(run, other, "images", resume=True) is None
    assert load_config(run) == other


def test_a_run_is_resumed_by_its_own_configuration(npz, tmp_path, capsys):
    run = tmp_path / "run"
    run_main(*arguments(npz, run, "--preset", "vae", "--z-dim", 8, "--epochs", 1))
    config = load_config(run)
    run_main("--out", run, "--resume", "--epochs", 2)
    assert load_config(run) == dataclasses.replace(config, epochs=2)
    run_main("--out", run, "--resume", "--preset", "vae", "--epochs", 3)
    assert load_config(run) == dataclasses.replace(config, epochs=3)
    assert [row["epoch"] for row in load_state(run).history] == [1, 2, 3]
    with pytest.raises(SystemExit) as exit:
        run_main("--out", run, "--resume", "--preset", "default")
    assert exit.value.code == 2
    assert "preset: the run in" in capsys.readouterr().err


def test_the_usual_folder_of_a_preset_is_resumed_by_its_name(npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_preset = ("--preset", "vae", "--data", npz, "--device", "cpu")
    run_main(*of_preset, "--batch-size", 16, "--epochs", 1)
    run_main(*of_preset, "--resume", "--epochs", 2)
    run = tmp_path / "runs" / "vae-small"
    assert load_config(run).batch_size == 16
    assert [row["epoch"] for row in load_state(run).history] == [1, 2]


def test_images_that_moved_are_known_again(config, npz, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved.npz"
    moved.write_bytes(npz.read_bytes())
    there = dataclasses.replace(config, data=str(moved), epochs=2)
    open_run(run, dataclasses.replace(config, epochs=1), "images", resume=False)
    with pytest.raises(RunError, match=r"data: the run in .* has '.*small.npz', received"):
        open_run(run, there, "images", resume=True)  # before an epoch there is nothing to tell by
    train.train(
        dataclasses.replace(config, epochs=1), load_data(str(npz)), run, device=CPU, resume=True
    )
    train.train(there, load_data(str(moved)), run, device=CPU, resume=True)
    assert load_config(run) == there


def test_of_labels_that_are_trained_with_no_images_tell(config, npz, tmp_path):
    run = tmp_path / "run"
    config = dataclasses.replace(config, class_conditional=True, epochs=1)
    train.train(config, load_data(str(npz)), run, device=CPU)
    with pytest.raises(RunError, match=r"data: the run in"):
        open_run(run, dataclasses.replace(config, data="moved.npz"), "images", resume=True)


def test_a_state_of_another_version_is_one_refusal(config, npz, tmp_path):
    run, data = tmp_path / "run", load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    whole = torch.load(run / STATE, weights_only=True)
    for part in ("model", "optimiser"):
        state = torch.load(run / STATE, weights_only=True)
        state[part].pop(next(reversed(state[part])))
        torch.save(state, run / STATE)
        with pytest.raises(RunError, match="resume: expected the state of a model of this version"):
            train.train(config, data, run, device=CPU, resume=True)
        torch.save(whole, run / STATE)


def test_metrics_of_an_older_version_stay_beside_those_of_this_one(config, npz, tmp_path):
    run, data = tmp_path / "run", load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    state = torch.load(run / STATE, weights_only=True)
    (row,) = state["history"]
    row["of_old"] = row.pop("kl_rate")
    torch.save(state, run / STATE)
    train.train(dataclasses.replace(config, epochs=2), data, run, device=CPU, resume=True)
    first, second = table(run)
    assert (first["kl_rate"], second["of_old"]) == ("", "")
    assert float(first["of_old"]) == row["of_old"]
    assert float(second["kl_rate"]) > 0


def test_lost_weights_are_not_asked_of_a_run_that_cannot_make_them(config, npz, tmp_path):
    run, data = tmp_path / "run", load_data(str(npz))
    open_run(run, config, "images", resume=False)
    with pytest.raises(RunError, match=r"let the run finish an epoch, with .* --resume"):
        load_encoder(run)
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU, resume=True)
    (run / WEIGHTS).unlink()
    for look in (load_encoder, lambda run: open_run(run, config, "images", resume=True)):
        with pytest.raises(RunError, match=r"restore them, or train again with another --out"):
            look(run)


def test_images_that_changed_since_a_run_was_trained_are_refused(npz, tmp_path, capsys):
    """Else some that are held out for testing now may have been trained on."""
    from dim import embed, evaluate, neighbours

    images = np.load(npz)["x_train"]
    mine, run = tmp_path / "mine.npz", tmp_path / "run"
    np.savez(mine, x_train=images[:80])
    run_main(*arguments(mine, run, "--epochs", 1))
    neighbours.main([str(run)])
    np.savez(mine, x_train=images[:81])
    of_today = tmp_path / "today"
    run_main(*arguments(mine, of_today, "--epochs", 1))
    for command in (
        lambda: run_main(*arguments(mine, run, "--resume")),
        lambda: evaluate.main([str(run)]),
        lambda: neighbours.main([str(run)]),
        lambda: neighbours.main([str(of_today), str(run), "--out", str(tmp_path / "n.png")]),
        lambda: embed.main([str(run), "--out", str(tmp_path / "z.npy")]),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            command()
        assert stop.value.code == 2
        assert "data: expected the training images of the run in" in capsys.readouterr().err
    embed.main([str(run), "--out", str(tmp_path / "z.npy"), "--data", str(mine)])


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


def test_a_folder_in_use_is_refused_before_images_are_read(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SystemExit):
        run_main(*arguments(tmp_path / "nowhere.npz", tmp_path))
    assert "out: expected a new folder" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_epoch(config, npz, tmp_path):
    run = tmp_path / "run"
    data = load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    state = torch.load(run / STATE, weights_only=True)
    for group in state["optimiser"]["param_groups"]:
        group["lr"] = float("nan")
    torch.save(state, run / STATE)
    before = (run / STATE).read_bytes()
    message = "weights: expected finite numbers, received others after step 1 of epoch 2; lower --l"
    with pytest.raises(RunError, match=message):
        train.train(config, data, run, device=CPU, resume=True)
    assert (run / STATE).read_bytes() == before
    load_encoder(run)


@pytest.mark.parametrize(("share", "written"), [(1e-9, [1, 4]), (1e9, [1, 2, 3, 4])])
def test_checkpoints_take_a_share_of_the_time(config, npz, tmp_path, monkeypatch, share, written):
    epochs, save_run = [], train.save_run

    def save(run, model, state, images):
        epochs.append(len(state.history))
        save_run(run, model, state, images)

    monkeypatch.setattr(train, "SAVING", share)
    monkeypatch.setattr(train, "save_run", save)
    config = dataclasses.replace(config, epochs=4)
    train.train(config, load_data(str(npz)), tmp_path / "run", device=CPU)
    assert epochs == written


def test_a_bad_batch_is_found_again_from_an_older_checkpoint(config, npz, tmp_path, monkeypatch):
    run, data = tmp_path / "run", load_data(str(npz))
    config = dataclasses.replace(config, epochs=3)
    ahead = train.Training(config, data, CPU)
    for _ in range(2):
        for batch in ahead.batches():
            ahead.step(batch)
    ahead.step(ahead.batches()[0])
    step = train.Training.step

    def spoiled(training, batch):
        losses, features = step(training, batch)
        bad = training.taken == 2 * training.steps + 2
        return losses._replace(total=losses.total * torch.nan if bad else losses.total), features

    monkeypatch.setattr(train, "SAVING", 1e-9)
    monkeypatch.setattr(train.Training, "step", spoiled)
    with pytest.raises(RunError, match="at step 2 of epoch 3;"):
        train.train(config, data, run, device=CPU)
    assert len(load_state(run).history) == 1
    with safe_open(run / "bad_batch.safetensors", "pt") as file:
        kept = file.get_tensor("model.encoder.z_mean.weight")
    assert torch.equal(kept, ahead.model.encoder.z_mean.weight)


@pytest.mark.parametrize(("finished", "views"), [(0, 1), (1, 1), (1, 2)])
def test_the_batch_of_a_bad_loss_and_the_model_that_met_it_are_kept(
    config, npz, tmp_path, monkeypatch, finished, views
):
    """One image is made bad: with what is kept, its loss can be had again, and without it not."""
    run, data = tmp_path / "run", load_data(str(npz))
    config = dataclasses.replace(config, class_conditional=True, views=views)
    if finished:
        train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    ahead = train.Training(config, data, CPU)
    if finished:
        ahead.restore(load_state(run))
    batches = ahead.batches()
    ahead.taken += 2
    bad = [view for view in ahead.views(batches[2]) if view is not None][-1][0]
    met, normalise = [], Encoder.normalise

    def spoil(encoder, images):
        spoiled = bool((images == bad).all((1, 2, 3)).any())
        met.append((encoder.z_mean.weight.detach().clone(), spoiled))
        return normalise(encoder, images) * (torch.nan if spoiled else 1.0)

    monkeypatch.setattr(train, "LOG_EVERY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "normalise", spoil)
        with pytest.raises(RunError, match="holds the batch and the model") as refused:
            train.train(config, data, run, device=CPU, resume=True)
    assert f"at step 3 of epoch {finished + 1};" in str(refused.value)
    assert sum(bool(weight.isnan().any()) for weight, _ in met) == 1, "found at step 4"
    with safe_open(run / "bad_batch.safetensors", "pt") as file:
        assert file.metadata()["step"] == "3"
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert torch.equal(kept["model.encoder.z_mean.weight"], met[2][0])
    assert ("others" in kept) == (views == 2)
    assert (kept["others" if views == 2 else "images"] == bad).all((1, 2, 3)).sum() == 1
    model = build_model(config, 16, classes=3)
    model.load_state_dict(
        {name[6:]: tensor for name, tensor in kept.items() if name.startswith("model.")}
    )

    def total():
        generator = torch.Generator().set_state(kept["generator"])
        others = kept.get("others")
        losses, _ = model(kept["images"], kept["labels"], others=others, generator=generator)
        return losses.total

    assert total().isfinite()
    monkeypatch.setattr(Encoder, "normalise", spoil)
    assert total().isnan()
    assert (run / STATE).exists() == bool(finished)
    monkeypatch.undo()
    train.train(config, data, run, device=CPU, resume=True)


@pytest.mark.parametrize("last", [False, True])
def test_weights_that_are_lost_are_told_from_the_losses_after_them(
    config, npz, tmp_path, monkeypatch, last
):
    """The loss of the second or last step is finite, what it makes of the weights is not."""
    run, data, step = tmp_path / "run", load_data(str(npz)), train.Training.step
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    before = (run / STATE).read_bytes()
    ahead = train.Training(config, data, CPU)
    ahead.restore(load_state(run))
    number = ahead.steps if last else 2
    for batch in ahead.batches()[: number - 1]:
        ahead.step(batch)

    def spoiled(training, batch):
        returned = step(training, batch)
        if training.taken == training.steps + number:
            torch.nn.init.constant_(training.model.encoder.z_mean.bias, torch.nan)
        return returned

    monkeypatch.setattr(train.Training, "step", spoiled)
    with pytest.raises(RunError, match=f"received others after step {number} of epoch 2"):
        train.train(config, data, run, device=CPU, resume=True)
    assert (run / STATE).read_bytes() == before
    with safe_open(run / "bad_batch.safetensors", "pt") as file:
        kept = file.get_tensor("model.encoder.z_mean.weight")
    assert torch.equal(kept, ahead.model.encoder.z_mean.weight)


def test_losses_whose_sum_overflows_are_no_lost_model(config, npz, tmp_path, monkeypatch):
    step = train.Training.step

    def large(training, batch):
        losses, features = step(training, batch)
        return losses._replace(prior=torch.tensor(3e38)), features

    monkeypatch.setattr(train.Training, "step", large)
    config = dataclasses.replace(config, epochs=1)
    train.train(config, load_data(str(npz)), tmp_path / "run", device=CPU)
    assert float(table(tmp_path / "run")[0]["prior"]) == pytest.approx(3e38)


def test_a_broken_or_malicious_checkpoint_is_refused_and_not_executed(config, npz, tmp_path):
    run = tmp_path / "run"
    data = load_data(str(npz))
    train.train(dataclasses.replace(config, epochs=1), data, run, device=CPU)
    whole = torch.load(run / STATE, weights_only=True)
    owned = tmp_path / "owned"

    class Malice:
        def __reduce__(self):
            return os.system, (f"touch {owned}",)

    hidden = io.BytesIO()
    torch.save({**whole, "history": [{"epoch": Malice()}]}, hidden)
    plain = pickle.dumps(Malice())
    for content in (b"half a file", (run / STATE).read_bytes()[:-100], plain, hidden.getvalue()):
        (run / STATE).write_bytes(content)
        with pytest.raises(RunError, match=r"training.pt: expected a training state"):
            train.train(config, data, run, device=CPU, resume=True)
    assert not owned.exists()
    torch.load(run / STATE, weights_only=False)
    assert owned.exists(), "the payload would have worked"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, METRICS, STATE])
def test_a_full_disk_leaves_the_last_epoch_and_says_so(config, npz, tmp_path, capsys, name):
    run = tmp_path / "run"
    if name == CONFIG:
        run.mkdir()
    else:
        train.train(dataclasses.replace(config, epochs=1), load_data(str(npz)), run, device=CPU)
    before = {path: path.read_bytes() for path in run.iterdir() if path.name != CONFIG}
    (run / f".{name}.part").symlink_to("/dev/full")
    with pytest.raises(SystemExit) as stop:
        run_main(*arguments(npz, run, "--resume"))
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert error == (
        f"error: {run / name}: expected to write it, received: {os.strerror(errno.ENOSPC)}; make "
        f"room, then run this again (training with --resume); nothing that was written before is "
        f"lost"
    )
    assert not list(run.glob(".*")), "temporary files are left"
    assert all(path.read_bytes() == content for path, content in before.items())
    run_main(*arguments(npz, run, "--resume"))
    assert len(load_state(run).history) == 2


def test_a_failing_write_leaves_the_file_before(tmp_path):
    path = tmp_path / "weights"
    path.write_text("before")

    def fill(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match="weights: expected to write it, received: No space left"):
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
        run_main(*arguments(npz, tmp_path / "run", "--resume"))
    assert "keeps its last checkpoint: go on with --resume" in capsys.readouterr().err
    monkeypatch.setattr(train.tyro, "cli", interrupt)  # before it is known which run
    with pytest.raises(SystemExit):
        run_main(*arguments(npz, tmp_path / "run"))
    assert capsys.readouterr().err == "\nstopped\n"


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
    "change",
    [
        {"epochs": -1},
        {"z_dim": 0},
        {"head_units": 0},
        {"alpha": -1.0},
        {"batch_size": 1},
        {"negatives_k": 0},
    ],
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
