"""Cross-fitting: disjoint parts, whole groups, scorers, and what a readout lacks of the truth."""

import math

import pytest
import torch

from mi_estimators import DV, JSD
from mi_estimators.baselines import EllipticalRatio, Independence
from mi_estimators.canonical import Canonical
from mi_estimators.cross_fitting import MeanScorer, Scorer, read_out_known, split_folds
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.samples import Samples, as_samples


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "folds"), [(50, 5), (53, 4), (1000, 2)])
def test_parts_are_disjoint_and_every_sample_is_reported_on_once(n, folds):
    parts = split_folds(n, folds, seeded())
    assert len(parts) == folds
    for part in parts:
        assert torch.equal(torch.cat(part).sort().values, torch.arange(n))
        assert len(part.stop) == max(2, (n - len(part.report)) // 8)
    assert torch.equal(torch.cat([part.report for part in parts]).sort().values, torch.arange(n))
    sizes = [len(part.report) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_no_group_is_in_two_parts():
    groups = torch.randint(30, (500,), generator=seeded()).unique(return_inverse=True)[1]
    parts = split_folds(500, 4, seeded(), groups)
    for part in parts:
        assert torch.equal(torch.cat(part).sort().values, torch.arange(500))
        train, stop, report = (set(groups[rows].tolist()) for rows in part)
        assert not train & stop
        assert not train & report
        assert not stop & report
        assert len(stop) == max(2, (len(train) + len(stop)) // 8)
    assert torch.equal(torch.cat([part.report for part in parts]).sort().values, torch.arange(500))


def test_members_of_a_group_are_scattered():
    groups = torch.arange(400) // 20
    report = split_folds(400, 2, seeded(), groups)[0].report
    neighbours = (groups[report][1:] == groups[report][:-1]).double().mean().item()
    assert neighbours < 0.2


def test_groups_of_one_are_like_no_groups():
    plain, grouped = (split_folds(60, 3, seeded(), of) for of in (None, torch.arange(60)))
    for a, b in zip(plain, grouped, strict=True):
        for rows_a, rows_b in zip(a, b, strict=True):
            assert torch.equal(rows_a, rows_b.sort().values) or set(rows_a.tolist()) == set(
                rows_b.tolist()
            )


def exact(dim, rho):
    """The true log-ratio as an elliptical one, and its law."""
    eye, zeros = torch.eye(dim).double(), torch.zeros(dim).double()
    law = CorrelatedGaussian(dim, rho)
    return EllipticalRatio(Canonical(zeros, eye, zeros, eye, law.correlations)), law


def test_scorers_map_take_off_the_constant_and_average():
    ratio, law = exact(1, 0.6)
    x, y = law.sample(20, generator=seeded())
    first = Scorer((lambda x: x - 5, lambda y: y / 2), ratio, 0.25)
    second = Scorer((torch.sin, torch.sin), Independence(), 0.0)
    scores = first(as_samples(x + 5, 2 * y))
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, law.log_ratio(x, y) - 0.25, atol=1e-5, rtol=0)
    mean = MeanScorer((first, second), (1, 1))((x + 5).numpy(), 2 * y)
    torch.testing.assert_close(torch.from_numpy(mean), scores / 2)


def known_of(ratio, law, objective, n=1000):
    stop, report = (Samples(*law.sample(m, generator=seeded(m))) for m in (100, n))
    known = read_out_known(
        ratio, objective, objective.readout(), stop, report, (torch.sin, torch.sin), seeded()
    )
    return known, report


@pytest.mark.parametrize("objective", [JSD(), DV()], ids=repr)
def test_a_readout_lacks_nothing_of_weak_dependence(objective):
    ratio, law = exact(2, 0.5)
    known, report = known_of(ratio, law, objective)
    torch.testing.assert_close(known.pointwise, law.log_ratio(report.x, report.y))
    error = known.readout.estimate.standard_error()
    assert abs(known.readout.estimate.value - law.mutual_information()) < 4 * error
    assert known.shortfall.influence.shape == (1000,)
    assert abs(known.shortfall.value) < 4 * known.shortfall.standard_error() + 0.01


def test_a_readout_lacks_what_is_beyond_the_logarithm_of_n():
    ratio, law = exact(8, 0.98)  # 12.9 nats, clipped at log 200
    known, _ = known_of(ratio, law, JSD(), n=200)
    assert known.shortfall.value < math.log(200) + 1.5 - law.mutual_information()
    assert known.shortfall.value < -20 * known.shortfall.standard_error()
    seen = known.readout.estimate.value - known.pointwise.mean().item()
    assert abs(known.shortfall.value - seen) < 1  # the law is the ratio's own
