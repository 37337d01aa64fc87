"""An environment's ``compute_reward``: called for batches where it takes them, with the infos of the transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from optix_core.errors import EnvError, in_one_line
from optix_protocol import Array, EpisodeData, StateTree

GoalFunction: TypeAlias = Callable[[Array, Array, Any], Any]
"""From achieved goals ``[B, G]``, desired goals ``[B, G]`` and an info to ``[B]``, as in Gymnasium-Robotics; one that
takes a single pair ``[G], [G]`` only will do."""


class Vectorised:
    """A goal function for batches, row by row where it cannot take them, or where it reads the info.

    One that answers a batch with anything but a number for each row, or not at all, was written for single goals.

    Attributes:
        reads_info: whether the function looks into the info; None as long as that is not known.
    """

    def __init__(self, function: GoalFunction) -> None:
        self._function = function
        self._takes_batches = True
        self.reads_info: bool | None = None

    def __call__(self, achieved: Array, desired: Array, infos: Callable[[int], dict[str, Any]] | None = None) -> Array:
        """Return ``[B]`` for goals ``[B, G]``.

        Args:
            achieved: what was reached.
            desired: what should have been.
            infos: from a row's number to the info of its transition; None stands for empty ones.

        Raises:
            EnvError: the function fails for single goals, too, or gives anything but finite numbers.
        """
        if self._takes_batches and len(achieved) > 1:
            answer = self._of_batch(achieved, desired)
            if answer is not None:
                return self._checked(answer)
        pairs = zip(achieved, desired, strict=True)
        rows = [self._of_pair(*pair, {} if infos is None else infos(i)) for i, pair in enumerate(pairs)]
        return self._checked(np.array(rows))

    def _of_batch(self, achieved: Array, desired: Array) -> Array | None:
        info = _Watched()
        try:
            answer = np.asarray(self._function(achieved, desired, info))
            fits = answer.shape == (len(achieved),) and answer.dtype.kind in "biuf"
        except Exception:  # for single goals only, or without its info; what is really wrong shows row by row
            fits = False
        if info.was_read:
            self.reads_info = True
        self._takes_batches = fits and not info.was_read
        if self._takes_batches and self.reads_info is None:
            self.reads_info = False
        return answer if self._takes_batches else None

    def _of_pair(self, achieved: Array, desired: Array, said: dict[str, Any]) -> Any:
        from optix_core.environments.making import environment_failed

        info = _Watched(said)
        try:
            answer = np.asarray(self._function(achieved, desired, info))
        except BaseException as error:
            raise environment_failed(error, f"in {self._name}()") from error
        if info.was_read:
            self.reads_info = True
        elif self.reads_info is None:
            self.reads_info = False
        if answer.size != 1 or answer.dtype.kind not in "biuf":
            raise EnvError(
                f"The environment's {self._name}() returned {in_one_line(answer)}: it must be a number for each pair "
                "of goals."
            )
        return answer.reshape(())[()]

    def _checked(self, answer: Array) -> Array:
        if not np.isfinite(answer).all():
            wrong = answer[~np.isfinite(answer)][0]
            raise EnvError(f"The environment's {self._name}() returned {wrong}: it must be a finite number.")
        return answer

    @property
    def _name(self) -> str:
        name = getattr(self._function, "__name__", "")
        return name if name.isidentifier() else "compute_reward"


class _Watched(dict[str, Any]):
    """An info that notices whether anybody looks into it."""

    was_read = False

    def __getitem__(self, key: str) -> Any:
        self.was_read = True
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.was_read = True
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self.was_read = True
        return super().__iter__()

    def __len__(self) -> int:
        self.was_read = True
        return super().__len__()

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        self.was_read = True
        return super().get(key, default)

    def keys(self) -> Any:
        """Return the names."""
        self.was_read = True
        return super().keys()

    def items(self) -> Any:
        """Return names and values."""
        self.was_read = True
        return super().items()

    def values(self) -> Any:
        """Return the values."""
        self.was_read = True
        return super().values()


class InfoColumns:
    """The infos of the transitions in a memory, an array ``[capacity, ...]`` for each name.

    Args:
        capacity: rows.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._columns: dict[str, Array] = {}

    def write(self, window: EpisodeData, rows: Array) -> None:
        """Take the infos of a window ``[T, N]`` into rows ``[T N]``; rows without any are emptied."""
        infos = window.infos or {}
        for name, array in infos.items():
            if name not in self._columns:
                self._columns[name] = np.zeros((self._capacity, *array.shape[2:]), array.dtype)
        for name, column in self._columns.items():
            said = infos.get(name)
            column[rows] = (
                0 if said is None or said.shape[2:] != column.shape[1:] else said.reshape(len(rows), *said.shape[2:])
            )

    def row(self, slots: Array, index: int) -> dict[str, Any]:
        """Return the info of the transition in ``slots[index]``."""
        slot = slots[index]
        said = {name: column[slot] for name, column in self._columns.items() if not name.startswith("_")}
        return {name: value.copy() for name, value in said.items() if self._columns[f"_{name}"][slot]}

    def state(self, num_rows: int) -> dict[str, Array]:
        """Return copies of the first rows, those that are used."""
        return {name: column[:num_rows].copy() for name, column in self._columns.items()}

    @classmethod
    def of(cls, state: StateTree, capacity: int) -> InfoColumns:
        """Return the columns whose :meth:`state` this is."""
        columns = cls(capacity)
        for name, array in state.items():
            column = np.zeros((capacity, *array.shape[1:]), array.dtype)
            column[: len(array)] = array
            columns._columns[name] = column
        return columns


class InfoWindow:
    """Collects the infos of a window while it is collected.

    Args:
        num_steps: rows ``T``.
        num_envs: environments ``N``.
    """

    def __init__(self, num_steps: int, num_envs: int) -> None:
        self._shape = (num_steps, num_envs)
        self.columns: dict[str, Array] = {}

    def take(self, t: int, info: Mapping[str, Any]) -> None:
        """Take what a vector environment said in step ``t``; of an episode that ended, what was said of its end."""
        said = {name: value for name, value in info.items() if name.lstrip("_") not in ("final_info", "final_obs")}
        self._take(t, said, np.ones(self._shape[1], bool))
        if "final_info" in info:
            ended = np.asarray(info["_final_info"], bool)
            for name, column in self.columns.items():
                if name.startswith("_"):
                    column[t, ended] = False
            if isinstance(info["final_info"], Mapping):
                self._take(t, info["final_info"], ended)

    def _take(self, t: int, info: Mapping[str, Any], where: Array) -> None:
        for name, value in info.items():
            there = info.get(f"_{name}")
            if (
                name.startswith("_")
                or there is None
                or not isinstance(value, np.ndarray)
                or value.dtype.kind not in "biuf"
            ):
                continue
            if name not in self.columns:
                self.columns[name] = np.zeros((*self._shape, *value.shape[1:]), value.dtype)
                self.columns[f"_{name}"] = np.zeros(self._shape, bool)
            column, said = self.columns[name], where & np.asarray(there, bool)
            if value.shape[1:] == column.shape[2:]:
                column[t, said] = value[said]
                self.columns[f"_{name}"][t, said] = True


def joined_infos(parts: Sequence[Mapping[str, Array]], lengths: Sequence[int]) -> dict[str, Array]:
    """Return the infos of consecutive windows as those of one; 0 where one of them says nothing of a name."""
    like = {name: array for part in parts for name, array in part.items()}

    def of(part: Mapping[str, Array], name: str, length: int) -> Array:
        known = part.get(name)
        fits = known is not None and known.shape[1:] == like[name].shape[1:]
        return known if known is not None and fits else np.zeros((length, *like[name].shape[1:]), like[name].dtype)

    return {
        name: np.concatenate([of(part, name, length) for part, length in zip(parts, lengths, strict=True)])
        for name in like
    }
