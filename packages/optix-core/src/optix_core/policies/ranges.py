"""What a Box of actions means: which dimensions have bounds, how a network's units map to it, and what fits into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from optix_protocol import Array

_ENDLESS = 1e30
"""A bound beyond this is none: the middle of such a range is no better a guess than 0, and float32 overflows soon."""


def bounds_of(space: Any) -> tuple[Array, Array]:
    """Return the smallest and largest actions of a Box, ``[D]``; infinite where there is no bound.

    Floats are float32, like what networks give; whole numbers are float64, which holds all up to 53 bits exactly.
    Gymnasium shows a missing bound of whole numbers as the end of their type, and a missing bound of floats may be
    written as the largest number there is.
    """
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    for bound, side, none in ((low, "bounded_below", -np.inf), (high, "bounded_above", np.inf)):
        has_bound = np.abs(bound) < _ENDLESS
        if is_whole(space.dtype):
            has_bound &= np.asarray(getattr(space, side, True)).reshape(-1)
        bound[~has_bound] = none
    return (low, high) if is_whole(space.dtype) else (low.astype(np.float32), high.astype(np.float32))


def is_whole(dtype: npt.DTypeLike) -> bool:
    """Whether actions of this type are whole numbers."""
    return np.dtype(dtype).kind in "iub"


def number_type(dtype: npt.DTypeLike) -> str:
    """Return what a head calls actions of this type: whole numbers by their own name, all others float32."""
    return str(np.dtype(dtype)) if is_whole(dtype) else "float32"


def range_map(low: Array, high: Array, dtype: npt.DTypeLike = np.float32) -> tuple[Array, Array]:
    """Return centre and half width ``[D]`` float32 of what a network's outputs from -1 to 1 stand for.

    - Between two bounds: the range. Whole numbers have half a unit more on either side, so that each of them, the first
      and the last too, is what an equal share of the range is rounded to.
    - Without bounds: 0 and 1.
    - With one bound: one unit from it, and 1, so that half of what is drawn at first does not lie beyond it.
    - Without width: that action and 1: what is drawn has no effect, and costs no division by nothing.

    One unit is a thousandth of the bound where that is more.
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    if is_whole(dtype):
        low, high = low - 0.5, high + 0.5
    bounded = has_low & has_high
    one_bound = np.where(has_low, low, np.where(has_high, high, 0.0))
    unit = np.maximum(1.0, np.abs(one_bound) * 1e-3)
    middle = np.add(low, high, where=bounded, out=2.0 * one_bound) / 2
    width = np.subtract(high, low, where=bounded, out=2.0 * unit) / 2
    width = np.where(width <= np.abs(middle) * 2.0**-24, unit, width)  # no two float32 actions, or next to none
    centre = middle + np.where(bounded, 0.0, unit * has_low - unit * has_high)
    return centre.astype(np.float32), width.astype(np.float32)


def reach(low: Array, high: Array, dtype: npt.DTypeLike = np.float32) -> tuple[Array, Array]:
    """Return what :func:`range_map` makes of -1 and 1, ``[D]`` float32: the very bounds, where these are plain ones.

    Infinite where there is no bound.
    """
    centre, width = range_map(low, high, dtype)
    plain = ((high.astype(np.float64) - low) / 2).astype(np.float32) == width
    reached_low = np.where(np.isfinite(low) & ~plain, centre - width, low)
    reached_high = np.where(np.isfinite(high) & ~plain, centre + width, high)
    return reached_low.astype(np.float32), reached_high.astype(np.float32)


def fitted(actions: Array, low: Array, high: Array, dtype: npt.DTypeLike) -> Array:
    """Return finite actions clipped to bounds; whole numbers are rounded, become ``dtype``, and never overflow.

    Args:
        actions: ``[..., *bounds]``.
        low: smallest actions.
        high: largest actions.
        dtype: of the space.
    """
    if not is_whole(dtype):
        return np.clip(actions, low, high)
    limits = np.iinfo(np.int8) if np.dtype(dtype) == bool else np.iinfo(dtype)
    rounded = actions if actions.dtype.kind in "iub" else np.rint(actions.astype(np.float64, copy=False))
    # By comparisons and not by np.clip, whose result has a type in which large numbers of 64 bits are rounded, up too.
    below, above = rounded <= np.maximum(low, limits.min), rounded >= np.minimum(high, limits.max)
    whole = np.where(below | above, 0, rounded).astype(dtype)
    whole = np.where(below, _exact(low, low <= limits.min, limits.min, dtype), whole)
    return np.where(above, _exact(high, high >= limits.max, limits.max, dtype), whole)


def _exact(bound: Array, beyond: Array, limit: int, dtype: npt.DTypeLike) -> Array:
    """Return bounds as whole numbers, the limit of their type where they are infinite or rounded to more than that."""
    exact: Array = np.where(beyond, 0, bound).astype(dtype)
    exact[beyond] = limit
    return exact
