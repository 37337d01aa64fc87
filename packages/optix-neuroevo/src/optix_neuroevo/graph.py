"""Neuron graphs: a value that is edited, and a module that is trained."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from optix_neuroevo import surgery
from optix_neuroevo.activity import Watch
from optix_neuroevo.bridges import FromElsewhere
from optix_neuroevo.compile import Layout, Program, Wiring, compile_graph
from optix_neuroevo.errors import GraphError
from optix_neuroevo.forward import TorchPlacement, Weights, initial_state, place_numpy, through
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.topology import CELL_TYPES, INPUT, OUTPUT, ROLES, Topology
from optix_protocol import Array

DaleMode = Literal["clamp", "softplus"]

LEAST_SOFTPLUS_WEIGHT = 1e-6
"""The magnitude that stands for 0 where softplus cannot reach it."""


class NeuronGraph(FromElsewhere, nn.Module):
    """Neurons and weighted, delayed edges between them, which learn by gradient and may change at any time.

    Neurons and edges go by ids, whole numbers that stay what they are. Edits change the graph at once; it is compiled
    anew when it next runs. All inputs count in the order in which they were added, and so do the outputs.

    Args:
        dale_mode: how neurons with a cell type are held to Dale's law: ``"clamp"`` cuts weights of the wrong sign to 0,
            ``"softplus"`` lets magnitudes be ``log(1 + exp(parameter))``, which never reaches 0.

    Attributes:
        topology: who is there, and who is wired to whom; edit it through this class only.
        version: changes with every edit of the topology.
        watch: collects what neurons do while the graph learns, if somebody observes it.
        observers: who is called after each update.
        last_step: version, and memory ``h`` after the latest step of acting, where :meth:`watch_acting` was called.
        num_compiled: programs that were compiled so far; wiring alone does not count.

    Raises:
        GraphError: (a ``ValueError``) an unknown ``dale_mode``.
    """

    edge_weight: nn.Parameter
    bias: nn.Parameter
    gates: nn.Parameter | None
    never_modal = True  # for optix_torch: it learns as it acts

    def __init__(self, *, dale_mode: DaleMode = "clamp") -> None:
        super().__init__()
        if dale_mode not in ("clamp", "softplus"):
            raise GraphError(f"dale_mode is clamp or softplus, got {dale_mode!r}.")
        self.dale_mode: DaleMode = dale_mode
        self.topology = Topology()
        self.edge_weight = _owned(nn.Parameter(torch.zeros(8)), self, "edge_weight")
        self.bias = _owned(nn.Parameter(torch.zeros(8)), self, "bias")
        self.register_parameter("gates", None)  # until there is a neuron that has some
        self.version = 0
        self.num_compiled = 0
        self._layout: Layout = {}
        self._compiled: tuple[int, Program, Wiring] | None = None
        self._placement: tuple[Any, TorchPlacement] | None = None
        self._signs: tuple[Any, Tensor] | None = None
        self._any_signs = False
        self.watch: Watch | None = None
        self.observers: list[Any] = []
        self.last_step: tuple[int, Array] | None = None
        self._tells_acting = False

    # ---- editing ----------------------------------------------------------------------------------------------------

    def add_neuron(
        self,
        role: str = "hidden",
        activation: str | None = None,
        *,
        neuron: Neuron | None = None,
        cell_type: str | None = None,
        bias: float = 0.0,
    ) -> int:
        """Add a neuron and return its id.

        Args:
            role: ``"input"``, ``"hidden"`` or ``"output"``.
            activation: of a point neuron, ``"tanh"`` by default (``"linear"`` for inputs).
            neuron: its kind, in the place of ``activation``.
            cell_type: ``"excitatory"`` or ``"inhibitory"`` holds its outgoing weights to one sign (Dale's law).
            bias: to begin with.

        Raises:
            GraphError: an unknown role, cell type or activation, both a kind and an activation, or an input that is
                more than that.
        """
        if role not in ROLES:
            raise GraphError(f"A neuron's role is one of {', '.join(ROLES)}; got {role!r}.")
        if cell_type not in CELL_TYPES:
            raise GraphError(f"cell_type is excitatory, inhibitory or None; got {cell_type!r}.")
        if neuron is not None and activation not in (None, neuron.activation):
            raise GraphError(f"Pass neuron={neuron} or activation={activation!r}, not both.")
        usual = "linear" if role == "input" else "tanh"
        kind = neuron if neuron is not None else Neuron(usual if activation is None else activation)
        if role == "input" and (kind != Neuron("linear") or bias):
            raise GraphError('An input passes on what it is given: activation="linear", no bias.')
        return self._grow_neuron(ROLES.index(role), kind, CELL_TYPES[cell_type], bias=bias)

    def add_edge(self, src: int, dst: int, weight: float = 0.0, delay: int = 0) -> int:
        """Add an edge and return its id.

        Args:
            src: the neuron that it comes from.
            dst: the neuron that it leads to.
            weight: to begin with; of the sign that Dale's law asks for.
            delay: steps that it takes; 0 acts within the same step.

        Raises:
            GraphError: an unknown neuron, a negative delay, a second edge of this delay, an input as ``dst``, a weight
                of the wrong sign, or a cycle without delay, which is named.
        """
        self.topology.check_edge(src, dst, delay)
        if delay == 0:
            self.topology.require_no_cycle(src, dst)
        return self._grow_edge(src, dst, weight, delay)

    def add_edges(
        self, src: Sequence[int], dst: Sequence[int], weight: Sequence[float] | Array, delay: Sequence[int] | int = 0
    ) -> list[int]:
        """Add many edges and return their ids; a cycle without delay is found when the graph is next compiled.

        Arguments and errors as in :meth:`add_edge`, each ``[E]``.
        """
        delays = [delay] * len(src) if isinstance(delay, int) else list(delay)
        edges = []
        self._make_room(0, len(src))
        for a, b, w, d in zip(src, dst, np.asarray(weight, float).tolist(), delays, strict=True):
            self.topology.check_edge(a, b, d)
            edges.append(self._grow_edge(a, b, w, d))
        return edges

    def reserve(self, num_neurons: int, num_edges: int) -> None:
        """Make room for so many more neurons and edges, so that parameters stay the same objects as the graph grows."""
        self._make_room(num_neurons, num_edges)
        self._changed()

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

    def split(self, neuron: int, *, share: float = 0.3) -> int:
        """Split a neuron in two that together do what it did; see :func:`optix_neuroevo.surgery.split`."""
        return surgery.split(self, neuron, share=share)

    def merge(self, keep: int, remove: int, *, scale: float = 1.0, shift: float = 0.0) -> None:
        """Let one neuron stand for two; see :func:`optix_neuroevo.surgery.merge`."""
        surgery.merge(self, keep, remove, scale=scale, shift=shift)

    def relay(self, edge: int, *, first: int | None = None) -> int:
        """Put a relay into an edge; see :func:`optix_neuroevo.surgery.relay`."""
        return surgery.relay(self, edge, first=first)

    def prune_edge(self, edge: int, *, mean: float = 0.0) -> None:
        """Remove an edge and keep the mean of what it carried; see :func:`optix_neuroevo.surgery.prune_edge`."""
        surgery.prune_edge(self, edge, mean=mean)

    def prune_neuron(self, neuron: int, *, mean: float = 0.0) -> None:
        """Remove a neuron and keep its mean; see :func:`optix_neuroevo.surgery.prune_neuron`."""
        surgery.prune_neuron(self, neuron, mean=mean)

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

    # ---- running ----------------------------------------------------------------------------------------------------

    def compiled(self) -> tuple[Program, Wiring]:
        """Return what runs, compiled anew if the graph has changed.

        Raises:
            GraphError: no inputs, no outputs, or a cycle without delay.
        """
        if self._compiled is None or self._compiled[0] != self.version:
            before = None if self._compiled is None else self._compiled[1]
            depth = 0 if before is None else before.depth
            program, wiring, self._layout = compile_graph(self.topology, self._layout, self.num_gates, depth)
            if program != before:
                self.num_compiled += 1
            self._compiled = self.version, program, wiring
        return self._compiled[1:]

    def placed(self) -> tuple[Program, Wiring, Weights]:
        """Return what runs, with parameters in place as tensors through which gradients flow."""
        program, wiring = self.compiled()
        key = self.version, self.edge_weight.device
        if self._placement is None or self._placement[0] != key:
            with torch.inference_mode(False):  # it is kept for learning, too
                self._placement = key, TorchPlacement(program, wiring, self.edge_weight.device)
        seen = None if self.watch is None else self.watch.see_gradient
        return program, wiring, self._placement[1](self.effective_weights(), self.bias, self._learned_gates(), seen)

    @torch.no_grad()
    def placed_in_numpy(self, *, dense: bool = False) -> tuple[Program, Wiring, Weights]:
        """Return the same as it is now in NumPy; ``dense`` wants matrices, whatever is quicker."""
        program, wiring = self.compiled()
        if dense and program.is_sparse:
            program, wiring, _ = compile_graph(self.topology, self._layout, self.num_gates, program.depth, dense=True)
        arrays = (self.effective_weights(), self.bias, self._learned_gates())
        return program, wiring, place_numpy(program, wiring, *(tensor.detach().cpu().numpy() for tensor in arrays))

    def forward(self, x: Tensor, state: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the outputs ``[B, O]`` for inputs ``[B, I]`` in a first step, or ``[L, B, O]`` for ``[L, B, I]``.

        Args:
            x: one step, or sequences of ``L`` steps.
            state: what is remembered before; nothing by default.
        """
        program, wiring, weights = self.placed()
        sequences = x if x.ndim == 3 else x.unsqueeze(0)
        if state is None:
            zeros = initial_state(program, sequences.shape[1])
            state = {name: torch.from_numpy(array).to(x) for name, array in zeros.items()}
        keep = x.new_ones(*sequences.shape[:2], 1)
        h = through(program, weights, sequences, state, keep)["h"]
        outputs = h.index_select(-1, torch.from_numpy(wiring.outputs).to(x.device))
        return outputs if x.ndim == 3 else outputs[0]

    def watch_acting(self) -> None:
        """Keep what neurons did in the latest step of acting in ``last_step``."""
        self._tells_acting = True

    def acted(self, h: Array) -> None:
        """Hear of a step of acting."""
        if self._tells_acting:
            self.last_step = self.version, h

    def observe(self, observer: Any) -> None:
        """Let somebody's ``after_learning()`` be called after each update of the graph's agent.

        Args:
            observer: has ``after_learning() -> dict[str, float]``, ``state()`` and ``restore(state)``, like a
                :class:`~optix_neuroevo.TopologyController`.
        """
        self.observers.append(observer)
        self.watch = self.watch or Watch()

    # ---- values -----------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return copies of everything by name: topology, capacities and parameters."""
        layout = [(level, kind, size) for (level, kind), size in self._layout.items()]
        depth = 0 if self._compiled is None else self._compiled[1].depth
        return {
            **{f"topology.{name}": array for name, array in self.topology.arrays().items()},
            "layout": np.array(layout, np.int64).reshape(-1, 3),
            "depth": np.array([depth], np.int64),
            "dale_mode": np.array([self.dale_mode == "softplus"], np.int64),
            **{name: tensor.detach().cpu().numpy().copy() for name, tensor in self.named_parameters()},
        }

    def load_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Become the graph whose :meth:`arrays` these are.

        Raises:
            GraphError: of another topology version, or damaged; then nothing is changed.
        """
        prefix = "topology."
        topology = Topology.from_arrays(
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)},
            self.topology.kinds,
        )
        wanted = {"edge_weight": (len(topology.edges["id"]),), "bias": (len(topology.neurons["id"]),)}
        for name, shape in wanted.items():
            if name not in arrays or np.shape(arrays[name]) != shape:
                raise GraphError(f"This graph is damaged: {name} does not fit its topology.")
        parameters = {name: np.asarray(arrays[name]) for name in ("edge_weight", "bias", "gates") if name in arrays}
        self.topology = topology
        self.dale_mode = "softplus" if int(np.asarray(arrays["dale_mode"])[0]) else "clamp"
        self._layout = {(int(level), int(kind)): int(size) for level, kind, size in np.asarray(arrays["layout"])}
        like = self.edge_weight.detach()
        for name in ("edge_weight", "bias", "gates"):
            self._set_parameter(name, None if name not in parameters else torch.tensor(parameters[name]).to(like))
        depth = int(np.asarray(arrays["depth"])[0])
        self._changed()
        program, wiring, self._layout = compile_graph(topology, self._layout, self.num_gates, depth)
        self.num_compiled += 1
        self._compiled = self.version, program, wiring

    def copy(self) -> Self:
        """Return an equal graph that shares nothing with this one."""
        twin = type(self)(dale_mode=self.dale_mode)
        twin.topology.kinds = list(self.topology.kinds)
        twin.to(self.edge_weight.dtype).load_arrays(self.arrays())
        return twin.to(self.edge_weight.device)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _grow_neuron(self, role: int, kind: Neuron, sign: int = 0, *, bias: float = 0.0, **past: int) -> int:
        self._make_room(1, 0, kind.num_gates)
        neuron = self.topology.add_neuron(role, kind, sign, **past)
        with torch.no_grad():
            row = self.topology.neuron_row(neuron)
            self.bias[row] = bias
            if self.gates is not None and kind.num_gates:
                self.gates[row, : kind.num_gates] = torch.tensor(kind.initial_gates(neuron)).to(self.gates)
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

    def check_size(self, num_inputs: int, num_outputs: int) -> None:
        """Refuse a graph with other numbers of inputs and outputs.

        Raises:
            GraphError: in a line.
        """
        found = len(self.topology.neuron_ids(INPUT)), len(self.topology.neuron_ids(OUTPUT))
        if found != (num_inputs, num_outputs):
            raise GraphError(
                f"This graph has {found[0]} inputs and {found[1]} outputs; it needs {num_inputs} inputs, and "
                f"{num_outputs} outputs, of which the last is the value."
            )


def owner_of(parameter: Tensor) -> tuple[NeuronGraph, str] | None:
    """Return the graph that a parameter belongs to, and its name there; None if it belongs to none."""
    graph = getattr(parameter, "_graph", lambda: None)()
    return None if graph is None else (graph, parameter._name_in_graph)  # type: ignore[attr-defined]


def _owned(parameter: nn.Parameter, graph: NeuronGraph, name: str) -> nn.Parameter:
    parameter._graph, parameter._name_in_graph = weakref.ref(graph), name  # type: ignore[attr-defined]
    return parameter
