"""The autonomous training loop: it collects, learns, evaluates honestly, keeps the best policy, stops with a reason.

The public names load when they are first used, so that importing the package stays quick and imports no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optix_core import _moved

if TYPE_CHECKING:
    from optix_core.agents.backends import list_backends, load_backend, make_agent
    from optix_core.agents.schedules import Schedule, cosine, linear, piecewise
    from optix_core.checkpoints import CheckpointRegistry, RunDirectory
    from optix_core.convergence import Assessment, BackoffScheduler, ConvergenceMonitor, DegradationTest
    from optix_core.data import (
        HERBuffer,
        ObsNormalizer,
        PrioritizedReplayBuffer,
        ReplayBuffer,
        RewardNormalizer,
        RunningMeanStd,
        compute_gae,
        make_minibatches,
    )
    from optix_core.environments import EnvSpec
    from optix_core.errors import AgentError, ConfigError, EnvError, MissingExtraError, OptixError, RunDirectoryError
    from optix_core.evaluation import ReturnEvaluator, evaluate
    from optix_core.evolution import EnsembleAgent, MetaController, PolicyManager, RegimeDetector
    from optix_core.journal import read_events
    from optix_core.loop import (
        Action,
        Budget,
        Decision,
        Evidence,
        Progress,
        RLOptimizer,
        RunResult,
        StopReason,
        branch,
        decide,
    )
    from optix_core.pipelines import (
        BatchPipeline,
        DatasetPipeline,
        LivePipeline,
        Reconnect,
        RNDPipeline,
        VectorBatchPipeline,
        WebSocketSource,
    )
    from optix_core.search import TrialOrchestrator
    from optix_core.training import Optimizer, TrainConfig, TrainPlan, load_policy, optimal_window_size, train
    from optix_core.tuning import (
        AdaptiveOptimizer,
        BackoffOptimizer,
        MomentumOptimizer,
        PBTOptimizer,
        SPSAOptimizer,
    )
    from optix_protocol import (
        BaseAgent,
        BaseEvaluator,
        BaseOptimizer,
        BasePipeline,
        EpisodeData,
        EvalMetrics,
        HyperparamSet,
        LoopCallback,
        LoopState,
        PolicySnapshot,
        Verdict,
    )

__version__ = "0.1.0"

_moved.install()

_HOMES = {
    "optix_core.agents.backends": ("list_backends", "load_backend", "make_agent"),
    "optix_core.agents.schedules": ("Schedule", "cosine", "linear", "piecewise"),
    "optix_core.checkpoints": ("CheckpointRegistry", "RunDirectory"),
    "optix_core.convergence": ("Assessment", "BackoffScheduler", "ConvergenceMonitor", "DegradationTest"),
    "optix_core.data": (
        "HERBuffer",
        "ObsNormalizer",
        "PrioritizedReplayBuffer",
        "ReplayBuffer",
        "RewardNormalizer",
        "RunningMeanStd",
        "compute_gae",
        "make_minibatches",
    ),
    "optix_core.environments": ("EnvSpec",),
    "optix_core.errors": (
        "AgentError",
        "ConfigError",
        "EnvError",
        "MissingExtraError",
        "OptixError",
        "RunDirectoryError",
    ),
    "optix_core.evaluation": ("ReturnEvaluator", "evaluate"),
    "optix_core.evolution": ("EnsembleAgent", "MetaController", "PolicyManager", "RegimeDetector"),
    "optix_core.journal": ("read_events",),
    "optix_core.loop": (
        "Action",
        "Budget",
        "Decision",
        "Evidence",
        "Progress",
        "RLOptimizer",
        "RunResult",
        "StopReason",
        "branch",
        "decide",
    ),
    "optix_core.pipelines": (
        "BatchPipeline",
        "DatasetPipeline",
        "LivePipeline",
        "RNDPipeline",
        "Reconnect",
        "VectorBatchPipeline",
        "WebSocketSource",
    ),
    "optix_core.search": ("TrialOrchestrator",),
    "optix_core.training": (
        "Optimizer",
        "TrainConfig",
        "TrainPlan",
        "load_policy",
        "optimal_window_size",
        "train",
    ),
    "optix_core.tuning": (
        "AdaptiveOptimizer",
        "BackoffOptimizer",
        "MomentumOptimizer",
        "PBTOptimizer",
        "SPSAOptimizer",
    ),
    "optix_protocol": (
        "BaseAgent",
        "BaseEvaluator",
        "BaseOptimizer",
        "BasePipeline",
        "EpisodeData",
        "EvalMetrics",
        "HyperparamSet",
        "LoopCallback",
        "LoopState",
        "PolicySnapshot",
        "Verdict",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "AdaptiveOptimizer",
    "AgentError",
    "Assessment",
    "BackoffOptimizer",
    "BackoffScheduler",
    "BaseAgent",
    "BaseEvaluator",
    "BaseOptimizer",
    "BasePipeline",
    "BatchPipeline",
    "Budget",
    "CheckpointRegistry",
    "ConfigError",
    "ConvergenceMonitor",
    "DatasetPipeline",
    "Decision",
    "DegradationTest",
    "EnsembleAgent",
    "EnvError",
    "EnvSpec",
    "EpisodeData",
    "EvalMetrics",
    "Evidence",
    "HERBuffer",
    "HyperparamSet",
    "LivePipeline",
    "LoopCallback",
    "LoopState",
    "MetaController",
    "MissingExtraError",
    "MomentumOptimizer",
    "ObsNormalizer",
    "Optimizer",
    "OptixError",
    "PBTOptimizer",
    "PolicyManager",
    "PolicySnapshot",
    "PrioritizedReplayBuffer",
    "Progress",
    "RLOptimizer",
    "RNDPipeline",
    "Reconnect",
    "RegimeDetector",
    "ReplayBuffer",
    "ReturnEvaluator",
    "RewardNormalizer",
    "RunDirectory",
    "RunDirectoryError",
    "RunResult",
    "RunningMeanStd",
    "SPSAOptimizer",
    "Schedule",
    "StopReason",
    "TrainConfig",
    "TrainPlan",
    "TrialOrchestrator",
    "VectorBatchPipeline",
    "Verdict",
    "WebSocketSource",
    "__version__",
    "branch",
    "compute_gae",
    "cosine",
    "decide",
    "evaluate",
    "linear",
    "list_backends",
    "load_backend",
    "load_policy",
    "make_agent",
    "make_minibatches",
    "optimal_window_size",
    "piecewise",
    "read_events",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optix_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
