"""How a replay memory keeps observations: whole, or as the pictures that a stack of frames is made of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from optix_protocol import Array, EpisodeData


class WholeObservations:
    """Every observation in a row of the ring.

    Args:
        capacity: rows.
        shape: shape of one observation.
        dtype: what it is stored as.

    Attributes:
        num_extra: how many rows more an observation takes that begins anew.
        margin: how many rows before its own an observation may reach back to.
    """

    num_extra = 0
    margin = 0

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        # Zeros, not np.empty: pages that nobody writes cost nothing either way, and rows without a transition are
        # then the same in every copy of the state.
        self._array = np.zeros((capacity, *shape), dtype)

    def read(self, slots: Array) -> Array:
        """Return the observations ``[B, *obs]`` of rows ``[B]``."""
        return self._array.take(slots, axis=0)

    def new(self, window: EpisodeData, *, continues: bool) -> Array:  # noqa: ARG002 - nothing to compare
        """Return whether each observation begins anew, as :meth:`StackedFrames.new` does: none does."""
        return np.zeros(0, bool)

    def write(self, window: EpisodeData, slots: Array, new: Array, extra: Array) -> None:  # noqa: ARG002
        """Store the observations of a window in these rows: those acted on, the final ones, the upcoming ones."""
        num_rows, num_finals = window.rewards.size, len(window.final_observations)
        last = num_rows + num_finals
        self._array[slots[:num_rows]] = window.observations.reshape(num_rows, *window.observations.shape[2:])
        self._array[slots[num_rows:last]] = window.final_observations
        self._array[slots[last:]] = window.last_observation

    def columns(self) -> dict[str, Array]:
        """Return the arrays whose rows are the ring's."""
        return {"observations": self._array}


class StackedFrames:
    """Observations ``[k, *picture]`` that are the last ``k`` pictures, each picture kept once.

    A row of the ring holds the newest picture of an observation and the place of the one before. Where an observation
    does not go on from the one before (a new episode), its older pictures take rows of their own, so that what is read
    is always exactly what was written, whatever a stack begins with.

    Args:
        capacity: rows.
        shape: shape of one observation, its first axis the pictures from the oldest to the newest.
        dtype: what it is stored as.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.num_extra = shape[0] - 1
        self.margin = 0
        self._pictures = np.zeros((capacity, *shape[1:]), dtype)
        self._before = np.zeros(capacity, np.int64)

    def read(self, slots: Array) -> Array:
        """Return the observations ``[B, k, *picture]`` of rows ``[B]``."""
        chain = [slots]
        for _ in range(self.num_extra):
            chain.append(self._before.take(chain[-1]))
        return self._pictures.take(np.stack(chain[::-1], axis=1), axis=0)

    def new(self, window: EpisodeData, *, continues: bool) -> Array:
        """Return whether each observation begins anew (bool, in the order rows, finals, upcoming).

        Args:
            window: the observations.
            continues: its first ones are in the memory already, where the last window put them.
        """
        seen = _all_observations(window)
        before = seen[_one_before(window)]
        new: Array = (before[:, 1:] != seen[:, :-1]).reshape(len(seen), -1).any(axis=1)
        new[: window.num_envs] = not continues
        return new

    def write(self, window: EpisodeData, slots: Array, new: Array, extra: Array) -> None:
        """Store the observations of a window.

        Args:
            window: the observations.
            slots: their rows, in the order rows, finals, upcoming.
            new: what :meth:`new` said of them.
            extra: :attr:`num_extra` rows for each that begins anew.
        """
        seen = _all_observations(window)
        self._pictures[slots] = seen[:, -1]
        goes_on = ~new
        goes_on[: window.num_envs] = False  # the first either begin anew, or have their place already
        self._before[slots[goes_on]] = slots[_one_before(window)[goes_on]]
        older = extra.reshape(-1, self.num_extra)
        self._pictures[older] = seen[new, :-1]
        self._before[older[:, 0]] = older[:, 0]
        self._before[older[:, 1:]] = older[:, :-1]
        self._before[slots[new]] = older[:, -1]
        # From one observation to the one before it is a row of environments, and across windows also what lies between.
        self.margin = max(self.margin, self.num_extra * (window.num_envs + len(window.final_observations) + len(extra)))

    def columns(self) -> dict[str, Array]:
        """Return the arrays whose rows are the ring's."""
        return {"observations": self._pictures, "frames_before": self._before}


Observations: TypeAlias = WholeObservations | StackedFrames


def _all_observations(window: EpisodeData) -> Array:
    """Return the observations that were acted on, the final and the upcoming ones, as ``[T N + E + N, *obs]``."""
    acted_on = window.observations.reshape(-1, *window.observations.shape[2:])
    return np.concatenate([acted_on, window.final_observations, window.last_observation])


def _one_before(window: EpisodeData) -> Array:
    """Return for each of these observations which of them came before; the first rows stand for themselves."""
    rows = np.arange(window.rewards.size).reshape(window.rewards.shape)
    return np.concatenate([rows[0], rows[:-1].reshape(-1), rows[window.done], rows[-1]])
