"""Comparing runs or algorithms: intervals instead of bare means, distributions instead of one number."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.evaluation._comparison_plot import draw
from optix_core.evaluation._comparison_row import ComparisonRow
from optix_core.evaluation._scores import Scores, as_tasks, iqm, mean
from optix_core.evaluation.intervals import stratified_bootstrap
from optix_core.evaluation.statistics import Profile, performance_profile, probability_of_improvement


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What :func:`compare_runs` found.

    Attributes:
        rows: in the order given.
        baseline: name of the row that the others are compared with.
        confidence: of every interval.
        profiles: performance profile by name, on common thresholds.
    """

    rows: Sequence[ComparisonRow]
    baseline: str
    confidence: float
    profiles: Mapping[str, Profile]

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "baseline": self.baseline,
            "confidence": self.confidence,
            "rows": [asdict(row) for row in self.rows],
            "profiles": {
                name: {part: array.tolist() for part, array in asdict(profile).items()}
                for name, profile in self.profiles.items()
            },
        }

    def plot(self, path: str | os.PathLike[str], *, unit: str = "return") -> None:
        """Draw intervals and profiles.

        Args:
            path: of the picture; its suffix chooses the format (``.png``, ``.svg``, ``.pdf``).
            unit: what a score is, for the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        draw(self.rows, self.profiles, path, baseline=self.baseline, confidence=self.confidence, unit=unit)


def compare_runs(
    results: Mapping[str, Scores],
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare runs (by their confirmed episode returns) or algorithms (by the scores of many runs).

    Args:
        results: scores by name, each ``[runs]``, an array ``[runs, tasks]``, or a list with one vector per task. For
            single runs, give the returns of the confirmed episodes; the intervals then say nothing about other seeds
            of the same algorithm.
        baseline: the name to compare the others with; by default the first.
        confidence: of all intervals.
        resamples: without effect, as ``seed`` is: nothing is drawn. Kept for callers of release 0.1.
        seed: without effect.

    Raises:
        ConfigError: nothing to compare, or an unknown baseline.
        ValueError: empty, NaN or infinite scores, or different numbers of tasks.
    """
    del resamples, seed
    if not isinstance(results, Mapping):
        raise ConfigError('Give the runs by name, such as {"ppo": [1.0, 2.0], "dqn": [0.5, 1.5]}.')
    if not results:
        raise ConfigError("There is nothing to compare: give at least one run.")
    reference = next(iter(results)) if baseline is None else baseline
    if reference not in results:
        raise ConfigError(f"The baseline '{reference}' is none of {', '.join(results)}.")
    tasks = {name: as_tasks(scores) for name, scores in results.items()}
    pooled = np.concatenate([task for each in tasks.values() for task in each])
    room = 0.02 * (float(np.ptp(pooled)) or 1.0)  # so that every profile is seen to start at 1 and end at 0
    thresholds = np.linspace(pooled.min() - room, pooled.max() + room, 201)
    rows = [
        ComparisonRow(
            name=name,
            scores=sum(len(task) for task in scores),
            tasks=len(scores),
            mean=stratified_bootstrap(scores, mean, confidence=confidence),
            iqm=stratified_bootstrap(scores, iqm, confidence=confidence),
            improvement=(
                None
                if name == reference
                else probability_of_improvement(scores, tasks[reference], confidence=confidence)
            ),
        )
        for name, scores in tasks.items()
    ]
    profiles = {name: performance_profile(scores, thresholds, confidence=confidence) for name, scores in tasks.items()}
    return Comparison(rows=rows, baseline=reference, confidence=confidence, profiles=profiles)
