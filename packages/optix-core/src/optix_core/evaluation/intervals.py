"""Confidence intervals of scores that cover what they say, from three values as from a hundred.

Three things decide how an interval is made.

- **Nothing varies.** Equal values have no spread to estimate. The interval has width 0, and :func:`could_differ` says
  what share of further values may still be different. One value has no interval at all.
- **Most values are one and the same**, the highest or the lowest: successes, or episodes that end at a time limit. What
  is uncertain then is how often another value comes. Its share gets an exact binomial interval, and the statistic is
  taken at both ends of it. With only two values (0 and 1, say) that is all: Clopper and Pearson (1934).
- **Everything else** gets Student's t. The standard error of the interquartile mean is made of winsorised
  variances (Tukey and McLaughlin 1963, "Less vulnerable confidence and significance procedures for location").
  Over several tasks each task has its own variance, and they have the degrees of freedom of Satterthwaite (1946).

``benchmarks/intervals.py`` prints what they cover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from optix_core.evaluation._scores import TRIMMED, FloatArray, Scores, Statistic, as_tasks, iqm, mean
from optix_core.special import beta_cdf, beta_quantile, student_quantile


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: the value on the data.
        low: lower confidence bound, or None from a single value, which tells nothing of the spread.
        high: upper confidence bound, or None likewise.
    """

    estimate: float
    low: float | None
    high: float | None


def could_differ(values: int, *, confidence: float = 0.95) -> float:
    """Return the share of further values that may differ although ``values`` of them were all the same.

    The upper Clopper-Pearson bound from no success: ``1 - (1 - confidence) ** (1 / n)``, about ``3 / n`` at 95 %.

    Args:
        values: how many were seen, at least 1.
        confidence: probability with which the share is no larger.
    """
    return -math.expm1(math.log1p(-confidence) / values)


def stratified_bootstrap(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic of all runs of all tasks, whose spread is measured within each task.

    :func:`mean` and :func:`iqm` have closed forms, and nothing is drawn. Any other statistic gets the standard error of
    a stratified bootstrap that draws one run fewer than there are, which makes its variance unbiased for few runs (Rao
    and Wu 1988, "Resampling inference with complex survey data"), with the same Student's t.

    Args:
        scores: ``[runs]``, ``[runs, tasks]``, or one vector per task. Tasks with more runs weigh more, so keep them
            equal, and normalise scores of different tasks first (:func:`normalise`).
        statistic: maps ``[resamples, n]`` to ``[resamples]``; :func:`iqm`, :func:`mean`, ``np.median`` with an axis.
        confidence: of the interval.
        resamples: bootstrap resamples of another statistic than these two; they do not change its width on average.
        seed: of the resampling.

    Returns:
        The statistic and its interval; without bounds where a task has a single run.

    Raises:
        ValueError: no scores, or NaN or infinite ones, or a confidence outside (0, 1).
    """
    require_confidence(confidence)
    tasks = as_tasks(scores)
    pooled = np.concatenate(tasks)
    estimate = float(statistic(pooled))
    if min(len(task) for task in tasks) == 1:
        return Interval(estimate=estimate, low=None, high=None)
    if all(task.min() == task.max() for task in tasks):
        return Interval(estimate=estimate, low=estimate, high=estimate)
    known = statistic is mean or statistic is iqm
    low, high = math.inf, -math.inf
    a_share = known and _is_a_share(pooled)
    if known and (len(tasks) == 1 or a_share):
        # Tasks of different success rates vary less together than one of their mean rate (Hoeffding 1956).
        for bounds in _by_frequency(pooled, statistic, confidence, doubtful=not a_share):
            low, high = min(low, *bounds), max(high, *bounds)
    if not a_share:
        if known:
            error, freedom = _standard_error(tasks, statistic)
            if error == 0 and low > high:  # the middle is all the same, the rest is not
                error, freedom = _standard_error(tasks, mean)
        else:
            error, freedom = _bootstrap_error(tasks, statistic, resamples, seed), _freedom(tasks)
        reach = student(freedom, confidence) * error
        low, high = min(low, estimate - reach), max(high, estimate + reach)
        if known:
            low, high = _within_the_ceiling(pooled, low, high)
    return Interval(estimate=estimate, low=low, high=high)


def require_confidence(confidence: float) -> None:
    """Raise ``ValueError`` unless it is a probability, and neither 0 nor 1."""
    if not isinstance(confidence, int | float | np.number) or not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")


def student(freedom: float, confidence: float) -> float:
    """Return how many standard errors an interval reaches to either side.

    Student's quantile, which is exact for normal values only, times ``1 + 1.7 / freedom ** 1.5``: three values that are
    uniform, or from a distribution with a peak at either end, are covered in 92.5 and 89 % of the cases without that
    factor. It is 1.6 at three values, 1.2 at five, 1.02 at twenty.
    """
    return float(student_quantile(freedom, (1 + confidence) / 2) * (1 + 1.7 / freedom**1.5))


def share_interval(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson (1934) of a probability; both numbers may be fractions."""
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = beta_quantile(successes, failures + 1, tail) if successes > 0 else 0.0
    high = beta_quantile(successes + 1, failures, 1 - tail) if failures > 0 else 1.0
    return low, high


def _share_where_both_were_seen(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson, given that there was a success and a failure.

    Samples without one of them get no interval (:func:`could_differ`), so that the usual one would cover too seldom
    where it is given: 90 % at five trials with probability 0.95.
    """
    tail = (1 - confidence) / 2
    low, high = share_interval(successes, trials, confidence)
    low = min(low, _smallest_share(successes, trials, tail))
    return low, max(high, 1 - _smallest_share(trials - successes, trials, tail))


def _smallest_share(successes: int, trials: int, tail: float) -> float:
    """Return the share at which so many successes or more have probability ``tail``, given both outcomes."""
    if successes == 1:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        # The binomial tail by the incomplete beta function, without the sample that holds no failure.
        none, all_ = (1 - share) ** trials, share**trials
        mixed = 1 - none - all_
        above = beta_cdf(successes, trials - successes + 1, share) - all_
        if mixed > 0 and above > tail * mixed:
            high = share
        else:
            low = share
    return low


def _is_a_share(pooled: FloatArray) -> bool:
    """Whether there are two values, and a third can be left out of account: 0 and 1, or any two among ten or more.

    Two different values and no more are no sign of two kinds.
    """
    low, high = pooled.min(), pooled.max()
    return (
        len(pooled) > 2
        and (len(pooled) >= 10 or (low == 0 and high == 1))
        and bool(((pooled == low) | (pooled == high)).all())
    )


def _by_frequency(
    pooled: FloatArray, statistic: Statistic, confidence: float, *, doubtful: bool
) -> Iterator[tuple[float, float]]:
    """Yield bounds from how often the highest value, or the lowest, is missed, where it was seen more than once."""
    for end in (pooled.max(), pooled.min()):
        others = pooled[pooled != end]
        if len(pooled) - len(others) < 2:
            continue
        share = _share_where_both_were_seen(len(others), len(pooled), confidence)
        # One other value, or two, are a poor guess of what the others are on average.
        doubt = 1 + 0.75 / len(others) if doubtful else 1.0
        near, far = (_mixed(end, others, s, f, statistic) for s, f in zip(share, (1 / doubt, doubt), strict=True))
        yield min(*near, *far), max(*near, *far)


def _mixed(end: float, others: FloatArray, share: float, stretch: float, statistic: Statistic) -> tuple[float, ...]:
    """Return the statistic of a distribution that is at ``end`` but for a share of values like the others."""
    values = np.append(end + stretch * (others - end), end)
    weights = np.append(np.full(len(others), share / len(others)), 1 - share)
    if statistic is mean:
        return (float(weights @ values),)
    n = len(others) + 1
    # Few values lose less than a quarter at either end: cover the middle of either kind.
    return tuple(_trimmed(values, weights, cut) for cut in (TRIMMED, (n // 4) / n))


def _trimmed(values: FloatArray, weights: FloatArray, cut: float) -> float:
    """Return the mean of a distribution without the lowest and highest share ``cut``."""
    order = np.argsort(values)
    upto = np.clip(np.cumsum(weights[order]), cut, 1 - cut)
    inside = np.diff(upto, prepend=cut)
    return float(inside @ values[order] / (1 - 2 * cut))


def _within_the_ceiling(pooled: FloatArray, low: float, high: float) -> tuple[float, float]:
    """Cut off what lies beyond a value that at least half of ten values or more reach, and none exceeds."""
    needed = max(5, len(pooled) / 2)
    if np.count_nonzero(pooled == pooled.max()) >= needed:
        high = min(high, float(pooled.max()))
    if np.count_nonzero(pooled == pooled.min()) >= needed:
        low = max(low, float(pooled.min()))
    return low, high


def _standard_error(tasks: Sequence[FloatArray], statistic: Statistic) -> tuple[float, float]:
    """Return the standard error of the mean or the interquartile mean, and its degrees of freedom."""
    total = sum(len(task) for task in tasks)
    if statistic is mean:
        return math.sqrt(sum(len(task) * task.var(ddof=1) for task in tasks)) / total, _freedom(tasks)
    cut = total // 4
    ordered = np.sort(np.concatenate(tasks))
    winsorised = [task.clip(ordered[cut], ordered[total - cut - 1]) for task in tasks]
    left = total - 2 * cut
    variance = sum(len(task) * task.var(ddof=1) for task in winsorised) / left**2
    lost = (left - 1) / (total - 1)
    return math.sqrt(variance * left / total / lost), max(1.0, _freedom(winsorised) * lost)


def _freedom(tasks: Sequence[FloatArray]) -> float:
    """Return the degrees of freedom of a sum over tasks of unequal variance (Satterthwaite 1946)."""
    parts = np.array([len(task) * task.var(ddof=1) for task in tasks])
    each = np.array([len(task) - 1 for task in tasks])
    return float(parts.sum() ** 2 / (parts**2 / each).sum()) if parts.any() else float(each.sum())


def _bootstrap_error(tasks: Sequence[FloatArray], statistic: Statistic, resamples: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    drawn = [task[rng.integers(len(task), size=(resamples, len(task) - 1))] for task in tasks]
    return float(statistic(np.concatenate(drawn, axis=1)).std(ddof=1))
