"""Scores of reinforcement learning with honest intervals.

The aggregate measures are those of Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), "Deep reinforcement
learning at the edge of the statistical precipice" (rliable). ``Scores`` are one number per run: a vector ``[runs]``
for one task, an array ``[runs, tasks]``, or a list or tuple with one vector per task, of whatever lengths. Spread is
measured within each task, never across tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from optix_core.evaluation._scores import FloatArray, Scores, as_tasks, iqm, mean, one_task
from optix_core.evaluation.intervals import (
    Interval,
    could_differ,
    require_confidence,
    share_interval,
    stratified_bootstrap,
)
from optix_core.special import student_cdf, student_quantile


class Summary(TypedDict):
    """Mean return, interquartile mean and the interval of the mean, as in ``result.json``.

    ``could_differ`` is there only where all returns are the same.
    """

    mean: float
    iqm: float
    ci_low: float | None
    ci_high: float | None
    episodes: int
    could_differ: NotRequired[float]


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


def summarise(returns: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Summary:
    """Summarise the returns of independent episodes of one policy.

    ``ci_low`` and ``ci_high`` bound the **mean**: it is what the policy earns in the long run, and what the confirmed
    return states. How they are made, and what they cover: :mod:`optix_core.evaluation.intervals`.

    Args:
        returns: ``[E]`` returns, at least one.
        confidence: probability with which the interval covers the mean.
        resamples: without effect, as ``seed`` is: nothing is drawn. Kept for callers of release 0.1.
        seed: without effect.

    Returns:
        ``mean``, ``iqm``, ``ci_low``, ``ci_high`` and ``episodes``. Equal returns have an interval of width 0, and
        ``could_differ`` says what share of further episodes may return something else. A single episode tells nothing
        of the spread: its bounds are None.

    Raises:
        ValueError: no returns, or NaN or infinite ones, or a confidence outside (0, 1).
    """
    del resamples, seed
    values = one_task(returns, "returns")
    interval = stratified_bootstrap(values, mean, confidence=confidence)
    summary = Summary(
        mean=interval.estimate,
        iqm=float(iqm(values)),
        ci_low=interval.low,
        ci_high=interval.high,
        episodes=len(values),
    )
    if len(values) > 1 and values.min() == values.max():
        summary["could_differ"] = could_differ(len(values), confidence=confidence)
    return summary


def probability_of_improvement(
    x: Scores, y: Scores, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Probability that a run of ``x`` beats a run of ``y`` on a task, averaged over tasks; a tie counts one half.

    ``P(X > Y) = U / (n m)`` with the Mann-Whitney statistic U (Agarwal et al. 2021, section 4.3). The interval holds
    whatever the scores are distributed like: whatever they are, the variance of the estimate is at most
    ``p (1 - p) / min(n, m)`` (van Dantzig 1951; Birnbaum and Klose 1957), and all ``p`` are in the interval from which
    the estimate is no further than Student's quantile of that (a score interval, as Wilson's of a share). It is about
    a fifth wider than one that assumes normal scores, and does not collapse where one side wins every time.

    Args:
        x: scores of one algorithm.
        y: scores of the other, on the same tasks in the same order.
        confidence: of the interval.
        resamples: without effect, as ``seed`` is: nothing is drawn. Kept for callers of release 0.1.
        seed: without effect.

    Returns:
        The probability and its interval, which is all of [0, 1] where one side has a single run of some task.

    Raises:
        ValueError: no scores, NaN or infinite ones, different numbers of tasks, or a confidence outside (0, 1).
    """
    del resamples, seed
    require_confidence(confidence)
    x_tasks, y_tasks = as_tasks(x), as_tasks(y)
    if len(x_tasks) != len(y_tasks):
        raise ValueError(f"x has {len(x_tasks)} tasks and y has {len(y_tasks)}: compare on the same tasks.")
    wins = [float((np.sign(a[:, None] - b) + 1).mean() / 2) for a, b in zip(x_tasks, y_tasks, strict=True)]
    estimate = float(np.mean(wins))
    fewest = np.array([min(len(a), len(b)) for a, b in zip(x_tasks, y_tasks, strict=True)])
    if fewest.min() == 1:
        return Interval(estimate=estimate, low=0.0, high=1.0)
    freedom = sum(len(task) - 1 for task in (*x_tasks, *y_tasks))
    # p (1 - p) is concave, so that the tasks' variances together are at most that of their mean.
    spread = student_quantile(freedom, (1 + confidence) / 2) ** 2 * float((1 / fewest).sum()) / len(fewest) ** 2
    centre, half = estimate + spread / 2, math.sqrt(spread * (estimate * (1 - estimate) + spread / 4))
    return Interval(
        estimate=estimate, low=max(0.0, (centre - half) / (1 + spread)), high=min(1.0, (centre + half) / (1 + spread))
    )


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
    the first is stochastically better. The band is Clopper and Pearson's of a share; several tasks count as one sample
    of the size that the variance of their average has, which is on the safe side (Hoeffding 1956).

    Args:
        scores: ``[runs]``, ``[runs, tasks]`` or one vector per task.
        thresholds: ``[K]`` values of tau; by default 101 between the lowest and the highest score.
        confidence: of the pointwise band.
        resamples: without effect, as ``seed`` is: nothing is drawn. Kept for callers of release 0.1.
        seed: without effect.

    Raises:
        ValueError: no scores, NaN or infinite ones, or a confidence outside (0, 1).
    """
    del resamples, seed
    require_confidence(confidence)
    tasks = as_tasks(scores)
    pooled = np.concatenate(tasks)
    taus = np.linspace(pooled.min(), pooled.max(), 101) if thresholds is None else np.asarray(thresholds, np.float64)
    fraction = np.mean([(task[:, None] > taus).mean(axis=0) for task in tasks], axis=0)
    size = len(tasks) ** 2 / sum(1 / len(task) for task in tasks)
    bands = np.array([share_interval(share * size, size, confidence) for share in fraction.tolist()])
    return Profile(thresholds=taus, fraction=fraction, low=bands[:, 0], high=bands[:, 1])


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
    require_confidence(confidence)
    a, b = one_task(x, "x"), one_task(y, "y")
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
        p_value = 2 * student_cdf(pairs - 1, -abs(z))
    half_width = student_quantile(pairs - 1, (1 + confidence) / 2) * error
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
