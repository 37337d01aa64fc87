"""The entry point of the group ``optix.backends``: what this package offers, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optix_core.agents import Hyperparam
from optix_core.agents.catalog import CatalogBackend
from optix_neuroevo import hyperparams


class NeuroevoBackend(CatalogBackend):
    """Builds graph agents; see :class:`optix_protocol.Backend`."""

    name = "neuroevo"
    agents: Mapping[tuple[str, str], str] = {
        ("ppo", "any"): "optix_neuroevo.agent:GraphAgent",
        ("recurrent_ppo", "any"): "optix_neuroevo.agent:RecurrentGraphAgent",
        ("sac", "any"): "optix_neuroevo.sac:GraphSACAgent",
    }
    specs: Mapping[str, Mapping[str, Hyperparam]] = {
        "ppo": hyperparams.GRAPH_PPO,
        "recurrent_ppo": hyperparams.RECURRENT_GRAPH_PPO,
        "sac": hyperparams.GRAPH_SAC,
    }
    conformance_hyperparams: Mapping[str, Mapping[str, Any]] = {
        "ppo": {"hidden_sizes": [4], "num_epochs": 2},
        "recurrent_ppo": {"hidden_sizes": [3], "num_epochs": 2, "sequence_length": 8},
        "sac": {"hidden_sizes": [8], "num_features": 4},
    }
    conformance_exemptions: Mapping[str, Mapping[str, str]] = {
        "ppo": {
            "memory_remembers": "the graph that is built has no delays; it may get some while it learns",
            "learning_begins_with_initial_state": "the graph that is built has no delays",
        },
    }


def create() -> NeuroevoBackend:
    """Return the backend; cheap, torch is not imported."""
    return NeuroevoBackend()
