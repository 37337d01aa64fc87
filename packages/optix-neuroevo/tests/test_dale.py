"""Dale's law holds after every step of an optimiser, in both modes; an Adam's new weights do not leap."""

import numpy as np
import pytest
import torch

from optix_neuroevo import NeuronGraph, TopologyAwareAdam


def chain(mode):
    graph = NeuronGraph(dale_mode=mode)
    a = graph.add_neuron("input", cell_type="excitatory")
    b = graph.add_neuron("hidden", "tanh", cell_type="inhibitory")
    c = graph.add_neuron("output", "linear")
    return graph, graph.add_edge(a, b, weight=0.5), graph.add_edge(b, c, weight=-0.5)


@pytest.mark.parametrize("mode", ["clamp", "softplus"])
def test_the_law_holds_after_every_step_and_weights_come_back(mode):
    graph, first, second = chain(mode)
    optimizer = TopologyAwareAdam(graph.parameters(), lr=0.5)
    assert graph.effective_weight(first) == pytest.approx(0.5)
    for direction in (1.0, -1.0):
        for _ in range(10):
            optimizer.zero_grad()
            (direction * (graph.effective_weight_tensor(first) - graph.effective_weight_tensor(second))).backward()
            optimizer.step()
            graph.enforce_dale()
            assert graph.effective_weight(first) >= 0 >= graph.effective_weight(second)
    if mode == "clamp":  # what was pushed to 0 can leave it
        assert graph.effective_weight(first) > 0.1


def test_adam_is_torchs_as_long_as_nothing_changes():
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2))
    adams = TopologyAwareAdam([ours], lr=0.01), torch.optim.Adam([theirs], lr=0.01)
    for step in range(20):
        for parameter, adam in zip((ours, theirs), adams, strict=True):
            adam.zero_grad()
            (parameter**2 * torch.arange(5) * (1 + step)).sum().backward()
            adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_new_weight_steps_no_further_than_the_rate():
    graph, first, _ = chain("clamp")
    graph.add_edge(0, 2, 0.1)
    adam = TopologyAwareAdam(graph.parameters(), lr=0.01)
    x = torch.ones(4, 1)
    for _ in range(200):
        adam.zero_grad()
        graph(x).square().sum().backward()
        adam.step()
    new = graph.add_neuron("hidden")
    edges = [graph.add_edge(0, new, 0.0), graph.add_edge(new, 2, 1.0)]
    adam.notify_topology_change(list(graph.parameters()))
    before = np.array([graph.effective_weight(edge) for edge in edges])
    old = graph.effective_weight(first)
    adam.zero_grad()
    (graph(x) - 5.0).square().sum().backward()
    adam.step()
    moved = np.abs([graph.effective_weight(edge) for edge in edges] - before)
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert abs(graph.effective_weight(first) - old) < 0.1


def test_what_adam_remembers_goes_where_its_id_is():
    from optix_neuroevo.adam import _moved

    memory = {"exp_avg": torch.tensor([1.0, 2.0, 3.0]), "step": torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])}
    before, now = np.array([7, 5, -1]), np.array([-1, 9, 7, 5])
    first = _moved({"exp_avg": memory["exp_avg"]}, before, now, torch.zeros(4))["exp_avg"]
    assert first.tolist() == [0.0, 0.0, 1.0, 2.0]
    wider = _moved({"step": memory["step"]}, before, now, torch.zeros(4, 3))["step"]
    assert wider.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [2, 2, 0]]
