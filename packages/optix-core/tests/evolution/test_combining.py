"""Members as one: the mathematics against slow references, and actions that are valid whatever the members want."""

import math

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core.agents.heads import make_head
from optix_core.evolution.combining import FLOOR, Gaussian, combination_for, combined_log_probs
from optix_core.policies import SquashedGaussian
from optix_protocol import ActionDistribution

LOG_SURE = math.log1p(-1e-9)


def logits(rng, *shape):
    raw = 5 * rng.standard_normal(shape)
    return raw - np.log(np.exp(raw).sum(-1, keepdims=True))


def test_discrete_members_add_weighted_log_probabilities():
    """The slow way: multiply the probabilities, each to the power of its weight, and normalise each part."""
    rng = np.random.default_rng(0)
    parts, weights = (3, 2), (0.2, 0.5, 0.3)
    members = [np.concatenate([logits(rng, 4, 3), logits(rng, 4, 2)], axis=1) for _ in weights]
    found = combined_log_probs(members, weights, parts)
    for row in range(4):
        for part in (range(3), range(3, 5)):
            products = []
            for column in part:
                product = 1.0
                for member, weight in zip(members, weights, strict=True):
                    product *= max(math.exp(member[row, column]), 1e-6) ** weight
                products.append(product)
            expected = [math.log(product / sum(products)) for product in products]
            assert found[row, list(part)] == pytest.approx(expected, abs=1e-9)


def test_nobody_has_a_veto_and_a_draw_is_a_valid_action():
    """One member wants left only, the other right only: both stay possible, nothing is NaN, and neither index mean."""
    space = gym.spaces.Discrete(3, start=-1)
    combination = combination_for(make_head(space, 3, log_std_init=0.0), 3)
    left = ActionDistribution(log_probs=np.array([[LOG_SURE, -np.inf, -np.inf]]))
    right = ActionDistribution(log_probs=np.array([[-np.inf, -np.inf, LOG_SURE]]))
    joint = combination.combine([left, right], (0.5, 0.5))
    assert np.exp(joint)[0] == pytest.approx([0.5, 5e-4, 0.5], abs=1e-3)
    rng = np.random.default_rng(0)
    drawn = [int(combination.sample(joint, rng)[0]) for _ in range(200)]
    assert {-1, 1} <= set(drawn)
    assert all(space.contains(np.int64(action)) for action in drawn)
    assert combination.greedy(combination.combine([left, right], (0.4, 0.6)))[0] == 1
    assert np.isfinite(FLOOR)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_masks_hold(seed):
    rng = np.random.default_rng(seed)
    combination = combination_for(make_head(gym.spaces.MultiDiscrete([3, 2]), 5, log_std_init=0.0), 5)
    members = [
        ActionDistribution(log_probs=np.concatenate([logits(rng, 6, 3), logits(rng, 6, 2)], axis=1)) for _ in range(2)
    ]
    mask = rng.random((6, 5)) < 0.4
    mask[:, 0] |= ~mask[:, :3].any(1)
    mask[:, 3] |= ~mask[:, 3:].any(1)
    joint = combination.combine(members, (0.5, 0.5), mask)
    for actions in (combination.greedy(joint), combination.sample(joint, rng)):
        assert mask[np.arange(6), actions[:, 0]].all()
        assert mask[np.arange(6), 3 + actions[:, 1]].all()
        assert np.isfinite(combination.log_prob(joint, actions)).all()


@pytest.mark.parametrize(
    ("space", "outputs"),
    [
        (gym.spaces.Discrete(4, start=2), 4),
        (gym.spaces.MultiDiscrete([3, 2, 4]), 9),
        (gym.spaces.MultiBinary(3), 3),
    ],
)
def test_log_probabilities_are_those_of_what_is_drawn(space, outputs):
    rng = np.random.default_rng(1)
    head = make_head(space, outputs, log_std_init=0.0)
    members = [head.distribution(rng.standard_normal((1, outputs)).astype(np.float32)) for _ in range(2)]
    combination = combination_for(head, members[0].log_probs.shape[1])
    joint = combination.combine(members, (0.5, 0.5))
    many = np.repeat(joint, 40_000, axis=0)
    drawn = combination.sample(many, rng)
    assert all(space.contains(np.asarray(action, space.dtype) if space.shape else action) for action in drawn[:50])
    rows = drawn.reshape(len(drawn), -1)
    values, counts = np.unique(rows, axis=0, return_counts=True)
    told = combination.log_prob(np.repeat(joint, len(values), axis=0), values.reshape(len(values), *drawn.shape[1:]))
    assert np.exp(told) == pytest.approx(counts / len(drawn), abs=0.012)


BOX = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


def box(space=BOX, *, squashed=False):
    size = int(np.prod(space.shape))
    if squashed:
        return SquashedGaussian(low=space.low.reshape(-1), high=space.high.reshape(-1), shape=space.shape)
    return make_head(space, size, log_std_init=0.0)


def member(head, mean, std):
    """A member that wants these means and deviations, in units where the range is -1 to 1."""
    centre, scale = head.affine
    mean, std = np.atleast_2d(np.asarray(mean, np.float64)), np.atleast_2d(np.asarray(std, np.float64))
    return ActionDistribution(mean=centre + scale * mean, std=scale * std)


@pytest.mark.parametrize("squashed", [False, True])
def test_members_that_agree_are_averaged_before_squashing(squashed):
    head = box(squashed=squashed)
    combination = combination_for(head, 0)
    joint = combination.combine(
        [member(head, [0.1, 0.3], [0.2, 0.2]), member(head, [0.2, 0.1], [0.4, 0.1])], (0.25, 0.75)
    )
    assert joint.agrees.all()
    assert joint.mean[0] == pytest.approx([0.175, 0.15], abs=1e-6)
    assert joint.std[0] == pytest.approx(
        [math.sqrt(0.25 * 0.04 + 0.75 * 0.16), math.sqrt(0.25 * 0.04 + 0.75 * 0.01)], abs=1e-6
    )
    expected = np.tanh(joint.mean[0]) if squashed else joint.mean[0]
    centre, scale = head.affine
    assert combination.greedy(joint)[0] == pytest.approx(centre + scale * expected, abs=1e-5)


def test_between_left_and_right_nobody_goes_straight_on():
    head = box()
    combination = combination_for(head, 0)
    left, right = member(head, [-0.9, 0.0], [0.1, 0.1]), member(head, [0.9, 0.0], [0.1, 0.1])
    joint = combination.combine([left, right], (0.5, 0.5))
    assert not joint.agrees[0]
    assert abs(joint.mean[0, 0]) == pytest.approx(0.9, abs=1e-6)
    by_weight = combination.combine([left, right], (0.3, 0.7))
    assert by_weight.mean[0, 0] == pytest.approx(0.9, abs=1e-6)
    likes_left = combination.combine([left, right], (0.3, 0.7), lambda rows, actions: -actions[:, 0])
    assert likes_left.mean[0, 0] == pytest.approx(-0.9, abs=1e-6)
    of_no_weight = combination.combine([left, right], (0.0, 1.0), lambda rows, actions: -actions[:, 0])
    assert of_no_weight.mean[0, 0] == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 1.5])
def test_densities_add_up_to_one_and_are_those_of_the_draws(squashed, mean):
    """Integrate the density over the range, and compare with a histogram of draws."""
    space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    combination = combination_for(box(space, squashed=squashed), 0)
    joint = combination.combine([member(combination.head, [[mean]], [[0.6]])], (1.0,))
    edges = np.linspace(-2.0, 2.0, 4001)
    middles = ((edges[1:] + edges[:-1]) / 2)[:, None]
    n = len(middles)
    grid = Gaussian(mean=np.repeat(joint.mean, n, 0), std=np.repeat(joint.std, n, 0), agrees=np.ones(n, bool))
    density = np.exp(combination.log_prob(grid, middles))
    assert density.sum() * (1.0 / 2000) == pytest.approx(1.0, abs=0.02)  # a unit is half the range
    m = 40_000
    many = Gaussian(mean=np.repeat(joint.mean, m, 0), std=np.repeat(joint.std, m, 0), agrees=np.ones(m, bool))
    drawn = combination.sample(many, np.random.default_rng(0))[:, 0]
    assert np.abs(drawn).max() <= 2.0
    shares, _ = np.histogram(drawn, bins=edges[::500])
    expected = density.reshape(-1, 500).sum(1) / 2000
    assert shares / m == pytest.approx(expected, abs=0.02)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
    st.lists(st.floats(1e-12, 1e3), min_size=4, max_size=4),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(["box", "half", "open", "whole"]),
)
@settings(max_examples=150, deadline=None)
def test_every_action_is_valid(means, stds, weight, squashed, kind):
    space = {
        "box": BOX,
        "half": gym.spaces.Box(np.array([-1.0, -np.inf], np.float32), np.array([np.inf, 3.0], np.float32)),
        "open": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "whole": gym.spaces.Box(np.array([-3, 0]), np.array([3, 9]), dtype=np.int64),
    }[kind]
    head = box(space, squashed=squashed and kind == "box")
    combination = combination_for(head, 0)
    members = [member(head, means[:2], stds[:2]), member(head, means[2:], stds[2:])]
    joint = combination.combine(members, (weight, 1.0 - weight))
    rng = np.random.default_rng(0)
    for action in (combination.greedy(joint)[0], combination.sample(joint, rng)[0]):
        assert np.isfinite(action).all()
        assert space.contains(np.asarray(action, space.dtype)), action
    assert np.isfinite(combination.log_prob(joint, combination.sample(joint, rng))).all()
