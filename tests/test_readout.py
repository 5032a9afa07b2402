"""Reading a critic out: values against literal twins, errors against repetitions, certificates."""

import itertools
import math

import pytest
import reference
import torch

import mi_estimators.readout as readout_module
from mi_estimators import DV, JSD, NWJ, SMILE, Critic, InfoNCE, Separable
from mi_estimators.distributions import CorrelatedGaussian, DiscreteTable
from mi_estimators.readout import (
    CLIP,
    SPAN,
    Evaluation,
    block_size,
    certified_bound,
    divergence_terms,
    evaluate,
    free_constant,
    information_of_divergence,
    mean_of,
    read_out,
    score_blocks,
    shuffled_sums,
    tightest,
)
from mi_estimators.samples import Samples


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


class Exact(Critic):
    """scale * log r + constant of a law."""

    def __init__(self, law, scale=1.0, constant=0.0):
        super().__init__()
        self.law, self.scale, self.constant = law, scale, constant

    def encode_x(self, x):
        return x

    def encode_y(self, y):
        return y

    def score(self, u, v):
        return self.scale * self.law.log_ratio(u, v) + self.constant


class Uncalibrated(Exact):
    """log r and an error that depends on x alone."""

    def score(self, u, v):
        return super().score(u, v) + torch.sin(3 * u[..., 0])


class Table(Critic):
    """T(i, j) from a table, for samples that are their own numbers."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def encode_x(self, x):
        return x

    def encode_y(self, y):
        return y

    def score(self, u, v):
        return self.table[u[..., 0].long(), v[..., 0].long()]


def numbered(n):
    column = torch.arange(n, dtype=torch.float64)[:, None]
    return Samples(column, column)


def gaussian(n, dim=1, rho=0.4, seed=0):
    law = CorrelatedGaussian(dim, rho)
    return law, Samples(*law.sample(n, generator=seeded(seed)))


# --- evaluations ----------------------------------------------------------------------------------


def test_the_standard_error_of_a_mean_is_the_usual_one():
    terms = torch.randn(50, generator=seeded()).double()
    evaluation = Evaluation(terms.mean().item(), terms - terms.mean())
    assert evaluation.standard_error() == pytest.approx(terms.std().item() / math.sqrt(50))


def test_the_standard_error_of_groups_is_that_of_their_means():
    means = torch.randn(20, generator=seeded()).double()
    terms = means.repeat_interleave(3)
    groups = torch.arange(20).repeat_interleave(3)
    order = torch.randperm(60, generator=seeded())
    evaluation = mean_of(terms[order])
    expected = means.std().item() / math.sqrt(20)
    assert evaluation.standard_error(groups[order]) == pytest.approx(expected)
    assert evaluation.standard_error() == pytest.approx(expected / math.sqrt(3), rel=0.05)
    assert evaluation.standard_error(torch.arange(60)) == evaluation.standard_error()


def test_a_value_exceeds_so_many_of_its_errors():
    evaluation = Evaluation(2.0, vector(1, -1))  # its standard error is 1
    assert evaluation.exceeds(1.9)
    assert not evaluation.exceeds(2.1)
    assert not Evaluation(-2.0, vector(1, -1)).exceeds(1.0)
    assert not evaluation.less(evaluation).exceeds(0.0)


def test_the_mean_of_terms_has_their_usual_error():
    value, influence = found = mean_of(vector(1, 2, 6))
    assert (value, influence.tolist()) == (3, [-2, -1, 3])
    assert found.standard_error() == pytest.approx(math.sqrt(7 / 3))


def test_differences_are_of_values_and_of_influences():
    a, b = Evaluation(3.0, vector(1, -1, 0)), Evaluation(1.0, vector(0.5, -1, 0.5))
    value, influence = a.less(b)
    assert value == 2
    assert influence.tolist() == [0.5, 0, -0.5]
    assert a.less(a).standard_error() == 0


def test_parts_pool_by_their_sizes_and_keep_their_order():
    pooled = Evaluation.pool(iter([Evaluation(1.0, vector(3)), Evaluation(4.0, vector(1, 2))]))
    assert pooled.value == 3
    assert pooled.influence.tolist() == [3, 1, 2]
    ordered = pooled.reordered(torch.tensor([1, 2, 0]))
    assert ordered.value == 3
    assert ordered.influence.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("objective", "n"), [(DV(), 100), (JSD(), 100), (InfoNCE(), 40), (SMILE(tau=1.0), 100)]
)
def test_standard_error_is_the_spread_over_repetitions(objective, n):
    law, generator = CorrelatedGaussian(2, 0.4), seeded()
    values, errors = [], []
    for _ in range(250):
        sample = Samples(*law.sample(n, generator=generator))
        evaluation = read_out(Exact(law), objective, sample).estimate
        values.append(evaluation.value)
        errors.append(evaluation.standard_error())
    spread = torch.tensor(values).std().item()
    assert vector(*errors).square().mean().sqrt().item() == pytest.approx(spread, rel=0.12)


# --- the value ------------------------------------------------------------------------------------


def rows_of_blocks(table, sizes):
    """Literal rows: each sample's own score, and those with the other samples of its block."""
    rows, start = [], 0
    for size in sizes:
        block = range(start, start + size)
        rows += [(table[i, i].item(), [table[i, j].item() for j in block if j != i]) for i in block]
        start += size
    return rows


@pytest.mark.parametrize(
    ("n", "sizes"), [(20, [20]), (21, [21]), (43, [22, 21]), (64, [22, 21, 21])]
)
def test_all_readouts_are_their_literal_twins_over_nearly_equal_blocks(n, sizes, monkeypatch):
    monkeypatch.setattr(readout_module, "BLOCK", 22)
    table = 1.5 * torch.randn(n, n, generator=seeded(), dtype=torch.float64)
    found = read_out(Table(table), SMILE(tau=1.0), numbered(n), constant=None)
    rows = rows_of_blocks(table, sizes)
    assert found.estimate.value == pytest.approx(reference.smile_readout(rows, 1.0))
    assert {name: part.value for name, part in found.others.items()} == pytest.approx(
        {
            "JSD": reference.js_nwj_readout(rows),
            "DV": reference.dv(rows),
            "InfoNCE": reference.infonce(rows),
        }
    )
    torch.testing.assert_close(found.pointwise, table.diagonal())
    assert block_size(n) == max(sizes)


@pytest.mark.parametrize("objective", [JSD(), DV(), NWJ(), InfoNCE()], ids=repr)
def test_influences_have_mean_0_and_the_order_of_the_samples(objective, monkeypatch):
    law, samples = gaussian(90)
    found = read_out(Exact(law), objective, samples).estimate
    assert found.influence.mean().item() == pytest.approx(0, abs=1e-9)
    order = torch.randperm(90, generator=seeded())
    again = read_out(Exact(law), objective, samples[order]).estimate
    assert again.value == pytest.approx(found.value)
    torch.testing.assert_close(again.influence, found.influence[order])
    monkeypatch.setattr(readout_module, "BLOCK", 50)  # about the same, block by block
    blocks = read_out(Exact(law), objective, samples).estimate
    assert torch.corrcoef(torch.stack([blocks.influence, found.influence]))[0, 1] > 0.9


def test_an_objective_is_given_scores_of_its_own():
    law, samples = gaussian(200)
    nwj = read_out(Exact(law), NWJ(), samples)
    assert nwj.estimate.value == pytest.approx(nwj.others["JSD"].value)
    torch.testing.assert_close(nwj.pointwise, law.log_ratio(samples.x, samples.y))
    unclipped = evaluate(NWJ(), score_blocks(Exact(law), samples))
    assert unclipped.value == pytest.approx(nwj.estimate.value, abs=1e-4)


def test_samples_of_one_group_are_no_independent_pairs():
    table = torch.randn(4, 4, generator=seeded(), dtype=torch.float64)
    samples = Samples(numbered(4).x, numbered(4).y, torch.tensor([0, 0, 1, 1]))
    others = [[2, 3], [2, 3], [0, 1], [0, 1]]
    rows = [(table[i, i].item(), table[i, others[i]].tolist()) for i in range(4)]
    found = read_out(Table(table), DV(), samples)
    assert found.estimate.value == pytest.approx(reference.dv(clipped_rows(rows, math.log(4))))


def clipped_rows(rows, limit):
    def clip(t):
        return min(max(t, -limit), limit)

    return [(clip(joint), [clip(t) for t in product]) for joint, product in rows]


def test_scores_are_clipped_at_log_n_after_the_constant():
    table = 20 * torch.randn(30, 30, generator=seeded(), dtype=torch.float64)
    found = read_out(Table(table + 7), DV(), numbered(30), constant=7.0)
    limit = math.log(30)
    rows = clipped_rows(rows_of_blocks(table, [30]), limit)
    assert found.estimate.value == pytest.approx(reference.dv(rows))
    torch.testing.assert_close(
        found.others["JSD"].value, reference.js_nwj_readout(rows), atol=1e-9, rtol=0
    )


def test_one_pair_far_out_cannot_explode():
    """A critic that is sure of what is not so: e^T alone would read -10^16."""
    law, samples = gaussian(200, rho=0.9)
    found = read_out(Exact(law, scale=10.0), JSD(), samples)
    assert -200 < found.estimate.value < law.mutual_information()
    assert found.pointwise.abs().max() <= math.log(200)


def test_batch_norm_is_read_in_evaluation_mode_and_left_as_it_was():
    f, g = (torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4)) for _ in range(2))
    _, samples = gaussian(50)
    samples = Samples(samples.x.float(), samples.y.float())
    before = f[1].running_mean.clone()
    read_out(Separable(f, g), DV(), samples)
    divergence_terms(Separable(f, g), samples, 0.0)
    assert torch.equal(before, f[1].running_mean)
    assert f[1].training


# --- constants ------------------------------------------------------------------------------------


def test_the_constant_that_an_objective_cannot_see_is_found():
    law, samples = gaussian(1000)
    normaliser = free_constant(Exact(law), DV(), samples)
    assert abs(normaliser) < 0.1  # log E_Q[r] = 0
    moved = free_constant(Exact(law, constant=5.0), DV(), samples)
    assert moved == pytest.approx(normaliser + 5)
    plain = read_out(Exact(law), DV(), samples, constant=normaliser)
    shifted = read_out(Exact(law, constant=5.0), DV(), samples, constant=moved)
    assert shifted.estimate.value == pytest.approx(plain.estimate.value)
    for name, part in plain.others.items():
        assert shifted.others[name].value == pytest.approx(part.value)


def test_the_constant_is_the_mean_over_blocks(monkeypatch):
    monkeypatch.setattr(readout_module, "BLOCK", 3)
    table = torch.randn(6, 6, generator=seeded(), dtype=torch.float64)
    first, second = (
        math.log(reference.mean(math.exp(t) for _, product in rows for t in product))
        for rows in (rows_of_blocks(table, [3]), rows_of_blocks(table[3:, 3:], [3]))
    )
    assert free_constant(Table(table), DV(), numbered(6)) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("objective", [JSD(), NWJ()], ids=repr)
def test_an_objective_that_sees_constants_has_none(objective):
    law, samples = gaussian(100)
    assert free_constant(Exact(law, constant=5.0), objective, samples) == 0


def test_constants_of_rows_cannot_be_taken_off():
    law, samples = gaussian(100)
    assert free_constant(Exact(law), InfoNCE(), samples) is None
    far = read_out(Exact(law, constant=100.0), InfoNCE(), samples, constant=None)
    near = read_out(Exact(law), InfoNCE(), samples, constant=None)
    assert far.estimate.value == pytest.approx(near.estimate.value)
    torch.testing.assert_close(far.pointwise, near.pointwise)
    assert near.pointwise.mean().item() == pytest.approx(near.estimate.value)
    assert far.effective_sample_size == pytest.approx(near.effective_sample_size)


# --- effective sample size ------------------------------------------------------------------------


def ess(table):
    return read_out(Table(table), JSD(), numbered(len(table)), constant=None).effective_sample_size


def test_uniform_weights_count_every_independent_pair(monkeypatch):
    assert ess(torch.full((30, 30), -3.0).double()) == pytest.approx(30 * 29)
    monkeypatch.setattr(readout_module, "BLOCK", 10)
    assert ess(torch.zeros(30, 30).double()) == pytest.approx(3 * 10 * 9)


def test_one_dominating_weight_counts_as_one():
    table = torch.zeros(30, 30).double()
    table[3, 7] = 60.0
    assert ess(table) == pytest.approx(1)
    table[3, 7], table[3, 3] = 0.0, 60.0  # a real pair is no independent one
    assert ess(table) == pytest.approx(30 * 29)


def test_weights_count_by_kish():
    weights = torch.rand(12, 12, generator=seeded(), dtype=torch.float64) + 0.1
    others = [weights[i, j].item() for i in range(12) for j in range(12) if i != j]
    expected = math.fsum(others) ** 2 / math.fsum(w**2 for w in others)
    assert ess(weights.log()) == pytest.approx(expected)


# --- the test of independence ---------------------------------------------------------------------


def p_value(critic, samples, seed=0, shuffles=999):
    sums = shuffled_sums(critic, samples, seeded(seed), shuffles)
    assert sums.shape == (shuffles + 1,)
    return (sums >= sums[0]).double().mean().item()


def test_sums_are_those_of_the_pairs_and_of_shuffled_ones_within_blocks(monkeypatch):
    table = torch.randn(6, 6, generator=seeded(), dtype=torch.float64)
    sums = shuffled_sums(Table(table), numbered(6), seeded(), 50)
    every = {
        sum(table[i, j].item() for i, j in enumerate(order))
        for order in itertools.permutations(range(6))
    }
    assert sums[0].item() == pytest.approx(table.trace().item())
    assert all(min(abs(one - s) for s in every) < 1e-9 for one in sums.tolist())
    assert len(sums.unique()) > 20
    monkeypatch.setattr(readout_module, "BLOCK", 3)
    far = torch.block_diag(torch.zeros(3, 3), torch.zeros(3, 3)).double()
    far[:3, 3:] = far[3:, :3] = 100.0  # pairs of two blocks, which are not made
    assert shuffled_sums(Table(far), numbered(6), seeded(), 50).tolist() == [0.0] * 51


def test_p_values_of_independent_samples_are_uniform():
    law, nothing = CorrelatedGaussian(1, 0.6), CorrelatedGaussian(1, 0.0)
    p_values = [
        p_value(Exact(law), Samples(*nothing.sample(30, generator=seeded(seed))), seed, 99)
        for seed in range(400)
    ]
    assert min(p_values) >= 0.01
    for level in (0.05, 0.2, 0.5, 0.8):  # 4 standard errors of a share
        share = sum(p <= level for p in p_values) / 400
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / 400)


def test_dependence_has_the_least_p_value_and_no_critic_the_largest():
    law, samples = gaussian(200, rho=0.6)
    assert p_value(Exact(law), samples) == 1 / 1000
    assert p_value(Exact(law, scale=0.0), samples) == 1
    assert p_value(Exact(law, scale=-1.0), samples) == 1


# --- the certificate ------------------------------------------------------------------------------


def divergence(nu):
    """Jensen-Shannon divergence of a point from a Bernoulli law; I = -log nu."""
    return math.log(2) - (1 + nu) / 2 * math.log(1 + nu) + nu / 2 * math.log(nu)


@pytest.mark.parametrize("nu", [0.999, 0.9, 0.5, 0.1, 1e-3, 1e-9])
def test_information_of_divergence_inverts_the_formula(nu):
    assert information_of_divergence(divergence(nu)) == pytest.approx(-math.log(nu), rel=1e-6)


FIXTURES = {  # JSD and Ξ of correlated Gaussians in 1 and in 20 dimensions, .5 to 8 nats
    0.131: 0.40,
    0.255: 0.84,
    0.448: 1.75,
    0.664: 4.56,
    0.113: 0.34,
    0.206: 0.66,
    0.351: 1.24,
    0.579: 2.83,
    0.660: 4.41,
}


@pytest.mark.parametrize(("js", "nats"), FIXTURES.items())
def test_information_of_divergence_of_gaussians(js, nats):
    low, high = (information_of_divergence(js + rounding) for rounding in (-5e-4, 5e-4))
    assert low - 5e-3 < nats < high + 5e-3


def test_information_of_divergence_is_convex_above_a_line_and_0_at_0():
    at = torch.linspace(0, 0.69, 70).tolist()
    values = vector(*[information_of_divergence(js) for js in at])
    assert values[0] == information_of_divergence(-0.3) == 0
    assert bool((values.diff().diff() > 0).all())
    assert all(nats >= 2 / math.log(2) * js for nats, js in zip(values.tolist(), at, strict=True))


@pytest.mark.parametrize("js", [math.log(2), 1.0])
def test_a_divergence_that_no_laws_reach_is_refused(js):
    with pytest.raises(ValueError, match="divergence: expected less than log 2, received"):
        information_of_divergence(js)


TABLE = DiscreteTable(torch.tensor([[4.0, 1, 1], [0.5, 3, 0.5]]) / 10)


def twice_the_divergence(law):
    """2 JS(P, Q) of a table, by its definition."""
    p = law._table
    q = p.sum(1, keepdim=True) * p.sum(0)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()).item()


def test_terms_have_twice_the_divergence_as_their_mean():
    samples = Samples(*TABLE.sample(20_000, generator=seeded()))
    terms = divergence_terms(Exact(TABLE), samples, 0.0)
    error = terms.std().item() / math.sqrt(len(terms))
    assert abs(terms.mean().item() - twice_the_divergence(TABLE)) < 4 * error
    assert terms.mean().item() - 4 * error > 0.05


def test_no_critic_shows_more_than_the_divergence():
    samples = Samples(*TABLE.sample(20_000, generator=seeded()))
    for scale, constant in ((0.0, 0.0), (0.5, 0.0), (2.0, 0.0), (-1.0, 0.0), (1.0, 1.0)):
        terms = divergence_terms(Exact(TABLE, scale, constant), samples, 0.0)
        assert terms.mean().item() < twice_the_divergence(TABLE) - 0.01
    assert divergence_terms(Exact(TABLE, 0.0), samples, 0.0).abs().max() < 1e-12


def test_each_term_has_two_samples_to_itself():
    law, samples = gaussian(101)
    terms = divergence_terms(Exact(law), samples, 0.0)
    assert terms.shape == (50,)
    for sample in range(100):
        x = samples.x.clone()
        x[sample] += 1
        changed = divergence_terms(Exact(law), Samples(x, samples.y), 0.0)
        assert (changed != terms).nonzero().flatten().tolist() == [sample // 2]


def test_a_group_gives_one_sample_to_the_terms():
    law, samples = gaussian(100)
    groups = torch.arange(100) // 4
    of_groups = divergence_terms(Exact(law), Samples(samples.x, samples.y, groups), 0.0)
    torch.testing.assert_close(
        of_groups, divergence_terms(Exact(law), samples[torch.arange(0, 100, 4)], 0.0)
    )


def test_terms_lie_within_their_span_and_the_constant_is_taken_off():
    law, samples = gaussian(400, rho=0.9)
    terms = divergence_terms(Exact(law, scale=1e3), samples, 0.0)
    sure = math.log1p(math.exp(CLIP))  # softplus
    assert terms.max().item() == pytest.approx(2 * math.log(2) - 2 * (sure - CLIP))
    assert terms.min().item() >= 2 * math.log(2) - 2 * sure
    assert 2 * (sure - (sure - CLIP)) == pytest.approx(SPAN)
    moved = divergence_terms(Exact(law, constant=4.0), samples, 4.0)
    torch.testing.assert_close(moved, divergence_terms(Exact(law), samples, 0.0))


def test_the_limit_is_that_of_maurer_and_pontil_for_all_critics_together():
    good, poor = torch.rand(2, 2000, generator=seeded()).double() + vector(0.4, 0.0)[:, None]
    failure = 0.05 / 2
    log = math.log(2 / failure)
    slack = math.sqrt(2 * good.var().item() * log / 2000) + 7 * SPAN * log / (3 * 1999)
    limit = good.mean().item() - slack
    expected = information_of_divergence(limit / 2)
    assert certified_bound([good, poor]) == certified_bound([poor, good]) == pytest.approx(expected)
    assert certified_bound([good]) > expected > certified_bound([good, poor], level=0.999)


def test_few_or_poor_terms_certify_nothing():
    assert certified_bound([torch.zeros(10).double()]) == 0
    assert certified_bound([torch.full((5,), 1.2).double()]) == 0
    assert certified_bound([torch.full((1,), 1.2).double()]) == 0
    assert certified_bound([torch.zeros(0).double()]) == 0


@pytest.mark.parametrize(("dim", "nats"), [(1, 0.02), (1, 1.0), (5, 2.0)])
def test_the_certificate_is_below_the_truth_by_the_true_critic(dim, nats):
    law = CorrelatedGaussian.with_mi(dim, nats)
    certified = [
        certified_bound(
            [divergence_terms(Exact(law), Samples(*law.sample(n, generator=seeded(seed))), 0.0)]
        )
        for n in (100, 2000)
        for seed in range(200)
    ]
    assert max(certified) < nats  # its promise is 95 % of them


def test_the_certificate_of_1_nat_from_5000_samples_is_above_0():
    law, samples = gaussian(5000, rho=math.sqrt(-math.expm1(-2)))
    assert 0.3 < certified_bound([divergence_terms(Exact(law), samples, 0.0)]) < 0.84


# --- the tightest bound ---------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [DV(), NWJ(), JSD()])
def test_infonce_reads_out_what_errs_by_x_alone_and_is_closer(objective):
    law, samples = gaussian(2000, rho=0.8)
    critic = Uncalibrated(law)
    by = tightest(critic, objective, samples, 0.0)
    assert isinstance(by, InfoNCE)
    errors = {
        reader: read_out(critic, objective, samples, by=reader).estimate.value
        - law.mutual_information()
        for reader in (None, by)
    }
    assert errors[None] < errors[by] - 0.1
    assert abs(errors[by]) < 0.1


def test_infonce_reads_out_nothing_near_its_ceiling():
    law = CorrelatedGaussian.with_mi(5, 6.0)
    x, y = law.sample(400, generator=seeded())
    by = tightest(Exact(law), DV(), Samples(x, y), 0.0)
    assert not isinstance(by, InfoNCE)


def test_what_is_no_lower_bound_reads_itself_out():
    law, samples = gaussian(2000, rho=0.8)
    found = tightest(Uncalibrated(law), SMILE(), samples, 0.0)
    assert type(found) is type(SMILE().readout())


def test_the_choice_is_made_in_blocks_of_the_size_that_is_reported():
    law = CorrelatedGaussian.with_mi(5, 4.0)
    critic, samples = Uncalibrated(law), Samples(*law.sample(1000, generator=seeded()))
    assert isinstance(tightest(critic, DV(), samples, 0.0), InfoNCE)
    assert isinstance(tightest(critic, DV(), samples, 0.0, size=50), DV)


def test_a_difference_within_its_error_leaves_the_objectives_own_readout():
    law, samples = gaussian(40, rho=0.8)
    assert isinstance(tightest(Exact(law), DV(), samples, 0.0), DV)


def test_blocks_of_many_samples_are_small_and_all_pairs_few():
    for n, size in ((1000, 1000), (2**15, 1024), (200_000, 167), (2**26 + 1, 64)):
        assert block_size(n) == size
