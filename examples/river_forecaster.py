"""An online forecaster without any deep-learning framework: a model of river is the agent, a series is the stream.

The forecaster learns until its error has settled. Then it is only watched, which costs nothing, until the series
changes: the loop notices, and lets it learn again.

    uv run --group examples python examples/river_forecaster.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from river import linear_model, optim

from optix_core import LivePipeline, LoopCallback, RLOptimizer
from optix_protocol import BaseEvaluator, EpisodeData, EvalMetrics, HyperparamSet


class Forecaster:
    """Foretells the next value of a series from the latest ones; learns value by value."""

    def __init__(self, learning_rate: float = 0.01) -> None:
        self.model = linear_model.LinearRegression(optimizer=optim.SGD(learning_rate))

    def act(self, observation):
        return np.float64(self.model.predict_one(dict(enumerate(observation))))

    def learn(self, episode_data: EpisodeData):
        for before, after in zip(episode_data.observations[:, 0], episode_data.next_observations[:, 0], strict=True):
            self.model.learn_one(dict(enumerate(before)), float(after[-1]))
        return {}

    def get_hyperparams(self):
        return HyperparamSet(params={})

    def set_hyperparams(self, hyperparams):
        """Nothing can be changed."""

    def save_weights(self, path):
        Path(path).write_text(json.dumps([list(self.model.weights.items()), self.model.intercept]))

    def load_weights(self, path):
        weights, self.model.intercept = json.loads(Path(path).read_text())
        self.model.weights.update((int(lag), weight) for lag, weight in weights)


class ForecastError(BaseEvaluator):
    """The mean absolute error of the forecasts of a window, with its sign changed."""

    def score(self, episode_data: EpisodeData, train_diagnostics):
        truth = episode_data.next_observations[:, 0, -1]
        return EvalMetrics(primary_score=-float(np.abs(truth - episode_data.actions[:, 0]).mean()))


class Series:
    """A swinging series, autoregressive with noise, whose pitch changes."""

    def __init__(self, length: int = 20_000, change_at: int = 10_000, seed: int = 0) -> None:
        self.length, self.change_at, self.seed = length, change_at, seed

    def stream(self) -> Iterator[tuple]:
        rng = np.random.default_rng(self.seed)
        values = np.zeros(3)
        for t in range(self.length):
            law = (0.0, -0.95, 1.6) if t < self.change_at else (0.0, -0.95, 0.5)
            values = np.append(values[1:], values @ law + rng.normal(0, 0.1))
            yield values, 0.0, False, False, {}


class Diary(LoopCallback):
    """Keeps the scores of all windows, and how often the forecaster was put to sleep."""

    def __init__(self) -> None:
        self.scores, self.times_asleep = [], 0

    def on_window(self, progress, eval_metrics, diagnostics):
        self.scores.append(eval_metrics.primary_score)

    def on_dormant(self, episode_id):
        self.times_asleep += 1


def main(length: int = 20_000, change_at: int = 10_000) -> tuple[Diary, int]:
    """Return the diary of the run, and how often the forecaster was woken."""
    diary = Diary()
    optimizer = RLOptimizer(
        Forecaster(),
        LivePipeline(Series(length, change_at), window_size=25),
        evaluator=ForecastError(),
        callbacks=diary,
        watch=True,
        margin=0.02,  # of error: for less, nobody would wait
        baseline=-0.3,  # the score of who always foretells 0
    )
    optimizer.run()
    return diary, optimizer.scheduler.num_alarms


if __name__ == "__main__":
    diary, alarms = main()
    scores, half = diary.scores, len(diary.scores) // 2
    print(f"fell asleep {diary.times_asleep} times, was woken {alarms} times")
    for name, part in (("before", scores[half - 20 : half]), ("at", scores[half : half + 4]), ("after", scores[-20:])):
        print(f"mean error {name} the change: {-np.mean(part):.3f}")
