"""Scores of windows, and an evaluator of one's own."""

from dataclasses import replace

import numpy as np
import pytest

from optix_core.evaluation import ReturnEvaluator
from optix_protocol import EvalMetrics
from optix_protocol.testing import episodes_window


def test_the_score_is_the_mean_return_of_finished_episodes():
    metrics = ReturnEvaluator().score(episodes_window([10.0, 20.0, 60.0], [1, 2, 6], rewards=[1.0] * 9), {})
    assert metrics.primary_score == 30.0
    assert metrics.metrics == {"episodes": 3.0, "return_std": pytest.approx(26.457513), "episode_length": 3.0}


def test_a_window_without_a_finished_episode_is_no_evidence():
    assert ReturnEvaluator().score(episodes_window(rewards=[1.0] * 9), {}) is None


def test_an_intrinsic_bonus_never_counts():
    data = episodes_window([5.0], [5], rewards=[1.0])
    bonus = replace(data, intrinsic_rewards=np.full((1, 1), 1e6))
    assert ReturnEvaluator().score(bonus, {}) == ReturnEvaluator().score(data, {})


def test_validation_wins_and_the_gap_is_training_minus_validation():
    train = EvalMetrics(primary_score=100.0, metrics={"episodes": 5.0})
    validation = EvalMetrics(primary_score=80.0, metrics={"episodes": 20.0}, episode_id=9)
    both = ReturnEvaluator().combine(train, validation)
    assert (both.primary_score, both.generalization_gap, both.episode_id) == (80.0, 20.0, 9)
    assert both.metrics == {"episodes": 20.0, "train_score": 100.0}
    assert ReturnEvaluator().combine(train, None) is train
    assert ReturnEvaluator().combine(None, validation) is validation
    assert ReturnEvaluator().combine(None, None) is None


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [(2, 1, 1), (1, 2, -1), (1, 1, 0), (1, np.nan, 1), (np.nan, -np.inf, -1), (np.nan, np.nan, 0), (np.inf, np.inf, 0)],
)
def test_compare(a, b, sign):
    difference = ReturnEvaluator().compare(EvalMetrics(primary_score=a), EvalMetrics(primary_score=b))
    assert np.sign(difference) == sign


def test_a_sharpe_ratio_takes_ten_lines():
    class SharpeEvaluator(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            daily = episode_data.flat(episode_data.rewards)
            if len(daily) < 2 or daily.std() == 0:
                return None
            sharpe = np.sqrt(252) * daily.mean() / daily.std(ddof=1)
            return EvalMetrics(primary_score=float(sharpe), metrics={"days": len(daily)})

    steady, wild = ([0.01, 0.02] * 10, [0.10, -0.07] * 10)
    scores = [SharpeEvaluator().score(episodes_window(rewards=days), {}) for days in (steady, wild)]
    assert scores[0].primary_score == pytest.approx(np.sqrt(252) * 0.015 / np.std(steady, ddof=1))
    assert SharpeEvaluator().compare(*scores) > 0
    assert SharpeEvaluator().score(episodes_window(rewards=[0.0] * 5), {}) is None
