"""What agents of every framework share: hyperparameters, files, exact state, acting, exploring, and when to learn.

The bases are imported by their modules: ``actor_critic`` and ``recurrent``, ``off_policy`` and, built on it,
``q_learning`` and ``continuous``.
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
