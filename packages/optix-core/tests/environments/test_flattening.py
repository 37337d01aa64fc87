"""Observations of several parts reach agents as vectors, whoever made the environments."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core import EnvSpec, VectorBatchPipeline


class Parts(gym.Env):
    """Shows its step in three ways; the parts are declared in another order than the alphabet's."""

    observation_space = spaces.Dict(
        {
            "picture": spaces.Box(0, 9, (2, 2), np.int16),
            "count": spaces.Discrete(4),
            "more": spaces.Tuple([spaces.Box(-1, 9, (1,), np.float32), spaces.MultiBinary(2)]),
        }
    )
    action_space = spaces.Discrete(2)

    def look(self):
        more = (np.array([self.t], np.float32), np.array([1, 0], np.int8))
        return {"picture": np.full((2, 2), self.t, np.int16), "count": self.t, "more": more}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        return self.look(), 0.0, self.t == 3, False, {}


class Agent:
    def act(self, observations):
        return np.zeros(len(observations), np.int64)


def expected(t):
    one_hot = [float(t == i) for i in range(4)]
    parts = {"picture": [t] * 4, "count": one_hot, "more": [t, 1.0, 0.0]}
    return np.concatenate([parts[name] for name in Parts.observation_space])


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "made by us"])
def test_windows_hold_the_parts_in_the_order_of_the_space(mode):
    source = Parts if mode == "made by us" else SyncVectorEnv([Parts] * 2, autoreset_mode=AutoresetMode[mode])
    window = VectorBatchPipeline(source, Agent(), n_envs=2, window_size=4, seed=0).collect()
    window.check()
    np.testing.assert_array_equal(window.observations[:3, 1], [expected(t) for t in range(3)])
    np.testing.assert_array_equal(window.final_observations, [expected(3)] * 2)
    assert window.observations.dtype.kind == "f"


def test_the_space_is_that_of_the_vectors():
    assert EnvSpec.of(Parts).observation_space.shape == (len(expected(0)),)
