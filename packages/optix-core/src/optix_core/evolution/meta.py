"""What evolution does next: a pure function of evidence, all of it with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from optix_core.convergence.statistics import trend_bounds
from optix_core.errors import real_number
from optix_protocol import Verdict

LEAST_SCORES = 12
"""With fewer scores than this nothing is said of their trend."""


class MetaAction(StrEnum):
    """What a meta-controller may ask for."""

    SPAWN = "spawn"
    PRUNE = "prune"
    STOP = "stop"
    NO_OP = "no_op"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a quantity lies, with confidence.

    Attributes:
        low: lower bound.
        high: upper bound.
    """

    low: float
    high: float

    def __str__(self) -> str:
        """Return both bounds."""
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True, kw_only=True)
class Signals:
    """All that the decision depends on. None stands for "not known".

    Attributes:
        verdict: on the run, by its scheduler.
        gap: training score minus validation score, in standard deviations of the scores.
        gap_slope: how much that changes over the window of scores.
        improvement: of the score over its window, as a fraction of the range of all scores so far.
        spawns_left: variants that may still be spawned.
        num_members: members beside the primary one, which could be pruned.
        is_late: so much of the budget is used that a spawn has to be made now, if ever.
    """

    verdict: Verdict = Verdict.UNDECIDED
    gap: Interval | None = None
    gap_slope: Interval | None = None
    improvement: Interval | None = None
    spawns_left: int = 0
    num_members: int = 0
    is_late: bool = False


@dataclass(frozen=True, kw_only=True)
class MetaDecision:
    """What to do, and why.

    Attributes:
        action: what.
        why: a sentence with the numbers.
    """

    action: MetaAction
    why: str


class MetaController:
    """Decides when to spawn, to prune and to stop.

    A threshold is passed only where a whole interval lies beyond it. The table, first row that fits:

    ==================================================  ===========================================
    evidence                                            action
    ==================================================  ===========================================
    verdict CONVERGED or NO_SIGNAL                      SPAWN while spawns are left, then STOP
    gap above its threshold and growing                 PRUNE, or SPAWN without a member to prune
    late, the verdict DEGRADING, or a stalled score     SPAWN while spawns are left
    anything else                                       NO_OP
    ==================================================  ===========================================

    A score is stalled where the upper bound on its improvement is below the threshold and the run is not IMPROVING.
    No rule that sees scores alone can tell a deceptive plateau from a final one: that is why a first CONVERGED spawns.

    Args:
        gap_threshold: gap between training and validation that is too large, in standard deviations of the scores.
        gap_slope_threshold: growth of the gap over the window of scores, likewise.
        improvement_threshold: improvement over the window that would be worth waiting for, as a fraction of the range
            of the scores so far.

    Raises:
        ConfigError: a threshold that is no number, or negative.
    """

    def __init__(
        self,
        gap_threshold: float = 0.5,
        gap_slope_threshold: float = 0.05,
        improvement_threshold: float = 0.05,
    ) -> None:
        self.gap_threshold = real_number("gap_threshold", gap_threshold, least=0.0)
        self.gap_slope_threshold = real_number("gap_slope_threshold", gap_slope_threshold, least=0.0)
        self.improvement_threshold = real_number("improvement_threshold", improvement_threshold, least=0.0)

    def decide(self, signals: Signals) -> MetaDecision:
        """Return what to do; a pure function of the signals."""
        s = signals
        if s.verdict in (Verdict.CONVERGED, Verdict.NO_SIGNAL):
            if s.spawns_left:
                return _decision(MetaAction.SPAWN, f"The verdict is {s.verdict}: before the end, a variant is tried.")
            return _decision(MetaAction.STOP, f"The verdict is {s.verdict}, and no spawn is left.")
        if self._overfits(s):
            why = f"The gap is {s.gap} standard deviations and grows by {s.gap_slope}."
            if s.num_members:
                return _decision(MetaAction.PRUNE, why)
            return _decision(MetaAction.SPAWN if s.spawns_left else MetaAction.NO_OP, why)
        if not s.spawns_left:
            return _decision(MetaAction.NO_OP, "No spawn is left.")
        if s.is_late:
            return _decision(MetaAction.SPAWN, "Later there would be no room for a spawn that was asked for.")
        if s.verdict is Verdict.DEGRADING and s.improvement is not None:
            return _decision(MetaAction.SPAWN, "The score falls: a variant begins from the best policy.")
        if self._stalls(s):
            why = f"The score gained {s.improvement} of its range, certainly less than {self.improvement_threshold:g}."
            return _decision(MetaAction.SPAWN, why)
        return _decision(MetaAction.NO_OP, "Nothing speaks for a change.")

    def _overfits(self, s: Signals) -> bool:
        if s.gap is None or s.gap_slope is None:
            return False
        return s.gap.low > self.gap_threshold and s.gap_slope.low > self.gap_slope_threshold

    def _stalls(self, s: Signals) -> bool:
        if s.verdict is Verdict.IMPROVING or s.improvement is None:
            return False
        return s.improvement.high < self.improvement_threshold


def _decision(action: MetaAction, why: str) -> MetaDecision:
    return MetaDecision(action=action, why=why)


def improvement_of(scores: Sequence[float], score_range: float, alpha: float = 0.05) -> Interval | None:
    """Return the improvement over a window of scores as a fraction of their range so far, or None for too few.

    Args:
        scores: ``[n]``, oldest first.
        score_range: best smoothed score less the baseline, above 0.
        alpha: one-sided error of each bound, which holds in autocorrelated noise.
    """
    if len(scores) < LEAST_SCORES or not score_range > 0:
        return None
    trend = trend_bounds(np.arange(len(scores)), scores, alpha)
    scale = (len(scores) - 1) / score_range
    return Interval(low=trend.lower * scale, high=trend.upper * scale)


def gap_of(
    scores: Sequence[float], gaps: Sequence[float], alpha: float = 0.05
) -> tuple[Interval | None, Interval | None]:
    """Return gap and growth of the gap over a window, in standard deviations of the scores; None for too few.

    The spread of the scores and not their mean is the unit: a mean near zero changes nothing.

    Args:
        scores: validation scores ``[n]``.
        gaps: training score minus validation score ``[n]``, finite.
        alpha: one-sided error of each bound.
    """
    if len(gaps) < LEAST_SCORES:
        return None, None
    spread = float(np.std(scores, ddof=1))
    if not spread > 0:
        return None, None
    trend = trend_bounds(np.arange(len(gaps)), gaps, alpha)
    # What is left after the trend is the noise of the mean; a gap that grows is no noise.
    residuals = np.asarray(gaps) - trend.slope * (np.arange(len(gaps)) - (len(gaps) - 1) / 2)
    half = _t_half_width(residuals, alpha) / spread
    mean = float(np.mean(gaps)) / spread
    scale = (len(gaps) - 1) / spread
    return Interval(low=mean - half, high=mean + half), Interval(low=trend.lower * scale, high=trend.upper * scale)


def _t_half_width(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], alpha: float) -> float:
    from optix_core.convergence.statistics import student_t_quantile

    return student_t_quantile(1.0 - alpha, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
