"""Environments so small that the right answer is known: each tells which part of the algorithm is broken."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_torch import TorchRecurrentPPOAgent
from optix_torch.backend import create

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


class Memory1(Probe):
    """The sign is shown first, and asked for one step later, when nothing is to be seen."""

    def see(self):
        return np.array([self.sign if self.t == 0 else 0.0], np.float32)

    def step(self, action):
        self.t += 1
        if isinstance(self.action_space, spaces.Discrete):
            hit = 1.0 if action == (self.sign > 0) else -1.0
        else:
            hit = 1.0 - abs(float(action[0]) - 1.5 * self.sign)
        return self.see(), hit if self.t == 2 else 0.0, self.t == 2, False, {}


PPO = {"num_epochs": 4, "minibatch_size": 64}
RECURRENT = {"num_epochs": 4, "minibatch_size": 128, "sequence_length": 8, "hidden_sizes": [16], "cell_size": 16}
ALGORITHMS = {
    "ppo": ("ppo", PPO),
    "gru": ("recurrent_ppo", RECURRENT | {"cell": "gru"}),
    "lstm": ("recurrent_ppo", RECURRENT | {"cell": "lstm"}),
    "a2c": ("a2c", {}),
}
"""Algorithm and settings. A2C takes one step per window, PPO sixteen, so it gets more and shorter windows."""


def train(env_class, action_space, windows, *, algorithm="ppo", **hyperparams):
    name, settings = ALGORITHMS[algorithm]
    rate = 3e-3 if name == "ppo" else 6e-3
    settings = {"learning_rate": rate, "gamma": 0.5} | settings | hyperparams
    spaces_ = {"observation_space": Probe.observation_space, "action_space": action_space}
    agent = create().make_agent(name, **spaces_, hyperparams=settings, seed=1)
    factory = functools.partial(env_class, action_space)
    shorter = 8 if algorithm == "a2c" else 1
    pipeline = VectorBatchPipeline(factory, agent, n_envs=8, window_size=32 // shorter, seed=0)
    for _ in range(windows * shorter):
        agent.learn(pipeline.collect())
    return agent


def values(agent, *observations):
    """Values of the first observations of episodes."""
    rows = np.array(observations, np.float32)[:, None]
    if isinstance(agent, TorchRecurrentPPOAgent):
        memory = {name: torch.from_numpy(array) for name, array in agent.initial_state(len(rows)).items()}
        with torch.no_grad():
            return agent._values_after(rows, memory, torch.arange(len(rows)))
    return agent.networks.critic.infer(torch.from_numpy(agent._rows(rows))).numpy()[:, 0]


@pytest.fixture(params=[DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def action_space(request):
    return request.param


@pytest.fixture(params=["ppo", "gru", "a2c"])
def algorithm(request):
    return request.param


def test_value_of_a_constant(action_space, algorithm):
    agent = train(ConstantReward, action_space, 15, algorithm=algorithm)
    np.testing.assert_allclose(values(agent, -1, 1), 1.0, atol=0.05)


def test_value_that_depends_on_the_observation(action_space, algorithm):
    agent = train(RewardIsObservation, action_space, 20, algorithm=algorithm)
    np.testing.assert_allclose(values(agent, -1, 1), [-1, 1], atol=0.1)


def test_discount_over_two_steps(action_space, algorithm):
    agent = train(TwoSteps, action_space, 30, algorithm=algorithm)
    first = values(agent, -0.5)
    np.testing.assert_allclose(first, 0.5, atol=0.08)
    if algorithm in ("ppo", "a2c"):
        np.testing.assert_allclose(values(agent, 0.5), 1.0, atol=0.08)


def test_time_limit_is_not_the_end_of_the_world(action_space, algorithm):
    agent = train(TimeLimitOnly, action_space, 40, algorithm=algorithm, gamma=0.8)
    np.testing.assert_allclose(values(agent, -1, 1), 5.0, atol=0.3)


def test_policy_that_depends_on_the_observation(action_space, algorithm):
    agent = train(RightActionDependsOnObservation, action_space, 50, algorithm=algorithm, learning_rate=1e-2)
    greedy = agent.make_policy("greedy", num_envs=2, seed=0).act(np.array([[-1], [1]], np.float32))
    if action_space is DISCRETE:
        assert greedy.tolist() == [0, 1]
    else:
        np.testing.assert_allclose(greedy[:, 0], [-1.5, 1.5], atol=0.25)


def answers(agent):
    """What a greedy policy does when it is asked for the signs -1 and 1 that it saw one step before."""
    policy = agent.make_policy("greedy", num_envs=2, seed=0)
    policy.act(np.array([[-1], [1]], np.float32))
    return policy.act(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("algorithm", ["gru", "lstm"])
def test_memory_of_one_step(action_space, algorithm):
    agent = train(Memory1, action_space, 60, algorithm=algorithm, learning_rate=1e-2)
    if action_space is DISCRETE:
        assert answers(agent).tolist() == [0, 1]
    else:
        np.testing.assert_allclose(answers(agent)[:, 0], [-1.5, 1.5], atol=0.25)


def test_without_memory_it_cannot_be_known():
    first, second = answers(train(Memory1, DISCRETE, 10))
    assert first == second
