"""Windows for tests: they keep the rules, whatever is drawn, and come out the same from the same seed."""

import numpy as np
import pytest

from optix_protocol.conformance.cases import BoxSpace, DiscreteSpace
from optix_protocol.testing import episodes_window, random_window

BOX = BoxSpace(low=np.full(3, -1.0, np.float32), high=np.full(3, 1.0, np.float32))
ACTIONS = DiscreteSpace(n=4)


def action_spaces(spaces):
    return [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.MultiBinary((2, 2)),
        spaces.Box(np.array([-128, 0], np.int32), np.array([127, 2**31 - 1], np.int32), dtype=np.int32),
        spaces.Box(-1.0, 1.0, ()),
    ]


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("reset_rows", [True, False])
def test_a_random_window_keeps_every_rule_and_stays_in_its_spaces(kind, reset_rows):
    space = action_spaces(pytest.importorskip("gymnasium.spaces"))[kind]
    for seed in range(20):
        window = random_window(BOX, space, num_steps=9, num_envs=2, seed=seed, ends=0.4, reset_rows=reset_rows)
        window.check()
        assert window.observations.shape == (9, 2, 3)
        assert all(space.contains(action) for action in window.actions.reshape(18, *space.shape))
        assert not (window.done & ~window.valid).any()
        assert window.valid.all() or reset_rows
        assert len(window.episode_returns) == window.done.sum()


def test_ends_are_of_both_kinds_and_come_at_the_rate_that_is_asked_for():
    window = random_window(BOX, ACTIONS, num_steps=2000, num_envs=4, ends=0.2, reset_rows=False)
    assert 0.15 < window.done.mean() < 0.2  # never in the row after an end
    assert 0.4 < window.terminated.sum() / window.done.sum() < 0.6


def test_the_seed_decides_everything_and_cells_may_be_given():
    first, again, other = (random_window(BOX, ACTIONS, seed=seed) for seed in (5, 5, 6))
    assert (first.rewards == again.rewards).all()
    assert not (first.rewards == other.rewards).all()
    given = random_window(BOX, ACTIONS, terminated=[(3, 1)], invalid_envs=[2])
    assert given.ends.tolist() == [[3, 1]]
    assert not given.truncated.any()
    assert not given.valid[:, 2].any()
    assert random_window(BOX, ACTIONS, ends=0.0).valid.all()


def test_a_window_of_episodes_has_their_returns_and_its_rewards():
    window = episodes_window([5.0, 7.0], [2, 3], rewards=[1.0, 2.0])
    assert window.episode_returns.tolist() == [5.0, 7.0]
    assert window.episode_lengths.tolist() == [2, 3]
    assert window.rewards.tolist() == [[1.0], [2.0]]
    assert len(episodes_window().episode_returns) == 0
