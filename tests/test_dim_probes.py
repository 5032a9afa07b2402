"""Probes against literal twins, and what they may and may not see."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

import dim.probes
from dim.probes import (
    PENALTIES,
    fit_linear_probe,
    knn_accuracies,
    linear_accuracy,
    mlp_accuracy,
    nearest,
    squared_hinge,
)
from dim.report import standard_error


def blobs(n, *, seed, classes=3, dim=5, spread=0.1):
    """Points around the first unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.eye(classes, dim)[y] + spread * torch.randn(n, dim, generator=generator), y


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
    several = knn_accuracies(train_x, train_y, test_x, test_y, ks=(2, k, 30))
    assert several[1] == pytest.approx(expected)
    assert 0 < expected < 1


def test_the_nearest_breaks_a_tie():
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    train_x = torch.stack([angles.cos(), angles.sin()], dim=1)
    train_y = torch.tensor([7, 2, 2, 7])  # two votes each; the nearest is of class 7
    test_x, test_y = torch.tensor([[1.0, 0.0]]), torch.tensor([7])
    assert knn_accuracies(train_x, train_y, test_x, test_y, ks=[4]) == [1]
    assert knn_accuracies(train_x, train_y, test_x, test_y, ks=[3]) == [0]


def test_knn_ignores_length():
    x, y = blobs(60, seed=0)
    lengths = torch.logspace(-2, 2, 60)[:, None]
    assert knn_accuracies(x * lengths, y, *blobs(30, seed=1), ks=[5]) == [1]


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

    def spy(x, y, loss):
        fitted.append(fit_linear_probe(x, y, loss))
        return fitted[-1]

    monkeypatch.setattr(dim.probes, "fit_linear_probe", spy)
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


def test_the_support_vector_machine_is_scikit_learns_minimum():
    from sklearn.svm import LinearSVC

    x, y = blobs(300, seed=0, dim=20, spread=1.0)
    probe = fit_linear_probe(x, y, squared_hinge)
    standard = (x - probe.mean) / probe.scale
    # liblinear: ½|w|² + C Σ hinge²; it penalises the bias too, but not when that is large.
    twin = LinearSVC(
        C=1 / (probe.penalty * len(x)), intercept_scaling=100.0, tol=1e-8, max_iter=100_000
    )
    twin.fit(standard.numpy(), y.numpy())

    def objective(weight, bias):
        ridge = 0.5 * probe.penalty * weight.square().sum()
        return float(squared_hinge(standard @ weight + bias, y) + ridge)

    minimum = objective(*(torch.from_numpy(w).float() for w in (twin.coef_.T, twin.intercept_)))
    assert minimum - 1e-4 < objective(probe.weight[:-1], probe.weight[-1]) < minimum + 1e-2


def test_squared_hinge_is_its_literal_twin():
    logits = torch.tensor([[2.0, -0.5, 0.0], [0.3, 0.0, -3.0]])
    targets = torch.tensor([0, 2])
    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for c, score in enumerate(row):
            expected += max(0.0, 1 - (score if c == target else -score)) ** 2 / len(logits)
    assert squared_hinge(logits, targets).item() == pytest.approx(expected)


# --- The probe with one hidden layer ----------------------------------------------------------


def ring(n, *, seed):
    """Two classes by radius, which no line separates."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x.norm(dim=1) > 1.18).long()


@pytest.mark.slow
def test_a_hidden_layer_separates_what_no_line_does():
    train, test = ring(5000, seed=0), ring(1000, seed=1)
    accuracy = mlp_accuracy(*train, *test, epochs=200)
    assert linear_accuracy(*train, *test) < 0.6
    assert min(accuracy.last, accuracy.validated) > 0.8


def test_neighbours_far_from_the_origin_are_those_of_double_precision():
    generator = torch.Generator().manual_seed(0)
    gallery, queries = (10 + 0.003 * torch.randn(500, 64, generator=generator) for _ in range(2))
    expected = nearest(queries.double(), gallery.double(), k=9, metric="l2")
    assert (nearest(queries, gallery, k=9, metric="l2") == expected).float().mean() > 0.99


def test_a_short_schedule_is_the_papers_in_small(monkeypatch):
    rates = []
    step = torch.optim.lr_scheduler.MultiStepLR.step

    def seen(schedule, *args):
        step(schedule, *args)
        rates.append(schedule.get_last_lr()[0])

    monkeypatch.setattr(torch.optim.lr_scheduler.MultiStepLR, "step", seen)
    train, test = ring(4, seed=0), ring(2, seed=1)
    for epochs, falls in ((1, [1, 2]), (8, [2, 4]), (200, [50, 100]), (300, [50, 100])):
        rates.clear()
        mlp_accuracy(*train, *test, epochs=epochs)
        after = torch.tensor([sum(epoch >= fall for fall in falls) for epoch in range(epochs + 1)])
        expected = 1e-4 * 10.0**-after
        assert torch.tensor(rates).tolist() == pytest.approx([*expected.tolist()] * 2)


def test_the_network_learns_as_the_papers_does():
    """rdevon/DIM's classifier, written out: what it makes of other points after each epoch."""
    (x, y), (points, _) = blobs(150, seed=0, dim=6, spread=1.0), blobs(20, seed=1, dim=6)
    seen = []
    dim.probes._train_mlp(x, y, 60, 3, lambda network: seen.append(network(points)))

    torch.manual_seed(3)
    first, norm, second = nn.Linear(6, 200), nn.BatchNorm1d(200), nn.Linear(200, 3)
    parameters = [p for layer in (first, norm, second) for p in layer.parameters()]
    moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in parameters]
    taken = 0
    for epoch in range(60):
        rate = 1e-4 * (1.0, 0.1, 0.01)[(epoch >= 15) + (epoch >= 30)]
        order = torch.randperm(150)
        for rows in (order[:64], order[64:128], order[128:]):
            hidden = first(x[rows])
            kept = torch.empty_like(hidden).bernoulli_(0.9)
            logits = second(norm(hidden * kept / 0.9).relu())
            loss = -logits.log_softmax(1)[range(len(rows)), y[rows]].mean()
            gradients = torch.autograd.grad(loss, parameters)
            taken += 1
            with torch.no_grad():
                for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
                    m.mul_(0.5).add_(0.5 * g)
                    v.mul_(0.999).add_(0.001 * g.square())
                    spread = (v / (1 - 0.999**taken)).sqrt() + 1e-8
                    p -= rate * m / (1 - 0.5**taken) / spread
        norm.eval()
        with torch.no_grad():
            torch.testing.assert_close(
                seen[epoch], second(norm(first(points)).relu()), rtol=1e-4, atol=2e-5
            )
        norm.train()


@pytest.mark.parametrize(("epochs", "averaged"), [(400, 100), (7, 4)])
def test_the_last_epochs_are_averaged_and_a_tenth_chooses_one(epochs, averaged, monkeypatch):
    """With networks that are right on a known share of the points, whatever they were fitted on."""
    generator = torch.Generator().manual_seed(0)
    on_test, held_out = (torch.rand(epochs, generator=generator) for _ in range(2))
    fitted = []

    def points(n, mark):
        rank = torch.arange(n) / n
        y = torch.arange(n) % 2
        return torch.stack([y.float(), rank, torch.full((n,), float(mark))], dim=1), y

    class Network(nn.Module):
        def __init__(self, epoch):
            super().__init__()
            self.epoch = epoch

        def forward(self, x):
            share = torch.where(x[:, 2] == 0, held_out[self.epoch], on_test[self.epoch])
            guess = torch.where(x[:, 1] < share, x[:, 0], 1 - x[:, 0])
            return nn.functional.one_hot(guess.long(), 2)

    def trained(x, targets, epochs, seed, look):
        fitted.append(x)
        for epoch in range(epochs):
            look(Network(epoch))

    monkeypatch.setattr(dim.probes, "_train_mlp", trained)
    (x, y), test = points(5000, 0), points(5000, 1)
    found = mlp_accuracy(x, y, *test, epochs=epochs)
    assert found.last == pytest.approx(on_test[-averaged:].mean().item(), abs=3e-4)
    every, some = fitted
    assert torch.equal(every, x)
    assert len(some) == 4500
    tenth = x[~torch.isin(x[:, 1], some[:, 1])]
    assert len(tenth) == 500
    right = [(tenth[:, 1] < share).float().mean().item() for share in held_out]
    best = max(range(epochs), key=right.__getitem__)
    assert found.validated == pytest.approx(on_test[best].item(), abs=3e-4)


def test_test_labels_choose_nothing():
    train, (test_x, test_y) = ring(200, seed=0), ring(400, seed=1)
    right = mlp_accuracy(*train, test_x, test_y, epochs=3)
    wrong = mlp_accuracy(*train, test_x, 1 - test_y, epochs=3)
    assert right.last == pytest.approx(1 - wrong.last)
    assert right.validated == pytest.approx(1 - wrong.validated)


def test_the_probe_is_reproducible_and_leaves_the_global_generator_alone():
    train, test = blobs(90, seed=0, spread=1.0), blobs(60, seed=1, spread=1.0)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = mlp_accuracy(*train, *test, epochs=2, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert mlp_accuracy(*train, *test, epochs=2, seed=1) == first
    assert mlp_accuracy(*train, *test, epochs=2, seed=2) != first


def test_predictions_of_the_network_are_the_labels_given_whatever_their_numbers():
    (x, y), (u, v) = blobs(300, seed=0), blobs(60, seed=1)
    names = torch.tensor([4, 70_000_000, 11])
    assert mlp_accuracy(x, names[y], u, names[v], epochs=60).validated > 0.9
