"""SAC and TD3 in environments so small that the right values are known."""

import numpy as np
import pytest
import torch

from optix_core.testing.probes import VALUE_PROBES, RightAction, right_actions, train
from optix_torch import TorchSACAgent, TorchTD3Agent

SETTINGS = {
    "learning_rate": 3e-3,
    "tau": 0.05,
    "learning_starts": 64,
    "batch_size": 64,
    "hidden_sizes": [32, 32],
    "capacity": 5000,
}
AGENTS = {
    "sac": (TorchSACAgent, {"alpha": 1e-3}),  # so little entropy that it does not count among the rewards
    "td3": (TorchTD3Agent, {}),
    "td3, 3 steps": (TorchTD3Agent, {"n_step": 3}),
}


def trained(name, env, *, gamma=0.5, num_env_steps=600):
    agent_class, own = AGENTS[name]
    settings = SETTINGS | own | {"gamma": gamma}
    return train(agent_class, env, num_env_steps=num_env_steps, hyperparams=settings, continuous=True)


def values(agent, observations):
    """The mean of the twins' values of the greedy actions."""
    actions = agent.make_policy("greedy", num_envs=len(observations), seed=0).act(observations) / 2.0
    return agent._critic_nets.infer(torch.from_numpy(observations), torch.from_numpy(actions)).mean(0)[:, 0].numpy()


@pytest.mark.parametrize("probe", VALUE_PROBES.values(), ids=VALUE_PROBES)
@pytest.mark.parametrize("name", AGENTS)
def test_values(name, probe):
    agent = trained(name, probe.env, gamma=probe.gamma, num_env_steps=600 * probe.patience)
    probe.check(values(agent, probe.observations()))


@pytest.mark.parametrize("name", AGENTS)
def test_policy_that_depends_on_the_observation(name):
    agent = trained(name, RightAction, num_env_steps=1200)
    greedy = agent.make_policy("greedy", num_envs=2, seed=0).act(np.array([[-1], [1]], np.float32))
    np.testing.assert_allclose(greedy, right_actions(continuous=True), atol=0.25)
