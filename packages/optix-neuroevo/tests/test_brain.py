"""Regions run in order, pathways learn, and the regime of a run sets what it is meant to set."""

import numpy as np
import pytest
import torch

from optix_core import RegimeDetector
from optix_neuroevo import (
    BrainNetwork,
    GraphAgent,
    GraphError,
    HebbianHook,
    NeuromodulatorSignal,
    NeuronGraph,
    TopologyController,
)


def region(num_inputs, num_outputs, weight=0.5):
    graph = NeuronGraph()
    inputs = [graph.add_neuron("input") for _ in range(num_inputs)]
    hidden = [graph.add_neuron("hidden") for _ in range(3)]
    outputs = [graph.add_neuron("output", "linear") for _ in range(num_outputs)]
    for a, b in [(inputs, hidden), (hidden, outputs)]:
        for x in a:
            for y in b:
                graph.add_edge(x, y, weight)
    return graph


@pytest.fixture
def brain():
    brain = BrainNetwork()
    brain.add_region("executive", region(4, 3))  # the order of running is that of the pathways, not of adding
    brain.add_region("sensory", region(2, 4))
    brain.add_region("memory", region(4, 4))
    brain.add_pathway("sensory", "memory", n_connections=8)
    brain.add_pathway("memory", "executive", n_connections=16, weight=1.0)
    return brain


def test_regions_run_in_the_order_of_their_pathways(brain):
    assert brain.regions == ["sensory", "memory", "executive"]
    assert len(brain.neurons("input")) == 2 and len(brain.neurons("output")) == 3
    outputs = brain(torch.tensor([[1.0, -0.5], [0.0, 0.3]]))
    assert outputs.shape == (2, 3) and outputs.abs().min() > 0  # within one step, through all three


def test_a_brain_does_what_its_regions_do_one_after_the_other():
    first, second = region(2, 4), region(4, 3)
    brain = BrainNetwork()
    brain.add_region("a", first)
    brain.add_region("b", second)
    edges = brain.add_pathway("a", "b", n_connections=16)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    matrix = torch.zeros(4, 4)
    sources, destinations = brain._port(0, 2), brain._port(1, 0)
    for edge in edges:
        a, b, _ = brain.topology.ends(edge)
        matrix[sources.index(a), destinations.index(b)] = brain.effective_weight(edge)
    torch.testing.assert_close(brain(x), second(first(x) @ matrix), atol=1e-6, rtol=1e-6)


def test_pathways_have_gradients_and_delays(brain):
    edges = brain.add_pathway("executive", "sensory", n_connections=4, delay=2)  # feedback into what observes
    assert len(brain.neurons("input")) == 2
    x = torch.randn(6, 1, 2, generator=torch.Generator().manual_seed(0))
    brain(x).square().sum().backward()
    rows = [brain.topology.edge_row(edge) for edge in brain.pathways()]
    assert (brain.edge_weight.grad[rows] != 0).all()
    before = brain(x).detach()
    for edge in edges:
        brain.set_weight(edge, 3.0)
    after = brain(x).detach()
    assert (after[:2] == before[:2]).all() and (after[2:] != before[2:]).any()


def test_a_brain_is_saved_and_copied_with_its_regions(brain, tmp_path):
    agent = GraphAgent(brain)
    agent.save_weights(tmp_path / "brain")
    x = torch.ones(1, 2)
    wanted = brain(x).detach()
    brain.remove_edge(brain.pathways()[0])
    assert not torch.equal(brain(x), wanted)
    agent.load_weights(tmp_path / "brain")
    assert torch.equal(brain(x), wanted) and brain.regions == ["sensory", "memory", "executive"]
    assert brain.copy().regions == brain.regions


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda b: b.add_region("memory", region(1, 1)), "already"),
        (lambda b: b.add_pathway("memory", "cortex", n_connections=1), "no region 'cortex'"),
        (lambda b: b.add_pathway("memory", "memory", n_connections=1), "with itself"),
        (lambda b: b.add_pathway("sensory", "executive", n_connections=99), "99 connections of 16"),
        (lambda b: b.add_pathway("executive", "sensory", n_connections=6), "cycle"),
        (lambda b: b.add_pathway("executive", "sensory", n_connections=2, delay=-1), "-1"),
        (lambda b: b.add_region("other", NeuronGraph(dale_mode="softplus")), "softplus"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(brain, edit, words):
    with pytest.raises(GraphError, match=words):
        edit(brain)


def test_neuromodulation_sets_three_targets_and_does_not_pile_up(brain):
    agent = GraphAgent(brain)
    hook = HebbianHook.from_brain(brain, hebbian_lr=1e-3)
    controller = TopologyController.for_brain(brain)
    signal = NeuromodulatorSignal(hook=hook, agent=agent, controller=controller)

    def found():
        return agent.get_hyperparams()["entropy_coef"], hook.hebbian_lr, controller.growth_factor

    for regime, wanted in [
        ("volatile", (0.02, 1e-3, 1.5)),
        ("volatile", (0.02, 1e-3, 1.5)),
        ("trending", (0.005, 5e-4, 1.0)),
        ("ranging", (0.01, 2e-3, 1.0)),
    ]:
        signal.apply(regime)
        assert found() == pytest.approx(wanted)
    with pytest.raises(GraphError, match="trending"):
        signal.apply("calm")


def test_neuromodulation_hears_scores_and_says_what_it_did():
    graph = region(4, 3)
    agent = GraphAgent(graph)
    signal = NeuromodulatorSignal(agent=agent, detector=RegimeDetector(window=20))
    rng = np.random.default_rng(0)
    for score in 100 + rng.normal(0, 80, 20):
        from optix_core import EvalMetrics

        signal.on_window({}, EvalMetrics(primary_score=float(score), episode_id=0), {})
    said = signal.after_learning()
    assert said["neuromodulation"] == 2.0 and said["entropy_coef"] == pytest.approx(0.02)
