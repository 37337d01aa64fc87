"""The replay memory of off-policy agents: uniform, with n-step returns that stop at the end of an episode."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from optix_core.agents import restore_rng, rng_state
from optix_core.data.observations import Observations, StackedFrames, WholeObservations
from optix_core.errors import ConfigError
from optix_protocol import Array, EpisodeData, StateTree


class ReplayBatch(NamedTuple):
    """Transitions to learn from, all first axes ``B``.

    The target of a value is ``rewards + discounts * V(next_observations)``.

    Attributes:
        observations: ``[B, *obs]``.
        actions: ``[B, *act]``.
        rewards: ``[B]`` float32, the discounted sum of the rewards on the way to ``next_observations``.
        next_observations: ``[B, *obs]``, after ``k`` steps: ``n_step``, or fewer where the episode ended before.
        discounts: ``[B]`` float32, ``gamma^k``; 0 where the episode terminated (not where it was truncated).
        weights: ``[B]`` float32, importance weights; 1 under uniform sampling.
        indices: ``[B]``, where they lie in the memory.
        next_masks: ``[B, A]`` bool, which actions are allowed after ``next_observations``; ``[B, 0]`` where no window
            has said.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    discounts: Array
    weights: Array
    indices: Array
    next_masks: Array


class ReplayBuffer:
    """A ring of the latest transitions, sampled uniformly with replacement.

    Every observation is kept once. A row of the ring is an observation and, if an action followed it, the transition
    that begins there; its successor is the row of a later observation, which the ring overwrites later. Final
    observations take rows of their own, from which nothing begins.

    Windows are expected in the order in which they were collected. Where one does not begin with the observations that
    the last one ended with (a window was left out, say), the transitions that waited for further rewards are cut there,
    and bootstrap from what was seen last.

    Args:
        capacity: number of rows; preallocated, but memory is used only as it fills.
        observation_shape: shape of one observation.
        observation_dtype: what observations are stored as (``uint8`` for images).
        frame_stack: where above 1, an observation is a stack of so many pictures along its first axis, and each picture
            is kept once (``gymnasium.wrappers.FrameStackObservation``, Atari): nearly so many times less memory.
        action_shape: shape of one action.
        action_dtype: what actions are stored as.
        n_step: rewards per transition.
        gamma: discount. It may be changed; the reward sums of what is in the memory (for ``n_step`` > 1) stay.
        seed: of the sampling.

    Raises:
        ConfigError: (a ``ValueError``) a capacity, an ``n_step`` or a ``frame_stack`` that cannot be, or a ``gamma``
            outside [0, 1].
    """

    def __init__(
        self,
        *,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: npt.DTypeLike,
        action_shape: tuple[int, ...],
        action_dtype: npt.DTypeLike,
        frame_stack: int = 1,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int = 0,
    ) -> None:
        if capacity < 1 or n_step < 1 or not 0.0 <= gamma <= 1.0:
            raise ConfigError(
                f"capacity and n_step must be at least 1 and gamma within [0, 1], got {capacity}, {n_step}, {gamma}."
            )
        if frame_stack > 1 and observation_shape[:1] != (frame_stack,):
            raise ConfigError(
                f"frame_stack={frame_stack} needs observations [{frame_stack}, ...], not {observation_shape}."
            )
        self.capacity = capacity
        self.n_step = n_step
        self.gamma = gamma
        self._rng = np.random.default_rng(seed)
        store = StackedFrames if frame_stack > 1 else WholeObservations
        try:
            self._observations: Observations = store(capacity, observation_shape, observation_dtype)
        except MemoryError as error:
            size = f"{capacity} observations {observation_shape}"
            raise ConfigError(f"A replay memory of {size} does not fit into this machine: lower capacity.") from error
        self._actions = np.zeros((capacity, *action_shape), action_dtype)
        self._rewards = np.zeros(capacity, np.float32)
        self._steps = np.zeros(capacity, np.int32)  # steps to the successor, 0 where the episode terminated on the way
        self._successors = np.zeros(capacity, np.int64)
        self._ready = np.zeros(capacity, bool)
        self._masks = np.ones((capacity, 0), bool)  # of each row's observation, once a window has masks
        self._num_ready = 0
        self._num_written = 0
        self._num_upcoming = 0  # rows after those written that hold the observations the next window begins with
        self._pending = _Rows.none(0)
        self._powers: tuple[float, Array] = (math.nan, np.empty(0, np.float32))

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return self._num_ready

    def add(self, window: EpisodeData) -> None:
        """Store the valid rows of a window ``[T, N]``.

        Raises:
            ConfigError: (a ``ValueError``) the window does not fit into the memory.
        """
        if window.num_steps == 0:
            return
        if window.num_envs != self._num_upcoming:
            self._complete(self._pending.cut_after(np.ones(self._num_upcoming, bool)))
            self._pending = _Rows.none(window.num_envs)
            continues = np.zeros(window.num_envs, bool)
        else:
            continues = self._continues(window)
            self._pending = self._pending.cut_after(~continues)
        if not continues.all():
            self._num_written += self._num_upcoming
        rows = self._write(window, continues=bool(continues.all()))
        self._pending = self._complete(self._pending.followed_by(rows))

    def sample(self, batch_size: int) -> ReplayBatch:
        """Draw transitions, each with the same probability.

        Raises:
            ValueError: the memory holds none.
        """
        if not self._num_ready:
            raise ValueError("The replay memory is empty: add a window before sampling.")
        return self._gather(self._draw(batch_size), np.ones(batch_size, np.float32))

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that later samples depend on."""
        used = slice(0, self._num_used)
        return {
            **{name: array[used].copy() for name, array in self._columns().items()},
            "pending": {name: array.copy() for name, array in self._pending._asdict().items()},
            "num_written": self._num_written,
            "num_upcoming": self._num_upcoming,
            "margin": self._observations.margin,
            "capacity": self.capacity,
            "rng": rng_state(self._rng),
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned, bit for bit.

        Raises:
            ValueError: it belongs to a memory of another capacity or of other observations or actions.
        """
        columns = self._columns()
        if state["capacity"] != self.capacity:
            raise ValueError(f"The state is of a memory of {state['capacity']} rows, this one has {self.capacity}.")
        masks = state.get("masks", self._masks[:0, :0])  # absent in states of release 0.1
        self._masks = np.ones((self.capacity, masks.shape[1]), bool)
        columns["masks"] = self._masks
        state = {**state, "masks": masks}
        for name, array in columns.items():
            if state[name].shape[1:] != array.shape[1:] or state[name].dtype != array.dtype:
                raise ValueError(f"The state belongs to another environment: its {name} have another shape or type.")
        self._num_written, self._num_upcoming = int(state["num_written"]), int(state["num_upcoming"])
        self._observations.margin = int(state["margin"])
        for name, array in columns.items():
            array[: len(state[name])] = state[name]
        self._ready[self._num_used :] = False
        self._num_ready = int(np.count_nonzero(self._ready))
        self._pending = _Rows(**{name: np.array(state["pending"][name]) for name in _Rows._fields})
        restore_rng(self._rng, state["rng"])

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _written(self, window: EpisodeData, rows: Array) -> None:
        """Take what else a window ``[T, N]`` holds into these rows ``[T N]``."""

    def _added(self, slots: Array) -> None:
        """Take note that these rows can be sampled from now on."""

    def _removed(self, slots: Array) -> None:
        """Take note that these rows are about to be overwritten."""

    def _draw(self, batch_size: int) -> Array:
        """Return rows that can be sampled, uniformly with replacement."""
        if self._num_ready * 4 < self._num_used:
            ready = np.flatnonzero(self._ready)
            return ready[self._rng.integers(0, len(ready), batch_size)]
        indices = self._rng.integers(0, self._num_used, batch_size)
        missing = np.flatnonzero(~self._ready.take(indices))
        while len(missing):
            drawn = self._rng.integers(0, self._num_used, len(missing))
            indices[missing] = drawn
            missing = missing[~self._ready.take(drawn)]
        return indices

    def _gather(self, indices: Array, weights: Array) -> ReplayBatch:
        successors = self._successors.take(indices)
        return ReplayBatch(
            observations=self._observations.read(indices),
            actions=self._actions.take(indices, axis=0),
            rewards=self._rewards.take(indices),
            next_observations=self._observations.read(successors),
            discounts=self._discounts().take(self._steps.take(indices)),
            weights=weights,
            indices=indices,
            next_masks=self._masks.take(successors, axis=0),
        )

    def _discounts(self) -> Array:
        """Return ``[n_step + 1]`` float32: ``gamma^k`` after ``k`` steps, and 0 after a termination."""
        gamma, powers = self._powers
        if gamma != self.gamma:
            powers = (self.gamma ** np.arange(self.n_step + 1, dtype=np.float64)).astype(np.float32)
            powers[0] = 0.0
            self._powers = (self.gamma, powers)
        return powers

    # ---- writing ----------------------------------------------------------------------------------------------------

    @property
    def _num_used(self) -> int:
        """Rows that have ever been written."""
        return min(self.capacity, self._num_written + self._num_upcoming)

    def _columns(self) -> dict[str, Array]:
        return {
            **self._observations.columns(),
            "actions": self._actions,
            "rewards": self._rewards,
            "steps": self._steps,
            "successors": self._successors,
            "ready": self._ready,
            "masks": self._masks,
        }

    def _continues(self, window: EpisodeData) -> Array:
        """Whether each environment begins the window with the observation that the last window ended with, ``[N]``."""
        slots = (self._num_written + np.arange(self._num_upcoming)) % self.capacity
        upcoming = self._observations.read(slots)
        first = window.observations[0].astype(upcoming.dtype, copy=False)
        same: Array = (first == upcoming).reshape(self._num_upcoming, -1).all(axis=1)
        return same

    def _write(self, window: EpisodeData, *, continues: bool) -> _Rows:
        """Write observations and actions into the ring; the transitions are complete only with their rewards."""
        T, N = window.rewards.shape
        num_rows, num_finals = T * N, len(window.final_observations)
        new = self._observations.new(window, continues=continues)
        num_extra = self._observations.num_extra * int(np.count_nonzero(new))
        num_slots = num_rows + num_finals + num_extra + N
        margin = self._observations.margin
        needed = num_slots + self._num_waiting_rows() + margin
        if needed > self.capacity:
            raise ConfigError(
                f"A window of {T} x {N} steps needs a replay memory of at least {needed} rows, not {self.capacity}: "
                "raise capacity, or lower window_size or n_envs."
            )
        if self._num_written + num_slots + margin > self.capacity:
            self._forget((self._num_written + np.arange(num_slots + margin)) % self.capacity)
        slots = np.arange(self._num_written, self._num_written + num_slots) % self.capacity
        rows, finals = slots[:num_rows], slots[num_rows : num_rows + num_finals]
        extra, upcoming = slots[num_rows + num_finals : -N], slots[-N:]
        self._observations.write(window, np.concatenate([rows, finals, upcoming]), new, extra)
        self._actions[rows] = window.actions.reshape(num_rows, *window.actions.shape[2:])
        self._write_masks(window, rows, finals, upcoming)
        self._written(window, rows)
        self._num_written += num_rows + num_finals + num_extra
        self._num_upcoming = N

        grid = rows.reshape(T, N)
        successors = np.concatenate([grid[1:], upcoming[None]])
        successors[window.done] = finals  # boolean indexing is row-major: the order of ``ends``
        rewards = window.rewards if window.intrinsic_rewards is None else window.rewards + window.intrinsic_rewards
        cut = window.done.copy()
        cut[:-1] |= ~window.valid[1:]
        return _Rows(
            rewards=rewards.astype(np.float64),
            terminated=window.terminated,
            cut=cut,
            waiting=window.valid,
            slots=grid,
            successors=successors,
        )

    def _write_masks(self, window: EpisodeData, rows: Array, finals: Array, upcoming: Array) -> None:
        """Write what was allowed at each observation; where that is not known, or nothing was, everything is."""
        masks = window.action_mask
        if masks is not None and not self._masks.shape[1]:
            self._masks = np.ones((self.capacity, masks.shape[2]), bool)
        if not self._masks.shape[1]:
            return
        known = (None if masks is None else masks.reshape(len(rows), -1), window.final_action_masks)
        for slots, mask in zip((rows, finals, upcoming), (*known, window.last_action_mask), strict=True):
            self._masks[slots] = True if mask is None else mask | ~mask.any(axis=1, keepdims=True)

    def _forget(self, slots: Array) -> None:
        lost = slots[self._ready[slots]]
        if len(lost):
            self._removed(lost)
            self._ready[lost] = False
            self._num_ready -= len(lost)

    def _num_waiting_rows(self) -> int:
        """Rows back to the oldest transition that waits for rewards."""
        if not len(self._pending.slots):
            return 0
        waiting = self._pending.slots[self._pending.waiting]
        return int(((self._num_written - waiting) % self.capacity).max(initial=0))

    def _complete(self, rows: _Rows) -> _Rows:
        """Store every waiting transition that has all its rewards; return the rows that the others wait for."""
        if self.n_step == 1:
            every = rows.waiting
            steps = ~rows.terminated[every]  # one, or none where the episode terminated
            self._store(rows.slots[every], rows.rewards[every], steps, rows.successors[every])
            return _Rows.none(rows.rewards.shape[1])
        complete, counts, returns = self._sum_up(rows)
        at, env = np.nonzero(complete)
        count = counts[at, env]
        last = at + count - 1
        steps = np.where(rows.terminated[last, env], 0, count)
        self._store(rows.slots[at, env], returns[at, env], steps, rows.successors[last, env])
        return rows._replace(waiting=rows.waiting & ~complete).newest(self.n_step - 1)

    def _store(self, slots: Array, rewards: Array, steps: Array, successors: Array) -> None:
        """Make these rows transitions that can be sampled."""
        if len(slots):
            self._rewards[slots], self._steps[slots], self._successors[slots] = rewards, steps, successors
            self._ready[slots] = True
            self._num_ready += len(slots)
            self._added(slots)

    def _sum_up(self, rows: _Rows) -> tuple[Array, Array, Array]:
        """Return which transitions have all their rewards, how many, and their discounted sums, each ``[L, N]``."""
        num_rows = len(rows.rewards)
        returns = np.zeros(rows.rewards.shape)
        counts = np.zeros(rows.rewards.shape, np.int32)
        running = rows.waiting.copy()
        for step in range(min(self.n_step, num_rows)):
            # Transition t takes the reward of row t + step, unless it was cut before.
            going = running[: num_rows - step]
            returns[: num_rows - step] += np.where(going, self.gamma**step * rows.rewards[step:], 0.0)
            counts[: num_rows - step] += going
            going &= ~rows.cut[step:]
        return rows.waiting & (~running | (counts == self.n_step)), counts, returns


class _Rows(NamedTuple):
    """Consecutive rows ``[L, N]`` on their way into the memory.

    Attributes:
        rewards: float64.
        terminated: bool.
        cut: bool, what begins at or before this row takes no reward after it.
        waiting: bool, a transition begins here that has not been stored.
        slots: where in the ring each row lies.
        successors: where in the ring the observation after it lies.
    """

    rewards: Array
    terminated: Array
    cut: Array
    waiting: Array
    slots: Array
    successors: Array

    @classmethod
    def none(cls, num_envs: int) -> _Rows:
        """Return no rows of this many environments."""
        shape = (0, num_envs)
        flags, places = np.zeros(shape, bool), np.zeros(shape, np.int64)
        return cls(np.zeros(shape), terminated=flags, cut=flags, waiting=flags, slots=places, successors=places)

    def followed_by(self, rows: _Rows) -> _Rows:
        """Return these rows and then those; nothing goes on into a row that is no transition."""
        if not len(self.rewards):
            return rows
        return _Rows(*map(np.concatenate, zip(self.cut_after(~rows.waiting[0]), rows, strict=True)))

    def cut_after(self, envs: Array) -> _Rows:
        """Return the rows with a cut after the last one in these environments (bool ``[N]``)."""
        if not len(self.cut):
            return self
        cut = self.cut.copy()
        cut[-1:] |= envs
        return self._replace(cut=cut)

    def newest(self, num_rows: int) -> _Rows:
        """Return a copy of the last rows."""
        start = max(0, len(self.rewards) - num_rows)
        return _Rows(*(array[start:].copy() for array in self))
