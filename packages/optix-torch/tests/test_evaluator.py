from dataclasses import replace

import numpy as np
import pytest
import torch

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.agents.backends import make_agent
from optix_core.evaluation import ReturnEvaluator
from optix_protocol.conformance import example_case, make_window
from optix_torch import TorchEvaluator


class SharpeEvaluator(TorchEvaluator):
    def metric(self, rewards, episode_returns):
        if len(rewards) < 2:
            return None
        return 252**0.5 * rewards.mean() / rewards.std()


def test_scores_the_valid_rows_by_the_metric_and_reports_the_return_besides():
    data = make_window(example_case())
    rewards = np.where(data.valid, data.rewards, np.nan)
    daily = data.rewards[data.valid]
    metrics = SharpeEvaluator().score(replace(data, rewards=rewards), {})
    assert metrics.primary_score == pytest.approx(np.sqrt(252) * daily.mean() / daily.std(ddof=1))
    usual = ReturnEvaluator().score(data, {})
    assert metrics.metrics == {**usual.metrics, "return_mean": usual.primary_score}


def test_by_default_it_is_the_mean_return():
    data = make_window(example_case())
    assert TorchEvaluator().score(data, {}).primary_score == pytest.approx(data.episode_returns.mean())


def test_without_evidence_there_is_no_score():
    unfinished = make_window(example_case(), terminated=[], truncated=[])
    assert TorchEvaluator().score(unfinished, {}) is None
    assert SharpeEvaluator().score(unfinished, {}).metrics == {}
    single = make_window(example_case(), num_steps=1, num_envs=1, terminated=[], truncated=[])
    assert SharpeEvaluator().score(single, {}) is None
    nothing = replace(unfinished, valid=np.zeros_like(unfinished.valid))
    assert SharpeEvaluator().score(nothing, {}) is None


def test_metrics_see_double_precision_and_may_return_plain_numbers():
    seen = []

    class Spy(TorchEvaluator):
        def metric(self, rewards, episode_returns):
            seen.extend([rewards.dtype, episode_returns.dtype, rewards.requires_grad])
            return 3

    assert Spy().score(make_window(example_case()), {}).primary_score == 3.0
    assert seen == [torch.float64, torch.float64, False]


def test_drives_a_run():
    class Shortest(TorchEvaluator):
        """Falls over as soon as it can."""

        def metric(self, rewards, episode_returns):
            return -episode_returns.mean() if len(episode_returns) else None

    agent = make_agent("CartPole-v1", framework="torch", algorithm="ppo", seed=0, learning_rate=3e-3)
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=8, window_size=64, seed=0)
    budget = {"max_env_steps": 10_000, "confirm_episodes": 10}
    result = RLOptimizer(agent, pipeline, evaluator=Shortest(), **budget).run()
    assert result.confirmed_return["mean"] < 12
