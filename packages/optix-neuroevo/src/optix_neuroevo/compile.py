"""From a topology to what runs: levelled blocks of matrices, or lists of edges where these are few.

A :class:`Program` says what is computed, in shapes alone. Groups of neurons (of a kind and a level) have capacities
that are powers of two, so most edits leave the program as it is and change only the :class:`Wiring`: which place of
which matrix a parameter goes to. Slots of neurons are sorted by level, so that every group is a slice:

    inputs | level 0: neurons that wait for nobody | level 1 | level 2 | ...

A neuron's level is the length of the longest way of edges without delay that leads to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optix_neuroevo.errors import GraphError
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.topology import INPUT, OUTPUT, Topology, bucket, name_cycle
from optix_protocol import Array

SPARSE_BELOW = 1 / 36
"""Share of a dense form's places below which a list of edges is quicker (measured; ``benchmarks/graph_speed.py``)."""

Layout = dict[tuple[int, int], int]
"""Capacity of each group, by level and kind."""


@dataclass(frozen=True)
class Group:
    """Neurons that run together.

    Attributes:
        neuron: their kind.
        start: first slot.
        stop: behind the last slot, unused ones included.
        memory: where their memories begin among all.
    """

    neuron: Neuron
    start: int
    stop: int
    memory: int


@dataclass(frozen=True)
class Level:
    """Neurons that can run at once.

    Attributes:
        number: of the level, from 0.
        start: first slot.
        stop: behind the last slot.
        groups: in the order of slots.
        waits: whether edges without delay may come from neurons of earlier levels (inputs apart).
    """

    number: int
    start: int
    stop: int
    groups: tuple[Group, ...]
    waits: bool


@dataclass(frozen=True)
class Program:
    """What is computed, in shapes alone. Graphs with equal programs can share a CUDA graph.

    Attributes:
        num_inputs: ``I``, the first slots.
        num_slots: ``S``, unused ones included.
        depth: ``D`` steps of history that are kept, a power of two; 0 without delays and recurrent neurons.
        has_delays: whether there are edges with a delay.
        feeds_inputs: whether some of these lead to inputs: pathways back to a region that observes.
        levels: in the order in which they run.
        num_memories: ``M`` numbers that neurons remember besides their outputs.
        num_gates: the most gates that any kind has.
        is_sparse: run lists of edges in the place of matrices.
    """

    num_inputs: int
    num_slots: int
    depth: int
    has_delays: bool
    feeds_inputs: bool
    levels: tuple[Level, ...]
    num_memories: int
    num_gates: int
    is_sparse: bool

    @property
    def remembers(self) -> bool:
        """Whether a step depends on earlier ones."""
        return self.depth > 0

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Sizes of the dense vector's parts: from inputs, without delay, with delay, biases, gates."""
        I, S = self.num_inputs, self.num_slots  # noqa: E741
        edges = (0, 0, 0) if self.is_sparse else (I * S, (S - I) * S, self.depth * S * S if self.has_delays else 0)
        return (*edges, S, self.num_gates * S)


@dataclass(frozen=True)
class EdgeList:
    """Edges into a block of slots, sorted by their ends.

    Attributes:
        rows: ``[E]`` rows of their parameters.
        sources: ``[E]`` columns of what they read.
        destinations: ``[E]`` columns of what they write.
        width: of what they write.
    """

    rows: Array
    sources: Array
    destinations: Array
    width: int


@dataclass(frozen=True)
class Wiring:
    """Where a graph's parameters go in its program.

    Attributes:
        slot_of_row: ``[N]`` slot of each row of neurons, -1 where the row is free.
        ids: ``[S]`` neuron of each slot, -1 where it is unused.
        outputs: ``[O]`` slots of the outputs, oldest first.
        edge_rows: ``[E]`` rows of the edges that are alive (none in a sparse program).
        edge_places: ``[E]`` where they go in the dense vector.
        neuron_rows: ``[K]`` rows of the neurons that are alive.
        bias_places: ``[K]`` where their biases go.
        gate_rows: ``[G]`` places in the flattened gates ``[N P]`` that are used.
        gate_places: ``[G]`` where they go.
        lists: of a sparse program: from inputs, with delay, then without delay for each level.
        memory_places: ``{(neuron, number): column}`` of each memory.
    """

    slot_of_row: Array
    ids: Array
    outputs: Array
    edge_rows: Array
    edge_places: Array
    neuron_rows: Array
    bias_places: Array
    gate_rows: Array
    gate_places: Array
    lists: tuple[EdgeList, ...]
    memory_places: Mapping[tuple[int, int], int]


def compile_graph(
    topology: Topology, layout: Layout, num_gates: int, depth: int = 0, *, dense: bool = False
) -> tuple[Program, Wiring, Layout]:
    """Compile a topology.

    Args:
        topology: what to run.
        layout: capacities so far; they stay as long as the neurons fit and no more than half of the slots are wasted.
        num_gates: columns of the parameter that holds gates.
        depth: history that is kept at least.
        dense: take matrices, whatever is quicker.

    Returns:
        Program, wiring, and the capacities of the groups.

    Raises:
        GraphError: no outputs, no inputs, or a cycle without delay.
    """
    rows = np.flatnonzero(topology.neurons["id"] >= 0)
    roles = topology.neurons["role"][rows]
    if not (roles == INPUT).any():
        raise GraphError('This graph has no inputs: add_neuron(role="input", activation="linear").')
    if not (roles == OUTPUT).any():
        raise GraphError('This graph has no outputs: add_neuron(role="output", activation="linear").')
    edges = _Edges.of(topology)
    levels = levels_of(topology, edges)
    kinds = topology.neurons["kind"][rows]
    is_input = roles == INPUT
    layout = _capacities(layout, levels[~is_input], kinds[~is_input])
    program_levels, num_slots, num_memories = _levels(topology, layout, int(is_input.sum()))
    needed = _depth(topology, edges, kinds)
    program = _program(
        topology,
        num_inputs=int(is_input.sum()),
        num_slots=num_slots,
        depth=max(depth, needed) if needed or depth else 0,
        levels=program_levels,
        num_memories=num_memories,
        num_gates=num_gates,
        edges=edges,
        dense=dense,
    )
    slots = _slots(topology, rows, levels, is_input, program)
    return program, _wire(topology, program, edges, rows, slots), layout


@dataclass(frozen=True)
class _Edges:
    """The edges that are alive, by row, with the rows of their neurons."""

    rows: Array
    sources: Array
    destinations: Array
    delays: Array

    @classmethod
    def of(cls, topology: Topology) -> _Edges:
        rows = np.flatnonzero(topology.edges["id"] >= 0)
        row_of_id = np.full(topology.next_id + 1, -1)
        alive = np.flatnonzero(topology.neurons["id"] >= 0)
        row_of_id[topology.neurons["id"][alive]] = alive
        source, destination = (row_of_id[topology.edges[name][rows]] for name in ("source", "destination"))
        return cls(rows, source, destination, topology.edges["delay"][rows])


def levels_of(topology: Topology, edges: _Edges | None = None) -> Array:
    """Return the level of each neuron that is alive, in the order of rows: layer by layer (Kahn 1962).

    Raises:
        GraphError: there is a cycle without delay; it is named.
    """
    edges = edges or _Edges.of(topology)
    now = edges.delays == 0
    sources, destinations = edges.sources[now], edges.destinations[now]
    alive = np.flatnonzero(topology.neurons["id"] >= 0)
    size = len(topology.neurons["id"])
    levels = np.zeros(size, np.int64)
    waiting = np.bincount(destinations, minlength=size)
    left = np.zeros(size, bool)
    left[alive] = True
    level = 0
    ready = left & (waiting == 0)
    while ready.any():
        levels[ready] = level
        left &= ~ready
        waiting -= np.bincount(destinations[ready[sources]], minlength=size)
        ready = left & (waiting == 0)
        level += 1
    if left.any():
        stuck = left[sources] & left[destinations]
        ids = topology.neurons["id"]
        raise GraphError(name_cycle(ids[sources[stuck]], ids[destinations[stuck]]))
    return levels[alive]


def _capacities(layout: Layout, levels: Array, kinds: Array) -> Layout:
    """Return capacities in which the neurons fit, those of before where they still make sense."""
    pairs, counts = np.unique(np.stack([levels, kinds]), axis=1, return_counts=True)
    needed = {(int(a), int(b)): bucket(int(n)) for a, b, n in zip(*pairs, counts, strict=True)}
    kept = {key: max(layout.get(key, 0), needed.get(key, 0)) for key in layout.keys() | needed.keys()}
    wasteful = sum(kept.values()) > 2 * sum(needed.values()) + 8
    return dict(sorted((needed if wasteful else kept).items()))


def _levels(topology: Topology, layout: Layout, num_inputs: int) -> tuple[tuple[Level, ...], int, int]:
    levels: list[Level] = []
    slot, memory = num_inputs, 0
    for level in sorted({level for level, _ in layout}):
        groups, first = [], slot
        for (_, kind), capacity in ((key, size) for key, size in layout.items() if key[0] == level):
            neuron = topology.kinds[kind]
            groups.append(Group(neuron, slot, slot + capacity, memory))
            slot, memory = slot + capacity, memory + capacity * neuron.num_memories
        levels.append(Level(level, first, slot, tuple(groups), first > num_inputs))
    return tuple(levels), slot, memory


def _depth(topology: Topology, edges: _Edges, kinds: Array) -> int:
    longest = int(edges.delays.max(initial=0))
    recurrent = any(topology.kinds[kind].is_recurrent for kind in np.unique(kinds).tolist())
    return bucket(longest) if longest else int(recurrent)


def _program(
    topology: Topology,
    *,
    num_inputs: int,
    num_slots: int,
    depth: int,
    levels: tuple[Level, ...],
    num_memories: int,
    num_gates: int,
    edges: _Edges,
    dense: bool,
) -> Program:
    has_delays = bool(depth) and bool((edges.delays > 0).any())
    S, I = num_slots, num_inputs  # noqa: E741
    places = I * (S - I) + sum((lv.start - I) * (lv.stop - lv.start) for lv in levels) + has_delays * depth * S * S
    is_sparse = not dense and S > 64 and len(edges.rows) < places * SPARSE_BELOW
    late = edges.destinations[edges.delays > 0]
    feeds_inputs = bool((topology.neurons["role"][late] == INPUT).any())
    return Program(I, S, depth, has_delays, feeds_inputs, levels, num_memories, num_gates, is_sparse)


def _slots(topology: Topology, rows: Array, levels: Array, is_input: Array, program: Program) -> Array:
    """Return the slot of each neuron that is alive, in the order of rows; within a group the oldest comes first."""
    ids, kinds = topology.neurons["id"][rows], topology.neurons["kind"][rows]
    slots = np.empty(len(rows), np.int64)

    def place(members: Array, start: int) -> None:
        slots[members[np.argsort(ids[members])]] = start + np.arange(len(members))

    place(np.flatnonzero(is_input), 0)
    for level in program.levels:
        for group in level.groups:
            kind = topology.kinds.index(group.neuron)
            place(np.flatnonzero((levels == level.number) & (kinds == kind) & ~is_input), group.start)
    return slots


def _wire(topology: Topology, program: Program, edges: _Edges, rows: Array, slots: Array) -> Wiring:
    slot_of_row = np.full(len(topology.neurons["id"]), -1)
    slot_of_row[rows] = slots
    ids = np.full(program.num_slots, -1)
    ids[slots] = topology.neurons["id"][rows]
    outputs = rows[topology.neurons["role"][rows] == OUTPUT]
    outputs = outputs[np.argsort(topology.neurons["id"][outputs])]

    S, I = program.num_slots, program.num_inputs  # noqa: E741
    sources, destinations = slot_of_row[edges.sources], slot_of_row[edges.destinations]
    ends = np.cumsum((0, *program.sizes))
    # Places in the dense vector: matrices [I, S], [S - I, S] and [D S, S] one after the other, row by row.
    delayed = edges.delays > 0
    block = np.where(delayed, ends[2] + (edges.delays - 1) * S * S, np.where(sources < I, 0, ends[1] - I * S))
    gates = [(row, topology.kinds[topology.neurons["kind"][row]].num_gates) for row in rows.tolist()]
    used = np.array([(row, g) for row, count in gates for g in range(count)], np.int64).reshape(-1, 2)
    memory_places = {
        (int(ids[slot]), number): group.memory + number * (group.stop - group.start) + slot - group.start
        for level in program.levels
        for group in level.groups
        for number in range(group.neuron.num_memories)
        for slot in range(group.start, group.stop)
        if ids[slot] >= 0
    }
    return Wiring(
        slot_of_row=slot_of_row,
        ids=ids,
        outputs=slot_of_row[outputs],
        edge_rows=edges.rows[:0] if program.is_sparse else edges.rows,
        edge_places=edges.rows[:0] if program.is_sparse else block + sources * S + destinations,
        neuron_rows=rows,
        bias_places=ends[3] + slots,
        gate_rows=used[:, 0] * program.num_gates + used[:, 1],
        gate_places=ends[4] + used[:, 1] * S + slot_of_row[used[:, 0]],
        lists=_edge_lists(program, edges, sources, destinations) if program.is_sparse else (),
        memory_places=memory_places,
    )


def _edge_lists(program: Program, edges: _Edges, sources: Array, destinations: Array) -> tuple[EdgeList, ...]:
    S, I = program.num_slots, program.num_inputs  # noqa: E741
    now, from_input = edges.delays == 0, sources < I

    def listed(chosen: Array, columns: Array, first: int, stop: int) -> EdgeList:
        order = np.flatnonzero(chosen)
        order = order[np.argsort(destinations[order], kind="stable")]
        return EdgeList(edges.rows[order], columns[order], destinations[order] - first, stop - first)

    lists = [listed(now & from_input, sources, 0, S), listed(~now, (edges.delays - 1) * S + sources, 0, S)]
    for level in program.levels:
        ends_here = (destinations >= level.start) & (destinations < level.stop)
        lists.append(listed(now & ~from_input & ends_here, sources - I, level.start, level.stop))
    return tuple(lists)
