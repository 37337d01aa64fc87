"""From a few settings to a run: ``TrainConfig`` -> ``TrainPlan`` -> ``RLOptimizer``; one plan, many seeds."""

from optix_core.training.plan import LoopSettings, TrainConfig, TrainPlan, load_policy, parse_value, train

__all__ = ["LoopSettings", "TrainConfig", "TrainPlan", "load_policy", "parse_value", "train"]
