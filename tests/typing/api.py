"""The public forms of calls and subclasses, for the type checker alone: nothing here is ever executed.

    uv run mypy tests/typing

An argument or a return type that changes is seen here before it is seen by users.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import gymnasium as gym
import numpy as np

from optix_core import (
    BaseEvaluator,
    BatchPipeline,
    ConvergenceMonitor,
    LoopCallback,
    ReturnEvaluator,
    RLOptimizer,
    RunResult,
    VectorBatchPipeline,
    make_agent,
)
from optix_core.convergence import Assessment, MonitorSettings
from optix_core.journal import Entry, events, read_journal
from optix_protocol import BaseAgent, EpisodeData, EvalMetrics, HyperparamSet, capabilities_of
from optix_protocol.conformance import check_agent
from optix_protocol.testing import episodes_window, random_window


class Trader(BaseAgent):
    """The six methods, as users write them."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        return np.zeros(len(observation), np.int64)

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        return {"loss": float(episode_data.rewards.mean())}

    def get_hyperparams(self) -> HyperparamSet:
        return HyperparamSet(params={"learning_rate": 1e-3})

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        print(hyperparams["learning_rate"], dict(hyperparams))

    def save_weights(self, path: object) -> None: ...

    def load_weights(self, path: object) -> None: ...


class Sharpe(ReturnEvaluator):
    """A goal of one's own."""

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        return EvalMetrics(primary_score=float(episode_data.rewards.sum()))


class Print(LoopCallback):
    """A callback."""

    def on_episode_end(self, episode_id: int, metrics: EvalMetrics) -> None:
        print(episode_id, metrics.primary_score)


def train(folder: Path) -> None:
    agent = make_agent("CartPole-v1", seed=1, learning_rate=1e-3)
    assert_type(agent, BaseAgent)
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=8, window_size=128, seed=1)
    BatchPipeline(lambda: gym.make("CartPole-v1"), agent, n_steps=256)
    optimizer = RLOptimizer(agent, pipeline, evaluator=Sharpe(), checkpoint_dir=folder, max_env_steps=10_000)
    optimizer.add_callback(Print())
    result = optimizer.run()
    assert_type(result, RunResult)
    assert_type(capabilities_of(agent), frozenset[str])


def judge(scores: list[float]) -> bool:
    monitor = ConvergenceMonitor(MonitorSettings(margin=5.0), budget_env_steps=10_000)
    for step, score in enumerate(scores, start=1):
        assert_type(monitor.update(score, step * 100, episodes=3), Assessment)
    return monitor.assessment.should_stop


def read(folder: Path) -> list[float]:
    entries, problems = read_journal(folder / "events.jsonl")
    assert_type(entries, list[Entry])
    assert_type(problems, list[str])
    return [float(e.event.level) for e in entries if isinstance(e.event, events.Window)]


def check(observations: gym.Space[np.ndarray], actions: gym.Space[np.int64]) -> None:
    window = random_window(observations, actions, num_steps=8, num_envs=2, seed=3, terminated=[(1, 0)])
    assert_type(window, EpisodeData)
    evaluator: BaseEvaluator = Sharpe()
    assert_type(evaluator.score(episodes_window([1.0], [2]), {}), EvalMetrics | None)
    check_agent(Trader).raise_if_not_ok()
