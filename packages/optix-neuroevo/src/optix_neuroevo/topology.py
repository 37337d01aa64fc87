"""A graph's topology as flat arrays: who is there, and who is wired to whom.

Rows of these arrays are rows of the graph's parameters, too; a row that is not alive is free. Ids are stable and never
given twice; rows are not. Nothing here knows a framework.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from optix_neuroevo.errors import GraphError
from optix_neuroevo.neurons import KINDS, Neuron
from optix_protocol import Array

VERSION = 1
"""Of the arrays that :meth:`Topology.arrays` returns."""

ROLES = ("input", "hidden", "output")
INPUT, HIDDEN, OUTPUT = range(3)
CELL_TYPES: Mapping[str | None, int] = {None: 0, "excitatory": 1, "inhibitory": -1}
NOBODY = -1

_NEURON_COLUMNS = ("id", "role", "kind", "sign", "region", "origin", "shift", "flip")
_EDGE_COLUMNS = ("id", "source", "destination", "delay", "pathway", "sign")


class Topology:
    """Neurons and edges in rows of flat arrays, with an id each.

    Attributes:
        neurons: columns ``[N]``: ``id`` (-1 where the row is free), ``role``, ``kind`` (index into ``kinds``), ``sign``
            (1 excitatory, -1 inhibitory, 0 neither), ``region``, and of whom the neuron's past is a copy: ``origin``
            (an id, or -1) as it was ``shift`` steps earlier, negated where ``flip`` is -1.
        edges: columns ``[E]``: ``id``, ``source`` and ``destination`` (ids of neurons), ``delay`` in steps, ``pathway``
            (1 where it may end at an input) and ``sign`` (that of its source).
        kinds: the kinds of neurons, in the order in which they appeared.
        next_id: what the next neuron or edge will be called.
    """

    def __init__(self, num_neurons: int = 8, num_edges: int = 8) -> None:
        self.neurons = {name: np.full(num_neurons, NOBODY, np.int64) for name in _NEURON_COLUMNS}
        self.edges = {name: np.full(num_edges, NOBODY, np.int64) for name in _EDGE_COLUMNS}
        self.kinds: list[Neuron] = []
        self.next_id = 0
        self._index()

    # ---- reading ----------------------------------------------------------------------------------------------------

    @property
    def num_neurons(self) -> int:
        """Neurons that are alive."""
        return len(self._neuron_rows)

    @property
    def num_edges(self) -> int:
        """Edges that are alive."""
        return len(self._edge_rows)

    def neuron_ids(self, role: int | None = None) -> list[int]:
        """Return the ids of all neurons, or of those of a role, oldest first."""
        ids = self.neurons["id"]
        chosen = ids >= 0 if role is None else (ids >= 0) & (self.neurons["role"] == role)
        return sorted(ids[chosen].tolist())

    def edge_ids(self) -> list[int]:
        """Return the ids of all edges, oldest first."""
        return sorted(self._edge_rows)

    def neuron_row(self, neuron: int) -> int:
        """Return a neuron's row.

        Raises:
            GraphError: there is no such neuron.
        """
        row = self._neuron_rows.get(neuron)
        if row is None:
            raise GraphError(f"There is no neuron {neuron} in this graph.")
        return row

    def edge_row(self, edge: int) -> int:
        """Return an edge's row.

        Raises:
            GraphError: there is no such edge.
        """
        row = self._edge_rows.get(edge)
        if row is None:
            raise GraphError(f"There is no edge {edge} in this graph.")
        return row

    def find_edge(self, source: int, destination: int, delay: int) -> int | None:
        """Return the edge between two neurons of this delay, or None."""
        return self._by_ends.get((source, destination, delay))

    def kind_of(self, neuron: int) -> Neuron:
        """Return the kind of a neuron."""
        kind: Neuron = self.kinds[int(self.neurons["kind"][self.neuron_row(neuron)])]
        return kind

    def incoming(self, neuron: int) -> list[int]:
        """Return the edges that end at a neuron, oldest first."""
        return sorted(self._into[neuron])

    def outgoing(self, neuron: int) -> list[int]:
        """Return the edges that begin at a neuron, oldest first."""
        return sorted(self._out_of[neuron])

    def ends(self, edge: int) -> tuple[int, int, int]:
        """Return source, destination and delay of an edge."""
        row = self.edge_row(edge)
        source, destination, delay = (int(self.edges[name][row]) for name in ("source", "destination", "delay"))
        return source, destination, delay

    # ---- editing ----------------------------------------------------------------------------------------------------

    def add_neuron(
        self,
        role: int,
        kind: Neuron,
        sign: int = 0,
        *,
        region: int = 0,
        origin: int = NOBODY,
        shift: int = 0,
        flip: int = 1,
    ) -> int:
        """Add a neuron and return its id; there must be a free row."""
        if kind not in self.kinds:
            self.kinds.append(kind)
        row = free_rows(self.neurons["id"], 1)[0]
        neuron = self._new_id()
        values = (neuron, role, self.kinds.index(kind), sign, region, origin, shift, flip)
        for name, value in zip(_NEURON_COLUMNS, values, strict=True):
            self.neurons[name][row] = value
        self._neuron_rows[neuron] = int(row)
        self._into[neuron], self._out_of[neuron] = set(), set()
        return neuron

    def remove_neuron(self, neuron: int) -> list[int]:
        """Remove a neuron and the edges around it; return the rows that have become free: the edges', then its own."""
        row = self.neuron_row(neuron)
        rows = [self.remove_edge(edge) for edge in sorted(self._into[neuron] | self._out_of[neuron])]
        del self._neuron_rows[neuron], self._into[neuron], self._out_of[neuron]
        self.neurons["id"][row] = NOBODY
        return [*rows, row]

    def check_edge(self, source: int, destination: int, delay: int, *, pathway: bool = False) -> None:
        """Refuse an edge that cannot be, cycles apart.

        Raises:
            GraphError: an unknown neuron, a negative delay, a second edge of this delay, an input at its end.
        """
        for neuron in (source, destination):
            if neuron not in self._neuron_rows:
                raise GraphError(f"Edge {source} -> {destination}: there is no neuron {neuron} in this graph.")
        if delay < 0:
            raise GraphError(f"Edge {source} -> {destination}: a delay counts steps, so {delay} cannot be.")
        if (source, destination, delay) in self._by_ends:
            raise GraphError(f"There is an edge {source} -> {destination} of delay {delay} already: change its weight.")
        if not pathway and self.neurons["role"][self._neuron_rows[destination]] == INPUT:
            raise GraphError(f"Edge {source} -> {destination}: {destination} is an input, which takes no edges.")

    def add_edge(self, source: int, destination: int, delay: int, *, pathway: bool = False) -> int:
        """Add an edge that :meth:`check_edge` has let pass and return its id; there must be a free row."""
        row = free_rows(self.edges["id"], 1)[0]
        edge = self._new_id()
        sign = self.neurons["sign"][self._neuron_rows[source]]
        values = (edge, source, destination, delay, int(pathway), sign)
        for name, value in zip(_EDGE_COLUMNS, values, strict=True):
            self.edges[name][row] = value
        self._note_edge(edge, int(row))
        return edge

    def remove_edge(self, edge: int) -> int:
        """Remove an edge and return the row that has become free."""
        source, destination, delay = self.ends(edge)
        row = self._edge_rows.pop(edge)
        del self._by_ends[source, destination, delay]
        self._out_of[source].discard(edge)
        self._into[destination].discard(edge)
        self.edges["id"][row] = NOBODY
        return row

    def make_room(self, num_neurons: int, num_edges: int) -> bool:
        """Let there be so many free rows; return whether the arrays had to grow, each to a power of two."""
        grown = False
        for columns, alive, wanted in (
            (self.neurons, self.num_neurons, num_neurons),
            (self.edges, self.num_edges, num_edges),
        ):
            size, needed = len(columns["id"]), alive + wanted
            if needed > size:
                grown = True
                more = bucket(needed) - size
                for name in columns:
                    columns[name] = np.concatenate([columns[name], np.full(more, NOBODY, np.int64)])
        return grown

    def require_no_cycle(self, source: int, destination: int) -> None:
        """Refuse an edge without delay that closes a cycle of such edges.

        Raises:
            GraphError: naming the cycle.
        """
        if source == destination:
            raise GraphError(f"Edge {source} -> {source} needs a delay of at least 1: a neuron cannot wait for itself.")
        path = self._path(destination, source)
        if path:
            raise GraphError(_cycle_message([source, *path]))

    # ---- files ------------------------------------------------------------------------------------------------------

    def copy(self) -> Topology:
        """Return an equal topology that shares nothing with this one."""
        return self.from_arrays(self.arrays(), self.kinds)

    def arrays(self) -> dict[str, Array]:
        """Return copies of everything, by name."""
        kinds = [{"kind": type(kind).__name__, "activation": kind.activation} for kind in self.kinds]
        return {
            "version": np.array([VERSION], np.int64),
            "next_id": np.array([self.next_id], np.int64),
            "kinds": np.frombuffer(json.dumps(kinds).encode(), np.uint8).copy(),
            **{f"neurons.{name}": column.copy() for name, column in self.neurons.items()},
            **{f"edges.{name}": column.copy() for name, column in self.edges.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], known: Iterable[Neuron] = ()) -> Topology:
        """Return the topology whose :meth:`arrays` these are.

        Args:
            arrays: by name.
            known: kinds of neurons of the user's own, which are found by their class's name.

        Raises:
            GraphError: written by another version, or damaged.
        """
        version = int(np.asarray(arrays["version"]).reshape(-1)[0]) if "version" in arrays else None
        if version != VERSION:
            raise GraphError(f"This is a graph of topology version {version}; this optix-neuroevo reads {VERSION}.")
        classes = KINDS | {type(kind).__name__: type(kind) for kind in known}
        topology = cls(0, 0)
        try:
            stored = json.loads(bytes(np.asarray(arrays["kinds"], np.uint8)).decode())
            unknown = [kind["kind"] for kind in stored if kind["kind"] not in classes]
            if unknown:
                raise GraphError(f"This graph has neurons of kind {unknown[0]}, which is not known here.")
            topology.kinds = [classes[kind["kind"]](kind["activation"]) for kind in stored]
            topology.next_id = int(np.asarray(arrays["next_id"]).reshape(-1)[0])
            topology.neurons = {n: np.array(arrays[f"neurons.{n}"], np.int64) for n in _NEURON_COLUMNS}
            topology.edges = {n: np.array(arrays[f"edges.{n}"], np.int64) for n in _EDGE_COLUMNS}
            topology._index()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, GraphError):
                raise
            raise GraphError(f"This graph is damaged: {type(error).__name__}: {error}.") from error
        return topology

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def _index(self) -> None:
        """Build the indices from the arrays."""
        self._neuron_rows = {int(i): row for row, i in enumerate(self.neurons["id"].tolist()) if i >= 0}
        self._edge_rows: dict[int, int] = {}
        self._by_ends: dict[tuple[int, int, int], int] = {}
        self._into: dict[int, set[int]] = {neuron: set() for neuron in self._neuron_rows}
        self._out_of: dict[int, set[int]] = {neuron: set() for neuron in self._neuron_rows}
        for row in np.flatnonzero(self.edges["id"] >= 0).tolist():
            self._note_edge(int(self.edges["id"][row]), row)

    def _note_edge(self, edge: int, row: int) -> None:
        source, destination, delay = (int(self.edges[name][row]) for name in ("source", "destination", "delay"))
        self._edge_rows[edge] = row
        self._by_ends[source, destination, delay] = edge
        self._out_of[source].add(edge)
        self._into[destination].add(edge)

    def _path(self, start: int, goal: int) -> list[int]:
        """Return the neurons on a way of edges without delay from one neuron to another, or nothing."""
        came_from: dict[int, int] = {start: start}
        waiting = [start]
        while waiting:
            neuron = waiting.pop()
            if neuron == goal:
                path = [goal]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            for following in self._followers(neuron):
                if following not in came_from:
                    came_from[following] = neuron
                    waiting.append(following)
        return []

    def _followers(self, neuron: int) -> Iterator[int]:
        for edge in self._out_of[neuron]:
            row = self._edge_rows[edge]
            if self.edges["delay"][row] == 0:
                yield int(self.edges["destination"][row])


def bucket(size: int) -> int:
    """Return the capacity for a size: the next power of two, at least 1."""
    return 1 << max(0, int(size) - 1).bit_length()


def free_rows(ids: Array, count: int) -> Array:
    """Return the first ``count`` rows that are free."""
    if count == 1:
        return np.array([int(np.argmax(ids < 0))])
    rows: Array = np.flatnonzero(ids < 0)[:count]
    return rows


def name_cycle(sources: Array, destinations: Array) -> str:
    """Say which neurons form a cycle, given edges ``[E]`` among neurons that all lie on or behind one."""
    before = dict(zip(destinations.tolist(), sources.tolist(), strict=True))
    neuron, seen = next(iter(before)), []
    while neuron not in seen:
        seen.append(neuron)
        neuron = before[neuron]
    cycle = [*seen[seen.index(neuron) :], neuron][::-1]
    return _cycle_message(cycle)


def _cycle_message(cycle: list[int]) -> str:
    shown = " -> ".join(map(str, cycle))
    return f"The cycle {shown} has no delay: give one of its edges a delay of at least 1."
