"""Slow, literal twins of every equation: loops over floats, nothing taken from the library.

A *row* is (joint score, list of its valid product scores). All equations are in nats. Below them,
the random scores on which library and twins are compared.
"""

import itertools
import math

import torch
from hypothesis import strategies as st


def rows(scores):
    """One row a joint score: axes of length 1 repeat, masked pairs are left out."""
    negatives = scores.product.shape[-1]
    result = []
    for index in itertools.product(*(range(n) for n in scores.joint.shape)):
        valid = [
            at(scores.product, (*index, k))
            for k in range(negatives)
            if scores.mask is None or at(scores.mask, (*index, k))
        ]
        result.append((scores.joint[index].item(), valid))
    return result


def at(tensor, index):
    """An entry of a tensor whose axes of length 1 repeat."""
    return tensor[
        tuple(0 if n == 1 else i for i, n in zip(index, tensor.shape, strict=True))
    ].item()


def mean(numbers):
    numbers = list(numbers)
    return math.fsum(numbers) / len(numbers)


def softplus(t):
    return max(t, 0.0) + math.log1p(math.exp(-abs(t)))


def joint_scores(rows):
    return [joint for joint, _ in rows]


def product_scores(rows):
    return [t for _, product in rows for t in product]


def jsd(rows):
    """2 JS, Nowozin et al. 2016 Eq. 4 with Table 6 (GAN), and 2 log 2 so that T = 0 gives 0."""
    on_joint = mean(-softplus(-t) for t in joint_scores(rows))
    on_product = mean(softplus(t) for t in product_scores(rows))
    return on_joint - on_product + 2 * math.log(2)


def js_nwj_readout(rows):
    """1 + E_P[T] - E_Q[e^T] at the critic of `jsd`, Poole et al. 2019 section 2.4."""
    return 1 + mean(joint_scores(rows)) - mean(math.exp(t) for t in product_scores(rows))


def nwj(rows):
    """E_P[T] - E_Q[e^(T-1)], Nguyen et al. 2010; Poole et al. 2019 Eq. 6."""
    return mean(joint_scores(rows)) - mean(math.exp(t - 1) for t in product_scores(rows))


def dv(rows):
    """E_P[T] - log E_Q[e^T], Donsker & Varadhan 1983; Belghazi et al. 2018 Eq. 5."""
    return mean(joint_scores(rows)) - math.log(mean(math.exp(t) for t in product_scores(rows)))


def infonce(rows):
    """log N + E log softmax of the positive among N candidates, van den Oord et al. 2018 Eq. 4."""
    terms = []
    for joint, product in rows:
        candidates = [joint, *product]
        share = math.exp(joint) / math.fsum(math.exp(t) for t in candidates)
        terms.append(math.log(share) + math.log(len(candidates)))
    return mean(terms)


def smile_readout(rows, tau):
    """E_P[T] - log E_Q[clip(e^T, e^-tau, e^tau)], Song & Ermon 2020 Eq. 14."""
    clipped = [min(max(math.exp(t), math.exp(-tau)), math.exp(tau)) for t in product_scores(rows)]
    return mean(joint_scores(rows)) - math.log(mean(clipped))


def alpha_infonce(rows, alpha):
    """1 + E_P[log e^T/A] - E_Q[e^T/A], A = alpha m + (1 - alpha) e, Poole et al. 2019 I_alpha.

    m is a mean over K candidates: K negatives, or the positive and K negatives of weight 1 - 1/K.
    """
    terms = []
    for joint, product in rows:
        k = len(product)
        if not k:
            terms.append(0.0)
            continue
        real = (math.exp(joint) + (1 - 1 / k) * math.fsum(map(math.exp, product))) / k
        independent = mean(map(math.exp, product))
        on_joint = joint - math.log(alpha * real + (1 - alpha) * math.e)
        on_product = independent / (alpha * independent + (1 - alpha) * math.e)
        terms.append(1 + on_joint - on_product)
    return mean(terms)


def infonce_anchor(rows, nu):
    """Mean log posteriors of the classes of two scenes of K candidates, Ryu et al. 2025.

    One of K candidates (prior 1 each) is the positive, or none (prior nu, or K); divided by the
    prior K / (K + nu) of the former, and 0 at T = 0. The positive takes the last negative's place.
    """
    weight = nu
    terms = []
    for joint, product in rows:
        k = len(product)
        if not k:
            terms.append(0.0)
            continue
        nu = k if weight is None else weight
        real, independent = [*product[:-1], joint], product
        is_joint = math.exp(joint) / (nu + math.fsum(map(math.exp, real)))
        is_anchor = nu / (nu + math.fsum(map(math.exp, independent)))
        prior_joint, prior_anchor = 1 / (k + nu), nu / (k + nu)
        information = k * prior_joint * math.log(is_joint / prior_joint)
        information += prior_anchor * math.log(is_anchor / prior_anchor)
        terms.append((k + nu) / k * information)
    return mean(terms)


def squared_hellinger(rows):
    """E_P[1 - e^-v] - E_Q[e^v - 1], Nowozin et al. 2016 (f*(t) = t / (1 - t), t = 1 - e^-v)."""
    on_joint = [1 - math.exp(-t) for t in joint_scores(rows)]
    activations = [1 - math.exp(-t) for t in product_scores(rows)]
    return mean(on_joint) - mean(t / (1 - t) for t in activations)


def pearson_chi2(rows):
    """E_P[T] - E_Q[T^2/4 + T], Nowozin et al. 2016."""
    return mean(joint_scores(rows)) - mean(t**2 / 4 + t for t in product_scores(rows))


def reverse_kl(rows):
    """E_P[t] - E_Q[-1 - log(-t)] with t = -e^-v, Nowozin et al. 2016."""
    on_joint = mean(-math.exp(-t) for t in joint_scores(rows))
    return on_joint - mean(-1 - math.log(math.exp(-t)) for t in product_scores(rows))


def read_out_by_nwj(rows, log_ratio):
    """1 + E_P[log r] - E_Q[r] of the log-ratios that the scores stand for."""
    return js_nwj_readout([(log_ratio(t), [log_ratio(s) for s in ts]) for t, ts in rows])


def tuba(rows_with_baselines):
    """1 + E_P[T - log a(y)] - E_Q[e^T / a(y)], Poole et al. 2019.

    Rows of (T_i, a(y_i)), [(T_ij, a(y_j)), ...].
    """
    on_joint = mean(t - math.log(a) for (t, a), _ in rows_with_baselines)
    on_product = mean(math.exp(t) / a for _, product in rows_with_baselines for t, a in product)
    return 1 + on_joint - on_product


def club(rows):
    """E_P[log q] - E_Q[log q], Cheng et al. 2020, each row with the same weight."""
    return mean(joint - mean(product) if product else 0.0 for joint, product in rows)


def l1out(rows):
    """E log(q(x_i|y_i) / (1/K sum_j q(x_i|y_j))), the positive left out, Poole et al. 2019."""
    return mean(
        math.log(math.exp(joint) / mean(map(math.exp, product))) if product else 0.0
        for joint, product in rows
    )


def log_likelihood(rows):
    """E_P[log q]."""
    return mean(joint_scores(rows))


def normal_log_density(x, mean, variance):
    """log N(x; mean, diag variance), feature by feature."""
    return math.fsum(
        -((a - m) ** 2) / (2 * s) - math.log(math.sqrt(2 * math.pi * s))
        for a, m, s in zip(x, mean, variance, strict=True)
    )


def mine_gradients(batches, decay):
    """Gradients by the last batch's scores: E_P[dT] - E_Q[e^T dT] / average of E_Q[e^T].

    Belghazi et al. 2018 Eq. 12. The average is exponential, divided by 1 - decay^t for its start at
    0; each batch is in the average that its own gradient divides by.
    """
    average = 0.0
    for batch in batches:
        average = decay * average + (1 - decay) * mean(math.exp(t) for t in product_scores(batch))
    average /= 1 - decay ** len(batches)
    count = len(product_scores(batches[-1]))
    by_joint = [1 / len(batches[-1]) for _ in batches[-1]]
    by_product = [[-math.exp(t) / count / average for t in product] for _, product in batches[-1]]
    return by_joint, by_product


def jackknife(value, joint, product):
    """Literal delete-one influences (n - 1)(mean of all such values - value without i).

    Sample i leaves as a row, as a column and on the diagonal of in-batch scores; `value` takes
    rows.
    """
    n = len(joint)

    def without(sample):
        kept = [i for i in range(n) if i != sample]
        return value([(joint[i], [product[i][j] for j in kept if j != i]) for i in kept])

    deleted = [without(sample) for sample in range(n)]
    return [(n - 1) * (mean(deleted) - one) for one in deleted]


def ksg(xs, ys, k):
    """Terms of Kraskov et al. 2004 Eq. 8, one a sample, from rows of floats and all distances."""

    def distance(a, b):
        return max(abs(s - t) for s, t in zip(a, b, strict=True))

    n, terms = len(xs), []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        in_x = {j: distance(xs[i], xs[j]) for j in others}
        in_y = {j: distance(ys[i], ys[j]) for j in others}
        radius = sorted(max(in_x[j], in_y[j]) for j in others)[k - 1]
        n_x, n_y = (sum(d < radius for d in side.values()) for side in (in_x, in_y))
        terms.append(digamma(k) + digamma(n) - digamma(n_x + 1) - digamma(n_y + 1))
    return terms


def digamma(n):
    """Of a whole number: minus Euler's constant and a harmonic sum."""
    return math.fsum(1 / i for i in range(1, n)) - 0.5772156649015329


def shapes(locations=(None, 1, 3, 7)):
    """Shapes of scores of `(N,)` or `(N, L)` rows with K negatives; plain values, as a dict.

    `shared_product` and `shared_mask` give these one entry for all locations; `kept` is the share
    of pairs that the mask keeps, None for no mask.
    """
    return st.fixed_dictionaries(
        {
            "n": st.integers(2, 5),
            "locations": st.sampled_from(locations),
            "negatives": st.integers(1, 6),
            "shared_product": st.booleans(),
            "shared_mask": st.booleans(),
            "kept": st.sampled_from([None, 0.3, 0.7]),
            "scale": st.floats(0.1, 4.0),
            "seed": st.integers(0, 2**32),
        }
    )


def random_scores(shape):
    """Joint, product and mask (or None) in float64; at least one pair of the first row is valid."""
    n, locations, negatives = shape["n"], shape["locations"], shape["negatives"]
    generator = torch.Generator().manual_seed(shape["seed"])
    rest = () if locations is None else (locations,)
    shared = () if locations is None else (1,)

    def rows_of(is_shared):
        return (n, *(shared if is_shared else rest))

    joint = torch.randn(n, *rest, generator=generator, dtype=torch.float64)
    product = torch.randn(
        *rows_of(shape["shared_product"]), negatives, generator=generator, dtype=torch.float64
    )
    mask = None
    if shape["kept"] is not None:
        mask = (
            torch.rand(*rows_of(shape["shared_mask"]), negatives, generator=generator)
            < shape["kept"]
        )
        mask[0, ..., 0] = True
    return shape["scale"] * joint, shape["scale"] * product, mask
