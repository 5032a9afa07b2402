"""An exported encoder computes what the encoder does, for batches of any size."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from dim import PRESETS, ImageData, load_encoder
from dim.encoder import alex64x64, basic32x32, resnet18, su
from dim.export import export_encoder, main
from dim.train import train


@pytest.fixture
def images():
    def images(n, side=16):
        generator = torch.Generator().manual_seed(n)
        return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)

    return images


@pytest.fixture
def run(images, tmp_path):
    data = ImageData("noise", images(24), None, images(4), None, None)
    config = dataclasses.replace(
        PRESETS["default"], image_size=16, batch_size=12, head_units=8, z_dim=5, epochs=1
    )
    train(config, data, tmp_path / "run", device=torch.device("cpu"))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        *itertools.product([basic32x32, su], ["z_mean", "hidden", "conv", "feature_map"]),
        (alex64x64, "z_mean"),
        (resnet18, "hidden"),
    ],
)
def test_a_program_equals_its_encoder_for_any_batch_size(make, layer, images, tmp_path):
    encoder = make(16, 5)
    encoder(images(50).float() / 255)  # in training mode: batch statistics that are not 0 and 1
    export_encoder(tmp_path / "encoder.pt2", encoder, 16, layer=layer)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    encoder.eval()
    for n in (1, 2, 7):
        exported = program(images(n))
        assert not exported.requires_grad
        torch.testing.assert_close(exported, getattr(encoder(images(n)), layer).detach())
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.pt2"]


def test_the_program_of_a_run_needs_torch_alone(run, images, tmp_path, capsys):
    main([str(run), "--out", str(tmp_path / "encoder.pt2")])
    assert "bytes of N×3×16×16 to z_mean" in capsys.readouterr().out
    np.save(tmp_path / "images.npy", images(3).numpy())
    program = """
import sys, numpy, torch
images = torch.from_numpy(numpy.load("images.npy"))
numpy.save("z.npy", torch.export.load("encoder.pt2").module()(images).numpy())
assert not {"dim", "mi_estimators"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    z = load_encoder(run)(images(3)).z_mean.detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), z, rtol=1e-4, atol=1e-5)


def test_a_program_refuses_floats_and_other_sizes(images, tmp_path):
    export_encoder(tmp_path / "encoder.pt2", basic32x32(16), 16)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for wrong in (images(2).float() / 255, images(2, side=24)):
        with pytest.raises((AssertionError, RuntimeError)):
            program(wrong)


@pytest.mark.parametrize("layer", ["z_mean", "feature_map"])
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_an_onnx_model_equals_its_encoder_for_any_batch_size(layer, images, tmp_path):
    encoder = basic32x32(16, 5).eval()
    export_encoder(tmp_path / "encoder.onnx", encoder, 16, layer=layer)
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert [(put.name, put.shape[0]) for put in session.get_inputs()] == [("images", "N")]
    for n in (1, 7):
        (exported,) = session.run([layer], {"images": images(n).numpy()})
        expected = getattr(encoder(images(n)), layer).detach().numpy()
        np.testing.assert_allclose(exported, expected, rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


@pytest.mark.parametrize("absent", ["onnx", "onnxscript"])
def test_without_onnx_its_file_names_the_way_out(run, tmp_path, monkeypatch, capsys, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(SystemExit) as stop:
        main([str(run), "--out", str(tmp_path / "encoder.onnx")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "out: expected onnx and onnxscript for " in error
    assert f"no {absent}" in error
    assert "pip install 'mi-estimators[onnx]', or choose a .pt2 file" in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "encoder.pt"], "ends in .pt2 or .onnx, received encoder.pt; rename it"),
        (["run", "--out", "no/such/folder/encoder.pt2"], "no/such/folder"),
        ([".", "--out", "encoder.pt2"], "run: expected the folder of a run"),
    ],
)
def test_a_users_mistake_exits_with_2(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
