"""Soft actor-critic whose actor begins with a graph: the graph finds the features, a linear layer the action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from optix_core.agents.base import Blueprint
from optix_core.agents.continuous import finite_bounds
from optix_core.environments.flattening import flat_space
from optix_core.policies import encoder_for
from optix_neuroevo import hyperparams as specs
from optix_neuroevo.building import layered_graph
from optix_neuroevo.errors import GraphError
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.neurons import Neuron
from optix_protocol import Array
from optix_torch._precision import learning_dtype
from optix_torch.algorithms.sac import TorchSACAgent

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph

_GRAPH = "graph."


class GraphSACAgent(TorchSACAgent):
    """SAC with a graph in its actor; the critics are layers.

    The replay memory holds single transitions, so the graph must not remember: no delays, no gated neurons. It may
    change while it learns as long as its parameters have room; ask for that beforehand
    (:meth:`NeuronGraph.reserve`). Arguments as in :class:`optix_torch.TorchSACAgent`, whose ``actor`` is the graph, or
    an ``nn.Sequential`` that begins with it; defaults in :data:`optix_neuroevo.hyperparams.GRAPH_SAC`.

    Attributes:
        graph: the graph.

    Raises:
        ConfigError: (a ``ValueError``) what :class:`optix_torch.TorchSACAgent` refuses, a graph that remembers, or an
            actor without one.
    """

    specs = specs.GRAPH_SAC
    _kind_of_weights = "neuroevo/SAC"

    def __init__(self, *, actor: nn.Module, **options: Any) -> None:
        graphs = [part for part in actor.modules() if isinstance(part, NeuronGraph)]
        if len(graphs) != 1:
            raise GraphError(f"The actor must hold one NeuronGraph, it has {len(graphs)}.")
        self.graph = graphs[0]
        if self.graph.compiled()[0].remembers:
            raise GraphError("SAC learns from single transitions: take a graph without delays and gated neurons.")
        super().__init__(actor=actor, **options)

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        settings, space = blueprint.settings, flat_space(blueprint.observation_space)
        shape = encoder_for(space).encoded_shape
        if len(shape) != 1:
            raise GraphError(f"A graph takes vectors, not observations {list(shape)}: flatten or encode them.")
        outputs = cls._num_outputs(len(finite_bounds(blueprint.action_space)[0]))
        features = settings["num_features"] if settings["neuroevo_mode"] == "feature_extractor" else outputs
        graph = layered_graph(
            shape[0],
            features,
            hidden_sizes=settings["hidden_sizes"],
            neuron=Neuron(settings["activation"]),
            seed=blueprint.seed,
            output_scale=1.0 if settings["neuroevo_mode"] == "feature_extractor" else 0.0,
        )
        graph.reserve(64, 4 * graph.num_edges)
        # A linear layer tells the encoder of observations that rows are flat; of equal size it passes them on.
        last = nn.Linear(features, outputs, dtype=learning_dtype(), device="cpu")
        if settings["neuroevo_mode"] == "policy":
            nn.init.eye_(last.weight)
            nn.init.zeros_(last.bias)
            last.requires_grad_(False)
        else:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        parts = super()._build(blueprint)
        return {**parts, "actor": nn.Sequential(graph, last), "observation_space": space}

    def _write_network(self, graph: PolicyGraph) -> str:
        from optix_neuroevo.onnx import write_graph

        layers = list(self.actor.children())
        if not (isinstance(self.actor, nn.Sequential) and len(layers) == 2 and isinstance(layers[1], nn.Linear)):
            return super()._write_network(graph)
        weight, bias = (parameter.detach().cpu().numpy() for parameter in (layers[1].weight, layers[1].bias))
        return graph.dense(write_graph(graph, self.graph, with_memory=False), weight.T, bias)

    # ---- files ------------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Array]:
        return super()._weights() | {_GRAPH + name: array for name, array in self.graph.arrays().items()}

    def _load(self, weights: Mapping[str, Array]) -> None:
        arrays = {n.removeprefix(_GRAPH): array for n, array in weights.items() if n.startswith(_GRAPH)}
        self.graph.load_arrays(arrays)
        super()._load({n: array for n, array in weights.items() if not n.startswith(_GRAPH)})
