"""Spaces of several parts (Dict, Tuple) as spaces of flat vectors, in the order of their parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_core.errors import ConfigError
from optix_core.policies.images import is_image_space
from optix_core.policies.whole_numbers import Bits, whole_numbers_of


class FlatBox(spaces.Box):
    """The space of flat vectors, which knows what they were made from.

    Attributes:
        parts: names and sizes of the parts, in order; ``"goal.place"`` is part ``place`` of part ``goal``.
        pictures: where each picture among them begins, and its shape.
    """

    parts: tuple[tuple[str, int], ...] = ()
    pictures: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __eq__(self, other: object) -> bool:
        """Whether the vectors are the same, their parts in the same order: equal Dicts may differ in that."""
        same_parts = not isinstance(other, FlatBox) or self.parts == other.parts
        return same_parts and super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as Box


class Part(NamedTuple):
    """A part of an observation that is no Dict or Tuple itself.

    Attributes:
        keys: where it is.
        space: what it is in.
    """

    keys: tuple[Any, ...]
    space: gym.Space[Any]

    @property
    def name(self) -> str:
        """Its keys with dots between them."""
        return ".".join(map(str, self.keys))


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of the flat vectors for a Dict or Tuple, any other space as it is.

    Raises:
        ConfigError: (a ``ValueError``) no part has an array form.
    """
    return flat_box(space, array_parts(space)) if isinstance(space, spaces.Dict | spaces.Tuple) else space


def flat_box(space: gym.Space[Any], parts: Sequence[Part]) -> FlatBox:
    """Return the space of the flat vectors of these parts of a space.

    Raises:
        ConfigError: (a ``ValueError``) there are none.
    """
    if not parts:
        raise ConfigError(
            f"Observation space {type(space).__name__} is not supported: wrap the environment so that it observes "
            "a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple with such parts."
        )
    boxes = [flat_part(part.space) for part in parts]
    box = FlatBox(
        low=np.concatenate([box.low for box in boxes]),
        high=np.concatenate([box.high for box in boxes]),
        dtype=np.result_type(*[box.dtype for box in boxes]).type,
    )
    box.parts = tuple((part.name, part_box.shape[0]) for part, part_box in zip(parts, boxes, strict=True))
    begins = np.cumsum([0, *(size for _, size in box.parts)]).tolist()
    box.pictures = tuple(
        (begin, tuple(part.space.shape or ()))
        for begin, part in zip(begins, parts, strict=False)
        if is_image_space(part.space)
    )
    return box


def array_parts(space: gym.Space[Any]) -> list[Part]:
    """Return the parts of a Dict or Tuple that have an array form."""
    return [part for part in parts_in(space) if has_array_form(part.space)]


def flat_size(space: gym.Space[Any]) -> int:
    """Return how many numbers of a flat vector a part takes that is no Dict or Tuple; 0 if it is left out."""
    return int(flat_part(space).shape[0]) if has_array_form(space) else 0


def flat_sizes(space: spaces.Dict) -> dict[str, int]:
    """Return how many numbers of a flat vector each part of a Dict takes, in order; 0 for what is left out."""
    sizes = dict.fromkeys(space.spaces, 0)
    for part in parts_in(space):
        sizes[part.keys[0]] += flat_size(part.space)
    return sizes


def parts_in(space: gym.Space[Any], keys: tuple[Any, ...] = ()) -> Iterator[Part]:
    """Yield the parts of a space, in order, that are no Dict or Tuple themselves."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from parts_in(part, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from parts_in(part, (*keys, index))
    else:
        yield Part(keys, space)


def has_array_form(space: gym.Space[Any]) -> bool:
    """Whether a part can be flattened (Graph and Sequence cannot)."""
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text)


def flat_part(space: gym.Space[Any]) -> spaces.Box:
    """Return the space of a part's vectors."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        encoder = whole_numbers_of(space)
        if isinstance(encoder, Bits):
            return spaces.Box(0, 1, encoder.encoded_shape, np.int64)
    box = spaces.flatten_space(space)
    assert isinstance(box, spaces.Box)
    return box
