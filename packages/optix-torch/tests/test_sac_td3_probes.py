"""Environments so small that the right answer is known, for SAC and TD3."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_torch import TorchSACAgent, TorchTD3Agent


class Probe(gym.Env):
    """One observation in [-1, 1], one action in [-2, 2]; what happens is up to the subclass."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-2.0, 2.0, (1,))

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
        return self.see(), 1.0 - abs(float(action[0]) - 1.5 * self.sign), True, False, {}


class TimeLimitOnly(Probe):
    """Reward 1 for ever, seen in pieces of five steps: V = 1 / (1 - gamma) everywhere."""

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, False, self.t == 5, {}


AGENTS = {
    "sac": (TorchSACAgent, {"alpha": 1e-3}),  # so little entropy that it does not count among the rewards
    "td3": (TorchTD3Agent, {}),
    "td3, 3 steps": (TorchTD3Agent, {"n_step": 3}),
}


@pytest.fixture(params=AGENTS)
def train(request):
    """A function that trains an agent on an environment."""

    def train(env_class, *, steps=600, **hyperparams):
        agent_class, own = AGENTS[request.param]
        settings = {
            "learning_rate": 3e-3,
            "gamma": 0.5,
            "tau": 0.05,
            "learning_starts": 64,
            "batch_size": 64,
            "hidden_sizes": [32, 32],
            "capacity": 5000,
        }
        agent = agent_class.from_env(env_class(), hyperparams=settings | own | hyperparams, seed=1)
        pipeline = VectorBatchPipeline(env_class, agent, n_envs=4, window_size=4, seed=0)
        while agent._num_env_steps < steps:
            agent.learn(pipeline.collect())
        return agent

    return train


def values(agent, *observations):
    """The mean of the twins' values of the greedy actions."""
    rows = np.array(observations, np.float32)[:, None]
    actions = agent.make_policy("greedy", num_envs=len(rows), seed=0).act(rows) / 2.0
    return (
        agent._critic_nets.infer(torch.from_numpy(agent._rows(rows)), torch.from_numpy(actions)).mean(0)[:, 0].numpy()
    )


def test_value_of_a_constant(train):
    np.testing.assert_allclose(values(train(ConstantReward), -1, 1), 1.0, atol=0.05)


def test_value_that_depends_on_the_observation(train):
    np.testing.assert_allclose(values(train(RewardIsObservation), -1, 1), [-1, 1], atol=0.1)


def test_discount_over_two_steps(train):
    np.testing.assert_allclose(values(train(TwoSteps), -0.5, 0.5), [0.5, 1.0], atol=0.1)


def test_time_limit_is_not_the_end_of_the_world(train):
    np.testing.assert_allclose(values(train(TimeLimitOnly, steps=1200, gamma=0.8), -1, 1), 5.0, atol=0.4)


def test_policy_that_depends_on_the_observation(train):
    agent = train(RightActionDependsOnObservation, steps=1200)
    greedy = agent.make_policy("greedy", num_envs=2, seed=0).act(np.array([[-1], [1]], np.float32))
    np.testing.assert_allclose(greedy[:, 0], [-1.5, 1.5], atol=0.25)
