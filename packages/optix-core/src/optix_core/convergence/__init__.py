"""Knowing when training is done: bounds on the gain that is left, classic backoff, degradation tests."""

from .assessment import Assessment
from .backoff import BackoffScheduler
from .degradation import Confirmation, DegradationTest, Screen
from .drift import DriftTest
from .monitor import ConvergenceMonitor
from .settings import MonitorSettings
from .watchdog import Watchdog

__all__ = [
    "Assessment",
    "BackoffScheduler",
    "Confirmation",
    "ConvergenceMonitor",
    "DegradationTest",
    "DriftTest",
    "MonitorSettings",
    "Screen",
    "Watchdog",
]
