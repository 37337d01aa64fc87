"""Acting through a graph in NumPy."""

from __future__ import annotations

from typing import Any

from optix_neuroevo.compile import Program, Wiring
from optix_neuroevo.forward import Weights, act_step
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.memory import STAMP, Memories, MemoryLayout
from optix_protocol import Array, RecurrentState


class FrozenGraph:
    """A graph's policy as it is now; see :class:`optix_core.policies.StateNetwork`.

    Args:
        graph: is read once.
        memories: the layouts of its memory, the present one among them.
    """

    def __init__(self, graph: NeuronGraph, memories: Memories) -> None:
        self._program: Program
        self._wiring: Wiring
        self._weights: Weights
        self._program, self._wiring, self._weights = graph.placed_in_numpy()
        self._memories = memories
        self._stamp = MemoryLayout.of(self._program, self._wiring).stamp
        self._actor = self._wiring.outputs[:-1]
        self.last_h: Array

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of episodes that have just begun."""
        return self._memories.empty(self._program, self._stamp, num_envs)

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return the actor's outputs ``[N, out]`` for rows ``[N, I]``, and the next memory."""
        state = self._memories.brought(state, self._stamp)
        after = act_step(self._program, self._weights, rows, state)
        outputs: Array = after["h"][:, self._actor]
        self.last_h = after["h"]
        return outputs, {**(after if self._program.remembers else {}), STAMP: state[STAMP]}


class LiveGraph:
    """The same, following the graph as it learns and changes.

    Args:
        graph: what acts.
        memories: the layouts of its memory.
    """

    def __init__(self, graph: NeuronGraph, memories: Memories) -> None:
        self._graph, self._memories = graph, memories
        self._seen: Any = None
        self._frozen: FrozenGraph

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of episodes that have just begun."""
        return self._now().initial_state(num_envs)

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return the actor's outputs ``[N, out]`` for rows ``[N, I]``, and the next memory."""
        outputs, after = self._now()(rows, state)
        self._graph.acted(self._frozen.last_h)
        return outputs, after

    def _now(self) -> FrozenGraph:
        graph = self._graph
        seen = graph.version, *((id(p), p._version) for p in graph.parameters())
        if seen != self._seen:
            self._memories.note(graph.topology, *graph.compiled())
            self._seen, self._frozen = seen, FrozenGraph(graph, self._memories)
        return self._frozen
