"""Hebbian plasticity beside the gradient: rules that change weights by what neurons did together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch

from optix_core.errors import real_number
from optix_neuroevo.errors import GraphError
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    from optix_neuroevo.brain import BrainNetwork
    from optix_neuroevo.graph import NeuronGraph

Rule = Literal["oja", "hebb_decay"]


class HebbianHook:
    """Changes weights by the activity of the neurons that they join.

    With ``x`` the output of an edge's source ``delay`` steps ago and ``y`` that of its destination now, means ``< >``
    over what was recorded since :meth:`reset`,

    ``"oja"``: ``dw = rate (<x y> - <y^2> w)`` (Oja 1982), ``"hebb_decay"``: ``dw = rate <x y> - decay w``.

    The law of Dale is kept. While an agent acts, the graph tells what its neurons do: call :meth:`record` after each
    step, or let the hook observe a graph, whose agent then applies the rule after each update to what the window held.

    Args:
        graph: whose weights.
        edges: which of them; None takes all.
        rule: which rule; None takes ``"hebb_decay"`` where a decay is given, and ``"oja"`` otherwise.
        hebbian_lr: ``rate``, at least 0.
        weight_decay: ``decay`` of ``"hebb_decay"``, 0 to 1.
        automatic: apply the rule after each update of the graph's agent.

    Attributes:
        hebbian_lr: the rate; a :class:`~optix_neuroevo.NeuromodulatorSignal` changes it.
    """

    def __init__(
        self,
        graph: NeuronGraph,
        *,
        edges: Sequence[int] | None = None,
        rule: Rule | None = None,
        hebbian_lr: float = 1e-3,
        weight_decay: float | None = None,
        automatic: bool = False,
    ) -> None:
        if rule not in (None, "oja", "hebb_decay"):
            raise GraphError(f"The rule is oja or hebb_decay, got {rule!r}.")
        if rule == "oja" and weight_decay is not None:
            raise GraphError("Oja's rule has no weight_decay: leave it out, or take rule='hebb_decay'.")
        self.graph = graph
        self.rule: Rule = rule or ("oja" if weight_decay is None else "hebb_decay")
        self.hebbian_lr = real_number("hebbian_lr", hebbian_lr, least=0.0)
        self.weight_decay = real_number("weight_decay", weight_decay or 0.0, least=0.0, most=1.0)
        self._edges = None if edges is None else list(edges)
        graph.watch_acting()
        self.reset()
        if automatic:
            graph.observe(self)

    @classmethod
    def from_graph(cls, graph: NeuronGraph, **options: Any) -> Self:
        """Return a hook on all edges of a graph; options as in the constructor."""
        return cls(graph, **options)

    @classmethod
    def from_brain(cls, brain: BrainNetwork, **options: Any) -> Self:
        """Return a hook on all edges of a brain, pathways included; options as in the constructor."""
        return cls(brain, **options)

    def record(self) -> None:
        """Take over what the graph did in its latest step of acting; nothing if it has not acted since."""
        seen = self.graph.last_step
        if seen is None:
            return
        self.graph.last_step = None
        version, h = seen
        if version == self.graph.version:
            self._take(h[None])

    def apply(self) -> None:
        """Change the weights by what was recorded; nothing if nothing was, or the graph has changed since."""
        if self._count == 0 or self._version != self.graph.version:
            return
        weights = self.graph.effective_weights().detach().cpu().numpy().astype(np.float64)[self._rows]
        change = self.hebbian_lr * (self._xy / self._count)
        if self.rule == "oja":
            change -= self.hebbian_lr * (self._yy / self._count) * weights
        else:
            change -= self.weight_decay * weights
        self._write(weights + change)

    def reset(self) -> None:
        """Forget what was recorded."""
        self._count, self._version = 0, self.graph.version
        self._past: list[Array] = []

    def after_learning(self) -> dict[str, float]:
        """Apply the rule to the window that the graph's agent has just learned from."""
        watch = self.graph.watch
        if watch is not None and watch.rows is not None:
            self.reset()
            self._take_history(*watch.rows)
            self.apply()
        return {"hebbian_rate": self.hebbian_lr}

    def state(self) -> dict[str, Any]:
        """Return what its future depends on."""
        return {"hebbian_lr": self.hebbian_lr}

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        self.hebbian_lr = float(state["hebbian_lr"])

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        topology, (program, wiring) = self.graph.topology, self.graph.compiled()
        edges = self.graph.edges() if self._edges is None else [e for e in self._edges if e in topology._edge_rows]
        ends = np.array([topology.ends(edge) for edge in edges], np.int64).reshape(-1, 3)
        rows = np.array([topology.edge_row(edge) for edge in edges], np.int64)
        slots = [wiring.slot_of_row[[topology.neuron_row(n) for n in column]] for column in ends.T[:2].tolist()]
        self._rows, self._delays = rows, ends[:, 2]
        self._sources, self._destinations = (np.asarray(column, np.int64) for column in slots)
        self._width, self._version = program.num_slots, self.graph.version
        self._xy, self._yy = np.zeros(len(edges)), np.zeros(len(edges))

    def _take(self, h: Array) -> None:
        """Take ``[1, B, ...]`` outputs of a step; delays look back at earlier ones."""
        if self._count == 0 or self._version != self.graph.version:
            self.reset()
            self._begin()
        now = h[0][:, : self._width].astype(np.float64)
        if self._past and self._past[0].shape != now.shape:
            self._past = []
        self._past = [now, *self._past][: int(self._delays.max(initial=0)) + 1]
        y = now[:, self._destinations]
        x = np.zeros_like(y)
        for delay, past in enumerate(self._past):
            chosen = self._delays == delay
            x[:, chosen] = past[:, self._sources[chosen]]
        self._add(x, y)

    def _take_history(self, h: Array, keep: Array, valid: Array) -> None:
        """Take a window; arguments as :attr:`optix_neuroevo.activity.Watch.rows` has them."""
        self._begin()
        longest = int(self._delays.max(initial=0))
        y = h[:, :, self._destinations].astype(np.float64)
        x = np.zeros_like(y)
        age = np.zeros(keep.shape, np.int64)
        for t in range(1, len(keep)):
            age[t] = np.where(keep[t], age[t - 1] + 1, 0)
        for delay in range(longest + 1):
            chosen = np.flatnonzero(self._delays == delay)
            known = (age >= delay)[delay:, :, None]
            x[delay:, :, chosen] = h[: len(h) - delay][:, :, self._sources[chosen]] * known
        self._add(x[valid], y[valid])

    def _add(self, x: Array, y: Array) -> None:
        self._xy += (x * y).sum(0)
        self._yy += (y * y).sum(0)
        self._count += len(x)

    @torch.no_grad()
    def _write(self, weights: Array) -> None:
        signs = self.graph.topology.edges["sign"][self._rows]
        lawful = np.where(signs * weights < 0, 0.0, weights)
        values = [
            self.graph._parameter_for(float(w), int(sign), row)
            for w, sign, row in zip(lawful, signs, self._rows.tolist(), strict=True)
        ]
        self.graph.edge_weight[torch.from_numpy(self._rows).to(self.graph.edge_weight.device)] = torch.tensor(
            values, dtype=self.graph.edge_weight.dtype, device=self.graph.edge_weight.device
        )
