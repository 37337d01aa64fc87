"""Scores of reinforcement learning with honest intervals.

The aggregate measures are those of Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), "Deep reinforcement
learning at the edge of the statistical precipice" (rliable). ``Scores`` are one number per run: a vector ``[runs]``
for one task, an array ``[runs, tasks]``, or a list or tuple with one vector per task, of whatever lengths. Bootstrap
samples are stratified: runs are drawn within each task, never across tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = ArrayLike | Sequence[ArrayLike]
Statistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""Maps samples ``[..., n]`` to one number for each, ``[...]``."""


class Summary(TypedDict):
    """Mean return, interquartile mean and the interval of the mean, as in ``result.json``."""

    mean: float
    iqm: float
    ci_low: float
    ci_high: float
    episodes: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: the value on the data.
        low: lower confidence bound.
        high: upper confidence bound.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A performance profile with its pointwise confidence band.

    Attributes:
        thresholds: ``[K]`` scores tau.
        fraction: ``[K]`` share of runs with a score above tau, averaged over tasks.
        low: ``[K]`` lower edge of the band.
        high: ``[K]`` upper edge of the band.
    """

    thresholds: FloatArray
    fraction: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Whether ``x`` beats ``y`` on the same seeds.

    Attributes:
        mean_difference: mean of ``x - y``.
        z: mean difference in units of its standard error; infinite if all differences are the same and not 0.
        p_value: two-sided.
        low: lower confidence bound of the mean difference.
        high: upper confidence bound of the mean difference.
        correlation: of ``x`` and ``y``; what common seeds gained. 0 if one of them is constant.
        pairs: number of pairs.
    """

    mean_difference: float
    z: float
    p_value: float
    low: float
    high: float
    correlation: float
    pairs: int

    @property
    def p_greater(self) -> float:
        """One-sided p-value of "``x`` is better than ``y``"."""
        return self.p_value / 2 if self.mean_difference > 0 else 1 - self.p_value / 2


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


def summarise(returns: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Summary:
    """Summarise the returns of independent episodes of one policy.

    ``ci_low`` and ``ci_high`` bound the **mean**: it is what the policy earns in the long run, and what the confirmed
    return states. The interval is the expanded bootstrap percentile interval (Hesterberg 2015, "What teachers should
    know about the bootstrap", section 5.1): percentiles of the resampled mean, taken further out by the factor that
    turns a normal interval into Student's, since the plain one is too short for few episodes.

    Args:
        returns: ``[E]`` returns, at least one.
        confidence: probability with which the interval covers the mean.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        ``mean``, ``iqm``, ``ci_low``, ``ci_high`` and ``episodes``. One episode, or equal returns, give an interval
        of width 0: there is nothing to estimate a spread from.

    Raises:
        ValueError: no returns, or NaN or infinite ones.
    """
    values = _one_task(returns, "returns")
    interval = stratified_bootstrap(values, mean, confidence=confidence, resamples=resamples, seed=seed)
    return Summary(
        mean=interval.estimate,
        iqm=float(iqm(values)),
        ci_low=interval.low,
        ci_high=interval.high,
        episodes=len(values),
    )


def stratified_bootstrap(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a statistic of all runs of all tasks, drawing runs anew within each task.

    Args:
        scores: ``[runs]``, ``[runs, tasks]``, or one vector per task. Tasks with more runs weigh more, so keep them
            equal, and normalise scores of different tasks first (:func:`normalise`).
        statistic: maps ``[resamples, n]`` to ``[resamples]``; :func:`iqm`, :func:`mean`, ``np.median`` with an axis.
        confidence: of the interval.
        resamples: bootstrap resamples, 2000 or more for a figure that is published.
        seed: of the resampling.

    Returns:
        The statistic and its percentile interval, expanded for small samples (see :func:`summarise`).

    Raises:
        ValueError: no scores, or NaN or infinite ones, or a confidence outside (0, 1).
    """
    tasks = as_tasks(scores)
    rng = np.random.default_rng(seed)
    samples = np.concatenate([task[rng.integers(len(task), size=(resamples, len(task)))] for task in tasks], axis=1)
    low, high = _percentiles(statistic(samples), confidence, runs=min(len(task) for task in tasks))
    return Interval(estimate=float(statistic(np.concatenate(tasks))), low=float(low), high=float(high))


def probability_of_improvement(
    x: Scores, y: Scores, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Probability that a run of ``x`` beats a run of ``y`` on a task, averaged over tasks; a tie counts one half.

    ``P(X > Y) = U / (n m)`` with the Mann-Whitney statistic U (Agarwal et al. 2021, section 4.3); the interval is the
    stratified bootstrap's.

    Args:
        x: scores of one algorithm.
        y: scores of the other, on the same tasks in the same order.
        confidence: of the interval.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ValueError: no scores, NaN or infinite ones, or different numbers of tasks.
    """
    x_tasks, y_tasks = as_tasks(x), as_tasks(y)
    if len(x_tasks) != len(y_tasks):
        raise ValueError(f"x has {len(x_tasks)} tasks and y has {len(y_tasks)}: compare on the same tasks.")
    rng = np.random.default_rng(seed)
    estimate, samples = 0.0, np.zeros(resamples)
    for a, b in zip(x_tasks, y_tasks, strict=True):
        wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)
        estimate += float(wins.mean())
        samples += np.einsum("rn,nm,rm->r", _weights(rng, len(a), resamples), wins, _weights(rng, len(b), resamples))
    runs = min(len(task) for task in (*x_tasks, *y_tasks))
    low, high = np.clip(_percentiles(samples / len(x_tasks), confidence, runs=runs), 0, 1)
    return Interval(estimate=estimate / len(x_tasks), low=float(low), high=float(high))


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Profile:
    """Share of runs that score above tau, for every tau: the whole distribution instead of one number.

    The run-score distribution of Agarwal et al. (2021, section 4.2). Where one profile lies above another everywhere,
    the first is stochastically better.

    Args:
        scores: ``[runs]``, ``[runs, tasks]`` or one vector per task.
        thresholds: ``[K]`` values of tau; by default 101 between the lowest and the highest score.
        confidence: of the pointwise band.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ValueError: no scores, or NaN or infinite ones.
    """
    tasks = as_tasks(scores)
    pooled = np.concatenate(tasks)
    taus = np.linspace(pooled.min(), pooled.max(), 101) if thresholds is None else np.asarray(thresholds, np.float64)
    rng = np.random.default_rng(seed)
    fraction, samples = np.zeros(len(taus)), np.zeros((resamples, len(taus)))
    for task in tasks:
        above = (task[:, None] > taus).astype(np.float64)
        fraction += above.mean(axis=0)
        samples += _weights(rng, len(task), resamples) @ above
    low, high = _percentiles(samples / len(tasks), confidence, runs=min(len(task) for task in tasks))
    return Profile(thresholds=taus, fraction=fraction / len(tasks), low=low.clip(0, 1), high=high.clip(0, 1))


def paired_test(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> PairedTest:
    """Compare two policies that played the same episodes (common random numbers).

    Student's paired t-test. What the seeds have in common cancels in the differences, which saves a factor
    ``1 / (1 - correlation)`` of episodes against independent seeds.

    Args:
        x: ``[n]`` scores of one, ``n >= 2``.
        y: ``[n]`` scores of the other; ``x[i]`` and ``y[i]`` share their seed.
        confidence: of the interval of the mean difference.

    Returns:
        The test. Where all differences are equal and not 0 there is no spread for Student's t; the p-value is then
        that of the sign-flip test, ``2 ** (1 - n)``, and the interval has width 0.

    Raises:
        ValueError: different lengths, fewer than two pairs, NaN or infinite scores.
    """
    from scipy.special import stdtr, stdtrit

    a, b = _one_task(x, "x"), _one_task(y, "y")
    pairs = len(a)
    if pairs != len(b) or pairs < 2:
        raise ValueError(f"a paired test needs two vectors of the same length >= 2, got {len(a)} and {len(b)}.")
    differences = a - b
    difference = float(differences.mean())
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    error = float(differences.std(ddof=1)) / math.sqrt(pairs)
    if error <= 1e-12 * scale:
        error, same = 0.0, abs(difference) <= 1e-12 * scale
        z = 0.0 if same else math.copysign(math.inf, difference)
        p_value = 1.0 if same else 2.0 ** (1 - pairs)
    else:
        z = difference / error
        p_value = 2 * float(stdtr(pairs - 1, -abs(z)))
    half_width = float(stdtrit(pairs - 1, (1 + confidence) / 2)) * error
    varies = a.std() > 0 and b.std() > 0
    return PairedTest(
        mean_difference=difference,
        z=z,
        p_value=p_value,
        low=difference - half_width,
        high=difference + half_width,
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else 0.0,
        pairs=pairs,
    )


def normalise(scores: ArrayLike, *, low: ArrayLike, high: ArrayLike) -> FloatArray:
    """Map ``low`` to 0 and ``high`` to 1, so that scores of different tasks can be put together.

    Args:
        scores: ``[..., tasks]`` scores.
        low: ``[tasks]`` or one number: a random policy's score, say.
        high: ``[tasks]`` or one number: a human's or a reference policy's score.

    Raises:
        ValueError: ``low`` equals ``high`` for some task.
    """
    lows, highs = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if np.any(lows == highs):
        raise ValueError("low and high must differ for every task: the range between them is the unit of the score.")
    normalised: FloatArray = (np.asarray(scores, dtype=np.float64) - lows) / (highs - lows)
    return normalised


def as_tasks(scores: Scores) -> list[FloatArray]:
    """Return one vector of scores per task from any form of :data:`Scores`.

    Raises:
        ValueError: empty, more than two dimensions, or NaN or infinite scores.
    """
    columns: Sequence[ArrayLike]
    if isinstance(scores, Sequence) and scores and all(np.ndim(task) == 1 for task in scores):
        columns = scores
    else:
        matrix = np.asarray(scores, dtype=np.float64)
        if matrix.ndim > 2:
            raise ValueError(f"scores must be [runs], [runs, tasks] or one vector per task, got shape {matrix.shape}.")
        columns = list(matrix.T) if matrix.ndim == 2 else [matrix]
    if not columns:
        raise ValueError("scores are empty: at least one run of one task is needed.")
    return [_one_task(column, f"scores of task {index}") for index, column in enumerate(columns)]


def _one_task(values: ArrayLike, name: str) -> FloatArray:
    vector = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} must be a non-empty vector, got shape {vector.shape}.")
    if not np.isfinite(vector).all():
        raise ValueError(
            f"{name} must be finite; {np.count_nonzero(~np.isfinite(vector))} of them are NaN or infinite."
        )
    return vector


def _weights(rng: np.random.Generator, runs: int, resamples: int) -> FloatArray:
    """Bootstrap samples as weights ``[resamples, runs]``: how often each run was drawn, divided by ``runs``."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs


def _percentiles(samples: FloatArray, confidence: float, *, runs: int) -> FloatArray:
    """Expanded percentile interval along the first axis: ``[2, ...]`` (Hesterberg 2015, section 5.1)."""
    from scipy.special import ndtr, stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    tail = (1 - confidence) / 2
    if runs > 1:
        tail = float(ndtr(math.sqrt(runs / (runs - 1)) * stdtrit(runs - 1, tail)))
    edges: FloatArray = np.quantile(samples, (tail, 1 - tail), axis=0)
    return edges
