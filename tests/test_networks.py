"""Networks in every framework: activations by name, actor and critic of unlike size."""

import gymnasium as gym
import numpy as np
import pytest

from optix_core import ConfigError, VectorBatchPipeline, make_agent
from optix_core.policies import ACTIVATIONS, policy_from_tree

FRAMEWORKS = ("torch", "jax", "tf")
LACKS = {
    "torch": {"sparse_plus", "sparse_sigmoid", "squareplus", "exponential"},
    "jax": {"hard_shrink", "soft_shrink", "tanh_shrink", "exponential"},
    "tf": set(),
}
SIZES = {"ppo": "CartPole-v1", "a2c": "CartPole-v1", "sac": "Pendulum-v1", "td3": "Pendulum-v1"}


def observations(rows=64, width=4):
    return np.random.default_rng(0).normal(0, 3, (rows, width)).astype(np.float32)


def frameworks_outputs(agent, framework, rows):
    """What the framework computes with the actor, past every shortcut through NumPy."""
    if framework == "torch":
        import torch

        return agent.actor(torch.from_numpy(rows)).detach().numpy()
    if framework == "tf":
        return agent.actor(rows).numpy()
    return np.asarray(agent.model.actor(agent.networks.train_state.params["actor"], rows))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_activation_acts_in_numpy_as_in_its_framework(framework):
    pytest.importorskip(f"optix_{framework}")
    rows = observations()
    for name in ACTIVATIONS:
        if name in LACKS[framework]:
            with pytest.raises(ConfigError, match=f"{framework} has no activation '{name}'. It has: "):
                make_agent("ppo", "CartPole-v1", framework=framework, activation=name)
            continue
        agent = make_agent("ppo", "CartPole-v1", framework=framework, activation=name, hidden_sizes=[16], seed=1)
        expected = frameworks_outputs(agent, framework, rows)
        mlp = agent.networks.mlp()
        assert mlp is not None
        assert mlp.activations[0] == name
        np.testing.assert_allclose(mlp(rows), expected, rtol=2e-4, atol=1e-5)
        assert policy_from_tree(agent.host_policy()).act(rows).shape == (64,)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("algorithm", SIZES)
def test_actor_and_critic_of_unlike_size(framework, algorithm):
    pytest.importorskip(f"optix_{framework}")
    env = SIZES[algorithm]
    critic = "qf" if algorithm in ("sac", "td3") else "vf"
    forms = (
        {"actor_hidden_sizes": [5], "critic_hidden_sizes": [7, 6]},
        {"net_arch": {"pi": [5], critic: [7, 6]}},
        {"net_arch": [{"pi": [5], critic: [7, 6]}], "activation_fn": "GELU"},
        {"hidden_sizes": [7, 6], "actor_hidden_sizes": [5]},
    )
    shapes = set()
    for form in forms:
        agent = make_agent(algorithm, env, framework=framework, **form)
        weights = agent.networks.weights()
        shapes.add(tuple(sorted(array.shape for array in weights.values())))
        widths = {size for array in weights.values() for size in array.shape}
        assert {5, 6, 7} <= widths
        assert [layer.shape[1] for layer in agent.networks.mlp().weights][:-1] == [5]
    assert len(shapes) == 1


@pytest.mark.parametrize(
    ("framework", "algorithm"),
    [
        pytest.param(framework, algorithm, marks=[] if framework == "torch" or algorithm == "ppo" else pytest.mark.slow)
        for framework in FRAMEWORKS
        for algorithm in ("ppo", "dqn", "sac")
    ],
)
def test_what_no_kernel_knows_learns_by_autograd(framework, algorithm):
    pytest.importorskip(f"optix_{framework}")
    env = {"sac": "Pendulum-v1"}.get(algorithm, "CartPole-v1")
    settings = {"hidden_sizes": [8], "activation": "mish"}
    if algorithm != "ppo":
        settings |= {"learning_starts": 20, "batch_size": 8}
    agent = make_agent(algorithm, env, framework=framework, seed=1, hyperparams=settings)
    before = agent.networks.weights()
    pipeline = VectorBatchPipeline(env, agent, n_envs=2, window_size=32, seed=2)
    found = agent.learn(pipeline.collect())
    pipeline.close()
    assert all(np.isfinite(value) for value in found.values())
    after = agent.networks.weights()
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    acting = agent.make_policy("greedy", num_envs=4, seed=0)
    rows = observations(4, gym.make(env).observation_space.shape[0])
    np.testing.assert_allclose(acting.act(rows), policy_from_tree(agent.host_policy()).act(rows), rtol=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [
        ("ppo", {"activation": "gelux"}, "activation must be one of identity, relu"),
        ("ppo", {"net_arch": {"pi": [8], "q": [8]}}, "has sizes for 'pi' and 'vf' (or 'qf'), not for 'q'"),
        ("ppo", {"net_arch": {"pi": [8]}, "actor_hidden_sizes": [9]}, "both size one network"),
        ("ppo", {"actor_hidden_sizes": [0]}, "actor_hidden_sizes must be a list of positive whole numbers"),
        ("ppo", {"actor_hidden_size": [8]}, "Did you mean 'actor_hidden_sizes'"),
        ("dqn", {"actor_hidden_sizes": [8]}, "no hyperparameter 'actor_hidden_sizes'"),
        ("dqn", {"net_arch": {"pi": [8]}}, "hidden_sizes must be a list of positive whole numbers"),
        ("recurrent_ppo", {"critic_hidden_sizes": [8]}, "no hyperparameter 'critic_hidden_sizes'"),
    ],
)
def test_wrong_uses_are_one_line(algorithm, settings, words):
    pytest.importorskip("optix_torch")
    with pytest.raises(ConfigError) as caught:
        make_agent(algorithm, "CartPole-v1", framework="torch", hyperparams=settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
