"""What a graph refuses, in a line or two."""

import numpy as np
import pytest

from optix_neuroevo import GraphAgent, GraphError, Neuron, NeuronGraph, layered_graph


@pytest.fixture
def graph():
    graph = NeuronGraph()
    graph.add_neuron("input")
    for _ in range(3):
        graph.add_neuron("hidden")
    graph.add_neuron("output", "linear")
    graph.add_edge(0, 1, 1.0)
    graph.add_edge(1, 2, 1.0)
    return graph


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda g: g.add_edge(0, 9), "no neuron 9"),
        (lambda g: g.add_edge(9, 0), "no neuron 9"),
        (lambda g: g.add_edge(0, 1), "0 -> 1 of delay 0 already"),
        (lambda g: g.add_edge(0, 2, delay=-1), "-1 cannot be"),
        (lambda g: g.add_edge(1, 0, delay=1), "0 is an input"),
        (lambda g: g.add_edge(2, 1), "2 -> 1 -> 2"),
        (lambda g: g.add_edge(1, 1), "delay of at least 1"),
        (lambda g: g.add_edge(0, 2, weight=float("nan")), "finite"),
        (lambda g: g.remove_edge(77), "no edge 77"),
        (lambda g: g.remove_neuron(0), "only hidden"),
        (lambda g: g.add_neuron("hiden"), "input, hidden, output"),
        (lambda g: g.add_neuron("hidden", "tahn"), "tahn"),
        (lambda g: g.add_neuron("hidden", cell_type="excited"), "excitatory"),
        (lambda g: g.add_neuron("input", "tanh"), "linear"),
        (lambda g: g.add_neuron("hidden", "relu", neuron=Neuron("tanh")), "not both"),
        (lambda g: g.split(4), "only hidden"),
        (lambda g: g.split(1, share=1.0), "between 0 and 1"),
        (lambda g: g.relay(g.edges()[0], first=2), "delay of 0"),
        (lambda g: NeuronGraph(dale_mode="hard"), "clamp or softplus"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_in_a_line_and_changes_nothing(graph, edit, words):
    before = graph.arrays()
    with pytest.raises(GraphError) as error:
        edit(graph)
    assert words in str(error.value) and str(error.value).count("\n") < 2
    after = graph.arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_cycles_added_together_are_named_when_the_graph_is_compiled(graph):
    graph.add_edges([2, 3], [3, 1], [1.0, 1.0])
    with pytest.raises(GraphError, match=r"1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2|3 -> 1 -> 2 -> 3"):
        graph.compiled()


def test_graphs_without_inputs_or_outputs_are_refused():
    graph = NeuronGraph()
    with pytest.raises(GraphError, match="no inputs"):
        graph.compiled()
    graph.add_neuron("input")
    with pytest.raises(GraphError, match="no outputs"):
        graph.compiled()


def test_weights_of_the_wrong_sign_are_refused():
    graph = NeuronGraph()
    a = graph.add_neuron("input", cell_type="inhibitory")
    b = graph.add_neuron("output", "linear")
    with pytest.raises(GraphError, match="inhibitory"):
        graph.add_edge(a, b, 0.5)


def test_agents_refuse_graphs_of_another_size():
    with pytest.raises(GraphError, match="4 inputs and 3 outputs; it needs 5"):
        GraphAgent(layered_graph(4, 3), obs_dim=5, n_actions=2)
    with pytest.raises(GraphError, match="needs 4 inputs, and 4 outputs"):
        GraphAgent(layered_graph(4, 3), obs_dim=4, n_actions=3)


def test_files_of_another_version_or_another_size_are_refused(tmp_path):
    agent = GraphAgent(layered_graph(4, 3), obs_dim=4, n_actions=2)
    arrays = agent.graph.arrays()
    arrays["topology.version"] = np.array([99])
    with pytest.raises(GraphError, match="topology version 99"):
        agent.graph.load_arrays(arrays)
    other = GraphAgent(layered_graph(3, 3), obs_dim=3, n_actions=2)
    other.save_weights(tmp_path / "other")
    with pytest.raises(GraphError, match="3 inputs"):
        agent.load_weights(tmp_path / "other")
    arrays = agent.graph.arrays()
    del arrays["topology.edges.delay"]
    with pytest.raises(GraphError, match="damaged"):
        agent.graph.load_arrays(arrays)
