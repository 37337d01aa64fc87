"""What environments return, in arrays of its own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from optix_core.environments.outcomes import reward_of
from optix_core.errors import EnvError, in_one_line


class Outcomes(gym.Wrapper[Any, Any, Any, Any]):
    """Observations in arrays of their own, and rewards that are numbers.

    Many environments write each observation into the same array. Of an episode's last one only the next reset's values
    would be left by the time it is read; where several environments share the array, of every one.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._shape = env.observation_space.shape  # asking through every wrapper costs as much as a small step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._kept(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if type(reward) is not float:
            reward = reward_of(reward)
        return self._kept(observation), reward, terminated, truncated, info

    def _kept(self, observation: Any) -> Any:
        if type(observation) is np.ndarray and observation.shape == self._shape:
            return observation.copy()
        if self._shape is not None and np.shape(observation) != self._shape:
            shape = list(np.shape(observation))
            what = f"an observation {shape}" if shape else f"the observation {in_one_line(repr(observation))}"
            raise EnvError(
                f"The environment returned {what}, and its observation_space is "
                f"{in_one_line(self.env.observation_space)}: correct one of the two."
            )
        return observation.copy() if isinstance(observation, np.ndarray) else observation
