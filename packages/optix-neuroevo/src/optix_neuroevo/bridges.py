"""Networks that were evolved elsewhere, as graphs that learn by gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from optix_neuroevo.errors import GraphError
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.ops import ACTIVATIONS

_NEAT: Mapping[str, tuple[str, float]] = {
    "tanh": ("tanh", 2.5),
    "sigmoid": ("sigmoid", 5.0),
    "relu": ("relu", 1.0),
    "elu": ("elu", 1.0),
    "identity": ("linear", 1.0),
    "abs": ("abs", 1.0),
    "sin": ("sin", 5.0),
    "gauss": ("gauss", 5.0**0.5),
}
"""Of each activation of neat-python: ours, and by what its argument is multiplied. neat-python cuts arguments at 60 (12
for a Gaussian), where all of these are flat or ours goes on."""

_TENSORNEAT = {**{name: name for name in ACTIVATIONS}, "identity": "linear"}


class FromElsewhere:
    """Constructors of :class:`~optix_neuroevo.NeuronGraph` from other systems; a base of it."""

    @classmethod
    def from_neat(cls, genome: Any, config: Any, *, with_value: bool = False) -> Self:
        """Return the graph of a genome of neat-python 2; an evolved network is trained on by gradient.

        ``output = f(bias + response * sum(weight * input))`` becomes one set of weights. Where the configuration allows
        cycles (``feed_forward = False``), every connection between nodes takes a step, as in neat-python's
        ``RecurrentNetwork``; otherwise none does, as in its ``FeedForwardNetwork``. An output that nothing leads to is
        ``f(bias)`` in both.

        Args:
            genome: ``neat.DefaultGenome``.
            config: its ``neat.Config``, or ``config.genome_config``.
            with_value: add a last output, wired to all inputs and hidden neurons with weight 0, for an agent's values.

        Raises:
            GraphError: (a ``ValueError``) an aggregation other than the sum, or an activation that is not known here.
        """
        settings = getattr(config, "genome_config", config)
        recurrent = not bool(settings.feed_forward)
        graph: Any = cls()
        ids: dict[int, int] = {key: graph.add_neuron("input") for key in settings.input_keys}
        used = _used(genome, settings)
        outputs = list(settings.output_keys)
        scales = {}
        for key in [*sorted(used - set(outputs)), *outputs]:
            node = genome.nodes[key]
            if node.aggregation != "sum":
                raise GraphError(f"Node {key} aggregates by {node.aggregation}; only sums can become a graph.")
            if node.activation not in _NEAT:
                raise GraphError(f"Node {key} has the activation '{node.activation}'; known are {', '.join(_NEAT)}.")
            activation, scale = _NEAT[node.activation]
            scales[key] = scale * float(node.response)
            role = "output" if key in outputs else "hidden"
            ids[key] = graph.add_neuron(role, neuron=Neuron(activation), bias=scale * float(node.bias))
        for (source, destination), gene in sorted(genome.connections.items()):
            if gene.enabled and source in ids and destination in scales:
                weight = scales[destination] * float(gene.weight)
                graph.add_edge(ids[source], ids[destination], weight, int(recurrent and source in scales))
        if with_value:
            _add_value(graph, [neuron for key, neuron in ids.items() if key not in outputs])
        graph.compiled()
        made: Self = graph
        return made

    @classmethod
    def from_tensorneat(
        cls,
        nodes: Any,
        conns: Any,
        *,
        input_idx: Iterable[int],
        output_idx: Iterable[int],
        activations: Iterable[str] = ("tanh",),
        with_value: bool = False,
    ) -> Self:
        """Return the graph of a feed-forward genome of TensorNEAT with its default genes.

        A node that no way leads to from an input says nothing to others, as there.

        Args:
            nodes: ``[N, 5]``: key, bias, response, aggregation (0, the sum) and activation (an index); rows of NaN are
                empty. A node is ``f(bias + response * sum(weight * input))``, an output the same without ``f``.
            conns: ``[C, 3]`` or wider: source, destination and, last, weight; rows of NaN are empty.
            input_idx: keys of the inputs, in their order.
            output_idx: keys of the outputs, in their order.
            activations: names of the activations that the index counts.
            with_value: as in :meth:`from_neat`.

        Raises:
            GraphError: (a ``ValueError``) an aggregation other than the sum, or an activation that is not known here.
        """
        names = [_TENSORNEAT.get(name) for name in activations]
        rows = np.asarray(nodes, np.float64)
        rows = rows[~np.isnan(rows[:, 0])]
        inputs, outputs = [int(key) for key in input_idx], [int(key) for key in output_idx]
        graph: Any = cls()
        ids: dict[int, int] = {key: graph.add_neuron("input") for key in inputs}
        attributes = {int(row[0]): row[1:] for row in rows}
        responses = {}
        for key in [*sorted(attributes.keys() - set(inputs) - set(outputs)), *outputs]:
            bias, response, aggregation, number = (*attributes[key], 0.0, 0.0)[:4]
            name = names[int(number)] if 0 <= int(number) < len(names) else None
            name = "linear" if key in outputs else name
            if int(aggregation) != 0 or name is None:
                raise GraphError(f"Node {key} is no sum under one of {', '.join(map(str, names))}.")
            responses[key] = float(response)
            role = "output" if key in outputs else "hidden"
            ids[key] = graph.add_neuron(role, neuron=Neuron(name), bias=float(bias))
        table = np.asarray(conns, np.float64)
        table = table[~np.isnan(table[:, 0])]
        reached = _reached(set(inputs), table[:, :2].astype(int).tolist())
        for row in table:
            source, destination = int(row[0]), int(row[1])
            if source in reached:
                graph.add_edge(ids[source], ids[destination], responses[destination] * float(row[-1]))
        if with_value:
            _add_value(graph, [neuron for key, neuron in ids.items() if key not in outputs])
        graph.compiled()
        made: Self = graph
        return made


def _used(genome: Any, settings: Any) -> set[int]:
    """Return the nodes that some way leads from to an output, and the outputs."""
    used, waiting = set(settings.output_keys), list(settings.output_keys)
    while waiting:
        key = waiting.pop()
        for (source, destination), gene in genome.connections.items():
            if gene.enabled and destination == key and source not in used and source in genome.nodes:
                used.add(source)
                waiting.append(source)
    return used


def _reached(nodes: set[int], pairs: list[list[int]]) -> set[int]:
    """Return these nodes and all that connections lead to from them."""
    before = -1
    while len(nodes) != before:
        before = len(nodes)
        nodes = nodes | {destination for source, destination in pairs if source in nodes}
    return nodes


def _add_value(graph: Any, sources: list[int]) -> None:
    value = graph.add_neuron("output", "linear")
    for source in sources:
        graph.add_edge(source, value, 0.0)
