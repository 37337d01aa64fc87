"""What a graph remembers between two steps, kept through changes of its topology.

The memory belongs to the environments and may be older than the graph. So it carries the name of the layout in which it
is written, and whoever runs the graph brings it into the present one: neurons keep their past, a twin and a relay take
that of the neuron that they came from (:mod:`optix_neuroevo.surgery`), and other new neurons begin with nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optix_core.errors import AgentError
from optix_neuroevo.compile import Program, Wiring
from optix_neuroevo.forward import initial_state
from optix_neuroevo.topology import Topology
from optix_protocol import Array, RecurrentState, StateTree

STAMP = "layout"
"""Name of the array ``[N]`` that says in which layout a memory is written."""

_KEPT = 256
"""So many layouts are remembered."""


@dataclass(frozen=True)
class MemoryLayout:
    """Where the memory of each neuron lies.

    Attributes:
        ids: ``[S]`` neuron of each slot, -1 where there is none.
        depth: steps of history.
        memories: ``[M, 2]`` neuron and number of each further memory, -1 where there is none.
    """

    ids: Array
    depth: int
    memories: Array

    @classmethod
    def of(cls, program: Program, wiring: Wiring) -> MemoryLayout:
        """Return that of a compiled graph."""
        memories = np.full((program.num_memories, 2), -1)
        for owner, column in wiring.memory_places.items():
            memories[column] = owner
        return cls(wiring.ids, program.depth, memories)

    @property
    def stamp(self) -> int:
        """A name that equal layouts share."""
        content = self.ids.tobytes() + self.memories.tobytes() + self.depth.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "little")


class Memories:
    """The layouts that a graph has had, and how to come from one to another."""

    def __init__(self) -> None:
        self._layouts: dict[int, MemoryLayout] = {}
        self._origins: dict[int, tuple[int, int, int]] = {}
        self._maps: dict[tuple[int, int], dict[str, tuple[Array, Array]]] = {}

    def note(self, topology: Topology, program: Program, wiring: Wiring) -> int:
        """Remember the present layout and return its stamp."""
        columns = (topology.neurons[name].tolist() for name in ("id", "origin", "shift", "flip"))
        for neuron, origin, shift, flip in zip(*columns, strict=True):
            if neuron >= 0 and origin >= 0:
                self._origins[neuron] = origin, shift, flip
        layout = MemoryLayout.of(program, wiring)
        stamp = layout.stamp
        self._layouts.setdefault(stamp, layout)
        while len(self._layouts) > _KEPT:
            del self._layouts[next(iter(self._layouts))]
        self._maps.clear()
        return stamp

    def empty(self, program: Program, stamp: int, num_envs: int) -> RecurrentState:
        """Return the memory of episodes that have just begun."""
        return {**initial_state(program, num_envs), STAMP: np.full(num_envs, stamp, np.int64)}

    def brought(self, state: RecurrentState, stamp: int) -> RecurrentState:
        """Return a memory in another layout; it is given back as it is if it is in that.

        Raises:
            AgentError: it is of a graph that is not known here.
        """
        stamps = state[STAMP]
        before = int(stamps[0]) if len(stamps) else stamp
        if before == stamp:
            return state
        if before not in self._layouts:
            raise AgentError("This memory belongs to a graph that is not known here: begin new episodes.")
        maps = self._maps.get((before, stamp))
        if maps is None:
            maps = self._maps[before, stamp] = self._map(self._layouts[before], self._layouts[stamp])
        moved: dict[str, Array] = {STAMP: np.full_like(stamps, stamp)}
        for name, (places, factors) in maps.items():
            old = state.get(name)
            source = np.zeros((len(stamps), 0), np.float32) if old is None else old
            padded = np.concatenate([source, np.zeros((len(stamps), 1), source.dtype)], axis=1)
            moved[name] = padded[:, places] * factors.astype(source.dtype)
        return moved

    def state(self) -> dict[str, Array]:
        """Return everything as arrays."""
        arrays: dict[str, Array] = {
            "origins": np.array([(k, *v) for k, v in self._origins.items()], np.int64).reshape(-1, 4)
        }
        for number, layout in enumerate(self._layouts.values()):
            arrays |= {
                f"{number}.ids": layout.ids.copy(),
                f"{number}.depth": np.array([layout.depth], np.int64),
                f"{number}.memories": layout.memories.copy(),
            }
        return arrays

    def restore(self, state: StateTree) -> None:
        """Know what :meth:`state` returned, besides what is known: environments may remember a graph of since then."""
        for neuron, *origin in np.asarray(state["origins"], np.int64).tolist():
            self._origins[neuron] = (origin[0], origin[1], origin[2])
        number, known = 0, self._layouts
        self._layouts = {}
        while f"{number}.ids" in state:
            layout = MemoryLayout(
                np.array(state[f"{number}.ids"], np.int64),
                int(np.asarray(state[f"{number}.depth"])[0]),
                np.array(state[f"{number}.memories"], np.int64).reshape(-1, 2),
            )
            self._layouts[layout.stamp] = layout
            number += 1
        self._layouts |= {stamp: layout for stamp, layout in known.items() if stamp not in self._layouts}
        self._maps.clear()

    def _map(self, old: MemoryLayout, new: MemoryLayout) -> dict[str, tuple[Array, Array]]:
        """Return for each array where its columns come from, and by which factor."""
        slots = {neuron: slot for slot, neuron in enumerate(old.ids.tolist()) if neuron >= 0}
        columns = {(a, b): column for column, (a, b) in enumerate(old.memories.tolist()) if a >= 0}
        S, nothing = len(old.ids), old.depth * len(old.ids)
        places = np.full((new.depth, len(new.ids)), nothing)
        factors = np.ones((new.depth, len(new.ids)))
        for slot, neuron in enumerate(new.ids.tolist()):
            ancestor, shift, flip = self._ancestor(neuron, slots)
            if ancestor is None:
                continue
            for lag in range(min(new.depth, old.depth - shift)):
                places[lag, slot] = (lag + shift) * S + slots[ancestor]
                factors[lag, slot] = flip
        maps = {"h": (places.reshape(-1), factors.reshape(-1))} if new.depth else {}
        if len(new.memories):
            own = []
            for neuron, number in new.memories.tolist():
                ancestor, shift, _ = self._ancestor(neuron, slots)
                key = (-1 if ancestor is None or shift else ancestor, number)
                own.append(columns.get(key, len(old.memories)))
            maps["c"] = np.array(own), np.ones(len(own))
        return maps

    def _ancestor(self, neuron: int, known: Mapping[int, int]) -> tuple[int | None, int, int]:
        """Return the nearest neuron in a neuron's line that is known, and how its past became that of the latter."""
        shift, flip = 0, 1
        while neuron >= 0 and neuron not in known:
            neuron, further, sign = self._origins.get(neuron, (-1, 0, 1))
            shift, flip = shift + further, flip * sign
        return (neuron if neuron >= 0 else None), shift, flip
