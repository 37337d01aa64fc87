"""TorchAgent: REINFORCE and A2C on one's own modules, and on losses of one's own."""

import functools
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core import VectorBatchPipeline
from optix_core.checkpoints import load_tree, save_tree
from optix_core.environments import EnvSpec
from optix_core.evaluation.rollouts import evaluate
from optix_protocol.conformance import check_agent, example_case
from optix_protocol.testing import random_window
from optix_torch import TorchAgent

BOX = spaces.Box(-1, 1, (3,))
SPACES = {
    "discrete": (BOX, spaces.Discrete(4, start=2)),
    "multidiscrete": (BOX, spaces.MultiDiscrete([2, 3])),
    "box": (BOX, spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))),
}
NO_VALUE = "REINFORCE has no value function: what comes after a window or an episode counts for nothing"
CUT = ("truncation_is_not_termination", "truncation_uses_final_observation", "window_end_bootstraps")
NOT_BOOTSTRAPPED = dict.fromkeys(CUT, NO_VALUE)


def make(kind="discrete", **options):
    hyperparams = options.pop("hyperparams", {})
    return TorchAgent.from_spaces(*SPACES[kind], hyperparams=hyperparams, **options)


def window(kind="discrete", **options):
    return random_window(*SPACES[kind], **options)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("critic", [True, False])
def test_a_step_follows_the_gradient_of_the_textbook_loss(kind, critic):
    settings = {"learning_rate": 0.0, "max_grad_norm": 1e9, "entropy_coef": 0.07, "normalize_advantage": False}
    agent, data = make(kind, critic=critic, hyperparams=settings), window(kind)
    with torch.no_grad():
        for module in agent.networks.modules.values():
            for parameter in module.parameters():
                parameter.add_(0.2)
    diagnostics = agent.learn(data)
    found = [p.grad.double().clone() for module in agent.networks.modules.values() for p in module.parameters()]
    found += [parameter.grad.double().clone() for parameter in agent.networks.extra.values()]

    gamma, gae_lambda = agent.hyperparams["gamma"], agent.hyperparams["gae_lambda"] if critic else 1.0
    actor, extra = (
        agent.actor.double(),
        {n: p.detach().double().requires_grad_() for n, p in agent.networks.extra.items()},
    )
    parts = [actor] + ([agent.critic.double()] if critic else [])
    for parameter in (p for module in parts for p in module.parameters()):
        parameter.grad = None
    rows = torch.from_numpy(data.observations).double()
    values = parts[1](rows)[..., 0] if critic else torch.zeros(data.valid.shape)
    successors = parts[1](torch.from_numpy(data.next_observations).double())[..., 0] if critic else values
    terms, advantages = [], []
    for n in range(data.num_envs):
        following = 0.0
        for t in reversed(range(data.num_steps)):
            if not data.valid[t, n]:
                following = 0.0
                continue
            delta = (
                data.rewards[t, n] + gamma * successors[t, n].item() * (not data.terminated[t, n]) - values[t, n].item()
            )
            following = delta + gamma * gae_lambda * (not data.done[t, n]) * following
            advantages.append(following)
            outputs, action = actor(rows[t, n]), torch.tensor(data.actions[t, n])
            if extra:
                centre, scale = (torch.from_numpy(array).double() for array in agent._head.affine)
                normal = torch.distributions.Normal(outputs, extra["log_std"].exp())
                log_prob, entropy = normal.log_prob((action - centre) / scale).sum(), normal.entropy().sum()
            else:
                sizes = list(getattr(agent._head, "nvec", [4]))
                choices = (action - torch.tensor(agent._head.start)).reshape(-1)
                each = [torch.distributions.Categorical(logits=part) for part in outputs.split(sizes)]
                log_prob = sum(part.log_prob(choice) for part, choice in zip(each, choices, strict=True))
                entropy = sum(part.entropy() for part in each)
            error = (values[t, n] - (following + values[t, n].item())) ** 2
            terms.append((log_prob, entropy, error))
    if not critic:  # the baseline is the mean return
        advantages = np.array(advantages) - np.mean(advantages)
    log_probs, entropies, errors = (torch.stack(column) for column in zip(*terms, strict=True))
    loss = -(torch.as_tensor(np.array(advantages)) * log_probs).mean() - 0.07 * entropies.mean()
    if critic:
        loss = loss + agent.hyperparams["value_coef"] * errors.mean()
    loss.backward()
    assert diagnostics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    expected = [p.grad for module in parts for p in module.parameters()] + [p.grad for p in extra.values()]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_it_samples_while_it_trains():
    """Trap: REINFORCE that acts by argmax. With logits a difference of 1 apart, both actions are drawn."""
    actor = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(actor[0].weight)
    actor[0].bias.data = torch.tensor([0.0, 1.0])
    actions = TorchAgent(actor=actor).act(np.zeros((4000, 3), np.float32))
    assert actions.mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)


class Loud(TorchAgent):
    """A loss of its own: draws all logits to 1."""

    def loss(self, batch):
        terms = super().loss(batch)
        squares = (self.actor(batch.observations) - 1.0).square().mean()
        return {**terms, "loss": terms["loss"] + 100.0 * squares, "squares": squares}


class Counting(TorchAgent):
    """Does something besides learning."""

    windows = 0

    def learn(self, episode_data):
        self.windows += 1
        return {**super().learn(episode_data), "windows": float(self.windows)}


def test_the_loss_can_be_replaced_and_reports_what_it_likes():
    agent, plain = Loud.from_spaces(*SPACES["discrete"]), make()
    squares = [agent.learn(window(seed=seed))["squares"] for seed in range(200)]
    assert squares[-1] < 0.1 * squares[0] < 1.0
    assert "squares" not in plain.learn(window())


def test_learn_can_be_extended():
    agent = Counting.from_spaces(*SPACES["box"])
    agent.learn(window("box"))
    assert agent.learn(window("box"))["windows"] == 2.0


def test_modules_and_optimiser_of_ones_own_are_trained_in_place():
    actor, critic = nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD([*actor.parameters(), *critic.parameters()], lr=0.5)
    agent = TorchAgent(actor=actor, critic=critic, optimizer=optimizer, action_space=SPACES["discrete"][1])
    before = [actor.weight.detach().clone(), critic[0].weight.detach().clone()]
    agent.learn(window())
    assert (actor.weight != before[0]).any()
    assert (critic[0].weight != before[1]).any()
    assert agent.get_hyperparams().params["learning_rate"] == 0.5


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_reinforce_keeps_the_contract(kind):
    case, other = example_case(kind), example_case(kind, observation_size=5)

    def factory(case, seed=0):
        return TorchAgent.from_spaces(case.observation_space, case.action_space, critic=False, seed=seed)

    options = {"case": case, "make_other": functools.partial(factory, other), "exempt": NOT_BOOTSTRAPPED}
    check_agent(functools.partial(factory, case), **options).raise_if_not_ok()


def test_reinforce_counts_rewards_to_the_end_of_the_episode_and_of_the_window():
    agent = make(critic=False, hyperparams={"gamma": 0.5, "normalize_advantage": False})
    data = window(num_steps=4, num_envs=1, terminated=[(1, 0)], truncated=[], reset_rows=False)
    batch = agent._judge(replace(data, rewards=np.array([[1.0], [2.0], [4.0], [8.0]])))
    assert batch.returns.tolist() == [2.0, 2.0, 8.0, 8.0]
    assert batch.advantages.tolist() == [-3.0, -3.0, 3.0, 3.0]
    assert not batch.values.any()


@pytest.mark.parametrize("critic", [True, False])
def test_training_goes_on_bit_for_bit(critic, tmp_path):
    settings = {"normalize_observations": True, "normalize_rewards": True}
    agent = make("box", critic=critic, hyperparams=settings)
    agent.learn(window("box"))
    save_tree(tmp_path / "state", agent.training_state())
    expected = [agent.learn(window("box", seed=seed)) for seed in (1, 2)]
    resumed = make("box", critic=critic, hyperparams=settings, seed=5)
    resumed.restore_training_state(load_tree(tmp_path / "state"))
    assert [resumed.learn(window("box", seed=seed)) for seed in (1, 2)] == expected


@pytest.mark.parametrize(("critic", "n_envs", "window_size", "rate"), [(True, 32, 32, 3e-3), (False, 16, 500, 1e-2)])
def test_cartpole_is_learned(critic, n_envs, window_size, rate):
    env = gym.make("CartPole-v1")
    agent = TorchAgent.from_env(env, critic=critic, hyperparams={"learning_rate": rate})
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=n_envs, window_size=window_size, seed=0)
    for _ in range(150_000 // (n_envs * window_size)):
        agent.learn(pipeline.collect())
    assert evaluate(agent, EnvSpec.of("CartPole-v1"), episodes=30, seed=9).returns.mean() > 200
