"""Whole numbers as rows that networks take: one-hot vectors side by side, or in the binary system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import EnvError, in_one_line
from optix_protocol import Array


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


def whole_numbers_of(space: Any) -> OneHot | Bits:
    """Return the encoder of a Discrete or MultiDiscrete: one-hot vectors, or bits where these would be too long."""
    sizes = np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))).reshape(-1)
    nvec, start = tuple(map(int, sizes)), tuple(map(int, np.atleast_1d(space.start).reshape(-1)))
    kind = OneHot if sum(nvec) <= MOST_ONE_HOT else Bits
    return kind(nvec=nvec, start=start, shape=tuple(space.shape))
