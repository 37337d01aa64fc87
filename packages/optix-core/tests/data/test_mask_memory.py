"""What is allowed after a transition stays with it, in every kind of memory: the mask says which observation it is."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from optix_core.data import HERBuffer, PrioritizedReplayBuffer, ReplayBuffer
from optix_core.pipelines import VectorBatchPipeline


def mask_of(numbers):
    """The number of an observation in the binary system, and one action that is always allowed: bool ``[..., 17]``."""
    bits = np.asarray(numbers).astype(np.int64)[..., None] >> np.arange(16) & 1
    return np.concatenate([bits, np.ones((*bits.shape[:-1], 1))], axis=-1).astype(bool)


def masked(window, column=0):
    """The window with the masks of its observations."""
    last, finals = window.last_observation[:, column], window.final_observations[:, column]
    return replace(
        window,
        action_mask=mask_of(window.observations[..., column]),
        last_action_mask=mask_of(last),
        final_action_masks=mask_of(finals),
    )


def memory(kind, **options):
    common = {
        "capacity": 400,
        "observation_shape": (1,),
        "observation_dtype": np.float32,
        "action_shape": (),
        "action_dtype": np.int64,
        "gamma": 0.9,
    }
    if kind == "prioritised":
        return PrioritizedReplayBuffer(**common, alpha=0.6, beta=0.4, **options)
    return ReplayBuffer(**common, **options)


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("next_step_reset", [False, True])
def test_masks_are_those_of_the_next_observation(kind, n_step, next_step_reset, stream, pieces):
    buffer = memory(kind, n_step=n_step)
    whole = stream(200, 3, next_step_reset=next_step_reset)
    for piece in pieces(whole, [7, 1, 30]):
        buffer.add(masked(piece))
    batch = buffer.sample(2000)
    np.testing.assert_array_equal(batch.next_masks, mask_of(batch.next_observations[:, 0]))
    other = memory(kind, n_step=n_step)
    other.restore(buffer.state())
    again, expected = other.sample(500), buffer.sample(500)
    np.testing.assert_array_equal(again.next_masks, expected.next_masks)
    np.testing.assert_array_equal(again.next_observations, expected.next_observations)


def test_where_a_window_does_not_say_everything_is_allowed(stream, pieces):
    buffer = memory("uniform")
    first, second, third = pieces(stream(90, 2), [30])
    buffer.add(first)
    assert buffer.sample(10).next_masks.shape == (10, 0)
    buffer.add(masked(second))
    buffer.add(third)
    batch = buffer.sample(3000)
    shown = np.concatenate([second.observations.ravel(), second.final_observations[:, 0]])
    told = np.isin(batch.next_observations[:, 0], shown)
    assert told.any() and (~told).any()
    assert batch.next_masks[~told].all()
    np.testing.assert_array_equal(batch.next_masks[told], mask_of(batch.next_observations[told, 0]))


class Walk(gym.Env):
    """A goal environment with discrete actions, each of whose observations is a number of its own."""

    observation_space = spaces.Dict(
        {
            "achieved_goal": spaces.Box(-np.inf, np.inf, (1,)),
            "desired_goal": spaces.Box(-np.inf, np.inf, (1,)),
            "observation": spaces.Box(-np.inf, np.inf, (1,)),
        }
    )
    action_space = spaces.Discrete(17)
    count = 0

    def see(self):
        Walk.count += 1
        place = np.array([Walk.count], np.float32)
        self.number = Walk.count
        return {"achieved_goal": place, "desired_goal": np.array([-1.0], np.float32), "observation": place}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {"action_mask": mask_of(self.number)}

    def step(self, action):
        self.t += 1
        return self.see(), -1.0, False, self.t == 6, {"action_mask": mask_of(self.number)}

    def compute_reward(self, achieved, desired, info):
        return -(np.abs(achieved - desired).max(axis=-1) > 0.5).astype(np.float32)


class Obedient:
    def act_masked(self, observations, mask):
        return mask.argmax(axis=1)

    def act(self, observations):
        raise AssertionError("the environment has masks")


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_hindsight_keeps_masks_and_a_resumed_memory_goes_on_with_them(strategy):
    buffer, other = (HERBuffer.from_env(Walk(), capacity=500, gamma=0.9, strategy=strategy) for _ in range(2))
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Walk()), Obedient(), n_envs=2, window_size=4, seed=0)
    for _ in range(10):
        buffer.add(pipeline.collect())
    assert any(episode.state() for episode in buffer._open)  # an episode in hand is part of the state
    other.restore(buffer.state())
    window = pipeline.collect()
    for each in (buffer, other):
        each.add(window)
    batch, again = buffer.sample(2000), other.sample(2000)
    assert (batch.observations[:, 1] != -1.0).mean() > 0.7  # most goals are new, and no mask has changed with them
    np.testing.assert_array_equal(batch.next_masks, mask_of(batch.next_observations[:, 2]))
    np.testing.assert_array_equal(batch.next_masks, again.next_masks)


def test_an_episode_whose_masks_began_later_counts_as_free_before(stream, pieces):
    buffer = HERBuffer.from_env(Walk(), capacity=500, gamma=0.9, k=0)
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Walk()), Obedient(), n_envs=1, window_size=3, seed=0)
    first, second = pipeline.collect(), pipeline.collect()
    buffer.add(replace(first, action_mask=None, last_action_mask=None, final_action_masks=None))
    buffer.add(second)
    buffer.add(pipeline.collect())
    batch = buffer.sample(500)
    named = np.isin(batch.next_observations[:, 2], first.observations[..., 2])
    assert batch.next_masks[named].all() and named.any()
    np.testing.assert_array_equal(batch.next_masks[~named], mask_of(batch.next_observations[~named, 2]))
