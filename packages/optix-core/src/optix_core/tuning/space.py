"""The space that is searched: every hyperparameter between 0 and 1, on a log scale where asked, and back.

A range may be given as ``(low, high)``, as :class:`optix_protocol.ParamBound`, or by kind: ``("float", low, high)``,
``("log_float", low, high)``, ``("int", low, high)``, ``("log_int", low, high)``, ``("categorical", a, b, ...)``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optix_core.errors import ConfigError, suggest
from optix_protocol import ParamBound

Point: TypeAlias = NDArray[np.float64]
"""A place in the unit cube, ``[d]``."""

Range: TypeAlias = "ParamBound | Sequence[Any]"
"""The range of one hyperparameter, in one of the forms above."""

KINDS = ("float", "log_float", "int", "log_int", "categorical")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One hyperparameter of a space.

    Attributes:
        name: as the agent takes it.
        low: smallest value; of a categorical one 0.
        high: largest value; of a categorical one the number of choices less 1.
        log: searched in the logarithm.
        integer: whole numbers only; None: where the agent's value is one, see :meth:`Space.typed`.
        choices: of a categorical one, else None.
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool | None = False
    choices: tuple[Any, ...] | None = None

    def encode(self, value: Any) -> float:
        """Return where a value lies between 0 and 1; one outside the range is at its end.

        Raises:
            ConfigError: it is no number, or none of the choices.
        """
        if self.choices is not None:
            if value not in self.choices:
                raise ConfigError(f"{self.name} is {value!r}, which is none of its choices {list(self.choices)}.")
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if isinstance(value, bool) or not isinstance(value, Real | np.number):
            raise ConfigError(f"{self.name} is {value!r}, which no range of numbers can tune: leave it out.")
        inside = min(max(float(value), self.low), self.high)
        low, high, inside = (math.log(v) if self.log else v for v in (self.low, self.high, inside))
        return (inside - low) / (high - low)

    def decode(self, x: float) -> Any:
        """Return the value at a place between 0 and 1; it never leaves the range, whatever ``x`` is."""
        x = 0.5 if math.isnan(x) else min(max(float(x), 0.0), 1.0)
        if self.choices is not None:
            return self.choices[min(int(x * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            value = math.exp(math.log(self.low) + x * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + x * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return min(max(round(value), math.ceil(self.low)), math.floor(self.high)) if self.integer else value

    def moved(self, x: float, distance: float) -> float:
        """Return the place at a distance, inside the range; whole numbers and choices move by at least one.

        At the border there is nowhere to go, and the place stays.
        """
        target = min(max(x + distance, 0.0), 1.0)
        if distance == 0 or not (self.integer or self.choices) or self.decode(target) != self.decode(x):
            return target
        step = 1 if distance > 0 else -1
        if self.choices is None:
            return self.encode(self.decode(x) + step)
        index = self.choices.index(self.decode(x)) + step
        return self.encode(self.choices[index]) if 0 <= index < len(self.choices) else target


@dataclass(frozen=True)
class Space:
    """Several hyperparameters as a unit cube.

    Attributes:
        axes: in the order of a point's numbers.
    """

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, ranges: Mapping[str, Range], log_params: Collection[str] = ()) -> Space:
        """Return the space of ranges that a user or an agent gave.

        Args:
            ranges: by hyperparameter.
            log_params: names of those that are searched in the logarithm.

        Raises:
            ConfigError: no range at all, an empty or reversed one, a log range that touches 0, an unknown kind, or a
                name in ``log_params`` that has no range.
        """
        if not isinstance(ranges, Mapping) or not ranges:
            raise ConfigError(
                "There is no hyperparameter to tune: give ranges by name, {'learning_rate': (1e-4, 1e-3)}."
            )
        log_params = {log_params} if isinstance(log_params, str) else set(log_params)
        for name in sorted(log_params - ranges.keys()):
            raise ConfigError(f"log_params names {name!r}, which has no range.{suggest(name, ranges)}")
        return cls(tuple(_axis(name, given, name in log_params) for name, given in ranges.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters in order."""
        return tuple(axis.name for axis in self.axes)

    def encode(self, values: Mapping[str, Any]) -> Point:
        """Return the place of values by name; others than those of the space are passed over."""
        return np.array([axis.encode(values[axis.name]) for axis in self.axes], dtype=np.float64)

    def decode(self, point: Point) -> dict[str, Any]:
        """Return the values at a place, by name."""
        return {axis.name: axis.decode(x) for axis, x in zip(self.axes, point, strict=True)}

    def moved(self, point: Point, distances: Point) -> Point:
        """Return the place at a distance along every axis; see :meth:`Axis.moved`."""
        return np.array([a.moved(x, d) for a, x, d in zip(self.axes, point, distances, strict=True)])

    def typed(self, values: Mapping[str, Any]) -> Space:
        """Return the space for an agent with these values: a plain range is whole where bounds and value are.

        Raises:
            ConfigError: a hyperparameter that the agent does not have, with the nearest name.
        """
        for name in self.names:
            if name not in values:
                raise ConfigError(f"The agent has no hyperparameter {name!r}.{suggest(name, values)}")
        return Space(tuple(_typed(axis, values[axis.name]) for axis in self.axes))


def _axis(name: str, given: Range, log: bool) -> Axis:
    if isinstance(given, ParamBound):
        return _numbers(name, given.low, given.high, log=given.log or log, integer=given.integer)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"{name} needs a range such as (1e-4, 1e-3), got {given!r}.")
    kind, *rest = given if isinstance(given[0], str) else ("", *given)
    if kind == "categorical":
        choices = tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else tuple(rest)
        if len(choices) < 2 or any(choices.index(choice) != i for i, choice in enumerate(choices)):
            raise ConfigError(f"{name} needs at least two choices that differ, got {list(choices)}.")
        return Axis(name=name, low=0.0, high=len(choices) - 1.0, choices=choices)
    if kind and kind not in KINDS:
        raise ConfigError(f"{name} has the unknown kind {kind!r}.{suggest(kind, KINDS)}")
    if len(rest) != 2:
        raise ConfigError(f"{name} needs a low and a high end, got {given!r}.")
    return _numbers(name, *rest, log=log or kind.startswith("log_"), integer=kind.endswith("int"))


def _numbers(name: str, low: Any, high: Any, *, log: bool, integer: bool) -> Axis:
    ends = (low, high)
    if any(isinstance(end, bool) or not isinstance(end, Real | np.number) or not math.isfinite(end) for end in ends):
        raise ConfigError(f"{name} needs two finite numbers as its range, got ({low!r}, {high!r}).")
    if not low < high:
        raise ConfigError(f"{name} has the empty range ({low!r}, {high!r}): give the smaller end first.")
    if log and low <= 0:
        raise ConfigError(
            f"{name} is searched in the logarithm, so its range must lie above 0, got ({low!r}, {high!r})."
        )
    if integer and math.floor(high) <= math.ceil(low):
        raise ConfigError(f"{name} has fewer than two whole numbers in its range ({low!r}, {high!r}).")
    undecided = not integer and all(isinstance(end, int | np.integer) for end in ends)
    return Axis(name=name, low=float(low), high=float(high), log=log, integer=None if undecided else integer)


def _typed(axis: Axis, value: Any) -> Axis:
    """Settle whether a range such as ``(1, 10)`` is one of whole numbers: it is if the agent's value is one."""
    return replace(axis, integer=isinstance(value, int | np.integer)) if axis.integer is None else axis
