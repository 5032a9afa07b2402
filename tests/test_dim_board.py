"""Metrics in TensorBoard: read back from its files, as it would show them."""

import csv
import dataclasses
import shutil
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dim import PRESETS, ImageData, train
from dim.board import BOARD, board
from dim.checkpoint import METRICS, STATE

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(PRESETS["default"], batch_size=16, head_units=8, image_size=8)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageData("noise", images[:32], None, images[32:], None, None)


def shown(run):
    """What TensorBoard shows: steps and values by tag."""
    events = EventAccumulator(str(run / BOARD)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def table(run):
    """The same of metrics.csv."""
    with (run / METRICS).open() as file:
        rows = list(csv.DictReader(file))
    return {
        name: [(int(row["epoch"]), pytest.approx(float(row[name]))) for row in rows]
        for name in rows[0].keys() - {"epoch"}
    }


def trained(data, run, epochs, *, tensorboard=True):
    config = dataclasses.replace(CONFIG, epochs=epochs)
    train.train(config, data, run, device=CPU, resume=True, tensorboard=tensorboard)


def test_the_board_holds_every_number_of_every_epoch(data, tmp_path):
    trained(data, tmp_path, 2)
    found = shown(tmp_path)
    assert found == table(tmp_path)
    assert {"total", "local", "kl_rate", "images_per_second"} <= found.keys()


def test_an_epoch_whose_checkpoint_was_lost_shows_once(data, tmp_path):
    trained(data, tmp_path, 2)
    shutil.copy(tmp_path / STATE, tmp_path.with_suffix(".before"))
    trained(data, tmp_path, 3)
    shutil.copy(tmp_path.with_suffix(".before"), tmp_path / STATE)
    trained(data, tmp_path, 4)
    found = shown(tmp_path)
    assert [step for step, _ in found["total"]] == [1, 2, 3, 4]
    assert found == table(tmp_path)


def test_epochs_that_were_trained_without_a_board_are_on_the_next(data, tmp_path):
    trained(data, tmp_path, 2, tensorboard=False)
    assert not (tmp_path / BOARD).exists()
    trained(data, tmp_path, 3)
    trained(data, tmp_path, 4, tensorboard=False)
    trained(data, tmp_path, 5)
    found = shown(tmp_path)
    assert [step for step, _ in found["total"]] == [1, 2, 3, 4, 5]
    assert found == table(tmp_path)


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path):
    with board(tmp_path, []) as write:
        write({"epoch": 1, "total": 0.5})
        assert shown(tmp_path) == {"total": [(1, 0.5)]}


def test_without_the_package_training_does_not_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        train.main(["--data", "digits", "--out", str(run), "--device", "cpu", "--tensorboard"])
    assert stop.value.code == 2
    assert "tensorboard: expected tensorboard for its files, received no" in capsys.readouterr().err
    assert not run.exists()
