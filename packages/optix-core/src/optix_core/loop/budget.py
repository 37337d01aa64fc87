"""How far a run is and how far it may go."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optix_core.errors import ConfigError, real_number, whole_number
from optix_core.loop.capabilities import JoinsUpdates
from optix_core.loop.reasons import StopReason as StopReason

EVALUATION_SHARE = 0.1
"""Validation, and what confirms a suspected degradation, may each cost at most this share of the training steps."""


def fit_updates(source: object, env_steps: int, max_env_steps: int) -> None:
    """Let a source that joins collections to windows join no more than the budget holds.

    Args:
        source: a pipeline, or agents of many seeds; one that joins nothing is left alone.
        env_steps: of one collection.
        max_env_steps: budget of the run.
    """
    if isinstance(source, JoinsUpdates):
        source.updates_per_window = min(source.updates_per_window, max(1, max_env_steps // env_steps))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counters of a run.

    Attributes:
        num_windows: windows collected.
        num_env_steps: environment steps that were learned from.
        num_episodes: episodes that ended while training.
        elapsed_s: seconds since the run began.
        window_env_steps: rows of the latest window: the most environment steps that the next one can have.
        search_env_steps: environment steps of branches that tried out other hyperparameters.
    """

    num_windows: int = 0
    num_env_steps: int = 0
    num_episodes: int = 0
    elapsed_s: float = 0.0
    window_env_steps: int = 0
    search_env_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a run; None is no limit.

    Attributes:
        max_env_steps: environment steps of training, those of branches included. The run ends before the window that
            would exceed it.
        max_episodes: environment episodes that end while training.
        max_seconds: wall-clock seconds of training; the final evaluation comes on top.
    """

    max_env_steps: int | None = None
    max_episodes: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check every limit; whole numbers may come as floats or NumPy scalars and are stored as ints."""
        for name, limit in (("max_env_steps", self.max_env_steps), ("max_episodes", self.max_episodes)):
            if limit is not None:
                object.__setattr__(self, name, whole_number(name, limit))
        if self.max_seconds is not None and self.max_seconds != math.inf:
            real_number("max_seconds", self.max_seconds)
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be positive or None, got {value}.")

    def share_used(self, progress: Progress) -> float | None:
        """Return which share (0 to 1) of the steps or episodes is used, the larger one; None without either limit.

        Time is left out: what depends on the share has to come out the same on every machine.
        """
        shares = []
        if self.max_env_steps is not None:
            shares.append((progress.num_env_steps + progress.search_env_steps) / self.max_env_steps)
        if self.max_episodes is not None:
            shares.append(progress.num_episodes / self.max_episodes)
        return min(1.0, max(shares)) if shares else None

    def exceeded(self, progress: Progress) -> StopReason | None:
        """Return which limit leaves no room for another window like the latest, if any."""
        needed = progress.num_env_steps + progress.search_env_steps + progress.window_env_steps
        if self.max_env_steps is not None and needed > self.max_env_steps:
            return StopReason.BUDGET_ENV_STEPS
        if self.max_episodes is not None and progress.num_episodes >= self.max_episodes:
            return StopReason.BUDGET_EPISODES
        if self.max_seconds is not None and progress.elapsed_s >= self.max_seconds:
            return StopReason.BUDGET_SECONDS
        return None
