"""Online tuners: they change hyperparameters while a run goes on, on evidence, and never further than was tried."""

from optix_core.tuning.adaptive import AdaptiveOptimizer
from optix_core.tuning.backoff import BackoffOptimizer
from optix_core.tuning.base import Finding, OnlineTuner
from optix_core.tuning.momentum import MomentumOptimizer
from optix_core.tuning.pbt import PBTOptimizer
from optix_core.tuning.space import Axis, Space
from optix_core.tuning.spsa import SPSAOptimizer

__all__ = [
    "AdaptiveOptimizer",
    "Axis",
    "BackoffOptimizer",
    "Finding",
    "MomentumOptimizer",
    "OnlineTuner",
    "PBTOptimizer",
    "SPSAOptimizer",
    "Space",
]
