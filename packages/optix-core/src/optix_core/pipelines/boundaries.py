"""Where a stream without ends of its own is cut into episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from optix_core.errors import real_number, whole_number
from optix_protocol import Array


@dataclass(kw_only=True, slots=True)
class Moment:
    """Where an episode of a stream is, after a step.

    Attributes:
        num_steps: of the episode in hand, this one included.
        elapsed_s: seconds since it began.
        observation: the newest.
        reward: that came with it.
        info: likewise.
    """

    num_steps: int
    elapsed_s: float
    observation: Array
    reward: float
    info: Mapping[str, Any] = field(default_factory=dict)


Boundary: TypeAlias = Callable[[Moment], bool]
"""Says whether an episode is cut off here; what follows is bootstrapped from, as after a time limit."""


def every_n_steps(steps: int) -> Boundary:
    """Return a boundary after so many steps."""
    limit = whole_number("steps", steps, least=1)
    return lambda moment: moment.num_steps >= limit


def every_n_seconds(seconds: float) -> Boundary:
    """Return a boundary after so many seconds."""
    limit = real_number("seconds", seconds, above=0.0)
    return lambda moment: moment.elapsed_s >= limit


class Episode:
    """The episode in hand: its steps, its clock, its return."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a new one."""
        self.num_steps, self.total = 0, 0.0
        self._began = time.monotonic()

    def add(self, reward: float) -> None:
        """Count a step."""
        self.num_steps += 1
        self.total += reward

    def moment(self, observation: Array, reward: float, info: Mapping[str, Any]) -> Moment:
        """Say where it is."""
        return Moment(
            num_steps=self.num_steps,
            elapsed_s=time.monotonic() - self._began,
            observation=observation,
            reward=reward,
            info=info,
        )
