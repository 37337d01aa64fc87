"""From an environment's observations to the float32 rows that networks take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from optix_core.errors import ConfigError, in_one_line
from optix_core.policies.images import is_image_space
from optix_core.policies.whole_numbers import MOST_ONE_HOT as MOST_ONE_HOT
from optix_core.policies.whole_numbers import Bits as Bits
from optix_core.policies.whole_numbers import OneHot as OneHot
from optix_core.policies.whole_numbers import whole_numbers_of as whole_numbers_of
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
        pictures: where each picture among them begins, and its shape: networks see them by convolutions, and no
            normaliser touches them.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    parts: tuple[tuple[str, int], ...] = ()
    pictures: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """``[D]``, what :meth:`__call__` makes of one observation."""
        return (int(np.prod(self.shape)),)

    def __call__(self, observations: Array) -> Array:
        """Return ``[N, D]`` float32 for ``[N, *shape]``."""
        if observations.ndim != 2:
            observations = observations.reshape(len(observations), -1)
        return observations.astype(np.float32, copy=False)

    @property
    def in_pictures(self) -> Array:
        """Bool ``[D]``, which numbers are pixels."""
        pixels = np.zeros(self.encoded_shape, np.bool_)
        for begin, shape in self.pictures:
            pixels[begin : begin + int(np.prod(shape))] = True
        return pixels

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
        if self.pictures:
            settings["pictures"] = json.dumps(self.pictures)
        return settings


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


def encoder_for(space: gym.Space[Any]) -> Encoder:
    """Return the encoder that makes the observations of a space fit for an MLP (images: unchanged, for a CNN).

    Those of a Dict or Tuple are expected flat, as pipelines deliver them.

    Raises:
        ConfigError: a space without an array form (Text, Graph, ...).
    """
    from gymnasium import spaces

    from optix_core.policies.flat_spaces import flat_space

    space = flat_space(space)
    if space.shape is not None and 0 in space.shape:
        raise ConfigError(f"There is nothing to see in the observation space {in_one_line(space)}: show a constant.")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return whole_numbers_of(space)
    if isinstance(space, spaces.Box | spaces.MultiBinary) and space.shape is not None:
        if is_image_space(space):
            return Keep(shape=space.shape, dtype=str(space.dtype))
        known = {name: getattr(space, name, ()) for name in ("parts", "pictures")}
        return Flatten(shape=space.shape, dtype=str(space.dtype), **known)
    raise ConfigError(
        f"Observation space {type(space).__name__} is not supported: wrap the environment so that it observes a Box, "
        "Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
    )


def unrounded(encoder: Encoder, observations: Array) -> Array:
    """Return observations ``[N, *obs]`` as rows for a normaliser: :meth:`Flatten.exact` where there is a choice."""
    return encoder.exact(observations) if isinstance(encoder, Flatten) else encoder(observations)


def encoded(encoder: Encoder, normalizer: ObsNormalizer | None, observations: Array) -> Array:
    """Return observations ``[N, *obs]`` as networks take them: encoded, and normalised where that is wanted."""
    if normalizer is None:
        return encoder(observations)
    flat = unrounded(encoder, observations)
    rows = normalizer(flat)
    for begin, shape in encoder.pictures if isinstance(encoder, Flatten) else ():
        place = slice(begin, begin + int(np.prod(shape)))
        rows[:, place] = flat[:, place]
    return rows


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
        pictures = tuple((int(begin), tuple(map(int, size))) for begin, size in json.loads(tree.get("pictures", "[]")))
        return Flatten(shape=shape, dtype=tree.get("dtype", "float32"), parts=parts, pictures=pictures)
    if tree["kind"] == "keep":
        return Keep(shape=shape, dtype=tree.get("dtype", "float32"))
    if tree["kind"] in ("one_hot", "bits"):
        kind = OneHot if tree["kind"] == "one_hot" else Bits
        return kind(nvec=tuple(map(int, tree["nvec"])), start=tuple(map(int, tree["start"])), shape=shape)
    raise ValueError(f"Unknown observation encoder '{tree['kind']}'; update optix-core.")
