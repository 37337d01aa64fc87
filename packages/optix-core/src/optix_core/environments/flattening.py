"""Observations of several parts (Dict, Tuple) as flat vectors, in the order of their space."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from optix_core.errors import EnvError, OptixWarning, in_one_line
from optix_core.policies.flat_spaces import FlatBox as FlatBox
from optix_core.policies.flat_spaces import Part, array_parts, flat_box, flat_part, has_array_form, parts_in
from optix_core.policies.flat_spaces import flat_size as flat_size
from optix_core.policies.flat_spaces import flat_sizes as flat_sizes
from optix_core.policies.flat_spaces import flat_space as flat_space
from optix_core.policies.whole_numbers import Bits, OneHot, whole_numbers_of
from optix_protocol import Array


class Flattener:
    """Turns observations of several parts into flat vectors.

    Each part is encoded as ``gymnasium.spaces.flatten`` does, whole numbers of very many values in the binary system.
    Parts that have no array form (Text of a mission, Graph, Sequence) are left out, with a warning.

    Args:
        space: a Dict or Tuple.

    Attributes:
        space: of the flat vectors.
        left_out: names of the parts that are not in them.

    Raises:
        ConfigError: (a ``ValueError``) no part has an array form.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._parts = array_parts(space)
        self.left_out = tuple(part.name for part in parts_in(space) if not has_array_form(part.space))
        self.space = flat_box(space, self._parts)
        self._encoders = [_encoder_of(part) for part in self._parts]

    def __call__(self, observation: Any, *, is_last: bool = False) -> Array:
        """Return the vector of one observation.

        Args:
            observation: nested as the space is.
            is_last: its episode has terminated, so that nobody will judge it: a whole number that its space lacks is
                all zeros then.

        Raises:
            EnvError: a part is missing, or not in its space.
        """
        vectors = []
        for part, encode in zip(self._parts, self._encoders, strict=True):
            value = observation
            try:
                for key in part.keys:
                    value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise EnvError(f"The environment returned an observation without its part '{part.name}'.") from error
            vectors.append(encode(value, is_last))
        return np.concatenate(vectors)

    def warn(self) -> None:
        """Say what is left out, if anything is."""
        if self.left_out:
            several = len(self.left_out) > 1
            warnings.warn(
                f"The part{'s' if several else ''} {', '.join(self.left_out)} of the observations "
                f"{'have' if several else 'has'} no array form and {'are' if several else 'is'} left out.",
                OptixWarning,
                stacklevel=3,
            )


def flat_env(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment whose observations are arrays."""
    return FlatEnv(env) if isinstance(env.observation_space, spaces.Dict | spaces.Tuple) else env


def flat_vector(envs: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return a vector environment whose observations are arrays."""
    parts = isinstance(envs.single_observation_space, spaces.Dict | spaces.Tuple)
    return FlatVectorEnv(envs) if parts else envs


class FlatEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Flattens the observations of an environment."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._flatten = Flattener(env.observation_space)
        self._flatten.warn()
        self.observation_space = self._flatten.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flatten(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._flatten(observation, is_last=bool(terminated)), reward, terminated, truncated, info


class FlatVectorEnv(gym.vector.VectorWrapper):
    """Flattens the observations of a vector environment, the final ones of its episodes too."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self._flatten_one = Flattener(env.single_observation_space)
        self._flatten_one.warn()
        self.single_observation_space = self._flatten_one.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        observations, info = self.env.reset(seed=seed, options=options)
        return self._flatten(observations, np.zeros(self.num_envs, bool)), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            finals = np.empty(self.num_envs, object)
            for index in np.flatnonzero(info["_final_obs"]):
                finals[index] = self._flatten_one(info["final_obs"][index], is_last=bool(terminated[index]))
            info = {**info, "final_obs": finals}
        return self._flatten(observations, np.asarray(terminated)), rewards, terminated, truncated, info

    def _flatten(self, observations: Any, is_last: Array) -> Array:
        rows = iterate(self.env.observation_space, observations)
        return np.stack([self._flatten_one(row, is_last=bool(last)) for row, last in zip(rows, is_last, strict=True)])


def _encoder_of(part: Part) -> Callable[[Any, bool], Array]:
    """Return a function from a part's value, and whether nobody will judge it, to its vector."""
    space, dtype = part.space, flat_part(part.space).dtype
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        encoder = whole_numbers_of(space)
        return lambda value, is_last: _choice(encoder, part.name, np.asarray(value)[None], is_last).astype(dtype)
    if isinstance(space, spaces.Text):
        return lambda value, is_last: np.asarray(spaces.flatten(space, value))  # noqa: ARG005

    def flat(value: Any, is_last: bool) -> Array:  # noqa: ARG001
        array = np.asarray(value, dtype)
        if array.shape != space.shape:
            raise EnvError(
                f"The environment returned the part '{part.name}' of an observation as {list(array.shape)}, and its "
                f"space is {in_one_line(space)}: correct one of the two."
            )
        return array.reshape(-1)

    return flat


def _choice(encoder: OneHot | Bits, name: str, values: Array, is_last: bool) -> Array:
    try:
        (vector,) = encoder(values)
        return np.asarray(vector)
    except EnvError as error:
        if is_last:
            return np.zeros(encoder.encoded_shape, np.float32)
        raise EnvError(str(error).replace("the observation", f"the part '{name}' of an observation as", 1)) from None
