"""Negatives of local terms: who meets whom."""

import pytest
import torch

from dim import ShuffledLocations
from mi_estimators import MIEstimator, Separable, Shuffled

SAMPLER = ShuffledLocations()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def partners(n, *rest, **kwargs):
    """Which sample each row meets at each location; that it is the same location is checked."""
    drawn = SAMPLER((n, *rest), **kwargs)
    assert drawn.indices.shape == (n, *rest, 1)
    locations = torch.Size(rest).numel()
    flat = drawn.indices.view(n, locations)
    assert torch.equal(flat % locations, torch.arange(locations).expand(n, -1))
    return flat // locations


@pytest.mark.parametrize("rest", [(), (9,), (3, 2)])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_at_each_location_the_batch_is_permuted_and_none_is_left_in_place(n, rest):
    for seed in range(20):
        found = partners(n, *rest, generator=seeded(seed))
        assert torch.equal(found.sort(0).values, torch.arange(n)[:, None].expand_as(found))
        assert not (found == torch.arange(n)[:, None]).any()


def test_every_other_sample_is_met_as_often_at_two_locations_independently():
    """4 samples: of the first, 3 partners at each of two locations, so 9 pairs, all as likely."""
    counts = torch.zeros(4, 4)
    draws = 3000
    generator = seeded()
    for _ in range(draws):
        first, second = partners(4, 2, generator=generator)[0].tolist()
        counts[first, second] += 1
    assert not counts[0].any()
    assert not counts[:, 0].any()
    expected = draws / 9
    assert ((counts[1:, 1:] - expected).abs() < 5 * expected**0.5).all()


def test_without_locations_it_draws_as_one_shuffled_negative_does():
    ours, theirs = (sampler((8,), generator=seeded()) for sampler in (SAMPLER, Shuffled()))
    assert torch.equal(ours.indices, theirs.indices)


def test_a_partner_of_the_own_group_is_masked():
    groups = torch.tensor([0, 0, 1, 1, 2])
    drawn = SAMPLER((5, 4), groups=groups, generator=seeded())
    found = drawn.indices[..., 0] // 4
    assert drawn.mask.shape == (5, 4, 1)
    for row in range(5):
        for location in range(4):
            other = groups[found[row, location]] != groups[row]
            assert drawn.mask[row, location, 0] == other
    assert not drawn.mask.all()
    assert SAMPLER((5, 4)).mask is None


@pytest.mark.parametrize(
    ("shape", "groups", "message"),
    [
        ((1, 4), None, "batch: expected at least 2 samples"),
        ((3, 4), [0, 0, 0], "groups: expected 3 labels of at least 2 groups"),
        ((3, 4), [0, 1], "groups: expected 3 labels of at least 2 groups"),
    ],
)
def test_a_batch_without_an_independent_sample_is_refused(shape, groups, message):
    groups = None if groups is None else torch.tensor(groups)
    with pytest.raises(ValueError, match=message):
        SAMPLER(shape, groups=groups)


def test_the_scores_are_of_the_drawn_pairs():
    estimator = MIEstimator(Separable.mlp(2, 3), negatives=SAMPLER)
    x, y = torch.randn(5, 1, 2), torch.randn(5, 4, 3)
    scores = estimator.scores(x, y, generator=seeded())
    found = partners(5, 4, generator=seeded())
    for row in range(5):
        for location in range(4):
            pair = x[row, 0][None], y[found[row, location], location][None]
            torch.testing.assert_close(scores.product[row, location], estimator.critic(*pair))
