"""Bounded storage of a learning curve in disjoint windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Curve:
    """Learning curve of disjoint windows; merges them in pairs when more than ``capacity`` are held.

    Disjoint means of disjoint means are batch means, so everything that is computed from batch means is unaffected by
    the merging as long as a batch holds more than one slot. Every episode counts alike: a merged slot holds the mean
    over all episodes of its windows, and knows how many they are. Memory is O(``capacity``) and a window costs O(1)
    amortised.

    Args:
        capacity: Most slots that are held, an even number.
    """

    def __init__(self, *, capacity: int = 4096) -> None:
        if capacity < 4 or capacity % 2:
            raise ValueError(f"capacity must be an even number of at least 4, got {capacity}")
        self._capacity = capacity
        self._steps = np.empty(capacity)
        self._scores = np.empty(capacity)
        self._episodes = np.empty(capacity)
        self._size = 0
        self._per_slot = 1
        self._open_score = 0.0
        self._open_episodes = 0.0
        self._open_count = 0
        self.num_windows = 0

    def append(self, env_steps: float, score: float, episodes: float = 1.0) -> None:
        """Add the window that ended at ``env_steps`` (cumulative) with mean ``score`` over ``episodes`` episodes."""
        self.num_windows += 1
        self._open_count += 1
        self._open_episodes += episodes
        # A running mean of deviations: exact where all scores are the same.
        self._open_score += (score - self._open_score) * (episodes / self._open_episodes)
        if self._open_count < self._per_slot:
            return
        if self._size == self._capacity:
            self._merge_pairs()
            if self._open_count < self._per_slot:
                return
        self._steps[self._size] = env_steps
        self._scores[self._size] = self._open_score
        self._episodes[self._size] = self._open_episodes
        self._size += 1
        self._open_score, self._open_episodes, self._open_count = 0.0, 0.0, 0

    def _merge_pairs(self) -> None:
        half = self._capacity // 2
        episodes = self._episodes[::2] + self._episodes[1::2]
        change = self._scores[1::2] - self._scores[::2]
        self._scores[:half] = self._scores[::2] + change * (self._episodes[1::2] / episodes)
        self._episodes[:half] = episodes
        self._steps[:half] = self._steps[1::2].copy()
        self._size, self._per_slot = half, 2 * self._per_slot

    @property
    def steps(self) -> NDArray[np.float64]:
        """Cumulative environment steps at the end of each slot, shape ``[n]``."""
        return self._steps[: self._size]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Mean score over the episodes of each slot, shape ``[n]``."""
        return self._scores[: self._size]

    @property
    def episodes(self) -> NDArray[np.float64]:
        """Episodes of each slot, shape ``[n]``."""
        return self._episodes[: self._size]

    def state_dict(self) -> dict[str, Any]:
        """Return the exact contents as JSON-able values."""
        return {
            "capacity": self._capacity,
            "steps": self.steps.tolist(),
            "scores": self.scores.tolist(),
            "episodes": self.episodes.tolist(),
            "per_slot": self._per_slot,
            "open_score": self._open_score,
            "open_episodes": self._open_episodes,
            "open_count": self._open_count,
            "num_windows": self.num_windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; states of release 0.1 know no episodes: one a window.

        Raises:
            ValueError: If the state was written by a curve of another capacity.
        """
        if state["capacity"] != self._capacity:
            raise ValueError(f"this curve holds {self._capacity} windows, the state {state['capacity']}")
        self._size = len(state["steps"])
        self._per_slot = int(state["per_slot"])
        self._steps[: self._size] = state["steps"]
        self._scores[: self._size] = state["scores"]
        self._episodes[: self._size] = state.get("episodes", self._per_slot)
        self._open_count = int(state["open_count"])
        if "open_sum" in state:
            self._open_score = float(state["open_sum"]) / max(1, self._open_count)
            self._open_episodes = float(self._open_count)
        else:
            self._open_score = float(state["open_score"])
            self._open_episodes = float(state["open_episodes"])
        self.num_windows = int(state["num_windows"])
