"""Any module with a data set: the loop trains it, stops it, and leaves the best weights in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from optix_core import ConfigError, DatasetPipeline, Optimizer, RLOptimizer
from optix_torch import MLAgent


def two_classes(rows: int = 400) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 6, generator=generator)
    return TensorDataset(x, (x[:, :3].sum(1) > 0).long())


def classifier(seed: int = 0, *between: nn.Module) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), *between, nn.ReLU(), nn.Linear(16, 2))


def fingerprint(model: nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def test_the_model_holds_trained_weights_when_the_run_has_stopped_itself():
    data, model = two_classes(), classifier()
    agent = MLAgent(model, loss="cross_entropy", learning_rate=0.01)
    optimizer = RLOptimizer(agent, DatasetPipeline(data), max_env_steps=300_000)
    result = optimizer.run()
    assert result.stop_reason == "converged", result.why
    assert (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean() > 0.97
    held_out = optimizer.pipeline.evaluator(agent).measure()
    assert held_out.primary_score == result.best_snapshot["score"]


def test_what_a_budget_cuts_short_is_returned_trained_too():
    model, untrained = classifier(), fingerprint(classifier())
    optimizer = Optimizer(model, two_classes(), max_episodes=1)
    result = optimizer.run()
    assert fingerprint(model) != untrained
    assert optimizer.evaluate().primary_score == result.best_snapshot["score"] > -0.8


def test_a_model_that_overfits_is_stopped_and_given_back_at_its_best():
    torch.manual_seed(1)
    x, y = torch.randn(60, 20), torch.randint(0, 2, (60,))
    x[:, 0] += y  # a little to learn, much to learn by heart
    model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 2))
    val = TensorDataset(x[40:], y[40:])
    scores = []
    pipeline = DatasetPipeline(TensorDataset(x[:40], y[:40]), val_data=val, batch_size=8)
    agent = MLAgent(model, loss="cross_entropy", learning_rate=0.01)

    from optix_core import LoopCallback

    class Listens(LoopCallback):
        def on_episode_end(self, episode_id, eval_metrics):
            scores.append(eval_metrics.primary_score)

    result = RLOptimizer(agent, pipeline, callbacks=Listens(), max_episodes=1_000).run()
    assert result.stop_reason == "converged" and result.train_env_steps < 400 * 40
    assert scores[-1] < max(scores) - 0.1
    assert pipeline.evaluator(agent).measure().primary_score == max(scores)


def test_the_untrained_policy_of_a_zero_score_is_never_what_comes_back():
    """The score is the held-out loss, which falls; a run whose score is always 0 would give back the beginning."""
    optimizer = Optimizer(classifier(), two_classes(), max_episodes=12)
    best = optimizer.run().best_snapshot
    assert best["train_env_steps"] > 0 and best["score"] > -0.6


@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader", "dict"])
def test_every_form_of_a_data_set_gives_the_same_batches(kind):
    whole = two_classes(100)
    x, y = whole.tensors

    class Rows(Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, number):
            return x[number], y[number]

    forms = {
        "arrays": (x.numpy(), y.numpy()),
        "dataset": Rows(),
        "loader": DataLoader(Rows(), batch_size=16, shuffle=True),
        "dict": {"x": x, "y": y},
    }
    expected = trained(whole, batch_size=16)
    assert trained(forms[kind], batch_size=16) == expected


def trained(data, **settings) -> bytes:
    model = classifier()
    Optimizer(model, data, loss="cross_entropy", max_episodes=3, **settings).run()
    return fingerprint(model)


def test_held_out_rows_are_never_learned_from():
    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.learned, self.judged = classifier(), set(), set()

        def forward(self, x):
            (self.learned if self.training else self.judged).update(x[:, 0].tolist())
            return self.inner(x)

    model = Spy()
    pipeline = DatasetPipeline(two_classes(), val_fraction=0.25)
    RLOptimizer(MLAgent(model, loss="cross_entropy"), pipeline, max_episodes=3).run()
    assert len(model.learned) == 300 and len(model.judged - model.learned) >= 100
    held_out = {x for batch in pipeline.held_out_batches() for x in batch[0][:, 0].tolist()}
    assert len(held_out) == 100 and not held_out & model.learned


def test_dropout_and_batch_statistics_learn_in_train_mode_and_are_judged_in_eval_mode():
    model = classifier(0, nn.BatchNorm1d(16), nn.Dropout(0.5))
    pipeline = DatasetPipeline(two_classes())
    agent = MLAgent(model, loss="cross_entropy")
    before = model[1].running_mean.clone()
    RLOptimizer(agent, pipeline, max_episodes=5).run()
    assert not torch.equal(model[1].running_mean, before)
    statistics = model[1].running_mean.clone()
    first, second = (pipeline.evaluator(agent).measure().primary_score for _ in range(2))
    assert first == second and torch.equal(model[1].running_mean, statistics)
    assert model.training  # in the mode in which it came


def test_no_batch_is_a_single_row_which_has_no_statistics():
    data = two_classes(81)  # 65 to learn from: a batch of 64, and one of a single row
    Optimizer(classifier(0, nn.BatchNorm1d(16)), data, batch_size=64, max_episodes=1).run()
    sizes = [len(batch[0]) for batch in next(DatasetPipeline(data, MLAgent(classifier())).windows()).batches]
    assert sizes == [32, 33]


def test_a_seed_drives_dropout_and_leaves_the_global_generator_alone():
    def run(seed):
        model = classifier(0, nn.Dropout(0.5))
        torch.manual_seed(7)
        Optimizer(model, two_classes(), seed=seed, max_episodes=2).run()
        return fingerprint(model), torch.rand(1).item()

    assert run(1) == run(1) != run(2)
    torch.manual_seed(7)
    expected = torch.rand(1).item()
    assert run(1)[1] == expected


def test_a_metric_takes_the_place_of_the_loss():
    seen = []

    def accuracy(outputs, targets):
        seen.append(len(targets))
        return (outputs.argmax(1) == targets).float().mean()

    optimizer = Optimizer(classifier(), two_classes(), metric=accuracy, max_episodes=10)
    result = optimizer.run()
    assert 0.5 < result.best_snapshot["score"] <= 1.0 and set(seen) == {80}
    assert optimizer.evaluate().metrics["loss"] > 0


@pytest.mark.parametrize(
    ("data", "model", "settings", "told"),
    [
        ((np.zeros((0, 6)), np.zeros(0)), None, {}, "empty"),
        ((np.zeros((9, 6)), np.zeros(8)), None, {}, "8, 9 rows"),
        ((np.zeros((9, 6), np.float32), np.full(9, 3)), nn.Linear(6, 5), {}, "All targets are 3"),
        ((np.zeros((9, 6), np.float32), np.arange(9)), nn.Linear(6, 5), {}, "0 to 8, and the model has 5 outputs"),
        ((np.zeros((9, 7), np.float32), np.arange(9) % 2), None, {}, "cannot be run on inputs"),
        ((np.zeros((9, 6), np.float32), np.arange(9.0)), None, {"loss": "cross_entropy"}, "whole numbers"),
        (two_classes(), None, {"loss": "crossentropy"}, "Did you mean 'cross_entropy'"),
        ((np.zeros((9, 6), np.float32), np.arange(9.0)), nn.Linear(6, 1), {"loss": "bce"}, "from 0 to 1"),
        ((np.zeros((9, 6), np.float32), np.arange(9)), nn.Linear(6, 1), {}, "loss='mse'"),
        (["a", "b"], None, {}, "give numbers"),
        ((np.zeros((9, 6), np.float32), np.arange(9) % 2), nn.ReLU(), {"loss": "mse"}, "one output for each"),
        (iter([1]), None, {"val_data": [1]}, "only once"),
    ],
)  # fmt: skip
def test_bad_data_is_told_in_a_line_or_two(data, model, settings, told):
    with pytest.raises(ConfigError, match=told) as error:
        Optimizer(model or classifier(), data, **settings).run()
    assert str(error.value).count("\n") <= 1
