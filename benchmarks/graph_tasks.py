"""Tasks for graphs that must remember or grow; importing this module registers them with Gymnasium.

``Recall-v0``: a cue of -1 or 1 is shown once, then 0 for eight steps; then the agent is asked, and gets 1 for saying
what it saw. ``Ring-v0``: sixteen points in a square, one after the other; the agent says whether each lies in a ring,
which a line or two cannot tell, and gets 1 for each right answer.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Recall(gym.Env[Any, Any]):
    """Say after eight steps what was shown first; observations are the cue, and whether the agent is asked."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    delay = 8

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self._cue, self._time = int(self.np_random.integers(2)), 0
        return np.array([2 * self._cue - 1, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Wait, or answer."""
        self._time += 1
        asked = self._time > self.delay
        reward = float(asked and int(action) == self._cue)
        return np.array([0, self._time == self.delay], np.float32), reward, asked, False, {}


class Ring(gym.Env[Any, Any]):
    """Say of each point whether its distance from the centre lies between 0.5 and 0.9 (half of the square's area)."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    length = 16

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self._time = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Answer, and see the next point."""
        reward = float(int(action) == int(0.25 < self._point @ self._point < 0.81))
        self._time += 1
        return self._draw(), reward, self._time >= self.length, False, {}

    def _draw(self) -> Any:
        self._point = self.np_random.uniform(-1.0, 1.0, 2)
        return self._point.astype(np.float32)


gym.register("Recall-v0", entry_point=Recall)
gym.register("Ring-v0", entry_point=Ring)
