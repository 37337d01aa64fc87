"""Graph agents are made like any other, by name; SAC takes a graph, too."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core import ConfigError, VectorBatchPipeline, make_agent
from optix_neuroevo import GraphAgent, GraphError, GraphSACAgent, RecurrentGraphAgent, layered_graph


def test_make_agent_takes_graphs_by_several_names():
    assert isinstance(make_agent("CartPole-v1", neuroevo=True), GraphAgent)
    assert isinstance(make_agent("CartPole-v1", framework="neuroevo"), GraphAgent)
    assert isinstance(make_agent("recurrent_ppo", "CartPole-v1", neuroevo=True), RecurrentGraphAgent)
    assert isinstance(make_agent("Pendulum-v1", neuroevo=True), GraphSACAgent)
    assert isinstance(make_agent("Pendulum-v1", neuroevo=True, neuroevo_mode="policy"), GraphAgent)
    features = make_agent("Pendulum-v1", neuroevo=True, neuroevo_mode="feature_extractor", num_features=7)
    assert len(features.graph.neurons("output")) == 7
    direct = make_agent("SAC", "Pendulum-v1", neuroevo=True, neuroevo_mode="policy")
    assert len(direct.graph.neurons("output")) == 2


@pytest.mark.parametrize(
    "options",
    [{"framework": "torch"}, {"neuroevo_mode": "actor"}, {"algorithm": "ppo", "neuroevo_mode": "feature_extractor"}],
)
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(ConfigError):
        make_agent("CartPole-v1", neuroevo=True, **options)


@pytest.mark.parametrize("mode", ["feature_extractor", "policy"])
def test_sac_learns_with_a_graph_that_changes(tmp_path, mode):
    agent = make_agent("Pendulum-v1", framework="neuroevo", algorithm="sac", neuroevo_mode=mode, learning_starts=20)
    pipeline = VectorBatchPipeline("Pendulum-v1", agent, n_envs=2, window_size=20, seed=0)
    before = agent.graph.weights()
    for _ in range(2):
        agent.learn(pipeline.collect())
    assert (agent.graph.weights() != before).mean() > 0.5
    observations = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    agent.save_weights(tmp_path / "weights")
    acted = agent.make_policy("greedy", num_envs=6, seed=0).act(observations)
    hidden = agent.graph.neurons("hidden")
    agent.graph.split(hidden[0])
    np.testing.assert_allclose(agent.make_policy("greedy", num_envs=6, seed=0).act(observations), acted, atol=1e-5)
    agent.learn(pipeline.collect())
    agent.load_weights(tmp_path / "weights")
    assert agent.graph.neurons("hidden") == hidden
    np.testing.assert_allclose(agent.make_policy("greedy", num_envs=6, seed=0).act(observations), acted, atol=1e-6)


def test_sac_refuses_graphs_that_remember_and_actors_without_one():
    space = spaces.Box(-1.0, 1.0, (1,))
    graph = layered_graph(3, 2)
    graph.add_edge(graph.neurons("output")[0], graph.neurons("output")[1], 0.1, 1)
    critic = nn.Linear(4, 1)
    with pytest.raises(GraphError, match="without delays"):
        GraphSACAgent(actor=nn.Sequential(graph, nn.Linear(2, 2)), critic=nn.Sequential(critic), action_space=space)
    with pytest.raises(GraphError, match="one NeuronGraph"):
        GraphSACAgent(actor=nn.Sequential(nn.Linear(3, 2)), critic=nn.Sequential(critic), action_space=space)


@pytest.mark.parametrize(("algorithm", "env_id"), [("recurrent_ppo", "CartPole-v1"), ("sac", "Pendulum-v1")])
def test_what_an_environment_sets_for_all_of_torch_does_no_harm(algorithm, env_id, torch_changed, tmp_path):
    settings = {"learning_starts": 8} if algorithm == "sac" else {}
    agent = make_agent(algorithm, env_id, neuroevo=True, hidden_sizes=(8,), **settings)
    window = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=16).collect()
    assert all(np.isfinite(value) for value in agent.learn(window).values())
    agent.save_weights(tmp_path / "weights")
    agent.load_weights(tmp_path / "weights")
    agent.graph.split(agent.graph.neurons("hidden")[0])
    assert all(np.isfinite(value) for value in agent.learn(window).values())
    assert agent.graph.edge_weight.dtype is torch.float32
