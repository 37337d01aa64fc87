"""Bounded storage of a learning curve in disjoint windows of equal weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Curve:
    """Learning curve of disjoint windows; merges them in pairs when more than ``capacity`` are held.

    Disjoint means of disjoint means are batch means, so everything that is computed from batch means is
    unaffected by the merging as long as a batch holds more than one stored window. Memory is
    O(``capacity``) and a window costs O(1) amortised.

    Args:
        capacity: Most windows that are held, an even number.
    """

    def __init__(self, *, capacity: int = 4096) -> None:
        if capacity < 4 or capacity % 2:
            raise ValueError(f"capacity must be an even number of at least 4, got {capacity}")
        self._capacity = capacity
        self._steps = np.empty(capacity)
        self._scores = np.empty(capacity)
        self._size = 0
        self._per_slot = 1
        self._open_sum = 0.0
        self._open_count = 0
        self.num_windows = 0

    def append(self, env_steps: float, score: float) -> None:
        """Add the window that ended at ``env_steps`` (cumulative) with mean score ``score``."""
        self.num_windows += 1
        self._open_sum += score
        self._open_count += 1
        if self._open_count < self._per_slot:
            return
        if self._size == self._capacity:
            half = self._capacity // 2
            self._scores[:half] = self._scores.reshape(half, 2).mean(axis=1)
            self._steps[:half] = self._steps[1::2].copy()
            self._size, self._per_slot = half, 2 * self._per_slot
            if self._open_count < self._per_slot:
                return
        self._steps[self._size] = env_steps
        self._scores[self._size] = self._open_sum / self._open_count
        self._size += 1
        self._open_sum, self._open_count = 0.0, 0

    @property
    def steps(self) -> NDArray[np.float64]:
        """Cumulative environment steps at the end of each stored window, shape ``[n]``."""
        return self._steps[: self._size]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Mean score of each stored window, shape ``[n]``."""
        return self._scores[: self._size]

    def state_dict(self) -> dict[str, Any]:
        """Return the exact contents as JSON-able values."""
        return {
            "capacity": self._capacity,
            "steps": self.steps.tolist(),
            "scores": self.scores.tolist(),
            "per_slot": self._per_slot,
            "open_sum": self._open_sum,
            "open_count": self._open_count,
            "num_windows": self.num_windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ValueError: If the state was written by a curve of another capacity.
        """
        if state["capacity"] != self._capacity:
            raise ValueError(f"this curve holds {self._capacity} windows, the state {state['capacity']}")
        self._size = len(state["steps"])
        self._steps[: self._size] = state["steps"]
        self._scores[: self._size] = state["scores"]
        self._per_slot = int(state["per_slot"])
        self._open_sum = float(state["open_sum"])
        self._open_count = int(state["open_count"])
        self.num_windows = int(state["num_windows"])
