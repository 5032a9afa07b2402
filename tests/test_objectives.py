"""Every objective: against literal equations, at exact critics, and in finite batches."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_scores, shapes

from mi_estimators import DV, JSD, MINE, NWJ, SMILE, InfoNCE, Objective, PairScores
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.reductions import LogMeanExp
from mi_estimators.testing import check_objective

OBJECTIVES = [JSD(), DV(), NWJ(), InfoNCE(), MINE(), SMILE(), SMILE(tau=1.5)]
MI_IN_NATS = [DV(), NWJ(), MINE()]  # the objective itself reaches I, whatever the number of pairs
VALUE = {
    JSD: reference.jsd,
    DV: reference.dv,
    NWJ: reference.nwj,
    InfoNCE: reference.infonce,
    MINE: reference.dv,
    SMILE: reference.jsd,
}
ESTIMATE = VALUE | {JSD: reference.js_nwj_readout}


class SquaredHellinger(Objective):
    """The README's plug-in."""

    source = "Nowozin et al. 2016, f-GAN, Table 6"

    def joint_term(self, t):
        return 1 - torch.exp(-t)

    def product_term(self, t):
        return torch.expm1(t)

    def from_log_ratio(self, log_ratio):
        return log_ratio / 2

    def to_log_ratio(self, t):
        return 2 * t

    def generator(self, log_ratio):
        return torch.expm1(log_ratio / 2) ** 2


# --- against the literal equations ------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@settings(max_examples=60, deadline=None)
@given(shape=shapes())
def test_value_and_estimate_are_the_literal_equations(objective, shape):
    scores = PairScores(*random_scores(shape))
    rows = reference.rows(scores)
    expected = VALUE[type(objective)](rows)
    assert objective(scores).item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    if isinstance(objective, SMILE):
        expected = reference.smile_readout(rows, objective.tau)
    else:
        expected = ESTIMATE[type(objective)](rows)
    assert objective.estimate(scores).item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(shape=shapes(), shift=st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_log_ratio_restores_the_constant_that_dv_cannot_see(shape, shift):
    scores = PairScores(*random_scores(shape))
    shifted = DV().log_ratio(scores.map(lambda t: t + shift))
    product = [math.exp(t) for t in reference.product_scores(reference.rows(shifted))]
    assert reference.mean(product) == pytest.approx(1)
    torch.testing.assert_close(shifted.joint, DV().log_ratio(scores).joint)


@given(shape=shapes())
@settings(max_examples=40, deadline=None)
def test_log_ratio_restores_the_constants_that_infonce_cannot_see(shape):
    scores = PairScores(*random_scores(shape))
    of_row = scores.joint.sin()
    shifted = PairScores(scores.joint + of_row, scores.product + of_row[..., None], scores.mask)
    for moved, still in zip(
        reference.rows(InfoNCE().log_ratio(shifted)),
        reference.rows(InfoNCE().log_ratio(scores)),
        strict=True,
    ):
        assert moved[0] == pytest.approx(still[0])
        assert moved[1] == pytest.approx(still[1])
        assert reference.mean(math.exp(t) for t in [moved[0], *moved[1]]) == pytest.approx(1)


# --- the exact critic: population values --------------------------------------------------------


def gaussian_quadrature(law, nodes=120):
    """Nodes x, y, weights of P and weights of Q for a 1-D law: Gauss-Hermite in both."""
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x, y = z[:, None].expand(nodes, nodes), law.rho * z[:, None] + math.sqrt(1 - law.rho**2) * z
    return (x, y), (x, z.expand(nodes, nodes)), w[:, None] * w


def population_value(objective, law):
    """E_P[a] - R[b] at the exact critic, by quadrature."""
    joint, product, weights = gaussian_quadrature(law)
    a, b = (
        term(objective.from_log_ratio(law.log_ratio(x[..., None], y[..., None])))
        for term, (x, y) in ((objective.joint_term, joint), (objective.product_term, product))
    )
    if isinstance(objective.reduction, LogMeanExp):
        return ((a * weights).sum() - (weights.log() + b).flatten().logsumexp(0)).item()
    return ((a - b) * weights).sum().item()


@pytest.mark.parametrize("nats", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("objective", MI_IN_NATS, ids=repr)
def test_exact_critic_reaches_the_mutual_information(objective, nats):
    law = CorrelatedGaussian.with_mi(1, nats)
    assert population_value(objective, law) == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize(("nats", "js"), [(0.5, 0.131), (1.0, 0.255)])
def test_exact_critic_reaches_twice_the_jensen_shannon_divergence(nats, js):
    law = CorrelatedGaussian.with_mi(1, nats)
    assert population_value(JSD(), law) == pytest.approx(2 * js, abs=1.5e-3)
    assert population_value(SMILE(), law) == population_value(JSD(), law)


def test_exact_critic_of_the_plug_in_reaches_the_closed_form_of_hellinger():
    law = CorrelatedGaussian(1, 0.6)
    coefficient = (1 - 0.36) ** 0.25 / (1 - 0.36 / 4) ** 0.5
    value = population_value(SquaredHellinger(), law)
    assert value == pytest.approx(2 * (1 - coefficient), abs=1e-9)


def in_batch(log_ratios):
    """In-batch scores of `(..., N, N)` log-ratios, positives masked out."""
    n = log_ratios.shape[-1]
    joint = log_ratios.diagonal(dim1=-2, dim2=-1)
    mask = ~torch.eye(n, dtype=torch.bool)
    return PairScores(joint, log_ratios, mask)


def batches(law, count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x, y = law.sample(size, generator=generator)
        yield in_batch(law.log_ratio(x[:, None], y[None]))


@pytest.mark.parametrize("objective", [JSD(), DV(), NWJ(), MINE(), SMILE(), InfoNCE()], ids=repr)
def test_exact_critic_estimates_the_mutual_information_in_20_dimensions(objective):
    law = CorrelatedGaussian.with_mi(20, 0.5)  # rho = 0.22: E_Q[r^2] = e and E_Q[r^4] exist
    estimates = torch.stack(
        [
            objective.estimate(scores.map(objective.from_log_ratio))
            for scores in batches(law, count=30, size=400)
        ]
    )
    error = estimates.std() / math.sqrt(len(estimates))
    assert error < 0.012
    assert estimates.mean().item() == pytest.approx(0.5, abs=4 * error.item() + 0.005)


# mean over batches of N = 128 at the exact critic, from shared/reference/estimators.md, with about
# 3 standard errors over 400 batches
FINITE_SAMPLE = [
    (1, 1.0, [(DV(), 0.999, 0.012), (JSD(), 0.999, 0.013), (InfoNCE(), 0.984, 0.012)]),
    (20, 2.0, [(InfoNCE(), 1.88, 0.025), (SMILE(), 2.02, 0.03), (DV(), 1.99, 0.03)]),
    (20, 5.0, [(InfoNCE(), 3.85, 0.025), (SMILE(), 5.45, 0.04), (DV(), 5.06, 0.07)]),
    (20, 8.0, [(InfoNCE(), 4.62, 0.015), (SMILE(), 9.26, 0.06), (DV(), 8.33, 0.11)]),
]


@pytest.mark.parametrize(("dim", "nats", "expected"), FINITE_SAMPLE)
def test_batches_of_128_have_the_known_bias(dim, nats, expected):
    law = CorrelatedGaussian.with_mi(dim, nats)
    estimates = [[] for _ in expected]
    for scores in batches(law, count=400, size=128):
        for of_objective, (objective, _, _) in zip(estimates, expected, strict=True):
            of_objective.append(objective.estimate(scores).item())
    for of_objective, (objective, mean, tolerance) in zip(estimates, expected, strict=True):
        assert reference.mean(of_objective) == pytest.approx(mean, abs=tolerance), objective


@pytest.mark.parametrize(
    ("dim", "nats", "js", "sd"), [(1, 1.0, 0.255, 0.020), (20, 5.0, 0.580, 0.017)]
)
def test_jsd_of_batches_of_128_is_unbiased_with_the_known_spread(dim, nats, js, sd):
    law = CorrelatedGaussian.with_mi(dim, nats)
    values = torch.stack([JSD()(scores) for scores in batches(law, count=400, size=128)]) / 2
    assert values.mean().item() == pytest.approx(js, abs=0.004)
    assert values.std().item() == pytest.approx(sd, rel=0.15)


def test_clipping_biases_smile_upwards_and_an_infinite_tau_is_dv():
    law = CorrelatedGaussian.with_mi(20, 5.0)
    (scores,) = batches(law, count=1, size=256)
    assert SMILE(tau=2.0).estimate(scores) > SMILE(tau=5.0).estimate(scores)
    torch.testing.assert_close(SMILE(tau=math.inf).estimate(scores), DV().estimate(scores))


# --- the conformance suite and what it catches ----------------------------------------------------


@pytest.mark.parametrize("objective", [*OBJECTIVES, SquaredHellinger()], ids=repr)
def test_objective_passes_the_conformance_suite(objective):
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    check_objective(objective)
    torch.testing.assert_close(objective.state_dict(), before, equal_nan=True)
    assert objective.training  # checked on a copy


class JointMean(Objective):
    """E_P[T]: right at the exact critic, and no bound."""

    source = "the plug-in"

    def product_term(self, t):
        return torch.zeros_like(t)


class MINEWithoutBuffers(MINE):
    """Its moving average is in no state dict."""

    def __init__(self):
        super().__init__()
        average, updates = self.log_average, self.updates
        del self.log_average, self.updates
        self.log_average, self.updates = average, updates


def unreduced(objective, scores):
    return PairScores(
        objective.joint_term(scores.joint), objective.product_term(scores.product), scores.mask
    )


# what is wrong: (with which objective, which parts replace its own, what the suite complains of)
MUTANTS = {
    "factor 2": (
        SquaredHellinger,
        {
            "joint_term": lambda self, t: 2 * (1 - torch.exp(-t)),
            "product_term": lambda self, t: 2 * torch.expm1(t),
        },
        "value at the exact critic",
    ),
    "optimum at log r": (
        SquaredHellinger,
        {"from_log_ratio": JSD.from_log_ratio, "to_log_ratio": JSD.to_log_ratio},
        "value at the exact critic",
    ),
    "optimum at log r, generator to match": (
        SquaredHellinger,
        {
            "from_log_ratio": JSD.from_log_ratio,
            "to_log_ratio": JSD.to_log_ratio,
            "generator": lambda self, t: t.exp() * (1 - torch.exp(-t)) - torch.expm1(t),
        },
        "from_log_ratio is the optimum",
    ),
    "no inverse": (SquaredHellinger, {"to_log_ratio": JSD.to_log_ratio}, "to_log_ratio"),
    "generator not squared": (
        SquaredHellinger,
        {"generator": lambda self, t: torch.expm1(t / 2).abs()},
        "generator",
    ),
    "no source": (SquaredHellinger, {"source": Objective.source}, "source"),
    "unknown kind": (SquaredHellinger, {"kind": "tight"}, "kind"),
    "overflow": (
        SquaredHellinger,
        {"product_term": lambda self, t: torch.expm1(t) + 0 * torch.exp(500 * t)},
        "nan",
    ),
    "nameless": (SquaredHellinger, {"__repr__": lambda self: "objective"}, "repr"),
    "half precision": (SquaredHellinger, {"apply_terms": unreduced}, "dtype"),
    "no log 2": (
        JSD,
        {"joint_term": lambda self, t: JSD().joint_term(t) - math.log(2)},
        "value at the exact critic",
    ),
    "signs swapped": (
        JSD,
        {
            "joint_term": lambda self, t: JSD().joint_term(-t),
            "product_term": lambda self, t: JSD().product_term(-t),
        },
        "value at the exact critic",
    ),
    "JS for 2 JS in the value alone": (
        JSD,
        {"value": lambda self, statistics: JSD().value(statistics) / 2},
        "mean of terms",
    ),
    "mask ignored": (
        JSD,
        {"statistics": lambda self, s: JSD().statistics(PairScores(s.joint, s.product))},
        "masked",
    ),
    "I - 1/e, the optimum of NWJ forgotten": (
        NWJ,
        {"from_log_ratio": JSD.from_log_ratio, "to_log_ratio": JSD.to_log_ratio},
        "value at the exact critic",
    ),
    "e^T for e^(T-1)": (
        NWJ,
        {"product_term": lambda self, t: t.exp()},
        "value at the exact critic",
    ),
    "readout off by a constant": (
        JSD,
        {"readout": lambda self: plug_in(NWJ, product_term=lambda self, t: t.exp())()},
        "estimate in nats at the exact critic",
    ),
    "clipped DV called a bound": (
        SMILE,
        {"kind": "lower bound", "readout": lambda self: SMILE(tau=0.3).readout()},
        "expected at most",
    ),
    "plug-in called a bound": (
        JSD,
        {"readout": lambda self: JointMean()},
        "estimate at the critic 1.1 log r: expected at most",
    ),
    "cross-entropy called InfoNCE": (
        InfoNCE,
        {"value": lambda self, s: InfoNCE().value(s) - (s.pairs + 1).log().mean()},
        "mean of terms",
    ),
    "ceiling log K": (InfoNCE, {"ceiling": lambda self, k: math.log(k)}, "ceiling"),
    "average in no state dict": (MINEWithoutBuffers, {}, "state-dict"),
}


def plug_in(base, **parts):
    return type(f"PlugIn{base.__name__}", (base,), parts)


@pytest.mark.parametrize("wrong", MUTANTS)
def test_conformance_suite_catches(wrong):
    base, parts, complaint = MUTANTS[wrong]
    with pytest.raises(AssertionError, match=r"expected .* received") as caught:
        check_objective(plug_in(base, **parts)())
    assert complaint in str(caught.value)


class HalfScaledDV(DV):
    """DV of 2T, whose optimum is log r / 2 + c: a legitimate plug-in."""

    def joint_term(self, t):
        return 2 * t

    def product_term(self, t):
        return 2 * t

    def from_log_ratio(self, log_ratio):
        return log_ratio / 2

    def to_log_ratio(self, t):
        return 2 * t


def test_scaled_dv_passes_the_conformance_suite():
    check_objective(HalfScaledDV())
