"""What one look measures. The verdict is a pure function of it.

Scores are measured from the first one, in units of a power of two near their spread, and time in units of the steps so
far. So no offset or scale of scores that are themselves exact enough changes a verdict, and no square overflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .settings import MonitorSettings
from .statistics import (
    FloatArray,
    Trend,
    batch_means,
    long_run_variance,
    smooth,
    student_t_quantile,
    trend_bounds,
    variance_of_falls,
)

BASELINE_WINDOWS = 5
"""The first windows, whose mean is the untrained level where no baseline is given."""

HEAD_WINDOWS = 20
"""The beginning of a run, kept window by window for as long as it lasts."""

FULL_HORIZON_LOG_TIME = 2.0
"""Logarithmic time left from which on the horizon is full: e^2 = 7.4, up to 14 % of the budget."""

MIN_HORIZON_WINDOWS = 8
"""Windows below which no budget shortens the horizon: on budgets of 20 to 60 windows a plateau is often a pause. With 8
instead of none, 11 instead of 29 of 217 curves cut short were stopped below 95 % of what they reach later."""

RISE_LEVEL = 0.80
"""Share of the range that ends the rise. Decision 0010: the loss of stopping grows with how recent it is."""

PLATEAU_LEVEL = 0.95
"""Share of the range at which the plateau begins: what is missing is the default margin."""

NOISE_BATCHES = 20
"""Batches of the long-run variance; a regression on as many batch means has 18 degrees of freedom."""

HEAD_BATCHES = 5
"""Batches of the head, of four windows each."""

BASELINE_DEGREES = 3
"""Degrees of freedom of von Neumann's variance of five values: 2 (n - 1)^2 / (3 n - 4) = 2.9."""

MIN_REGRESSION_WINDOWS = 10
"""The smallest number of batches (:func:`trend_bounds`)."""

FIRST_NOISE_FACTOR = 10.0
"""How many times as noisy as later windows the very first may be: there is only one, so its noise is not measured."""

_RESOLUTION = 8 * float(np.finfo(np.float64).eps)
"""A range below this share of the scores themselves is rounding."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores so far, in the units of a look.

    Attributes:
        time: End of each slot as a share of the steps so far, shape ``[n]``, increasing to at most 1.
        values: Mean score of each slot, shape ``[n]``.
        episodes: Episodes of each slot, shape ``[n]``.
        head: Scores of the first windows, shape ``[k]``, at most ``HEAD_WINDOWS``.
        head_episodes: Their episodes, shape ``[k]``.
        origin: Score that is 0 in these units.
        unit: Score units of one of these units.
    """

    time: FloatArray
    values: FloatArray
    episodes: FloatArray
    head: FloatArray
    head_episodes: FloatArray
    origin: float
    unit: float

    @classmethod
    def of(
        cls,
        steps: FloatArray,
        scores: FloatArray,
        episodes: FloatArray,
        head: Sequence[float],
        head_episodes: Sequence[float],
        env_steps: float,
    ) -> Scores:
        """Change the units of a curve whose last window ended at ``env_steps``."""
        origin = head[0]
        values, first = scores - origin, np.array(head) - origin
        span = max(float(np.abs(values).max()), float(np.abs(first).max()))
        unit = math.ldexp(1.0, max(math.frexp(span)[1], -1022)) if span > 0 else 1.0
        return cls(
            time=steps / env_steps,
            values=values / unit,
            episodes=episodes,
            head=first / unit,
            head_episodes=np.array(head_episodes),
            origin=origin,
            unit=unit,
        )

    def __len__(self) -> int:
        """Number of slots."""
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the scores began, how far they came and when.

    Attributes:
        baseline: Untrained level.
        score_range: Best smoothed level minus baseline; 0 while nothing rose above it.
        margin: Gain that the user would not wait a horizon for.
        rise_end: Share of the steps so far at which ``RISE_LEVEL`` of the range was first reached.
        plateau_start: The same for ``PLATEAU_LEVEL``.
    """

    baseline: float
    score_range: float
    margin: float
    rise_end: float
    plateau_start: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that one look measures; scores in the units of :class:`Scores`, times in steps so far.

    Attributes:
        span: Beginning, range and margin.
        trend: Bounds on the slope of the recent scores.
        horizon: Horizon that a known budget has shortened.
        full_horizon: Horizon without that.
        noise_floor: Level above the baseline that noise alone may reach.
        learned: The level is above the untrained one beyond doubt.
        may_have_learned: There is some sign that it is.
        saturated: The recent scores do not vary at all.
    """

    span: Span
    trend: Trend
    horizon: float
    full_horizon: float
    noise_floor: float
    learned: bool
    may_have_learned: bool
    saturated: bool


def measure(scores: Scores, settings: MonitorSettings, *, env_steps: float, num_windows: int, alpha: float) -> Evidence:
    """Measure what a look at ``env_steps`` may be decided by.

    Args:
        scores: The scores so far.
        settings: Of the monitor.
        env_steps: Steps so far.
        num_windows: Windows so far; slots may hold several.
        alpha: Error that this look may spend.
    """
    span = measure_span(scores, settings)
    full_horizon, horizon = horizons(settings, env_steps, num_windows)
    variance = recent_variance(scores)
    recent = regression_windows(scores, variance, horizon=horizon, margin=span.margin, alpha=alpha)
    values, episodes = scores.values[-recent:], scores.episodes[-recent:]
    trend = trend_bounds(scores.time[-recent:], values, alpha, weights=episodes)
    # The level is that of all of these windows: a rare success among the older ones, or among those that no whole batch
    # holds, is noise of it, too.
    variance = max(variance, *(long_run_variance(values, batches, episodes) for batches in (NOISE_BATCHES, recent)))
    noise = student_t_quantile(1 - alpha, NOISE_BATCHES - 2) * math.sqrt(variance / episodes.sum())
    floor = noise
    if settings.baseline is None:
        floor = math.hypot(noise, baseline_error(scores, alpha))
    learned = span.score_range > 0 and trend.level - span.baseline > span.margin + floor
    suspected = learned
    if span.score_range > 0 and settings.baseline is None:
        # A task that is learned within the first windows rises inside the baseline itself. The very first window is
        # the untrained policy's; compare with it alone.
        rise = trend.level - float(scores.head[0]) - span.margin
        liberal, strict = first_window_errors(scores, variance, alpha)
        suspected = suspected or rise > math.hypot(noise, liberal)
        learned = learned or rise > math.hypot(noise, strict)
    if not suspected:
        suspected = trend_bounds(scores.time, scores.values, settings.alpha, weights=scores.episodes).lower > 0
    return Evidence(
        span=span,
        trend=trend,
        horizon=horizon,
        full_horizon=full_horizon,
        noise_floor=floor,
        learned=learned,
        may_have_learned=suspected,
        saturated=bool(np.ptp(values) == 0),
    )


def measure_span(scores: Scores, settings: MonitorSettings) -> Span:
    """Find baseline, range and margin, and when the rise ended, from moving averages over a twentieth of the curve."""
    n = len(scores)
    if settings.baseline is not None:
        baseline = (settings.baseline - scores.origin) / scores.unit
    else:
        first = slice(BASELINE_WINDOWS)
        baseline = float(batch_means(scores.head[first], 1, scores.head_episodes[first])[0])
    width = min(n, max(BASELINE_WINDOWS, n // 20))
    smoothed = smooth(scores.values, width, scores.episodes)
    ends = scores.time[width - 1 :]
    best = float(smoothed.max())
    score_range = best - baseline
    largest = max(abs(best + scores.origin / scores.unit), abs(baseline + scores.origin / scores.unit))
    if score_range <= _RESOLUTION * largest:
        score_range = 0.0

    def first_at(level: float) -> float:
        return float(ends[np.argmax(smoothed >= best - (1 - level) * score_range)])

    return Span(
        baseline=baseline,
        score_range=score_range,
        margin=max((settings.margin or 0.0) / scores.unit, settings.margin_fraction * score_range),
        rise_end=first_at(RISE_LEVEL),
        plateau_start=first_at(PLATEAU_LEVEL),
    )


def horizons(settings: MonitorSettings, env_steps: float, num_windows: int) -> tuple[float, float]:
    """Return the full horizon and the one that a known budget has shortened, both as shares of the steps so far.

    A curve that flattens grows at most like the logarithm of time, so less logarithmic time left means less left to
    gain. The floors keep the bound from becoming empty where the budget ends, or where it holds few windows.
    """
    full = settings.horizon_fraction
    if settings.budget_env_steps is None:
        return full, full
    left = math.log(max(settings.budget_env_steps / env_steps, 1.0)) / FULL_HORIZON_LOG_TIME
    floor = min(full, max(settings.horizon_floor, MIN_HORIZON_WINDOWS / num_windows))
    return full, max(floor, full * min(1.0, left))


def regression_windows(scores: Scores, variance: float, *, horizon: float, margin: float, alpha: float) -> int:
    """Return how many of the newest slots the trend is fitted to: a third of the curve, up to two thirds.

    The shorter the stretch, the less of the old rise it sees; the noisier the scores, the longer it must be. The slope
    over W slots has the variance ``12 omega^2 / W^3``; W is where t standard errors times the horizon are the margin.

    Args:
        scores: The scores so far.
        variance: Recent long-run variance of an episode, omega^2.
        horizon: As a share of the steps so far.
        margin: In the units of ``scores``.
        alpha: Error of the bound.
    """
    n = len(scores)
    wanted = math.inf
    if margin > 0:
        quantile = student_t_quantile(1 - alpha, NOISE_BATCHES - 2)
        slot_variance = variance * n / float(scores.episodes.sum())
        wanted = (12 * slot_variance * (quantile * horizon * n / margin) ** 2) ** (1 / 3)
    return max(MIN_REGRESSION_WINDOWS, math.ceil(min(max(wanted, n / 3), 2 * n / 3)))


def recent_variance(scores: Scores) -> float:
    """Long-run variance of an episode in the newer half of the curve."""
    newer = max(NOISE_BATCHES, len(scores) // 2)
    return long_run_variance(scores.values[-newer:], NOISE_BATCHES, scores.episodes[-newer:])


def baseline_error(scores: Scores, alpha: float) -> float:
    """Error of the measured baseline at level ``alpha``: by the noisiest of its own windows, the head and the curve.

    The noise must not be taken from the first windows alone: five windows without a success do not vary, and are no
    proof that there is nothing to vary. Beyond them only falls count, because most curves rise there.
    """
    own, own_episodes = scores.head[:BASELINE_WINDOWS], scores.head_episodes[:BASELINE_WINDOWS]
    variance = max(
        long_run_variance(own, BASELINE_WINDOWS, own_episodes),
        variance_of_falls(scores.head, None, scores.head_episodes),
        variance_of_falls(scores.head, HEAD_BATCHES, scores.head_episodes),
        # blocks as long as the baseline, from all of the curve
        variance_of_falls(scores.values, max(2, len(scores) // BASELINE_WINDOWS), scores.episodes),
    )
    return student_t_quantile(1 - alpha, BASELINE_DEGREES) * math.sqrt(variance / own_episodes.sum())


def first_window_errors(scores: Scores, recent: float, alpha: float) -> tuple[float, float]:
    """Error of the very first window at level ``alpha``: by the ``recent`` variance, and by the most imaginable.

    The second allows for noise that falls as training goes on. The head tells how noisy it began by its falls, which
    a quick rise leaves alone; there may be only one of any size, hence one degree of freedom.
    """
    liberal = student_t_quantile(1 - alpha, NOISE_BATCHES - 2) * math.sqrt(recent)
    own, own_episodes = scores.head[:BASELINE_WINDOWS], scores.head_episodes[:BASELINE_WINDOWS]
    falls = max(variance_of_falls(scores.head, None, scores.head_episodes), variance_of_falls(own, None, own_episodes))
    strict = max(FIRST_NOISE_FACTOR * liberal, student_t_quantile(1 - alpha, 1) * math.sqrt(falls))
    weight = math.sqrt(float(scores.head_episodes[0]))
    return liberal / weight, strict / weight
