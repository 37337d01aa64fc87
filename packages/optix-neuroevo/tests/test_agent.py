"""Graph agents: one function for acting and learning, growth in the middle of everything, exact state."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core import BatchPipeline, HyperparamSet, RLOptimizer, VectorBatchPipeline, branch
from optix_core.errors import AgentError
from optix_neuroevo import (
    GraphAgent,
    HebbianHook,
    NeuromodulatorSignal,
    RecurrentGraphAgent,
    TopologyController,
    TrainableLSTMNeuron,
    layered_graph,
)


def agent_of_every_kind(tools, seed=0, kind=RecurrentGraphAgent, **options):
    graph = tools.random_graph(seed, num_inputs=4, num_hidden=9, density=0.4)
    return kind(graph, seed=seed, hyperparams={"sequence_length": 8, "num_epochs": 2, **options})


def pipeline(agent, **options):
    return VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=32, seed=3, **options)


def grow(graph, seed=0):
    rng = np.random.default_rng(seed)
    hidden = graph.neurons("hidden")
    twin = graph.split(hidden[rng.integers(len(hidden))])
    graph.relay(next(edge for edge in graph.edges() if graph.topology.ends(edge)[2] >= 1))
    if graph.topology.find_edge(twin, hidden[0], 6) is None:
        graph.add_edge(twin, hidden[0], 0.0, delay=6)


def same(a, b):
    return a.keys() == b.keys() and all(
        same(a[k], b[k]) if isinstance(a[k], dict) else np.array_equal(a[k], b[k]) for k in a
    )


def test_learning_sees_what_acting_did(tools):
    """The value and the probabilities in ``learn`` are those of acting: KL is 0 before the first step."""
    agent = agent_of_every_kind(tools, learning_rate=0.0, num_epochs=1, normalize_rewards=False)
    window = pipeline(agent).collect()
    assert abs(agent.learn(window)["approx_kl"]) < 1e-6
    state, outputs = window.initial_state, []
    network = agent.networks.frozen()
    for t, row in enumerate(window.observations):
        if t:
            newborn = network.initial_state(2)
            starts = window.episode_starts[t]
            state = {n: np.where(starts.reshape(-1, *[1] * (a.ndim - 1)), newborn[n], a) for n, a in state.items()}
        logits, state = network(row, state)
        outputs.append(logits)
    sequences = agent._remember(window)
    log_probs = torch.log_softmax(torch.from_numpy(np.stack(outputs)), -1)
    acted = log_probs.gather(-1, torch.from_numpy(window.actions)[..., None])[..., 0]
    np.testing.assert_allclose(sequences.rows.log_probs, acted[torch.from_numpy(window.valid)], atol=1e-5)


def test_the_memory_of_environments_follows_growth_in_the_middle_of_a_run(tools):
    untouched, touched = agent_of_every_kind(tools), agent_of_every_kind(tools)
    windows = [pipeline(agent) for agent in (untouched, touched)]
    for _ in range(2):
        for own in windows:
            own.collect()
        grow(touched.graph)
    first, second = (own.collect() for own in windows)
    assert np.array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.observations, second.observations)
    touched.learn(second)  # begins with the memory of a smaller graph
    with pytest.raises(AgentError, match="not known here"):
        agent_of_every_kind(tools, seed=1).learn(second)


def test_a_run_branches_bit_for_bit_in_the_middle_of_a_growth(tools):
    def beginning():
        agent = agent_of_every_kind(tools)
        TopologyController.for_graph(agent.graph)
        return agent, pipeline(agent)

    agent, own = beginning()
    agent.learn(own.collect())
    grow(agent.graph)
    window = own.collect()
    grow(agent.graph, seed=1)  # the environments still remember the graph of before
    saved, environments = branch(agent.training_state()), branch(own.pipeline_state())

    other, theirs = beginning()
    other.restore_training_state(branch(saved))
    theirs.restore_pipeline_state(environments)
    assert same(other.training_state(), saved)
    for _ in range(2):
        window, twin = own.collect(), theirs.collect()
        assert np.array_equal(window.actions, twin.actions)
        assert agent.learn(window) == other.learn(twin)
        grow(agent.graph, seed=2)
        grow(other.graph, seed=2)
    assert same(agent.training_state(), other.training_state())


def test_rolling_back_brings_the_topology_back(tools):
    agent = agent_of_every_kind(tools)
    own = pipeline(agent)
    agent.learn(own.collect())
    saved = branch(agent.training_state())
    edges, weights = agent.graph.edges(), agent.graph.weights()
    grow(agent.graph)
    agent.learn(own.collect())
    agent.restore_training_state(saved)
    assert agent.graph.edges() == edges and np.array_equal(agent.graph.weights(), weights)
    agent.learn(own.collect())  # whose environments remember the larger graph


def test_adam_follows_ids_and_new_weights_count_their_own_steps(tools):
    agent = agent_of_every_kind(tools)
    own = pipeline(agent)
    agent.learn(own.collect())
    graph, adam = agent.graph, agent.networks.optimizer.adam
    edges = graph.edges()

    def moments():
        memory = adam.state[graph.edge_weight]
        return {e: tuple(float(memory[n][graph.topology.edge_row(e)]) for n in memory) for e in graph.edges()}

    before = moments()
    grow(graph)
    agent.networks  # noqa: B018 - takes the change in
    after = moments()
    removed = set(edges) - set(graph.edges())
    assert len(removed) == 1
    assert all(after[edge] == before[edge] for edge in edges if edge not in removed)
    assert all(values == (0.0, 0.0, 0.0) for edge, values in after.items() if edge not in edges)
    agent.learn(own.collect())
    new = next(edge for edge in graph.edges() if edge not in edges)
    old = next(edge for edge in edges if edge not in removed)
    assert 0 < moments()[new][0] < moments()[old][0]


@pytest.mark.parametrize("kind", [GraphAgent, RecurrentGraphAgent])
def test_weights_carry_the_topology(tools, tmp_path, kind):
    agent = agent_of_every_kind(tools, kind=kind)
    agent.save_weights(tmp_path / "small")
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    wanted = agent.networks.act(observations)
    edges = agent.graph.edges()
    grow(agent.graph)
    agent.graph.prune_neuron(agent.graph.neurons("hidden")[0], mean=0.3)
    assert not np.allclose(agent.networks.act(observations), wanted)
    agent.load_weights(tmp_path / "small")
    assert agent.graph.edges() == edges
    np.testing.assert_array_equal(agent.networks.act(observations), wanted)
    twin = kind.from_checkpoint(tmp_path / "small")
    np.testing.assert_array_equal(twin.networks.act(observations), wanted)


def test_a_resumed_run_is_the_run_with_its_growth(tools, tmp_path):
    def run(folder, steps, resume=False):
        graph = layered_graph(4, 3, hidden_sizes=(4,), neuron=TrainableLSTMNeuron())
        agent = GraphAgent(graph, hyperparams={"num_epochs": 1})
        hook = HebbianHook(graph, hebbian_lr=1e-3, automatic=True)
        optimizer = RLOptimizer(
            agent, pipeline(agent), max_env_steps=steps, checkpoint_dir=folder, resume=resume, confirm_episodes=2
        )
        controller = TopologyController.for_graph(graph, cooldown=2, prune_edge_threshold=0.05, prune_edge_patience=1)
        signal = NeuromodulatorSignal(agent=agent, hook=hook, controller=controller)
        for callback in (controller, signal):
            optimizer.add_callback(callback)
        optimizer.run()
        return agent, controller

    whole, its = run(tmp_path / "whole", 1280)
    run(tmp_path / "parts", 640)
    again, theirs = run(tmp_path / "parts", 1280, resume=True)
    assert any(decision.action != "keep" for decision in its.decisions)
    written = (tmp_path / "whole" / "events.jsonl").read_text()
    assert all(name in written for name in ("neuromodulation", "entropy_coef", "hebbian_rate", "growth_factor"))
    assert "topology_changes" in written and "num_neurons" in written
    assert list(its.decisions) == list(theirs.decisions)
    assert whole.graph.edges() == again.graph.edges()
    assert np.array_equal(whole.graph.weights(), again.graph.weights())


def test_constructor_forms():
    agent = GraphAgent(
        layered_graph(4, 3), obs_dim=4, n_actions=2, hyperparams=HyperparamSet(params={"chunk_len": 5}, episode_id=0)
    )
    assert agent.get_hyperparams()["sequence_length"] == 5
    box = GraphAgent(layered_graph(3, 3), action_space=spaces.Box(-2.0, 2.0, (2,)))
    assert box.act(np.zeros(3, np.float32)).shape == (2,)
    single = BatchPipeline("CartPole-v1", agent, window_size=16)
    agent.learn(single.collect())
