"""What an agent remembers belongs to the episode in hand: the pipeline keeps it, begins it anew, and resumes it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core import BatchPipeline, VectorBatchPipeline
from optix_core.checkpoints import load_tree, save_tree


class Clock(gym.Env):
    """Shows nothing; ends after a few steps. Whoever acts right must count for himself."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(100)

    def __init__(self, lengths=(3,), truncates=False):
        self.lengths, self.truncates, self.episode = lengths, truncates, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward = float(action == self.t)
        self.t += 1
        over = self.t >= self.lengths[self.episode % len(self.lengths)]
        return np.zeros(1, np.float32), reward, over and not self.truncates, over and self.truncates, {}


class Counter:
    """Its action is the number of steps that it remembers of the episode."""

    def initial_state(self, num_envs):
        return {"steps": np.zeros((num_envs, 1), np.int64)}

    def act_with_state(self, observations, state):
        return state["steps"][:, 0], {"steps": state["steps"] + 1}

    def act(self, observation):
        return np.zeros(len(observation), np.int64)

    def make_policy(self, mode, *, num_envs, seed):
        return CountingPolicy(num_envs) if mode == "greedy" else Stubborn(num_envs)


class Stubborn:
    """A policy that keeps its memory to itself."""

    def __init__(self, num_envs):
        self.steps = np.zeros(num_envs, np.int64)

    def act(self, observations):
        self.steps += 1
        return self.steps - 1

    def reset(self, done=None):
        self.steps[slice(None) if done is None else done] = 0


class CountingPolicy(Counter, Stubborn):
    def __init__(self, num_envs):
        Stubborn.__init__(self, num_envs)


def make(lengths_by_env, autoreset="SAME_STEP", window_size=10, **options):
    envs = [lambda lengths=lengths: Clock(lengths) for lengths in lengths_by_env]
    vector = SyncVectorEnv(envs, autoreset_mode=AutoresetMode[autoreset])
    return VectorBatchPipeline(vector, Counter(), window_size=window_size, **options)


def replayed(window):
    """What a learner finds: the memory before each row, from initial_state and episode_starts."""
    memory, rows = window.initial_state["steps"][:, 0], []
    for t in range(window.num_steps):
        memory = np.where(window.episode_starts[t], 0, memory)
        rows.append(memory)
        memory = memory + 1
    return np.stack(rows)


lengths = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, window_size=st.integers(1, 12), mode=st.sampled_from(["NEXT_STEP", "SAME_STEP"]))
def test_acting_and_learning_begin_anew_with_every_episode(lengths, window_size, mode):
    """Also where an episode ends in a window's last row, or has only one step, or is followed by a reset row."""
    pipeline = make(lengths, mode, window_size)
    for _ in range(4):
        window = pipeline.collect()
        window.check()
        assert (window.rewards[window.valid] == 1).all()
        np.testing.assert_array_equal(replayed(window), window.actions)


@pytest.mark.parametrize("policy_mode", ["greedy", "sample"])
@pytest.mark.parametrize("autoreset", ["NEXT_STEP", "SAME_STEP"])
def test_policies_begin_anew_with_every_episode(autoreset, policy_mode):
    pipeline = make([[3, 1, 4], [2]], autoreset, 25, mode=policy_mode)
    window = pipeline.collect()
    assert (window.rewards[window.valid] == 1).all()
    assert not window.valid.all() or autoreset == "SAME_STEP"


def test_a_newer_policy_takes_over_the_memory_of_the_episode_in_hand():
    pipeline = make([[50]], window_size=20, mode="greedy")
    for version in range(3):
        window = pipeline.collect()
        assert (window.rewards == 1).all()
        pipeline.policy_changed(policy_version=version + 1, hyperparam_version=0)


def test_pipelines_that_share_an_agent_do_not_share_its_memory():
    agent = Counter()
    pipelines = [
        VectorBatchPipeline(lambda: Clock((7,)), agent, n_envs=2, window_size=5, mode=m) for m in (None, "greedy")
    ]
    for _ in range(4):
        for pipeline in pipelines:
            assert (pipeline.collect().rewards == 1).all()


def test_a_single_environment_is_remembered_too():
    window = BatchPipeline(lambda: Clock((4, 6)), Counter(), 30).collect()
    assert (window.rewards == 1).all()
    np.testing.assert_array_equal(replayed(window), window.actions)


def test_windows_of_agents_without_memory_have_no_initial_state():
    class Forgetful:
        def act(self, observation):
            return np.zeros(len(observation), np.int64)

    assert VectorBatchPipeline(Clock, Forgetful(), n_envs=2, window_size=5).collect().initial_state is None


def test_the_memory_is_resumed_with_the_environments(tmp_path):
    first, second = (VectorBatchPipeline("CartPole-v1", Counting(), n_envs=3, window_size=30, seed=4) for _ in range(2))
    first.collect()
    save_tree(tmp_path / "state", first.pipeline_state())
    expected = first.collect()
    assert second.restore_pipeline_state(load_tree(tmp_path / "state")) is None
    window = second.collect()
    np.testing.assert_array_equal(window.initial_state["steps"], expected.initial_state["steps"])
    np.testing.assert_array_equal(window.observations, expected.observations)
    assert expected.initial_state["steps"].any()


def test_new_episodes_after_a_resume_are_not_remembered():
    first, second = (VectorBatchPipeline(Wrapped, Counter(), n_envs=2, window_size=5) for _ in range(2))
    first.collect()
    assert "began new episodes" in second.restore_pipeline_state(first.pipeline_state())
    window = second.collect()
    assert not window.initial_state["steps"].any()
    assert (window.rewards == 1).all()


class Counting(Counter):
    """For CartPole: pushes left and right in turn."""

    def act_with_state(self, observations, state):
        actions, later = super().act_with_state(observations, state)
        return actions % 2, later


class Wrapped(gym.Wrapper):
    """A wrapper of a user's, which may remember things that no replay brings back."""

    def __init__(self):
        super().__init__(Clock((7,)))
