"""The losses of models, beside what their formulas say; and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from optix_core import Optimizer
from optix_torch import MLAgent
from optix_torch._losses import contrastive, loss_function, vae

RNG = np.random.default_rng(0)


def test_named_losses_are_their_formulas():
    z, t = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))
    k, b = RNG.integers(0, 3, 6), RNG.integers(0, 2, (6, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    s = 1 / (1 + np.exp(-z))
    d = np.abs(z - t)
    expected = {
        "cross_entropy": (k, -np.log(p[range(6), k]).mean()),
        "bce": (b, -(b * np.log(s) + (1 - b) * np.log(1 - s)).mean()),
        "mse": (t, (d**2).mean()),
        "mae": (t, d.mean()),
        "huber": (t, np.where(d < 1, d**2 / 2, d - 0.5).mean()),
        "reconstruction": (t, (d**2).mean()),
    }
    for name, (targets, value) in expected.items():
        found = loss_function(name, nn.Identity())(torch.tensor(z), torch.tensor(targets)).item()
        assert found == pytest.approx(value, rel=1e-12), name


def test_the_bound_of_a_variational_autoencoder():
    x, r, m, v = (RNG.normal(size=(5, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2)))
    expected = (((x - r) ** 2).sum() / 2 - (1 + v - m**2 - np.exp(v)).sum() / 2) / 5
    assert vae(tuple(map(torch.tensor, (r, m, v))), torch.tensor(x)).item() == pytest.approx(expected, rel=1e-12)


def test_the_contrastive_loss_is_that_of_pairs():
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
    z = np.concatenate([a, b])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(6):
        similar = np.exp(z @ z[i] / 0.5)
        total -= np.log(similar[(i + 3) % 6] / (similar.sum() - similar[i]))
    assert contrastive(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(total / 6, rel=1e-12)


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_a_column_beside_a_vector_is_no_table(shape):
    outputs, targets = torch.arange(8.0)[:, None], torch.zeros(shape)
    assert loss_function("mse", nn.Identity())(outputs, targets).item() == pytest.approx(17.5)


def test_models_that_give_probabilities_have_the_same_loss_as_their_logits():
    z, k, b = torch.tensor(RNG.normal(size=(6, 3))), torch.tensor(RNG.integers(0, 3, 6)), torch.ones(6, 3)
    plain = nn.Identity()
    for last, name, targets in ((nn.Softmax(1), "cross_entropy", k), (nn.LogSoftmax(1), "cross_entropy", k),
                                (nn.Sigmoid(), "bce", b)):  # fmt: skip
        model = nn.Sequential(last)
        found = loss_function(name, model)(model(z), targets)
        torch.testing.assert_close(found, loss_function(name, plain)(z, targets), check_dtype=False)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8), nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp()), mean, log_variance


def circle(rows=600):
    angle = torch.rand(rows, 1, generator=torch.Generator().manual_seed(0)) * 6.28
    return torch.cat([torch.cos(angle + i) * 2 for i in range(8)], 1)


def test_a_variational_autoencoder_improves_and_stops_by_itself():
    torch.manual_seed(0)
    optimizer = Optimizer(VAE(), circle(), hyperparams={"learning_rate": 3e-3}, max_episodes=1_000)
    before = optimizer.evaluate()
    result = optimizer.run()
    after = optimizer.evaluate()
    assert optimizer.agent.loss == "vae" and result.stop_reason == "converged"
    assert after.primary_score == result.best_snapshot["score"] > before.primary_score + 5


def test_a_regression_improves_and_stops_by_itself():
    torch.manual_seed(0)
    x = torch.randn(500, 5)
    y = (x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2])).numpy()  # a vector beside one output
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = Optimizer(model, (x.numpy(), y), hyperparams={"learning_rate": 3e-3}, max_episodes=1_000)
    before = optimizer.evaluate().metrics["loss"]
    result = optimizer.run()
    assert optimizer.agent.loss == "mse" and result.stop_reason == "converged"
    assert optimizer.evaluate().metrics["loss"] < 0.4 * before


def test_two_views_learn_to_be_alike():
    x = circle(200)
    noise = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(1)) * 0.1
    agent = MLAgent(nn.Linear(8, 4), loss="contrastive", learning_rate=0.01)
    optimizer = Optimizer(agent, (x + noise[0], x + noise[1]), max_episodes=10)
    before = optimizer.evaluate().metrics["loss"]
    optimizer.run()
    assert optimizer.evaluate().metrics["loss"] < before


def test_a_loss_of_the_users_own_and_what_act_says():
    x = torch.randn(300, 3)
    y = (x[:, 0] > 0).float()
    agent = MLAgent(nn.Linear(3, 1), loss="bce", learning_rate=0.1)
    Optimizer(agent, (x, y), max_episodes=10).run()
    assert (agent.act(x.numpy())[:, 0] == y.numpy()).mean() > 0.95 and agent.act(x[0].numpy()).shape == (1,)
    own = Optimizer(
        nn.Linear(3, 1), (x, x[:, :1]), loss=lambda out, wanted: (out - wanted).abs().mean(), max_episodes=3
    )
    assert own.run().best_snapshot["score"] > -1.0
