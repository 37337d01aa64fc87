"""Wrappers of our own: options with every reset, and stacks of observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation

from optix_core.environments.making import blaming_environment
from optix_core.errors import EnvError


class ResetOptions(gym.Wrapper[Any, Any, Any, Any]):
    """Passes options with every reset; what a caller passes goes before them.

    Args:
        env: what is wrapped.
        options: by name.
    """

    def __init__(self, env: gym.Env[Any, Any], options: Mapping[str, Any]) -> None:
        super().__init__(env)
        self.options = dict(options)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        return self.env.reset(seed=seed, options={**self.options, **(options or {})})


class JoinedChannels(gym.ObservationWrapper[Any, Any, Any]):
    """Shows stacks of pictures ``[k, H, W, C]`` as ``[H, W, k C]``, and ``[k, C, H, W]`` as ``[k C, H, W]``."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        self._first = space.shape[1] <= space.shape[3]
        low, high = self.observation(space.low), self.observation(space.high)
        self.observation_space = gym.spaces.Box(low, high, dtype=low.dtype.type)

    def observation(self, observation: Any) -> Any:
        """Join the axis of time with that of the channels."""
        array = np.asarray(observation)
        if self._first:
            return array.reshape(-1, *array.shape[2:])
        return np.moveaxis(array, 0, 2).reshape(*array.shape[1:3], -1)


def stack_frames(env: gym.Env[Any, Any], frames: int) -> gym.Env[Any, Any]:
    """Return an environment that shows its latest observations as one; an episode begins with its first one repeated.

    Pictures stay pictures: grey ones ``[H, W]`` become ``[k, H, W]``, coloured ones get ``k`` times the channels. Of
    other observations ``k`` rows are shown.

    Args:
        env: shows arrays.
        frames: how many, ``k``.

    Raises:
        EnvError: observations that cannot be stacked, or are stacks already.
    """
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, FrameStackObservation):
            raise EnvError("This environment shows stacks of observations already: leave --frame-stack out.")
        layer = layer.env
    with blaming_environment("when its observations were stacked"):
        shape = env.observation_space.shape
        stacked: gym.Env[Any, Any] = FrameStackObservation(env, frames)
        return JoinedChannels(stacked) if shape is not None and len(shape) == 3 else stacked
