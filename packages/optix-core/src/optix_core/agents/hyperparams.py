"""What is known of each hyperparameter of an agent, and the values in use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optix_core.agents.schedules import WRITE_INSTEAD, Schedule, schedule_of
from optix_core.agents.synonyms import ADVICE, NamedValues, by_other_name
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
        synonyms: other names by which users may call it; see :mod:`optix_core.agents.synonyms`.
        read: turns other spellings of a value into its own, and leaves everything else alone.
        words: what else may be given in its place, and the value that it means (``{"auto": None}``).
        excludes: a hyperparameter that cannot be given beside it: it becomes None where only this one is given.
        adapts: a hyperparameter that learning changes by itself while this one is on; it cannot follow a schedule then.
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
    synonyms: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    excludes: str | None = None
    adapts: str | None = None

    def parse(self, name: str, value: Any) -> Any:
        """Return the value in its proper Python type, or the :class:`~optix_core.agents.schedules.Schedule` it means.

        Raises:
            ConfigError: wrong type or out of range, in one line.
        """
        if self.read is not None:
            value = self.read(value)
        if isinstance(value, str) and value in self.words:
            value = self.words[value]
        if value is None and self.optional:
            return None
        if isinstance(value, Schedule) or self.kind in (float, int):
            value = schedule_of(name, value)
        if isinstance(value, Schedule):
            self._check_schedule(name, value)
            return value
        parsed = self._convert(value)
        if parsed is None and self.kind in (float, int) and isinstance(value, list | tuple):
            raise ConfigError(f"{name} is a number or a schedule, got {value!r}: {WRITE_INSTEAD}, in shares.")
        if parsed is None:
            raise ConfigError(f"{name} must be {self._describe()}, got {value!r}.")
        return parsed

    def value_at(self, schedule: Schedule, share: float) -> Any:
        """Return a schedule's value in the proper type; whole numbers are rounded."""
        value = schedule(share)
        return round(value) if self.kind is int else value

    def _check_schedule(self, name: str, schedule: Schedule) -> None:
        if self.kind not in (float, int):
            raise ConfigError(f"{name} is no number, so it cannot follow {schedule}.")
        if self.fixed:
            raise ConfigError(f"{name} is fixed once the agent is built, so it cannot follow {schedule}.")
        for value in schedule.values:
            # An open bound may be where a schedule ends: learning stops before the whole budget is used.
            at_bound = self.open_low and value == self.low and value == schedule.values[-1] != schedule.values[0]
            if not at_bound and self._convert(round(value) if self.kind is int else value) is None:
                raise ConfigError(f"{name} must be {self._describe()}, and {schedule} reaches {value:g}.")

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

    It lists our names and answers to the other names, too. Where a hyperparameter follows a schedule, its value is the
    number that holds now: that of the beginning, until :meth:`follow` is called.

    Args:
        specs: the hyperparameters that exist.
        values: values that differ from the defaults, by any of their names.

    Raises:
        ConfigError: (a ``ValueError``) an unknown name, with the closest match or what to write instead; a value out of
            range; two names of one thing with two values.
    """

    def __init__(self, specs: Mapping[str, Hyperparam], values: Mapping[str, Any] | None = None) -> None:
        self._specs = specs
        self._others = other_names(specs)
        self._schedules: dict[str, Schedule] = {}
        self._share = 0.0
        self._values = {name: spec.parse(name, spec.default) for name, spec in specs.items()}
        self._take(self._settle(parse(specs, values or {})))

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            return self._values[self._others[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def update(self, hyperparams: Mapping[str, Any]) -> None:
        """Take over the named values; all are checked before any is changed.

        A number takes the place of a schedule, unless it only repeats the value that the schedule has now.

        A set that repeats everything in force, such as ``{**agent.get_hyperparams().params, "clip_ratio": 0.1}``, may
        name what it changes by another name.

        Args:
            hyperparams: a :class:`HyperparamSet` or another mapping, by any of their names.

        Raises:
            ConfigError: unknown name, bad value, two names of one thing with two values, or a change of a value that is
                fixed once the agent is built.
        """
        parsed = self._settle(parse(self._specs, hyperparams, in_force=self._values), self._values)
        for name, value in parsed.items():
            if self._specs[name].fixed and value != self._values[name]:
                raise ConfigError(f"{name} is fixed once the agent is built; build a new agent to change it.")
        self._take(parsed)

    @property
    def schedules(self) -> dict[str, Schedule]:
        """What follows a schedule, by our names."""
        return dict(self._schedules)

    def follow(self, share: float) -> None:
        """Give everything that follows a schedule its value where this share (0 to 1) of the budget is used."""
        self._share = float(share)
        for name, schedule in self._schedules.items():
            self._values[name] = self._specs[name].value_at(schedule, self._share)

    def state(self) -> dict[str, Any]:
        """Return present values and schedules for a training state: ``hyperparams`` and ``schedules``."""
        return {
            "hyperparams": dict(self.to_set().params),
            "schedules": {name: str(schedule) for name, schedule in self._schedules.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned; states of release 0.1 have no schedules.

        Raises:
            ConfigError: as in :meth:`update`.
        """
        schedules = parse(self._specs, state.get("schedules", {}))
        self._schedules.clear()
        self.update(state["hyperparams"])
        self._schedules.update(schedules)

    def _take(self, parsed: Mapping[str, Any]) -> None:
        schedules, values = dict(self._schedules), dict(self._values)
        for name, value in parsed.items():
            if isinstance(value, Schedule):
                schedules[name], values[name] = value, self._specs[name].value_at(value, self._share)
            elif value != values[name] or name not in schedules:
                schedules.pop(name, None)
                values[name] = value
        for name, spec in self._specs.items():
            if spec.adapts in schedules and values[name] is not None:
                raise ConfigError(
                    f"{name} adapts {spec.adapts}, which then cannot follow a schedule: give one of them."
                )
        self._schedules, self._values = schedules, values

    def note(self, name: str, value: Any) -> None:
        """Take over what follows from the parts that an agent was built from, even where it is fixed."""
        self._values[name] = self._specs[name].parse(name, value)

    def _settle(self, values: dict[str, Any], in_force: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Switch off what the given values exclude, or refuse them together; what is in force already is not given."""
        given = {n for n, value in values.items() if value is not None and (in_force is None or value != in_force[n])}
        settled = dict(values)
        for name, spec in self._specs.items():
            other = spec.excludes
            if other is None or given.isdisjoint((name, other)):
                continue
            if given >= {name, other}:
                raise ConfigError(f"{name} and {other} say the same thing in two ways: give one of them.")
            settled[other if name in given else name] = None
        return settled

    def to_set(self, episode_id: int = 0) -> HyperparamSet:
        """Return what learning uses now; the settings of the network are left out."""
        params = {name: value for name, value in self._values.items() if not self._specs[name].network}
        return HyperparamSet(params=NamedValues(params, self._others), episode_id=episode_id)

    def bounds(self) -> dict[str, ParamBound]:
        """Return the default search range of every hyperparameter that has one."""
        return {name: spec.bound for name, spec in self._specs.items() if spec.bound is not None}


def parse(
    specs: Mapping[str, Hyperparam], values: Mapping[str, Any], *, in_force: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return values by our names, each in its proper type.

    Args:
        specs: the hyperparameters that exist.
        values: by any of their names.
        in_force: present values, where ``values`` are to replace them.

    Raises:
        ConfigError: an unknown name, a bad value, or two names of one thing with two values.
    """
    others = other_names(specs)
    values = _sizes_apart(specs, others, values)
    repeats_all = in_force is not None and values.keys() >= {n for n in in_force if not specs[n].network}
    parsed: dict[str, Any] = {}
    called: dict[str, str] = {}
    for name in values:
        ours = name if name in specs else others.get(name)
        if ours is None:
            raise ConfigError(unknown_name(name, specs))
        value = specs[ours].parse(name, values[name])
        if ours in parsed and parsed[ours] != value:
            present = in_force[ours] if in_force is not None and repeats_all else value
            if not repeats_all or present not in (value, parsed[ours]):
                raise ConfigError(
                    f"{called[ours]}={parsed[ours]!r} and {name}={value!r} are one hyperparameter: give one of them."
                )
            if value == present:
                continue
        parsed[ours], called[ours] = value, name
    return parsed


_SIZES_OF = {"pi": "actor_hidden_sizes", "vf": "critic_hidden_sizes", "qf": "critic_hidden_sizes"}
"""The networks of stable-baselines3's ``net_arch``."""


def _sizes_apart(
    specs: Mapping[str, Hyperparam], others: Mapping[str, str], values: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return values in which ``hidden_sizes`` by network (``net_arch=dict(pi=[64], vf=[256])``) are two settings."""
    apart: dict[str, Any] = {}
    for name, value in values.items():
        alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value  # as older releases had it
        by_network = isinstance(alone, Mapping) and "hidden_sizes" in (name, others.get(name))
        if not by_network or "actor_hidden_sizes" not in specs:
            apart[name] = value
            continue
        for network, sizes in alone.items():
            if network not in _SIZES_OF:
                raise ConfigError(f"{name} has sizes for 'pi' and 'vf' (or 'qf'), not for {network!r}.")
            ours = _SIZES_OF[network]
            if ours in values or ours in apart:
                raise ConfigError(f"{name} and {ours} both size one network: give one of them.")
            apart[ours] = sizes
    return apart


def other_names(specs: Mapping[str, Hyperparam]) -> dict[str, str]:
    """Return our names by the other names of the hyperparameters that exist."""
    return by_other_name({name: spec.synonyms for name, spec in specs.items()}, specs)


def unknown_name(name: str, known: Iterable[str]) -> str:
    """Return what to say of a name that is no hyperparameter: what to write instead, or the closest match."""
    if name in ADVICE:
        return f"'{name}' {ADVICE[name]}"
    return f"There is no hyperparameter '{name}'.{suggest(name, known)}"


def default_values(specs: Mapping[str, Hyperparam]) -> dict[str, Any]:
    """Return the default of every hyperparameter, for ``AlgorithmInfo.default_hyperparams``."""
    return {
        name: list(spec.default) if isinstance(spec.default, tuple) else spec.default for name, spec in specs.items()
    }
