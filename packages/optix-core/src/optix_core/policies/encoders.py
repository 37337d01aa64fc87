"""From an environment's observations to the float32 rows that networks take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from optix_core.errors import ConfigError, EnvError, in_one_line
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    import gymnasium as gym

    from optix_core.data.normalizers import ObsNormalizer


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """Observations of any shape as flat rows.

    Attributes:
        shape: shape of one observation.
        dtype: what environments give them as.
        parts: names and sizes of the parts that a Dict or Tuple was flattened to, in order; empty for other spaces.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[D]``, what :meth:`__call__` makes of one observation."""
        return (int(np.prod(self.shape)),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, D]`` float32 for ``[N, *shape]``."""
        if observations.ndim != 2:
            observations = observations.reshape(len(observations), -1)
        return observations.astype(np.float32, copy=False)

    def exact(self, observations: Array) -> Array:
        """Return ``[N, D]`` for ``[N, *shape]`` without rounding: float64 where float32 cannot tell all values apart.

        A normaliser takes these, and can then see what is small beside a large offset.
        """
        rows = observations.reshape(len(observations), -1)
        wide = rows.dtype.itemsize > (4 if rows.dtype.kind == "f" else 2)
        return rows.astype(np.float64 if wide else np.float32, copy=False)

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        settings = {"kind": "flatten", "shape": np.array(self.shape, np.int64), "dtype": self.dtype}
        if self.parts:
            settings["parts"] = json.dumps(self.parts)
        return settings


@dataclass(frozen=True, kw_only=True)
class _WholeNumbers:
    """Whole numbers, of which each component is one of few or many.

    Attributes:
        nvec: number of values of each component.
        start: smallest value of each component.
        shape: shape of one observation, ``()`` for a Discrete space.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    dtype = "int64"
    kind = ""

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        sizes = {"nvec": self.nvec, "start": self.start, "shape": self.shape}
        return {"kind": self.kind, **{name: np.array(numbers, np.int64) for name, numbers in sizes.items()}}

    def _choices(self, observations: Array) -> Array:
        """Return whole numbers ``[N, *shape]`` counted from their start, ``[N, components]`` int64.

        Raises:
            EnvError: one is not in its space.
        """
        choices: Array = observations.reshape(len(observations), -1).astype(np.int64) - np.array(self.start)
        outside = choices.astype(np.uint64) >= np.array(self.nvec, np.uint64)
        if outside.any():
            row = int(np.argwhere(outside)[0][0])
            wrong = (choices[row] + np.array(self.start)).reshape(self.shape)
            sizes, start = (self.nvec, self.start) if self.shape else (self.nvec[0], self.start[0])
            begins = f", start={start}" if any(self.start) else ""
            space = f"{'MultiDiscrete' if self.shape else 'Discrete'}({sizes}{begins})"
            raise EnvError(
                f"The environment returned the observation {in_one_line(wrong)}, which is not in its "
                f"{in_one_line(space)}. Mend the environment, or its observation_space."
            )
        return choices


@dataclass(frozen=True, kw_only=True)
class OneHot(_WholeNumbers):
    """Whole numbers as one-hot vectors side by side."""

    kind = "one_hot"

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[sum(nvec)]``."""
        return (sum(self.nvec),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, sum(nvec)]`` float32 for whole numbers ``[N, *shape]``."""
        columns = self._choices(observations) + np.cumsum([0, *self.nvec[:-1]])
        encoded = np.zeros((len(columns), sum(self.nvec)), np.float32)
        np.put_along_axis(encoded, columns, 1.0, axis=1)
        return encoded


@dataclass(frozen=True, kw_only=True)
class Bits(_WholeNumbers):
    """Whole numbers in the binary system, for spaces with too many values for one-hot vectors."""

    kind = "bits"

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The component and the bit, from the lowest on, that each encoded number is."""
        return tuple((i, bit) for i, size in enumerate(self.nvec) for bit in range(max(1, (size - 1).bit_length())))

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[D]``, the number of bits of all components."""
        return (len(self.places),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, D]`` float32 of 0 and 1 for whole numbers ``[N, *shape]``."""
        components, bits = np.array(self.places).T
        encoded: Array = (self._choices(observations)[:, components] >> bits & 1).astype(np.float32)
        return encoded


MOST_ONE_HOT = 10_000
"""Whole numbers of more values than this, all components together, are given in the binary system."""


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


Encoder: TypeAlias = Flatten | OneHot | Bits | Keep


def is_image_space(space: gym.Space[Any]) -> bool:
    """Whether a space holds images: uint8, three axes, at least 36 pixels high and wide (channels first or last)."""
    if space.dtype != np.uint8 or space.shape is None or len(space.shape) != 3:
        return False
    return sorted(space.shape)[1] >= 36


def whole_numbers_of(space: Any) -> OneHot | Bits:
    """Return the encoder of a Discrete or MultiDiscrete: one-hot vectors, or bits where these would be too long."""
    sizes = np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))).reshape(-1)
    nvec, start = tuple(map(int, sizes)), tuple(map(int, np.atleast_1d(space.start).reshape(-1)))
    kind = OneHot if sum(nvec) <= MOST_ONE_HOT else Bits
    return kind(nvec=nvec, start=start, shape=tuple(space.shape))


def encoder_for(space: gym.Space[Any]) -> Encoder:
    """Return the encoder that makes the observations of a space fit for an MLP (images: unchanged, for a CNN).

    Those of a Dict or Tuple are expected flat, as pipelines deliver them.

    Raises:
        ConfigError: a space without an array form (Text, Graph, ...).
    """
    from gymnasium import spaces

    from optix_core.environments.flattening import flat_space

    space = flat_space(space)
    if space.shape is not None and 0 in space.shape:
        raise ConfigError(f"There is nothing to see in the observation space {in_one_line(space)}: show a constant.")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return whole_numbers_of(space)
    if isinstance(space, spaces.Box | spaces.MultiBinary) and space.shape is not None:
        if is_image_space(space):
            return Keep(shape=space.shape, dtype=str(space.dtype))
        return Flatten(shape=space.shape, dtype=str(space.dtype), parts=getattr(space, "parts", ()))
    raise ConfigError(
        f"Observation space {type(space).__name__} is not supported: wrap the environment so that it observes a Box, "
        "Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
    )


def unrounded(encoder: Encoder, observations: Array) -> Array:
    """Return observations ``[N, *obs]`` as rows for a normaliser: :meth:`Flatten.exact` where there is a choice."""
    return encoder.exact(observations) if isinstance(encoder, Flatten) else encoder(observations)


def encoded(encoder: Encoder, normalizer: ObsNormalizer | None, observations: Array) -> Array:
    """Return observations ``[N, *obs]`` as networks take them: encoded, and normalised where that is wanted."""
    return encoder(observations) if normalizer is None else normalizer(unrounded(encoder, observations))


def example_observations(encoder: Encoder, size: int, dtype: npt.DTypeLike | None = None) -> Array:
    """Return observations ``[size, *shape]`` that an encoder takes, to try networks on: zeros where these are any.

    Args:
        encoder: what takes them.
        size: how many.
        dtype: what they are, where the encoder does not say it.
    """
    if isinstance(encoder, OneHot | Bits):
        smallest = np.array(encoder.start, np.int64).reshape(encoder.shape)
        return np.broadcast_to(smallest, (size, *encoder.shape)).copy()
    return np.zeros((size, *encoder.shape), encoder.dtype if dtype is None else dtype)


def parts_of(encoder: Encoder) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of the parts that observations were flattened from, in order; empty where not known."""
    return encoder.parts if isinstance(encoder, Flatten) else ()


def encoder_from_tree(tree: StateTree) -> Encoder:
    """Return the encoder whose ``tree()`` this is.

    Raises:
        ValueError: a kind that this version does not know.
    """
    shape = tuple(map(int, tree["shape"]))
    if tree["kind"] == "flatten":
        parts = tuple((str(name), int(size)) for name, size in json.loads(tree.get("parts", "[]")))
        return Flatten(shape=shape, dtype=tree.get("dtype", "float32"), parts=parts)
    if tree["kind"] == "keep":
        return Keep(shape=shape, dtype=tree.get("dtype", "float32"))
    if tree["kind"] in ("one_hot", "bits"):
        kind = OneHot if tree["kind"] == "one_hot" else Bits
        return kind(nvec=tuple(map(int, tree["nvec"])), start=tuple(map(int, tree["start"])), shape=shape)
    raise ValueError(f"Unknown observation encoder '{tree['kind']}'; update optix-core.")
