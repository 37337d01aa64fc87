"""From a few settings to a run: ``TrainConfig`` -> ``TrainPlan`` -> ``RLOptimizer``; one plan, many seeds."""

from optix_core.training.environment import EnvOptions
from optix_core.training.loop_settings import LoopSettings
from optix_core.training.overrides import parse_value
from optix_core.training.plan import TrainConfig, TrainPlan, load_policy, train

__all__ = ["EnvOptions", "LoopSettings", "TrainConfig", "TrainPlan", "load_policy", "parse_value", "train"]
