"""The hyperparameters of graph agents, readable without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optix_core.agents import Hyperparam, specs
from optix_protocol import ParamBound
from optix_torch import hyperparams as torch_hyperparams

_NOT_OURS = ("cell", "cell_size", "sequence_length")

_LENGTHS = ParamBound(low=1, high=128, log=True, integer=True)

GRAPH_PPO: Mapping[str, Hyperparam] = {
    **{name: spec for name, spec in specs.RECURRENT_PPO.items() if name not in _NOT_OURS},
    "hidden_sizes": replace(specs.RECURRENT_PPO["hidden_sizes"], default=(16,)),
    "learning_rate": replace(
        specs.RECURRENT_PPO["learning_rate"], default=3e-3, bound=ParamBound(low=1e-4, high=3e-2, log=True)
    ),
    "normalize_rewards": replace(specs.RECURRENT_PPO["normalize_rewards"], default=True),
    "target_kl": replace(specs.RECURRENT_PPO["target_kl"], default=0.02),
    "sequence_length": replace(
        specs.RECURRENT_PPO["sequence_length"], default=1, synonyms=("chunk_len",), bound=_LENGTHS
    ),
}
"""PPO for a graph: what it remembers is an input like any other, so gradients do not flow to earlier steps.

Actor and critic share the graph, so rewards are normalised: errors of the value would drown everything else. A few
weights need long steps, which ``target_kl`` holds back."""

RECURRENT_GRAPH_PPO: Mapping[str, Hyperparam] = {
    **GRAPH_PPO,
    "learning_rate": replace(GRAPH_PPO["learning_rate"], default=1e-2),
    "minibatch_size": replace(GRAPH_PPO["minibatch_size"], default=64),
    "sequence_length": replace(GRAPH_PPO["sequence_length"], default=32),
}
"""PPO whose gradients flow through ``sequence_length`` (``chunk_len``) steps."""

GRAPH_SAC: Mapping[str, Hyperparam] = {
    **torch_hyperparams.SAC,
    "neuroevo_mode": Hyperparam(
        default="feature_extractor", kind=str, choices=("policy", "feature_extractor"), fixed=True, network=True
    ),
    "num_features": Hyperparam(default=32, kind=int, low=1, fixed=True, network=True),
    "hidden_sizes": replace(torch_hyperparams.SAC["hidden_sizes"], default=(64,)),
}
"""SAC with a graph in its actor: ``"feature_extractor"`` puts a linear layer on ``num_features`` outputs of the graph,
``"policy"`` takes its outputs for means and deviations. ``hidden_sizes`` are those of graph and critics."""
