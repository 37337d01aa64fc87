"""A policy that acts on observations as its environment gives them: of several parts, of one environment or of many."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from optix_core.environments.flattening import Flattener
from optix_core.environments.masks import KEY
from optix_core.policies.flat_spaces import flat_sizes
from optix_protocol import Array, Policy, SupportsActionMasks

if TYPE_CHECKING:
    import gymnasium as gym


def on_own_observations(policy: Policy, space: gym.Space[Any]) -> Policy:
    """Return a policy that takes an environment's own observations, where the given one takes them flat and batched.

    ``act`` takes one observation and returns one action, or a batch ``[N, *obs]`` and returns ``[N, *act]``. Where the
    space is a Dict or Tuple, a batch is what a vector environment gives, or a list of observations; flat vectors are
    taken, too. What an observation itself says is allowed (its part ``action_mask``) is heeded by policies that can.

    Args:
        policy: takes arrays ``[N, *obs]``.
        space: of one observation, before flattening.
    """
    kind = _MaskableOnOwnObservations if isinstance(policy, SupportsActionMasks) else _OnOwnObservations
    return kind(policy, space)


class _OnOwnObservations:
    def __init__(self, policy: Any, space: gym.Space[Any]) -> None:
        self._policy, self._space = policy, space
        self._flatten = Flattener(space) if isinstance(space, spaces.Dict | spaces.Tuple) else None

    def act(self, observations: Any) -> Array:
        """Choose an action for one observation, or one ``[N, *act]`` for each of a batch."""
        rows, is_one = self._rows(observations)
        actions: Array = self._policy.act(rows)
        return actions[0] if is_one else actions

    def reset(self, done: Array | None = None) -> None:
        """Forget what is remembered of the episodes that ended; of all without ``done``."""
        self._policy.reset(done)

    def distribution(self, observations: Any) -> Any:
        """Return the distribution over actions for a batch, or for one observation as a batch of one."""
        return self._policy.distribution(self._rows(observations)[0])

    def _rows(self, observations: Any) -> tuple[Array, bool]:
        """Return flat observations ``[N, *obs]``, and whether there was only one without an axis for it."""
        flatten = self._flatten
        if flatten is None or (isinstance(observations, np.ndarray) and observations.dtype != object):
            rows, shape = np.asarray(observations), self._space.shape if flatten is None else flatten.space.shape
            is_one = rows.ndim == len(shape or ())
            return rows[None] if is_one else rows, is_one
        if isinstance(self._space, spaces.Dict) and isinstance(observations, list | tuple | np.ndarray):
            return np.stack([flatten(observation) for observation in observations]), False
        size = _batch_size(self._space, observations)
        if size is None:
            return flatten(observations)[None], True
        each = iterate(batch_space(self._space, size), observations)
        return np.stack([flatten(observation) for observation in each]), False


class _MaskableOnOwnObservations(_OnOwnObservations):
    def act(self, observations: Any) -> Array:
        """Choose as without masks; where the observations have a part ``action_mask``, of what that allows."""
        place = _place_of_mask(self._space)
        if place is None:
            return super().act(observations)
        rows, is_one = self._rows(observations)
        actions: Array = self._policy.act_masked(rows, rows[:, place] != 0)
        return actions[0] if is_one else actions

    def act_masked(self, observations: Any, mask: Array) -> Array:
        """Choose actions as ``act`` does, of those that the mask (bool ``[N, A]``, or ``[A]`` for one) allows."""
        rows, is_one = self._rows(observations)
        actions: Array = self._policy.act_masked(rows, np.asarray(mask)[None] if is_one else mask)
        return actions[0] if is_one else actions


def _place_of_mask(space: gym.Space[Any]) -> slice | None:
    """Return where a flat observation says what is allowed, None if it does not."""
    if not isinstance(space, spaces.Dict) or not isinstance(space.spaces.get(KEY), spaces.Box | spaces.MultiBinary):
        return None
    sizes = flat_sizes(space)
    begin = sum(size for key, size in takewhile(lambda item: item[0] != KEY, sizes.items()))
    return slice(begin, begin + sizes[KEY])


def _batch_size(space: gym.Space[Any], value: Any) -> int | None:
    """Return how many observations a value of a space holds, None if it is a single one."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            if part.shape is not None or isinstance(part, spaces.Dict | spaces.Tuple):
                try:
                    return _batch_size(part, value[key])
                except (KeyError, IndexError, TypeError):
                    return None  # flattening says what is missing
        return None
    return len(value) if np.ndim(value) > len(space.shape or ()) else None
