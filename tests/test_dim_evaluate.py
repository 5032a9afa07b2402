"""Probes against literal twins, and what they may and may not see."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import dim.command
import dim.evaluate
import dim.measures
from dim import PRESETS
from dim.checkpoint import METRICS
from dim.data import ImageData
from dim.encoder import Features, encode
from dim.evaluate import Battery, main, probe_table
from dim.measures import Codes, Measure
from dim.report import report


class TinyEncoder(nn.Module):
    """Two layers with batch norm and dropout, so that a wrong mode shows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.heads = nn.Linear(16, 6)

    def forward(self, images):
        feature_map = self.norm(self.conv(images / 127.5 - 1))
        hidden = self.drop(feature_map.flatten(1))
        z_mean, z_log_var = self.heads(hidden).chunk(2, dim=1)
        return Features(feature_map, feature_map.relu(), hidden, z_mean, z_log_var)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TinyEncoder()


@pytest.fixture
def data():
    """Two classes that the mean brightness tells apart."""
    generator = torch.Generator().manual_seed(0)

    def part(n):
        y = torch.arange(n) % 2
        noise = torch.randint(0, 100, (n, 3, 8, 8), generator=generator)
        return (noise + 120 * y[:, None, None, None]).to(torch.uint8), y

    return ImageData("brightness", *part(60), *part(25), ("dark", "bright"))


# --- encode -----------------------------------------------------------------------------------


def test_encoding_in_batches_is_encoding_in_one(encoder, data):
    at_once = encoder.eval()(data.x_train)
    for layer in ("feature_map", "conv", "hidden", "z_mean"):
        in_batches = encode(encoder, data.x_train, layer, batch_size=7)
        torch.testing.assert_close(in_batches, getattr(at_once, layer))


def test_a_sample_of_the_code_is_its_mean_and_noise_that_is_always_the_same(encoder, data):
    z, again = (encode(encoder, data.x_train, "z") for _ in range(2))
    assert torch.equal(z, again)
    features = encoder.eval()(data.x_train)
    noise = (z - features.z_mean) / (0.5 * features.z_log_var).exp()
    assert noise.mean().abs() < 0.3
    assert 0.7 < noise.std() < 1.3


def test_encoding_restores_the_mode_of_every_submodule(encoder, data):
    encoder.train()
    encoder.norm.eval()  # frozen by a user
    statistics = encoder.norm.running_mean.clone()
    encode(encoder, data.x_train)
    assert encoder.training
    assert encoder.drop.training
    assert not encoder.norm.training
    assert torch.equal(encoder.norm.running_mean, statistics)


def test_encoding_restores_the_mode_after_a_failure(encoder):
    encoder.train()
    with pytest.raises(RuntimeError):
        encode(encoder, torch.zeros(2, 3, 2, 2, dtype=torch.uint8))
    assert encoder.training


def test_features_carry_no_graph_and_can_be_trained_on(encoder, data):
    z = encode(encoder, data.x_train)
    assert not z.requires_grad
    weight = torch.zeros(3, requires_grad=True)
    (z @ weight).sum().backward()  # inference tensors would refuse
    torch.testing.assert_close(weight.grad, z.sum(0))


def test_features_of_a_half_precision_encoder_are_float32(data):
    class Half(TinyEncoder):
        def forward(self, images):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(images)

    assert encode(Half(), data.x_test).dtype == torch.float32


# --- The table --------------------------------------------------------------------------------


def test_every_layer_is_probed_trained_and_untrained(encoder, data):
    rows = probe_table(encoder, TinyEncoder(), data)
    assert [(row.layer, row.encoder, row.dimensions) for row in rows] == [
        ("z_mean", "trained", 3),
        ("hidden", "trained", 16),
        ("conv", "trained", 16),
        ("z_mean", "untrained", 3),
        ("hidden", "untrained", 16),
        ("conv", "untrained", 16),
        ("pixels", "none", 192),
    ]
    assert rows[-1].accuracy["linear"] == 1  # brightness
    assert all(row.n_test == 25 for row in rows)
    assert list(rows[0].accuracy) == ["1-NN", "5-NN", "20-NN", "linear"]  # 200 are not there


def test_a_battery_is_what_is_run(encoder, data):
    battery = Battery(neighbours=(3,), mlp_epochs=2)
    (row,) = probe_table(encoder, encoder, data, battery, ["z"])[:1]
    assert row.layer == "z"
    assert list(row.accuracy) == ["3-NN", "linear", "SVM", "MLP", "MLP, validated"]
    assert all(0 < accuracy <= 1 for accuracy in row.accuracy.values())
    alone = Battery(neighbours=(), linear=False, svm=False, mlp_epochs=1)
    (row,) = probe_table(encoder, encoder, data, alone, ["z"])[:1]
    assert list(row.accuracy) == ["MLP", "MLP, validated"]


@pytest.mark.parametrize("wrong", [{"neighbours": (0,)}, {"mlp_epochs": -1}])
def test_a_battery_that_cannot_be_run_is_refused(wrong):
    with pytest.raises(ValueError, match="neighbours, mlp_epochs: expected at least 1 and 0, rec"):
        Battery(**wrong)


def test_trained_and_untrained_rows_are_of_their_own_encoder(encoder, data):
    class Blind(TinyEncoder):
        def forward(self, images):
            return super().forward(torch.zeros_like(images))

    rows = probe_table(encoder, Blind(), data)
    assert rows[2].accuracy["linear"] > 0.8
    assert rows[5].accuracy["linear"] < 0.6


def test_the_report_shows_accuracies_with_their_errors(encoder, data):
    rows = probe_table(encoder, encoder, data)
    row = replace(rows[0], layer="z_mean", accuracy={"5-NN": 0.36}, n_test=100)
    text = report(data, [row], figures=["neighbours.png"])
    assert "| z_mean | trained | 3 | 36.0 ± 4.8 |" in text
    assert "60 training and 25 test images of 8×8 pixels" in text
    assert "![neighbours](neighbours.png)" in text


@pytest.mark.parametrize("missing", [{"y_train": None}, {"y_test": None}])
def test_without_labels_the_report_says_so(encoder, data, missing):
    data = replace(data, **missing)
    rows = probe_table(encoder, encoder, data)
    assert rows == []
    assert "no labels: probes not run" in report(data, rows)


# --- Command line -----------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, encoder, data):
    """A run folder, with stand-ins for what reads one."""

    def config(run):
        seed = int(run.name) if run.name.isdigit() else 3
        return replace(PRESETS["default"], data="brightness", seed=seed)

    for module in (dim.evaluate, dim.command):
        monkeypatch.setattr(module, "load_config", config)
    monkeypatch.setattr(dim.command, "require_same_images", lambda run, images, remedy: None)
    model = SimpleNamespace(encoder=encoder, to=lambda device: model)
    monkeypatch.setattr(dim.evaluate, "load_model", lambda run: model)
    measure = Measure("rate, nats", 1.2345, "a note")
    monkeypatch.setattr(dim.evaluate, "measures_of", lambda model, data, codes: [measure])
    monkeypatch.setattr(dim.evaluate, "untrained_encoder", lambda run: TinyEncoder())
    monkeypatch.setattr(dim.command, "load_data", lambda source, **options: data)
    return tmp_path


def test_the_command_writes_and_prints_the_report(run, capsys):
    (run / "neighbours.png").touch()
    main([str(run), "--device", "cpu", "--mlp-epochs", "1"])
    text = (run / "report.md").read_text()
    assert text in capsys.readouterr().out
    assert "neighbours.png" in text
    assert "curves.png" not in text
    assert "| rate, nats | 1.23 | a note |" in text
    probes = json.loads((run / "probes.json").read_text())
    assert probes["data"] == "brightness"
    assert len(probes["rows"]) == 9
    measure = {"name": "rate, nats", "value": 1.2345, "note": "a note", "error": None}
    assert probes["measures"] == [measure]
    assert probes["rows"][0]["layer"] == "z"


def test_a_decoder_is_trained_on_request_on_both_codes(run, monkeypatch, encoder, data, capsys):
    given = {}

    def measure(codes, data, about, *, epochs):
        assert epochs == 3
        given[about] = codes
        return Measure(f"MS-SSIM of {about}", 0.4567, "of 1", 0.0123)

    monkeypatch.setattr(dim.evaluate, "reconstruction_measure", measure)
    quick = ["--device", "cpu", "--no-svm", "--mlp-epochs", "0"]
    main([str(run), *quick, "--decoder-epochs", "3"])
    trained, untrained = given["z_mean"], given["z_mean of the untrained encoder"]
    assert torch.equal(trained.train, encode(encoder, data.x_train))
    assert not torch.equal(untrained.test, trained.test)
    printed = capsys.readouterr().out
    for about in given:
        assert f"| MS-SSIM of {about} | 0.457 ± 0.01 | of 1 |" in printed
    assert "<td>MS-SSIM of z_mean</td>" in (run / "report.html").read_text()
    assert json.loads((run / "probes.json").read_text())["measures"][1]["error"] == 0.0123
    main([str(run), *quick])
    assert "MS-SSIM" not in (run / "report.md").read_text()


def test_fewer_epochs_than_none_are_refused(run, capsys):
    with pytest.raises(SystemExit) as exit:
        main([str(run), "--decoder-epochs", "-1"])
    assert exit.value.code == 2
    assert "decoder_epochs: expected at least 0, received -1" in capsys.readouterr().err


def test_each_encoder_makes_its_codes_once(run, monkeypatch, encoder, data):
    made, given = [], []

    def recorded(encoder, images, layer="z_mean"):
        made.append((layer, encoder, len(images)))
        return encode(encoder, images, layer)

    def measures_of(model, data, codes):
        given.append(codes)
        return []

    for module in (dim.evaluate, dim.measures):
        monkeypatch.setattr(module, "encode", recorded)
    monkeypatch.setattr(dim.evaluate, "measures_of", measures_of)
    main([str(run), "--device", "cpu", "--no-svm", "--mlp-epochs", "0"])
    codes = [(of, count) for layer, of, count in made if layer == "z_mean"]
    assert sorted(count for of, count in codes if of is encoder) == [25, 60]
    assert sorted(count for of, count in codes if of is not encoder) == [25, 60]
    assert torch.equal(given[0].train, encode(encoder, data.x_train))
    assert torch.equal(given[0].test, encode(encoder, data.x_test))


def test_known_codes_are_probed_in_place_of_new_ones(encoder, data):
    codes = Codes(*(nn.functional.one_hot(y).float() for y in (data.y_train, data.y_test)))
    known, of_untrained = (
        row for row in probe_table(encoder, encoder, data, codes=codes) if row.layer == "z_mean"
    )
    assert known.accuracy["1-NN"] == 1
    assert of_untrained.accuracy["1-NN"] < 0.8


def test_a_users_mistake_is_one_line_and_exit_code_2(run, monkeypatch, capsys):
    def missing(run):
        raise ValueError("run: expected a run folder, received none")

    monkeypatch.setattr(dim.command, "load_config", missing)
    with pytest.raises(SystemExit) as exit:
        main([str(run)])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "error: run: expected a run folder, received none\n"


def test_an_unknown_option_is_exit_code_2(run, capsys):
    with pytest.raises(SystemExit) as exit:
        main([str(run), "--devise", "cpu"])
    assert exit.value.code == 2


def test_cuda_where_there_is_none_is_exit_code_2(run, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as exit:
        main([str(run), "--device", "cuda"])
    assert exit.value.code == 2
    assert "device: expected a CUDA device" in capsys.readouterr().err


def test_other_images_are_read_as_the_run_would_have_read_them(run, monkeypatch, data):
    asked = {}

    def load(source, **options):
        asked.update(source=source, **options)
        return data

    monkeypatch.setattr(dim.command, "load_data", load)
    main([str(run), "--data", "other.npz", "--device", "cpu", "--no-svm", "--mlp-epochs", "0"])
    assert asked == {"source": "other.npz", "image_size": None, "seed": 3, "corrupt": "refuse"}


def test_a_report_of_other_images_leaves_the_runs_own_figures_and_health(run):
    (run / "curves.png").write_bytes(b"of the run")
    (run / METRICS).write_text("epoch,total,z_mean_std,local_gap\n1,0.5,1.5,\n2,0.25,0.001,0.75\n")
    options = ("--device", "cpu", "--no-svm", "--mlp-epochs", "0")
    main([str(run), *options])
    own = {name: (run / name).read_text() for name in ("report.md", "report.html", "probes.json")}
    assert "curves.png" in own["report.md"]
    collapsed = "| z_mean_std | 0.001 | ≥ 0.01 | the code is the same for all images |"
    assert f"{collapsed}\n| local_gap | 0.75 | ≥ 0.05 | yes |" in own["report.md"]
    main([str(run), "--data", "elsewhere/other.npz", *options])
    assert own == {name: (run / name).read_text() for name in own}
    other = (run / "report-other.md").read_text()
    assert ".png" not in other
    assert "z_mean_std" not in other
    assert {"report-other.html", "probes-other.json"} <= {path.name for path in run.iterdir()}
