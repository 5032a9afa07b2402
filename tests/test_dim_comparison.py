"""Several runs in one table, against cells recomputed from the accuracies of each."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dim.comparison
import dim.evaluate
import dim.measures
from dim import PRESETS, RunError, load_data, train
from dim.comparison import Evaluated, group_names, write_comparison
from dim.evaluate import main
from dim.measures import Measure
from dim.report import ProbeRow

QUICK = [
    "--neighbours",
    "1",
    "5",
    "--no-linear",
    "--no-svm",
    "--mlp-epochs",
    "0",
    "--device",
    "cpu",
]
BOTH = replace(PRESETS["default"], image_size=8, batch_size=16, head_units=8, z_dim=5, epochs=1)
PROBES = ["1-NN", "5-NN"]
GLOBAL = {"beta": 0.0, "delta": 0.0}
LOCAL = {"alpha": 0.0, "stochastic": False, "delta": 0.0}


@pytest.fixture(scope="module", autouse=True)
def patch():
    """Without the discriminator that takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        spread = lambda train, test: test.std().item()  # noqa: E731
        patch.setattr(dim.measures, "dependence_within", spread)
        yield patch


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Three classes that differ in colour, hidden in noise."""
    rng = np.random.default_rng(0)

    def part(n):
        labels = rng.integers(0, 3, n)
        images = rng.uniform(0, 200, (n, 8, 8, 3))
        images[np.arange(n), ..., labels] += 30
        return images.astype(np.uint8), labels

    folder = tmp_path_factory.mktemp("data")
    (x, y), (u, v) = part(90), part(40)
    np.savez(folder / "parts.npz", x_train=x, y_train=y, x_test=u, y_test=v)
    np.savez(folder / "one.npz", x_train=x, y_train=y)
    return folder


def trained(data, run, seed, **changes):
    config = replace(BOTH, data=str(data), seed=seed, **changes)
    images = load_data(config.data, image_size=8, seed=seed)
    train.train(config, images, run, device=torch.device("cpu"))
    return str(run)


@pytest.fixture(scope="module")
def runs(npz, tmp_path_factory):
    """Two seeds of the global term alone, noisy, and of the local one alone, without noise."""
    folder = tmp_path_factory.mktemp("runs")
    terms = {"global": GLOBAL, "local": LOCAL}
    return [
        trained(npz / "parts.npz", folder / f"{name}{seed}", seed, **change)
        for seed in (0, 1)
        for name, change in terms.items()
    ]


@pytest.fixture(scope="module")
def found(runs):
    """The folder with the comparison of all four."""
    main([*runs, *QUICK])
    return Path(runs[0]).parent


NAMES = {"global": "stochastic=True, alpha=0.1, beta=0.0", "local": "stochastic=False, alpha=0.0, "}
NAMES["local"] += "beta=1.0"


def lines_of(folder, title):
    """The cells of the table below a title."""
    after = (folder / "comparison.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in after.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def over(values, digits=".1f", of_sd=".1f"):
    return f"{np.mean(values):{digits}} ± {np.std(values, ddof=1):{of_sd}}"


# --- The tables -------------------------------------------------------------------------------


def test_every_cell_is_the_mean_and_sd_of_the_accuracies_of_its_seeds(found):
    header, *lines = lines_of(found, "Probes")
    assert header == ["run", "representation", "encoder", "n", "dimensions", *PROBES]
    each = json.loads((found / "comparison.json").read_text())["runs"]
    assert [(run["group"], run["seed"]) for run in each] == [
        (NAMES[name], seed) for seed in (0, 1) for name in ("global", "local")
    ]

    def row(run, layer, encoder):
        (one,) = (r for r in run["rows"] if (r["layer"], r["encoder"]) == (layer, encoder))
        return one

    expected = []
    for name, encoder, layers in (
        (NAMES["global"], "trained", ["z", "z_mean", "hidden", "conv"]),
        (NAMES["local"], "trained", ["z_mean", "hidden", "conv"]),
        ("basic32x32, z_dim=5", "untrained", ["z", "z_mean", "hidden", "conv"]),
    ):
        # The untrained encoders of one seed are the same; those of the global runs have z, too.
        of = name if encoder == "trained" else NAMES["global"]
        two = [run for run in each if run["group"] == of]
        assert len(two) == 2
        for layer in layers:
            rows = [row(run, layer, encoder) for run in two]
            cells = [over([100 * r["accuracy"][probe] for r in rows]) for probe in PROBES]
            dimensions = {"z": "5", "z_mean": "5", "hidden": "1,024", "conv": "256"}[layer]
            expected.append([name, layer, encoder, "2", dimensions, *cells])
    pixels = row(each[0], "pixels", "none")["accuracy"]
    errors = {probe: 100 * (p * (1 - p) / 40) ** 0.5 for probe, p in pixels.items()}
    cells = [f"{100 * pixels[probe]:.1f} ± {errors[probe]:.1f}" for probe in PROBES]
    expected.append(["", "pixels", "none", "1", "192", *cells])
    assert lines == expected


def test_the_file_has_means_and_deviations_and_what_made_them(found):
    content = json.loads((found / "comparison.json").read_text())
    assert content["protocol"] == dim.report.PROTOCOL
    assert [(group["name"], group["seeds"]) for group in content["groups"]] == [
        (NAMES["global"], [0, 1]),
        (NAMES["local"], [0, 1]),
    ]
    assert content["groups"][0]["config"]["beta"] == 0
    assert "seed" not in content["groups"][0]["config"]
    first, *_, last = content["rows"]
    values = [run["rows"][0]["accuracy"]["5-NN"] for run in content["runs"][::2]]
    assert (first["run"], first["representation"], first["n"]) == (NAMES["global"], "z", 2)
    assert first["accuracy"]["5-NN"]["mean"] == pytest.approx(np.mean(values))
    assert first["accuracy"]["5-NN"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert last["n"] == 1
    assert last["accuracy"]["5-NN"]["sd"] is None
    for one in content["measures"]:
        of_group = [run for run in content["runs"] if run["group"] == one["run"]]
        values = [
            m["value"] for run in of_group for m in run["measures"] if m["name"] == one["measure"]
        ]
        assert (one["n"], len(values)) == (2, 2)
        assert one["mean"] == pytest.approx(np.mean(values))
        assert one["sd"] == pytest.approx(np.std(values, ddof=1))


def test_measures_stand_side_by_side_where_they_apply(found):
    header, *lines = lines_of(found, "The code")
    assert header == ["measure, on test images", *(f"{n} (n = 2)" for n in NAMES.values()), ""]
    each = json.loads((found / "comparison.json").read_text())["runs"]
    names = list(dict.fromkeys(m["name"] for run in each for m in run["measures"]))
    assert [line[0] for line in lines] == names
    for name, *cells, _ in lines:
        for group, cell in zip(NAMES.values(), cells, strict=True):
            values = [
                m["value"]
                for run in each
                for m in run["measures"]
                if (run["group"], m["name"]) == (group, name)
            ]
            assert cell == (over(values, ".3g", ".1g") if values else "")
    assert dict(zip(names, lines, strict=True))[names[3]][1:3] != ["", ""]
    assert next(line for line in lines if line[0].startswith("rate"))[2] == ""


def test_the_page_is_the_same_and_says_which_runs(found, runs):
    text, html = ((found / f"comparison.{kind}").read_text() for kind in ("md", "html"))
    assert html == dim.page.page(text, found)
    assert f"- {NAMES['global']}: {runs[0]} (seed 0), {runs[2]} (seed 1)\n" in text
    assert "- parts.npz: 90 training and 40 test images of 8×8 pixels\n" in text
    assert text.count("parts.npz") == 1
    assert "The seed chose the test images" not in text


def test_each_run_has_the_report_that_it_has_alone_and_alone_it_is_not_compared(
    found, runs, tmp_path, capsys
):
    run = tmp_path / "alone" / "run"
    run.mkdir(parents=True)
    for path in Path(runs[2]).iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    for path in [*run.glob("report.*"), run / "probes.json"]:
        path.unlink()
    main([str(run), *QUICK])
    for name in ("report.md", "report.html", "probes.json"):
        assert (run / name).read_bytes() == (Path(runs[2]) / name).read_bytes()
    assert list(run.parent.iterdir()) == [run]
    assert "written" not in capsys.readouterr().out


def test_pixels_and_the_untrained_encoders_of_a_seed_are_probed_once(
    runs, tmp_path, monkeypatch, capsys
):
    probed, decoded, probe = [], [], dim.evaluate._probe

    def counted(layer, encoder, *more):
        probed.append((layer, encoder))
        return probe(layer, encoder, *more)

    def decode(codes, data, about, *, epochs):
        decoded.append(about)
        return Measure(about, codes.test.std().item(), "")

    monkeypatch.setattr(dim.evaluate, "_probe", counted)
    monkeypatch.setattr(dim.evaluate, "reconstruction_measure", decode)
    monkeypatch.setattr(dim.evaluate, "require_decodable", lambda side: None)  # these are too small
    out = tmp_path / "new" / "folder"
    main([*runs, "--out", str(out), *QUICK, "--decoder-epochs", "1"])
    assert probed.count(("pixels", "none")) == 1
    assert probed.count(("z_mean", "trained")) == 4
    assert [probed.count((layer, "untrained")) for layer in ("z", "z_mean", "conv")] == [2, 2, 2]
    before = "z_mean of the untrained encoder"
    assert (decoded.count("z_mean"), decoded.count(before)) == (4, 2)
    (cells,) = (line for line in lines_of(out, "The code") if line[0] == before)
    assert cells[1] == cells[2]  # the same two seeds
    printed = capsys.readouterr().out
    assert (out / "comparison.md").read_text() in printed
    assert f"written: {out / 'comparison.md'}" in printed


def test_a_seed_that_is_alone_has_the_error_of_its_own_report(runs, tmp_path):
    main([*runs[:3], "--out", str(tmp_path), *QUICK])
    _, *lines = lines_of(tmp_path, "Probes")
    (cells,) = (line[3:] for line in lines if line[:2] == [NAMES["local"], "hidden"])
    assert cells[0] == "1"
    own = (Path(runs[1]) / "report.md").read_text()
    assert f"| hidden | trained | {' | '.join(cells[1:])} |" in own
    assert [line[3] for line in lines if line[0] == NAMES["global"]] == ["2"] * 4


def test_where_the_seed_holds_images_out_each_run_is_tested_on_its_own(npz, tmp_path):
    data, runs = npz / "one.npz", [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        trained(data, run, seed)
    main([*map(str, runs), *QUICK])
    text = (tmp_path / "comparison.md").read_text()
    assert "72 training and 18 test images" in text
    assert "The seed chose the test images, too: each run has its own." in text
    each = [json.loads((run / "probes.json").read_text())["rows"][-1] for run in runs]
    *_, pixels = lines_of(tmp_path, "Probes")
    assert pixels[1:4] == ["pixels", "none", "2"]
    assert pixels[5] == over([100 * row["accuracy"]["1-NN"] for row in each])
    _, first, *_ = lines_of(tmp_path, "Probes")
    assert first[0] == "default"


def test_a_comparison_of_other_images_leaves_the_runs_own(found, runs, npz):
    own = (found / "comparison.md").read_text()
    main([*runs[:2], "--data", str(npz / "one.npz"), *QUICK])
    assert (found / "comparison.md").read_text() == own
    assert "one.npz" in (found / "comparison-one.md").read_text()
    assert {"comparison-one.html", "comparison-one.json"} <= {p.name for p in found.iterdir()}


def test_without_labels_measures_alone_are_compared(tmp_path):
    runs = [
        Evaluated(Path(str(seed)), "g", replace(BOTH, seed=seed), "x", "f", [], [measure])
        for seed, measure in enumerate([Measure("rate", 1.0, "nats"), Measure("rate", 2.0, "nats")])
    ]
    text = write_comparison(tmp_path, runs).read_text()
    assert "no labels: probes not run" in text
    assert "| rate | 1.5 ± 0.7 | nats |" in re.sub(" +", " ", text)


def test_a_note_that_not_all_groups_have_says_whose_it_is(tmp_path):
    notes = {"a": ("the same", "up to 4"), "b": ("the same", "no limit"), "c": ("the same", None)}
    runs = [
        Evaluated(
            Path(group),
            group,
            replace(BOTH, seed=seed),
            "x",
            "f",
            [],
            [Measure(name, 1.0, note) for name, note in zip("mn", of, strict=True) if note],
        )
        for group, of in notes.items()
        for seed in (0, 1)
    ]
    write_comparison(tmp_path, runs)
    _, common, own = lines_of(tmp_path, "The code")
    assert (common[0], common[-1]) == ("m", "the same")
    assert (own[0], own[-1]) == ("n", "a: up to 4; b: no limit")


def test_encoders_of_another_architecture_have_untrained_rows_of_their_own(tmp_path):
    rows = [ProbeRow("hidden", of, 2, {"1-NN": 0.5}, 100) for of in ("trained", "untrained")]
    configs = {"a": BOTH, "b": replace(BOTH, encoder="su"), "c": replace(BOTH, z_dim=6)}
    runs = [Evaluated(Path(g), g, config, "x", "f", rows, []) for g, config in configs.items()]
    write_comparison(tmp_path, runs)
    _, *lines = lines_of(tmp_path, "Probes")
    names = ["a", "b", "c", "basic32x32, z_dim=5", "su, z_dim=5", "basic32x32, z_dim=6"]
    assert [line[0] for line in lines] == names


# --- Groups -----------------------------------------------------------------------------------

SU = PRESETS["su-kl"]


@pytest.mark.parametrize(
    ("configs", "names"),
    [
        ([SU, replace(SU, seed=1)], ["su-kl", "su-kl"]),
        (
            [SU, replace(SU, beta=0.0), replace(SU, seed=1)],
            ["beta=1.5", "beta=0.0", "beta=1.5"],
        ),
        (
            [SU, replace(SU, alpha=0.0), PRESETS["default"], replace(PRESETS["fast"], alpha=0.0)],
            ["preset=su-kl", "preset=su-kl, alpha=0.0", "preset=default", "preset=fast, alpha=0.0"],
        ),
    ],
)
def test_groups_are_named_by_what_tells_them_apart(configs, names):
    assert group_names([Path(str(i)) for i in range(len(configs))], configs) == names


def test_one_seed_twice_in_a_group_is_refused():
    other = replace(SU, beta=0.0)  # may have the same seed
    with pytest.raises(RunError, match=r"seed: expected another .* of beta=1.5, received 0 in a a"):
        group_names([Path(name) for name in "abc"], [SU, other, SU])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["global0", "other"], "data: expected"),
        (["global0", "global0"], "seed: expected another one in each run of default, received 0"),
        (
            ["local0", "begun"],
            "run: expected a training state in begun/training.pt, received none",
        ),
        (["global0", "local0", "--decoder-epochs", "1"], "image_size: expected at least 16 pixels"),
        (["global0", "--out", "new"], "out: expected several runs to compare, received 1"),
        (["global0", "local0", "--out", "file"], "out: expected a folder, received the file file"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    runs, npz, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    for run in runs[:2]:
        Path(Path(run).name).symlink_to(run)
    trained(npz / "one.npz", tmp_path / "other", 0)
    Path("file").touch()
    Path("begun").mkdir()
    Path("begun/config.json").write_bytes(Path("global0/config.json").read_bytes())
    monkeypatch.setattr(dim.evaluate, "_evaluated", lambda *_: pytest.fail("too late"))
    with pytest.raises(SystemExit) as exit:
        main([*arguments, *QUICK])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("comparison*"))
    assert not (tmp_path / "new").exists()
