"""A graph's parameters: rows for edges and neurons, which follow the topology, under Dale's law."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from optix_neuroevo.errors import GraphError
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.topology import CELL_TYPES, ROLES, Topology
from optix_protocol import Array
from optix_torch._precision import learning_dtype

DaleMode = Literal["clamp", "softplus"]

LEAST_SOFTPLUS_WEIGHT = 1e-6
"""The magnitude that stands for 0 where softplus cannot reach it."""


class GraphParameters(nn.Module):
    """Topology and parameters of a :class:`~optix_neuroevo.NeuronGraph`, as it is read and as its rows move.

    Args:
        dale_mode: see there.

    Attributes:
        topology: who is there, and who is wired to whom.
        edge_weight: ``[E]`` parameter of each row of edges; :meth:`effective_weights` are what acts.
        bias: ``[N]`` of each row of neurons.
        gates: ``[N, P]``, None without gated neurons.
        version: changes with every edit of the topology.

    Raises:
        GraphError: (a ``ValueError``) an unknown ``dale_mode``.
    """

    edge_weight: nn.Parameter
    bias: nn.Parameter
    gates: nn.Parameter | None

    def __init__(self, dale_mode: DaleMode) -> None:
        super().__init__()
        if dale_mode not in ("clamp", "softplus"):
            raise GraphError(f"dale_mode is clamp or softplus, got {dale_mode!r}.")
        self.dale_mode: DaleMode = dale_mode
        self.topology = Topology()
        self.edge_weight = _owned(
            nn.Parameter(torch.zeros(8, dtype=learning_dtype(), device="cpu")), self, "edge_weight"
        )
        self.bias = _owned(nn.Parameter(torch.zeros(8, dtype=learning_dtype(), device="cpu")), self, "bias")
        self.register_parameter("gates", None)  # until there is a neuron that has some
        self.version = 0
        self._signs: tuple[Any, Tensor] | None = None
        self._any_signs = False

    def remove_edge(self, edge: int) -> None:
        """Remove an edge; what it carried is lost (:meth:`prune_edge` keeps its mean)."""
        self._clear([self.topology.remove_edge(edge)], [])

    def remove_neuron(self, neuron: int) -> None:
        """Remove a neuron and the edges around it; what it carried is lost (:meth:`prune_neuron` keeps its mean).

        Raises:
            GraphError: there is no such neuron, or it is an input or an output.
        """
        if self.role(neuron) != "hidden":
            raise GraphError(f"Neuron {neuron} is an {self.role(neuron)}; only hidden neurons can be removed.")
        *edges, row = self.topology.remove_neuron(neuron)
        self._clear(edges, [row])

    # ---- reading ----------------------------------------------------------------------------------------------------

    @property
    def num_neurons(self) -> int:
        """Neurons, inputs and outputs included."""
        return self.topology.num_neurons

    @property
    def num_edges(self) -> int:
        """Edges."""
        return self.topology.num_edges

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained: weights, biases (not of inputs) and gates that learn."""
        ids = self.neurons()
        gates = sum(kind.num_gates for kind in map(self.topology.kind_of, ids) if kind.learns_gates)
        return self.num_edges + len(ids) - len(self.neurons("input")) + gates

    @property
    def num_gates(self) -> int:
        """Columns of the parameter that holds gates."""
        return 0 if self.gates is None else int(self.gates.shape[1])

    def neurons(self, role: str | None = None) -> list[int]:
        """Return the ids of all neurons, or of those of a role, oldest first."""
        return self.topology.neuron_ids(None if role is None else ROLES.index(role))

    def edges(self) -> list[int]:
        """Return the ids of all edges, oldest first."""
        return self.topology.edge_ids()

    def role(self, neuron: int) -> str:
        """Return a neuron's role."""
        return ROLES[int(self.topology.neurons["role"][self.topology.neuron_row(neuron)])]

    def cell_type(self, neuron: int) -> str | None:
        """Return a neuron's cell type."""
        sign = int(self.topology.neurons["sign"][self.topology.neuron_row(neuron)])
        return next(name for name, value in CELL_TYPES.items() if value == sign)

    def effective_weight(self, edge: int) -> float:
        """Return the weight that an edge has now, Dale's law included."""
        return float(self.effective_weight_tensor(edge).detach())

    def effective_weight_tensor(self, edge: int) -> Tensor:
        """Return the same as a 0-d tensor, through which gradients flow to :meth:`parameters`."""
        return self.effective_weights()[self.topology.edge_row(edge)]

    def effective_weights(self) -> Tensor:
        """Return the weights ``[E]`` of all rows of edges, Dale's law included; free rows hold anything."""
        signs = self._edge_signs()
        if signs is None:
            return self.edge_weight
        if self.dale_mode == "clamp":
            lawful = signs * (signs * self.edge_weight).clamp(min=0.0)
        else:
            lawful = signs * nn.functional.softplus(self.edge_weight)
        return torch.where(signs == 0, self.edge_weight, lawful)

    @torch.no_grad()
    def set_weight(self, edge: int, weight: float) -> None:
        """Give an edge another weight.

        Raises:
            GraphError: there is no such edge, or Dale's law forbids the sign.
        """
        row = self.topology.edge_row(edge)
        self.edge_weight[row] = self._parameter_for(weight, int(self.topology.edges["sign"][row]), edge)

    def bias_of(self, neuron: int) -> float:
        """Return a neuron's bias."""
        return float(self.bias.detach()[self.topology.neuron_row(neuron)])

    @torch.no_grad()
    def set_bias(self, neuron: int, bias: float) -> None:
        """Give a neuron another bias."""
        self.bias[self.topology.neuron_row(neuron)] = bias

    def weights(self) -> Array:
        """Return the weights of all edges, oldest first, as a copy."""
        rows = [self.topology.edge_row(edge) for edge in self.edges()]
        array: Array = self.effective_weights().detach().cpu().numpy()[rows].copy()
        return array

    @torch.no_grad()
    def enforce_dale(self) -> None:
        """Cut parameters that Dale's law forbids to 0; call it after a step of an optimiser of your own."""
        signs = self._edge_signs()
        if signs is not None and self.dale_mode == "clamp":
            self.edge_weight.copy_(torch.where(signs * self.edge_weight < 0, 0.0, self.edge_weight))

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _grow_neuron(self, role: int, kind: Neuron, sign: int = 0, *, bias: float = 0.0, **past: int) -> int:
        self._make_room(1, 0, kind.num_gates)
        neuron = self.topology.add_neuron(role, kind, sign, **past)
        with torch.no_grad():
            row = self.topology.neuron_row(neuron)
            self.bias[row] = bias
            if self.gates is not None and kind.num_gates:
                self.gates[row, : kind.num_gates] = torch.tensor(kind.initial_gates(neuron), device="cpu").to(
                    self.gates
                )
        self._changed()
        return neuron

    def _grow_edge(self, source: int, destination: int, weight: float, delay: int, *, pathway: bool = False) -> int:
        sign = int(self.topology.neurons["sign"][self.topology.neuron_row(source)])
        parameter = self._parameter_for(weight, sign, f"{source} -> {destination}")
        self._make_room(0, 1)
        edge = self.topology.add_edge(source, destination, delay, pathway=pathway)
        with torch.no_grad():
            self.edge_weight[self.topology.edge_row(edge)] = parameter
        self._changed()
        return edge

    def _parameter_for(self, weight: float, sign: int, edge: Any) -> float:
        if not math.isfinite(weight):
            raise GraphError(f"Edge {edge}: a weight must be finite, got {weight}.")
        if sign * weight < 0:
            kind = "excitatory" if sign > 0 else "inhibitory"
            raise GraphError(f"Edge {edge} comes from an {kind} neuron: its weight cannot be {weight:g}.")
        if sign == 0 or self.dale_mode == "clamp":
            return float(weight)
        magnitude = max(abs(weight), LEAST_SOFTPLUS_WEIGHT)
        return magnitude + math.log(-math.expm1(-magnitude))  # the inverse of softplus

    @torch.no_grad()
    def _make_room(self, num_neurons: int, num_edges: int, num_gates: int = 0) -> None:
        grown = self.topology.make_room(num_neurons, num_edges)
        if grown or num_gates > self.num_gates:
            rows, edges = len(self.topology.neurons["id"]), len(self.topology.edges["id"])
            gates = max(num_gates, self.num_gates)
            for name, shape in (("edge_weight", (edges,)), ("bias", (rows,)), ("gates", (rows, gates))):
                before = getattr(self, name)
                larger = self.edge_weight.new_zeros(shape)
                if before is not None:
                    larger[tuple(map(slice, before.shape))] = before
                self._set_parameter(name, larger)

    @torch.no_grad()
    def _set_parameter(self, name: str, value: Tensor | None) -> None:
        """Give a parameter another value; it stays the same object where shapes are equal."""
        before = getattr(self, name)
        if value is None or not value.numel():
            setattr(self, name, None)
        elif before is not None and before.shape == value.shape:
            before.copy_(value)
        else:
            setattr(self, name, _owned(nn.Parameter(value), self, name))

    @torch.no_grad()
    def _clear(self, edges: Iterable[int], neurons: Iterable[int]) -> None:
        """Set the parameters of rows that have become free to 0."""
        for tensor, rows in ((self.edge_weight, list(edges)), (self.bias, list(neurons)), (self.gates, list(neurons))):
            if rows and tensor is not None:
                tensor[rows] = 0.0
        self._changed()

    def _changed(self) -> None:
        self.version += 1

    def _edge_signs(self) -> Tensor | None:
        """Return the sign of each row of edges, 0 where the law does not hold; None where it holds nowhere."""
        key = self.version, self.edge_weight.device, self.edge_weight.dtype
        if self._signs is None or self._signs[0] != key:
            alive = self.topology.edges["id"] >= 0
            signs = np.where(alive, self.topology.edges["sign"], 0)
            with torch.inference_mode(False):
                self._signs = key, torch.from_numpy(signs).to(self.edge_weight.device, self.edge_weight.dtype)
            self._any_signs = bool(signs.any())
        return self._signs[1] if self._any_signs else None

    def _learned_gates(self) -> Tensor:
        """Return the gates, without a gradient for those that do not learn."""
        kinds = self.topology.kinds
        if self.gates is None:
            return self.bias.new_zeros(0)
        if all(kind.learns_gates or not kind.num_gates for kind in kinds):
            return self.gates
        learns = np.array([kind.learns_gates for kind in kinds])
        column = torch.from_numpy(learns[self.topology.neurons["kind"]]).to(self.gates.device)
        return torch.where(column.unsqueeze(1), self.gates, self.gates.detach())

    def ids_of_parameters(self) -> dict[str, Array]:
        """Return whose each number of each parameter is: edges ``[E]``, neurons ``[N]`` and ``[N, P]``; -1 nobody's."""
        neurons = self.topology.neurons["id"]
        return {
            "edge_weight": self.topology.edges["id"].copy(),
            "bias": neurons.copy(),
            "gates": np.repeat(neurons[:, None], self.num_gates, axis=1),
        }


def owner_of(parameter: Tensor) -> tuple[GraphParameters, str] | None:
    """Return the graph that a parameter belongs to, and its name there; None if it belongs to none."""
    graph = getattr(parameter, "_graph", lambda: None)()
    return None if graph is None else (graph, parameter._name_in_graph)  # type: ignore[attr-defined]


def _owned(parameter: nn.Parameter, graph: GraphParameters, name: str) -> nn.Parameter:
    parameter._graph, parameter._name_in_graph = weakref.ref(graph), name  # type: ignore[attr-defined]
    return parameter
