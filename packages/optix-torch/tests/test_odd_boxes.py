"""SAC and TD3 in boxes that are legal but odd."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import VectorBatchPipeline
from optix_torch import TorchSACAgent, TorchTD3Agent

ODD = {
    "whole numbers": spaces.Box(-1, 1, (2,), np.int32),
    "bytes": spaces.Box(0, 255, (1,), np.uint8),
    "no width": spaces.Box(np.array([0, 1], np.float32), np.array([0, 2], np.float32)),
    "no axes": spaces.Box(-3.0, 1.0, ()),
    "two axes": spaces.Box(-3.0, 1.0, (2, 2)),
}


class Near(gym.Env):
    """Pays for actions near the upper end of their range; episodes of five steps."""

    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, action_space):
        self.action_space, self.seen = action_space, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        self.seen.append(np.array(action))
        self.t += 1
        reward = -float(np.abs(self.action_space.high.astype(float) - action).mean())
        return self.observation_space.sample(), reward, False, self.t >= 5, {}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("agent_class", [TorchSACAgent, TorchTD3Agent])
def test_odd_boxes_are_explored_from_end_to_end_and_learned_in(agent_class, kind):
    settings = {"hidden_sizes": [16, 16], "learning_starts": 256, "batch_size": 32, "updates_per_step": 0.1}
    agent = agent_class.from_spaces(Near.observation_space, ODD[kind], seed=1, hyperparams=settings)
    pipeline = VectorBatchPipeline(lambda: Near(ODD[kind]), agent, n_envs=1, window_size=256)
    told = [agent.learn(pipeline.collect()) for _ in range(2)][-1]
    assert all(np.isfinite(value) for value in told.values())
    seen = np.stack(pipeline._envs.envs[0].unwrapped.seen).astype(np.float64)
    width = ODD[kind].high.astype(np.float64) - ODD[kind].low
    assert (seen.max(axis=0) >= ODD[kind].low + 0.95 * width).all()
    assert (seen.min(axis=0) <= ODD[kind].low + 0.05 * width).all()
    actions = agent.make_policy("greedy", num_envs=3, seed=0).act(np.zeros((3, 2), np.float32))
    assert all(ODD[kind].contains(np.asarray(action)) for action in actions)
