"""Brains: graphs made up of regions, joined by pathways that learn like everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_core.seeding import derive_seed
from optix_neuroevo.errors import GraphError
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.parameters import DaleMode
from optix_neuroevo.topology import HIDDEN, INPUT, OUTPUT
from optix_protocol import Array


class BrainNetwork(NeuronGraph):
    """One graph of several regions. It is a :class:`NeuronGraph`: it learns, grows and is saved as one.

    A region is a copy of a graph. Pathways lead from the outputs of one region to the inputs of another. Regions run in
    the order of pathways without delay, others in the order in which they were added. A region sees the observation
    unless a pathway comes from a region before it; the brain's outputs are those of regions from which no pathway leads
    to a region after it.

    Args:
        dale_mode: as in :class:`NeuronGraph`.
        seed: of which neurons pathways join, and with which weights.
    """

    never_modal = True

    def __init__(self, *, dale_mode: DaleMode = "clamp", seed: int = 0) -> None:
        super().__init__(dale_mode=dale_mode)
        self.seed = seed
        self._names: list[str] = []
        self._ports: dict[int, tuple[int, int]] = {}

    @property
    def regions(self) -> list[str]:
        """Names of the regions, in the order in which they run."""
        return [self._names[number] for number in self._order()]

    def add_region(self, name: str, graph: NeuronGraph) -> dict[int, int]:
        """Add a copy of a graph as a region, and return the brain's ids by the graph's.

        Args:
            name: a new name.
            graph: stays as it is.

        Raises:
            GraphError: the name is taken, or the graph is under another form of Dale's law.
        """
        if name in self._names:
            raise GraphError(f"There is a region '{name}' already.")
        if graph.dale_mode != self.dale_mode:
            raise GraphError(f"Region '{name}' has dale_mode={graph.dale_mode!r}, the brain {self.dale_mode!r}.")
        graph.compiled()
        number = len(self._names)
        self._names.append(name)
        source = graph.topology
        ids = {}
        for neuron in graph.neurons():
            row = source.neuron_row(neuron)
            role, sign = int(source.neurons["role"][row]), int(source.neurons["sign"][row])
            kind = source.kind_of(neuron)
            new = self._grow_neuron(role, kind, sign, bias=graph.bias_of(neuron), region=number)
            ids[neuron] = new
            if role != HIDDEN:
                self._ports[new] = number, role
            if kind.num_gates and self.gates is not None and graph.gates is not None:
                here = self.topology.neuron_row(new)
                self.gates.data[here, : kind.num_gates] = graph.gates.detach()[row, : kind.num_gates]
        for edge in graph.edges():
            a, b, delay = source.ends(edge)
            self._grow_edge(ids[a], ids[b], graph.effective_weight(edge), delay)
        self._assign_roles()
        return ids

    def add_pathway(
        self, source: str, destination: str, *, n_connections: int, delay: int = 0, weight: float = 0.2
    ) -> list[int]:
        """Join outputs of a region to inputs of another, drawn at random, and return the edges.

        Args:
            source: name of a region.
            destination: name of another one.
            n_connections: edges, at most one for each pair.
            delay: of each, in steps.
            weight: standard deviation of the weights.

        Raises:
            GraphError: an unknown region, one and the same region, more connections than pairs, a negative delay, or a
                cycle of pathways without delay.
        """
        for name in (source, destination):
            if name not in self._names:
                raise GraphError(f"There is no region '{name}'; there are {', '.join(self._names) or 'none'}.")
        if source == destination:
            raise GraphError(f"A pathway joins two regions, not '{source}' with itself.")
        a, b = self._names.index(source), self._names.index(destination)
        pairs = [(x, y) for x in self._port(a, OUTPUT) for y in self._port(b, INPUT)]
        pairs = [p for p in pairs if self.topology.find_edge(*p, delay) is None]
        if not 0 < n_connections <= len(pairs):
            raise GraphError(f"{source} -> {destination}: {n_connections} connections of {len(pairs)} possible ones.")
        rng = np.random.default_rng(derive_seed(self.seed, "pathway", source, destination, delay))
        # Every input is reached before one is reached twice.
        chosen = _spread([pairs[i] for i in rng.permutation(len(pairs))], n_connections)
        for x, y in chosen:
            self.topology.check_edge(x, y, delay, pathway=True)
            if delay == 0:
                self.topology.require_no_cycle(x, y)
        edges = []
        for x, y in chosen:
            sign = int(self.topology.neurons["sign"][self.topology.neuron_row(x)])
            drawn = float(rng.normal(0.0, weight))
            edges.append(self._grow_edge(x, y, sign * abs(drawn) if sign else drawn, delay, pathway=True))
        self._assign_roles()
        return edges

    def pathways(self) -> list[int]:
        """Return the edges between regions, oldest first."""
        edges = self.topology.edges
        return sorted(edges["id"][(edges["id"] >= 0) & (edges["pathway"] == 1)].tolist())

    # ---- inside -----------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return copies of everything by name."""
        ports = [(neuron, *port) for neuron, port in self._ports.items()]
        names = "\n".join(self._names).encode()
        return {
            **super().arrays(),
            "ports": np.array(ports, np.int64).reshape(-1, 3),
            "regions": np.frombuffer(names, np.uint8).copy(),
        }

    def load_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Become the brain whose :meth:`arrays` these are; errors as in :class:`NeuronGraph`."""
        if "ports" not in arrays:
            raise GraphError("This is a graph without regions; it belongs to a NeuronGraph.")
        super().load_arrays(arrays)
        self._names = bytes(np.asarray(arrays["regions"], np.uint8)).decode().split("\n")
        ports = np.asarray(arrays["ports"], np.int64).tolist()
        self._ports = {neuron: (region, role) for neuron, region, role in ports}

    def _port(self, region: int, role: int) -> list[int]:
        return sorted(neuron for neuron, port in self._ports.items() if port == (region, role))

    def _joined(self) -> list[tuple[int, int, int]]:
        """Return source region, destination region and delay of each pathway."""
        joined = []
        for edge in self.pathways():
            a, b, delay = self.topology.ends(edge)
            joined.append((self._region_of(a), self._region_of(b), delay))
        return joined

    def _region_of(self, neuron: int) -> int:
        return int(self.topology.neurons["region"][self.topology.neuron_row(neuron)])

    def _order(self) -> list[int]:
        """Return the regions in the order in which they run (Kahn 1962)."""
        waiting = {(a, b) for a, b, delay in self._joined() if delay == 0}
        left, order = list(range(len(self._names))), []
        while left:
            ready = next(r for r in left if not any(b == r and a in left for a, b in waiting))
            left.remove(ready)
            order.append(ready)
        return order

    def _assign_roles(self) -> None:
        """Say which ports are inputs and outputs of the brain, and which are neurons like others."""
        place = {region: number for number, region in enumerate(self._order())}
        forward = [(a, b) for a, b, _ in self._joined() if place[a] < place[b]]
        fed, read = {b for _, b in forward}, {a for a, _ in forward}
        roles: dict[int, Any] = {}
        for neuron, (region, role) in self._ports.items():
            inner = region in fed if role == INPUT else region in read
            roles[neuron] = HIDDEN if inner else role
        for neuron, role in roles.items():
            self.topology.neurons["role"][self.topology.neuron_row(neuron)] = role
        self._changed()


def _spread(pairs: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return so many pairs, taking first those whose ends have been taken least often."""
    left, chosen = list(pairs), []
    times: dict[int, int] = {}
    for _ in range(count):
        pair = min(left, key=lambda p: times.get(p[1], 0) + times.get(p[0], 0))
        left.remove(pair)
        chosen.append(pair)
        for neuron in pair:
            times[neuron] = times.get(neuron, 0) + 1
    return chosen
