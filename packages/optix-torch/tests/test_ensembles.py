"""Networks that run together compute what each computes alone, on every path."""

import pytest
import torch
from torch import nn

from optix_torch import _ensembles
from optix_torch._ensembles import DenseEnsemble, ModuleEnsemble, has_bf16, interleaved, make_ensemble
from optix_torch._module_optimizer import ModuleOptimizer
from optix_torch._optimizers import FlatParameters, FusedAdam
from optix_torch.networks import dense_layers

CPU = torch.device("cpu")


def make_networks(count=2, activation=nn.ReLU, last=()):
    torch.manual_seed(0)
    networks = [
        nn.Sequential(nn.Linear(5, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 3), *last)
        for _ in range(count)
    ]
    return networks, FlatParameters(interleaved(networks))


def batched(networks):
    return DenseEnsemble([_ensembles._BatchedChain([dense_layers(n) for n in networks], torch.float32)])


def judge(ensemble, flat):
    """Outputs, parameter gradients and the gradient of the second input."""
    generator = torch.Generator().manual_seed(1)
    observations, actions, gradient = (
        torch.randn(*shape, generator=generator)
        for shape in ((33, 3), (33, 2), (len(ensemble_outputs(ensemble)), 33, 3))
    )
    outputs = ensemble.forward(observations, actions)
    flat.gradient.fill_(float("nan"))  # gradients are written, not added
    ensemble.backward(gradient)
    parameters = flat.gradient.clone()
    ensemble.judge(observations, actions)
    inputs = ensemble.input_gradient(gradient)
    assert torch.equal(parameters, flat.gradient)  # the gradient of the inputs leaves those of the parameters alone
    torch.testing.assert_close(ensemble.infer(observations, actions), outputs)
    return outputs, parameters, inputs


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rows_of_zeros_add_nothing_to_the_gradient_of_the_inputs(share, monkeypatch):
    networks, _ = make_networks()
    observations, actions, gradient = torch.randn(33, 3), torch.randn(33, 2), torch.randn(2, 33, 3)
    mine = torch.rand(33, 1) < share
    gradient *= torch.stack([mine, ~mine])  # as of the smaller of two critics
    ensemble = make_ensemble(networks, CPU)
    ensemble.forward(observations, actions)
    everything = ensemble.input_gradient(gradient)
    monkeypatch.setattr(_ensembles, "_WORTH_SELECTING", 0)
    torch.testing.assert_close(ensemble.input_gradient(gradient), everything)


def ensemble_outputs(ensemble):
    return ensemble.infer(torch.zeros(1, 3), torch.zeros(1, 2))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("activation", "last"), [(nn.ReLU, ()), (nn.Tanh, (nn.Tanh(),))])
@pytest.mark.parametrize("kind", ["onednn", "no onednn", "batched"])
def test_kernels_compute_what_autograd_computes(kind, activation, last, count, monkeypatch):
    networks, flat = make_networks(count, activation, last)
    expected = judge(ModuleEnsemble(networks, CPU, torch.float32), flat)
    monkeypatch.setattr(_ensembles, "_WORTH_ONEDNN", 0)
    if kind != "onednn":
        monkeypatch.setattr(_ensembles, "_ONEDNN_LINEAR", None)
    ensemble = batched(networks) if kind == "batched" else make_ensemble(networks, CPU)
    assert type(ensemble) is DenseEnsemble
    for found, wanted in zip(judge(ensemble, flat), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16 arithmetic")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_bf16_is_close_and_everything_outside_is_float32(activation):
    networks, flat = make_networks(activation=activation)
    expected = judge(make_ensemble(networks, CPU), flat)
    found = judge(make_ensemble(networks, CPU, "bf16"), flat)
    for rough, exact in zip(found, expected, strict=True):
        assert rough.dtype == torch.float32
        assert 0 < (rough - exact).norm() / exact.norm() < 0.05


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(_ensembles, "has_bf16", lambda: False)
    with pytest.raises(ValueError, match="precision='fp32'"):
        make_ensemble(make_networks()[0], CPU, "bf16")


def test_modules_of_one_s_own_get_their_inputs_apart():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.see, self.judge = nn.Linear(3, 4), nn.Linear(4 + 2, 3)

        def forward(self, observations, actions):
            return self.judge(torch.cat([torch.tanh(self.see(observations)), actions], 1))

    critics = [Critic(), Critic()]
    flat = FlatParameters(interleaved(critics))
    outputs, parameters, inputs = judge(make_ensemble(critics, CPU), flat)
    assert outputs.shape == (2, 33, 3)
    assert inputs.shape == (33, 2)
    assert parameters.isfinite().all()


def test_fused_adam_takes_the_steps_of_torch_s_adam_and_resumes():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    flat = FlatParameters(ours.parameters())
    adam, reference = FusedAdam(flat, learning_rate=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for step in range(20):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = torch.randn_like(other) * 10.0 ** (step % 5 - 3)
            mine.grad.copy_(other.grad)
        if step == 10:
            state = adam.state()
            adam = FusedAdam(flat, learning_rate=0.5)
            adam.restore(state)
        adam.step()
        reference.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=1e-6, rtol=1e-5)


def test_an_optimizer_of_one_s_own_can_take_turns():
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    flat = FlatParameters([*first.parameters(), *second.parameters()])
    flat.gradient.fill_(1.0)
    whole = torch.optim.Adam(first.parameters(), lr=0.1)
    turn = ModuleOptimizer(whole, extra=second.parameters(), only=second.parameters())
    before = flat.vector.clone()
    turn.step()
    torch.testing.assert_close(flat.vector - before, torch.tensor([0.0, 0.0, 0.0, -0.1, -0.1, -0.1]))
    assert all((parameter.grad == 1).all() for parameter in [*first.parameters(), *second.parameters()])
