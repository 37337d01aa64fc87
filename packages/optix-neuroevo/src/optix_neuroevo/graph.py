"""Neuron graphs: a value that is edited, and a module that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from optix_neuroevo import surgery
from optix_neuroevo.activity import Watch
from optix_neuroevo.bridges import FromElsewhere
from optix_neuroevo.compile import Layout, Program, Wiring, compile_graph
from optix_neuroevo.errors import GraphError
from optix_neuroevo.forward import TorchPlacement, Weights, initial_state, place_numpy, through
from optix_neuroevo.neurons import Neuron
from optix_neuroevo.parameters import DaleMode, GraphParameters
from optix_neuroevo.topology import CELL_TYPES, INPUT, OUTPUT, ROLES, Topology
from optix_protocol import Array


class NeuronGraph(FromElsewhere, GraphParameters):
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

    never_modal = True  # for optix_torch: it learns as it acts

    def __init__(self, *, dale_mode: DaleMode = "clamp") -> None:
        super().__init__(dale_mode)
        self.num_compiled = 0
        self._layout: Layout = {}
        self._compiled: tuple[int, Program, Wiring] | None = None
        self._placement: tuple[Any, TorchPlacement] | None = None
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
            value = None if name not in parameters else torch.tensor(parameters[name], device="cpu").to(like)
            self._set_parameter(name, value)
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
