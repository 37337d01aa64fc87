"""From a few settings to a run: ``TrainConfig`` -> ``TrainPlan`` -> ``RLOptimizer``; one plan, many seeds."""

from optix_core.training.plan import EnvOptions, LoopSettings, TrainConfig, TrainPlan, load_policy, parse_value, train

__all__ = ["EnvOptions", "LoopSettings", "TrainConfig", "TrainPlan", "load_policy", "parse_value", "train"]
