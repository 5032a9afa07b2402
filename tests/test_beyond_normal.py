"""The 40 tasks of Czyż et al. 2023 against the arrays that the benchmark's own code drew."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from mi_estimators.distributions import Pushforward, beyond_normal

DATA = Path(__file__).parents[2] / "shared" / "data" / "bmi"
LAWS = beyond_normal()
every_task = pytest.mark.parametrize("name", LAWS)
needs_arrays = pytest.mark.skipif(
    not (DATA / "tasks.json").exists(), reason="../shared/data/bmi holds no stored tasks"
)


def stored(name):
    arrays = np.load(DATA / f"{name}.npz")
    return torch.from_numpy(arrays["x"]).double(), torch.from_numpy(arrays["y"]).double()


def drawn(name):
    return LAWS[name].sample(10_000, generator=torch.Generator().manual_seed(0))


def test_there_are_forty_tasks_and_a_call_shares_nothing_with_the_next():
    assert len(LAWS) == 40
    assert list(beyond_normal()) == list(LAWS)
    assert beyond_normal()["1v1-normal-0.75"] is not LAWS["1v1-normal-0.75"]


@needs_arrays
def test_names_dimensions_and_information_are_the_benchmarks():
    # One of the benchmark's closed forms is evaluated in float32.
    tasks = json.loads((DATA / "tasks.json").read_text())
    assert set(LAWS) == set(tasks)
    for name, law in LAWS.items():
        assert (law.dim_x, law.dim_y) == (tasks[name]["dx"], tasks[name]["dy"]), name
        assert law.mutual_information() == pytest.approx(tasks[name]["mi"], abs=1e-7), name


@needs_arrays
@every_task
def test_columns_have_the_stored_distribution(name):
    # 247 columns, so p-values of 4e-3 come by chance.
    for ours, theirs in zip(drawn(name), stored(name), strict=True):
        for column in range(min(5, ours.shape[1])):
            same = stats.ks_2samp(ours[:, column], theirs[:, column], method="asymp")
            assert same.pvalue > 1e-4, column


def rank_correlations(x, y):
    """Spearman's of every two coordinates, and of their distances from the median."""
    xy = torch.cat([x, y], -1)
    ranks = xy.argsort(0).argsort(0) / len(xy) - 0.5
    return torch.stack([ranks.mT.corrcoef(), ranks.abs().mT.corrcoef()])


@needs_arrays
@every_task
def test_rank_correlations_are_the_stored_ones(name):
    # Standard error sqrt(2 / 10,000) = 0.014; 100 coordinates make 4950 pairs.
    difference = rank_correlations(*drawn(name)) - rank_correlations(*stored(name))
    assert difference.abs().max() < 0.075


@needs_arrays
@every_task
def test_stored_pairs_have_our_information_on_average(name):
    # Under another law of the same margins E[log r] is lower, and E_Q[r] is 1 under no other. The
    # support of additive noise is closed by float32's rounding, so what falls off it is left out.
    x, y = stored(name)
    values = LAWS[name].log_ratio(x, y)
    off = values == -math.inf
    assert off.double().mean() < 1e-3
    assert off.sum() == 0 or "additive" in name
    values = values[~off]
    standard_error = values.std().item() / math.sqrt(len(values))
    assert standard_error < 0.02
    assert abs(values.mean().item() - LAWS[name].mutual_information()) < 4 * standard_error


MAPPED = [
    (name, base)
    for name in LAWS
    for base in [name.split("-", 1)[1]]
    if isinstance(LAWS[name], Pushforward) and base in LAWS
] + [("1v1-bimodal-0.75", "1v1-normal-0.75")]


@needs_arrays
@pytest.mark.parametrize(("name", "base"), MAPPED)
def test_bijections_map_the_stored_base_onto_the_stored_task(name, base):
    # The benchmark drew both with one seed. Its matrix exponential of an angle past 2π is good to
    # 4e-3 only (float32), hence the quantile beside the maximum.
    law = LAWS[name]
    for bijection, before, after in zip((law.f, law.g), stored(base), stored(name), strict=True):
        error = ((bijection.forward(before) if bijection else before) - after).abs()
        assert error.max() < (5e-3 if name.startswith("spiral-mult") else 2e-4)
        assert error.flatten().quantile(0.99) < 1e-5


def test_most_tasks_are_mapped_ones():
    assert len(MAPPED) == 21
