"""Environments so small that the right answer is known: each tells which part of the algorithm is broken."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_torch import TorchGaussianPPOAgent, TorchPPOAgent

DISCRETE, CONTINUOUS = spaces.Discrete(2), spaces.Box(-2.0, 2.0, (1,))


class Probe(gym.Env):
    """One observation in [-1, 1]; what happens is up to the subclass."""

    observation_space = spaces.Box(-1, 1, (1,))

    def __init__(self, action_space=DISCRETE):
        self.action_space = action_space

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
        if isinstance(self.action_space, spaces.Discrete):
            reward = 1.0 if action == (self.sign > 0) else -1.0
        else:
            reward = 1.0 - abs(float(action[0]) - 1.5 * self.sign)
        return self.see(), reward, True, False, {}


class TimeLimitOnly(Probe):
    """Reward 1 for ever, seen in pieces of five steps: V = 1 / (1 - gamma) everywhere."""

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, False, self.t == 5, {}


def train(env_class, action_space, windows, **hyperparams):
    agent_class = TorchPPOAgent if action_space is DISCRETE else TorchGaussianPPOAgent
    settings = {"learning_rate": 3e-3, "num_epochs": 4, "minibatch_size": 64, "gamma": 0.5} | hyperparams
    agent = agent_class.from_spaces(Probe.observation_space, action_space, hyperparams=settings, seed=1)
    factory = functools.partial(env_class, action_space)
    pipeline = VectorBatchPipeline(factory, agent, n_envs=8, window_size=32, seed=0)
    for _ in range(windows):
        agent.learn(pipeline.collect())
    return agent


def values(agent, *observations):
    rows = np.array(observations, np.float32)[:, None]
    return agent.networks.critic.infer(agent._encode(rows)).numpy()[:, 0]


@pytest.fixture(params=[DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def action_space(request):
    return request.param


def test_value_of_a_constant(action_space):
    np.testing.assert_allclose(values(train(ConstantReward, action_space, 15), -1, 1), 1.0, atol=0.05)


def test_value_that_depends_on_the_observation(action_space):
    np.testing.assert_allclose(values(train(RewardIsObservation, action_space, 20), -1, 1), [-1, 1], atol=0.1)


def test_discount_over_two_steps(action_space):
    np.testing.assert_allclose(values(train(TwoSteps, action_space, 25), -0.5, 0.5), [0.5, 1.0], atol=0.08)


def test_time_limit_is_not_the_end_of_the_world(action_space):
    agent = train(TimeLimitOnly, action_space, 40, gamma=0.8)
    np.testing.assert_allclose(values(agent, -1, 1), 5.0, atol=0.3)


def test_policy_that_depends_on_the_observation(action_space):
    agent = train(RightActionDependsOnObservation, action_space, 50, learning_rate=1e-2)
    greedy = agent.make_policy("greedy", num_envs=2, seed=0).act(np.array([[-1], [1]], np.float32))
    if action_space is DISCRETE:
        assert greedy.tolist() == [0, 1]
    else:
        np.testing.assert_allclose(greedy[:, 0], [-1.5, 1.5], atol=0.25)
