"""Where a graph should grow, by the gradients of what is not there yet.

| growth | chosen | source |
|---|---|---|
| an edge of weight 0 | the largest gradient among the edges that are missing | RigL (Evci et al. 2020) |
| a neuron of incoming weights 0 | outgoing weights are the top singular vector of ``E[h dL/dz]``, which makes the gradient of the incoming ones as large as it can be | GradMax (Evci et al. 2022) |
| a split | the neuron that most of the gradient is about | Net2Net (Chen et al. 2016) |
| a relay | the heaviest edge with a delay of several steps | |

All leave the graph's function as it is (:mod:`optix_neuroevo.surgery`).
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optix_neuroevo.activity import Activity
from optix_neuroevo.errors import GraphError
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.topology import HIDDEN, INPUT

if TYPE_CHECKING:
    from optix_neuroevo.graph import NeuronGraph

MOST_EDGES_OF_A_NEURON = 8
"""A new neuron gets at most so many incoming and so many outgoing edges, those with the largest entries."""


def missing_edges(graph: NeuronGraph, activity: Activity, max_delay: int) -> list[tuple[float, int, int, int]]:
    """Return what edges could be added: ``(|gradient|, source, destination, delay)``, the largest first."""
    topology = graph.topology
    found = []
    if activity.gradient is None:
        return []
    for delay, block in enumerate(activity.gradient[: max_delay + 1]):
        for i, j in zip(*np.nonzero(block), strict=True):
            source, destination = int(activity.ids[i]), int(activity.ids[j])
            if not all(n in topology._neuron_rows for n in (source, destination)):
                continue
            is_input = topology.neurons["role"][topology.neuron_row(destination)] == INPUT
            same = _region(graph, source) == _region(graph, destination)
            if is_input or not same or topology.find_edge(source, destination, delay) is not None:
                continue
            found.append((abs(float(block[i, j])), source, destination, delay))
    return sorted(found, key=lambda edge: (-edge[0], *edge[1:]))


def add_edge(graph: NeuronGraph, candidates: Sequence[tuple[float, int, int, int]]) -> int | None:
    """Add the first of these edges that closes no cycle, with weight 0; None if there is none."""
    for _, source, destination, delay in candidates:
        if graph.dale_mode == "softplus" and graph.cell_type(source) is not None:
            continue  # its weight could not be 0
        try:
            return graph.add_edge(source, destination, 0.0, delay)
        except GraphError:
            continue
    return None


def add_neuron(graph: NeuronGraph, activity: Activity, rng: np.random.Generator, *, by_gradient: bool = True) -> int:
    """Add a hidden neuron before the outputs that changes nothing, and return it.

    Under Dale's law two are added, an excitatory and an inhibitory one, whose contributions cancel; the first is
    returned.

    Args:
        graph: is changed.
        activity: of the latest update.
        rng: random numbers, where there are no gradients.
        by_gradient: False draws the outgoing weights at random.
    """
    outputs = [n for n in graph.neurons("output") if activity.index(n) is not None]
    region = _region(graph, outputs[0])
    outputs = [n for n in outputs if _region(graph, n) == region]
    topology = graph.topology
    sources = [n for n in graph.neurons() if graph.role(n) != "output" and activity.index(n) is not None]
    sources = [n for n in sources if _region(graph, n) == region and not _comes_after(graph, n, outputs)]
    incoming, outgoing = rng.normal(size=len(sources)), rng.normal(size=len(outputs))
    if by_gradient and activity.gradient is not None:
        block = activity.gradient[0][np.ix_(activity.places(sources), activity.places(outputs))]
        left, _, right = np.linalg.svd(block, full_matrices=False)
        incoming, outgoing = left[:, 0], right[0]
    outgoing = outgoing / max(float(np.linalg.norm(outgoing)), 1e-12)
    sources = [sources[i] for i in _largest(incoming)]
    targets = [(outputs[i], float(outgoing[i])) for i in _largest(outgoing)]
    typed = any(topology.neurons["sign"][topology.neurons["id"] >= 0] != 0)
    new = [graph._grow_neuron(HIDDEN, Neuron("tanh"), sign, region=region) for sign in ((1, -1) if typed else (0,))]
    for number, neuron in enumerate(new):
        for source in sources:
            graph._grow_edge(source, neuron, 0.0, 0)
        for target, weight in targets:
            graph._grow_edge(neuron, target, (1 - 2 * number) * abs(weight) if typed else weight, 0)
    return new[0]


def neuron_to_split(graph: NeuronGraph, activity: Activity, *, share: float) -> int | None:
    """Return the hidden neuron whose incoming weights have more than this share of all hidden gradient, or None."""
    hidden = [n for n in graph.neurons("hidden") if activity.index(n) is not None]
    if len(hidden) < 2 or graph.edge_weight.grad is None:
        return None
    gradient = graph.edge_weight.grad.detach().cpu().numpy()
    rows = [[graph.topology.edge_row(e) for e in graph.topology.incoming(n)] for n in hidden]
    power = np.array([float(np.sum(gradient[r].astype(np.float64) ** 2)) for r in rows])
    best = int(power.argmax())
    return hidden[best] if power.sum() > 0 and power[best] > share * power.sum() else None


def edge_to_relay(graph: NeuronGraph) -> int | None:
    """Return the heaviest edge with a delay of at least 2 steps, or None."""
    long = [edge for edge in graph.edges() if graph.topology.ends(edge)[2] >= 2]
    return max(long, key=lambda edge: (abs(graph.effective_weight(edge)), -edge), default=None)


def _largest(values: np.ndarray) -> list[int]:
    order = np.argsort(-np.abs(values), kind="stable")[:MOST_EDGES_OF_A_NEURON]
    return sorted(order.tolist())


def _region(graph: NeuronGraph, neuron: int) -> int:
    return int(graph.topology.neurons["region"][graph.topology.neuron_row(neuron)])


def _comes_after(graph: NeuronGraph, neuron: int, outputs: Sequence[int]) -> bool:
    """Whether a way of edges without delay leads from one of these outputs to a neuron."""
    return any(graph.topology._path(output, neuron) for output in outputs)
