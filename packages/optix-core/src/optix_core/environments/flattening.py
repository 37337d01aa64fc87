"""Observations of several parts (Dict, Tuple) as flat vectors, in the order of their space."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from optix_core.errors import ConfigError, EnvError, OptixWarning, in_one_line
from optix_core.policies.encoders import Bits, OneHot, whole_numbers_of
from optix_protocol import Array


class FlatBox(spaces.Box):
    """The space of flat vectors, which knows what they were made from.

    Attributes:
        parts: names and sizes of the parts, in order; ``"goal.place"`` is part ``place`` of part ``goal``.
    """

    parts: tuple[tuple[str, int], ...] = ()

    def __eq__(self, other: object) -> bool:
        """Whether the vectors are the same, their parts in the same order: equal Dicts may differ in that."""
        same_parts = not isinstance(other, FlatBox) or self.parts == other.parts
        return same_parts and super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as Box


class _Part(NamedTuple):
    """A part of an observation that is no Dict or Tuple itself.

    Attributes:
        keys: where it is.
        space: what it is in.
    """

    keys: tuple[Any, ...]
    space: gym.Space[Any]

    @property
    def name(self) -> str:
        return ".".join(map(str, self.keys))


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
        parts = list(_parts(space, ()))
        self._parts = [part for part in parts if _has_array_form(part.space)]
        self.left_out = tuple(part.name for part in parts if not _has_array_form(part.space))
        if not self._parts:
            raise ConfigError(
                f"Observation space {type(space).__name__} is not supported: wrap the environment so that it observes "
                "a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple with such parts."
            )
        boxes = [_flat_part(part.space) for part in self._parts]
        self.space = FlatBox(
            low=np.concatenate([box.low for box in boxes]),
            high=np.concatenate([box.high for box in boxes]),
            dtype=np.result_type(*[box.dtype for box in boxes]).type,
        )
        self.space.parts = tuple((part.name, box.shape[0]) for part, box in zip(self._parts, boxes, strict=True))
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


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of the flat vectors for a Dict or Tuple, any other space as it is."""
    return Flattener(space).space if isinstance(space, spaces.Dict | spaces.Tuple) else space


def flat_size(space: gym.Space[Any]) -> int:
    """Return how many numbers of a flat vector a part takes that is no Dict or Tuple; 0 if it is left out."""
    return int(_flat_part(space).shape[0]) if _has_array_form(space) else 0


def flat_sizes(space: spaces.Dict) -> dict[str, int]:
    """Return how many numbers of a flat vector each part of a Dict takes, in order; 0 for what is left out."""
    sizes = dict.fromkeys(space.spaces, 0)
    for part in _parts(space, ()):
        sizes[part.keys[0]] += flat_size(part.space)
    return sizes


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


def _parts(space: gym.Space[Any], keys: tuple[Any, ...]) -> Iterator[_Part]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _parts(part, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _parts(part, (*keys, index))
    else:
        yield _Part(keys, space)


def _has_array_form(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text)


def _flat_part(space: gym.Space[Any]) -> spaces.Box:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        encoder = whole_numbers_of(space)
        if isinstance(encoder, Bits):
            return spaces.Box(0, 1, encoder.encoded_shape, np.int64)
    box = spaces.flatten_space(space)
    assert isinstance(box, spaces.Box)
    return box


def _encoder_of(part: _Part) -> Callable[[Any, bool], Array]:
    """Return a function from a part's value, and whether nobody will judge it, to its vector."""
    space, dtype = part.space, _flat_part(part.space).dtype
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
