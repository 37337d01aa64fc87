"""The items of a stream: read, checked, told apart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from optix_protocol import Array

_REMEMBERED = 65_536
"""Ids of the latest items that are remembered to know duplicates by."""


class Item(NamedTuple):
    """What a stream says at one moment.

    Attributes:
        observation: ``[*obs]``.
        reward: of the action before it.
        terminated: the episode ended with it.
        truncated: the episode was cut off with it.
        info: whatever else; ``"id"`` tells duplicates.
    """

    observation: Array
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


class ItemReader:
    """Reads what a source yields: ``(observation, reward, terminated, truncated, info)``, or a mapping of these.

    A mapping may leave out everything but the observation, and have an ``id`` beside it.

    Attributes:
        shape: of an observation, that of the first.
        problem: what was wrong with the latest item that could not be used.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.problem = ""
        self._dtype: np.dtype[Any] | None = None
        self._ids: OrderedDict[Hashable, None] = OrderedDict()

    def read(self, raw: Any) -> Item | None:
        """Return an item, or None if it cannot be used; then :attr:`problem` says why."""
        try:
            if isinstance(raw, Mapping):
                info = raw.get("info") or {}
                if "id" in raw:
                    info = {**info, "id": raw["id"]}
                observation, reward = raw["observation"], raw.get("reward", 0.0)
                terminated, truncated = raw.get("terminated", False), raw.get("truncated", False)
            else:
                observation, reward, terminated, truncated, info = raw
            value = np.asarray(observation)
            item = Item(value, float(reward), bool(terminated), bool(truncated), info or {})
        except (KeyError, TypeError, ValueError) as error:
            self.problem = (
                f"it is no (observation, reward, terminated, truncated, info): {type(error).__name__} {error}"
            )
            return None
        return item if self._is_usable(item) else None

    def is_duplicate(self, item: Item) -> bool:
        """Whether an item with this ``info["id"]`` has been seen lately; items without one are never duplicates."""
        key = item.info.get("id")
        if key is None:
            return False
        if key in self._ids:
            return True
        self._ids[key] = None
        if len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)
        return False

    def _is_usable(self, item: Item) -> bool:
        observation = item.observation
        if observation.dtype.kind not in "biuf":
            self.problem = f"its observation is of type {observation.dtype}"
            return False
        if self.shape is None:
            self.shape, self._dtype = observation.shape, observation.dtype
        if observation.shape != self.shape:
            self.problem = f"its observation has the shape {list(observation.shape)}, others {list(self.shape)}"
            return False
        if not np.isfinite(item.reward) or not np.isfinite(observation).all():
            self.problem = "it has a number that is NaN or infinite"
            return False
        return True

    def state(self) -> list[Any]:
        """Return the ids that can be told again, oldest first: whole numbers and strings."""
        return [key for key in self._ids if isinstance(key, int | str)]

    def restore(self, ids: list[Any]) -> None:
        """Know these ids again."""
        self._ids = OrderedDict.fromkeys(ids)
