"""Neuron graphs for optix that grow while they learn.

Importing this package is cheap; ``torch`` is imported with the first name that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_neuroevo.adam import TopologyAwareAdam
    from optix_neuroevo.agent import GraphAgent, RecurrentGraphAgent
    from optix_neuroevo.brain import BrainNetwork
    from optix_neuroevo.building import layered_graph
    from optix_neuroevo.controller import TopologyController
    from optix_neuroevo.errors import GraphError
    from optix_neuroevo.graph import NeuronGraph
    from optix_neuroevo.hebbian import HebbianHook
    from optix_neuroevo.neuromodulation import NeuromodulatorSignal
    from optix_neuroevo.neurons import GRUNeuron, LSTMNeuron, Neuron, TrainableGRUNeuron, TrainableLSTMNeuron
    from optix_neuroevo.sac import GraphSACAgent

__version__ = "0.1.0"

_HOMES = {
    "BrainNetwork": "optix_neuroevo.brain",
    "GRUNeuron": "optix_neuroevo.neurons",
    "GraphAgent": "optix_neuroevo.agent",
    "GraphSACAgent": "optix_neuroevo.sac",
    "GraphError": "optix_neuroevo.errors",
    "HebbianHook": "optix_neuroevo.hebbian",
    "LSTMNeuron": "optix_neuroevo.neurons",
    "NeuromodulatorSignal": "optix_neuroevo.neuromodulation",
    "Neuron": "optix_neuroevo.neurons",
    "NeuronGraph": "optix_neuroevo.graph",
    "RecurrentGraphAgent": "optix_neuroevo.agent",
    "TopologyAwareAdam": "optix_neuroevo.adam",
    "TopologyController": "optix_neuroevo.controller",
    "TrainableGRUNeuron": "optix_neuroevo.neurons",
    "TrainableLSTMNeuron": "optix_neuroevo.neurons",
    "layered_graph": "optix_neuroevo.building",
}

__all__ = [
    "BrainNetwork",
    "GRUNeuron",
    "GraphAgent",
    "GraphError",
    "GraphSACAgent",
    "HebbianHook",
    "LSTMNeuron",
    "NeuromodulatorSignal",
    "Neuron",
    "NeuronGraph",
    "RecurrentGraphAgent",
    "TopologyAwareAdam",
    "TopologyController",
    "TrainableGRUNeuron",
    "TrainableLSTMNeuron",
    "__version__",
    "layered_graph",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
