"""Actors beside the learner: in one process, in processes of this machine, on a Ray cluster; the same agent and loop.

The public names load when they are first used, so that importing the package stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_distributed.actor_learner import AsyncActorLearner
    from optix_distributed.inprocess import InProcessTransport
    from optix_distributed.local.supervisor import Limits
    from optix_distributed.local.transport import LocalTransport
    from optix_distributed.pipeline import ActorPipeline
    from optix_distributed.transport import ActorHealth, ActorJob, Delivery, Transport

__version__ = "0.1.0"

_HOME_OF = {
    "ActorHealth": "optix_distributed.transport",
    "ActorJob": "optix_distributed.transport",
    "ActorPipeline": "optix_distributed.pipeline",
    "AsyncActorLearner": "optix_distributed.actor_learner",
    "Delivery": "optix_distributed.transport",
    "InProcessTransport": "optix_distributed.inprocess",
    "Limits": "optix_distributed.local.supervisor",
    "LocalTransport": "optix_distributed.local.transport",
    "Transport": "optix_distributed.transport",
}

__all__ = [
    "ActorHealth",
    "ActorJob",
    "ActorPipeline",
    "AsyncActorLearner",
    "Delivery",
    "InProcessTransport",
    "Limits",
    "LocalTransport",
    "Transport",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optix_distributed' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
