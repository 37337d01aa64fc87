"""Tiny networks that learn in NumPy learn what they would learn in torch."""

import numpy as np
import pytest
import torch
from torch import nn

from optix_core.pipelines import VectorBatchPipeline
from optix_core.testing.masked import MaskedChoice
from optix_torch import TorchDQNAgent
from optix_torch._host import MOST_PRODUCTS
from optix_torch.networks import AutogradRunner, DenseRunner, dense_runner

CPU = torch.device("cpu")


def chain(activation, num_inputs=32, num_outputs=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(num_inputs, 8), activation(), nn.Linear(8, 5), activation(), nn.Linear(5, num_outputs)
    )


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_outputs_and_gradients_are_torchs(activation):
    network = chain(activation)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    host = dense_runner(network, CPU).on_host()
    x, gradient = torch.randn(7, 32), torch.randn(7, 16)
    expected = network(x)
    np.testing.assert_allclose(host.forward(x.numpy()), expected.detach().numpy(), atol=1e-6)
    wanted = torch.autograd.grad((expected * gradient).sum(), list(network.parameters()))
    host.infer(torch.randn(3, 32).numpy())  # forgets nothing
    host.backward(gradient.numpy().copy())
    for parameter, its in zip(network.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, its, atol=1e-6, rtol=1e-5)


class Opaque(nn.Module):
    """The same computation in a form that no kernel knows."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    "settings", [{}, {"double_q": False}, {"per_alpha": 0.6}, {"n_step": 3, "max_grad_norm": 0.01, "tau": 0.5}]
)
@pytest.mark.parametrize("tell", ["info", None])
def test_an_agent_learns_the_same_in_numpy_and_by_autograd(settings, tell):
    agents = []
    for wrap in (lambda network: network, Opaque):
        options = {"learning_starts": 40, "capacity": 500, "target_update_interval": 5, **settings}
        space = MaskedChoice(start=3)
        agent = TorchDQNAgent(
            q_network=wrap(chain(nn.ReLU)),
            observation_space=space.observation_space,
            action_space=space.action_space,
            hyperparams={"learning_rate": 1e-3, "batch_size": 32, "updates_per_step": 1.0, **options},
        )
        agents.append(agent)
    pipeline = VectorBatchPipeline(lambda: MaskedChoice(start=3, tell=tell), agents[0], n_envs=2, window_size=10)
    for _ in range(4):
        window = pipeline.collect()
        first, second = (agent.learn(window) for agent in agents)
        assert first == pytest.approx(second, rel=1e-3, abs=1e-5)
    assert isinstance(agents[0]._runner.chosen, DenseRunner) and agents[0]._runner.host is not None
    assert isinstance(agents[1]._runner.chosen, AutogradRunner) and agents[1]._runner.host is None
    for one, other in zip(agents[0].q_network.parameters(), agents[1].q_network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_many_rows_and_what_no_kernel_means_are_left_to_torch():
    network = chain(nn.ReLU)
    agent = TorchDQNAgent(q_network=network)
    host = agent._runner.host
    most = MOST_PRODUCTS // (32 * 8)
    assert host.is_sooner(most) and not host.is_sooner(most + 1)
    network[0].requires_grad_(False)
    agent._runner.choose()
    assert agent._runner.host is None
    wide = TorchDQNAgent(q_network=nn.Sequential(nn.Linear(4, 4000), nn.ReLU(), nn.Linear(4000, 2)))
    assert wide._runner.host is None
