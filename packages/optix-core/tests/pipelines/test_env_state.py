"""A pipeline that is saved, written to disk, and restored in another one goes on exactly as the first would have."""

import gymnasium as gym
import numpy as np
import pytest

from optix_core import VectorBatchPipeline
from optix_core.checkpoints import load_tree, save_tree


class Scripted:
    """Actions from a generator of its own, so that two of them with the same seed act alike."""

    def __init__(self, space, seed):
        self.space, self.rng = space, np.random.default_rng(seed)

    def act(self, observation):
        N = len(observation)
        if isinstance(self.space, gym.spaces.Discrete):
            return self.rng.integers(self.space.n, size=N)
        return self.rng.normal(size=(N, *self.space.shape))


def assert_equal_windows(a, b):
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid", "last_observation"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_array_equal(a.episode_returns, b.episode_returns)
    np.testing.assert_array_equal(a.final_observations, b.final_observations)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"])
@pytest.mark.parametrize("windows_before", [1, 3])
def test_it_goes_on_exactly(env_id, windows_before, tmp_path):
    space = gym.make(env_id).action_space
    first = VectorBatchPipeline(env_id, Scripted(space, 0), n_envs=3, window_size=70, seed=4)
    for _ in range(windows_before):
        first.collect()
    save_tree(tmp_path / "state", first.pipeline_state())
    expected = [self_window(first, space) for _ in range(3)]
    second = VectorBatchPipeline(env_id, Scripted(space, 99), n_envs=3, window_size=70, seed=4)
    assert second.restore_pipeline_state(load_tree(tmp_path / "state")) is None
    for window in expected:
        assert_equal_windows(self_window(second, space), window)


def self_window(pipeline, space):
    pipeline.agent = Scripted(space, 7)
    return pipeline.collect()


def test_a_state_before_the_first_window_restarts_from_the_seed():
    space = gym.make("Pendulum-v1").action_space
    first = VectorBatchPipeline("Pendulum-v1", Scripted(space, 0), n_envs=2, window_size=20, seed=1)
    state = first.pipeline_state()
    second = VectorBatchPipeline("Pendulum-v1", Scripted(space, 0), n_envs=2, window_size=20, seed=1)
    assert second.restore_pipeline_state(state) is None
    assert_equal_windows(first.collect(), second.collect())


def test_episodes_that_are_about_to_begin_begin_from_the_same_seed(tmp_path):
    """As where a member of a population goes on in other episodes, and the run dies before it has taken a step."""
    space = gym.spaces.Discrete(2)
    ours, theirs = (VectorBatchPipeline("CartPole-v1", Scripted(space, 1), n_envs=2, window_size=16) for _ in "ab")
    ours.collect()
    ours.begin_episodes(5)
    save_tree(tmp_path / "state", ours.pipeline_state())
    assert theirs.restore_pipeline_state(load_tree(tmp_path / "state")) is None
    ours.agent, theirs.agent = Scripted(space, 2), Scripted(space, 2)
    assert_equal_windows(ours.collect(), theirs.collect())


def test_what_cannot_be_brought_back_begins_new_episodes_and_says_so():
    """An environment with memory across episodes, which no replay of one episode can restore."""

    class Remembering(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        action_space = gym.spaces.Discrete(2)
        total = 0.0

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return np.array([self.total]), {}

        def step(self, action):
            self.t += 1
            self.total += 1.0
            return np.array([self.total]), 1.0, self.t >= 5, False, {}

    space = Remembering.action_space
    first = VectorBatchPipeline(Remembering, Scripted(space, 0), n_envs=2, window_size=8, seed=1)
    first.collect()
    second = VectorBatchPipeline(Remembering, Scripted(space, 0), n_envs=2, window_size=8, seed=1)
    note = second.restore_pipeline_state(first.pipeline_state())
    assert note == "The environments cannot be brought back exactly, so they began new episodes."
    window = second.collect()
    window.check()
    assert window.episode_lengths.tolist() == [5, 5]


def test_environments_in_other_processes_begin_new_episodes():
    space = gym.make("Pendulum-v1").action_space
    first = VectorBatchPipeline("Pendulum-v1", Scripted(space, 0), n_envs=1, window_size=8, async_envs=True)
    second = VectorBatchPipeline("Pendulum-v1", Scripted(space, 0), n_envs=1, window_size=8, async_envs=True)
    try:
        first.collect()
        assert first.pipeline_state()["environments"] is None
        assert second.restore_pipeline_state(first.pipeline_state()) is not None
    finally:
        first.close()
        second.close()
