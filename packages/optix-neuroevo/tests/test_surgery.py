"""Edits leave what a graph does as it is: outputs from then on, with the memory of before (section by section)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_neuroevo import Neuron, NeuronGraph
from optix_neuroevo.forward import act_step
from optix_neuroevo.memory import STAMP, Memories

settings.register_profile("graphs", deadline=None, max_examples=15)
settings.load_profile("graphs")

EXACT, CLOSE = 0.0, 1e-6


class Runner:
    """Acts in NumPy in double precision, and carries its memory through edits as pipelines do."""

    def __init__(self, graph, num_envs=2):
        self.graph, self.memories = graph, Memories()
        self.state = None
        self.num_envs = num_envs

    def run(self, x):
        program, wiring, weights = self.graph.placed_in_numpy()
        stamp = self.memories.note(self.graph.topology, program, wiring)
        if self.state is None:
            self.state = self.memories.empty(program, stamp, self.num_envs)
            self.state = {n: a if n == STAMP else a.astype(float) for n, a in self.state.items()}
        outputs = []
        for row in x:
            state = self.memories.brought(self.state, stamp)
            after = act_step(program, weights, row, state)
            outputs.append(after["h"][:, wiring.outputs])
            self.state = {**(after if program.remembers else {}), STAMP: state[STAMP]}
        return np.stack(outputs)


def edited(tools, seed, edit, **options):
    """Return the outputs after an edit in the middle of an episode, and what they would have been without it."""
    graph = tools.random_graph(seed, **options).double()
    x = np.random.default_rng(seed).normal(size=(12, 2, 3))
    untouched, touched = Runner(graph.copy()), Runner(graph)
    untouched.run(x[:6])
    touched.run(x[:6])
    edit(graph, np.random.default_rng(seed))
    return touched.run(x[6:]), untouched.run(x[6:])


def choose(rng, things):
    return things[rng.integers(len(things))]


def add_edge(graph, rng):
    pairs = [(a, b) for a in graph.neurons() for b in graph.neurons("hidden")]
    for _ in range(20):
        a, b = choose(rng, pairs)
        delay = int(rng.integers(1, 7))
        if graph.topology.find_edge(a, b, delay) is None:
            graph.add_edge(a, b, 0.0, delay)
            return


def add_neuron(graph, rng):
    new = graph.add_neuron("hidden", "tanh")
    for a in graph.neurons("input"):
        graph.add_edge(a, new, rng.normal())
    for b in graph.neurons("output"):
        graph.add_edge(new, b, 0.0)


def split(graph, rng):
    for _ in range(2):
        graph.split(choose(rng, graph.neurons("hidden")), share=rng.uniform(0.25, 0.4))


def relay(graph, rng):
    for _ in range(2):
        edge = choose(rng, graph.edges())
        graph.relay(edge, first=int(rng.integers(0, graph.topology.ends(edge)[2] + 1)))


@pytest.mark.parametrize(
    ("edit", "tolerance"), [(add_edge, EXACT), (add_neuron, EXACT), (split, CLOSE), (relay, CLOSE)]
)
@given(seed=st.integers(0, 10_000))
def test_growth_changes_nothing_that_the_graph_does(tools, edit, tolerance, seed):
    after, wanted = edited(tools, seed, edit)
    np.testing.assert_allclose(after, wanted, atol=max(tolerance, 1e-12), rtol=tolerance)


@pytest.mark.parametrize("edit", [split, relay])
@pytest.mark.parametrize("mode", ["clamp", "softplus"])
def test_growth_under_dales_law(tools, edit, mode):
    def typed(seed):
        graph = NeuronGraph(dale_mode=mode)
        inputs = [graph.add_neuron("input", cell_type="excitatory") for _ in range(3)]
        hidden = [graph.add_neuron(cell_type=kind) for kind in ("excitatory", "inhibitory", None)]
        outputs = [graph.add_neuron("output", "linear") for _ in range(3)]
        rng = np.random.default_rng(seed)
        signs = {"excitatory": 1.0, "inhibitory": -1.0, None: rng.choice([-1.0, 1.0])}
        for a in [*inputs, *hidden]:
            for b in [*hidden, *outputs]:
                graph.add_edge(a, b, signs[graph.cell_type(a)] * rng.uniform(0.1, 1), int(rng.integers(1, 4)))
        return graph

    for seed in range(4):
        stand_in = type("Tools", (), {"random_graph": staticmethod(typed)})
        after, wanted = edited(stand_in, seed, edit)
        np.testing.assert_allclose(after, wanted, atol=CLOSE, rtol=CLOSE)


@given(seed=st.integers(0, 10_000), scale=st.floats(-2, 2), shift=st.floats(-1, 1))
def test_merging_neurons_whose_outputs_are_affine_in_each_other_changes_nothing(tools, seed, scale, shift):
    def prepared(seed):
        graph = tools.random_graph(seed, num_hidden=4)
        rng = np.random.default_rng(seed)
        one, other = (graph.add_neuron("hidden", "linear") for _ in range(2))
        bias = rng.normal()
        graph.set_bias(one, bias)
        graph.set_bias(other, scale * bias + shift)
        for a in graph.neurons("input"):
            weight, delay = rng.normal(), int(rng.integers(0, 3))
            graph.add_edge(a, one, weight, delay)
            graph.add_edge(a, other, scale * weight, delay)
        for a in (one, other):
            for b in graph.neurons("output"):
                graph.add_edge(a, b, rng.normal(), int(rng.integers(0, 3)))
        graph.pair = one, other
        return graph

    stand_in = type("Tools", (), {"random_graph": staticmethod(prepared)})

    def merge(graph, rng):
        graph.merge(*graph.pair, scale=scale, shift=shift)

    graph_steps = edited(stand_in, seed, merge)
    # Delays of up to 2 steps look back to before the first step, when both were silent: 6 steps lie between.
    np.testing.assert_allclose(*graph_steps, atol=1e-6, rtol=1e-6)


@given(seed=st.integers(0, 10_000))
def test_pruning_leaves_an_error_of_w_squared_times_the_variance(tools, seed):
    graph = tools.random_graph(seed, max_delay=0, kinds=[Neuron("tanh")], density=0.8)
    graph = graph.double()
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(500, 1, 3)))
    edge = choose(rng, [e for o in graph.neurons("output") for e in graph.topology.incoming(o)] or graph.edges())
    source, destination, _ = graph.topology.ends(edge)
    if graph.role(destination) != "output":
        return
    program, wiring, _ = graph.placed()
    del program
    from optix_neuroevo.forward import through

    h = through(*graph.placed()[::2], x, {}, x.new_ones(500, 1, 1))["h"].detach()
    values = h[:, 0, wiring.slot_of_row[graph.topology.neuron_row(source)]].numpy()
    before = graph(x).detach().numpy()
    weight = graph.effective_weight(edge)
    graph.prune_edge(edge, mean=float(values.mean()))
    number = graph.neurons("output").index(destination)
    error = (graph(x).detach().numpy() - before)[:, 0, number]
    assert error.var() == pytest.approx(weight**2 * values.var(), rel=1e-6, abs=1e-12)
    assert error.mean() == pytest.approx(0.0, abs=1e-9)


def test_a_constant_neuron_is_pruned_exactly(tools):
    def prune(graph, rng):
        graph.prune_neuron(graph.constant, mean=np.tanh(0.7))

    def prepared(seed):
        graph = tools.random_graph(seed)
        graph.constant = graph.add_neuron("hidden", "tanh", bias=0.7)
        for b in graph.neurons("output"):
            graph.add_edge(graph.constant, b, 1.3)
        return graph

    after, wanted = edited(type("Tools", (), {"random_graph": staticmethod(prepared)}), 0, prune)
    np.testing.assert_allclose(after, wanted, atol=1e-6)


def test_two_hundred_random_edits_compile_no_more_programs_than_there_are_crossings(tools):
    graph = tools.random_graph(5, num_hidden=20, kinds=[Neuron("tanh"), Neuron("relu")])
    rng = np.random.default_rng(0)
    program = graph.compiled()[0]
    graph.num_compiled, crossings, changed = 0, 0, 0
    for _ in range(200):
        edits = [lambda: graph.split(choose(rng, graph.neurons("hidden"))), lambda: add_edge(graph, rng)]
        edits += [lambda: graph.prune_edge(choose(rng, graph.edges()))]
        if len(graph.neurons("hidden")) > 10:
            edits += [lambda: graph.prune_neuron(choose(rng, graph.neurons("hidden")))]
        version = graph.version
        choose(rng, edits)()
        changed += graph.version != version
        now = graph.compiled()[0]
        crossings += now != program
        program = now
    assert graph.num_compiled == crossings
    assert changed > 150
    assert crossings < changed / 4


def test_a_twin_and_its_original_part_under_adam(tools):
    from optix_neuroevo import TopologyAwareAdam

    graph = tools.random_graph(2, max_delay=0, kinds=[Neuron("tanh")], density=0.9)
    twin_of = graph.neurons("hidden")[0]
    twin = graph.split(twin_of)
    adam = TopologyAwareAdam(graph.parameters(), lr=0.05)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        adam.zero_grad()
        graph(x).square().sum().backward()
        adam.step()
    first, second = (
        [graph.effective_weight(edge) for edge in graph.topology.outgoing(neuron)] for neuron in (twin_of, twin)
    )
    assert np.abs(np.subtract(first, second)).max() > 1e-3
