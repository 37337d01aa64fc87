"""A chain of layers means what torch means: sharing, tying, freezing, hooks, parametrisations, subclasses."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from optix_core.errors import AgentError
from optix_torch.dueling import RainbowNetwork
from optix_torch.networks import AutogradRunner, DenseRunner, NoisyLinear

ALGORITHMS = ("ppo", "a2c", "dqn", "rainbow", "sac", "td3", "recurrent_ppo")


class Opaque(nn.Module):
    """The same computation in a form that no kernel knows."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs):
        return self.inner(torch.cat(inputs, 1))


class Scaled(nn.Linear):
    def forward(self, x):
        return 0.5 * super().forward(x)


def chain(num_inputs, num_outputs):
    return nn.Sequential(nn.Linear(num_inputs, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, num_outputs))


def networks_for(algorithm):
    torch.manual_seed(0)
    if algorithm == "rainbow":
        generator = torch.Generator().manual_seed(0)

        def stream(outputs):
            first, last = (NoisyLinear(4, size, std_init=0.5, generator=generator) for size in (4, outputs))
            return nn.Sequential(first, nn.ReLU(), last)

        torso = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        return {"q_network": RainbowNetwork(torso=torso, value=stream(5), advantage=stream(10), num_actions=2)}
    if algorithm == "dqn":
        return {"q_network": chain(4, 2)}
    if algorithm in ("sac", "td3"):
        critics = nn.ModuleList([chain(6, 1), chain(6, 1)])
        return {"actor": chain(4, 4 if algorithm == "sac" else 2), "critic": critics}
    if algorithm == "recurrent_ppo":
        encoder = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        return {"encoder": encoder, "cell": nn.GRUCell(4, 4), "actor": chain(4, 2), "critic": chain(4, 1)}
    return {"actor": chain(4, 2), "critic": chain(4, 1)}


def layers_of(networks):
    """The chains to change: of the first network, and of the one that learns beside it."""
    if "q_network" in networks:
        torso = getattr(networks["q_network"], "torso", networks["q_network"])
        return torso, torso
    critic = networks["critic"]
    return networks["actor"], critic[0] if isinstance(critic, nn.ModuleList) else critic


def nothing(first, second):
    pass


def share(first, second):
    second[2] = first[2]


def use_twice(first, second):
    first[2], first[3] = first[2], first[1]
    first.insert(2, first[2])


def tie(first, second):
    second[2].weight = first[2].weight


def freeze(first, second):
    first[0].requires_grad_(False)


def freeze_biases(first, second):
    for layer in (first[0], second[2]):
        layer.bias.requires_grad_(False)


def double(*arguments):
    return 2 * arguments[-1]


def hook_forward(first, second):
    first[2].register_forward_hook(double)


def hook_inputs(first, second):
    first[2].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def hook_backward(first, second):
    first[2].register_full_backward_hook(lambda module, inner, outer: (2 * inner[0],))


def hook_gradients(first, second):
    first[2].weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))


def hook_shared_gradients(first, second):
    share(first, second)
    hook_gradients(first, second)


def override_forward(first, second):
    first[2].forward = lambda x: x * 2


def normalise_weights(first, second):
    nn.utils.parametrizations.weight_norm(first[2])


def normalise_weights_by_hooks(first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(first[2])


def bound_weights(first, second):
    torch.manual_seed(1)
    nn.utils.parametrizations.spectral_norm(first[2]).eval()


def subclass(first, second):
    scaled = Scaled(4, 4)
    scaled.load_state_dict(first[2].state_dict())
    first[2] = scaled


CHANGES = [
    nothing,
    share,
    use_twice,
    tie,
    freeze,
    freeze_biases,
    hook_forward,
    hook_inputs,
    hook_backward,
    hook_gradients,
    hook_shared_gradients,
    normalise_weights,
    normalise_weights_by_hooks,
    bound_weights,
    subclass,
]
LATER = [freeze, freeze_biases, hook_forward, hook_inputs, hook_backward, hook_gradients, override_forward]


def opaque(networks):
    """The same modules, so that only autograd can run them."""
    wrapped = {name: module if name == "cell" else Opaque(module) for name, module in networks.items()}
    if isinstance(networks.get("critic"), nn.ModuleList):
        wrapped["critic"] = nn.ModuleList(map(Opaque, networks["critic"]))
    return wrapped


def parameters_of(networks):
    return list(dict.fromkeys(p for module in networks.values() for p in module.parameters()))


def assert_same_learning(ours, plain):
    for mine, other in zip(parameters_of(ours), parameters_of(plain), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_are_those_of_plain_autograd(tools, algorithm, change):
    ours, plain = networks_for(algorithm), networks_for(algorithm)
    for networks in (ours, plain):
        change(*layers_of(networks))
    before = [parameter.detach().clone() for parameter in parameters_of(ours)]
    for networks in (ours, opaque(plain)):
        optimizer = torch.optim.SGD(parameters_of(networks), lr=1e-3, weight_decay=0.1)
        tools.learn(algorithm, tools.build(algorithm, networks, optimizer=optimizer))
    assert_same_learning(ours, plain)
    moved = [bool((old != new).any()) for old, new in zip(before, parameters_of(ours), strict=True)]
    assert any(moved)
    assert not any(m for m, p in zip(moved, parameters_of(ours), strict=True) if not p.requires_grad)


@pytest.mark.parametrize("change", LATER, ids=lambda change: change.__name__)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_changes_while_a_run_goes_on_is_seen(tools, algorithm, change):
    ours, plain = networks_for(algorithm), networks_for(algorithm)
    agents = [tools.build(algorithm, networks) for networks in (ours, opaque(plain))]
    for agent in agents:
        tools.learn(algorithm, agent)
    for networks in (ours, plain):
        change(*layers_of(networks))
    frozen = {p: p.detach().clone() for p in parameters_of(ours) if not p.requires_grad}
    observations = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    outputs = [agent.networks.act(observations) for agent in agents]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    for agent in agents:
        tools.learn(algorithm, agent)
    assert_same_learning(ours, plain)
    assert all(torch.equal(parameter, value) for parameter, value in frozen.items())


def test_kernels_run_what_they_can_mean_and_nothing_else(tools):
    networks = networks_for("ppo")
    agent = tools.build("ppo", networks)
    assert isinstance(agent.networks.actor.chosen, DenseRunner)
    handle = networks["actor"][0].register_forward_hook(lambda *_: None)
    agent.act(np.zeros((1, 4), np.float32))
    assert isinstance(agent.networks.actor.chosen, AutogradRunner)
    handle.remove()
    tools.learn("ppo", agent)
    assert isinstance(agent.networks.actor.chosen, DenseRunner)


def test_a_hook_on_a_shared_layer_sees_the_sum_of_both_losses_once(tools):
    networks, seen = networks_for("ppo"), []
    share(*layers_of(networks))
    networks["actor"][2].weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    tools.learn("ppo", tools.build("ppo", networks))
    torch.testing.assert_close(seen, [networks["actor"][2].weight.grad])


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_an_update_after_a_frozen_time_counts_steps_as_torch_does(algorithm):
    from optix_torch._optimizers import Adam, FlatParameters, FusedAdam

    torch.manual_seed(0)
    ours, theirs = chain(3, 2), chain(3, 2)
    theirs.load_state_dict(ours.state_dict())
    flat = FlatParameters(ours.parameters())
    adam = (Adam if algorithm == "ppo" else FusedAdam)(flat, learning_rate=0.01, epsilon=1e-5)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    for step in range(12):
        for network in (ours, theirs):
            network[0].requires_grad_(4 <= step < 8)
            network[2].bias.requires_grad_(step != 6)
        flat.hold()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            gradient = torch.randn_like(other)
            mine.grad.copy_(gradient)
            other.grad = gradient if other.requires_grad else None
        if step == 9:
            state, adam = adam.state(), type(adam)(flat, learning_rate=0.5, epsilon=1e-5)
            adam.restore(state)
        adam.step()
        reference.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=1e-6, rtol=1e-5)


def test_gradients_that_were_dropped_and_weights_that_were_replaced_are_taken_back(tools):
    networks = networks_for("ppo")
    optimizer = torch.optim.Adam(parameters_of(networks), lr=0.01)
    agent = tools.build("ppo", networks, optimizer=optimizer)
    optimizer.zero_grad()  # sets every gradient to None
    networks["actor"][0].weight.data = torch.ones(4, 4)
    tools.learn("ppo", agent)
    moved = (networks["actor"][0].weight - 1).abs()
    assert 0 < moved.max() <= 0.011
    assert agent.training_state()["weights"]["actor.0.weight"] == pytest.approx(
        networks["actor"][0].weight.detach().numpy()
    )


@pytest.mark.parametrize("change", [bound_weights, normalise_weights, None])
def test_modules_with_other_parameters_than_before_are_refused_in_a_line(tools, change):
    networks = networks_for("dqn")
    agent = tools.build("dqn", networks)
    if change is None:
        networks["q_network"][2] = nn.Linear(4, 4)
    else:
        change(*layers_of(networks))
    with pytest.raises(AgentError, match=r"2\..*is new.*build the agent"):
        tools.learn("dqn", agent)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("change", [share, freeze, normalise_weights_by_hooks], ids=lambda change: change.__name__)
def test_changed_networks_resume_bit_for_bit_and_give_frozen_policies(tools, algorithm, change):
    def make():
        networks = networks_for(algorithm)
        change(*layers_of(networks))
        return tools.build(algorithm, networks)

    agent, other = make(), make()
    tools.learn(algorithm, agent)
    observations = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    policy = agent.make_policy("greedy", num_envs=3, seed=0)
    before = policy.act(observations)
    other.restore_training_state(agent.training_state())
    results = [each.learn(tools.window_for(algorithm, each, seed=1)) for each in (agent, other)]
    assert results[0] == results[1]
    for mine, restored in zip(agent._weights().values(), other._weights().values(), strict=True):
        np.testing.assert_array_equal(mine, restored)
    if algorithm != "recurrent_ppo":
        np.testing.assert_array_equal(policy.act(observations), before)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_the_twin_of_a_critic_keeps_what_is_frozen_and_draws_the_rest_anew(tools, algorithm):
    networks = networks_for(algorithm)
    critic = networks["critic"][0]
    critic[0].requires_grad_(False)
    nn.utils.parametrizations.weight_norm(critic[2])
    agent = tools.build(algorithm, networks | {"critic": critic})
    first, second = agent.critics
    assert torch.equal(first[0].weight, second[0].weight)
    assert not any((first[layer].weight == second[layer].weight).all() for layer in (2, 4))
