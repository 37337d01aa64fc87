"""How far a variant is put from its parent: far where the run has stalled, near where it learns well."""

from __future__ import annotations


def adaptive_noise(
    trend: float, *, gap: float = 0.0, correlation: float = 1.0, low: float = 0.02, high: float = 0.2
) -> float:
    """Return the noise of a variant from three signals of validation.

    ``effective = trend (1 - 0.5 gap) (1 - 0.5 (1 - correlation))`` and ``noise = high - effective (high - low)``.

    Args:
        trend: how well the validation score rises, 0 (not at all) to 1; clipped.
        gap: how far training is ahead of validation, 0 to 1; clipped.
        correlation: of training and validation scores, 0 to 1; clipped.
        low: noise of a run that learns well, share of a range.
        high: noise of one that has stalled.
    """
    trend, gap, correlation = _unit(trend), _unit(gap), _unit(correlation)
    effective = trend * (1.0 - 0.5 * gap) * (1.0 - 0.5 * (1.0 - correlation))
    return high - effective * (high - low)


def noise_without_validation(base: float, improvement: float) -> float:
    """Return the noise of a variant where there is no validation: ``base / (1 + improvement)``.

    Args:
        base: noise of a run that has stalled, share of a range.
        improvement: of the score over its window, as a fraction of its range; below 0 counts as 0.
    """
    return base / (1.0 + max(0.0, improvement))


def _unit(value: float) -> float:
    return min(1.0, max(0.0, float(value)))
