"""What environments say in their infos when episodes end: success, a final distance, whatever users put there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from optix_core.environments.masks import KEY
from optix_protocol import Array

_OURS = frozenset({"final_obs", "final_info", "final_observation", "episode", KEY})
"""What Gymnasium, its wrappers and masks put into infos; returns and lengths of episodes are counted elsewhere."""


class EndingInfos:
    """Collects the numbers in the infos of the steps that end episodes."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, dict[str, Array]]] = []
        self._names: dict[str, None] = {}

    def take(self, info: Mapping[str, Any], ended: Array) -> None:
        """Take in a step of environments side by side.

        Args:
            info: of the step; of environments that reset in the same step, what is in its ``final_info``. ``"_name"``
                says for which environments ``"name"`` holds (Gymnasium 1.x).
            ended: bool ``[N]``, where an episode ended.
        """
        found: dict[str, Array] = {}
        for name, values in info.items():
            if not _is_name(name) or not isinstance(values, np.ndarray):
                continue
            if values.shape[:1] != ended.shape or (numbers := _numbers(values[ended])) is None:
                continue
            said = info.get(f"_{name}")
            if isinstance(said, np.ndarray) and said.shape == ended.shape:
                numbers = np.where(said[ended], numbers, np.nan)
            if not np.isnan(numbers).all():
                found[name] = numbers
        self._add(int(np.count_nonzero(ended)), found)

    def take_one(self, info: Mapping[str, Any]) -> None:
        """Take in the last info of one episode."""
        found: dict[str, Array] = {}
        for name, value in info.items():
            if not _is_name(name) or isinstance(value, Mapping):
                continue
            number = _number(value)
            if number == number:
                found[name] = np.array([number])
        self._add(1, found)

    def columns(self) -> dict[str, Array]:
        """Return float arrays ``[E]`` by name, NaN where nothing was said, in the order in which they were taken."""
        if not self._names:
            return {}
        return {
            name: np.concatenate([found.get(name, np.full(count, np.nan)) for count, found in self._rows])
            for name in self._names
        }

    def _add(self, count: int, found: dict[str, Array]) -> None:
        self._rows.append((count, found))
        self._names |= dict.fromkeys(found)


def _is_name(name: Any) -> bool:
    """Whether a key of an info is the name of something said: users may have numbers or anything else for keys."""
    return isinstance(name, str) and name.isprintable() and not name.startswith("_") and name not in _OURS


def columns_of(last_infos: Iterable[Mapping[str, Any]]) -> dict[str, Array]:
    """Return the numbers in the last infos of episodes as float arrays ``[E]`` by name."""
    endings = EndingInfos()
    for info in last_infos:
        endings.take_one(info)
    return endings.columns()


def final_info_of(info: Mapping[str, Any], num_envs: int) -> Mapping[str, Any]:
    """Return the last infos of the episodes that ended in a step, of environments that reset in that very step.

    Args:
        info: of the step. Its ``final_info`` is a dict of arrays (Gymnasium 1.x), or an array of dicts (before).
        num_envs: ``N``.
    """
    last = info.get("final_info", {})
    if isinstance(last, Mapping):
        return last
    columns: dict[str, Any] = {}
    for index, one in enumerate(last[:num_envs]):
        for name, value in (one or {}).items():
            column = columns.setdefault(name, np.full(num_envs, None, object))
            column[index] = value
    return columns


def info_of(info: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what one of several environments said, given the infos of all."""
    found = {}
    for name, values in info.items():
        said = info.get(f"_{name}")
        if isinstance(values, np.ndarray) and index < len(values) and (said is None or said[index]):
            found[name] = values[index]
    return found


def means(columns: Mapping[str, Array]) -> dict[str, float]:
    """Return the mean of each column over the episodes that have a finite number there."""
    found = {}
    for name, values in columns.items():
        finite = values[np.isfinite(values)]
        if len(finite):
            found[name] = float(finite.mean())
    return found


def _numbers(values: Array) -> Array | None:
    """Return values of the ended episodes as floats ``[k]``, NaN for what is no number; None for arrays."""
    if values.dtype.kind in "biuf":
        size = values.reshape(len(values), -1).shape[1] if len(values) else 1
        return values.reshape(-1).astype(np.float64) if size == 1 else None
    if values.dtype == object and values.ndim == 1:
        return np.array([_number(value) for value in values])
    return None


def _number(value: Any) -> float:
    """Return a single number as a float, NaN for anything else."""
    if isinstance(value, bool | int | float | np.bool_ | np.number):
        try:
            return float(value)
        except (OverflowError, TypeError):  # complex, or larger than any float
            return float("nan")
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf":
        return float(value.reshape(())[()])
    return float("nan")
