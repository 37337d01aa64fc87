"""From a few settings to a run: ``TrainConfig`` -> ``TrainPlan`` -> ``RLOptimizer``; one plan, many seeds."""

from optix_core.training.environment import EnvOptions
from optix_core.training.facade import Optimizer
from optix_core.training.loop_settings import LoopSettings
from optix_core.training.overrides import parse_value
from optix_core.training.plan import TrainConfig, TrainPlan, load_policy, train
from optix_core.training.window_size import optimal_window_size

__all__ = [
    "EnvOptions",
    "LoopSettings",
    "Optimizer",
    "TrainConfig",
    "TrainPlan",
    "load_policy",
    "optimal_window_size",
    "parse_value",
    "train",
]
