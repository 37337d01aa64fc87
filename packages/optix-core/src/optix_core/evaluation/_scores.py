"""What a sample of scores is, and the two averages that are reported of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optix_core.convergence.settings import LARGEST_SCORE

FloatArray: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = ArrayLike | Sequence[ArrayLike]
Statistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""Maps samples ``[..., n]`` to one number for each, ``[...]``."""

TRIMMED = 0.25
"""Share that the interquartile mean leaves out at either end."""


def mean(values: ArrayLike) -> FloatArray:
    """Mean along the last axis, as a :data:`Statistic`."""
    average: FloatArray = np.mean(np.asarray(values, dtype=np.float64), axis=-1)
    return average


def iqm(values: ArrayLike) -> FloatArray:
    """Interquartile mean along the last axis: the mean of what is left without the lowest and highest quarter.

    ``floor(n / 4)`` values are cut at either end, as by ``scipy.stats.trim_mean(values, 0.25)``, so that the figures
    compare with published ones (Agarwal et al. 2021). Robust against outlying runs, and of smaller variance than the
    median.
    """
    array = np.asarray(values, dtype=np.float64)
    length = array.shape[-1] if array.ndim else 0
    if length == 0:
        raise ValueError("iqm needs at least one value along the last axis.")
    cut = length // 4
    # A partition is enough: what lies within the middle need not be in order.
    ordered = np.partition(array, (cut, length - cut - 1), axis=-1)
    middle: FloatArray = ordered[..., cut : length - cut].mean(axis=-1)
    return middle


def as_tasks(scores: Scores) -> list[FloatArray]:
    """Return one vector of scores per task from any form of :data:`Scores`.

    Raises:
        ValueError: empty, more than two dimensions, or NaN or infinite scores.
    """
    columns: Sequence[ArrayLike]
    if isinstance(scores, Sequence) and scores and all(np.ndim(task) == 1 for task in scores):
        columns = scores
    else:
        matrix = _numbers(scores, "scores")
        if matrix.ndim > 2:
            raise ValueError(f"scores must be [runs], [runs, tasks] or one vector per task, got shape {matrix.shape}.")
        columns = list(matrix.T) if matrix.ndim == 2 else [matrix]
    if not columns:
        raise ValueError("scores are empty: at least one run of one task is needed.")
    return [one_task(column, f"scores of task {index}") for index, column in enumerate(columns)]


def one_task(values: ArrayLike, name: str) -> FloatArray:
    """Return a vector of finite scores.

    Raises:
        ValueError: empty, of another shape, NaN or infinite scores, or such whose squares are.
    """
    vector = np.atleast_1d(_numbers(values, name))
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} must be a non-empty vector, got shape {vector.shape}.")
    if not np.isfinite(vector).all():
        raise ValueError(
            f"{name} must be finite; {np.count_nonzero(~np.isfinite(vector))} of them are NaN or infinite."
        )
    if np.abs(vector).max() > LARGEST_SCORE:
        raise ValueError(f"{name} must lie within {LARGEST_SCORE:g}: scale the rewards.")
    return vector


def _numbers(values: Any, name: str) -> FloatArray:
    try:
        array: FloatArray = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}.") from error
    return array
