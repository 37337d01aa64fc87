"""Policies that vary, compete and are joined, and what a run is like meanwhile."""

from __future__ import annotations

from optix_core.evolution.regime import Regime, RegimeDetector

__all__ = ["Regime", "RegimeDetector"]
