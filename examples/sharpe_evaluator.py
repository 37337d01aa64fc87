"""A goal of one's own: a trader is kept and judged by its Sharpe ratio, and not by what it earns.

uv run python examples/sharpe_evaluator.py
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_core import ReturnEvaluator, RLOptimizer, RunResult, VectorBatchPipeline, make_agent
from optix_protocol import EvalMetrics


class Market(gym.Env):
    """A price that goes back to its mean: short, flat or long for a day, 250 days an episode."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.day, self.distance = 0, self.np_random.normal(0, 0.02)
        return self._seen(), {}

    def step(self, action):
        change = -0.1 * self.distance + self.np_random.normal(0, 0.01)
        self.distance += change
        self.day += 1
        return self._seen(), (int(action) - 1) * change, False, self.day == 250, {}

    def _seen(self):
        return np.array([self.distance / 0.02], np.float32)


class SharpeEvaluator(ReturnEvaluator):
    """Mean of the daily gains in their standard deviations, per year of 250 days."""

    def score(self, episode_data, train_diagnostics):
        daily = episode_data.flat(episode_data.rewards).astype(np.float64)
        if len(daily) < 2 or daily.std() == 0:
            return None
        sharpe = np.sqrt(250) * daily.mean() / daily.std(ddof=1)
        return EvalMetrics(primary_score=float(sharpe), metrics={"days": len(daily)})


def main(max_env_steps: int = 100_000) -> RunResult:
    """Train; the score of the best snapshot is a Sharpe ratio."""
    agent = make_agent("PPO", Market, hidden_sizes=(16,), gamma=0.0, minibatch_size=250)
    pipeline = VectorBatchPipeline(Market, n_envs=8, window_size=250)
    return RLOptimizer(
        agent, pipeline, evaluator=SharpeEvaluator(), max_env_steps=max_env_steps, confirm_episodes=10
    ).run()


if __name__ == "__main__":
    result = main()
    print(f"{result.why}\nbest Sharpe ratio {result.best_snapshot['score']:.2f}")
