"""Every objective: against literal equations, at exact critics, and in finite batches."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_scores, shapes

from mi_estimators import (
    CLUB,
    DV,
    JSD,
    MINE,
    NWJ,
    SMILE,
    AlphaInfoNCE,
    InfoNCE,
    InfoNCEAnchor,
    L1Out,
    LogLikelihood,
    MIEstimator,
    Objective,
    PairScores,
    PearsonChi2,
    ReverseKL,
    Separable,
    SquaredHellinger,
)
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.reductions import Interpolated, LogMeanExp
from mi_estimators.testing import check_objective

MI_IN_NATS = [DV(), NWJ(), MINE()]  # the objective itself reaches I, whatever the number of pairs
# an objective, its value and its estimate
LITERAL = [
    (JSD(), reference.jsd, reference.js_nwj_readout),
    (DV(), reference.dv, reference.dv),
    (MINE(), reference.dv, reference.dv),
    (NWJ(), reference.nwj, reference.nwj),
    (InfoNCE(), reference.infonce, reference.infonce),
    *(
        (SMILE(tau), reference.jsd, lambda rows, tau=tau: reference.smile_readout(rows, tau))
        for tau in (5.0, 1.5)
    ),
    *(
        (AlphaInfoNCE(alpha), value, value)
        for alpha in (0, 0.3, 0.9, 1)
        for value in [lambda rows, alpha=alpha: reference.alpha_infonce(rows, alpha)]
    ),
    *(
        (
            InfoNCEAnchor(nu),
            lambda rows, nu=nu: reference.infonce_anchor(rows, nu),
            reference.js_nwj_readout,
        )
        for nu in (None, 1, 0.1, 20.0)
    ),
    (
        SquaredHellinger(),
        reference.squared_hellinger,
        lambda rows: reference.read_out_by_nwj(rows, lambda t: 2 * t),
    ),
    (
        PearsonChi2(),
        reference.pearson_chi2,
        lambda rows: reference.read_out_by_nwj(rows, lambda t: math.log(max(1 + t / 2, 1e-4))),
    ),
    (ReverseKL(), reference.reverse_kl, reference.js_nwj_readout),
    (LogLikelihood(), reference.log_likelihood, reference.infonce),
    (CLUB(), reference.club, reference.club),
    (L1Out(), reference.l1out, reference.l1out),
]
OBJECTIVES = [objective for objective, _, _ in LITERAL]


# --- against the literal equations ------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "value", "estimate"), [pytest.param(*case, id=repr(case[0])) for case in LITERAL]
)
@settings(max_examples=60, deadline=None)
@given(shape=shapes())
def test_value_and_estimate_are_the_literal_equations(objective, value, estimate, shape):
    scores = PairScores(*random_scores(shape))
    rows = reference.rows(scores)
    assert objective(scores).item() == pytest.approx(value(rows), rel=1e-10, abs=1e-10)
    assert objective.estimate(scores).item() == pytest.approx(estimate(rows), rel=1e-10, abs=1e-10)


@given(shape=shapes(), shift=st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_log_ratio_restores_the_constant_that_dv_cannot_see(shape, shift):
    scores = PairScores(*random_scores(shape))
    shifted = DV().log_ratio(scores.map(lambda t: t + shift))
    product = [math.exp(t) for t in reference.product_scores(reference.rows(shifted))]
    assert reference.mean(product) == pytest.approx(1)
    torch.testing.assert_close(shifted.joint, DV().log_ratio(scores).joint)


@pytest.mark.parametrize(
    "objective", [InfoNCE(), AlphaInfoNCE(1), LogLikelihood(), CLUB(), L1Out()], ids=repr
)
@given(shape=shapes())
@settings(max_examples=40, deadline=None)
def test_log_ratio_does_not_depend_on_a_constant_of_the_row(objective, shape):
    scores = PairScores(*random_scores(shape | {"kept": None}))
    of_row = scores.joint.sin()
    shifted = PairScores(scores.joint + of_row, scores.product + of_row[..., None])
    for part in ("joint", "product"):
        still, moved = (getattr(objective.log_ratio(s), part) for s in (scores, shifted))
        torch.testing.assert_close(*torch.broadcast_tensors(moved, still))


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


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.6])
def test_exact_critic_reaches_the_closed_forms_of_gaussian_divergences(rho):
    law = CorrelatedGaussian(1, rho)
    nats = law.mutual_information()
    coefficient = (1 - rho**2) ** 0.25 / (1 - rho**2 / 4) ** 0.5
    for objective, divergence in (
        (SquaredHellinger(), 2 * (1 - coefficient)),
        (PearsonChi2(), math.exp(2 * nats) - 1),
        (ReverseKL(), rho**2 / (1 - rho**2) - nats),
        (CLUB(), math.exp(2 * nats) - 1),  # Jeffreys and chi^2 agree in one dimension
    ):
        assert population_value(objective, law) == pytest.approx(divergence, abs=1e-9), objective


def test_club_of_either_conditional_density_is_jeffreys():
    law = CorrelatedGaussian.with_mi(3, 1.0)
    x, y = law.sample(200, generator=torch.Generator().manual_seed(0))
    scores, log_p = in_batch(law.log_ratio(x[:, None], y[None])), torch.distributions.Normal(0, 1)
    for log_marginal in (log_p.log_prob(x).sum(-1)[:, None], log_p.log_prob(y).sum(-1)[None]):
        density = in_batch(scores.product + log_marginal)
        torch.testing.assert_close(CLUB()(density), CLUB()(scores), rtol=1e-4, atol=1e-4)
    values = torch.stack([CLUB()(scores) for scores in batches(law, count=200, size=200)])
    error = values.std() / math.sqrt(len(values))
    assert values.mean().item() == pytest.approx(3 * math.expm1(2 / 3), abs=4 * error.item())


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


@pytest.mark.parametrize(
    "objective",
    [
        *[JSD(), DV(), NWJ(), MINE(), SMILE(), InfoNCE()],
        *[AlphaInfoNCE(0.01), InfoNCEAnchor(), LogLikelihood(), L1Out()],
        *[SquaredHellinger(), PearsonChi2(), ReverseKL()],
    ],
    ids=repr,
)
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
    (1, 1.0, [(L1Out(), 1.019, 0.013)]),
    (20, 2.0, [(L1Out(), 2.08, 0.03), (AlphaInfoNCE(1), 1.88, 0.025)]),
    (20, 5.0, [(L1Out(), 5.86, 0.05), (LogLikelihood(), 3.85, 0.025)]),
    (20, 8.0, [(L1Out(), 10.8, 0.1)]),
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


# --- the relatives of InfoNCE, by all scenes of a small law ---------------------------------------

# X, Y on n letters: p(x, y) as multiples of one count
SMALL_LAWS = [
    [[5, 4, 4, 3], [3, 5, 4, 4], [4, 3, 5, 4], [4, 4, 3, 5]],
    [[8, 4, 2], [2, 8, 4], [4, 2, 8]],
    [[30, 1, 1], [1, 30, 1], [1, 1, 30]],
]


def all_scenes(counts, critic, negatives):
    """Every positive with every tuple of negatives, as often as P and Q have them: expectations."""
    n = len(counts)
    partners = torch.stack([torch.arange(n).repeat_interleave(torch.tensor(c)) for c in counts])
    drawn = torch.cartesian_prod(*[torch.arange(n)] * negatives).view(-1, negatives)
    joint = critic.gather(1, partners)[:, :, None]
    product = critic[:, drawn][:, None]
    shape = (*partners.shape, len(drawn))
    return PairScores(joint.expand(shape), product.expand(*shape, negatives))


def log_ratio_of(counts):
    p = torch.tensor(counts, dtype=torch.float64)
    return (p * len(p) / p[0].sum()).log()


@pytest.mark.parametrize("counts", SMALL_LAWS)
@pytest.mark.parametrize("negatives", [1, 2, 3, 4])
@pytest.mark.parametrize("nu", [None, 0.2, 1.0, 9.0])
def test_the_anchor_makes_log_r_the_optimum_for_any_number_of_negatives(nu, negatives, counts):
    objective, log_ratio = InfoNCEAnchor(nu), log_ratio_of(counts)
    critic = log_ratio.clone().requires_grad_()
    value = objective(all_scenes(counts, critic, negatives))
    (gradient,) = torch.autograd.grad(value, critic)
    assert gradient.abs().max() < 1e-14
    for other in (1.1 * log_ratio, log_ratio + 0.1, log_ratio + 0.1 * torch.eye(len(counts))):
        assert objective(all_scenes(counts, other, negatives)) < value
    shifted = log_ratio + 0.1 * torch.arange(len(counts))[:, None]  # a c(x), which InfoNCE misses
    assert objective(all_scenes(counts, shifted, negatives)) < value


@pytest.mark.parametrize("counts", SMALL_LAWS)
@pytest.mark.parametrize("nu", [0.2, 1.0, 9.0])
def test_the_value_of_the_anchor_is_the_information_on_the_class_of_a_scene(counts, nu):
    k, log_ratio = 2, log_ratio_of(counts)
    p = torch.tensor(counts, dtype=torch.float64)
    conditional, uniform = p / p[0].sum(), torch.full((len(p),), 1 / len(p), dtype=torch.float64)
    information = 0.0
    for x in range(len(p)):
        scenes = torch.stack(  # p(y_1, y_2 | class): positive first, positive second, none
            [
                torch.outer(conditional[x], uniform),
                torch.outer(uniform, conditional[x]),
                torch.outer(uniform, uniform),
            ]
        )
        prior = torch.tensor([1, 1, nu], dtype=torch.float64)[:, None, None] / (k + nu)
        mixture = (prior * scenes).sum(0)
        information += (prior * scenes * (scenes / mixture).log()).sum().item() / len(p)
    value = InfoNCEAnchor(nu)(all_scenes(counts, log_ratio, k)).item()
    assert value == pytest.approx((k + nu) / k * information, abs=1e-12)


@given(shape=shapes())
@settings(max_examples=40, deadline=None)
def test_the_anchor_with_one_negative_is_jsd(shape):
    joint, product, _ = random_scores(shape | {"negatives": 1})
    scores = PairScores(joint, product)
    for objective in (InfoNCEAnchor(), InfoNCEAnchor(1)):
        torch.testing.assert_close(objective(scores), JSD()(scores))
        torch.testing.assert_close(objective.estimate(scores), JSD().estimate(scores))


@given(shape=shapes())
@settings(max_examples=40, deadline=None)
def test_without_weight_the_anchor_leaves_infonce_over_k_candidates(shape):
    joint, product, _ = random_scores(shape | {"negatives": shape["negatives"] + 1})
    anchored = InfoNCEAnchor(1e-12)(PairScores(joint, product))
    torch.testing.assert_close(anchored, InfoNCE()(PairScores(joint, product[..., :-1])))


@pytest.mark.parametrize("counts", SMALL_LAWS)
@pytest.mark.parametrize("negatives", [1, 2, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_alpha_infonce_is_a_lower_bound_at_its_own_best_critic(alpha, negatives, counts):
    objective, log_ratio = AlphaInfoNCE(alpha), log_ratio_of(counts)
    information = (log_ratio.exp() * log_ratio).mean().item()
    critic = (1 + log_ratio).requires_grad_()
    optimiser = torch.optim.LBFGS([critic], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        loss = -objective(all_scenes(counts, critic, negatives))
        loss.backward()
        return loss

    start = -loss().item()
    optimiser.step(loss)
    best = -loss().item()
    assert start - 1e-12 <= best <= information + 1e-12
    if alpha == 0:
        assert start == pytest.approx(information)


@given(shape=shapes())
@settings(max_examples=40, deadline=None)
def test_alpha_0_is_nwj(shape):
    joint, product, _ = random_scores(shape)
    scores = PairScores(joint, product.expand(*joint.shape, -1))
    torch.testing.assert_close(AlphaInfoNCE(0)(scores), NWJ()(scores))
    torch.testing.assert_close(AlphaInfoNCE(0).estimate(scores), NWJ()(scores))


@pytest.mark.parametrize("negatives", [10, 100, 1000])
def test_alpha_1_is_infonce_but_for_one_candidate(negatives):
    generator = torch.Generator().manual_seed(0)
    scores = PairScores(
        2 + torch.randn(50, generator=generator).double(),
        torch.randn(50, negatives, generator=generator).double(),
    )
    difference = (InfoNCE()(scores) - AlphaInfoNCE(1)(scores)).item()
    assert abs(difference) < 1 / negatives
    shifted = scores.map(lambda t: t + 3)
    torch.testing.assert_close(AlphaInfoNCE(1)(shifted), AlphaInfoNCE(1)(scores))
    assert AlphaInfoNCE(0.99)(shifted) != AlphaInfoNCE(0.99)(scores)


def test_alpha_trades_the_bias_of_infonce_for_the_variance_of_nwj():
    law = CorrelatedGaussian.with_mi(20, 4.0)
    alphas = [1.0, 0.5, 0.1, 0.01]
    values = torch.tensor(
        [
            [AlphaInfoNCE(alpha).estimate(scores.map(lambda t: 1 + t)) for alpha in alphas]
            for scores in batches(law, count=200, size=64)
        ]
    )
    assert values.mean(0).diff().gt(0).all()
    assert values.std(0).diff().gt(0).all()
    assert values.mean(0).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [InfoNCEAnchor(), AlphaInfoNCE(0.5), AlphaInfoNCE(0.05), SquaredHellinger()],
    ids=repr,
)
def test_training_reaches_2_nats_in_10_dimensions(objective):
    torch.manual_seed(0)
    law, generator = CorrelatedGaussian.with_mi(10, 2.0), torch.Generator().manual_seed(1)
    estimator = MIEstimator(Separable.mlp(10, 10, hidden=64), objective)
    optimiser = torch.optim.Adam(estimator.parameters(), lr=1e-3)

    def scores(n):
        pairs = (part.float() for part in law.sample(n, generator=generator))
        return estimator.scores(*pairs).map(objective.from_log_ratio)

    for _ in range(800):
        optimiser.zero_grad()
        (-objective(scores(128))).backward()
        optimiser.step()
    with torch.no_grad():
        assert 1.75 < objective.estimate(scores(2000)) < 2.1


# --- f-divergences and upper bounds ---------------------------------------------------------------


@pytest.mark.parametrize("score", [-2.0, -2.5, -1e4, -math.inf, -1.9999])
def test_pearson_reads_impossible_ratios_as_its_floor(score):
    objective = PearsonChi2(floor=1e-3)
    scores = PairScores(torch.tensor([score, 1.0]), torch.tensor([[score], [0.0]]))
    at_floor = math.log(1e-3)
    assert objective.log_ratio(scores).joint[0].item() == pytest.approx(at_floor, abs=1e-3)
    expected = 1 + (at_floor + math.log(1.5)) / 2 - (1e-3 + 1) / 2
    assert objective.estimate(scores).item() == pytest.approx(expected, abs=1e-3)
    joint = scores.joint.requires_grad_()
    (gradient,) = torch.autograd.grad(objective.estimate(scores), joint)
    assert gradient.tolist() == pytest.approx([0, 1 / 6])


@pytest.mark.parametrize(("dim", "nats"), [(1, 0.3), (3, 1.0), (20, 4.0)])
def test_upper_and_lower_bounds_of_the_true_density_bracket_the_information(dim, nats):
    law = CorrelatedGaussian.with_mi(dim, nats)
    lower, tight, loose = (
        torch.stack([objective.estimate(s) for s in batches(law, count=200, size=64)])
        for objective in (LogLikelihood(), L1Out(), CLUB())
    )
    slack = 3 * tight.std().item() / math.sqrt(200)
    assert lower.mean() - slack < nats < tight.mean() + slack
    assert tight.mean() < loose.mean()


def test_log_ratio_of_a_density_is_normalised_by_rows():
    law = CorrelatedGaussian.with_mi(2, 0.5)
    x, y = law.sample(2000, generator=torch.Generator().manual_seed(0))
    log_p = torch.distributions.Normal(0, 1).log_prob(x).sum(-1)[:, None]
    log_ratio = law.log_ratio(x[:, None], y[None])
    for objective in (LogLikelihood(), CLUB(), L1Out()):
        received = objective.log_ratio(in_batch(log_ratio + log_p)).joint
        assert (received - log_ratio.diagonal()).abs().mean() < 0.05


# --- the conformance suite and what it catches ----------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
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


class UnequalScenes(AlphaInfoNCE):
    """The positive beside all K negatives, where the other term has K: above I for small K."""

    def __init__(self):
        super().__init__(0.5)
        self.reduction = Beside(0.5)

    def readout(self):
        return UnequalScenes()

    def ceiling(self, negatives):
        return math.inf


class Beside(Interpolated):
    """The reduction of UnequalScenes."""

    def terms(self, statistics):
        joint, total, pairs = statistics.joint, statistics.product, statistics.pairs
        real = torch.logaddexp(joint, total) - (pairs + 1).log()
        independent = total - pairs.log()
        ratio = (independent - self._log_baseline(independent)).exp()
        return 1 + joint - self._log_baseline(real) - ratio


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
    "upper bound called a lower one": (L1Out, {"kind": "lower bound"}, "1 negatives a row"),
    "lower bound called an upper one": (InfoNCE, {"kind": "upper bound"}, "1 negatives a row"),
    "scenes of K + 1 and of K candidates": (UnequalScenes, {}, "1 negatives a row"),
    "half of Jeffreys": (
        CLUB,
        {"joint_term": lambda self, t: t / 2, "product_term": lambda self, t: t / 2},
        "value at the exact critic",
    ),
    "likelihood of half the score": (
        LogLikelihood,
        {"joint_term": lambda self, t: t / 2},
        "value at the exact critic",
    ),
    "likelihood without densities": (LogLikelihood, {"density": False}, "log_ratio"),
    "T^2 for T^2 / 4": (
        PearsonChi2,
        {"product_term": lambda self, t: t**2 + t},
        "value at the exact critic",
    ),
    "KL(P, Q) for KL(Q, P)": (
        ReverseKL,
        {"generator": Objective.generator},
        "value at the exact critic",
    ),
    "optimum at log r, for I_alpha": (
        AlphaInfoNCE,
        {"from_log_ratio": JSD.from_log_ratio, "to_log_ratio": JSD.to_log_ratio},
        "value at",
    ),
    "anchor read out as NWJ": (
        InfoNCEAnchor,
        {"from_log_ratio": NWJ.from_log_ratio, "to_log_ratio": NWJ.to_log_ratio},
        "value at",
    ),
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
