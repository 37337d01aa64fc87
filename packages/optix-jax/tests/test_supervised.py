"""A Flax model learns from a data set, through the same pipeline and loop as one of torch."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from optix_core import ConfigError, DatasetPipeline, Optimizer, RLOptimizer
from optix_jax import MLAgent


class Classifier(nnx.Module):
    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(6, 16, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(16, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def rows(number=400):
    x = np.random.default_rng(0).normal(size=(number, 6)).astype(np.float32)
    return x, (x[:, :3].sum(1) > 0).astype(np.int64)


def weights(model):
    return np.asarray(model.last.kernel.get_value()).tobytes()


def test_the_model_holds_trained_weights_and_statistics_of_its_own():
    model, (x, y) = Classifier(), rows()
    optimizer = Optimizer(model, (x, y), max_episodes=20, hyperparams={"learning_rate": 0.01})
    result = optimizer.run()
    assert optimizer.agent.loss == "cross_entropy"
    model.eval()
    assert (np.asarray(model(x)).argmax(1) == y).mean() > 0.95
    assert optimizer.evaluate().primary_score == result.best_snapshot["score"]
    assert np.abs(np.asarray(model.norm.mean.get_value())).sum() > 0


@pytest.mark.slow
def test_a_run_that_was_cut_in_the_middle_of_an_epoch_goes_on_bit_for_bit(tmp_path):
    def run(directory, epochs, **settings):
        model = Classifier()
        pipeline = DatasetPipeline(rows(128), batch_size=16, window_size=32)
        RLOptimizer(
            MLAgent(model, loss="cross_entropy"), pipeline, max_env_steps=epochs, checkpoint_dir=directory, **settings
        ).run()
        return weights(model)

    expected = run(tmp_path / "whole", 256)
    run(tmp_path / "cut", 150)
    assert run(tmp_path / "cut", 256, resume=True) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "y"), [("mse", 1), ("mae", 1), ("huber", 1), ("bce", 0)])
def test_losses_fall(loss, y):
    x, labels = rows(128)
    targets = labels if y == 0 else x[:, 0]
    model = nnx.Linear(6, 1, rngs=nnx.Rngs(0))
    optimizer = Optimizer(model, (x, targets), loss=loss, max_episodes=15, hyperparams={"learning_rate": 0.03})
    before = optimizer.evaluate().metrics["loss"]
    optimizer.run()
    assert optimizer.evaluate().metrics["loss"] < 0.8 * before


def test_a_model_that_does_not_fit_is_told_in_a_line():
    with pytest.raises(ConfigError, match="cannot be run on inputs"):
        Optimizer(Classifier(), (np.zeros((9, 5), np.float32), np.arange(9) % 2))
