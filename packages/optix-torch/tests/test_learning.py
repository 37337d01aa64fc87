"""Real environments, learned in seconds (and longer checks marked slow)."""

import gymnasium as gym
import numpy as np
import pytest

from optix_core import RLOptimizer
from optix_core.agents.backends import make_agent
from optix_core.environments import EnvSpec
from optix_core.evaluation.rollouts import policy_factory, rollout
from optix_core.pipelines import VectorBatchPipeline
from optix_core.training.defaults import recipe


def train(env_id, *, n_envs, window_size, num_env_steps, algorithm="ppo", seed=0, **hyperparams):
    agent = make_agent(algorithm, env_id, framework="torch", seed=seed, **hyperparams)
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=n_envs, window_size=window_size, seed=seed)
    for _ in range(num_env_steps // (n_envs * window_size)):
        agent.learn(pipeline.collect())
    envs = EnvSpec.of(env_id).make_vector(30)
    return rollout(policy_factory(agent), envs, episodes=30, seed=12345).returns.mean()


def masked_cartpole():
    """CartPole without its velocities."""
    env = gym.make("CartPole-v1")
    positions = [0, 2]
    low, high = env.observation_space.low[positions], env.observation_space.high[positions]
    return gym.wrappers.TransformObservation(env, lambda seen: seen[positions], gym.spaces.Box(low, high))


def test_cartpole_is_solved_in_a_second():
    score = train(
        "CartPole-v1", n_envs=32, window_size=64, num_env_steps=50_000, learning_rate=1e-3, minibatch_size=256
    )
    assert score >= 475


@pytest.mark.slow
def test_pendulum_is_solved_on_four_of_five_seeds():
    settings = {"gamma": 0.9, "learning_rate": 1e-3, "entropy_coef": 0.0}
    scores = [
        train("Pendulum-v1", n_envs=4, window_size=1024, num_env_steps=100_000, seed=seed, **settings)
        for seed in range(5)
    ]
    assert np.sum(np.array(scores) >= -250) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_pendulum_is_solved_off_policy_within_ten_thousand_steps(algorithm):
    settings = {"learning_rate": 1e-3, "learning_starts": 1000}
    score = train("Pendulum-v1", algorithm=algorithm, n_envs=4, window_size=16, num_env_steps=10_000, **settings)
    assert score >= -190


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "num_env_steps"), [("recurrent_ppo", 250_000), ("ppo", 100_000)])
def test_a_masked_cartpole_needs_a_memory(algorithm, num_env_steps):
    settings = recipe(algorithm, "CartPoleMasked-v1").hyperparams
    agent = make_agent(algorithm, masked_cartpole, framework="torch", seed=3, hyperparams=settings)
    pipeline = VectorBatchPipeline(masked_cartpole, agent, n_envs=16, window_size=128, seed=3)
    confirmed = RLOptimizer(agent, pipeline, max_env_steps=num_env_steps, seed=3).run().confirmed_return["mean"]
    assert confirmed >= 450 if algorithm == "recurrent_ppo" else confirmed < 100
