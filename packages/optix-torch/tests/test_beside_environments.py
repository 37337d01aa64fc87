"""Agents beside environments that they were not made for, or that change torch for everybody."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core import ConfigError, VectorBatchPipeline, make_agent
from optix_torch import TorchDQNAgent, TorchPPOAgent


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (spaces.Discrete(2), spaces.Discrete(4)),
        (spaces.Discrete(4), spaces.Discrete(2)),
        (spaces.MultiDiscrete([2, 2]), spaces.MultiDiscrete([2, 3])),
        (spaces.MultiDiscrete([2, 2]), spaces.Discrete(4)),
        (spaces.Discrete(2), spaces.Box(-1, 1, (2,))),
    ],
)
@pytest.mark.parametrize("kind", [TorchPPOAgent, TorchDQNAgent])
def test_an_agent_for_other_actions_is_refused(kind, own, other):
    if kind is TorchDQNAgent and not isinstance(own, spaces.Discrete):
        return
    seen = spaces.Box(-1, 1, (3,))
    agent = kind.from_spaces(seen, own)
    agent.meet_spaces(seen, own)
    with pytest.raises(ConfigError, match=r"The agent acts in .* and the environment in .*: build the agent for this"):
        agent.meet_spaces(seen, other)


@pytest.mark.parametrize(
    ("algorithm", "env_id", "settings"),
    [
        ("ppo", "CartPole-v1", {}),
        ("ppo", "Pendulum-v1", {}),
        ("a2c", "CartPole-v1", {}),
        ("recurrent_ppo", "CartPole-v1", {"cell": "gru"}),
        ("recurrent_ppo", "CartPole-v1", {"cell": "lstm"}),
        ("dqn", "CartPole-v1", {"learning_starts": 8}),
        ("rainbow", "CartPole-v1", {"learning_starts": 8}),
        ("sac", "Pendulum-v1", {"learning_starts": 8}),
        ("td3", "Pendulum-v1", {"learning_starts": 8}),
    ],
)
def test_what_an_environment_sets_for_all_of_torch_does_no_harm(algorithm, env_id, settings, torch_changed, tmp_path):
    agent = make_agent(algorithm, env_id, framework="torch", hidden_sizes=(8,), **settings)
    window = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=16).collect()
    before = agent.networks.weights()
    assert all(np.isfinite(value) for value in agent.learn(window).values())
    after = agent.networks.weights()
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}
    assert any((before[name] != after[name]).any() for name in before)
    agent.save_weights(tmp_path / "weights")
    agent.load_weights(tmp_path / "weights")
    agent.restore_training_state(agent.training_state())
    assert all(np.isfinite(value) for value in agent.learn(window).values())


@pytest.mark.parametrize(
    ("algorithm", "env_id"), [("ppo", "CartPole-v1"), ("recurrent_ppo", "CartPole-v1"), ("sac", "Pendulum-v1")]
)
def test_inference_mode_that_an_environment_has_not_left(algorithm, env_id):
    """What was made before learns in it; what is made in it cannot."""
    settings = {"hidden_sizes": (8,)} | ({"learning_starts": 8} if algorithm == "sac" else {})
    agent = make_agent(algorithm, env_id, framework="torch", **settings)
    before = agent.networks.weights()
    with torch.inference_mode():
        agent.learn(VectorBatchPipeline(env_id, agent, n_envs=2, window_size=16).collect())
        after = agent.networks.weights()
        with pytest.raises(ConfigError, match=r"made in torch\.inference_mode\(\), where nothing can be learned"):
            make_agent(algorithm, env_id, framework="torch", **settings)
    assert any((before[name] != after[name]).any() for name in before)


def test_networks_in_doubles_are_refused_in_a_line():
    network = torch.nn.Sequential(torch.nn.Linear(4, 2)).double()
    with pytest.raises(ConfigError, match=r"parameters of torch\.float64, and agents learn in float32"):
        TorchDQNAgent(q_network=network)
    with pytest.raises(ConfigError, match=r"parameters of torch\.float64, and agents learn in float32"):
        TorchPPOAgent(actor=network, critic=torch.nn.Sequential(torch.nn.Linear(4, 1)))
