"""PyTorch agents for optix.

Importing this package is cheap; ``torch`` is imported with the first agent that is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_torch.algorithms.a2c import TorchAgent
    from optix_torch.algorithms.dqn import TorchDQNAgent
    from optix_torch.algorithms.ppo import TorchGaussianPPOAgent, TorchPPOAgent
    from optix_torch.algorithms.rainbow import TorchRainbowDQNAgent
    from optix_torch.algorithms.recurrent_ppo import TorchRecurrentPPOAgent
    from optix_torch.algorithms.sac import TorchSACAgent
    from optix_torch.algorithms.td3 import TorchTD3Agent
    from optix_torch.evaluator import TorchEvaluator
    from optix_torch.supervised import MLAgent

__version__ = "0.1.0"

_HOMES = {
    "MLAgent": "optix_torch.supervised",
    "TorchAgent": "optix_torch.algorithms.a2c",
    "TorchDQNAgent": "optix_torch.algorithms.dqn",
    "TorchEvaluator": "optix_torch.evaluator",
    "TorchGaussianPPOAgent": "optix_torch.algorithms.ppo",
    "TorchPPOAgent": "optix_torch.algorithms.ppo",
    "TorchRainbowDQNAgent": "optix_torch.algorithms.rainbow",
    "TorchRecurrentPPOAgent": "optix_torch.algorithms.recurrent_ppo",
    "TorchSACAgent": "optix_torch.algorithms.sac",
    "TorchTD3Agent": "optix_torch.algorithms.td3",
}

__all__ = [
    "MLAgent",
    "TorchAgent",
    "TorchDQNAgent",
    "TorchEvaluator",
    "TorchGaussianPPOAgent",
    "TorchPPOAgent",
    "TorchRainbowDQNAgent",
    "TorchRecurrentPPOAgent",
    "TorchSACAgent",
    "TorchTD3Agent",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
