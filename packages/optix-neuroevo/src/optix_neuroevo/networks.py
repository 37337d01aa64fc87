"""A graph as the learned part of an agent: the graph, its optimiser, and what it has remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.policies import MLP
from optix_neuroevo.acting import FrozenGraph, LiveGraph
from optix_neuroevo.adam import TopologyAwareAdam
from optix_neuroevo.errors import GraphError
from optix_neuroevo.forward import Weights, drive, step, through
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.memory import Memories
from optix_neuroevo.ops import TORCH
from optix_protocol import Array, RecurrentState, StateTree
from optix_torch._learned import TorchModules
from optix_torch._optimizers import FlatParameters
from optix_torch.recurrent import State

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph

_GRAPH = "graph."


class GraphOptimizer:
    """Adam for a graph, which keeps Dale's law after each step; see :class:`optix_torch._optimizers.Optimizer`.

    Args:
        adam: what moves the parameters.
        graph: whose law is kept.
    """

    def __init__(self, adam: TopologyAwareAdam, graph: NeuronGraph) -> None:
        self.adam, self._graph = adam, graph

    @property
    def learning_rate(self) -> float:
        """The step size."""
        return float(self.adam.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.adam.param_groups[0]["lr"] = value

    def step(self) -> None:
        """Move the parameters along their gradients."""
        self.adam.step()
        self._graph.enforce_dale()

    def state(self) -> dict[str, Any]:
        """Return copies of what Adam remembers of each parameter, and the learning rate."""
        return {
            "learning_rate": self.learning_rate,
            "entries": {
                str(number): {name: tensor.cpu().numpy().copy() for name, tensor in self.adam.state[parameter].items()}
                for number, parameter in enumerate(self.adam.param_groups[0]["params"])
                if parameter in self.adam.state
            },
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned, with the graph that belongs to it."""
        self.learning_rate = float(state["learning_rate"])
        self.adam.state.clear()
        for number, parameter in enumerate(self.adam.param_groups[0]["params"]):
            entry = state["entries"].get(str(number))
            if entry is not None:
                self.adam.state[parameter] = {
                    name: torch.from_numpy(np.array(array)).to(parameter) for name, array in entry.items()
                }


class GraphNetworks(TorchModules):
    """A graph whose last output is the value and whose others are the actor's.

    Args:
        graph: what is learned.
        extra: learned tensors that do not belong to it, by name.
        device: where to put everything.
        memories: the layouts of its memory so far.
        adam: Adam to continue with; None makes one.
    """

    def __init__(
        self,
        graph: NeuronGraph,
        *,
        extra: Mapping[str, nn.Parameter],
        device: torch.device,
        memories: Memories | None = None,
        adam: TopologyAwareAdam | None = None,
    ) -> None:
        graph.to(device)
        for parameter in extra.values():
            parameter.data = parameter.data.to(device)
        self.graph, self.memories = graph, memories or Memories()
        learned = [*graph.parameters(), *extra.values()]
        self.parameters = FlatParameters(learned)
        if adam is None:
            adam = TopologyAwareAdam(learned, lr=0.0, eps=1e-5)
        else:
            adam.notify_topology_change(learned)
        self.optimizer = GraphOptimizer(adam, graph)
        self.version_of_graph = graph.version
        self._note_layout()
        self._acting_graph = LiveGraph(graph, self.memories)
        super().__init__(
            {"graph": graph},
            optimizers={"optimizer": self.optimizer},
            parameters=[self.parameters],
            device=device,
            extra=extra,
        )

    def following(self) -> GraphNetworks:
        """Return the networks of the graph as it is now, with what was learned and remembered."""
        adam = self.optimizer.adam
        if list(map(id, [*self.graph.parameters(), *self.extra.values()])) != list(map(id, self.parameters.parameters)):
            return GraphNetworks(self.graph, extra=self.extra, device=self.device, memories=self.memories, adam=adam)
        adam.notify_topology_change(self.parameters.parameters)
        self.version_of_graph = self.graph.version
        self._note_layout()
        return self

    # ---- learning: what optix_torch.algorithms.recurrent_ppo asks of networks ----------------------------------------

    def through(self, observations: Tensor, state: State, keep: Tensor) -> State:
        """Return the memory after each row, ``[L, B, ...]`` each, for observations ``[L, B, I]``."""
        program, _, weights = self.graph.placed()
        return through(program, weights, observations, state, keep)

    def outputs(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actor's outputs ``[B, out]`` and the values ``[B]``, given the memory ``h`` ``[B, ...]``."""
        slots = torch.from_numpy(self.graph.compiled()[1].outputs).to(self.device)
        outputs = h.index_select(1, slots)
        return outputs[:, :-1], outputs[:, -1]

    def values_after(self, observations: Tensor, state: State) -> Tensor:
        """Return the values ``[B]`` of observations ``[B, I]`` that follow on memories."""
        program, _, weights = self.graph.placed()
        return self.outputs(self._step(program, weights, observations, state))[1]

    @staticmethod
    def _step(program: Any, weights: Weights, observations: Tensor, state: State) -> Tensor:
        h: Tensor = step(program, weights, observations, drive(observations, weights), state, TORCH)["h"]
        return h

    def old_policy(self) -> None:
        """Return None: a graph learns as it acts."""
        return

    # ---- acting: optix_core.agents.recurrent.RecurrentNetworks ------------------------------------------------------

    def live(self) -> LiveGraph:
        """Return what acts, following the graph as it learns and changes."""
        return self._acting_graph

    def frozen(self) -> FrozenGraph:
        """Return what acts as the graph does now."""
        return FrozenGraph(self.graph, self.memories)

    def act(self, rows: Array) -> Array:
        """Return the actor's outputs for observations with which episodes begin."""
        return self._acting_graph(rows, self._acting_graph.initial_state(len(rows)))[0]

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        network = self.frozen()
        return lambda rows: network(rows, network.initial_state(len(rows)))[0]

    def host(self) -> None:
        """Return None: a graph has no form in ``optix_core.policies``."""
        return

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the graph's operators to a policy's, from ``graph.rows``, and return the name of the actor's outputs."""
        from optix_neuroevo.onnx import write_graph

        return write_graph(graph, self.graph)

    def mlp(self) -> MLP | None:
        """Return None: a graph is no chain of dense layers."""
        return None

    # ---- files ------------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Array]:
        """Return copies of the graph, topology included, and of what else is learned, by name."""
        extra = {name: parameter.detach().cpu().numpy().copy() for name, parameter in self.extra.items()}
        return {**{_GRAPH + name: array for name, array in self.graph.arrays().items()}, **extra}

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned, the topology included."""
        self.graph.load_arrays(graph_arrays(weights))
        for name, parameter in self.extra.items():
            parameter.data.copy_(torch.from_numpy(np.array(weights[name])))

    def state(self) -> dict[str, Any]:
        """Return copies of what the optimiser remembers, and of the layouts of memory."""
        return {**super().state(), "memories": self.memories.state()}

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        super().restore(state)
        self.memories.restore(state["memories"])

    def brought(self, state: RecurrentState) -> RecurrentState:
        """Return a memory in the layout of the graph as it is now."""
        return self.memories.brought(state, self._stamp)

    def _note_layout(self) -> None:
        self._stamp = self.memories.note(self.graph.topology, *self.graph.compiled())


def graph_arrays(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a graph among an agent's weights.

    Raises:
        GraphError: there are none.
    """
    arrays = {name.removeprefix(_GRAPH): array for name, array in weights.items() if name.startswith(_GRAPH)}
    if not arrays:
        raise GraphError("These weights hold no graph.")
    return arrays
