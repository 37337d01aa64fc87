"""Policies that vary, compete and are joined, and what a run is like meanwhile."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_core.evolution.callback import EvolutionCallback
    from optix_core.evolution.ensemble import EnsembleAgent, EnsemblePolicy
    from optix_core.evolution.manager import PolicyManager
    from optix_core.evolution.members import Member, SpawnedVariant
    from optix_core.evolution.meta import Interval, MetaAction, MetaController, MetaDecision, Signals
    from optix_core.evolution.noise import adaptive_noise, noise_without_validation
    from optix_core.evolution.regime import Regime, RegimeDetector

_HOME_OF = {
    "EnsembleAgent": "ensemble",
    "EnsemblePolicy": "ensemble",
    "EvolutionCallback": "callback",
    "Interval": "meta",
    "Member": "members",
    "MetaAction": "meta",
    "MetaController": "meta",
    "MetaDecision": "meta",
    "PolicyManager": "manager",
    "Regime": "regime",
    "RegimeDetector": "regime",
    "Signals": "meta",
    "SpawnedVariant": "members",
    "adaptive_noise": "noise",
    "noise_without_validation": "noise",
}

__all__ = [
    "EnsembleAgent",
    "EnsemblePolicy",
    "EvolutionCallback",
    "Interval",
    "Member",
    "MetaAction",
    "MetaController",
    "MetaDecision",
    "PolicyManager",
    "Regime",
    "RegimeDetector",
    "Signals",
    "SpawnedVariant",
    "adaptive_noise",
    "noise_without_validation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optix_core.evolution' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"optix_core.evolution.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
