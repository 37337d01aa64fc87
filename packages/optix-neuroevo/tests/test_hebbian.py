"""Hooks act: weights change by exactly the rule, and Oja's finds the first principal component."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_neuroevo import GraphAgent, GraphError, HebbianHook, NeuronGraph, layered_graph
from optix_protocol.conformance import Case, make_window


def tiny(num_inputs, delay=0, cell_type=None):
    graph = NeuronGraph()
    inputs = [graph.add_neuron("input", cell_type=cell_type) for _ in range(num_inputs)]
    out, value = (graph.add_neuron("output", "linear") for _ in range(2))
    edges = [graph.add_edge(a, out, 0.1 * (k + 1), delay) for k, a in enumerate(inputs)]
    graph.add_edge(inputs[0], value, 0.5)
    return graph, edges


def act(agent, rows, state=None):
    state = agent.initial_state(1) if state is None else state
    for row in rows:
        _, state = agent.act_with_state(np.array([row], np.float32), state)
        yield state


@pytest.mark.parametrize("rule", ["oja", "hebb_decay"])
@pytest.mark.parametrize("delay", [0, 2])
def test_weights_change_by_exactly_the_rule(rule, delay):
    graph, edges = tiny(3, delay)
    agent = GraphAgent(graph)
    decay = {"weight_decay": 0.01} if rule == "hebb_decay" else {}
    hook = HebbianHook(graph, edges=edges, rule=rule, hebbian_lr=0.05, **decay)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    for _ in act(agent, x):
        hook.record()
    w = np.array([graph.effective_weight(edge) for edge in edges])
    before = np.concatenate([np.zeros((delay, 3)), x])[: len(x)]
    y = before @ w
    wanted = w + 0.05 * (before * y[:, None]).mean(0)
    wanted -= 0.05 * (y * y).mean() * w if rule == "oja" else 0.01 * w
    hook.apply()
    found = [graph.effective_weight(edge) for edge in edges]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert graph.effective_weight(graph.edges()[-1]) == 0.5  # not among the hook's edges


def test_ojas_rule_converges_to_the_first_eigenvector():
    graph, edges = tiny(4)
    agent = GraphAgent(graph)
    hook = HebbianHook(graph, edges=edges, rule="oja", hebbian_lr=0.3)
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(4, 4))
    covariance = mixing @ mixing.T
    samples = rng.multivariate_normal(np.zeros(4), covariance / np.trace(covariance), size=2000).astype(np.float32)
    for _ in range(300):
        hook.reset()
        agent.act_with_state(samples, agent.initial_state(len(samples)))
        hook.record()
        hook.apply()
    wanted = np.linalg.eigh(np.cov(samples.T, bias=True) + np.outer(samples.mean(0), samples.mean(0)))[1][:, -1]
    found = np.array([graph.effective_weight(edge) for edge in edges])
    assert abs(wanted @ found) / np.linalg.norm(found) > 0.999
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=0.05)


def test_an_agent_applies_the_rule_to_the_window_it_learned_from():
    case = Case(observation_space=spaces.Box(-1, 1, (3,)), action_space=spaces.Discrete(2))

    def learned(rate):
        graph = layered_graph(3, 3, hidden_sizes=(4,))
        hook = HebbianHook(graph, rule="hebb_decay", hebbian_lr=rate, weight_decay=0.0, automatic=True)
        agent = GraphAgent(graph, observation_space=case.observation_space, action_space=case.action_space)
        window = make_window(case, seed=0)
        object.__setattr__(window, "initial_state", agent.initial_state(window.num_envs))
        diagnostics = agent.learn(window)
        assert diagnostics["hebbian_rate"] == rate == hook.hebbian_lr
        return graph, window

    (plain, window), (changed, _) = learned(0.0), learned(0.1)
    first = {edge: changed.effective_weight(edge) - plain.effective_weight(edge) for edge in plain.edges()}
    edge = plain.edges()[0]  # from the first input to the first hidden neuron; what both did is known from before
    fresh = layered_graph(3, 3, hidden_sizes=(4,))
    x = torch.from_numpy(window.observations[window.valid])
    weights = np.array([fresh.effective_weight(e) for e in fresh.topology.incoming(3)])
    y = np.tanh(x.numpy() @ weights)
    assert first[edge] == pytest.approx(0.1 * float((x[:, 0].numpy() * y).mean()), rel=1e-4)


def test_dales_law_is_kept():
    graph, edges = tiny(2, cell_type="excitatory")
    agent = GraphAgent(graph)
    hook = HebbianHook(graph, edges=edges, rule="hebb_decay", hebbian_lr=10.0, weight_decay=0.5)
    for _ in act(agent, [[5.0, -5.0]] * 3):
        hook.record()
    hook.apply()
    assert all(graph.effective_weight(edge) >= 0 for edge in edges)


def test_nothing_recorded_changes_nothing_and_a_changed_graph_begins_anew():
    graph, _ = tiny(2)
    agent = GraphAgent(graph)
    hook = HebbianHook(graph, hebbian_lr=1.0)
    before = graph.weights()
    hook.record()
    hook.apply()
    assert (graph.weights() == before).all()
    for _ in act(agent, [[1.0, 2.0]]):
        hook.record()
    graph.add_neuron("hidden")
    hook.apply()
    assert (graph.weights() == before).all()


@pytest.mark.parametrize(
    "bad", [{"rule": "bcm"}, {"hebbian_lr": -1.0}, {"weight_decay": 2.0}, {"rule": "oja", "weight_decay": 0.1}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError):
        HebbianHook(tiny(2)[0], **bad)
    assert issubclass(GraphError, ValueError)
