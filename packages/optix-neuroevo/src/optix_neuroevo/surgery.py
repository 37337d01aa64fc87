"""Edits that leave what a graph does as it is, in outputs and in state.

| edit | identity |
|---|---|
| split i | the twin has i's incoming edges, bias, state and history; outgoing weights ``a w`` and ``(1 - a) w`` |
| relay on an edge of delay d | a linear neuron, incoming weight 1, outgoing ``w``, delays ``d1 + d2 = d`` |
| merge i, j | where ``h_j = a h_i + b``: ``w_i += a w_j``, ``bias += b w_j`` |
| prune | folds the mean: ``bias_j += w E[h_i]``, exact where ``h_i`` is constant |

Sources: Chen et al. 2016 (Net2Net) for the split; the split is uneven because equal twins stay equal under Adam.
"""

from __future__ import annotations

import torch

from optix_neuroevo.errors import GraphError
from optix_neuroevo.parameters import GraphParameters
from optix_neuroevo.topology import HIDDEN


def split(graph: GraphParameters, neuron: int, *, share: float = 0.3) -> int:
    """Split a hidden neuron in two that together do what it did, and return the twin.

    Args:
        graph: is changed.
        neuron: the neuron.
        share: of the outgoing weights that the twin gets, above 0 and below 1. At one half the two would stay equal.

    Raises:
        GraphError: an input or output, or another share.
    """
    _require_hidden(graph, neuron)
    if not 0.0 < share < 1.0:
        raise GraphError(f"The share of a split lies between 0 and 1, got {share}.")
    topology = graph.topology
    row = topology.neuron_row(neuron)
    twin = graph._grow_neuron(
        HIDDEN,
        topology.kind_of(neuron).split_copy(),
        int(topology.neurons["sign"][row]),
        bias=graph.bias_of(neuron),
        region=int(topology.neurons["region"][row]),
        origin=neuron,
    )
    if graph.gates is not None:
        with torch.no_grad():
            graph.gates[topology.neuron_row(twin)] = graph.gates[topology.neuron_row(neuron)]
    for edge in topology.outgoing(neuron):
        _, destination, delay = topology.ends(edge)
        weight = graph.effective_weight(edge)
        graph.set_weight(edge, (1.0 - share) * weight)
        if destination == neuron:
            continue  # edges to itself are shared out below, with those that come in
        graph._grow_edge(twin, destination, share * weight, delay)
    for edge in topology.incoming(neuron):
        source, _, delay = topology.ends(edge)
        if source == neuron:
            whole = graph.effective_weight(edge) / (1.0 - share)
            graph._grow_edge(twin, neuron, share * whole, delay)
            graph._grow_edge(neuron, twin, (1.0 - share) * whole, delay)
            graph._grow_edge(twin, twin, share * whole, delay)
        elif source != twin:
            graph._grow_edge(source, twin, graph.effective_weight(edge), delay)
    return twin


def relay(graph: GraphParameters, edge: int, *, first: int | None = None) -> int:
    """Put a linear neuron into an edge and return it; its past is that of the edge's source.

    A relay is a point neuron even beside gated ones, which cannot pass on a number unchanged.

    Args:
        graph: is changed.
        edge: the edge; it is replaced by two.
        first: steps of the first half, at most the edge's delay; None halves it.

    Raises:
        GraphError: no such edge, or more steps than it has.
    """
    topology = graph.topology
    source, destination, delay = topology.ends(edge)
    first = delay // 2 if first is None else first
    if not 0 <= first <= delay:
        raise GraphError(f"Edge {edge} has a delay of {delay}: its first half cannot take {first} steps.")
    weight = graph.effective_weight(edge)
    row = topology.neuron_row(source)
    sign = int(topology.neurons["sign"][row])
    # What comes from an inhibitory neuron must have a negative weight: the relay of one is excitatory and negates.
    flip = -1 if sign < 0 else 1
    graph.remove_edge(edge)
    middle = graph._grow_neuron(
        HIDDEN,
        topology.kind_of(source).make_relay(),
        flip * sign,
        region=int(topology.neurons["region"][row]),
        origin=source,
        shift=first,
        flip=flip,
    )
    graph._grow_edge(source, middle, flip, first)
    graph._grow_edge(middle, destination, flip * weight, delay - first)
    return middle


def merge(graph: GraphParameters, keep: int, remove: int, *, scale: float = 1.0, shift: float = 0.0) -> None:
    """Let one hidden neuron stand for two, of which ``h_remove = scale h_keep + shift``; exact as far as that holds.

    Args:
        graph: is changed.
        keep: the neuron that stays; it takes over the other's outgoing edges.
        remove: the neuron that goes.
        scale: slope of the relation.
        shift: its constant.

    Raises:
        GraphError: inputs or outputs, one neuron twice, or an outgoing edge that would close a cycle without delay, or
            a weight that Dale's law forbids.
    """
    if keep == remove:
        raise GraphError(f"Neuron {keep} cannot merge with itself.")
    for neuron in (keep, remove):
        _require_hidden(graph, neuron)
    topology = graph.topology
    sign = int(topology.neurons["sign"][topology.neuron_row(keep)])
    moved = []
    for edge in topology.outgoing(remove):
        _, destination, delay = topology.ends(edge)
        if destination == remove:
            continue
        weight = graph.effective_weight(edge)
        known = topology.find_edge(keep, destination, delay)
        total = scale * weight + (0.0 if known is None else graph.effective_weight(known))
        if sign * total < 0:
            raise GraphError(f"Merging {remove} into {keep} would break Dale's law at edge {keep} -> {destination}.")
        if known is None and delay == 0:
            topology.require_no_cycle(keep, destination)
        moved.append((destination, delay, weight, known, total))
    for destination, delay, weight, known, total in moved:
        if known is None:
            graph._grow_edge(keep, destination, total, delay)
        else:
            graph.set_weight(known, total)
        graph.set_bias(destination, graph.bias_of(destination) + shift * weight)
    graph.remove_neuron(remove)


def prune_edge(graph: GraphParameters, edge: int, *, mean: float = 0.0) -> None:
    """Remove an edge and add the mean of what it carried to the bias at its end.

    The mean squared error of what the destination sees is ``w^2 Var(h)``.

    Args:
        graph: is changed.
        edge: the edge.
        mean: ``E[h]`` of its source.
    """
    _, destination, _ = graph.topology.ends(edge)
    if graph.role(destination) != "input":
        graph.set_bias(destination, graph.bias_of(destination) + graph.effective_weight(edge) * mean)
    graph.remove_edge(edge)


def prune_neuron(graph: GraphParameters, neuron: int, *, mean: float = 0.0) -> None:
    """Remove a hidden neuron; everybody it led to keeps its mean.

    Args:
        graph: is changed.
        neuron: the neuron.
        mean: ``E[h]`` of it.

    Raises:
        GraphError: an input or output.
    """
    _require_hidden(graph, neuron)
    for edge in graph.topology.outgoing(neuron):
        prune_edge(graph, edge, mean=mean)
    graph.remove_neuron(neuron)


def _require_hidden(graph: GraphParameters, neuron: int) -> None:
    if graph.role(neuron) != "hidden":
        raise GraphError(f"Neuron {neuron} is an {graph.role(neuron)}; only hidden neurons can change like this.")
