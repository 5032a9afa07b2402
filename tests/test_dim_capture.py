"""The training step as a CUDA graph: what that asks of a step, and that it changes nothing."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dim.probes
from dim import PRESETS, ImageData, RunError, build_model
from dim.checkpoint import load_state
from dim.probes import mlp_accuracy
from dim.train import Training, train

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
ADDITIONS = {"delta": 1.0, "eta": 1.0, "kappa": 1.0, "occlusion": 0.5, "coarseness": 2}
# What makes the host wait for a device, or gives shapes that depend on values.
READS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "bincount"}
# Looked at on a CPU alone: whether a mask leaves a pair, once for each InfoMax term and view.
ON_CPU_ALONE = 1


class Reads(TorchDispatchMode):
    """Notes every operation that reads from the device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name, packed = operation.overloadpacket.__name__, args[1] if len(args) > 1 else None
        masked = isinstance(packed, list | tuple) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in packed
        )
        repeats = name == "repeat_interleave" and isinstance(packed, torch.Tensor | None)
        if name in READS or (name.startswith("index") and masked) or repeats:
            self.seen.append(str(operation))
        return operation(*args, **(kwargs or {}))


def data(n=32):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 3
    return ImageData("noise", images, labels, images, labels, None)


def small(preset, **changes):
    known = {"head_units": 8, "batch_size": 8, "image_size": 16, "epochs": 2}
    return dataclasses.replace(PRESETS[preset], **known | changes)


ONE_VIEW = {name: small(name) for name in PRESETS if PRESETS[name].views == 1}
ONE_VIEW["additions"] = small("default", **ADDITIONS)


def apart(one, other, config):
    """How far two models' weights are from each other, as a share of how far they have come."""
    start = dict(build_model(config, 16, classes=3).named_parameters())
    names = [name for name, parameter in start.items() if parameter.requires_grad]
    one, other, start = (
        torch.cat([model[name].detach().double().cpu().flatten() for name in names])
        for model in (one, other, start)
    )
    return ((one - other).norm() / (other - start).norm()).item()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_is_taken_without_reading_from_the_device(preset):
    training = Training(small(preset, **ADDITIONS), data(), CPU)
    batch = training.batches()[0]
    views = training.views(batch)  # of which kornia draws the places on the host
    training.views = lambda _: views
    with Reads() as reads:
        training.step(batch)
    most = ON_CPU_ALONE * len(training.model.terms) * PRESETS[preset].views
    assert len(reads.seen) <= most, reads.seen


def test_more_steps_of_an_epoch_read_no_more(tmp_path):
    found = []
    for n in (32, 64):
        with Reads() as reads:
            train(small("paper-local-jsd", epochs=1), data(n), tmp_path / str(n), device=CPU)
        found.append(len(reads.seen))
    assert found[1] - found[0] <= 4 * ON_CPU_ALONE


def test_reads_are_noticed():
    with Reads() as reads:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
        torch.ones(3)[torch.ones(3) > 0]
        torch.ones(3)[torch.ones(3) > 0] = 1.0
        torch.ones(3).repeat_interleave(torch.ones(3, dtype=torch.int64))
        torch.ones(3, dtype=torch.int64).bincount()
    assert len(reads.seen) == 6, reads.seen


def test_a_graph_without_a_device_is_refused(tmp_path):
    with pytest.raises(RunError, match="graph: expected one process on CUDA, received 1 on cpu"):
        train(small("default"), data(), tmp_path / "run", device=CPU, graph=True)


@needs_cuda
@pytest.mark.parametrize("name", ONE_VIEW)
def test_losses_and_gradients_are_those_of_a_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = dataclasses.replace(ONE_VIEW[name], precision="float32")
    found = []
    for device in (CPU, CUDA):
        training, generator = Training(config, data(), device), torch.Generator().manual_seed(0)
        labels = None if training.labels is None else training.labels[:8]
        losses, _ = training.model(training.images[:8], labels, generator=generator)
        (losses.total + losses.adversary).backward()
        gradients = [p.grad.flatten() for p in training.model.parameters() if p.grad is not None]
        found.append((torch.stack(losses).detach().cpu(), torch.cat(gradients).cpu()))
    (losses, gradient), (others, another) = found
    torch.testing.assert_close(others, losses, rtol=1e-3, atol=1e-4)
    assert (another - gradient).norm() < 0.01 * gradient.norm()


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("trained", ONE_VIEW)
def test_a_replayed_run_is_the_run_resumed_or_not(trained, precision, tmp_path):
    """But for the order of sums, which Adam makes a step of where a gradient is 0 but for it."""
    config = dataclasses.replace(ONE_VIEW[trained], precision=precision)
    once = dataclasses.replace(config, epochs=1)
    for name, graph in (("eager", False), ("again", False), ("replayed", True), ("resumed", True)):
        if name == "resumed":
            train(once, data(), tmp_path / name, device=CUDA, graph=True)
        train(config, data(), tmp_path / name, device=CUDA, graph=graph, resume=True)
    eager, again, *others = (
        load_state(tmp_path / name) for name in ("eager", "again", "replayed", "resumed")
    )
    near, most = 0.01, 0.2
    if precision == "bfloat16":  # whose rounding makes two eager runs differ, too
        near, most = 0.05, min(0.5, max(0.2, 2 * apart(again.model, eager.model, config)))
    for other in others:
        assert torch.equal(eager.generator, other.generator)
        assert apart(other.model, eager.model, config) < most
        for name, _ in build_model(config, 16, classes=3).named_buffers():
            torch.testing.assert_close(other.model[name], eager.model[name], rtol=near, atol=near)


@pytest.mark.parametrize("preset", ["default", "su-kl", "paper-local-jsd"])
def test_a_run_of_other_batches_is_not_the_run(preset):
    """By what tells it on CUDA."""
    config, models = small(preset, precision="float32"), []
    for skipped in (0, 1):
        training = Training(config, data(), CPU)
        for batch in [*training.batches(), *training.batches()][skipped : skipped + 4]:
            training.step(batch)
        models.append(training.model.state_dict())
    assert apart(*models, config) > 0.5


@needs_cuda
def test_a_replayed_probe_is_the_probe(monkeypatch):
    x = torch.randn(700, 8, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    y = (x[:, 0] > 0).long()
    # 300 rows: four batches to replay, and a tail.
    replayed = mlp_accuracy(x[:300], y[:300], x[300:], y[300:], epochs=60)
    monkeypatch.setattr(dim.probes, "capture", lambda step, batch, **_: step)
    eager = mlp_accuracy(x[:300], y[:300], x[300:], y[300:], epochs=60)
    assert replayed.last == pytest.approx(eager.last, abs=0.03)
    assert replayed.validated == pytest.approx(eager.validated, abs=0.03)
