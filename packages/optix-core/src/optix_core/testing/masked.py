"""An environment in which most actions are forbidden at most times, in each of the ways that environments say so."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_protocol import Array


class MaskedChoice(gym.Env[Any, Any]):
    """Every action has a worth that is shown; a few, drawn anew for every step, are allowed.

    The reward is the worth of what was chosen. What is forbidden is worth nothing and ends the episode. What is allowed
    is shown beside the worths, so that an agent without masks can learn to keep to it, in time.

    Its infos have ``is_success`` (the best allowed action was chosen in 8 of 10 steps, to the end) and ``forbidden``
    (1 where that ended the episode).

    Args:
        num_actions: ``A``.
        num_allowed: how many of them are allowed.
        length: steps of an episode.
        start: the smallest action.
        tell: how masks are told: in ``info["action_mask"]``, as a part of a Dict observation, by the method
            ``action_masks()``, or not at all (None).
    """

    def __init__(
        self,
        *,
        num_actions: int = 16,
        num_allowed: int = 4,
        length: int = 10,
        start: int = 0,
        tell: Literal["info", "observation", "method"] | None = "info",
    ) -> None:
        self.action_space = spaces.Discrete(num_actions, start=start)
        shown = spaces.Box(0.0, 1.0, (2 * num_actions,))
        mask = spaces.MultiBinary(num_actions)
        is_part = tell == "observation"
        self.observation_space: gym.Space[Any] = (
            spaces.Dict({"choices": shown, "action_mask": mask}) if is_part else shown
        )
        self._num_allowed, self._length, self._tell = num_allowed, length, tell
        self._worths, self._mask = np.zeros(num_actions), np.ones(num_actions, np.bool_)
        self._t = self._num_best = 0
        if tell == "method":
            self.action_masks = lambda: self._mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self._t = self._num_best = 0
        self._draw()
        return self._shown(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Choose."""
        chosen = int(action) - int(self.action_space.start)  # type: ignore[attr-defined]
        is_allowed = bool(self._mask[chosen])
        self._num_best += chosen == np.where(self._mask, self._worths, -1.0).argmax()
        reward = float(self._worths[chosen]) if is_allowed else 0.0
        self._t += 1
        over = not is_allowed or self._t == self._length
        self._draw()
        if over:
            self._mask[:] = False  # as in a game that is lost
        ending = {"is_success": is_allowed and self._num_best >= 0.8 * self._length, "forbidden": float(not is_allowed)}
        return self._shown(), reward, over, False, {**self._info(), **ending}

    def _draw(self) -> None:
        size = len(self._mask)
        self._worths = self.np_random.random(size)
        self._mask = np.zeros(size, np.bool_)
        self._mask[self.np_random.permutation(size)[: self._num_allowed]] = True

    def _shown(self) -> Any:
        shown: Array = np.concatenate([self._worths, self._mask]).astype(np.float32)
        return {"choices": shown, "action_mask": self._mask.astype(np.int8)} if self._tell == "observation" else shown

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._mask.copy()} if self._tell == "info" else {}
