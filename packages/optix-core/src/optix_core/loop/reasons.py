"""Why a run ended."""

from __future__ import annotations

from enum import StrEnum


class StopReason(StrEnum):
    """Why a run ended."""

    CONVERGED = "converged"
    """The upper bound on the remaining gain fell below the margin."""
    NO_SIGNAL = "no_signal"
    """The score never rose above the untrained level."""
    BUDGET_ENV_STEPS = "budget_env_steps"
    BUDGET_EPISODES = "budget_episodes"
    BUDGET_SECONDS = "budget_seconds"
    EXHAUSTED = "source_exhausted"
    """The pipeline has no more windows."""
    STOPPED = "stopped"
    """``stop()`` was called."""
    INTERRUPTED = "interrupted"
    """Ctrl-C or a termination signal."""
    DIVERGED = "diverged"
    """Weights or losses became NaN or infinite and there was no safe policy to return to."""
    ERROR = "error"
    """The environment, the agent or a callback raised."""
