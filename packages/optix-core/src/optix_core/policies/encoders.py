"""From an environment's observations to the float32 rows that networks take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from optix_core.errors import ConfigError
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    import gymnasium as gym


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """Observations of any shape as flat rows.

    Attributes:
        shape: shape of one observation.
        dtype: what environments give them as.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[D]``, what :meth:`__call__` makes of one observation."""
        return (int(np.prod(self.shape)),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, D]`` float32 for ``[N, *shape]``."""
        if observations.ndim != 2:
            observations = observations.reshape(len(observations), -1)
        return observations.astype(np.float32, copy=False)

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {"kind": "flatten", "shape": np.array(self.shape, np.int64), "dtype": self.dtype}


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """Whole numbers as one-hot vectors side by side.

    Attributes:
        nvec: number of values of each component.
        start: smallest value of each component.
        shape: shape of one observation, ``()`` for a Discrete space.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    dtype = "int64"

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[sum(nvec)]``."""
        return (sum(self.nvec),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, sum(nvec)]`` float32 for whole numbers ``[N, *shape]``."""
        offsets = np.cumsum([0, *self.nvec[:-1]]) - np.array(self.start)
        columns = observations.reshape(len(observations), -1).astype(np.int64) + offsets
        encoded = np.zeros((len(columns), sum(self.nvec)), np.float32)
        np.put_along_axis(encoded, columns, 1.0, axis=1)
        return encoded

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {
            "kind": "one_hot",
            "nvec": np.array(self.nvec, np.int64),
            "start": np.array(self.start, np.int64),
            "shape": np.array(self.shape, np.int64),
        }


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Observations as they are: images for a convolutional network, or input for a user's own module.

    Attributes:
        shape: shape of one observation.
        dtype: what environments give them as.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The shape itself."""
        return self.shape

    def __call__(self, observations: Array) -> Array:
        """Return the observations unchanged."""
        return observations

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {"kind": "keep", "shape": np.array(self.shape, np.int64), "dtype": self.dtype}


Encoder: TypeAlias = Flatten | OneHot | Keep


def is_image_space(space: gym.Space[Any]) -> bool:
    """Whether a space holds images: uint8, three axes, at least 36 pixels high and wide (channels first or last)."""
    if space.dtype != np.uint8 or space.shape is None or len(space.shape) != 3:
        return False
    return sorted(space.shape)[1] >= 36


def encoder_for(space: gym.Space[Any]) -> Encoder:
    """Return the encoder that makes the observations of a space fit for an MLP (images: unchanged, for a CNN).

    Those of a Dict or Tuple are expected flat, as pipelines deliver them.

    Raises:
        ConfigError: a space without an array form (Text, Graph, ...).
    """
    from gymnasium import spaces

    from optix_core.environments.flattening import flat_space

    space = flat_space(space)
    if isinstance(space, spaces.Discrete):
        return OneHot(nvec=(int(space.n),), start=(int(space.start),), shape=())
    if isinstance(space, spaces.MultiDiscrete):
        nvec, start = space.nvec.reshape(-1), space.start.reshape(-1)
        return OneHot(nvec=tuple(map(int, nvec)), start=tuple(map(int, start)), shape=space.shape)
    if isinstance(space, spaces.Box | spaces.MultiBinary) and space.shape is not None:
        kind = Keep if is_image_space(space) else Flatten
        return kind(shape=space.shape, dtype=str(space.dtype))
    raise ConfigError(
        f"Observation space {type(space).__name__} is not supported: wrap the environment so that it observes a Box, "
        "Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
    )


def encoder_from_tree(tree: StateTree) -> Encoder:
    """Return the encoder whose ``tree()`` this is.

    Raises:
        ValueError: a kind that this version does not know.
    """
    shape = tuple(map(int, tree["shape"]))
    if tree["kind"] == "flatten":
        return Flatten(shape=shape, dtype=tree.get("dtype", "float32"))
    if tree["kind"] == "keep":
        return Keep(shape=shape, dtype=tree.get("dtype", "float32"))
    if tree["kind"] == "one_hot":
        return OneHot(nvec=tuple(map(int, tree["nvec"])), start=tuple(map(int, tree["start"])), shape=shape)
    raise ValueError(f"Unknown observation encoder '{tree['kind']}'; update optix-core.")
