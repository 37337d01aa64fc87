"""From ``key=value`` to settings of the loop, of the monitor and of an algorithm."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from optix_core.agents.backends import our_name_of
from optix_core.agents.schedules import Schedule, schedule_of
from optix_core.agents.synonyms import ADVICE, WINDOW
from optix_core.errors import ConfigError
from optix_core.policies.activations import activation_name
from optix_core.training.settings import loop_settings, monitor_settings
from optix_protocol import AlgorithmInfo


def sorted_overrides(overrides: Mapping[str, Any], info: AlgorithmInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the loop and the hyperparameters among overrides, by our names.

    Raises:
        ConfigError: an unknown key, or two names of one thing with two values.
    """
    loop_names = set(loop_settings())
    names = our_name_of(info)
    of_monitor = monitor_settings().keys() - loop_names
    if info.on_policy:
        names = {**dict.fromkeys(WINDOW, "window_size"), **names}
    loop: dict[str, Any] = {}
    hyperparams: dict[str, Any] = {}
    monitor: dict[str, Any] = {}
    as_given: dict[str, str] = {}
    for given, value in overrides.items():
        group, dot, name = given.rpartition(".")
        if dot and group not in ("loop", info.name):
            raise ConfigError(f"'{given}' is in no group of settings: say loop.{name} or {info.name}.{name}.")
        of_loop = name in loop_names | of_monitor and group != info.name
        ours = names.get(name) if group != "loop" else None
        if of_loop and ours is not None:
            both = f"loop.{name} or {info.name}.{name}"
            raise ConfigError(f"'{name}' is a setting of the loop and one of {info.name}: say {both}.")
        if of_loop:
            kept, ours = (monitor if name in of_monitor else loop), name
        elif ours is None:
            raise _unknown_key(name, info, loop_names | of_monitor | set(names))
        else:
            kept = loop if ours == "window_size" else hyperparams
            value = _written(ours, value)
        if ours in kept and kept[ours] != value:
            both = f"{as_given[ours]}={kept[ours]} and {given}={value}"
            raise ConfigError(f"{both} are two values of one setting, {ours}: give one of them.")
        kept[ours], as_given[ours] = value, given
    return ({**loop, "monitor": monitor} if monitor else loop), hyperparams


def _written(name: str, value: Any) -> Any:
    """Return a schedule, in whatever form it was given, as ``run.json`` holds it; any other value as it is."""
    if name == "activation":
        return activation_name(value)
    schedule = schedule_of(name, value)
    return str(schedule) if isinstance(schedule, Schedule) else schedule


def _unknown_key(name: str, info: AlgorithmInfo, known: Iterable[str]) -> ConfigError:
    if name in ADVICE:
        return ConfigError(f"'{name}' {ADVICE[name]}")
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Known are those of `optix settings {info.name}`."
    return ConfigError(f"Unknown key '{name}'. {hint}")


def parse_value(text: str) -> Any:
    """Read the value of a ``key=value`` override: a number, true, false, null, a list, or else a string."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
