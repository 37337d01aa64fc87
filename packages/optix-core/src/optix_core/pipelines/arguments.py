"""The names by which the arguments of pipelines are known."""

from __future__ import annotations

from typing import Any, TypeVar

from optix_core.errors import ConfigError

T = TypeVar("T")


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


def the_environment(**given: Any) -> Any:
    """Return the environment, whatever it is called.

    Raises:
        ConfigError: there is none, or more than one.
    """
    used = {name: value for name, value in given.items() if value is not None}
    if len(used) != 1:
        told = "none" if not used else " and ".join(used)
        raise ConfigError(
            f"A pipeline needs one environment, as {' or '.join(f'{name}=' for name in given)}; got {told}."
        )
    return next(iter(used.values()))
