"""Graphs to begin with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.neurons import Neuron


def layered_graph(
    num_inputs: int,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int] = (),
    neuron: Neuron | None = None,
    seed: int = 0,
    output_scale: float = 0.0,
) -> NeuronGraph:
    """Return a graph of full layers, with inputs wired to outputs as well.

    Args:
        num_inputs: numbers in an observation.
        num_outputs: outputs, the last of which is the value.
        hidden_sizes: of layers in between; none wires inputs straight to outputs.
        neuron: kind of the hidden neurons, tanh by default.
        seed: of the weights between layers, normal with variance ``1 / inputs``.
        output_scale: of those that lead to outputs, in the same units.
    """
    rng = np.random.default_rng(seed)
    graph = NeuronGraph()
    inputs = [graph.add_neuron("input") for _ in range(num_inputs)]
    before = inputs
    for size in hidden_sizes:
        layer = [graph.add_neuron("hidden", neuron=neuron or Neuron()) for _ in range(size)]
        _connect(graph, before, layer, rng.normal(0.0, len(before) ** -0.5, (len(before), size)).ravel())
        before = layer
    outputs = [graph.add_neuron("output", "linear") for _ in range(num_outputs)]
    sources = inputs if before is inputs else [*before, *inputs]
    drawn = rng.normal(0.0, len(sources) ** -0.5, len(sources) * num_outputs)
    _connect(graph, sources, outputs, output_scale * drawn)
    return graph


def _connect(graph: NeuronGraph, sources: Sequence[int], destinations: Sequence[int], weights: np.ndarray) -> None:
    pairs = [(a, b) for a in sources for b in destinations]
    graph.add_edges([a for a, _ in pairs], [b for _, b in pairs], weights)
