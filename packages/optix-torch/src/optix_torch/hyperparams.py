"""The hyperparameters of each algorithm, readable without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.agents import Hyperparam
from optix_protocol import ParamBound

PPO: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=3e-4, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    "clip_range": Hyperparam(default=0.2, low=0, open_low=True, bound=ParamBound(low=0.05, high=0.4)),
    "entropy_coef": Hyperparam(default=0.01, low=0, bound=ParamBound(low=1e-4, high=0.1, log=True)),
    "value_coef": Hyperparam(default=0.5, low=0, bound=ParamBound(low=0.1, high=1.0)),
    "gamma": Hyperparam(default=0.99, low=0, high=1, bound=ParamBound(low=0.9, high=0.9999, slow=True)),
    "gae_lambda": Hyperparam(default=0.95, low=0, high=1, bound=ParamBound(low=0.8, high=1.0, slow=True)),
    "num_epochs": Hyperparam(default=10, kind=int, low=1, bound=ParamBound(low=1, high=20, integer=True)),
    "minibatch_size": Hyperparam(
        default=64, kind=int, low=1, bound=ParamBound(low=32, high=4096, log=True, integer=True)
    ),
    "max_grad_norm": Hyperparam(default=0.5, low=0, open_low=True, bound=ParamBound(low=0.1, high=10.0, log=True)),
    "normalize_advantage": Hyperparam(default=True, kind=bool),
    "target_kl": Hyperparam(default=None, low=0, open_low=True, optional=True),
    "clip_range_value": Hyperparam(default=None, low=0, open_low=True, optional=True),
    "adaptive_kl": Hyperparam(default=None, low=0, open_low=True, optional=True),
    "normalize_observations": Hyperparam(default=False, kind=bool, fixed=True),
    "normalize_rewards": Hyperparam(default=False, kind=bool, fixed=True),
    "hidden_sizes": Hyperparam(default=(64, 64), kind=tuple, fixed=True, network=True),
    "activation": Hyperparam(
        default="tanh", kind=str, choices=("tanh", "relu", "elu", "silu"), fixed=True, network=True
    ),
    "log_std_init": Hyperparam(default=0.0, low=-20, high=5, fixed=True, network=True),
}
"""PPO for every kind of action; ``log_std_init`` matters to Gaussian policies only."""
