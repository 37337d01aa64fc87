"""Tasks that need a memory; importing this module registers them with Gymnasium.

``CartPoleMasked-v1`` is CartPole-v1 whose observations are the positions of cart and pole, without their velocities.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

POSITIONS = [0, 2]


class CartPoleMasked(CartPoleEnv):
    """CartPole that shows positions only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        low, high = self.observation_space.low[POSITIONS], self.observation_space.high[POSITIONS]
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[POSITIONS], info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Push the cart."""
        observation, *rest = super().step(action)
        return (observation[POSITIONS], *rest)


gym.register("CartPoleMasked-v1", entry_point=CartPoleMasked, max_episode_steps=500, reward_threshold=475.0)
