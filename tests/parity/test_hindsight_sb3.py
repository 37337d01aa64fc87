"""Hindsight's transitions are those of stable-baselines3: the same goals are possible, with the same consequences."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import VectorBatchPipeline
from optix_core.data import HERBuffer

sb3 = pytest.importorskip("stable_baselines3")

LENGTH, DRAWS = 5, 20_000


class Line(gym.Env):
    """Two steps to the right or one to the left on a line; every third episode terminates, the others are cut off."""

    def __init__(self):
        place = spaces.Box(-99.0, 99.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"observation": place, "achieved_goal": place, "desired_goal": place})
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.episode = -1

    def look(self):
        now = np.float32([self.place])
        return {"observation": now + 0.5, "achieved_goal": now, "desired_goal": np.float32([50 + self.episode])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.place = self.episode + 1, 0, 10.0 * (self.episode + 1)
        return self.look(), {}

    def step(self, action):
        self.time += 1
        self.place += 2.0 if action[0] > 0 else -1.0
        over = self.time == LENGTH
        terminates = self.episode % 3 == 2
        reward = float(self.compute_reward(np.float32([self.place]), np.float32([50 + self.episode]), {}))
        return self.look(), reward, over and terminates, over and not terminates, {}

    def compute_reward(self, achieved, desired, info):
        return -(np.abs(achieved - desired)[..., 0] > 0.5).astype(np.float32)


class Agent:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def act(self, observations):
        return self.rng.uniform(-1, 1, (len(observations), 1)).astype(np.float32)


def theirs(window, strategy):
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = Line()
    buffer = HerReplayBuffer(
        1000, env.observation_space, env.action_space, DummyVecEnv([Line]), n_sampled_goal=4,
        goal_selection_strategy=strategy, handle_timeout_termination=True,
    )  # fmt: skip
    after = window.next_observations
    for t in range(window.num_steps):
        here, there = ({k: v[None] for k, v in parts(obs[t, 0]).items()} for obs in (window.observations, after))
        info = {"TimeLimit.truncated": bool(window.truncated[t, 0])}
        buffer.add(here, there, window.actions[t], window.rewards[t], window.done[t], [info])
    np.random.seed(0)  # noqa: NPY002 - where stable-baselines3 draws from
    batch = buffer.sample(DRAWS)
    names = ("achieved_goal", "desired_goal")
    columns = [batch.observations[name] for name in names] + [batch.next_observations[name] for name in names]
    return outcomes(*(c.numpy() for c in columns), batch.rewards.numpy(), 1.0 - batch.dones.numpy())


def ours(window, strategy):
    buffer = HERBuffer.from_env(Line(), capacity=1000, gamma=1.0, strategy=strategy, k=4)
    buffer.add(window)
    batch, goals = buffer.sample(DRAWS), buffer.goals
    columns = [
        o[:, part] for o in (batch.observations, batch.next_observations) for part in (goals.achieved, goals.desired)
    ]
    return outcomes(*columns, batch.rewards, batch.discounts)


def parts(flat):
    return {"achieved_goal": flat[:1], "desired_goal": flat[1:2], "observation": flat[2:]}


def outcomes(*columns):
    """Return the share of each transition (where, goal, next, next goal, reward, bootstrap) among the draws."""
    rows, counts = np.unique(np.column_stack([c.reshape(DRAWS) for c in columns]), axis=0, return_counts=True)
    return dict(zip(map(tuple, rows.tolist()), counts / DRAWS, strict=True))


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_the_same_transitions_come_equally_often(strategy):
    window = VectorBatchPipeline(Line, Agent(), n_envs=1, window_size=6 * LENGTH, seed=0).collect()
    found, expected = ours(window, strategy), theirs(window, strategy)
    assert found.keys() == expected.keys()
    # Standard error of a share below 0.04 among 20,000 draws: 0.0014; a difference of two has twice the variance.
    assert max(abs(found[key] - expected[key]) for key in expected) < 0.01
    assert len({key[4] for key in found}) == len({key[5] for key in found}) == 2
