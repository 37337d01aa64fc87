"""Hindsight for loops of your own: whole episodes by hand, and batches as tuples of arrays."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from optix_core.data.goal_functions import Vectorised
from optix_core.errors import ConfigError, whole_number
from optix_protocol import Array

STRATEGIES = ("future", "final", "episode")


class HindsightBatch(NamedTuple):
    """Transitions with the goals to learn them for, all first axes ``B``.

    Attributes:
        obs: ``[B, O]``, the goal at their end.
        actions: ``[B, A]``.
        rewards: ``[B]`` for that goal.
        next_obs: ``[B, O]``, with the same goal.
        dones: ``[B]`` bool, as they were stored.
        weights: ``[B]`` importance weights, all 1.
        indices: ``[B]`` where they lie in the memory.
        n_steps: ``[B]`` rewards in each sum, all 1.
    """

    obs: Array
    actions: Array
    rewards: Array
    next_obs: Array
    dones: Array
    weights: Array
    indices: Array
    n_steps: Array


class HandFilledHERBuffer:
    """Hindsight experience replay (Andrychowicz et al. 2017) that is filled by hand, episode by episode.

    Of every ``k + 1`` sampled transitions ``k`` get a new goal that was achieved in the same episode, and the reward of
    having achieved what this transition achieved when that goal was desired. Whole episodes leave when it is full.
    :class:`optix_core.data.HERBuffer` is what the agents of this library use themselves.

    Args:
        obs_dim: length of an observation ``O``, or what is left of it without the goal at its end.
        act_dim: numbers in an action ``A``.
        goal_dim: numbers in a goal ``G``.
        strategy: new goals come from ``"future"`` moments of the episode, from its ``"final"`` one, or from any moment
            of the ``"episode"``.
        k: new goals per original one.
        capacity: transitions.
        seed: of the sampling.

    Raises:
        ConfigError: (a ``ValueError``) an unknown strategy, or a number out of range.
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        goal_dim: int,
        strategy: Literal["future", "final", "episode"] = "future",
        k: int = 4,
        capacity: int = 100_000,
        *,
        seed: int = 0,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
        self.strategy, self.k = strategy, whole_number("k", k, least=0)
        self.capacity = whole_number("capacity", capacity, least=1)
        self.obs_dim, self.act_dim, self.goal_dim = (
            whole_number(name, size, least=1)
            for name, size in (("obs_dim", obs_dim), ("act_dim", act_dim), ("goal_dim", goal_dim))
        )
        self._rng = np.random.default_rng(seed)
        self._columns: dict[str, Array] = {}
        self._episodes: deque[int] = deque()  # their lengths, the oldest first; they lie one after the other
        self._oldest = self._size = 0
        self._compute_reward: Callable[[Array, Array], Array] | None = None

    def __len__(self) -> int:
        """Return the number of transitions."""
        return self._size

    def store_episode(
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        next_obs: Any,
        dones: Any,
        achieved_goals: Any,
        compute_reward: Callable[..., Any],
    ) -> None:
        """Store an episode of ``T`` steps.

        Args:
            obs: ``[T, O]``, the desired goal in the last ``G`` numbers of each.
            actions: ``[T, A]``, or ``[T]``.
            rewards: ``[T]``.
            next_obs: ``[T, O]``.
            dones: ``[T]``.
            achieved_goals: ``[T, G]`` what each step achieved; ``[T + 1, G]`` may begin with what was there before.
            compute_reward: from achieved and desired goals (and an info) to rewards, for batches ``[B, G]`` or for
                single goals ``[G]``.

        Raises:
            ConfigError: (a ``ValueError``) arrays that do not fit together, or an episode longer than the memory.
        """
        observations = np.asarray(obs, np.float32)
        length = len(observations)
        achieved = np.asarray(achieved_goals, np.float32)
        columns = {
            "obs": observations,
            "actions": np.asarray(actions, np.float32).reshape(length, -1),
            "rewards": np.asarray(rewards, np.float32).reshape(-1),
            "next_obs": np.asarray(next_obs, np.float32),
            "dones": np.asarray(dones, bool).reshape(-1),
            "achieved": achieved[1:] if len(achieved) == length + 1 else achieved,
        }
        self._check(columns, length)
        if not length:
            return
        if not self._columns:
            rows = {name: np.zeros((self.capacity, *array.shape[1:]), array.dtype) for name, array in columns.items()}
            self._columns = {**rows, "before": np.zeros(self.capacity, int), "left": np.zeros(self.capacity, int)}
        while self._size + length > self.capacity:
            forgotten = self._episodes.popleft()
            self._oldest = (self._oldest + forgotten) % self.capacity
            self._size -= forgotten
        slots = (self._oldest + self._size + np.arange(length)) % self.capacity
        for name, array in columns.items():
            self._columns[name][slots] = array
        self._columns["before"][slots] = np.arange(length)
        self._columns["left"][slots] = np.arange(length, 0, -1)
        self._episodes.append(length)
        self._size += length
        self._compute_reward = _rewards_by(compute_reward)

    def sample(self, batch_size: int) -> HindsightBatch:
        """Draw transitions with replacement, ``k`` of ``k + 1`` of them with a new goal.

        Raises:
            ValueError: it is empty.
        """
        if self._compute_reward is None:
            raise ValueError("The replay memory is empty: store an episode before sampling.")
        indices = (self._oldest + self._rng.integers(0, self._size, batch_size)) % self.capacity
        taken = {name: array[indices] for name, array in self._columns.items()}
        new = np.flatnonzero(self._rng.random(batch_size) * (self.k + 1) < self.k)
        if len(new):
            goals = self._columns["achieved"][(indices[new] + self._offsets(taken, new)) % self.capacity]
            taken["obs"][new, -self.goal_dim :] = goals
            taken["next_obs"][new, -self.goal_dim :] = goals
            taken["rewards"][new] = self._compute_reward(taken["achieved"][new], goals)
        return HindsightBatch(
            obs=taken["obs"],
            actions=taken["actions"],
            rewards=taken["rewards"],
            next_obs=taken["next_obs"],
            dones=taken["dones"],
            weights=np.ones(batch_size, np.float32),
            indices=indices,
            n_steps=np.ones(batch_size, np.int64),
        )

    def _offsets(self, taken: dict[str, Array], rows: Array) -> Array:
        """Draw how many steps after each transition its new goal was achieved."""
        before, left = taken["before"][rows], taken["left"][rows]
        if self.strategy == "final":
            return left - 1
        return self._rng.integers(0 if self.strategy == "future" else -before, left)

    def _check(self, columns: dict[str, Array], length: int) -> None:
        if length > self.capacity:
            raise ConfigError(f"An episode of {length} steps does not fit into a memory of {self.capacity}.")
        widths = {"obs": (self.obs_dim, self.obs_dim + self.goal_dim), "achieved": (self.goal_dim,)}
        widths |= {"actions": (self.act_dim,), "next_obs": columns["obs"].shape[1:]}
        if self._columns:
            widths["obs"] = self._columns["obs"].shape[1:]
        for name, array in columns.items():
            fits = array.ndim == 2 and array.shape[1] in widths[name] if name in widths else array.ndim == 1
            if len(array) != length or not fits:
                wanted = f"[{length}, {' or '.join(map(str, widths[name]))}]" if name in widths else f"[{length}]"
                raise ConfigError(f"{name} of an episode must be {wanted}, got {list(array.shape)}.")


def _rewards_by(function: Callable[..., Any]) -> Callable[[Array, Array], Array]:
    """Return a goal function for batches, from one that takes an info or none, and batches or single goals."""
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        return Vectorised(lambda achieved, desired, info: function(achieved, desired))  # noqa: ARG005
    except ValueError:  # no signature to be had
        pass
    return Vectorised(function)
