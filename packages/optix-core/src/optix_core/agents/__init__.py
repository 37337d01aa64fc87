"""What agents of every framework share: hyperparameters, files, exact state, acting, and when to learn.

The bases are imported by their modules: ``optix_core.agents.actor_critic``, ``optix_core.agents.off_policy``.
"""

from optix_core.agents.files import load_weights, restore_rng, rng_state, save_weights
from optix_core.agents.hyperparams import Hyperparam, HyperparamStore, default_values

__all__ = [
    "Hyperparam",
    "HyperparamStore",
    "default_values",
    "load_weights",
    "restore_rng",
    "rng_state",
    "save_weights",
]
