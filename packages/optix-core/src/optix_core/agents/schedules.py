"""Hyperparameters that change over the budget of a run: straight, along half a cosine, or through given points.

A schedule is a small frozen value. It can be given wherever the number could be, also as text, which is read literally
and never evaluated: ``learning_rate="linear(3e-4, 0)"``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from optix_core.errors import ConfigError, real_number, suggest

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)
_ZOO = re.compile(r"lin_([-+.\deE]+)")
_LONGEST_TEXT = 10_000
WRITE_INSTEAD = "write linear(start, end), cosine(start, end) or piecewise((0, start), ..., (1, end))"
"""What to say to whoever gave something that is no schedule here."""


@dataclass(frozen=True)
class Schedule:
    """A number that depends on the share of the budget that is used.

    Attributes:
        kind: ``"linear"``, ``"cosine"`` or ``"piecewise"``.
        points: shares from 0 to 1, never falling, and the values there.
    """

    kind: str
    points: tuple[tuple[float, float], ...]

    def __call__(self, share: float) -> float:
        """Return the value where this share (0 to 1) of the budget is used.

        Between two points it goes straight, ``a + (b - a) s``; a cosine goes ``b + (a - b) (1 + cos(pi s)) / 2``
        (Loshchilov and Hutter 2017, without restarts). Where two points have the same share, the later one holds.
        """
        if share < self.points[0][0]:
            return self.points[0][1]
        for (low, start), (high, end) in reversed(list(pairwise(self.points))):
            if low <= share < high:
                s = (share - low) / (high - low)
                if self.kind == "cosine":
                    return end + (start - end) * (1.0 + math.cos(math.pi * s)) / 2.0
                return start + (end - start) * s
        return self.points[-1][1]

    @property
    def values(self) -> tuple[float, ...]:
        """The values at its points; all others lie between two of them."""
        return tuple(value for _, value in self.points)

    def __str__(self) -> str:
        """Return it as it is written, ``linear(0.0003, 0)``."""
        if self.kind == "piecewise":
            return f"piecewise({', '.join(f'({_text(share)}, {_text(value)})' for share, value in self.points)})"
        return f"{self.kind}({', '.join(map(_text, self.values))})"


def linear(start: float, end: float) -> Schedule:
    """Return a schedule that goes straight from one value to another over the budget of the run.

    Raises:
        ConfigError: (a ``ValueError``) a value that is no finite number.
    """
    return _from_to("linear", start, end)


def cosine(start: float, end: float) -> Schedule:
    """Return a schedule that goes from one value to another over the budget, slowly at first and in the end.

    Raises:
        ConfigError: (a ``ValueError``) a value that is no finite number.
    """
    return _from_to("cosine", start, end)


def piecewise(*points: tuple[float, float]) -> Schedule:
    """Return a schedule that goes straight from point to point, ``piecewise((0, 3e-4), (0.5, 1e-4), (1, 0))``.

    Args:
        points: share of the budget from 0 to 1, and the value there. Before the first point and after the last the
            value stays; two points with the same share are a jump.

    Raises:
        ConfigError: (a ``ValueError``) no points, shares that fall or leave 0 to 1, or something that is no number.
    """
    if not points or not all(isinstance(point, tuple | list) and len(point) == 2 for point in points):
        raise ConfigError("piecewise takes points (share of the budget, value): piecewise((0, 3e-4), (1, 1e-5)).")
    pairs = tuple(
        (real_number("A share of piecewise", share, least=0, most=1), real_number("A value of piecewise", value))
        for share, value in points
    )
    if any(later < earlier for (earlier, _), (later, _) in pairwise(pairs)):
        raise ConfigError("The shares of piecewise must not fall: piecewise((0, 3e-4), (0.5, 1e-4), (1, 1e-5)).")
    return Schedule("piecewise", pairs)


KINDS: Mapping[str, Callable[..., Schedule]] = {"linear": linear, "cosine": cosine, "piecewise": piecewise}
"""What makes schedules, by name."""


def schedule_of(name: str, value: Any) -> Any:
    """Return the schedule that a value means, or the value itself if it means none.

    Beside schedules and their text these are rl-zoo's ``"lin_3e-4"``, and a function of the share that is left (1 to
    0), as stable-baselines3 takes, where it is a straight line.

    Args:
        name: of the hyperparameter, for errors.
        value: as the user gave it.

    Raises:
        ConfigError: (a ``ValueError``) text that looks like a schedule and is none, or a function that is no line.
    """
    if isinstance(value, str):
        return _parsed(name, value)
    if callable(value) and not isinstance(value, Schedule | type):
        return _straight(name, value)
    return value


def _from_to(kind: str, start: Any, end: Any) -> Schedule:
    return Schedule(
        kind, ((0.0, real_number(f"The start of {kind}", start)), (1.0, real_number(f"The end of {kind}", end)))
    )


def _parsed(name: str, text: str) -> Any:
    zoo = _ZOO.fullmatch(text)
    if zoo:
        try:
            return linear(float(zoo[1]), 0.0)
        except ValueError:
            return text
    call = _CALL.fullmatch(text)
    if call is None:
        return text
    kind, arguments = call[1], call[2]
    if kind not in KINDS:
        raise ConfigError(f"{name}: there is no schedule '{kind}'.{suggest(kind, KINDS)} Known: {', '.join(KINDS)}.")
    try:
        values = ast.literal_eval(f"({arguments},)") if len(text) <= _LONGEST_TEXT else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        values = None
    if values is None or (kind != "piecewise" and len(values) != 2):
        raise ConfigError(f"{name}: {text!r} is no schedule: {WRITE_INSTEAD}, with plain numbers.")
    try:
        return KINDS[kind](*values)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _straight(name: str, function: Callable[[float], Any]) -> Any:
    """Return the line, or the number, that a function of the share that is left stands for."""
    left = np.linspace(1.0, 0.0, 17)
    try:
        values = np.array([float(function(float(share))) for share in left])
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be a function here ({type(error).__name__}: {error}): {WRITE_INSTEAD}."
        ) from error
    start, end = float(values[0]), float(values[-1])
    line = end + (start - end) * left
    if not np.isfinite(values).all() or np.abs(values - line).max() > 1e-9 * np.abs(values).max():
        raise ConfigError(
            f"{name} cannot be a function that is no straight line: a run could not write it down; {WRITE_INSTEAD}."
        )
    return start if start == end else linear(start, end)


def _text(number: float) -> str:
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
