"""Probes against literal twins, and what they may and may not see."""

import json
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import dim.evaluate
from dim.data import ImageData
from dim.encoder import Features
from dim.evaluate import (
    PENALTIES,
    encode,
    fit_linear_probe,
    knn_accuracy,
    linear_accuracy,
    main,
    nearest,
    probe_table,
    report,
    standard_error,
)


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
        return Features(feature_map, hidden, z_mean, z_log_var)


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


def blobs(n, *, seed, classes=3, dim=5, spread=0.1):
    """Points around the first unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.eye(classes, dim)[y] + spread * torch.randn(n, dim, generator=generator), y


# --- encode -----------------------------------------------------------------------------------


def test_encoding_in_batches_is_encoding_in_one(encoder, data):
    at_once = encoder.eval()(data.x_train)
    in_batches = encode(encoder, data.x_train, batch_size=7)
    for name in ("feature_map", "hidden", "z_mean", "z_log_var"):
        torch.testing.assert_close(getattr(in_batches, name), getattr(at_once, name))


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
    z = encode(encoder, data.x_train).z_mean
    assert not z.requires_grad
    weight = torch.zeros(3, requires_grad=True)
    (z @ weight).sum().backward()  # inference tensors would refuse
    torch.testing.assert_close(weight.grad, z.sum(0))


def test_features_of_a_half_precision_encoder_are_float32(data):
    class Half(TinyEncoder):
        def forward(self, images):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(images)

    assert encode(Half(), data.x_test).z_mean.dtype == torch.float32


# --- nearest ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("queries", [3, 1201])  # one chunk and two
def test_nearest_is_a_sort_by_distance(metric, queries):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(queries, 6, generator=generator)
    g = torch.randn(40, 6, generator=generator) * torch.arange(1, 41)[:, None]
    found = nearest(q, g, k=5, metric=metric)
    for i in {0, 1, queries - 1}:
        if metric == "l2":
            distance = [math.dist(q[i].tolist(), row.tolist()) for row in g]
        else:
            distance = [-float(q[i] @ row / (q[i].norm() * row.norm())) for row in g]
        assert found[i].tolist() == sorted(range(40), key=distance.__getitem__)[:5]


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(ValueError, match=rf"k: expected 1 to 4, .* received {k}"):
        nearest(torch.zeros(2, 3), torch.zeros(4, 3), k=k, metric="l2")


# --- kNN --------------------------------------------------------------------------------------


def literal_knn(train_x, train_y, test_x, test_y, k):
    """Count votes in a loop; the nearest decides among equals."""
    hits = 0
    for x, y in zip(test_x, test_y.tolist(), strict=True):
        cosine = [float(x @ row / (x.norm() * row.norm())) for row in train_x]
        order = sorted(range(len(train_x)), key=lambda i: -cosine[i])[:k]
        labels = [int(train_y[i]) for i in order]
        votes = Counter(labels)
        winner = next(c for c in labels if votes[c] == max(votes.values()))
        hits += winner == y
    return hits / len(test_x)


@pytest.mark.parametrize("k", [1, 4, 5, 20])
def test_knn_is_the_literal_loop(k):
    generator = torch.Generator().manual_seed(0)
    train_x, test_x = (torch.randn(n, 4, generator=generator) for n in (80, 61))
    train_y, test_y = (torch.randint(0, 7, (n,), generator=generator) for n in (80, 61))
    expected = literal_knn(train_x, train_y, test_x, test_y, k)
    assert knn_accuracy(train_x, train_y, test_x, test_y, k=k) == pytest.approx(expected)
    assert 0 < expected < 1


def test_the_nearest_breaks_a_tie():
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    train_x = torch.stack([angles.cos(), angles.sin()], dim=1)
    train_y = torch.tensor([7, 2, 2, 7])  # two votes each; the nearest is of class 7
    test_x, test_y = torch.tensor([[1.0, 0.0]]), torch.tensor([7])
    assert knn_accuracy(train_x, train_y, test_x, test_y, k=4) == 1
    assert knn_accuracy(train_x, train_y, test_x, test_y, k=3) == 0


def test_knn_ignores_length():
    x, y = blobs(60, seed=0)
    lengths = torch.logspace(-2, 2, 60)[:, None]
    assert knn_accuracy(x * lengths, y, *blobs(30, seed=1), k=5) == 1


# --- The linear probe -------------------------------------------------------------------------


def test_separable_classes_are_separated():
    assert linear_accuracy(*blobs(90, seed=0), *blobs(60, seed=1)) == 1


def test_random_labels_are_at_chance():
    generator = torch.Generator().manual_seed(0)
    train_x, test_x = (torch.randn(n, 20, generator=generator) for n in (400, 2000))
    train_y, test_y = (torch.randint(0, 4, (n,), generator=generator) for n in (400, 2000))
    accuracy = linear_accuracy(train_x, train_y, test_x, test_y)
    assert abs(accuracy - 0.25) < 4 * standard_error(0.25, 2000)


def test_the_linear_probe_is_scikit_learns_minimum():
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(300, seed=0, dim=50, spread=2.0)  # noisy, so that the penalty counts
    probe = fit_linear_probe(x, y)
    assert probe.penalty >= 0.1
    standard = (x - probe.mean) / probe.scale
    twin = LogisticRegression(C=1 / (probe.penalty * len(x)), tol=1e-8, max_iter=1000)
    twin.fit(standard.numpy(), y.numpy())

    def objective(weight, bias):
        ridge = 0.5 * probe.penalty * weight.square().sum()
        return float(nn.functional.cross_entropy(standard @ weight + bias, y) + ridge)

    minimum = objective(*(torch.from_numpy(w).float() for w in (twin.coef_.T, twin.intercept_)))
    assert minimum - 1e-6 < objective(probe.weight[:-1], probe.weight[-1]) < minimum + 1e-3


def test_the_penalty_is_neither_end_where_the_data_call_for_the_middle():
    x, y = blobs(300, seed=0, dim=100, spread=1.0)
    assert PENALTIES[-1] < fit_linear_probe(x, y).penalty < PENALTIES[0]


def test_more_noise_calls_for_a_stronger_penalty():
    clean, noisy = (blobs(200, seed=0, dim=50, spread=s) for s in (0.05, 3.0))
    assert fit_linear_probe(*noisy).penalty > fit_linear_probe(*clean).penalty


def test_neither_weights_nor_penalty_depend_on_the_test_set(monkeypatch):
    train, (test_x, test_y) = blobs(90, seed=0, spread=0.6), blobs(60, seed=1, spread=0.6)
    fitted = []

    def spy(x, y):
        fitted.append(fit_linear_probe(x, y))
        return fitted[-1]

    monkeypatch.setattr(dim.evaluate, "fit_linear_probe", spy)
    accuracy = linear_accuracy(*train, test_x, test_y)
    permuted = linear_accuracy(*train, test_x, test_y.roll(1))
    linear_accuracy(*train, 1000 * test_x, test_y)
    first, *others = fitted
    for other in others:
        assert other.penalty == first.penalty
        assert torch.equal(other.weight, first.weight)
        assert torch.equal(other.mean, first.mean)
    assert accuracy > 0.6 > permuted


def test_predictions_are_the_labels_given_whatever_their_numbers():
    x, y = blobs(90, seed=0)
    names = torch.tensor([4, 70_000_000, 11])
    assert set(fit_linear_probe(x, names[y])(x).tolist()) == set(names.tolist())


def test_constant_features_and_scale_do_not_matter():
    x, y = blobs(90, seed=0, spread=0.5)
    constant = torch.cat([1000 * x, torch.full((90, 1), 3.0)], dim=1)
    assert torch.equal(fit_linear_probe(constant, y)(constant), fit_linear_probe(x, y)(x))


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2 rows, received 1"):
        fit_linear_probe(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


# --- The table --------------------------------------------------------------------------------


def test_every_layer_is_probed_trained_and_untrained(encoder, data):
    rows = probe_table(encoder, TinyEncoder(), data)
    assert [(row.layer, row.encoder, row.dimensions) for row in rows] == [
        ("z_mean", "trained", 3),
        ("hidden", "trained", 16),
        ("feature_map", "trained", 16),
        ("z_mean", "untrained", 3),
        ("hidden", "untrained", 16),
        ("feature_map", "untrained", 16),
        ("pixels", "none", 192),
    ]
    assert rows[-1].linear == 1  # brightness
    assert all(row.n_test == 25 for row in rows)


def test_trained_and_untrained_rows_are_of_their_own_encoder(encoder, data):
    class Blind(TinyEncoder):
        def forward(self, images):
            return super().forward(torch.zeros_like(images))

    rows = probe_table(encoder, Blind(), data)
    assert rows[2].linear > 0.8
    assert rows[5].linear < 0.6


def test_the_report_shows_accuracies_with_their_errors(encoder, data):
    rows = probe_table(encoder, encoder, data)
    row = replace(rows[0], layer="z_mean", knn_5=0.36, n_test=100)
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
    config = SimpleNamespace(data="brightness", image_size=None, seed=3)
    monkeypatch.setattr(dim.evaluate, "load_config", lambda run: config)
    monkeypatch.setattr(dim.evaluate, "load_encoder", lambda run: encoder)
    monkeypatch.setattr(dim.evaluate, "untrained_encoder", lambda run: TinyEncoder())
    monkeypatch.setattr(dim.evaluate, "load_data", lambda source, image_size, seed: data)
    return tmp_path


def test_the_command_writes_and_prints_the_report(run, capsys):
    (run / "neighbours.png").touch()
    main([str(run), "--device", "cpu"])
    text = (run / "report.md").read_text()
    assert text in capsys.readouterr().out
    assert "neighbours.png" in text
    assert "curves.png" not in text
    probes = json.loads((run / "probes.json").read_text())
    assert probes["data"] == "brightness"
    assert len(probes["rows"]) == 7


def test_a_users_mistake_is_one_line_and_exit_code_2(run, monkeypatch, capsys):
    def missing(run):
        raise ValueError("run: expected a run folder")

    monkeypatch.setattr(dim.evaluate, "load_config", missing)
    with pytest.raises(SystemExit) as exit:
        main([str(run)])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "error: run: expected a run folder\n"


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
