"""The loop: collect, learn, score, decide, remember."""

from optix_core.journal.journal import Journal, read_events
from optix_core.loop.branching import branch
from optix_core.loop.budget import Budget, Progress, StopReason
from optix_core.loop.decision import Action, Decision, Evidence, decide
from optix_core.loop.result import RunResult
from optix_core.loop.rl_optimizer import RLOptimizer

__all__ = [
    "Action",
    "Budget",
    "Decision",
    "Evidence",
    "Journal",
    "Progress",
    "RLOptimizer",
    "RunResult",
    "StopReason",
    "branch",
    "decide",
    "read_events",
]
