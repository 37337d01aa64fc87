"""Errors that a user can act on: one or two lines that say what to do. The CLI prints them and exits with code 2."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")


class OptixError(Exception):
    """Base of all errors with a message for the user."""


class ConfigError(OptixError, ValueError):
    """A setting that does not exist or is out of range."""


class EnvError(OptixError):
    """An environment that cannot be made, cannot be used, or failed while running."""


class AgentError(OptixError):
    """An agent or backend that cannot be used, or failed while running."""


class RunDirectoryError(OptixError):
    """A run directory that is in use, not empty, incomplete, damaged, or on a full disk."""


class OptixWarning(UserWarning):
    """Something that was decided for the user and is worth a line."""


class MissingExtraError(OptixError, ImportError):
    """An optional dependency that is not installed; the message names the command that installs it."""


def whole_number(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Return a number of things as an int; ``1e6`` is one.

    Args:
        name: of the setting.
        value: what was given.
        least: the smallest value allowed.
        most: the largest value allowed.

    Raises:
        ConfigError: it is no whole number, too small or too large.
    """
    if isinstance(value, bool):
        raise ConfigError(f"{name} must be a whole number, got {value!r}.")
    try:
        number = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} must be a whole number, got {value!r}.") from None
    if least is not None and number < least:
        raise ConfigError(f"{name} must be at least {least}, got {number}.")
    if most is not None and number > most:
        raise ConfigError(f"{name} must be at most {most:,}, got {number}.")
    return number


def real_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return a finite number as a float.

    Args:
        name: of the setting.
        value: what was given.
        least: the smallest value allowed.
        most: the largest value allowed.
        above: what the value must exceed.
        below: what it must not reach.

    Raises:
        ConfigError: it is no finite number, or out of its range.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}.")
    number = float(value)
    if not (least <= number <= most and above < number < below):
        limits = {"at least": least, "at most": most, "above": above, "below": below}
        wanted = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit))
        raise ConfigError(f"{name} must be {wanted}, got {value!r}.")
    return number


def true_or_false(name: str, value: Any) -> bool:
    """Return a switch.

    Raises:
        ConfigError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}.")
    return value


def one_of(default: T, **given: T | None) -> T:
    """Return the value of an argument that goes by several names.

    Args:
        default: what it is when none of them is given.
        given: the value by each of its names, None where that was not used.

    Raises:
        ConfigError: two of the names are used, with different values.
    """
    used = {name: value for name, value in given.items() if value is not None}
    if not used:
        return default
    (first, value), *others = used.items()
    for name, other in others:
        if other is not value and other != value:
            raise ConfigError(f"{first} and {name} are one argument: give one of them.")
    return value


def in_one_line(value: Any) -> str:
    """Return what is printed of a space or an array, which may take many lines, as one line of at most 100 letters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:96]} ..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of the known names, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
