"""Masks of allowed actions: checked before anything is drawn, and drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_protocol import Array


def mask_parts(action_space: Any) -> tuple[int, ...] | None:
    """Return how many choices each discrete action of a space has; None where it has others, which no mask fits.

    A switch is a choice between off and on.
    """
    from gymnasium import spaces

    if isinstance(action_space, spaces.Discrete):
        return (int(action_space.n),)
    if isinstance(action_space, spaces.MultiDiscrete):
        return tuple(map(int, action_space.nvec.reshape(-1)))
    if isinstance(action_space, spaces.MultiBinary):
        return (2,) * int(np.prod(action_space.shape))
    return None


def checked_mask(mask: Any, num_rows: int, parts: tuple[int, ...]) -> Array:
    """Return a mask as bool ``[N, A]``.

    Args:
        mask: whatever stands for it.
        num_rows: ``N``.
        parts: choices of each discrete action; ``A`` is their sum.

    Raises:
        ConfigError: (a ``ValueError``) another shape, or a row that allows nothing.
    """
    array = np.asarray(mask)
    if array.shape != (num_rows, sum(parts)):
        raise ConfigError(f"The action mask must be {[num_rows, sum(parts)]}, got {list(array.shape)}.")
    allowed = array if array.dtype == np.bool_ else array.astype(np.bool_)
    nothing = np.flatnonzero(~something_allowed(allowed, parts))
    if len(nothing):
        raise ConfigError(f"Row {nothing[0]} of the action mask allows nothing: at least one action must be allowed.")
    return allowed


def something_allowed(mask: Array, parts: tuple[int, ...]) -> Array:
    """Return for each row of ``[..., A]`` whether every part has a choice that is allowed, bool ``[...]``."""
    if len(parts) == 1:
        return np.asarray(mask.any(axis=-1))
    counts = np.add.reduceat(mask, np.cumsum((0, *parts[:-1])), axis=-1, dtype=np.int64)
    return np.asarray((counts > 0).all(axis=-1))


def only(values: Array, mask: Array) -> Array:
    """Return values ``[N, A]`` with minus infinity where an action is not allowed."""
    return np.where(mask, values, np.float32(-np.inf))


def only_switched(logits: Array, mask: Array) -> Array:
    """Return the log-odds ``[N, D]`` of switches, infinite where a mask ``[N, 2 D]`` leaves them one position only."""
    off, on = mask[:, ::2], mask[:, 1::2]
    return np.where(on, np.where(off, logits, np.float32(np.inf)), np.float32(-np.inf))


def choose_uniformly(mask: Array, draws: Array) -> Array:
    """Return one allowed action ``[N]`` for each row of ``[N, A]``, all with the same probability.

    Args:
        mask: at least one action is allowed in each row.
        draws: ``[N]`` uniform numbers in [0, 1).
    """
    position = (draws * mask.sum(axis=1)).astype(np.int64)
    chosen: Array = (mask.cumsum(axis=1) > position[:, None]).argmax(axis=1)
    return chosen
