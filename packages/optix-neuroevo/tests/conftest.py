"""Random graphs of every kind of neuron, and a slow reference that walks them neuron by neuron in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from optix_neuroevo import GRUNeuron, LSTMNeuron, Neuron, NeuronGraph, TrainableGRUNeuron, TrainableLSTMNeuron


def pytest_addoption(parser):
    parser.addoption("--tensorneat", metavar="PATH", help="a checkout of EMI-Group/tensorneat to compare graphs with")


KINDS = [Neuron("tanh"), Neuron("relu"), Neuron("silu"), Neuron("linear"), Neuron("gauss")]
KINDS += [GRUNeuron(), TrainableGRUNeuron(), LSTMNeuron(), TrainableLSTMNeuron()]


def random_graph(seed, *, num_inputs=3, num_outputs=3, num_hidden=8, density=0.5, max_delay=3, kinds=KINDS, **options):
    rng = np.random.default_rng(seed)
    graph = NeuronGraph(**options)
    inputs = [graph.add_neuron("input") for _ in range(num_inputs)]
    hidden = [
        graph.add_neuron(neuron=kinds[rng.integers(len(kinds))], bias=rng.normal(0, 0.3)) for _ in range(num_hidden)
    ]
    outputs = [graph.add_neuron("output", "linear", bias=rng.normal()) for _ in range(num_outputs)]
    order = [*inputs, *hidden, *outputs]
    for a in order:
        for b in [*hidden, *outputs]:
            delay = int(rng.integers(0, max_delay + 1)) if order.index(a) < order.index(b) else 0
            if order.index(a) >= order.index(b):
                delay = int(rng.integers(1, max_delay + 1)) if max_delay else -1
            if delay >= 0 and rng.random() < density:
                graph.add_edge(a, b, rng.normal(0, 0.6), delay)
    return graph


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


POINT = {
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "silu": lambda z: z * sigmoid(z),
    "linear": lambda z: z,
    "sigmoid": sigmoid,
    "gauss": lambda z: math.exp(-z * z),
    "sin": math.sin,
    "abs": abs,
    "elu": lambda z: z if z > 0 else math.exp(z) - 1,
}


class Reference:
    """One environment's graph, walked in Python floats from the public description of each kind of neuron."""

    def __init__(self, graph):
        self.graph, self.past, self.cells = graph, [], {}

    def step(self, x):
        topology, now = self.graph.topology, {}
        for neuron, value in zip(self.graph.neurons("input"), x, strict=True):
            now[neuron] = float(value)

        def value_of(neuron):
            if neuron not in now:
                z = self.graph.bias_of(neuron)
                for edge in topology.incoming(neuron):
                    source, _, delay = topology.ends(edge)
                    weight = self.graph.effective_weight(edge)
                    if delay == 0:
                        z += weight * value_of(source)
                    elif len(self.past) >= delay:
                        z += weight * self.past[-delay].get(source, 0.0)
                now[neuron] = self.fire(neuron, z)
            return now[neuron]

        outputs = [value_of(neuron) for neuron in self.graph.neurons("output")]
        for neuron in self.graph.neurons():
            value_of(neuron)
        self.past.append(now)
        return outputs

    def fire(self, neuron, z):
        kind = self.graph.topology.kind_of(neuron)
        if not kind.num_gates:
            return POINT[kind.activation](z)
        h = self.past[-1].get(neuron, 0.0) if self.past else 0.0
        k = self.graph.gates.detach().numpy()[self.graph.topology.neuron_row(neuron), : kind.num_gates].tolist()
        if kind.num_memories:
            i, f, o = (sigmoid(k[n] * z + k[n + 1] * h + k[n + 2]) for n in (0, 3, 9))
            g = math.tanh(k[6] * z + k[7] * h + k[8])
            c = f * self.cells.get(neuron, 0.0) + i * g
            self.cells[neuron] = c
            return o * math.tanh(c)
        r = sigmoid(k[0] * z + k[1] * h + k[2])
        u = sigmoid(k[3] * z + k[4] * h + k[5])
        n = math.tanh(k[6] * z + k[7] + r * (k[8] * h + k[9]))
        return n + u * (h - n)


@pytest.fixture(scope="session")
def tools():
    return SimpleNamespace(random_graph=random_graph, Reference=Reference, KINDS=KINDS)
