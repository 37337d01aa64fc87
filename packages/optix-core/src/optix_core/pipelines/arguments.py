"""The names by which the arguments of pipelines are known."""

from __future__ import annotations

from typing import Any

from optix_core.errors import ConfigError


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
