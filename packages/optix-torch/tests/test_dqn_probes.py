"""DQN and Rainbow in environments so small that the right values are known."""

import numpy as np
import pytest

from optix_core.testing.probes import VALUE_PROBES, RightAction, train
from optix_torch import TorchDQNAgent, TorchRainbowDQNAgent

SETTINGS = {
    "learning_rate": 3e-3,
    "learning_starts": 64,
    "batch_size": 32,
    "updates_per_step": 0.5,
    "target_update_interval": 10,
    "hidden_sizes": [32, 32],
}
AGENTS = {
    "dqn": (TorchDQNAgent, {}),
    "dqn, 3 steps, priorities": (TorchDQNAgent, {"n_step": 3, "per_alpha": 0.6}),
    "rainbow": (TorchRainbowDQNAgent, {"v_min": -6.0, "v_max": 6.0, "num_atoms": 25}),
}


def trained(name, env, *, gamma=0.5, num_env_steps=1500):
    agent_class, own = AGENTS[name]
    return train(agent_class, env, num_env_steps=num_env_steps, hyperparams=SETTINGS | own | {"gamma": gamma})


def values(agent, observations):
    """Values ``[B, A]`` of the actions."""
    policy = agent.make_policy("greedy", num_envs=1, seed=0)
    return policy._head.values(policy.outputs(observations))


@pytest.mark.parametrize("probe", VALUE_PROBES.values(), ids=VALUE_PROBES)
@pytest.mark.parametrize("name", AGENTS)
def test_values(name, probe):
    agent = trained(name, probe.env, gamma=probe.gamma, num_env_steps=1500 * probe.patience)
    probe.check(values(agent, probe.observations()).max(axis=1))


@pytest.mark.parametrize("name", AGENTS)
def test_value_of_the_right_action(name):
    found = values(trained(name, RightAction), np.array([[-1], [1]], np.float32))
    np.testing.assert_allclose(found, [[1, -1], [-1, 1]], atol=0.25)
