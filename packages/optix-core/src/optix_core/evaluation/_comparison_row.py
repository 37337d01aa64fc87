"""What a comparison says of one run or algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from optix_core.evaluation.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One run or algorithm.

    Attributes:
        name: as given.
        scores: how many scores it has, over all tasks.
        tasks: number of tasks.
        mean: with its interval.
        iqm: interquartile mean, with its interval.
        improvement: probability that one of its scores beats one of the baseline's; None for the baseline itself.
    """

    name: str
    scores: int
    tasks: int
    mean: Interval
    iqm: Interval
    improvement: Interval | None
