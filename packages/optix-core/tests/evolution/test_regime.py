"""Trending, ranging and volatile scores are told apart, at any scale."""

import numpy as np
import pytest

from optix_core import ConfigError, EvalMetrics, RegimeDetector

T = np.arange(60)


def history(scores):
    return [EvalMetrics(primary_score=float(v), metrics={}, episode_id=i) for i, v in enumerate(scores)]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4, -1.0])
@pytest.mark.parametrize(
    ("regime", "curve"),
    [
        ("trending", lambda rng: 100 + 2.0 * T + rng.normal(0, 1, 60)),
        ("trending", lambda rng: 100 + 0.5 * T + rng.normal(0, 5, 60)),
        ("ranging", lambda rng: 100 + rng.normal(0, 1, 60)),
        ("volatile", lambda rng: 100 + rng.normal(0, 80, 60)),
    ],
)
def test_regimes_are_told_apart(regime, curve, scale):
    for seed in range(10):
        scores = scale * curve(np.random.default_rng(seed))
        assert RegimeDetector().detect(history(scores)) == regime


def test_autocorrelated_scores_without_a_trend_are_seldom_trending():
    trending = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).normal(0, 5, 160)
        for t in range(1, 160):
            noise[t] += 0.5 * noise[t - 1]
        trending += RegimeDetector().detect(100 + noise[100:]) == "trending"
    assert trending <= 9


def test_few_scores_and_scores_that_are_not_finite_say_nothing():
    detector = RegimeDetector()
    assert detector.detect([]) == "ranging"
    assert detector.detect([1.0, 100.0, -50.0]) == "ranging"
    assert detector.detect([np.nan] * 50 + [100.0 + 0.01 * (-1) ** t for t in range(20)]) == "ranging"
    assert detector.detect([0.0] * 30) == "ranging"


def test_only_the_newest_scores_count():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 80, 100), 100 + rng.normal(0, 1, 60)])
    assert RegimeDetector().detect(scores) == "ranging"
    assert RegimeDetector(window=160).detect(scores) == "volatile"


@pytest.mark.parametrize("bad", [{"window": 3}, {"volatile_above": 0.0}, {"alpha": 0.7}, {"least": 2}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError):
        RegimeDetector(**bad)
