"""Observations of several parts (Dict, Tuple) as flat vectors, in the order of their space."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from optix_protocol import Array


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of the flat vectors for a Dict or Tuple, any other space as it is."""
    return spaces.flatten_space(space) if isinstance(space, spaces.Dict | spaces.Tuple) else space


def flat_vector(envs: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return a vector environment whose observations are arrays."""
    parts = isinstance(envs.single_observation_space, spaces.Dict | spaces.Tuple)
    return FlatVectorEnv(envs) if parts else envs


class FlatVectorEnv(gym.vector.VectorWrapper):
    """Flattens the observations of a vector environment, the final ones of its episodes too."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self._parts = env.single_observation_space
        self.single_observation_space = spaces.flatten_space(self._parts)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        observations, info = self.env.reset(seed=seed, options=options)
        return self._flatten(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            finals = np.empty(self.num_envs, object)
            for index in np.flatnonzero(info["_final_obs"]):
                finals[index] = spaces.flatten(self._parts, info["final_obs"][index])
            info = {**info, "final_obs": finals}
        return self._flatten(observations), rewards, terminated, truncated, info

    def _flatten(self, observations: Any) -> Array:
        rows = iterate(self.env.observation_space, observations)
        return np.stack([np.asarray(spaces.flatten(self._parts, row)) for row in rows])
