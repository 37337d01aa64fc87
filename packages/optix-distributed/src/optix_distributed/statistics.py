"""What the learner counts of its actors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optix_distributed.transport import ActorHealth


@dataclass(kw_only=True)
class Statistics:
    """Counters of a run.

    Attributes:
        env_steps: taken by the learner.
        lags: number of trajectories by how many updates old their policy was.
        dropped: trajectories that were too old to learn from.
        seconds: the learner's, ``waiting`` for trajectories, ``transfer`` (decoding, joining, publishing) and
            ``learning`` (whatever happened between two windows).
    """

    env_steps: int = 0
    lags: dict[int, int] = field(default_factory=dict)
    dropped: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"waiting": 0.0, "transfer": 0.0, "learning": 0.0})
    _began: float | None = None
    _until: float = 0.0

    def begin(self) -> None:
        """Hear that the first trajectory is waited for."""
        if self._began is None:
            self._began = time.perf_counter()

    def took(self, lag: int) -> None:
        """Count a trajectory that is learned from."""
        self.lags[lag] = self.lags.get(lag, 0) + 1

    def collected(self, env_steps: int) -> None:
        """Count a window."""
        self.env_steps += env_steps
        self._until = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first wait to the latest window."""
        return 0.0 if self._began is None else self._until - self._began

    def summary(self, actors: Sequence[ActorHealth]) -> dict[str, Any]:
        """Return everything as plain numbers and texts, with what the actors say of themselves."""
        trajectories = sum(self.lags.values())
        elapsed = self.elapsed_s
        return {
            "env_steps": self.env_steps,
            "seconds": elapsed,
            "steps_per_second": self.env_steps / elapsed if elapsed > 0 else 0.0,
            "trajectories": trajectories,
            "lag_mean": sum(lag * count for lag, count in self.lags.items()) / max(trajectories, 1),
            "lag_max": max(self.lags, default=0),
            "dropped": self.dropped,
            "restarts": sum(actor.incarnation for actor in actors),
            "given_up": sum(actor.state == "given up" for actor in actors),
            "learner_seconds": dict(self.seconds),
            "actors": [
                {
                    "actor": actor.actor,
                    "state": actor.state,
                    "incarnation": actor.incarnation,
                    "env_steps": actor.env_steps,
                    "steps_per_second": actor.env_steps / elapsed if elapsed > 0 else 0.0,
                    "failures": list(actor.failures),
                    "seconds": dict(actor.seconds),
                }
                for actor in actors
            ],
        }
