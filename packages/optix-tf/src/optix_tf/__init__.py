"""TensorFlow and Keras agents for optix.

Importing this package is cheap; ``tensorflow`` is imported with the first agent that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_tf.algorithms.a2c import TFAgent
    from optix_tf.algorithms.dqn import TFDQNAgent
    from optix_tf.algorithms.ppo import TFGaussianPPOAgent, TFPPOAgent
    from optix_tf.algorithms.sac import TFSACAgent
    from optix_tf.algorithms.td3 import TFTD3Agent
    from optix_tf.evaluator import TFEvaluator
    from optix_tf.supervised import MLAgent

__version__ = "0.1.0"

_HOMES = {
    "MLAgent": "optix_tf.supervised",
    "TFAgent": "optix_tf.algorithms.a2c",
    "TFDQNAgent": "optix_tf.algorithms.dqn",
    "TFEvaluator": "optix_tf.evaluator",
    "TFGaussianPPOAgent": "optix_tf.algorithms.ppo",
    "TFPPOAgent": "optix_tf.algorithms.ppo",
    "TFSACAgent": "optix_tf.algorithms.sac",
    "TFTD3Agent": "optix_tf.algorithms.td3",
}

__all__ = [
    "MLAgent",
    "TFAgent",
    "TFDQNAgent",
    "TFEvaluator",
    "TFGaussianPPOAgent",
    "TFPPOAgent",
    "TFSACAgent",
    "TFTD3Agent",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
