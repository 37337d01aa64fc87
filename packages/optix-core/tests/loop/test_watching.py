"""A run that watches: it lets a settled policy be, and lets it learn again when the world has changed."""

from __future__ import annotations

import numpy as np

from optix_core import LivePipeline, LoopCallback, LoopState, RLOptimizer
from optix_core.journal import events, read_journal
from optix_core.reporting.replay import replay_decisions
from optix_protocol import BaseEvaluator, EvalMetrics, HyperparamSet


class Level:
    """Foretells a number by a running mean of what it has seen; reward is the negative error."""

    def __init__(self):
        self.mean, self.learned_from = 5.0, []

    def act(self, observation):
        return np.float64(self.mean)

    def learn(self, episode_data):
        self.learned_from.append(episode_data.episode_id)
        for value in episode_data.next_observations[:, 0, 0]:
            self.mean += 0.02 * (float(value) - self.mean)
        return {}

    def get_hyperparams(self):
        return HyperparamSet(params={})

    def set_hyperparams(self, hyperparams):
        pass

    def save_weights(self, path):
        np.savez(open(path, "wb"), mean=self.mean)  # noqa: SIM115

    def load_weights(self, path):
        self.mean = float(np.load(path)["mean"])


class World:
    """A noisy level that jumps."""

    def __init__(self, change_at, length):
        self.change_at, self.length, self.guess = change_at, length, 5.0

    def stream(self):
        rng = np.random.default_rng(0)
        for t in range(self.length):
            value = (0.0 if t < self.change_at else 3.0) + rng.normal(0, 0.1)
            yield [value], -abs(value - self.guess), False, False, {}

    def send_action(self, action):
        self.guess = float(action)


class MeanReward(BaseEvaluator):
    def score(self, episode_data, train_diagnostics):
        return EvalMetrics(primary_score=float(episode_data.rewards.mean()))


class States(LoopCallback):
    def __init__(self):
        self.dormant = 0

    def on_dormant(self, episode_id):
        self.dormant += 1


def test_the_loop_wakes_when_the_world_changes_and_learns_it(tmp_path):
    agent, heard = Level(), States()
    pipeline = LivePipeline(
        World(change_at=6_000, length=12_000),
        episode_boundary_fn=LivePipeline.every_n_steps(16), window_size=16,
    )  # fmt: skip
    optimizer = RLOptimizer(
        agent, pipeline, evaluator=MeanReward(), watch=True, callbacks=heard, checkpoint_dir=tmp_path / "run"
    )
    result = optimizer.run()
    assert result.stop_reason == "source_exhausted" and abs(agent.mean - 3.0) < 0.2
    assert heard.dormant == 2 and optimizer.state in (LoopState.WATCHDOG, LoopState.DORMANT)
    journal = read_journal(tmp_path / "run" / "events.jsonl")[0]
    windows = [entry.event for entry in journal if isinstance(entry.event, events.Window)]
    asleep = [window.evidence.num_env_steps for window in windows if window.decision.action == "watch"]
    before, after = [t for t in asleep if t <= 6_000], [t for t in asleep if t > 6_000]
    assert len(before) > 50, "it settled, and was left alone"
    woke = min(t for t in (w.evidence.num_env_steps for w in windows if w.decision.learn) if t > 6_000)
    assert woke - 6_000 <= 10 * 16, "a jump of thirty deviations is noticed at once"
    assert after and max(after) > 10_000
    assert len(agent.learned_from) < 0.7 * len(windows)
    assert replay_decisions(journal).identical


def test_without_watching_such_a_run_ends():
    pipeline = LivePipeline(World(10**6, 12_000), episode_boundary_fn=LivePipeline.every_n_steps(16), window_size=16)
    assert RLOptimizer(Level(), pipeline, evaluator=MeanReward()).run().stop_reason == "converged"
