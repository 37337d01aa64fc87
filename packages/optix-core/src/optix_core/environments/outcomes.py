"""What an environment may return, and what is said, in one line, where it returns anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import EnvError, in_one_line
from optix_protocol import Array

if TYPE_CHECKING:
    import gymnasium as gym

_LARGEST = float(np.finfo(np.float32).max)


def reward_of(reward: Any) -> float:
    """Return a reward as a number; an array of one number is one.

    Raises:
        EnvError: it is a vector, or no number.
    """
    if isinstance(reward, float | int):
        return float(reward)
    array = np.asarray(reward)
    if array.dtype.kind in "biuf" and array.size == 1:
        return float(array.reshape(())[()])
    if array.dtype.kind in "biuf" and array.ndim:
        raise EnvError(
            f"The environment returned a vector reward, {in_one_line(array)}: weigh its parts in a wrapper, such as "
            "gymnasium.wrappers.TransformReward(env, lambda reward: reward @ weights) or mo_gymnasium's LinearReward."
        )
    raise EnvError(f"The environment returned the reward {in_one_line(repr(reward))}: a reward is a number.")


def rewards_of(rewards: Any, num_envs: int) -> Array:
    """Return the rewards of environments side by side, ``[N]``.

    Raises:
        EnvError: there is not one number for each.
    """
    array = np.asarray(rewards)
    if array.shape == (num_envs,):
        return array
    if array.dtype.kind in "biuf" and array.size == num_envs:
        return array.reshape(num_envs)
    reward_of(array[0] if array.ndim else array)
    raise EnvError(f"The environments returned rewards {list(array.shape)} for {num_envs} environments.")


def observations_of(observations: Any, shape: tuple[int, ...]) -> Array:
    """Return the observations of environments side by side, ``[N, *obs]``.

    Raises:
        EnvError: they have another shape.
    """
    array = np.asarray(observations)
    if array.shape != shape:
        raise EnvError(
            f"The environments returned observations {list(array.shape)}, and their observation_space says "
            f"{list(shape)}: correct one of the two."
        )
    return array


def infos_of(info: Any) -> Mapping[str, Any]:
    """Return what environments side by side say beside their observations.

    Raises:
        EnvError: it is no dict.
    """
    if not isinstance(info, Mapping):
        raise EnvError(
            f"The environments returned infos of type {type(info).__name__}: a vector of them returns one dict."
        )
    return info


class ObservationCheck:
    """Finds observations that no network can be given: NaN, more than float32 holds, a number that its space lacks.

    Real numbers beyond the bounds of a Box are let through, since bounds are often rough guesses.

    Args:
        space: of one environment.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._space = space
        self._start: Any = None
        sizes: Any = getattr(space, "nvec", None)
        if sizes is None and space.shape == ():
            sizes = getattr(space, "n", None)
        if sizes is not None:
            self._start = np.asarray(getattr(space, "start", 0), np.int64)
            self._sizes = np.asarray(sizes).astype(np.uint64)

    def unusable(self, rows: Array) -> Array:
        """Return where no network can take observations ``[B, *obs]``, bool ``[B]``."""
        bad = self._bad(rows)
        return np.asarray(bad.reshape(len(rows), -1).any(axis=1))

    def has_unusable(self, rows: Array) -> bool:
        """Whether there is any such observation among ``[B, *obs]``."""
        if self._start is None and rows.dtype.kind == "f" and rows.dtype.itemsize <= 4:
            return bool(np.count_nonzero(np.isfinite(rows)) < rows.size)
        return bool(self._bad(rows).any())

    def mended(self, rows: Array, where: Array, by: Array) -> Array:
        """Return observations ``[B, *obs]`` with those of ``by`` in the place of unusable ones, as far as ``where``.

        What an episode shows when it has terminated is never judged, so that nothing is wrong with NaN there; but 0
        times NaN is NaN.
        """
        if not self.has_unusable(rows):
            return rows
        replaced = self.unusable(rows) & where
        return np.where(replaced.reshape(-1, *[1] * (rows.ndim - 1)), by, rows) if replaced.any() else rows

    def require(self, rows: Array, places: Callable[[int], str] = "environment {}".format) -> None:
        """Raise an ``EnvError`` for unusable observations.

        Args:
            rows: ``[B, *obs]``.
            places: from a row's number to where it is from, for the message.
        """
        if self.has_unusable(rows):
            row = int(np.flatnonzero(self.unusable(rows))[0])
            raise EnvError(f"The environment returned {self._what(rows[row])} ({places(row)}). {_REMEDY}")

    def _bad(self, rows: Array) -> Array:
        """Return element by element what is unusable."""
        if self._start is not None and rows.dtype.kind in "iu":
            outside: Array = (rows.astype(np.int64, copy=False) - self._start).astype(np.uint64) >= self._sizes
            return outside
        if rows.dtype.kind != "f":
            return np.zeros(len(rows), bool)
        return ~np.isfinite(rows) if rows.dtype.itemsize <= 4 else ~(np.abs(rows) <= _LARGEST)

    def _what(self, observation: Array) -> str:
        if observation.dtype.kind != "f":
            return f"the observation {in_one_line(observation)}, which is not in its {in_one_line(self._space)}"
        if np.isfinite(observation).all():
            return f"observations of up to {np.abs(observation).max():g}, more than float32 holds"
        return "observations that are NaN or infinite"


def require_rewards(rewards: Array, *, num_env_steps: int) -> None:
    """Raise an ``EnvError`` for rewards ``[T, N]`` that are NaN, infinite, or more than float32 holds."""
    bad = ~(np.abs(rewards) <= _LARGEST)
    if np.count_nonzero(bad):
        t, n = np.argwhere(bad)[0]
        what = "that are NaN or infinite"
        if np.isfinite(rewards[t, n]):
            what = f"of {rewards[t, n]:g}, more than float32 holds"
        place = f"environment {n}, near step {num_env_steps + int(t) * rewards.shape[1]}"
        raise EnvError(f"The environment returned rewards {what} ({place}). {_REMEDY}")


_REMEDY = "Mend the environment, or clip or mask them in a wrapper."
