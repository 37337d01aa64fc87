"""Has the policy got worse? A cheap screen on training scores, then a paired trial on fresh episodes.

``score < 0.95 best`` fires on every healthy plateau with 5 % noise, because the best of many noisy scores is
far above their mean. Here a drop is only *suspected* from training scores, and only *believed* when the current policy
loses to the best snapshot on the same fresh episode seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optix_core.special import student_cdf

from .statistics import FloatArray


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Outcome of the first stage.

    Attributes:
        suspicious: Whether a confirmation on fresh episodes is worth its cost.
        drop: Reference level minus recent level, in score units.
        p_value: One-sided p-value of the drop.
        margin: Drop that would not matter.
    """

    suspicious: bool
    drop: float
    p_value: float
    margin: float


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Outcome of the second stage.

    Attributes:
        degraded: Whether the best snapshot is better beyond doubt: roll back.
        replicate: Whether as many new pairs must repeat the result before it is believed: play them and call
            :meth:`DegradationTest.confirm` again.
        drop: Mean paired difference, best minus current, in score units.
        p_value: One-sided paired t p-value.
        alpha: Level that this confirmation had to reach.
        num_pairs: Number of episode pairs.
        explanation: One sentence with the numbers.
    """

    degraded: bool
    replicate: bool
    drop: float
    p_value: float
    alpha: float
    num_pairs: int
    explanation: str


def drop_p_value(reference: ArrayLike, recent: ArrayLike) -> float:
    """One-sided p-value of "the mean of ``recent`` is below that of ``reference``".

    The variance is that of the reference alone. Welch's test would estimate it from the few recent windows as
    well, and right after a drop these mix old and new levels, so that the drop hides itself.

    Args:
        reference: Scores of shape ``[n]``, ``n >= 2``.
        recent: Scores of shape ``[k]``, ``k >= 1``.

    Returns:
        The p-value with ``n - 1`` degrees of freedom; 0 or 1 when the reference does not vary.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(recent, dtype=np.float64)
    drop = float(a.mean() - b.mean())
    variance = float(a.var(ddof=1)) * (1 / len(a) + 1 / len(b))
    if variance <= _rounding(a, b):
        return 0.0 if drop > 0 else 1.0
    return _upper_tail(drop / math.sqrt(variance), len(a) - 1)


def paired_p_value(better: ArrayLike, worse: ArrayLike) -> float:
    """One-sided p-value of "``worse`` is below ``better``" on common seeds (Student's paired t).

    Args:
        better: Returns of shape ``[n]``, ``n >= 2``.
        worse: Returns of the other policy on the same seeds, shape ``[n]``.

    Returns:
        The p-value; 0 or 1 when all differences are the same.

    Raises:
        ValueError: If the shapes differ or there are fewer than two pairs.
    """
    a, b = np.asarray(better, dtype=np.float64), np.asarray(worse, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"paired returns need two equal shapes [n >= 2], got {a.shape} and {b.shape}")
    difference = a - b
    mean, variance = float(difference.mean()), float(difference.var(ddof=1)) / len(a)
    if variance <= _rounding(a, b):
        return 0.0 if mean > 0 else 1.0
    return _upper_tail(mean / math.sqrt(variance), len(a) - 1)


class DegradationTest:
    """Two-stage test of degradation: screen every window, confirm on fresh episodes only when suspicious.

    Two things are suspicious: a drop below the best block of windows that its noise does not explain, and a collapse,
    which loses half of all that was gained. The second needs no long plateau before it; its noise is estimated from
    the differences of successive windows, which a rise hardly touches.

    Args:
        recent_windows: Windows that the screen compares with the reference.
        reference_windows: Length of the blocks of which the best is the reference.
        screen_alpha: Level of the screen's t test.
        confirm_alpha: Level that two independent paired trials must both reach. The k-th suspicion since the
            last rollback must reach ``confirm_alpha / k``, so that a false rollback has a probability of at
            most ``pi^2/6 confirm_alpha^2`` (0.02 %), however often a healthy policy is suspected.
        collapse_fraction: Share of the gain so far (best level of ``recent_windows`` windows minus the first
            score) whose loss is a collapse.
        margin_fraction: Drop that matters, as a fraction of the range seen so far.
        margin: Smallest drop that matters, in score units.
        num_pairs: Episode pairs that :meth:`confirm` expects its caller to play.

    Raises:
        ValueError: If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        recent_windows: int = 5,
        reference_windows: int = 20,
        screen_alpha: float = 0.002,
        confirm_alpha: float = 0.01,
        collapse_fraction: float = 0.5,
        margin_fraction: float = 0.05,
        margin: float | None = None,
        num_pairs: int = 10,
    ) -> None:
        if recent_windows < 2 or reference_windows < 2 or num_pairs < 2:
            raise ValueError("recent_windows, reference_windows and num_pairs must be at least 2")
        if not all(0 < level < 0.5 for level in (screen_alpha, confirm_alpha)):
            raise ValueError("screen_alpha and confirm_alpha are error probabilities between 0 and 0.5")
        if not 0 < collapse_fraction <= 1:
            raise ValueError("collapse_fraction must lie above 0 and be at most 1")
        if margin_fraction < 0 or (margin is not None and margin < 0):
            raise ValueError("margin_fraction and margin must not be negative")
        self.recent_windows = recent_windows
        self.reference_windows = reference_windows
        self.screen_alpha = screen_alpha
        self.confirm_alpha = confirm_alpha
        self.collapse_fraction = collapse_fraction
        self.margin_fraction = margin_fraction
        self.margin = margin
        self.num_pairs = num_pairs
        self.reset()

    def reset(self) -> None:
        """Forget all scores."""
        self._start = math.nan
        self._block: list[float] = []
        self._reference: list[float] = []
        self._recent: list[float] = []
        self._past: list[float] = []
        self._peak = -math.inf
        self._num_suspicions = 0
        self._replicating = False
        self._cooldown = 0
        self._margin = self.margin or 0.0

    def update(self, score: float) -> Screen:
        """Screen one window.

        Args:
            score: Mean return of the window.

        Returns:
            The screen; ``suspicious`` asks for :meth:`confirm`.

        Raises:
            ValueError: If the score is not finite.
        """
        score = float(score)
        if not math.isfinite(score):
            raise ValueError(f"score is {score}: look for diverged weights")
        if math.isnan(self._start):
            self._start = score
        self._recent.append(score)
        if len(self._recent) > self.recent_windows:
            left = self._recent.pop(0)
            self._past = [*self._past, left][-self.reference_windows :]
            self._extend_reference(left)
        self._cooldown = max(0, self._cooldown - 1)
        if len(self._recent) < self.recent_windows:
            return Screen(suspicious=False, drop=0.0, p_value=1.0, margin=self._margin)
        level = float(np.mean(self._recent))
        self._peak = max(self._peak, level)
        collapse = self._peak - level
        if collapse > self.collapse_fraction * (self._peak - self._start) and collapse > self._margin:
            drop, p_value = collapse, self._noise_p_value(collapse)
        elif self._reference:
            drop, p_value = float(np.mean(self._reference)) - level, drop_p_value(self._reference, self._recent)
        else:
            drop, p_value = 0.0, 1.0
        suspicious = p_value < self.screen_alpha and drop > self._margin and self._cooldown == 0
        return Screen(suspicious=suspicious, drop=drop, p_value=p_value, margin=self._margin)

    def confirm(self, best_returns: ArrayLike, current_returns: ArrayLike) -> Confirmation:
        """Judge the current policy against the best snapshot on common fresh seeds.

        The first positive trial asks for a second one with new seeds (``replicate``). A refuted suspicion mutes
        the screen until the recent windows are new ones. After a rollback the screen starts again with the
        restored policy; the reference stays.

        Args:
            best_returns: Returns of the best snapshot, shape ``[n]``, one per seed.
            current_returns: Returns of the current policy on the same seeds, shape ``[n]``.

        Returns:
            The confirmation; ``degraded`` means roll back.

        Raises:
            ValueError: If the shapes differ, there are fewer than two pairs, or a return is not finite.
        """
        best = np.asarray(best_returns, dtype=np.float64)
        current = np.asarray(current_returns, dtype=np.float64)
        if not (np.isfinite(best).all() and np.isfinite(current).all()):
            raise ValueError("a return of the confirmation is not finite")
        if not self._replicating:
            self._num_suspicions += 1
        alpha = self.confirm_alpha / self._num_suspicions
        p_value = paired_p_value(best, current)
        drop = float(best.mean() - current.mean())
        positive = p_value < alpha and drop > self._margin
        degraded = positive and self._replicating
        self._replicating = positive and not degraded
        self._cooldown = self.recent_windows
        if degraded:
            self._recent, self._num_suspicions = [], 0
        outcome = "rolling back" if degraded else "repeating with new seeds" if positive else "no rollback"
        return Confirmation(
            degraded=degraded,
            replicate=self._replicating,
            drop=drop,
            p_value=p_value,
            alpha=alpha,
            num_pairs=len(best),
            explanation=f"The best snapshot is {drop:.3g} better on {len(best)} common fresh episodes "
            f"(p = {p_value:.2g}, needed {alpha:.2g}): {outcome}.",
        )

    def _noise_p_value(self, drop: float) -> float:
        """One-sided p-value of a drop between two means of ``recent_windows`` windows (von Neumann's variance)."""
        if len(self._past) < self.recent_windows:
            return 1.0
        variance = float(np.square(np.diff(self._past)).mean()) / 2.0
        if variance <= _rounding(np.array(self._past), np.array(self._recent)):
            return 0.0
        return _upper_tail(drop / math.sqrt(2.0 * variance / self.recent_windows), len(self._past) - 1)

    def _extend_reference(self, score: float) -> None:
        self._block.append(score)
        if len(self._block) < self.reference_windows:
            return
        if not self._reference or np.mean(self._block) > np.mean(self._reference):
            self._reference = self._block
            span = max(0.0, float(np.mean(self._block)) - self._start)
            self._margin = max(self.margin or 0.0, self.margin_fraction * span)
        self._block = []

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values (the configuration is not part of it)."""
        return {
            "start": None if math.isnan(self._start) else self._start,
            "block": list(self._block),
            "reference": list(self._reference),
            "recent": list(self._recent),
            "past": list(self._past),
            "peak": self._peak if math.isfinite(self._peak) else None,
            "num_suspicions": self._num_suspicions,
            "replicating": self._replicating,
            "cooldown": self._cooldown,
            "margin": self._margin,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._start = math.nan if state["start"] is None else float(state["start"])
        self._block = [float(score) for score in state["block"]]
        self._reference = [float(score) for score in state["reference"]]
        self._recent = [float(score) for score in state["recent"]]
        self._past = [float(score) for score in state["past"]]
        self._peak = -math.inf if state["peak"] is None else float(state["peak"])
        self._num_suspicions = int(state["num_suspicions"])
        self._replicating = bool(state["replicating"])
        self._cooldown = int(state["cooldown"])
        self._margin = float(state["margin"])


def _upper_tail(statistic: float, degrees_of_freedom: float) -> float:
    return student_cdf(degrees_of_freedom, -statistic)


def _rounding(a: FloatArray, b: FloatArray) -> float:
    """Variance that rounding alone can produce."""
    return (1e-12 * float(np.abs(a).max() + np.abs(b).max())) ** 2
