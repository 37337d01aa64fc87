"""Example masks of allowed actions for the checks, for every kind of action that masks are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optix_protocol.conformance.cases import action_kind
from optix_protocol.types import Array, EpisodeData

__all__ = ["allowed_by", "allowing", "mask_parts", "random_masks", "with_masks"]


def mask_parts(space: Any) -> tuple[int, ...] | None:
    """Return how many choices each part of an action has, which stand side by side in a mask; None of a box."""
    kind = action_kind(space)
    if kind == "box":
        return None
    if kind == "multibinary":
        return (2,) * int(np.prod(space.shape))
    return tuple(np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))).reshape(-1).tolist())


def random_masks(space: Any, rng: np.random.Generator, *shape: int) -> Array:
    """Draw masks ``[*shape, A]`` that forbid at least one choice of each part that has more than one."""
    parts = []
    for size in mask_parts(space) or ():
        order = rng.random((*shape, size)).argsort(axis=-1)
        count = rng.integers(1, max(size, 2), size=(*shape, 1))  # 1 .. size - 1 are allowed
        parts.append(order < count)
    return np.concatenate(parts, axis=-1)


def allowed_by(space: Any, masks: Array, actions: Any) -> Array:
    """Return where masks ``[*shape, A]`` allow actions ``[*shape, *act]``, bool ``[*shape]``."""
    places = _places(space, actions, masks.ndim - 1)
    return np.asarray(np.take_along_axis(masks, places, axis=-1).all(axis=-1))


def allowing(space: Any, masks: Array, actions: Any) -> Array:
    """Return masks ``[*shape, A]`` that allow actions ``[*shape, *act]``, too."""
    wider = masks.copy()
    np.put_along_axis(wider, _places(space, actions, masks.ndim - 1), True, axis=-1)
    return wider


def with_masks(space: Any, window: EpisodeData, *, seed: int = 0) -> EpisodeData:
    """Return a window with random masks, in which what was done was allowed; nothing is forbidden in invalid rows."""
    rng = np.random.default_rng(seed)
    masks = allowing(space, random_masks(space, rng, *window.rewards.shape), window.actions)
    masks[~window.valid] = True
    return replace(
        window,
        action_mask=masks,
        last_action_mask=random_masks(space, rng, window.num_envs),
        final_action_masks=random_masks(space, rng, len(window.ends)),
    )


def _places(space: Any, actions: Any, num_axes: int) -> Array:
    """Return where in a mask each part of actions ``[*shape, *act]`` stands, ``[*shape, parts]``."""
    array = np.asarray(actions)
    choices = (array - getattr(space, "start", 0)).reshape(*array.shape[:num_axes], -1)
    places: Array = np.asarray(choices, np.int64) + np.cumsum((0, *(mask_parts(space) or ())))[:-1]
    return places
