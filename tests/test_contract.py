"""Every objective with every critic and every sampler; then what each part does alone."""

import copy
import itertools
import math
import re

import jaxtyping
import pytest
import reference
import torch
from torch import nn

from mi_estimators import (
    CLUB,
    DV,
    JSD,
    MINE,
    NWJ,
    SMILE,
    TUBA,
    AllLocations,
    AlphaInfoNCE,
    Bilinear,
    Concat,
    ConditionalGaussian,
    Critic,
    InBatch,
    InfoNCE,
    InfoNCEAnchor,
    L1Out,
    LogLikelihood,
    MIEstimator,
    PairScores,
    PearsonChi2,
    ReverseKL,
    Separable,
    Shuffled,
    SquaredHellinger,
    mlp,
)
from mi_estimators.distributions import CorrelatedGaussian
from mi_estimators.testing import check_critic

N, L, DIM_X, DIM_Y = 5, 4, 6, 3


class Locations(nn.Module):
    """A convolution whose map ends as `N L e`, like the local term's."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(DIM_Y, 8, 1)

    def forward(self, image):
        return self.conv(image).flatten(2).mT


class OneLocation(nn.Module):
    """A code as `N 1 e`, to meet every location."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(DIM_X, 8)

    def forward(self, code):
        return self.head(code).unsqueeze(1)


def arrays():
    return torch.randn(N, DIM_X), torch.randn(N, DIM_Y)


def locations():
    return torch.randn(N, 1, DIM_X), torch.randn(N, L, DIM_Y)


def code_and_map():
    return torch.randn(N, DIM_X), torch.randn(N, DIM_Y, 2, L // 2)


# a critic, its batch, the batch shape of the scores
CRITICS = {
    "Separable.mlp": (lambda: Separable.mlp(DIM_X, DIM_Y, hidden=16), arrays, (N,)),
    "Separable.mlp over locations": (
        lambda: Separable.mlp(DIM_X, DIM_Y, hidden=16),
        locations,
        (N, L),
    ),
    "Separable of a map": (lambda: Separable(OneLocation(), Locations()), code_and_map, (N, L)),
    "Bilinear": (lambda: Bilinear(DIM_X, DIM_Y), arrays, (N,)),
    "Bilinear over locations": (lambda: Bilinear(DIM_X, DIM_Y), locations, (N, L)),
    "Concat": (lambda: Concat(DIM_X, DIM_Y, hidden=16), arrays, (N,)),
    "Concat over locations": (lambda: Concat(DIM_X, DIM_Y, hidden=16), locations, (N, L)),
    "TUBA": (lambda: TUBA(Bilinear(DIM_X, DIM_Y), mlp(DIM_Y, 8, 1)), arrays, (N,)),
    "TUBA over locations": (
        lambda: TUBA(Concat(DIM_X, DIM_Y, hidden=16), mlp(DIM_Y, 8, 1)),
        locations,
        (N, L),
    ),
}
DENSITIES = {
    "ConditionalGaussian": (lambda: ConditionalGaussian(DIM_X, DIM_Y, hidden=16), arrays, (N,)),
    "ConditionalGaussian over locations": (
        lambda: ConditionalGaussian(DIM_X, DIM_Y, hidden=16),
        locations,
        (N, L),
    ),
}
OBJECTIVES = [
    *[JSD(), DV(), MINE(), NWJ(), InfoNCE(), SMILE(), AlphaInfoNCE(), InfoNCEAnchor()],
    *[SquaredHellinger(), PearsonChi2(), ReverseKL()],
]
SAMPLERS = [InBatch(), Shuffled(1), Shuffled(3), AllLocations()]


@pytest.mark.parametrize("negatives", SAMPLERS, ids=repr)
@pytest.mark.parametrize(
    ("objective", "case"),
    [
        *itertools.product(OBJECTIVES, CRITICS),
        *itertools.product([*OBJECTIVES, LogLikelihood()], DENSITIES),
    ],
    ids=str,
)
def test_every_combination_trains_and_restores(objective, case, negatives):
    torch.manual_seed(0)
    critic, batch, shape = (CRITICS | DENSITIES)[case]
    estimator = MIEstimator(critic(), copy.deepcopy(objective), negatives)
    x, y = batch()

    def seeded():
        return torch.Generator().manual_seed(0)

    scores = estimator.scores(x, y, generator=seeded())
    assert scores.joint.shape == shape
    per_row = {InBatch: N, AllLocations: N * math.prod(shape[1:])}
    assert scores.negatives == per_row.get(type(negatives), getattr(negatives, "k", None))

    loss = estimator.loss(x, y, generator=seeded())
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in estimator.critic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    twin = MIEstimator(critic(), copy.deepcopy(objective), negatives)
    twin.load_state_dict(estimator.state_dict())
    for of in (
        lambda e: e(x, y, generator=seeded()),
        lambda e: e.estimate(x, y, generator=seeded()),
    ):
        assert of(twin).item() == of(estimator).item()
        assert of(estimator).isfinite()

    for part in (objective, negatives, estimator.critic):
        assert type(part).__name__ in repr(estimator)


@pytest.mark.parametrize("negatives", SAMPLERS, ids=repr)
@pytest.mark.parametrize("case", DENSITIES)
@pytest.mark.parametrize("objective", [CLUB(), L1Out()], ids=repr)
def test_every_upper_bound_is_minimised_and_leaves_its_critic_alone(objective, case, negatives):
    torch.manual_seed(0)
    critic, batch, _ = DENSITIES[case]
    estimator = MIEstimator(critic(), objective, negatives)
    x, y = (part.requires_grad_() for part in batch())
    for parameter in estimator.critic.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    estimator.critic.network.linear.weight.requires_grad_(False)

    def seeded():
        return torch.Generator().manual_seed(0)

    penalty = estimator.penalty(x, y, generator=seeded())
    torch.testing.assert_close(penalty, estimator(x, y, generator=seeded()))
    estimate = estimator.estimate(x, y, generator=seeded())
    torch.testing.assert_close(penalty.detach(), estimate, rtol=1e-4, atol=1e-5)
    penalty.backward()
    for part in (x, y):
        assert part.grad.isfinite().all()
        assert part.grad.ne(0).any()
    assert all(parameter.grad is None for parameter in estimator.critic.parameters())
    frozen = [n for n, p in estimator.critic.named_parameters() if not p.requires_grad]
    assert frozen == ["network.linear.weight"]  # as it was found


def test_minimising_club_makes_z_independent():
    torch.manual_seed(0)
    q, encoder = ConditionalGaussian(1, 1, hidden=16), nn.Linear(2, 1)
    fit, bound = MIEstimator(q, LogLikelihood(), Shuffled(1)), MIEstimator(q, CLUB())
    nn.init.ones_(encoder.weight)
    of_q = torch.optim.Adam(q.parameters(), lr=1e-2)
    of_encoder = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for _ in range(300):
        x = torch.randn(128, 2)
        y = x[:, :1] + 0.5 * torch.randn(128, 1)
        z = encoder(x) + 0.3 * torch.randn(128, 1)
        of_q.zero_grad()
        fit.loss(z.detach(), y).backward()
        of_q.step()
        of_encoder.zero_grad()
        keep = (encoder.weight[0, 1] - 1).square()  # what z tells of the other feature stays
        (bound.penalty(z, y) + keep).backward()
        of_encoder.step()
    kept = encoder.weight.detach()[0]
    assert kept[0].abs() < 0.15
    assert kept[1] > 0.5


# --- critics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CRITICS | DENSITIES)
def test_critic_passes_the_conformance_suite(case):
    critic, batch, _ = (CRITICS | DENSITIES)[case]
    check_critic(critic(), *batch())


class Transposed(Bilinear):
    """Scores y_i with x_j: right on the diagonal alone."""

    def score(self, u, v):
        return super().score(u, v).mT if u.ndim > 2 else super().score(u, v)


class Peeking(Bilinear):
    """Encodes a sample by its batch."""

    def encode_y(self, y):
        return y - y.mean(0)


class Idle(Bilinear):
    """Has a parameter that scores nothing."""

    def __init__(self, dim_x, dim_y):
        super().__init__(dim_x, dim_y)
        self.idle = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("critic", "complaint"),
    [
        (Transposed, "T(x_i, y_j)"),
        (Peeking, "T(x_i, y_j)"),
        (Idle, "gradient of idle"),
    ],
)
def test_conformance_suite_catches(critic, complaint):
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        check_critic(critic(DIM_X, DIM_Y), *arrays())


def test_conformance_suite_leaves_the_critic_as_it_was():
    critic = Separable(nn.Sequential(nn.Linear(DIM_X, 8), nn.BatchNorm1d(8)), nn.Linear(DIM_Y, 8))
    before = copy.deepcopy(critic.state_dict())
    check_critic(critic, *arrays())
    assert critic.training
    torch.testing.assert_close(critic.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in critic.parameters())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_concat_is_a_perceptron_on_concatenated_pairs(layers):
    critic = Concat(DIM_X, DIM_Y, hidden=16, layers=layers)
    explicit = mlp(DIM_X + DIM_Y, *[16] * layers, 1)
    first = torch.cat([critic.first_x.weight, critic.first_y.weight], dim=1)
    rest = critic.rest[1].state_dict().items()
    explicit.load_state_dict(
        {"0.weight": first, "0.bias": critic.first_y.bias}
        | {f"{int(name[0]) + 2}{name[1:]}": tensor for name, tensor in rest}
    )
    x, y = arrays()
    pairs = torch.cat([x[:, None].expand(N, N, DIM_X), y[None].expand(N, N, DIM_Y)], dim=-1)
    square = critic.score(critic.encode_x(x)[:, None], critic.encode_y(y)[None])
    torch.testing.assert_close(square, explicit(pairs).squeeze(-1))


def test_bilinear_is_x_w_y():
    critic, (x, y) = Bilinear(DIM_X, DIM_Y), arrays()
    torch.testing.assert_close(critic(x, y), ((x @ critic.weight.weight.T) * y).sum(-1))


def test_tuba_takes_the_baseline_of_each_column_off_its_scores():
    critic, baseline, (x, y) = Bilinear(DIM_X, DIM_Y), mlp(DIM_Y, 8, 1), arrays()
    plain = MIEstimator(critic, NWJ()).scores(x, y)
    estimator = MIEstimator(TUBA(critic, baseline), NWJ())
    scores = estimator.scores(x, y)
    torch.testing.assert_close(scores.product, plain.product - baseline(y).T)
    torch.testing.assert_close(scores.joint, plain.joint - baseline(y)[:, 0])
    b = (1 + baseline(y)[:, 0]).exp().tolist()  # the constant of NWJ is part of the baseline
    t = plain.product.tolist()
    literal = reference.tuba(
        [((t[i][i], b[i]), [(t[i][j], b[j]) for j in range(N) if j != i]) for i in range(N)]
    )
    assert estimator(x, y).item() == pytest.approx(literal, rel=1e-5)


def test_conditional_gaussian_is_the_literal_density():
    critic, (x, y) = ConditionalGaussian(DIM_X, DIM_Y, least_variance=0.05), arrays()
    for parameter in critic.parameters():
        nn.init.normal_(parameter, std=0.3)
    mean, raw = critic.network(y).chunk(2, dim=-1)
    variance = 0.05 + (raw.exp() * math.expm1(1)).log1p()
    square = critic.score(critic.encode_x(x)[:, None], critic.encode_y(y)[None])
    for i, j in itertools.product(range(N), range(N)):
        literal = reference.normal_log_density(
            x[i].tolist(), mean[j].tolist(), variance[j].tolist()
        )
        assert square[i, j].item() == pytest.approx(literal, rel=1e-4)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    torch.testing.assert_close(critic(x, y), normal.log_prob(x).sum(-1))


def test_conditional_gaussian_starts_at_independence_and_keeps_its_variances_apart_from_0():
    critic, (x, y) = ConditionalGaussian(DIM_X, DIM_Y, least_variance=1e-4), arrays()
    standard = torch.distributions.Normal(0, 1).log_prob(x).sum(-1)
    torch.testing.assert_close(critic(x, y), standard, rtol=1e-3, atol=1e-3)
    for raw in (-1e4, 1e4):
        nn.init.constant_(critic.network.linear.weight, raw)
        assert critic(x, torch.ones(N, DIM_Y)).isfinite().all()


def exact_density(law):
    """x given y of correlated Gaussians: N(rho y, 1 - rho^2)."""
    critic = ConditionalGaussian(law.dim, law.dim, least_variance=1e-9)
    with torch.no_grad():
        critic.network.linear.weight[: law.dim] = law.rho * torch.eye(law.dim)
        variance = torch.tensor(1 - law.rho**2 - 1e-9)
        critic.network.perceptron[-1].bias[law.dim :] = (
            variance.expm1().log() - torch.tensor(1.0).expm1().log()
        )
    return critic


@pytest.mark.parametrize(("dim", "nats"), [(1, 0.5), (4, 1.0)])
def test_the_true_density_gives_club_jeffreys_and_a_bracket(dim, nats):
    law = CorrelatedGaussian.with_mi(dim, nats)
    generator, critic = torch.Generator().manual_seed(0), exact_density(law).double()
    fit, club, l1out = (MIEstimator(critic, part()) for part in (LogLikelihood, CLUB, L1Out))
    received = []
    for _ in range(50):
        batch = [part.double() for part in law.sample(200, generator=generator)]
        of = (fit, fit.estimate, club.estimate, l1out.estimate)
        received.append([number(*batch).item() for number in of])
    mean = torch.tensor(received).mean(0)
    error = torch.tensor(received).std(0) / math.sqrt(len(received))
    entropy = dim / 2 * math.log(2 * math.pi * math.e * (1 - law.rho**2))
    jeffreys = dim * math.expm1(2 * nats / dim)
    assert ((mean - torch.tensor([-entropy, nats, jeffreys, nats])).abs() < 4 * error + 0.01).all()
    assert mean[1] < mean[3] < mean[2]


def test_separable_mlp_starts_at_independence():
    critic = Separable.mlp(DIM_X, DIM_Y)
    assert critic(*arrays()).eq(0).all()
    assert MIEstimator(critic).estimate(*arrays()) == 0


def test_infonce_gives_the_last_bias_no_gradient():
    critic = Concat(DIM_X, DIM_Y)
    MIEstimator(critic, InfoNCE()).loss(*arrays()).backward()
    assert critic.rest[1][-1].bias.grad.abs() < 1e-6


# --- estimator ----------------------------------------------------------------------------------


def test_the_defaults_are_jsd_and_in_batch():
    estimator = MIEstimator(Bilinear(DIM_X, DIM_Y))
    assert isinstance(estimator.objective, JSD)
    assert estimator.negatives == InBatch()


def test_in_batch_scores_are_the_square_of_x_rows_and_y_columns():
    critic, (x, y) = Bilinear(DIM_X, DIM_Y), arrays()
    scores = MIEstimator(critic).scores(x, y)
    for i in range(N):
        for j in range(N):
            expected = critic(x[i : i + 1], y[j : j + 1]).squeeze()
            torch.testing.assert_close(scores.product[i, j], expected)
            assert scores.mask[i, j] == (i != j)
        torch.testing.assert_close(scores.joint[i], scores.product[i, i])


def test_locations_meet_the_same_location_of_other_samples():
    critic, (x, y) = Bilinear(DIM_X, DIM_Y), locations()
    scores = MIEstimator(critic).scores(x, y)
    for i, j, k in [(0, 1, 2), (3, 0, 1), (4, 2, 0)]:
        expected = critic(x[i, :1], y[j, k : k + 1]).squeeze()
        torch.testing.assert_close(scores.product[i, k, j], expected)


def test_all_locations_meet_every_location_of_other_samples():
    critic, (x, y) = Bilinear(DIM_X, DIM_Y), locations()
    scores = MIEstimator(critic, negatives=AllLocations()).scores(x, y)
    assert scores.product.shape == (N, 1, N * L)
    for i, j, k in [(0, 1, 2), (3, 0, 1), (4, 2, 0), (2, 2, 3)]:
        expected = critic(x[i, :1], y[j, k : k + 1]).squeeze()
        torch.testing.assert_close(scores.product[i, 0, j * L + k], expected)
        assert scores.mask[i, 0, j * L + k] == (i != j)


def test_groups_are_no_negatives_of_each_other():
    groups = torch.tensor([0, 0, 1, 1, 2])
    for negatives in (InBatch(), Shuffled(2), AllLocations()):
        scores = MIEstimator(Bilinear(DIM_X, DIM_Y), negatives=negatives).scores(
            *arrays(), groups=groups
        )
        assert scores.mask.shape == scores.product.shape
    in_batch = MIEstimator(Bilinear(DIM_X, DIM_Y)).scores(*arrays(), groups=groups)
    assert torch.equal(in_batch.mask, groups[:, None] != groups)


def test_loss_is_minus_the_objective():
    estimator, batch = MIEstimator(Bilinear(DIM_X, DIM_Y)), arrays()
    assert estimator.loss(*batch) == -estimator(*batch)


def test_estimate_has_no_gradient():
    assert not MIEstimator(Bilinear(DIM_X, DIM_Y)).estimate(*arrays()).requires_grad


@pytest.mark.parametrize("case", CRITICS)
def test_scores_are_float32_under_bf16_autocast(case):
    critic, batch, _ = CRITICS[case]
    estimator = MIEstimator(critic())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = estimator.scores(*batch())
        loss = estimator.loss(*batch())
    assert (scores.joint.dtype, scores.product.dtype, loss.dtype) == (torch.float32,) * 3


def test_float64_stays_float64():
    x, y = (part.double() for part in arrays())
    assert MIEstimator(Bilinear(DIM_X, DIM_Y).double()).scores(x, y).product.dtype == torch.float64


def test_encodings_of_different_axes_are_refused():
    with pytest.raises(ValueError, match="axes"):
        MIEstimator(Bilinear(DIM_X, DIM_Y)).scores(torch.randn(5, DIM_X), torch.randn(5, 5, DIM_Y))


def test_scores_without_an_independent_pair_are_refused():
    scores = PairScores(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    for objective in (JSD(), DV(), InfoNCE()):
        with pytest.raises(ValueError, match="mask: expected at least one independent pair"):
            objective(scores)
    with pytest.raises(ValueError, match="product: expected at least one negative"):
        PairScores(torch.zeros(2), torch.zeros(2, 0))


# --- negatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (7, 3)])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_shuffled_partners_are_distinct_and_balanced(k, shape):
    indices = Shuffled(k)(shape).indices
    samples = indices // math.prod(shape[1:])
    flat = samples.view(7, -1, k)[:, 0]
    assert samples.view(7, -1, k).eq(flat[:, None]).all()  # locations of a sample move together
    for i, row in enumerate(flat.tolist()):
        assert i not in row
        assert len(set(row)) == k
    assert flat.flatten().bincount().eq(k).all()  # every column is a permutation


def test_shuffled_reaches_every_pair():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4, 4)
    for _ in range(600):
        counts[torch.arange(4), Shuffled()((4,), generator=generator).indices[:, 0]] += 1
    off_diagonal = counts[~torch.eye(4, dtype=torch.bool)]
    assert counts.diagonal().eq(0).all()
    assert (off_diagonal - 200).abs().max() < 60  # sd 11.5


def test_a_seed_reproduces_the_draw():
    first, second, other = (
        Shuffled(3)((50,), generator=torch.Generator().manual_seed(seed)).indices
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_shared_candidates_are_gathered_once():
    assert InBatch()((N, L)).indices.shape == (1, L, N)
    assert InBatch()((N,)).indices.shape == (1, N)
    assert AllLocations()((N, L)).indices.shape == (1, 1, N * L)


@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
@pytest.mark.parametrize("negatives", [InBatch(), AllLocations(), Shuffled(2)])
def test_what_is_selected_is_what_was_drawn(negatives, rest):
    v = torch.randn(N, *rest, 4)
    drawn = negatives(v.shape[:-1])
    assert torch.equal(negatives.select(v, drawn), v.flatten(0, -2)[drawn.indices])


@pytest.mark.parametrize("negatives", [InBatch(), AllLocations()])
def test_a_whole_batch_of_negatives_is_not_copied(negatives):
    v = torch.randn(N, L, 4)
    assert negatives.select(v, negatives((N, L))).data_ptr() == v.data_ptr()


# --- messages -----------------------------------------------------------------------------------


def loss_of(negatives=None, x=None, y=None, **options):
    default_x, default_y = arrays()
    return MIEstimator(Bilinear(DIM_X, DIM_Y), negatives=negatives).loss(
        default_x if x is None else x, default_y if y is None else y, **options
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: loss_of(x=torch.zeros(1, DIM_X), y=torch.zeros(1, DIM_Y)),
            "batch: expected at least 2 samples to pair up, received 1",
        ),
        (
            lambda: loss_of(y=torch.zeros(4, DIM_Y)),
            "y: expected as many samples as x, 5, received 4",
        ),
        (
            lambda: loss_of(Shuffled(5)),
            "k: expected at most 4 negatives a row in a batch of 5 samples, received 5",
        ),
        (lambda: Shuffled(0), "k: expected a whole number of negatives, received 0"),
        (lambda: loss_of(groups=torch.zeros(N).long()), "groups: expected 5 labels of at least 2"),
        (lambda: loss_of(groups=torch.arange(4)), "groups: expected 5 labels of at least 2 groups"),
        (
            lambda: PairScores(torch.zeros(4, 4), torch.zeros(4, 4, 3), torch.ones(4, 3).bool()),
            "mask: expected the axes of product, [4, 4, 3]",
        ),
        (
            lambda: PairScores(torch.zeros(4), torch.zeros(4, 3), torch.ones(4, 2).bool()),
            "mask: expected the axes of product, [4, 3]",
        ),
        (
            lambda: PairScores(torch.zeros(4), torch.zeros(3, 3)),
            "product: expected the shape of joint and one axis of negatives, [4, K], received [3,",
        ),
        (
            lambda: PairScores(torch.zeros(4, 2), torch.zeros(4, 3)),
            "product: expected the shape of joint and one axis of negatives, [4, 2, K]",
        ),
        (lambda: MINE(decay=1.0), "decay: expected a number in [0, 1), received 1.0"),
        (lambda: MINE(decay=-0.1), "decay: expected a number in [0, 1), received -0.1"),
        (lambda: SMILE(tau=0.0), "tau: expected a positive number of nats, received 0.0"),
        (lambda: SMILE(tau=math.nan), "tau: expected a positive number of nats, received nan"),
        (lambda: AlphaInfoNCE(1.5), "alpha: expected a number in [0, 1], received 1.5"),
        (lambda: AlphaInfoNCE(math.nan), "alpha: expected a number in [0, 1], received nan"),
        (lambda: InfoNCEAnchor(0), "nu: expected a positive, finite weight, received 0"),
        (lambda: InfoNCEAnchor(math.inf), "nu: expected a positive, finite weight, received inf"),
        (lambda: PearsonChi2(floor=0.0), "floor: expected a ratio in (0, 1), received 0.0"),
        (
            lambda: ConditionalGaussian(2, 3, least_variance=0.0),
            "least_variance: expected a positive number, received 0.0",
        ),
        (
            lambda: ConditionalGaussian(2, 3)(torch.zeros(4, 1), torch.zeros(4, 3)),
            "x: expected 2 features on the last axis (dim_x), received shape [4, 1]",
        ),
        (
            lambda: TUBA(Bilinear(2, 3), mlp(3, 8))(torch.zeros(4, 2), torch.zeros(4, 3)),
            "log_baseline: expected one number for each encoding of y, shape [4, 1], received "
            "[4, 8]",
        ),
        (
            lambda: MIEstimator(Bilinear(2, 3), CLUB()),
            "critic: expected a conditional density log q(x | y) for CLUB(), such as "
            "ConditionalGaussian(dim_x, dim_y), received Bilinear",
        ),
        (
            lambda: MIEstimator(ConditionalGaussian(DIM_X, DIM_Y), CLUB()).loss(*arrays()),
            "objective: expected one to maximise, received CLUB(), an upper bound",
        ),
        (
            lambda: MIEstimator(Bilinear(DIM_X, DIM_Y)).penalty(*arrays()),
            "objective: expected an upper bound to minimise, such as CLUB(), received JSD(), a "
            "lower bound",
        ),
        (
            lambda: MIEstimator(Bilinear(DIM_X, DIM_Y), SMILE()).penalty(*arrays()),
            "objective: expected an upper bound to minimise, such as CLUB(), received "
            "SMILE(tau=5.0), no bound",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_embeddings_of_two_sizes_are_named():
    jaxtyping.config.update("jaxtyping_disable", True)  # or the annotation objects first
    try:
        with pytest.raises(
            ValueError, match="f and g: expected embeddings of one size, received 8"
        ):
            Separable(nn.Linear(DIM_X, 8), nn.Linear(DIM_Y, 7))(*arrays())
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_parts_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Critic()
