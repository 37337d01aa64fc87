"""What a Box of actions means: whole numbers of any width, missing bounds, no width, no axes."""

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.agents.continuous import finite_bounds, has_bounds
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.errors import AgentError, ConfigError
from optix_core.pipelines.actions import action_encoder
from optix_core.policies import Bernoulli, MultiCategorical, SquashedGaussian
from optix_core.policies.heads import as_drawn, head_from_tree
from optix_core.policies.ranges import bounds_of, fitted, range_map, reach

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def squashed(space):
    low, high = bounds_of(space)
    return SquashedGaussian(low=low, high=high, shape=space.shape, dtype=str(space.dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers_cover_the_whole_range_of_their_type(dtype):
    limits = np.iinfo(dtype)
    space = spaces.Box(limits.min, limits.max, (3,), np.dtype(dtype).type)
    head, border = squashed(space), action_encoder(space)
    rng = np.random.default_rng(0)
    outputs = np.concatenate([rng.normal(0, 3, (500, 3)), np.full((500, 3), -5.0)], axis=1).astype(np.float32)
    outputs[:2, :3] = [[-30.0] * 3, [30.0] * 3]
    for drawn in (
        head.greedy(outputs),
        border(as_drawn(head).greedy(outputs)),
        border(as_drawn(head).sample(outputs, rng)),
    ):
        assert drawn.dtype == space.dtype
        assert drawn.min() == limits.min
        assert drawn.max() == limits.max
        middle = (int(limits.min) + int(limits.max)) / 2
        assert abs((drawn.astype(np.float64) > middle).mean() - 0.5) < 0.1


@pytest.mark.parametrize("dtype", INTEGERS)
def test_each_whole_number_has_an_equal_share(dtype):
    space = spaces.Box(2, 5, (1,), np.dtype(dtype).type)
    centre, width = range_map(*bounds_of(space), space.dtype)
    even = (centre + width * np.linspace(-1, 1, 4001)[:, None]).astype(np.float32)
    _, counts = np.unique(action_encoder(space)(even), return_counts=True)
    assert counts.min() >= 999
    assert len(counts) == 4


@pytest.mark.parametrize("dtype", INTEGERS)
def test_nothing_overflows_at_the_border(dtype):
    limits = np.iinfo(dtype)
    low, high = np.array([limits.min, limits.min, 3], dtype), np.array([limits.max, 7, limits.max], dtype)
    for numbers in (np.float32, np.float64):
        extremes = np.array(
            [[-1e25] * 3, [1e25] * 3, [float(limits.min)] * 3, [float(limits.max)] * 3, [5.4] * 3], numbers
        )
        fit = fitted(extremes, low, high, dtype)
        assert fit.dtype == dtype
        np.testing.assert_array_equal(fit[0], low)
        np.testing.assert_array_equal(fit[1], high)
        np.testing.assert_array_equal(fit[2], low)
        np.testing.assert_array_equal(fit[3], high)
        np.testing.assert_array_equal(fit[4], [5, 5, 5])
    whole = np.array([[limits.min] * 3, [limits.max] * 3], dtype)
    np.testing.assert_array_equal(fitted(whole, low, high, dtype), [low, high])


def test_nan_is_no_whole_number():
    with pytest.raises(AgentError, match="NaN or infinite"):
        action_encoder(spaces.Box(0, 3, (1,), np.int64))(np.array([[np.nan]], np.float32))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "centre", "width"),
    [
        (-2.0, 6.0, np.float32, 2.0, 4.0),
        (-np.inf, np.inf, np.float32, 0.0, 1.0),
        (-np.finfo(np.float32).max, np.finfo(np.float32).max, np.float32, 0.0, 1.0),
        (-np.finfo(np.float64).max, np.finfo(np.float64).max, np.float64, 0.0, 1.0),
        (5.0, np.inf, np.float32, 6.0, 1.0),
        (-np.inf, 5.0, np.float32, 4.0, 1.0),
        (-np.inf, -4000.0, np.float32, -4004.0, 4.0),
        (3.0, 3.0, np.float32, 3.0, 1.0),
        (1e8, 1e8 + 1, np.float64, 1e8, 1e5),
        (3, 3, np.int32, 3.0, 0.5),
        (0, np.inf, np.int64, 0.5, 1.0),
        (-np.inf, np.inf, np.int8, 0.0, 1.0),
    ],
)
def test_what_minus_one_and_one_stand_for(low, high, dtype, centre, width):
    space = spaces.Box(low, high, (1,), dtype)
    found = range_map(*bounds_of(space), space.dtype)
    np.testing.assert_allclose(found, [[centre], [width]], rtol=1e-6)
    assert has_bounds(space) == bool(abs(float(low)) < 1e30 and abs(float(high)) < 1e30)


def test_a_learner_moves_where_there_is_no_width_and_stays_within_plain_bounds_exactly():
    space = spaces.Box(np.array([0.1, 2.0, -3.3], np.float32), np.array([0.7, 2.0, 3.1], np.float32))
    low, high = reach(*bounds_of(space))
    np.testing.assert_array_equal(low, np.array([0.1, 1.0, -3.3], np.float32))
    np.testing.assert_array_equal(high, np.array([0.7, 3.0, 3.1], np.float32))
    head = squashed(space)
    ends = np.array([[30.0] * 3 + [-20.0] * 3, [-30.0] * 3 + [-20.0] * 3], np.float32)
    np.testing.assert_allclose(as_drawn(head).greedy(ends), [high, low], rtol=1e-6)
    np.testing.assert_allclose(head.greedy(ends), [space.high, space.low], rtol=1e-6)
    assert (head.greedy(ends)[:, 1] == 2.0).all()
    for ours, theirs in zip(head.affine, as_drawn(head).affine, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_files_keep_what_an_action_is():
    whole = squashed(spaces.Box(0, 9, (2,), np.uint8))
    assert head_from_tree(whole.tree()).greedy(np.zeros((1, 4), np.float32)).dtype == np.uint8
    two_axes = MultiCategorical(nvec=(2, 3, 4, 2), start=(0, 0, 0, 0), shape=(2, 2))
    assert head_from_tree(two_axes.tree()) == two_axes
    assert head_from_tree(Bernoulli(shape=(2, 3)).tree()) == Bernoulli(shape=(2, 3))
    old = {name: value for name, value in squashed(spaces.Box(-1, 1, (2,))).tree().items() if name != "dtype"}
    assert head_from_tree(old).dtype == "float32"


def test_bounds_that_are_missing_are_named_with_what_helps():
    for low in (-np.inf, 0.0):
        with pytest.raises(ConfigError, match=r"need actions with finite bounds, .* use PPO, or give"):
            finite_bounds(spaces.Box(low, np.inf, (2,)))


# ---- choices and switches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "inside", "outside"),
    [
        (spaces.Discrete(3, start=-1), [-1, 1], [2, -2]),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), [[1, 2], [2, 0]], [[0, 0], [1, 3]]),
        (spaces.MultiDiscrete([[2, 3], [4, 2]]), [[[1, 2], [3, 1]]], [[[1, 2], [4, 1]]]),
        (spaces.MultiBinary(2), [[0, 1], [1, 1]], [[0, 2], [-1, 0]]),
    ],
)
def test_choices_outside_of_their_space_never_reach_the_environment(space, inside, outside):
    border = action_encoder(space)
    assert all(space.contains(action) for action in border(np.array(inside)))
    for actions in outside:
        with pytest.raises(AgentError, match=r"returned the action .* not in this environment's .*another environment"):
            border(np.array([actions]))


def test_two_axes_of_choices():
    space = spaces.MultiDiscrete([[2, 3], [4, 2]])
    head = make_head(space, num_outputs_for(space), log_std_init=0.0)
    outputs = np.eye(11, dtype=np.float32)[[1, 4, 8, 10]].sum(axis=0)[None]
    np.testing.assert_array_equal(head.greedy(outputs), [[[1, 2], [3, 1]]])
    assert head.sample(outputs, np.random.default_rng(0)).shape == (1, 2, 2)


def test_switches_are_independent_and_as_often_on_as_they_say():
    space = spaces.MultiBinary((2, 2))
    head = make_head(space, num_outputs_for(space), log_std_init=0.0)
    assert num_outputs_for(space) == 4
    logits = np.array([-2.0, 0.5, 0.0, 3.0], np.float32)
    on = 1 / (1 + np.exp(-logits))
    drawn = head.sample(np.tile(logits, (40_000, 1)), np.random.default_rng(0)).reshape(-1, 4)
    np.testing.assert_allclose(drawn.mean(axis=0), on, atol=0.01)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.02
    np.testing.assert_array_equal(head.greedy(logits[None]), [[[0, 1], [0, 1]]])
    expected = np.log(np.stack([1 - on, on], axis=1)).ravel()
    np.testing.assert_allclose(head.distribution(logits[None]).log_probs[0], expected, rtol=1e-5)


def test_more_actions_than_outputs_are_refused():
    with pytest.raises(ConfigError, match="too many actions"):
        num_outputs_for(spaces.Discrete(10**9))
