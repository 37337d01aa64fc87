"""What the scores of a run are like at present: trending, ranging or volatile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from optix_core.convergence.statistics import FloatArray, trend_bounds
from optix_core.errors import real_number, whole_number
from optix_protocol import EvalMetrics

Regime: TypeAlias = Literal["trending", "ranging", "volatile"]


class RegimeDetector:
    """Tells regimes apart by the noise around the trend of the newest scores.

    With a line fitted to them, the detrended coefficient of variation is the deviation of the residuals over the root
    mean square of the scores, which unlike their mean is not 0 where they change sign. Above ``volatile_above`` the
    scores are *volatile*. Otherwise they are *trending* where a slope is certain, by the bound on a trend that holds in
    autocorrelated noise (:func:`optix_core.convergence.statistics.trend_bounds`), and *ranging* where none is.

    Args:
        window: how many of the newest scores count.
        volatile_above: coefficient of variation from which scores are volatile, 0 to 1.
        alpha: chance to take scores without a trend for trending, each way.
        least: with fewer scores than this everything is ranging; at least 12.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(self, *, window: int = 60, volatile_above: float = 0.3, alpha: float = 0.005, least: int = 12) -> None:
        self.window = whole_number("window", window, least=12)
        self.volatile_above = real_number("volatile_above", volatile_above, above=0.0, most=1.0)
        self.alpha = real_number("alpha", alpha, above=0.0, below=0.5)
        self.least = whole_number("least", least, least=12)

    def coefficient_of_variation(self, history: Sequence[EvalMetrics] | Sequence[float]) -> float:
        """Return the detrended coefficient of variation, 0 to 1, of the newest scores; 0 where there are too few."""
        scores = self._newest(history)
        if len(scores) < self.least:
            return 0.0
        t = np.arange(len(scores)) - (len(scores) - 1) / 2
        centred = scores - scores.mean()
        residuals = centred - t * (t @ centred) / (t @ t)
        scale = math.sqrt(float(np.mean(scores**2)))
        return 0.0 if scale == 0 else min(1.0, math.sqrt(float(residuals @ residuals) / (len(scores) - 2)) / scale)

    def detect(self, history: Sequence[EvalMetrics] | Sequence[float]) -> Regime:
        """Return the regime.

        Args:
            history: metrics whose ``primary_score`` counts, or the scores themselves, oldest first; what is not finite
                is left out.
        """
        scores = self._newest(history)
        if len(scores) < self.least:
            return "ranging"
        if self.coefficient_of_variation(history) > self.volatile_above:
            return "volatile"
        trend = trend_bounds(np.arange(len(scores)), scores, self.alpha)
        return "trending" if trend.lower > 0.0 or trend.upper < 0.0 else "ranging"

    def _newest(self, history: Sequence[EvalMetrics] | Sequence[float]) -> FloatArray:
        scores = np.array([x.primary_score if isinstance(x, EvalMetrics) else x for x in history], np.float64)
        newest: FloatArray = scores[np.isfinite(scores)][-self.window :]
        return newest
