"""What is known of each hyperparameter of an agent, and the values in use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import ConfigError, suggest
from optix_protocol import HyperparamSet, ParamBound


@dataclass(frozen=True, kw_only=True)
class Hyperparam:
    """What is known of one hyperparameter: default, type (that of the default), range, search range.

    Attributes:
        default: value when none is given. None means off; then ``kind`` says the type of other values.
        kind: ``float`` (whole numbers are accepted and converted), ``int``, ``bool``, ``str`` or ``tuple`` (of
            positive whole numbers; lists are accepted and converted).
        low: smallest accepted value.
        high: largest accepted value.
        open_low: ``low`` itself is not accepted.
        optional: None is accepted.
        choices: the accepted strings.
        fixed: cannot change after the agent is built.
        network: shapes the network, not the learning; left out of ``get_hyperparams``.
        bound: default search range, or None if tuning should leave it alone.
    """

    default: Any
    kind: type = float
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()
    fixed: bool = False
    network: bool = False
    bound: ParamBound | None = None

    def parse(self, name: str, value: Any) -> Any:
        """Return the value in its proper Python type.

        Raises:
            ConfigError: wrong type or out of range, in one line.
        """
        if value is None and self.optional:
            return None
        parsed = self._convert(value)
        if parsed is None:
            raise ConfigError(f"{name} must be {self._describe()}, got {value!r}.")
        return parsed

    def _convert(self, value: Any) -> Any:
        """Return the converted value, or None if it does not fit."""
        if isinstance(value, np.generic):
            value = value.item()
        if self.kind is tuple:
            sizes = tuple(value) if isinstance(value, list | tuple | np.ndarray) else (None,)
            whole = all(isinstance(size, int | np.integer) and size > 0 for size in sizes)
            return tuple(int(size) for size in sizes) if whole else None
        if self.kind in (bool, str):
            fits = isinstance(value, self.kind) and (not self.choices or value in self.choices)
            return value if fits else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.kind is int and value != int(value):
            return None
        if not self.low <= value <= self.high or (self.open_low and value == self.low):
            return None
        return self.kind(value)

    def _describe(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        text = {float: "a number", int: "a whole number", bool: "True or False", str: "a string"}.get(
            self.kind, "a list of positive whole numbers such as [64, 64]"
        )
        if self.low > -math.inf:
            text += f" {'above' if self.open_low else 'of at least'} {self.low:g}"
        if self.high < math.inf:
            text += f"{' and' if self.low > -math.inf else ''} at most {self.high:g}"
        return text + (", or None" if self.optional else "")


class HyperparamStore(Mapping[str, Any]):
    """The current hyperparameters of an agent: a read-only mapping with checked updates.

    Args:
        specs: the hyperparameters that exist.
        values: values that differ from the defaults.

    Raises:
        ConfigError: (a ``ValueError``) an unknown name, with the closest match, or a value out of range.
    """

    def __init__(self, specs: Mapping[str, Hyperparam], values: Mapping[str, Any] | None = None) -> None:
        self._specs = specs
        self._values = {name: spec.parse(name, spec.default) for name, spec in specs.items()}
        self._values.update(self._parse(values or {}))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def update(self, hyperparams: HyperparamSet) -> None:
        """Take over the named values; all are checked before any is changed.

        Raises:
            ConfigError: unknown name, bad value, or a change of a value that is fixed once the agent is built.
        """
        parsed = self._parse(hyperparams.params)
        for name, value in parsed.items():
            if self._specs[name].fixed and value != self._values[name]:
                raise ConfigError(f"{name} is fixed once the agent is built; build a new agent to change it.")
        self._values.update(parsed)

    def to_set(self, episode_id: int = 0) -> HyperparamSet:
        """Return what learning uses now; the settings of the network are left out."""
        params = {name: value for name, value in self._values.items() if not self._specs[name].network}
        return HyperparamSet(params=params, episode_id=episode_id)

    def bounds(self) -> dict[str, ParamBound]:
        """Return the default search range of every hyperparameter that has one."""
        return {name: spec.bound for name, spec in self._specs.items() if spec.bound is not None}

    def _parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        parsed = {}
        for name, value in values.items():
            if name not in self._specs:
                raise ConfigError(f"There is no hyperparameter '{name}'.{suggest(name, self._specs)}")
            parsed[name] = self._specs[name].parse(name, value)
        return parsed


def default_values(specs: Mapping[str, Hyperparam]) -> dict[str, Any]:
    """Return the default of every hyperparameter, for ``AlgorithmInfo.default_hyperparams``."""
    return {name: list(spec.default) if spec.kind is tuple else spec.default for name, spec in specs.items()}
