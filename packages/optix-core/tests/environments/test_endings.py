"""What environments say when episodes end is kept as numbers, and nothing else is."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core.pipelines import VectorBatchPipeline


class Talkative(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {"is_success": True}  # of no episode that ended

    def step(self, action):
        self.t += 1
        info = {
            "is_success": np.bool_(action == 1),
            "steps": self.t,
            "speed": np.float32(self.t / 2),
            "one": np.array([4.0]),
            "where": np.zeros(3),
            "name": "here",
            "nested": {"deep": 1.0},
            "episode": {"r": 1e9},
        }
        if self.t == 2:
            info["only_sometimes"] = 7
        return np.zeros(1, np.float32), 1.0, self.t >= (2 if action else 3), False, info


class Alternating:
    def __init__(self):
        self.n = 0

    def act(self, observation):
        self.n += 1
        return np.array([1, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: [Talkative] * 2,
        lambda: SyncVectorEnv([Talkative] * 2),
        lambda: SyncVectorEnv([Talkative] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
    ],
)
def test_numbers_at_the_ends_of_episodes(make):
    window = VectorBatchPipeline(make(), Alternating(), window_size=13).collect()
    window.check()
    first = window.ends[:, 1] == 0
    infos = window.episode_infos
    assert set(infos) == {"is_success", "steps", "speed", "one", "only_sometimes"}
    np.testing.assert_array_equal(infos["is_success"], first)
    np.testing.assert_array_equal(infos["steps"], np.where(first, 2, 3))
    np.testing.assert_array_equal(infos["speed"], np.where(first, 1.0, 1.5))
    np.testing.assert_array_equal(infos["only_sometimes"], np.where(first, 7.0, np.nan))
