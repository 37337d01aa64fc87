"""A user's own optimiser keeps its groups, their rates and its scope, and may have a scheduler."""

import numpy as np
import pytest
import torch
from torch import nn

from optix_core.errors import AgentError, ConfigError
from optix_protocol import HyperparamSet


def chain(num_inputs, num_outputs):
    return nn.Sequential(nn.Linear(num_inputs, 4), nn.Tanh(), nn.Linear(4, num_outputs))


def networks():
    torch.manual_seed(0)
    return {"actor": chain(4, 2), "critic": chain(4, 1)}


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def make(tools, kind=torch.optim.Adam, **options):
    parts = networks()
    groups = [{"params": parts["actor"].parameters(), "lr": 1e-4}, {"params": parts["critic"].parameters(), "lr": 1e-2}]
    optimizer = kind(groups, **options)
    return tools.build("ppo", parts, optimizer=optimizer), optimizer, parts


def test_every_group_keeps_its_rate_and_a_new_rate_scales_all(tools):
    agent, optimizer, parts = make(tools)
    assert rates(optimizer) == [1e-4, 1e-2]
    before = [part[0].weight.detach().clone() for part in parts.values()]
    tools.learn("ppo", agent)
    moved = [(part[0].weight - old).abs().max().item() for part, old in zip(parts.values(), before, strict=True)]
    assert moved == pytest.approx([1e-4, 1e-2], rel=0.01)  # the first step of Adam is as long as the rate
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 5e-5}))
    assert rates(optimizer) == pytest.approx([5e-5, 5e-3])
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 0.0}))
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 1e-4}))
    assert rates(optimizer) == pytest.approx([1e-4, 1e-2])


def test_the_adaptive_rate_scales_all_groups(tools):
    agent, optimizer, _ = make(tools)
    agent.set_hyperparams(HyperparamSet(params={"adaptive_kl": 10.0}))
    tools.learn("ppo", agent)
    assert rates(optimizer) == pytest.approx([1.5e-4, 1.5e-2])


def test_a_scheduler_s_steps_are_seen_and_resumed(tools):
    agent, optimizer, _ = make(tools)
    tools.learn("ppo", agent)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5**step, lambda step: 0.1**step])
    schedule.step()
    assert agent.learn(tools.window_for("ppo", agent))["learning_rate"] == 5e-5
    assert agent.get_hyperparams().params["learning_rate"] == 5e-5
    agent.set_hyperparams(agent.get_hyperparams())
    assert rates(optimizer) == pytest.approx([5e-5, 1e-3])
    schedule.step()
    state = agent.training_state()
    other, restored, _ = make(tools)
    other.restore_training_state(state)
    assert rates(restored) == rates(optimizer)
    assert other.get_hyperparams().params == agent.get_hyperparams().params


def test_a_rate_that_is_a_tensor_stays_one(tools):
    parts = networks()
    every = [p for part in parts.values() for p in part.parameters()]
    optimizer = torch.optim.Adam(every, lr=torch.tensor(1e-3), capturable=False, foreach=False)
    rate = optimizer.param_groups[0]["lr"]
    agent = tools.build("ppo", parts, optimizer=optimizer)
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 2e-3}))
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(2e-3)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "sac", "recurrent_ppo"])
def test_an_optimiser_that_needs_a_closure_is_refused_in_a_line(tools, algorithm):
    parts = {
        "ppo": networks,
        "dqn": lambda: {"q_network": chain(4, 2)},
        "sac": lambda: {"actor": chain(4, 4), "critic": chain(6, 1)},
        "recurrent_ppo": lambda: {"encoder": nn.Identity(), "cell": nn.GRUCell(4, 4), **networks()},
    }[algorithm]()
    with pytest.raises(ConfigError, match="LBFGS needs a closure"):
        tools.build(algorithm, parts, optimizer=torch.optim.LBFGS(list(parts.values())[-1].parameters()))


def test_an_optimiser_that_turns_out_to_need_a_closure_is_named(tools):
    class Sharp(torch.optim.SGD):
        def step(self, closure=None):
            assert closure is not None, "needs a closure"

    agent, _, _ = make(tools, Sharp)
    with pytest.raises(AgentError, match=r"Sharp\.step\(\) without a closure fails"):
        tools.learn("ppo", agent)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_parameters_that_the_optimiser_leaves_out_stay(tools, algorithm):
    parts = networks() if algorithm == "ppo" else {"actor": chain(4, 4), "critic": chain(6, 1)}
    some = [*parts["actor"][2].parameters(), *parts["critic"][2].parameters()]
    left_out = [part[0].weight.detach().clone() for part in parts.values()]
    before = [parameter.detach().clone() for parameter in some]
    agent = tools.build(algorithm, parts, optimizer=torch.optim.AdamW(some, lr=1e-2, weight_decay=0.1))
    tools.learn(algorithm, agent)
    assert all(torch.equal(part[0].weight, old) for part, old in zip(parts.values(), left_out, strict=True))
    assert all((parameter != old).any() for parameter, old in zip(some, before, strict=True))
    if algorithm == "sac":  # the twin is optimised as its original is
        held = {id(p) for group in agent._optimizers["critic"]._optimizer.param_groups for p in group["params"]}
        assert [id(p) in held for p in agent.critics[1].parameters()] == [False, False, True, True]


def test_what_the_loss_never_reaches_is_not_moved_by_weight_decay(tools):
    class Unused(nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.used, self.unused = chain(4, outputs), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    parts = {"actor": Unused(2), "critic": Unused(1)}
    before = parts["actor"].unused.weight.detach().clone()
    every = [p for part in parts.values() for p in part.parameters()]
    agent = tools.build("ppo", parts, action_dim=2, optimizer=torch.optim.AdamW(every, lr=1e-2, weight_decay=0.1))
    tools.learn("ppo", agent)
    assert torch.equal(parts["actor"].unused.weight, before)


def test_an_optimiser_of_other_modules_is_refused_in_a_line(tools):
    parts = networks()
    optimizer = torch.optim.Adam([p for part in parts.values() for p in part.parameters()])
    parts["actor"][2] = nn.Linear(4, 2)  # after the optimiser was made
    with pytest.raises(ConfigError, match=r"misses actor\.2\.weight"):
        tools.build("ppo", parts, optimizer=optimizer)


def test_further_parameters_of_a_loss_of_one_s_own_get_only_this_loss_s_gradient(tools):
    parts, further = networks(), nn.Parameter(torch.zeros(2))
    every = [p for part in parts.values() for p in part.parameters()]
    optimizer = torch.optim.SGD([*every, further], lr=0.1)
    agent = tools.build("a2c", parts, optimizer=optimizer)
    plain = agent.loss
    agent.loss = lambda batch: {**plain(batch), "loss": plain(batch)["loss"] + further.sum()}
    for _ in range(3):
        tools.learn("a2c", agent)
    np.testing.assert_allclose(further.detach().numpy(), -0.3, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_what_is_frozen_after_it_has_learned_is_moved_neither_by_momentum_nor_by_weight_decay(tools, kind):
    agent, optimizer, parts = make(tools, kind, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["momentum"] = 0.9  # AdamW takes no notice
    tools.learn("ppo", agent)
    parts["actor"][0].requires_grad_(False)
    frozen, learning = (parts["actor"][layer].weight.detach().clone() for layer in (0, 2))
    tools.learn("ppo", agent)
    assert torch.equal(parts["actor"][0].weight, frozen)
    assert (parts["actor"][2].weight != learning).all()
