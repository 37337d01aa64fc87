"""DQN, SAC and TD3 in environments so small that the right values are known."""

import numpy as np
import pytest

from optix_core.testing.probes import VALUE_PROBES, RightAction, right_actions, train
from optix_jax import FlaxDQNAgent, FlaxSACAgent, FlaxTD3Agent

COMMON = {"learning_rate": 3e-3, "learning_starts": 64, "hidden_sizes": [32, 32], "capacity": 5000}
Q_LEARNING = COMMON | {"batch_size": 32, "updates_per_step": 0.5, "target_update_interval": 10}
TWINS = COMMON | {"batch_size": 64, "tau": 0.05}
AGENTS = {
    "dqn": (FlaxDQNAgent, 1500, Q_LEARNING),
    "dqn, 3 steps, priorities": (FlaxDQNAgent, 1500, Q_LEARNING | {"n_step": 3, "per_alpha": 0.6}),
    "sac": (FlaxSACAgent, 600, TWINS | {"alpha": 1e-3}),  # so little entropy that it does not count among the rewards
    "td3": (FlaxTD3Agent, 600, TWINS),
    "td3, 3 steps": (FlaxTD3Agent, 600, TWINS | {"n_step": 3}),
}


def trained(name, env, *, gamma=0.5, patience=1):
    agent_class, steps, settings = AGENTS[name]
    continuous = agent_class is not FlaxDQNAgent
    settings = settings | {"gamma": gamma}
    return train(agent_class, env, num_env_steps=patience * steps, hyperparams=settings, continuous=continuous)


def values(agent, observations):
    """The values of the greedy actions."""
    if isinstance(agent, FlaxDQNAgent):
        return agent.networks.act(observations).max(axis=1)
    actions = agent.make_policy("greedy", num_envs=len(observations), seed=0).act(observations) / 2.0
    params = agent.networks.train_state.params["critic"]
    return np.asarray(agent.model.values(params, observations, actions)).mean(axis=0)


@pytest.mark.parametrize("probe", VALUE_PROBES.values(), ids=VALUE_PROBES)
@pytest.mark.parametrize("name", AGENTS)
def test_values(name, probe):
    agent = trained(name, probe.env, gamma=probe.gamma, patience=probe.patience)
    probe.check(values(agent, probe.observations()))


@pytest.mark.parametrize("name", AGENTS)
def test_policy_that_depends_on_the_observation(name):
    agent = trained(name, RightAction, patience=2)
    greedy = agent.make_policy("greedy", num_envs=2, seed=0).act(np.array([[-1], [1]], np.float32))
    np.testing.assert_allclose(greedy, right_actions(not isinstance(agent, FlaxDQNAgent)), atol=0.25)
