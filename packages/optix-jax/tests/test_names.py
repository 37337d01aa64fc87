"""JAX agents by the names that users of other libraries know; a spread that depends on the observation."""

import flax.linen as nn
import gymnasium as gym
import jax
import numpy as np
import pytest

from optix_core import BatchPipeline, ConfigError, RewardNormalizer
from optix_jax import FlaxGaussianPPOAgent, FlaxPPOAgent
from optix_jax.squashed import SquashedGaussian


def net(outputs):
    return nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(outputs)])


def test_two_outputs_per_action_are_a_mean_and_a_deviation_in_the_pipelines_range():
    space = gym.make("Pendulum-v1").observation_space
    rewards = RewardNormalizer()
    agent = FlaxGaussianPPOAgent(
        actor=net(2), critic=net(1), observation_space=space, action_dim=1, reward_normalizer=rewards,
        hyperparams={"n_epochs": 1, "clip_ratio": 0.1},
    )  # fmt: skip
    collected = BatchPipeline("Pendulum-v1", agent, 128).collect()
    assert 1.2 < np.abs(collected.actions).max() <= 2.0
    assert agent.model.distribution.scale == (2.0,)
    before = jax.tree.map(np.array, agent.networks.train_state.params["actor"])
    assert np.isfinite(list(agent.learn(collected).values())).all()
    after = agent.networks.train_state.params["actor"]
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    assert rewards.stats.count == 128


def test_draws_are_judged_by_the_density_that_they_come_from():
    distribution = SquashedGaussian(centre=(1.0,), scale=(2.0,), shape=(1,))
    outputs = np.tile(np.array([[0.3, -0.5]], np.float32), (20_000, 1))
    noise = distribution.noise(jax.random.key(0), outputs.shape)
    actions = distribution.sample(outputs, None, noise)
    assert np.abs((actions - 1.0) / 2.0).max() <= 1.0
    log_probs, entropies = distribution.evaluate(outputs, None, actions)
    assert float(-log_probs.mean()) == pytest.approx(float(entropies[0]), abs=0.02)


def test_a_wrong_number_of_actions_is_refused_in_a_line():
    space = gym.make("CartPole-v1").observation_space
    with pytest.raises(ConfigError, match=r"The actor must return \[B, 3\]"):
        FlaxPPOAgent(actor=net(2), critic=net(1), observation_space=space, n_actions=3)
