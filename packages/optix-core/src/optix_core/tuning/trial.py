"""One experiment of a tuner: places that are tried beside the present one, their scores, and what these say.

It can be held in two ways. Side by side, every place continues from the same exact state and plays the same episodes
(:class:`optix_core.loop.branching.Laboratory`). One after the other, each window is collected with other values: the
places are visited there and back (base, a, b, b, a, base), so that a trend of the score, even the steady rise of a run
that learns, cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optix_core.convergence.statistics import student_t_quantile
from optix_core.tuning.space import Point

FloatArray = NDArray[np.float64]

CONFIDENT = 0.95
"""One-sided level at which a better score is believed: 1.64 standard errors."""

CONFIDENT_ON_COMMON_SEEDS = 0.841
"""The same where common seeds explain at least half of the spread: 1 standard error (Spall 1998, section VI)."""


_LARGEST = 1e150
"""Scores beyond this are taken for this."""


@dataclass(kw_only=True)
class Noise:
    """The spread of one score around what its place earns, pooled over experiments; early ones fade.

    Attributes:
        sum_of_squares: of the residuals.
        freedom: degrees of freedom behind it.
    """

    sum_of_squares: float = 0.0
    freedom: float = 0.0

    MEMORY = 0.95
    """What an experiment keeps of the weight of earlier ones."""

    def add(self, residuals: FloatArray, freedom: int) -> None:
        """Take in the residuals of an experiment."""
        self.sum_of_squares = self.MEMORY * self.sum_of_squares + float(residuals @ residuals)
        self.freedom = self.MEMORY * self.freedom + freedom

    @property
    def std(self) -> float:
        """Standard deviation of one score, 0 before the first experiment."""
        return math.sqrt(self.sum_of_squares / self.freedom) if self.freedom else 0.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Places with their scores.

    Attributes:
        points: ``[K, d]``, the base first.
        means: ``[K]`` mean score of each; the worst for one that gave NaN.
        errors: ``[K]`` standard error of ``means[k] - means[0]``.
        freedom: degrees of freedom of the errors.
        common: ``[K]`` whether common seeds explain at least half of the spread of that difference.
        invalid: ``[K]`` whether a score was NaN.
        side_by_side: scores were earned on common seeds, and do not compare with those of other experiments.
    """

    points: FloatArray
    means: FloatArray
    errors: FloatArray
    freedom: float
    common: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    side_by_side: bool

    @property
    def winner(self) -> int:
        """The best place beside the base."""
        return 1 + int(np.argmax(self.means[1:]))

    def z(self, k: int) -> float:
        """Return by how many standard errors place ``k`` is better than the base."""
        gain = float(self.means[k] - self.means[0])
        if self.errors[k] == 0:
            return math.copysign(math.inf, gain) if gain else 0.0
        return gain / float(self.errors[k])

    def beats_base(self, k: int) -> bool:
        """Whether place ``k`` is better than the base beyond reasonable doubt, by Student's t."""
        if self.invalid[k] or not self.freedom:
            return False
        if self.invalid[0]:
            return True
        level = CONFIDENT_ON_COMMON_SEEDS if self.common[k] else CONFIDENT
        level = 1 - (1 - level) / (len(self.means) - 1)  # the best of several is ahead by luck: Bonferroni
        return self.z(k) > student_t_quantile(level, round(self.freedom, 3))


def there_and_back(num_points: int) -> list[int]:
    """Return the order in which places are visited one after the other."""
    return [*range(num_points), *reversed(range(num_points))]


def trial_in_turn(points: ArrayLike, order: Sequence[int], scores: Sequence[float], noise: Noise) -> Trial:
    """Judge scores that were earned one after the other, with a linear trend taken out.

    Args:
        points: ``[K, d]``.
        order: place of each score.
        scores: in the order in which they were earned.
        noise: pooled so far; it takes in this experiment.
    """
    places, y = np.asarray(order), bounded(scores)
    bad = ~np.isfinite(y)
    y = _worst_for_nan(y)
    time = np.arange(len(y)) - (len(y) - 1) / 2
    design = np.column_stack([places[:, None] == np.arange(places.max() + 1), time]).astype(np.float64)
    fit: FloatArray = np.linalg.lstsq(design, y, rcond=None)[0].astype(np.float64)
    invalid = np.array([bad[places == k].any() for k in range(places.max() + 1)])
    if not bad.any():
        noise.add(y - design @ fit, len(y) - design.shape[1])
    counts = np.bincount(places)
    errors = noise.std * np.sqrt(1 / counts + 1 / counts[0])
    return Trial(
        points=np.asarray(points, dtype=np.float64),
        means=fit[:-1],
        errors=errors,
        freedom=noise.freedom,
        common=np.zeros(len(counts), dtype=bool),
        invalid=invalid,
        side_by_side=False,
    )


def trial_side_by_side(points: ArrayLike, samples: Sequence[ArrayLike]) -> Trial:
    """Judge scores of branches: those at one place of ``samples`` were earned on a common seed.

    Args:
        points: ``[K, d]``.
        samples: ``K`` arrays ``[E]``; NaN stands for none.
    """
    length = max(np.size(row) for row in samples)
    y = np.full((len(samples), length), np.nan)
    for k, row in enumerate(samples):
        y[k, : np.size(row)] = bounded(row)
    complete = np.isfinite(y)
    invalid = ~complete.any(axis=1)
    shared = complete[~invalid].all(axis=0) if not invalid.all() else np.zeros(length, dtype=bool)
    y = y[:, shared]
    if y.shape[1] == 0:
        invalid[:] = True
        y = np.zeros((len(samples), 1))
    means = _worst_for_nan(np.where(invalid, np.nan, y.mean(axis=1)))
    size = y.shape[1]
    differences = y - y[0]
    errors = differences.std(axis=1, ddof=1) / math.sqrt(size) if size > 1 else np.full(len(y), math.inf)
    spread = y.var(axis=1, ddof=1) + y[0].var(ddof=1) if size > 1 else np.zeros(len(y))
    common = (differences.var(axis=1, ddof=1) <= 0.5 * spread) & (spread > 0) if size > 1 else spread > 0
    return Trial(
        points=np.asarray(points, dtype=np.float64),
        means=means,
        errors=np.where(invalid, math.inf, errors),
        freedom=float(size - 1),
        common=common,
        invalid=invalid,
        side_by_side=True,
    )


def bounded(scores: ArrayLike) -> FloatArray:
    """Return scores whose squares are finite; NaN and infinity stay what they are."""
    y: FloatArray = np.array(scores, dtype=np.float64)
    finite = np.isfinite(y)
    y[finite] = np.clip(y[finite], -_LARGEST, _LARGEST)
    return y


def _worst_for_nan(scores: FloatArray) -> FloatArray:
    """Put NaN and minus infinity as far below the worst score as the scores range, and plus infinity above the best."""
    finite = scores[np.isfinite(scores)]
    if len(finite) == len(scores):
        return scores
    if len(finite) == 0:
        none: FloatArray = np.where(scores == math.inf, 1.0, 0.0)
        return none
    low, high = float(finite.min()), float(finite.max())
    reach = (high - low) or abs(low) or 1.0
    filled: FloatArray = np.where(np.isfinite(scores), scores, np.where(scores == math.inf, high + reach, low - reach))
    return filled


@dataclass(kw_only=True)
class InTurn:
    """An experiment that is held one window after the other, in progress.

    Attributes:
        points: ``[K, d]``, the base first.
        order: place of each window.
        scores: earned so far.
    """

    points: FloatArray
    order: list[int]
    scores: list[float] = field(default_factory=list)

    @property
    def present(self) -> int:
        """The place that is being tried."""
        return self.order[min(len(self.scores), len(self.order) - 1)]

    @property
    def point(self) -> Point:
        """Where that is."""
        place: Point = self.points[self.present]
        return place

    @property
    def complete(self) -> bool:
        """Whether every window has its score."""
        return len(self.scores) == len(self.order)

    def state_dict(self) -> dict[str, Any]:
        """Return it as lists and numbers."""
        return {"points": self.points.tolist(), "order": list(self.order), "scores": list(self.scores)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> InTurn:
        """Return what :meth:`state_dict` described."""
        return cls(
            points=np.array(state["points"], dtype=np.float64),
            order=[int(k) for k in state["order"]],
            scores=[float(score) for score in state["scores"]],
        )
