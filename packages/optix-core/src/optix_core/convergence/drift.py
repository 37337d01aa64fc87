"""Noticing that scores which had settled have fallen: a one-sided CUSUM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import real_number

from .statistics import long_run_variance

ALLOWANCE = 0.5
"""Falls below half a standard deviation are let pass; the test is the quickest for one of a whole (Page 1954)."""

_OVERSHOOT = 1.166
"""Siegmund (1985): a boundary for sums acts as if it were so much higher."""

LEAST_REFERENCE = 10
"""Scores from which level and spread can be told."""


def threshold_of(false_alarm_every: float) -> float:
    """Return the boundary of the CUSUM that independent normal scores reach once in so many, without a fall.

    Siegmund's approximation: ``ARL = (exp(2 k b) - 2 k b - 1) / (2 k^2)``, ``b = h + 1.166`` and ``k`` the allowance.
    """
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        b = 2 * ALLOWANCE * (middle + _OVERSHOOT)
        if (math.exp(min(b, 700.0)) - b - 1) / (2 * ALLOWANCE**2) < false_alarm_every:
            low = middle
        else:
            high = middle
    return high


@dataclass(kw_only=True)
class DriftTest:
    """A one-sided, self-starting CUSUM on scores: ``S = max(0, S - U - k)``, an alarm where ``S > h``.

    ``U`` is a score as a standard normal number: its distance from the mean of all scores before it, in their standard
    deviations, through Student's t (Hawkins 1987). So few settled scores to begin with cost power and give no false
    alarms. Autocorrelation is allowed for by the ratio of the long-run variance to the variance of single scores.

    Attributes:
        level: mean of the settled scores, and of those that came after without an alarm.
        squares: sum of their squared distances from it.
        count: how many they are.
        inflation: by how much the deviation is enlarged for autocorrelation, at least 1.
        threshold: ``h``, see :func:`threshold_of`.
        total: ``S``.
        num_scores: taken in since ``S`` was last 0.
    """

    level: float
    squares: float
    count: int
    inflation: float
    threshold: float
    total: float = 0.0
    num_scores: int = 0

    @classmethod
    def of(cls, settled: Sequence[float], *, false_alarm_every: float) -> DriftTest:
        """Return a test against scores that have settled.

        Args:
            settled: ``[n]``, at least 10.
            false_alarm_every: scores between two false alarms, on average.
        """
        values = np.asarray(settled, np.float64)
        level, variance = float(values.mean()), float(values.var(ddof=1))
        inflation = math.sqrt(max(1.0, long_run_variance(values) / variance)) if variance > 0 else 1.0
        every = real_number("false_alarm_every", false_alarm_every, above=1.0)
        return cls(
            level=level,
            squares=variance * (len(values) - 1),
            count=len(values),
            inflation=inflation,
            threshold=threshold_of(every),
        )

    def update(self, score: float) -> bool:
        """Take in a score; return whether there is an alarm. One that is not finite is one."""
        if not math.isfinite(score):
            return True
        degrees = self.count - 1
        least = max(1e-9 * abs(self.level), 1e-300)  # scores that did not vary at all
        deviation = self.inflation * max(math.sqrt(self.squares / degrees), least)
        distance = (score - self.level) / deviation * math.sqrt(self.count / (self.count + 1))
        self.total = max(0.0, self.total - _as_normal(distance, degrees) - ALLOWANCE)
        self.num_scores = self.num_scores + 1 if self.total > 0.0 else 0
        if self.total > self.threshold:
            return True
        self.count += 1
        step = score - self.level
        self.level += step / self.count
        self.squares += step * (score - self.level)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values."""
        return dict(vars(self))


def _as_normal(t: float, degrees: int) -> float:
    """Return the normal number that is as probable as ``t`` of Student's distribution (Wallace 1959)."""
    size = math.sqrt(degrees * math.log1p(t * t / degrees)) * (8 * degrees + 1) / (8 * degrees + 3)
    return math.copysign(size, t)
