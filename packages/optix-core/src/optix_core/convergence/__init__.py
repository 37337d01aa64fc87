"""Knowing when training is done: bounds on the gain that is left, classic backoff, degradation tests."""

from .assessment import Assessment
from .monitor import ConvergenceMonitor

__all__ = ["Assessment", "ConvergenceMonitor"]
