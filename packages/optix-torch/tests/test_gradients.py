"""The hand-written gradients are those of autograd, for every kind of action and network."""

import numpy as np
import pytest
import torch
from torch import nn

from optix_torch import distributions
from optix_torch._optimizers import Adam, FlatParameters
from optix_torch.algorithms.ppo import Batch, ppo_loss
from optix_torch.networks import AutogradRunner, DenseRunner, build_mlp, make_runner

CPU = torch.device("cpu")
SETTINGS = {"clip_range": 0.2, "entropy_coef": 0.03, "value_coef": 0.7, "clip_range_value": None}


def textbook_loss(log_probs, entropy, values, batch, settings):
    ratio = torch.exp(log_probs - batch.log_probs)
    clip = settings["clip_range"]
    surrogate = torch.min(ratio * batch.advantages, torch.clamp(ratio, 1 - clip, 1 + clip) * batch.advantages)
    if settings["clip_range_value"] is not None:
        limit = settings["clip_range_value"]
        values = batch.values + torch.clamp(values - batch.values, -limit, limit)
    value_loss = nn.functional.mse_loss(values, batch.returns)
    return -surrogate.mean() - settings["entropy_coef"] * entropy.mean() + settings["value_coef"] * value_loss


def torch_categorical(outputs, log_std):
    return torch.distributions.Categorical(logits=outputs)


def torch_gaussian(outputs, log_std):
    return torch.distributions.Independent(torch.distributions.Normal(outputs, log_std.exp()), 1)


@pytest.mark.parametrize("clip_range_value", [None, 0.3])
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_loss_and_its_gradient_equal_autograd_of_the_textbook_formula(kind, clip_range_value):
    torch.manual_seed(0)
    size, settings = 200, SETTINGS | {"clip_range_value": clip_range_value}
    outputs = torch.randn(size, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(size, dtype=torch.float64, requires_grad=True)
    log_std = nn.Parameter(0.3 * torch.randn(3, dtype=torch.float64))
    log_std.grad = torch.zeros_like(log_std)
    reference = {"categorical": torch_categorical, "gaussian": torch_gaussian}[kind](outputs, log_std)
    actions = reference.sample()
    log_probs = reference.log_prob(actions)
    batch = Batch(
        observations=torch.zeros(size, 1),
        actions=actions,
        log_probs=log_probs.detach() + 0.3 * torch.randn(size),
        values=values.detach() + 0.4 * torch.randn(size),
        advantages=torch.randn(size, dtype=torch.float64),
        returns=torch.randn(size, dtype=torch.float64),
    )
    expected = textbook_loss(log_probs, reference.entropy(), values, batch, settings)
    inputs = [outputs, values] + ([log_std] if kind == "gaussian" else [])
    d_expected = torch.autograd.grad(expected, inputs)

    unit = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    ours = distributions.Categorical() if kind == "categorical" else distributions.DiagonalGaussian(log_std, *unit)
    judged = ours.evaluate(outputs.detach(), actions)
    loss = ppo_loss(judged.log_probs, judged.entropies, values.detach(), batch, settings)
    total = loss.policy - settings["entropy_coef"] * loss.entropy + settings["value_coef"] * loss.value
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(judged.backward(loss.d_log_prob, loss.d_entropy), d_expected[0])
    torch.testing.assert_close(loss.d_value, d_expected[1])
    if kind == "gaussian":
        torch.testing.assert_close(log_std.grad, d_expected[2])
    assert 0.1 < loss.clip_fraction < 0.9  # both branches of the clip are exercised


def test_multi_categorical_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    outputs = torch.randn(50, 5, requires_grad=True)
    actions = torch.stack([torch.randint(0, 2, (50,)), torch.randint(10, 13, (50,))], 1)
    first, second = (torch.distributions.Categorical(logits=part) for part in outputs.split([2, 3], 1))
    log_probs = first.log_prob(actions[:, 0]) + second.log_prob(actions[:, 1] - 10)
    entropies = first.entropy() + second.entropy()
    d_log_prob = torch.randn(50)
    (expected,) = torch.autograd.grad((log_probs * d_log_prob).sum() + 0.3 * entropies.sum(), outputs)
    judged = distributions.MultiCategorical((2, 3), (0, 10)).evaluate(outputs.detach(), actions)
    torch.testing.assert_close(judged.log_probs, log_probs.detach())
    torch.testing.assert_close(judged.entropies, entropies.detach())
    torch.testing.assert_close(judged.backward(d_log_prob, 0.3), expected)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_switches_are_independent_bernoulli_variables(shape):
    torch.manual_seed(0)
    outputs = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    reference = torch.distributions.Bernoulli(logits=outputs)
    actions = reference.sample()
    log_probs, entropies = reference.log_prob(actions).sum(1), reference.entropy().sum(1)
    d_log_prob = torch.randn(50, dtype=torch.float64)
    (expected,) = torch.autograd.grad((log_probs * d_log_prob).sum() + 0.3 * entropies.sum(), outputs)
    judged = distributions.Bernoulli().evaluate(outputs.detach(), actions.to(torch.int8).reshape(50, *shape))
    torch.testing.assert_close(judged.log_probs, log_probs.detach())
    torch.testing.assert_close(judged.entropies, entropies.detach())
    torch.testing.assert_close(judged.backward(d_log_prob, 0.3), expected)


def test_one_number_without_an_axis_is_judged_row_by_row():
    log_std, unit = nn.Parameter(torch.zeros(1)), (torch.zeros(1), torch.ones(1))
    mean, actions = torch.randn(9, 1), torch.randn(9)
    judged = distributions.DiagonalGaussian(log_std, *unit).evaluate(mean, actions)
    torch.testing.assert_close(judged.log_probs, torch.distributions.Normal(mean[:, 0], 1.0).log_prob(actions))


def test_gaussian_densities_are_those_of_actions_in_units_of_the_range():
    log_std = nn.Parameter(torch.tensor([0.1, -0.4]))
    centre, scale = torch.tensor([0.0, 5.0]), torch.tensor([2.0, 0.5])
    mean, actions = torch.randn(9, 2), torch.randn(9, 2) * 3
    judged = distributions.DiagonalGaussian(log_std, centre, scale).evaluate(mean, actions)
    in_own_units = torch.distributions.Normal(centre + scale * mean, scale * log_std.detach().exp())
    expected = in_own_units.log_prob(actions).sum(1) + scale.log().sum()
    torch.testing.assert_close(judged.log_probs, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.Tanh()),
        lambda: nn.Sequential(nn.Linear(6, 3)),
    ],
)
def test_dense_kernels_compute_what_autograd_computes(make):
    torch.manual_seed(1)
    module = make()
    FlatParameters(module.parameters())
    kernel, reference = make_runner(module, CPU), AutogradRunner(module, CPU)
    assert type(kernel) is DenseRunner
    for size in (33, 1500, 33):
        x, gradient = torch.randn(size, 6), torch.randn(size, 3)
        torch.testing.assert_close(kernel.forward(x), reference.forward(x))
        reference.backward(gradient.clone())
        expected = [parameter.grad.clone() for parameter in module.parameters()]
        kernel.forward(x)
        kernel.backward(gradient.clone())
        for parameter, grad in zip(module.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, grad)
            parameter.grad.zero_()
        torch.testing.assert_close(kernel.infer(x), reference.infer(x))
        np.testing.assert_allclose(kernel.act(x.numpy()), reference.act(x.numpy()), rtol=1e-5, atol=1e-6)


def test_other_modules_go_through_autograd():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.inner(x)

    for module in (Residual(), nn.Sequential(Residual(), nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 4), nn.GELU())):
        FlatParameters(module.parameters())
        assert type(make_runner(module, CPU)) is AutogradRunner


def test_initial_weights_are_orthogonal_with_the_field_s_gains_and_leave_global_random_numbers_alone():
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    network = build_mlp(4, 2, hidden_sizes=(64, 64), activation="tanh", output_gain=0.01, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)
    first, second, last = (layer for layer in network if isinstance(layer, nn.Linear))
    torch.testing.assert_close(first.weight.T @ first.weight, 2 * torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(second.weight @ second.weight.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(last.weight @ last.weight.T, 1e-4 * torch.eye(2), atol=1e-8, rtol=0)
    assert all(not layer.bias.any() for layer in (first, second, last))


def test_gradient_clipping_scales_to_the_largest_norm():
    module = nn.Linear(3, 2)
    flat = FlatParameters(module.parameters())
    flat.gradient.fill_(2.0)
    norm = flat.clip_gradient_(0.5)
    assert norm.item() == pytest.approx(2.0 * 8**0.5)
    assert flat.gradient.norm().item() == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(module.weight.grad, flat.gradient[:6].view(2, 3))
    flat.gradient.fill_(0.01)
    flat.clip_gradient_(0.5)
    torch.testing.assert_close(flat.gradient, torch.full((8,), 0.01))


def test_adam_takes_the_steps_of_torch_s_adam():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    flat = FlatParameters(ours.parameters())
    adam, reference = Adam(flat, learning_rate=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    for step in range(20):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = torch.randn_like(other) * 10.0 ** (step % 5 - 3)
            mine.grad.copy_(other.grad)
        adam.step()
        reference.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=1e-6, rtol=1e-5)
