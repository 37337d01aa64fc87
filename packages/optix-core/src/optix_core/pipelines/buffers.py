"""The window in the making: its arrays, and the episodes that continue from one window to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_core.data.goal_functions import InfoWindow
from optix_core.environments.endings import EndingInfos
from optix_core.environments.outcomes import rewards_of
from optix_protocol import Array, EpisodeData


class WindowBuffers:
    """The arrays of a window while it is collected: allocated once, written row by row, packed at the end.

    Args:
        num_steps: rows ``T``.
        observation: what the environments show now, ``[N, *obs]``: gives ``N``, shape and type.
        keep_infos: whether the window carries the numbers in ``info``.

    Attributes:
        observations: ``[T, N, *obs]``.
        actions: ``[T, N, *act]`` once the first has been written.
        rewards: ``[T, N]``, float64.
        terminated: ``[T, N]``, bool.
        truncated: ``[T, N]``, bool.
        valid: ``[T, N]``, bool: False in the reset rows of environments with next-step auto-reset.
        masks: ``[T, N, A]`` bool, what is allowed, once an environment has said so; else None.
        episode_infos: what environments say when episodes end.
    """

    def __init__(self, num_steps: int, observation: Array, *, keep_infos: bool) -> None:
        T, N = num_steps, len(observation)
        self.observations = np.empty((T, *observation.shape), observation.dtype)
        self.actions: Array = np.empty((0, N))
        self.rewards = np.empty((T, N))
        self.terminated = np.empty((T, N), dtype=bool)
        self.truncated = np.empty((T, N), dtype=bool)
        self.valid = np.ones((T, N), dtype=bool)
        self.masks: Array | None = None
        self.episode_infos = EndingInfos()
        self._finals: list[Array] = []
        self._final_masks: list[Array | None] = []
        self._infos = InfoWindow(T, N) if keep_infos else None

    def write_action(self, t: int, action: Array) -> None:
        """Write the actions ``[N, *act]`` of step ``t``; the first say what all look like."""
        if t == 0:
            self.actions = np.empty((len(self.rewards), *action.shape), action.dtype)
        self.actions[t] = action

    def write_mask(self, t: int, mask: Array) -> None:
        """Write what is allowed ``[N, A]`` before step ``t``; where nothing was said before, everything was."""
        if self.masks is None:
            self.masks = np.ones((len(self.rewards), *mask.shape), np.bool_)
        self.masks[t] = mask

    def write_outcome(self, t: int, reward: Any, info: Mapping[str, Any]) -> Array:
        """Write what the environments answered in step ``t`` beside the two flags; return where an episode ended.

        Raises:
            EnvError: rewards that are not a number for each environment.
        """
        self.rewards[t] = rewards_of(reward, self.rewards.shape[1])
        if self._infos is not None:
            self._infos.take(t, info)
        ended: Array = self.terminated[t] | self.truncated[t]
        return ended

    def write_finals(self, observations: Array, masks: Array | None) -> None:
        """Write the last observations ``[E, *obs]`` of the episodes that ended in this step.

        Args:
            observations: in order of environment.
            masks: what was allowed there, ``[E, A]``, or None where that was not said.
        """
        self._finals.append(observations)
        self._final_masks.append(masks)

    @property
    def done(self) -> Array:
        """Where an episode ended, bool ``[T, N]``."""
        done: Array = self.terminated | self.truncated
        return done

    def final_observations(self) -> Array:
        """Return the last observations ``[E, *obs]`` of all episodes, in order of time, then environment."""
        return np.concatenate(self._finals) if self._finals else self.observations[0, :0].copy()

    def final_masks(self) -> Array | None:
        """Return what was allowed ``[E, A]`` at the last observations, everything where that was not said."""
        if self.masks is None:
            return None
        num_actions = self.masks.shape[2]
        known = zip(self._finals, self._final_masks, strict=True)
        rows = [np.ones((len(last), num_actions), np.bool_) if mask is None else mask for last, mask in known]
        return np.concatenate(rows) if rows else np.empty((0, num_actions), np.bool_)

    def pack(self, *, clip_rewards: bool, last_mask: Array | None, **fields: Any) -> EpisodeData:
        """Return the window.

        Args:
            clip_rewards: add what turns the rewards into rewards clipped to -1..1, as intrinsic rewards.
            last_mask: what is allowed after the last row, ``[N, A]``, or None.
            fields: of :class:`optix_protocol.EpisodeData` that are not kept here.
        """
        clipping = (np.clip(self.rewards, -1.0, 1.0) - self.rewards).astype(np.float32) if clip_rewards else None
        return EpisodeData(
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards.astype(np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            valid=self.valid,
            intrinsic_rewards=clipping,
            infos=None if self._infos is None else self._infos.columns,
            episode_infos=self.episode_infos.columns(),
            action_mask=self.masks,
            last_action_mask=None if self.masks is None else last_mask,
            final_action_masks=self.final_masks(),
            **fields,
        )


class RunningEpisodes:
    """Return and length so far of the episode in hand of each environment.

    Attributes:
        returns: ``[N]``, float64.
        lengths: ``[N]``, int64.
    """

    def __init__(self, num_envs: int) -> None:
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, dtype=np.int64)

    def take(self, rewards: Array, valid: Array, done: Array) -> tuple[Array, Array]:
        """Take in a window ``[T, N]``; return the returns and lengths of the episodes that ended in it.

        They are in order of time, then environment.
        """
        if not np.count_nonzero(done):
            all_valid = np.count_nonzero(valid) == valid.size
            counted = rewards if all_valid else np.where(valid, rewards, 0.0)
            self.returns = self.returns + np.add.reduce(counted)
            self.lengths = self.lengths + (len(valid) if all_valid else np.add.reduce(valid, dtype=np.int64))
            return np.empty(0), np.empty(0, dtype=np.int64)
        totals = np.cumsum(np.where(valid, rewards, 0.0), axis=0) + self.returns
        counts = np.cumsum(valid, axis=0) + self.lengths
        times, envs = np.nonzero(done)
        order = np.lexsort((times, envs))  # column by column, so that neighbours are successive ends of one environment
        t, n = times[order], envs[order]
        end_total, end_count = totals[t, n], counts[t, n]
        first = np.ones(len(t), dtype=bool)
        first[1:] = n[1:] != n[:-1]
        returns, lengths = np.empty(len(t)), np.empty(len(t), dtype=np.int64)
        returns[order] = _differences(end_total, first)
        lengths[order] = _differences(end_count, first)
        self.returns, self.lengths = totals[-1].copy(), counts[-1].copy()
        last = np.ones(len(t), dtype=bool)
        last[:-1] = first[1:]
        self.returns[n[last]] -= end_total[last]
        self.lengths[n[last]] -= end_count[last]
        return returns, lengths


def _differences(values: Array, first: Array) -> Array:
    """Return each of the values ``[E]`` minus the one before it; where ``first`` (bool ``[E]``), the value itself."""
    differences = values.copy()
    differences[1:] -= values[:-1]
    return np.where(first, values, differences)
