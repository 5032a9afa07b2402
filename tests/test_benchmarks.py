"""The benchmarks run, say how they were run, and refuse what they cannot do."""

import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import gaussian_mi
import matplotlib.image
import negatives
import presets
import pytest
import resumable
import speed
import torch
from infomax_terms import few
from provenance import provenance

from dim import PRESETS, RunError, build_model, load_data
from dim.checkpoint import write_atomically
from dim.evaluate import Battery
from dim.train import Training

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
PRESETS_JSON = SCRIPTS / "results" / "presets.json"


def run(*arguments, cwd, script="gaussian_mi.py"):
    command = [sys.executable, "-W", "error", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def gpu_script(*arguments, python="python"):
    """All that needs a GPU; with `echo` for Python it tells its commands."""
    command = ["bash", str(SCRIPTS / "gpu.sh"), *map(str, arguments)]
    environment = {**os.environ, "PYTHON": python}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    done = run("--smoke", "--out", "results", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "results"


def test_json_says_how_it_was_made(smoke):
    content = json.loads((smoke[1] / "gaussian_mi.json").read_text())
    assert content["command"] == "python benchmarks/gaussian_mi.py --smoke --out results"
    commit = content["versions"].pop("commit")
    assert commit is None or re.fullmatch("[0-9a-f]{12}(-dirty)?", commit)
    assert content["versions"].keys() == {"python", "torch", "numpy", "mi_estimators"}
    assert all(content["versions"].values())
    assert content["hardware"]["cpu"]
    assert content["hardware"]["cores"] >= 1
    assert content["options"]["seeds"] == 1
    assert content["options"]["batch_size"] == 32
    assert {row["seed"] for row in content["rows"]} == {0, 1}


def test_commands_say_no_paths_of_the_machine(tmp_path):
    content = provenance("x.py", ["--out", str(tmp_path / "results"), "--n", "5"], {}, "cpu")
    assert content["command"] == "python benchmarks/x.py --out results --n 5"


def test_every_objective_has_its_rows(smoke):
    out, folder = smoke
    content = json.loads((folder / "gaussian_mi.json").read_text())
    methods = {"JSD", "JSD, read out by DV", "SMILE", "DV", "MINE", "NWJ", "InfoNCE"}
    cells = {(row["y"], row["method"], row["true"]) for row in content["staircase"]}
    assert cells == {(y, m, t) for y in ("plain", "cubic") for m in methods for t in (0, 1)}
    assert {(row["objective"], row["negatives"]) for row in content["negatives"]} == {
        *((objective, k) for objective in ("JSD", "DV", "InfoNCE") for k in (1, 3)),
        ("true log-ratio", 3),
    }
    for row in content["staircase"]:
        assert row["mean"] - row["true"] == pytest.approx(row["bias"])
        assert row["RMSE"] == pytest.approx(abs(row["bias"]))  # one seed
        assert row["sd"] is None
        assert row["seconds"] > 0
        if row["true"] == 0:
            assert row["mean"] == pytest.approx(0, abs=0.05)
    for name in ("true", "mean", "bias", "sd", "RMSE", "seconds", *methods):
        assert name in out


def test_the_true_log_ratio_is_read_out_right(smoke):
    content = json.loads((smoke[1] / "gaussian_mi.json").read_text())
    for row in content["staircase"]:
        # At 1 nat the standard error is 0.05; InfoNCE misses a little more, with 31 negatives.
        tolerance = 0.2 if row["true"] else 1e-6
        assert row["true log-ratio"] == pytest.approx(row["true"], abs=tolerance)


@pytest.mark.parametrize("name", ["gaussian_mi.png", "negatives.png"])
def test_figures_show_something(smoke, name):
    image = matplotlib.image.imread(smoke[1] / name)
    assert min(image.shape[:2]) > 400
    assert image[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "1"), "--batch-size: expected at least 2, received 1"),
        (("--mi", "2", "-1"), "--mi: expected at least 0, received (2.0, -1.0)"),
        (("--mi", "nan"), "--mi: expected at least 0"),
        (("--negatives", "0"), "--negatives: expected at least 1"),
        (("--readout", "64"), "--readout: expected at least 128, received 64"),
        (("--mi", "1000"), "nats must be under"),
        (("--critic", "bilinear"), "--critic"),
        (("--sedes", "3"), "--sedes"),
    ],
)
def test_bad_options_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        gaussian_mi.main([*arguments, "--out", str(tmp_path / "results")])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results").exists()


def test_a_mistake_on_the_command_line_shows_no_traceback(tmp_path):
    done = run("--batch-size", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: --batch-size: expected at least 2, received 1\n"


@pytest.mark.slow
def test_the_term_ablation_runs_and_says_how(tmp_path):
    arguments = ("--data", "digits", "--no-study", "--smoke", "--out", "results")
    done = run(*arguments, cwd=tmp_path, script="infomax_terms.py")
    assert done.returncode == 0, done.stderr
    assert "| default, local only | 1 |" in done.stdout
    content = json.loads((tmp_path / "results" / "infomax_terms.json").read_text())
    assert content["command"].startswith("python benchmarks/infomax_terms.py --data digits")
    assert {row["run"] for row in content["rows"]} >= {"global only", "local only", "both"}


def test_the_term_ablation_names_missing_data(tmp_path):
    done = run("--data", "nowhere.npz", "--smoke", cwd=tmp_path, script="infomax_terms.py")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "nowhere.npz" in done.stderr


def test_which_number_draws_its_figures(tmp_path):
    done = run("--smoke", "--out", "results", cwd=tmp_path, script="which_number.py")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results" / "which_number.json").read_text())
    assert {row["figure"] for row in content["rows"]} == {
        "bracket", "samples", "deterministic", "parts"
    }  # fmt: skip
    for row in content["rows"]:
        assert (row["true"] is None) == (row["law"] == "deterministic")
        assert row["low"] <= row["value"] <= row["high"]
        assert row["certified"] <= row["ceiling"]
    for figure in ("bracket", "samples", "deterministic", "parts"):
        image = matplotlib.image.imread(tmp_path / "results" / f"which_number_{figure}.png")
        assert image.std() > 0.01


def test_many_samples_takes_memory_and_time_of_processes_of_their_own(tmp_path):
    done = run("--smoke", "--out", "results", cwd=tmp_path, script="many_samples.py")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results" / "many_samples.json").read_text())
    assert content["command"] == "python benchmarks/many_samples.py --smoke --out results"
    assert [row["n"] for row in content["rows"]] == [200, 400]
    for row in content["rows"]:
        assert 0.1 < row["peak_gib"] < 2
        assert row["cpu_seconds"] > 0
        assert f"peak_gib {row['peak_gib']}" in done.stdout


@pytest.mark.slow
def test_presets_are_trained_probed_and_not_repeated(tmp_path):
    arguments = ("--data", "digits", "--runs", "vae", "default", "--smoke", "--out", "results")
    first, again = (run(*arguments, cwd=tmp_path, script="presets.py") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "| vae | digits | 1 | 1 |" in first.stdout
    assert "54.61 / 60.54 / 60.71" in first.stdout
    assert "default, seed 0" in first.stderr
    assert "default, seed 0" not in again.stderr
    assert again.stdout == first.stdout
    rows = json.loads((tmp_path / "results" / "presets.json").read_text())["rows"]
    assert [row["run"] for row in rows] == ["default", "vae"]
    assert {(row["source"], row["precision"]) for row in rows} == {("digits", "auto")}
    assert rows[0]["command"].startswith("python benchmarks/presets.py --data digits --runs vae")
    for row in rows:
        assert 0 < row["seconds_of_epochs"] <= row["seconds_here"]
    assert {probe["layer"] for probe in rows[0]["probes"]} == {"z_mean", "hidden", "conv"}


@pytest.mark.parametrize(("views", "layers"), [(1, {"z_mean"}), (2, {"z_mean", "hidden"})])
def test_of_two_views_the_layer_that_others_report_has_all_probes(views, layers):
    config = replace(PRESETS["default"], head_units=8, views=views)
    data, battery = few(load_data("digits")), Battery(neighbours=(1,), svm=False, mlp_epochs=1)
    model = build_model(config, data.x_train.shape[-1]).eval()
    rows = presets.probed(config, model, data, battery)["probes"]
    assert {row["layer"] for row in rows if "1-NN" in row["accuracy"]} == layers
    assert {row["layer"] for row in rows if "MLP" in row["accuracy"]} == {*presets.LAYERS}


def test_readme_has_the_table_of_the_presets_results():
    done = run(str(PRESETS_JSON), cwd=SCRIPTS, script="presets_table.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 2 * len(PRESETS)
    assert done.stdout in (SCRIPTS.parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expected one row, received two"),
        (
            {"seed": 1, "config": {"image_size": 32}},
            "expected today's configuration, received preset 'default'",
        ),
    ],
)
def test_a_table_is_not_made_of_a_run_twice_or_of_another_configuration(tmp_path, changes, message):
    row = resumable.known_rows(PRESETS_JSON)[0]
    path = tmp_path / "presets.json"
    path.write_text(json.dumps({"rows": [row, row | changes]}))
    done = run(str(path), cwd=tmp_path, script="presets_table.py")
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(("name", "code"), [("vae", 0), ("fast", 2), ("untrained su", 0)])
def test_a_table_asks_for_the_same_objective_where_there_is_one(tmp_path, name, code):
    rows = resumable.known_rows(PRESETS_JSON)
    row = next(row for row in rows if row["run"] == name)
    path = tmp_path / "presets.json"
    path.write_text(json.dumps({"rows": [row | {"config": row["config"] | {"objective": "dv"}}]}))
    done = run(str(path), cwd=tmp_path, script="presets_table.py")
    assert done.returncode == code, done.stderr


def test_what_is_in_the_results_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "run", lambda name, *_: pytest.fail(f"{name} is trained again"))
    path = tmp_path / "rows.json"
    for row in resumable.known_rows(PRESETS_JSON):
        path.write_text(json.dumps({"rows": [row]}))
        options = resumable.TrainingOptions(
            row["source"],
            seeds=(row["seed"],),
            epochs=row["options"]["epochs"],
            precision=row["precision"],
            mlp_epochs=row["options"]["mlp_epochs"],
            device="cpu",
        )
        runs = {row["run"]: presets.RUNS[row["run"]]}
        found = resumable.carry_out(runs, options, None, path=path, script="presets", argv=[])
        assert found == ([row], [])


def test_a_table_has_a_line_for_each_number_of_epochs_that_there_is_or_one(tmp_path):
    """And not for what was asked of others."""
    rows = resumable.known_rows(PRESETS_JSON)
    row = next(row for row in rows if row["run"] == "vae")
    longer = {"epochs": 99, "config": row["config"] | {"epochs": 99}}
    longer |= {"options": row["options"] | {"epochs": 99}}
    path = tmp_path / "presets.json"
    path.write_text(json.dumps({"rows": [row, row | longer]}))
    done = run(str(path), cwd=tmp_path, script="presets_table.py")
    epochs = Counter(line.split(" | ")[0] for line in done.stdout.splitlines()[2:])
    assert epochs.pop("| vae") == 2
    assert set(epochs[f"| {name}"] for name in presets.RUNS if name != "vae") == {1}


def test_a_table_is_made_of_runs_that_are_known_before_an_option_was_and_of_no_others(tmp_path):
    path = tmp_path / "presets.json"
    done = run(str(path), cwd=tmp_path, script="presets_table.py")
    assert (done.returncode, done.stderr.count("path: expected a result file")) == (2, 1)
    rows = resumable.known_rows(PRESETS_JSON)
    row = next(row for row in rows if row["run"] == "vae")
    of_before = {name: value for name, value in row["config"].items() if name != "occlusion"}
    for changes, code in (({"config": of_before}, 0), ({"run": "vea"}, 2)):
        path.write_text(json.dumps({"rows": [row | changes]}))
        done = run(str(path), cwd=tmp_path, script="presets_table.py")
        assert done.returncode == code, done.stderr
    assert "expected one of paper-local-jsd" in done.stderr


def test_a_table_is_not_made_of_seeds_that_were_probed_differently(tmp_path):
    rows = resumable.known_rows(PRESETS_JSON)
    one = next(row for row in rows if row["seed"] == 1)
    same = ("run", "source", "epochs")
    other = next(r for r in rows if r["seed"] == 0 and all(r[n] == one[n] for n in same))
    path = tmp_path / "presets.json"
    for more, code in ((0, 0), (1, 2)):
        probed = other["options"] | {"mlp_epochs": other["options"]["mlp_epochs"] + more}
        path.write_text(json.dumps({"rows": [one, other | {"options": probed}]}))
        done = run(str(path), cwd=tmp_path, script="presets_table.py")
        assert done.returncode == code, done.stderr
    assert "expected 100 mlp_epochs as in its other seeds, received 101" in done.stderr


@pytest.mark.slow
def test_presets_are_drawn_beside_pixels_and_no_training(tmp_path):
    """Of those that are asked for, those that are done."""
    arguments = ("--data", "digits", "--runs", "default", "--smoke", "--out", "results")
    done = run(*arguments, "--neighbours", cwd=tmp_path, script="presets.py")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results" / "presets_neighbours.json").read_text())
    assert content["command"].endswith("--out results --neighbours")
    assert list(content["precision_at_9"]) == ["raw pixels", "untrained", "default"]
    for title, share in content["precision_at_9"].items():
        assert 0.1 < share < 1
        assert f"precision@9, {title}: {100 * share:.1f} %" in done.stdout
    image = matplotlib.image.imread(tmp_path / "results" / "presets_neighbours.png")
    assert image.shape[1] > 3000


@pytest.mark.slow
def test_presets_stop_when_the_time_is_over(tmp_path):
    arguments = ("--data", "digits", "--runs", "vae", "--smoke", "--minutes", "1e-3")
    done = run(*arguments, "--out", "results", cwd=tmp_path, script="presets.py")
    assert done.returncode == 0, done.stderr
    assert "minutes are over; the same command goes on, and with more --minutes: vae" in done.stderr
    assert "| vae | digits | 1 | 0 | not run |" in done.stdout
    assert not (tmp_path / "results" / "presets.json").exists()


def test_two_views_are_trained_without_a_graph(tmp_path, monkeypatch):
    """In whatever else is run with one."""
    seen = {}

    def stop(config, *_, graph, **__):
        seen[config.preset] = graph, config.batch_size
        raise resumable.TimeOver

    monkeypatch.setattr(resumable, "train", stop)
    options = resumable.TrainingOptions("digits", graph=True, smoke=True, folder=tmp_path)
    for name in ("default", "two-view"):
        config = resumable.as_told(PRESETS[name], options, 0)
        with pytest.raises(resumable.TimeOver):
            resumable.run(name, config, options, None, time.monotonic() + 60)
    assert seen == {"default": (True, 64), "two-view": (False, 64)}


def test_the_gpu_script_passes_no_graph_to_two_views(tmp_path):
    """Its commands, with `echo` in place of Python."""
    stages = ("two-view", "own-seeds", "default")
    done = gpu_script("x.npz", "out", *stages, python="echo")
    assert done.returncode == 0, done.stderr
    two_view, seeds, default = done.stdout.splitlines()
    assert "--runs two-view" in two_view
    assert "--graph" not in two_view
    assert seeds.endswith("*vae --epochs 1000 --seeds 0 1 2 --graph")
    assert default.endswith("default, relative, occlusion fast --epochs 1000 --graph")
    assert "two-view" not in seeds


def test_the_gpu_script_runs_each_stage_once_by_importance():
    done = gpu_script("x.npz", "out", python="echo")
    assert done.returncode == 0, done.stderr
    stages = [line.removeprefix("== ") for line in done.stderr.splitlines()]
    told = dict(zip(stages, done.stdout.splitlines(), strict=True))
    assert stages[:10] == [
        "correct", "local-jsd", "whole", "speed", "local-infonce", "su-kl", "default", "global",
        "negatives", "local-dv",
    ]  # fmt: skip
    for stage, runs in (
        ("local-jsd", "paper-local-jsd"),
        ("local-infonce", "paper-local-infonce"),
        ("su-kl", "su-kl*"),
        ("global", "paper-global paper-local-global"),
        ("local-dv", "paper-local-dv"),
        ("two-view", "two-view"),
    ):  # each preset's own number of epochs, one seed
        assert f"--minutes 7 --runs {runs}" in told[stage]
        assert "--epochs" not in told[stage]
        assert "--seeds" not in told[stage]
    assert "--neighbours" in told["su-kl"]
    assert "whole_run.py --data x.npz --out out --preset su-kl --graph" in told["whole"]


@pytest.mark.slow
def test_a_whole_run_is_timed_from_the_command_to_its_report(tmp_path):
    arguments = ("--preset", "fast", "--data", "digits", "--smoke", "--out", "results")
    done = run(*arguments, cwd=tmp_path, script="whole_run.py")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout  # of dim.train
    assert "fast, 1 epochs, figure and probes: " in done.stdout
    content = json.loads((tmp_path / "results" / "whole_run.json").read_text())
    assert (
        content["command"]
        == "python benchmarks/whole_run.py --preset fast --data digits --smoke --out results"
    )
    assert (content["config"]["preset"], content["config"]["epochs"]) == ("fast", 1)
    assert content["seconds"] > 1000 / content["images_per_second"][0]


def test_a_whole_run_that_fails_ends_with_its_code(tmp_path):
    arguments = ("--data", "nowhere.npz", "--out", "results")
    done = run(*arguments, cwd=tmp_path, script="whole_run.py")
    assert (done.returncode, (tmp_path / "results").exists()) == (2, False)
    assert "nowhere.npz" in done.stderr


def test_the_gpu_script_goes_on_after_a_stage_that_fails():
    done = gpu_script("x.npz", "out", "two-view", "default", python="false")
    assert done.returncode == 1
    assert done.stderr == "== two-view\n== default\nfailed: two-view default\n"


def test_what_is_trained_when_the_time_is_over_is_still_probed(tmp_path, monkeypatch, capsys):
    """For probes keep no checkpoints; cut off each time, they would never end."""
    alarms = []

    def look(config, model, data):
        alarms.append(signal.getitimer(signal.ITIMER_REAL)[0])
        monkeypatch.setattr(time, "monotonic", lambda: math.inf)
        return {}

    options = resumable.TrainingOptions("digits", smoke=True, folder=tmp_path)
    runs = dict.fromkeys(("one", "two"), replace(PRESETS["default"], epochs=0))
    path = tmp_path / "rows.json"
    rows, failed = resumable.carry_out(runs, options, look, path=path, script="presets", argv=[])
    assert [row["run"] for row in rows] == ["one"]
    assert not failed
    assert alarms == [0]
    assert "minutes are over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RunError("loss: expected finite numbers, received others"), "loss: expected finite"),
        (RuntimeError("CUDA error: an illegal memory access"), "CUDA error"),
        (None, "not JSON compliant"),
    ],
)
def test_a_run_that_fails_keeps_no_other_from_its_turn(tmp_path, monkeypatch, error, message):
    def run(name, *_):
        if name == "one" and error:
            raise error
        seen = {"accuracy": math.nan} if name == "one" else {}
        return {"config": resumable.recorded(PRESETS["vae"], 32)} | seen

    monkeypatch.setattr(resumable, "run", run)
    outcome = resumable.carry_out(
        {name: PRESETS["vae"] for name in ("one", "two")},
        resumable.TrainingOptions("digits"),
        None,
        path=tmp_path / "rows.json",
        script="presets",
        argv=[],
    )
    assert [row["run"] for row in outcome.rows] == ["two"]
    with pytest.raises(RunError, match=f"one, seed 0: .*{message}"):
        outcome.check()


def test_no_epoch_at_all_is_refused(tmp_path):
    done = run("--data", "digits", "--epochs", "0", cwd=tmp_path, script="presets.py")
    assert done.returncode == 2
    assert "epochs: expected at least 1, received 0" in done.stderr


def test_the_end_of_the_time_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(resumable.TimeOver):
        write_atomically(tmp_path / "state", lambda path: resumable.stop())
    assert not list(tmp_path.iterdir())


def test_neighbours_are_drawn_before_and_after_training(tmp_path):
    arguments = ("--data", "digits", "--smoke", "--out", "results")
    done = run(*arguments, cwd=tmp_path, script="tiny_imagenet_neighbours.py")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results" / "tiny_imagenet_neighbours.json").read_text())
    assert content["command"] == (
        "python benchmarks/tiny_imagenet_neighbours.py --data digits --smoke --out results"
    )
    assert content["images"] == {"train": 200, "test": 100}
    assert content["precision_at_9"].keys() == {"untrained", "after 1 epochs"}
    for title, share in content["precision_at_9"].items():
        assert 0.3 < share < 1
        assert f"precision@9, {title}: {100 * share:.1f} %" in done.stdout
    image = matplotlib.image.imread(tmp_path / "results" / "tiny_imagenet_neighbours.png")
    assert image.shape[1] > 2000


@pytest.mark.slow
def test_speed_beside_a_port(tmp_path):
    arguments = ("--data", "digits", "--smoke", "--epochs", "1", "--out", "results")
    done = run(*arguments, cwd=tmp_path, script="speed.py")
    assert done.returncode == 0, done.stderr
    assert "| port |" in done.stdout
    content = json.loads((tmp_path / "results" / "speed.json").read_text())
    assert set(content["images_per_second"]) >= {"port", "eager"}
    assert all(len(found) == 2 for found in content["images_per_second"].values())
    assert [row["epoch"] for row in content["curves"]["port"]] == [1]
    assert matplotlib.image.imread(tmp_path / "results" / "speed.png").std() > 0.05


def test_the_port_takes_the_steps_of_the_library():
    data = few(load_data("digits"))
    config = replace(PRESETS["paper-local-jsd"], head_units=8, batch_size=16)
    port = speed.Port(config, data, torch.device("cpu"))
    ours = Training(config, data, torch.device("cpu"))
    for batch in ours.batches()[:3]:
        prepared = torch.stack([speed.Prepared(data.x_train)[index] for index in batch.tolist()])
        losses, _ = ours.step(batch)
        # The discriminators meet other noise, which reaches the encoder by a tenth of a step.
        assert port.step(prepared) == pytest.approx(losses.local.item(), abs=2e-3)


def test_only_the_compiled_variant_is_compiled(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: seen.append(self))  # takes minutes
    config = replace(PRESETS["paper-local-jsd"], head_units=8, batch_size=16)
    made = speed.variants(config, few(load_data("digits")), torch.device("cpu"), compiled=True)
    assert seen == [made["compiled"].training.shared]


@pytest.mark.slow
def test_objectives_are_compared_by_the_number_of_their_negatives(tmp_path):
    arguments = ("--data", "digits", "--counts", "1", "63", "--mlp-epochs", "0", "--smoke")
    command = (*arguments, "--out", "results")
    first, again = (run(*command, cwd=tmp_path, script="negatives.py") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "DV, 63 negatives, seed 0, 1 epochs" in first.stderr
    assert "seed" not in again.stderr
    assert again.stdout == first.stdout
    rows = json.loads((tmp_path / "results" / "infomax_negatives.json").read_text())["rows"]
    assert len(rows) == 6
    assert rows[0]["command"].startswith("python benchmarks/negatives.py --data digits --counts 1")
    for row in rows:
        config = row["config"]
        assert (config["alpha"], config["beta"], config["batch_size"]) == (0, 1, 64)
        assert config["negatives"] == ("shuffled" if ", 1 " in row["run"] else "in-batch")
        accuracy = 100 * row["probes"][0]["accuracy"]["linear"]
        (line,) = (x for x in first.stdout.splitlines() if row["run"].startswith(x[2:].split()[0]))
        assert line.split(" | ")[1 if ", 1 " in row["run"] else 2].rstrip(" |") == f"{accuracy:.1f}"
    image = matplotlib.image.imread(tmp_path / "results" / "infomax_negatives.png")
    assert image[..., :3].std() > 0.05


def test_accuracies_by_negatives_are_over_seeds():
    paper = PRESETS["paper-local-dv"]
    runs = {("DV", k): negatives.with_negatives(paper, k) for k in (3, 7)}
    assert [config.negatives_k for config in runs.values()] == [3, 7]

    def row(k, accuracy):
        name = negatives.name_of(("DV", k), paper)
        return {"run": name, "probes": [{"accuracy": {"MLP": accuracy}}]}

    found = negatives.accuracies([row(3, 0.5), row(3, 0.6), row(7, 0.4)], runs, "MLP")
    assert "| DV | 55.0 ± 7.1 | 40.0 | not run |" in negatives.table(found, "MLP", (3, 7, 15))
    assert "| JSD | not run | not run | not run |" in negatives.table(found, "MLP", (3, 7, 15))
    narrow = replace(paper, head_units=256)
    assert negatives.name_of(("DV", 3), narrow) == "DV, 3 negatives, 256 units"


def test_a_row_counts_for_the_run_that_made_it_and_no_other(tmp_path, monkeypatch, capsys):
    made = []

    def run(name, config, options, look, deadline):
        made.append(name)
        return {"config": resumable.recorded(config, 32)}

    monkeypatch.setattr(resumable, "run", run)
    path = tmp_path / "rows.json"

    def rows(config=PRESETS["vae"], *, name="vae", **changes):
        made.clear()
        options = resumable.TrainingOptions("digits", **changes)
        outcome = resumable.carry_out(
            {name: config}, options, None, path=path, script="presets", argv=[]
        )
        assert f"{len(options.seeds)} of {len(options.seeds)} runs" in capsys.readouterr().err
        return len(outcome.rows), len(made)

    assert rows() == (1, 1)
    assert rows() == (1, 0)
    assert rows(seeds=(0, 1)) == (2, 1)
    assert rows() == (2, 0), "of all seeds"
    assert rows(replace(PRESETS["vae"], learning_rate=0.1)) == (1, 1)
    for changes in ({"epochs": 3}, {"precision": "bfloat16"}, {"mlp_epochs": 7}, {"name": "v"}):
        assert rows(**changes) == (1, 1), changes
    monkeypatch.setattr(
        resumable, "made_by", lambda *_: {"options": {"mlp_epochs": 200}, "hardware": {"gpu": "H"}}
    )
    assert rows() == (1, 1), "on another device"


def test_a_row_waits_for_the_script_that_saves_its_own(tmp_path):
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting = threading.Thread(target=resumable.added, args=(tmp_path / "rows.json", {"run": "a"}))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    os.close(held)
    waiting.join(10)
    assert resumable.known_rows(tmp_path / "rows.json") == [{"run": "a"}]


def test_rows_that_others_add_meanwhile_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"

    def run(name, config, options, look, deadline):
        row = {"config": resumable.recorded(config, 32)}
        made = resumable.made_by(options, "presets", [])
        resumable.added(path, row | made | {"run": f"of another script, beside {name}", "seed": 0})
        return row

    monkeypatch.setattr(resumable, "run", run)
    options = resumable.TrainingOptions("digits")
    runs = {"vae": PRESETS["vae"]}
    resumable.carry_out(runs, options, None, path=path, script="presets", argv=[])
    names = [row["run"] for row in resumable.known_rows(path)]
    assert names == ["of another script, beside vae", "vae"]


def test_more_negatives_than_a_batch_has_are_refused(tmp_path):
    done = run("--data", "digits", "--counts", "64", "--smoke", cwd=tmp_path, script="negatives.py")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --counts: expected 1 to 63, the other images of a batch, received 64\n"
    )


def test_the_gpu_script_names_its_stages(tmp_path):
    done = gpu_script("digits", tmp_path, "coffee")
    assert done.returncode == 2
    assert "expected one of correct local-jsd" in done.stderr
    assert "received coffee" in done.stderr
    done = gpu_script("digits", "speed")
    assert done.returncode == 2
    assert "results: expected a folder before the stages, received the stage speed" in done.stderr
