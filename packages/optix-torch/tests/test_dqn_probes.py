"""Environments so small that the right values are known, for DQN and Rainbow."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_torch import TorchDQNAgent, TorchRainbowDQNAgent


class Probe(gym.Env):
    """One observation in [-1, 1] and two actions; what happens is up to the subclass."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.sign = 0, self.np_random.choice([-1.0, 1.0])
        return self.see(), {}

    def see(self):
        return np.array([self.sign], np.float32)


class ConstantReward(Probe):
    def step(self, action):
        return self.see(), 1.0, True, False, {}


class RewardIsObservation(Probe):
    def step(self, action):
        return self.see(), float(self.sign), True, False, {}


class TwoSteps(Probe):
    def see(self):
        return np.array([self.t - 0.5], np.float32)

    def step(self, action):
        self.t += 1
        return self.see(), float(self.t == 2), self.t == 2, False, {}


class RightActionDependsOnObservation(Probe):
    def step(self, action):
        return self.see(), 1.0 if action == (self.sign > 0) else -1.0, True, False, {}


class TimeLimitOnly(Probe):
    """Reward 1 for ever, seen in pieces of five steps: V = 1 / (1 - gamma) everywhere."""

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, False, self.t == 5, {}


AGENTS = {
    "dqn": (TorchDQNAgent, {}),
    "dqn, 3 steps, priorities": (TorchDQNAgent, {"n_step": 3, "per_alpha": 0.6}),
    "rainbow": (TorchRainbowDQNAgent, {"v_min": -6.0, "v_max": 6.0, "num_atoms": 25}),
}


@pytest.fixture(params=AGENTS)
def values(request):
    """A function that trains on an environment and returns the greedy policy's values of observations."""

    def train(env_class, *observations, steps=1500, gamma=0.5, **hyperparams):
        agent_class, own = AGENTS[request.param]
        settings = {
            "learning_rate": 3e-3,
            "gamma": gamma,
            "learning_starts": 64,
            "batch_size": 32,
            "updates_per_step": 0.5,
            "target_update_interval": 10,
            "hidden_sizes": [32, 32],
        }
        agent = agent_class.from_env(env_class(), hyperparams=settings | own | hyperparams, seed=1)
        pipeline = VectorBatchPipeline(env_class, agent, n_envs=4, window_size=4, seed=0)
        for _ in range(steps // 16):
            agent.learn(pipeline.collect())
        policy = agent.make_policy("greedy", num_envs=1, seed=0)
        return policy._head.values(policy.outputs(np.array(observations, np.float32)[:, None]))

    return train


def test_value_of_a_constant(values):
    np.testing.assert_allclose(values(ConstantReward, -1, 1), 1.0, atol=0.1)


def test_value_that_depends_on_the_observation(values):
    np.testing.assert_allclose(values(RewardIsObservation, -1, 1).T, [[-1, 1]] * 2, atol=0.15)


def test_discount_over_two_steps(values):
    np.testing.assert_allclose(values(TwoSteps, -0.5, 0.5).max(1), [0.5, 1.0], atol=0.1)


def test_time_limit_is_not_the_end_of_the_world(values):
    np.testing.assert_allclose(values(TimeLimitOnly, -1, 1, gamma=0.8, steps=3000).max(1), 5.0, atol=0.35)


def test_value_of_the_right_action(values):
    found = values(RightActionDependsOnObservation, -1, 1)
    np.testing.assert_allclose(found, [[1, -1], [-1, 1]], atol=0.25)
