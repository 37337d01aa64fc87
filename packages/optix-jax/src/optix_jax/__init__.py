"""JAX agents for optix.

Importing this package is cheap; ``jax`` is imported with the first agent that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_jax.agent import FlaxAgent
    from optix_jax.algorithms.dqn import FlaxDQNAgent
    from optix_jax.algorithms.ppo import FlaxGaussianPPOAgent, FlaxPPOAgent
    from optix_jax.algorithms.sac import FlaxSACAgent
    from optix_jax.algorithms.td3 import FlaxTD3Agent
    from optix_jax.evaluator import FlaxEvaluator
    from optix_jax.supervised import MLAgent

__version__ = "0.1.0"

_HOMES = {
    "MLAgent": "optix_jax.supervised",
    "FlaxAgent": "optix_jax.agent",
    "FlaxDQNAgent": "optix_jax.algorithms.dqn",
    "FlaxEvaluator": "optix_jax.evaluator",
    "FlaxGaussianPPOAgent": "optix_jax.algorithms.ppo",
    "FlaxPPOAgent": "optix_jax.algorithms.ppo",
    "FlaxSACAgent": "optix_jax.algorithms.sac",
    "FlaxTD3Agent": "optix_jax.algorithms.td3",
}

__all__ = [
    "FlaxAgent",
    "FlaxDQNAgent",
    "FlaxEvaluator",
    "FlaxGaussianPPOAgent",
    "FlaxPPOAgent",
    "FlaxSACAgent",
    "FlaxTD3Agent",
    "MLAgent",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
