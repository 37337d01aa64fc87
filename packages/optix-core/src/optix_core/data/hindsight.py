"""Hindsight experience replay (Andrychowicz et al. 2017): what was reached becomes the goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from optix_core.data.goal_functions import GoalFunction, InfoColumns, Vectorised, joined_infos
from optix_core.data.replay import ReplayBatch, ReplayBuffer
from optix_core.errors import ConfigError
from optix_protocol import Array, EpisodeData, StateTree


def is_goal_env(env: Any) -> bool:
    """Whether an environment (wrapped or not) is a goal environment in the sense of Gymnasium-Robotics.

    Its observation is a Dict with ``achieved_goal`` and ``desired_goal``, and it has ``compute_reward``.
    """
    parts = getattr(env.unwrapped.observation_space, "spaces", ())
    return "achieved_goal" in parts and "desired_goal" in parts and env.has_wrapper_attr("compute_reward")


@dataclass(frozen=True, kw_only=True)
class GoalLayout:
    """Where the goals are in a flattened observation.

    Attributes:
        achieved: the part that says what is reached now.
        desired: the part that says what should be reached.
        size: length of the whole observation.
    """

    achieved: slice
    desired: slice
    size: int

    @classmethod
    def of(cls, space: Any) -> GoalLayout:
        """Return the layout that ``gymnasium.wrappers.FlattenObservation`` gives a goal environment's Dict space.

        Raises:
            ConfigError: the space has no ``achieved_goal`` and ``desired_goal`` of the same size.
        """
        from gymnasium import spaces

        from optix_core.policies.flat_spaces import flat_sizes

        sizes = flat_sizes(space) if isinstance(space, spaces.Dict) else {}
        if not {"achieved_goal", "desired_goal"} <= sizes.keys() or sizes["achieved_goal"] != sizes["desired_goal"]:
            raise ConfigError(
                "Hindsight needs a goal environment: a Dict observation with 'achieved_goal' and 'desired_goal'."
            )
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        places = {name: slice(end - sizes[name], end) for name, end in ends.items()}
        return cls(achieved=places["achieved_goal"], desired=places["desired_goal"], size=sum(sizes.values()))


class HERBuffer(ReplayBuffer):
    """Replay of whole episodes in which a share of the goals is replaced by what was reached in the same episode.

    Of every ``k + 1`` sampled transitions ``k`` get a new goal, in the observation and in the next one, and the reward
    of having achieved what the next observation shows when that goal was desired. A termination is computed anew too
    where the environment has ``compute_terminated``, and stays as it was elsewhere; a truncation never ends a value.
    Episodes enter the memory when they end. Observations are flat; ``goals`` says where the goals lie in them.

    ``HERBuffer(obs_dim, act_dim, goal_dim)`` makes a :class:`optix_core.data.HandFilledHERBuffer` instead, for loops of
    your own.

    Args:
        goals: layout of the observations.
        compute_reward: reward of having achieved one goal when another was desired.
        compute_terminated: whether the episode terminates there; None leaves terminations as they were.
        strategy: new goals come from ``"future"`` moments of the episode (after the transition), from its ``"final"``
            one, or from any moment of the ``"episode"``.
        k: new goals per original one.
        kwargs: as for :class:`ReplayBuffer`; ``n_step`` is 1.

    Raises:
        ConfigError: (a ``ValueError``) an unknown strategy, a negative ``k``, or an ``n_step`` other than 1.
    """

    def __new__(cls, *dims: Any, **options: Any) -> Any:
        """Make one that agents fill, or by dimensions one that is filled by hand."""
        if dims or "obs_dim" in options:
            from optix_core.data.hand_filled import HandFilledHERBuffer

            return HandFilledHERBuffer(*dims, **options)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        goals: GoalLayout,
        compute_reward: GoalFunction,
        compute_terminated: GoalFunction | None = None,
        strategy: Literal["future", "final", "episode"] = "future",
        k: int = 4,
        capacity: int,
        observation_dtype: npt.DTypeLike = np.float32,
        **kwargs: Any,
    ) -> None:
        if strategy not in ("future", "final", "episode") or k < 0 or kwargs.get("n_step", 1) != 1:
            raise ConfigError("Hindsight takes strategy future, final or episode, k of at least 0 and n_step 1.")
        kwargs.setdefault("observation_shape", (goals.size,))
        super().__init__(capacity=capacity, observation_dtype=observation_dtype, **kwargs)
        self.goals = goals
        self.strategy = strategy
        self.k = k
        self._compute_reward = Vectorised(compute_reward)
        self._compute_terminated = None if compute_terminated is None else Vectorised(compute_terminated)
        # An episode lies in consecutive rows, its final observation after its last transition.
        self._steps_before = np.zeros(capacity, np.int64)
        self._steps_left = np.zeros(capacity, np.int64)
        self._infos = InfoColumns(capacity)
        self._open: list[_OpenEpisode] = []

    @classmethod
    def from_env(cls, env: Any, *, capacity: int, **kwargs: Any) -> HERBuffer:
        """Make a memory that fits a goal environment (with or without ``FlattenObservation`` around it).

        Args:
            env: has ``compute_reward(achieved, desired, info)`` and, perhaps, ``compute_terminated``.
            capacity: rows.
            kwargs: ``strategy``, ``k``, ``gamma``, ``seed``.

        Raises:
            ConfigError: it is no goal environment.
        """
        if not env.has_wrapper_attr("compute_reward"):
            raise ConfigError(f"Hindsight needs an environment with compute_reward(); {env.unwrapped} has none.")
        terminates = env.has_wrapper_attr("compute_terminated")
        return cls(
            goals=GoalLayout.of(env.unwrapped.observation_space),
            compute_reward=env.get_wrapper_attr("compute_reward"),
            compute_terminated=env.get_wrapper_attr("compute_terminated") if terminates else None,
            capacity=capacity,
            action_shape=env.action_space.shape,
            action_dtype=env.action_space.dtype,
            **kwargs,
        )

    def add(self, window: EpisodeData) -> None:
        """Take in a window; its episodes can be sampled from when they end.

        Raises:
            ConfigError: (a ``ValueError``) an episode does not fit into the memory.
        """
        if len(self._open) != window.num_envs:
            self._close_all()
            self._open = [_OpenEpisode() for _ in range(window.num_envs)]
        for env, episode in enumerate(self._open):
            for whole in episode.feed(window, env):
                super().add(whole)

    def sample(self, batch_size: int) -> ReplayBatch:
        """Draw transitions, ``k`` of ``k + 1`` of them with a new goal.

        Raises:
            ValueError: no episode has ended yet.
        """
        batch = super().sample(batch_size)
        new = np.flatnonzero(self._rng.random(batch_size) * (self.k + 1) < self.k)
        if not len(new):
            return batch
        slots = batch.indices[new]
        reached = self._observations.read((slots + self._offsets(slots)) % self.capacity)[:, self.goals.achieved]
        achieved = batch.next_observations[new, self.goals.achieved]
        batch.observations[new, self.goals.desired] = reached
        batch.next_observations[new, self.goals.desired] = reached
        infos = partial(self._infos.row, slots)
        batch.rewards[new] = self._compute_reward(achieved, reached, infos)
        if self._compute_terminated is not None:
            terminated = self._compute_terminated(achieved, reached, infos)
            batch.discounts[new] = np.where(terminated, 0.0, self.gamma)
        if not self.wants_infos:
            self._infos = InfoColumns(self.capacity)
        return batch

    @property
    def wants_infos(self) -> bool:
        """Whether windows should come with ``infos``: until it is known that the environment's functions read none."""
        return any(function.reads_info is not False for function in self._functions)

    @property
    def _functions(self) -> list[Vectorised]:
        return [self._compute_reward, *([self._compute_terminated] if self._compute_terminated else [])]

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that later samples depend on."""
        state = super().state()
        return {
            **state,
            "open": {str(env): episode.state() for env, episode in enumerate(self._open)},
            "infos": self._infos.state(self._num_used),
            "reads_info": {str(i): function.reads_info for i, function in enumerate(self._functions)},
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned, bit for bit."""
        super().restore(state)
        self._infos = InfoColumns.of(state.get("infos", {}), self.capacity)  # absent in states of release 0.1
        for i, function in enumerate(self._functions):
            function.reads_info = state.get("reads_info", {}).get(str(i))
        self._open = [_OpenEpisode.of(state["open"][str(env)]) for env in range(len(state["open"]))]

    def _columns(self) -> dict[str, Array]:
        return {**super()._columns(), "steps_before": self._steps_before, "steps_left": self._steps_left}

    def _written(self, window: EpisodeData, rows: Array) -> None:
        self._infos.write(window, rows)

    def _added(self, slots: Array) -> None:
        self._steps_before[slots] = np.arange(len(slots))
        self._steps_left[slots] = np.arange(len(slots), 0, -1)

    def _offsets(self, slots: Array) -> Array:
        """Draw how many rows after each slot the new goal was reached."""
        left = self._steps_left[slots]
        if self.strategy == "final":
            return left
        if self.strategy == "future":
            return self._rng.integers(1, left + 1)
        age = (self._num_written + self._num_upcoming - 1 - slots) % self.capacity  # the ring may have eaten the start
        before = np.minimum(self._steps_before[slots], self._num_used - 1 - age)
        return self._rng.integers(1 - before, left + 1)

    def _close_all(self) -> None:
        for episode in self._open:
            for whole in episode.cut():
                super().add(whole)


class _OpenEpisode:
    """The steps of one environment's episode that has not ended yet, as windows ``[T, 1]``."""

    def __init__(self) -> None:
        self._parts: list[EpisodeData] = []

    def feed(self, window: EpisodeData, env: int) -> Iterator[EpisodeData]:
        """Take in one column of a window and yield the episodes that ended, each as one window."""
        if self._parts and not np.array_equal(self._parts[-1].last_observation[0], window.observations[0, env]):
            yield from self.cut()
        start, ends = 0, np.flatnonzero(window.done[:, env]).tolist()
        mine = np.flatnonzero(window.ends[:, 1] == env).tolist()
        final_masks, last_masks = window.final_action_masks, window.last_action_mask
        for row, end in zip(mine, ends, strict=True):
            final_mask = None if final_masks is None else final_masks[row]
            self._append(window, env, slice(start, end + 1), window.final_observations[row], final_mask)
            yield from self.cut()
            start = end + 1
        if start < window.num_steps:
            last_mask = None if last_masks is None else last_masks[env]
            self._append(window, env, slice(start, window.num_steps), window.last_observation[env], last_mask)

    def cut(self) -> Iterator[EpisodeData]:
        """Yield what there is as one episode, truncated if it has not terminated, and forget it."""
        if self._parts:
            whole = _joined(self._parts)
            self._parts = []
            whole.truncated[-1] = ~whole.terminated[-1]
            yield whole

    def state(self) -> dict[str, Array]:
        """Return a copy of the steps as arrays."""
        if not self._parts:
            return {}
        whole = _joined(self._parts)
        names: tuple[str, ...] = ("observations", "actions", "rewards", "terminated", "truncated", "last_observation")
        names += () if whole.action_mask is None else ("action_mask", "last_action_mask")
        infos = {f"info.{name}": array.copy() for name, array in (whole.infos or {}).items()}
        return {**{name: getattr(whole, name).copy() for name in names}, **infos}

    @classmethod
    def of(cls, state: StateTree) -> _OpenEpisode:
        """Return the episode whose :meth:`state` this is."""
        episode = cls()
        if state:
            arrays = {name: np.array(array) for name, array in state.items()}
            infos = {name.removeprefix("info."): array for name, array in arrays.items() if name.startswith("info.")}
            columns = {name: array for name, array in arrays.items() if not name.startswith("info.")}
            episode._parts = [_single(**columns, infos=infos)]
        return episode

    def _append(self, window: EpisodeData, env: int, rows: slice, after: Array, after_mask: Array | None) -> None:
        valid = window.valid[rows, env]
        if not valid.any():
            return
        rewards = window.rewards if window.intrinsic_rewards is None else window.rewards + window.intrinsic_rewards
        columns = (window.observations, window.actions, rewards, window.terminated, window.truncated)
        names = ("observations", "actions", "rewards", "terminated", "truncated")
        parts = {name: array[rows, env][valid][:, None] for name, array in zip(names, columns, strict=True)}
        infos = {name: array[rows, env][valid][:, None] for name, array in (window.infos or {}).items()}
        if window.action_mask is not None:
            parts["action_mask"] = window.action_mask[rows, env][valid][:, None]
            last = np.ones_like(window.action_mask[0, 0]) if after_mask is None else after_mask
            parts["last_action_mask"] = last[None].copy()
        self._parts.append(_single(**parts, last_observation=after[None].copy(), infos=infos))


def _single(
    *,
    observations: Array,
    actions: Array,
    rewards: Array,
    terminated: Array,
    truncated: Array,
    last_observation: Array,
    infos: Mapping[str, Array],
    action_mask: Array | None = None,
    last_action_mask: Array | None = None,
) -> EpisodeData:
    """Return a window ``[T, 1]`` that ends with ``last_observation``, whether or not the episode does."""
    return EpisodeData(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        valid=np.ones(rewards.shape, bool),
        last_observation=last_observation,
        final_observations=last_observation,
        episode_returns=np.zeros(1),
        episode_lengths=np.ones(1, np.int64),
        infos=infos,
        action_mask=action_mask,
        last_action_mask=last_action_mask,
        final_action_masks=last_action_mask,
    )


def _joined(parts: list[EpisodeData]) -> EpisodeData:
    """Return consecutive windows of one environment as one."""
    names = ("observations", "actions", "rewards", "terminated", "truncated")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    infos = joined_infos([part.infos or {} for part in parts], [part.num_steps for part in parts])
    columns |= _joined_masks(parts)
    return _single(**columns, last_observation=parts[-1].last_observation, infos=infos)


def _joined_masks(parts: list[EpisodeData]) -> dict[str, Array]:
    """Return what was allowed in consecutive windows; where one does not say, while others do, everything was."""
    masks = [part.action_mask for part in parts]
    told = [mask for mask in masks if mask is not None]
    if not told:
        return {}
    num_actions, last = told[0].shape[2], parts[-1].last_action_mask
    rows = [np.ones((p.num_steps, 1, num_actions), bool) if m is None else m for p, m in zip(parts, masks, strict=True)]
    return {
        "action_mask": np.concatenate(rows),
        "last_action_mask": np.ones((1, num_actions), bool) if last is None else last,
    }
