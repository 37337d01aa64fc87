"""Agents of every framework that can, learning from actors in other processes; modules as users write them."""

import numpy as np
import pytest

from optix_core import VectorBatchPipeline, make_agent
from optix_distributed import AsyncActorLearner, InProcessTransport, LocalTransport
from optix_distributed.collector import Collector
from optix_distributed.transport import ActorJob

SMALL = {"hidden_sizes": (8,)}


@pytest.mark.parametrize(
    ("framework", "algorithm", "env_id"),
    [
        ("torch", "a2c", "CartPole-v1"),
        ("torch", "recurrent_ppo", "CartPole-v1"),
        ("jax", "ppo", "Pendulum-v1"),
        pytest.param("jax", "a2c", "CartPole-v1", marks=pytest.mark.slow),
    ],
)
def test_actors_do_what_the_agent_would_do(framework, algorithm, env_id):
    """Log-probabilities are those of the agent itself: without lag V-trace corrects nothing."""
    agent = make_agent(algorithm, env_id, framework=framework, hyperparams=SMALL, seed=0)
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=5, seed=0)
    job = ActorJob(
        env=pipeline.env_spec, policy=agent.host_policy(), n_envs=2, trajectory_len=40, max_message_bytes=10**6
    )
    window = Collector(job, actor=0).collect(agent.host_policy(), policy_version=0, hyperparam_version=0)
    assert (window.initial_state is None) == (algorithm != "recurrent_ppo")
    if algorithm != "recurrent_ppo":
        own = agent.action_distribution(window.observations.reshape(80, -1))
        if own.log_probs is not None:
            log_probs = np.take_along_axis(own.log_probs, window.actions.reshape(80, 1).astype(int), 1)
        else:
            z = (window.actions.reshape(80, 1) - own.mean) / own.std
            log_probs = -0.5 * z**2 - np.log(own.std / 2.0) - 0.5 * np.log(2 * np.pi)  # the torque reaches from -2 to 2
        np.testing.assert_allclose(window.behaviour_log_probs.ravel(), log_probs.ravel(), atol=1e-4)
    agent.correct_lag()
    assert np.isfinite(agent.learn(window)["loss"])


def test_the_same_parameters_by_every_transport():
    def trained(transport):
        agent = make_agent("ppo", "CartPole-v1", framework="torch", hyperparams=SMALL, seed=0)
        AsyncActorLearner(agent, "CartPole-v1", trajectory_len=32, transport=transport).run(600, confirm_episodes=2)
        return agent.networks.weights()

    alone, beside = trained(InProcessTransport(2)), trained(LocalTransport(2, in_step=True))
    for name, array in alone.items():
        np.testing.assert_array_equal(array, beside[name])


def test_modules_and_a_function():
    import torch
    from torch import nn

    actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    before = actor[0].weight.detach().clone()
    learner = AsyncActorLearner(
        actor=actor,
        critic=critic,
        optimizer=torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=3e-4),
        env_factory=lambda: __import__("gymnasium").make("CartPole-v1"),
        n_actors=1,
        trajectory_len=32,
        transport="inprocess",
    )
    stats = learner.run(max_steps=400, confirm_episodes=2)
    assert stats["steps_per_second"] > 0
    assert not torch.equal(before, actor[0].weight)
