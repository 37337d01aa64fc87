"""SAC and TD3 against stable-baselines3: its ``train``, its weights, one batch, the same noise.

Both sides take plain gradient steps (SGD), so that equal weights afterwards mean equal gradients of critics and actor.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from optix_torch import TorchSACAgent, TorchTD3Agent
from optix_torch._learned import Transitions

sb3 = pytest.importorskip("stable_baselines3")

SIZE, RATE, GAMMA = 256, 0.05, 0.97
SPACES = {"observation_space": gym.spaces.Box(-np.inf, np.inf, (5,)), "action_space": gym.spaces.Box(-2.0, 2.0, (3,))}
HYPERPARAMS = {"capacity": 1000, "gamma": GAMMA, "tau": 0.01}


class Env(gym.Env):
    observation_space, action_space = SPACES.values()


def sb3_model(algorithm, monkeypatch, **options):
    model = algorithm(
        "MlpPolicy",
        Env(),
        learning_rate=RATE,
        gamma=GAMMA,
        tau=0.01,
        buffer_size=10,
        device="cpu",
        seed=0,
        policy_kwargs={"optimizer_class": torch.optim.SGD, "net_arch": [64, 64]},
        **options,
    )
    model.set_logger(sb3.common.logger.configure(format_strings=[]))
    torch.manual_seed(1)
    with torch.no_grad():  # slow copies that differ from their originals
        targets = [model.critic_target] + ([model.actor_target] if hasattr(model, "actor_target") else [])
        for parameter in (p for target in targets for p in target.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def random_batch():
    generator = torch.Generator().manual_seed(2)
    observations, next_observations = torch.randn(2, SIZE, 5, generator=generator)
    actions = 2.0 * torch.rand(SIZE, 3, generator=generator) - 1.0
    rewards = torch.randn(SIZE, generator=generator)
    terminated = (torch.rand(SIZE, generator=generator) < 0.2).float()
    return observations, actions, rewards, next_observations, terminated


def theirs_sees(model, batch, monkeypatch):
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    observations, actions, rewards, next_observations, terminated = batch
    samples = ReplayBufferSamples(observations, actions, next_observations, terminated[:, None], rewards[:, None])
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, **__: samples)


def as_transitions(batch):
    observations, actions, rewards, next_observations, terminated = batch
    return Transitions(
        observations=observations,
        actions=2.0 * actions,  # ours are in the environment's units
        rewards=rewards,
        next_observations=next_observations,
        discounts=GAMMA * (1.0 - terminated),
        weights=torch.ones(SIZE),
    )


class Noise:
    """Random numbers that are known beforehand."""

    def __init__(self, values):
        self.values = values

    def standard_normal(self, shape, dtype):
        assert shape == self.values.shape
        return self.values.astype(dtype)


def clone(*layers):
    """Return ``nn.Sequential`` of copies that share nothing with the originals."""
    copies = []
    for layer in layers:
        copy = nn.Linear(layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer)()
        copy.load_state_dict(layer.state_dict())
        copies.append(copy)
    return nn.Sequential(*copies)


def ours_from(model, agent_class, actor, **hyperparams):
    critics = [clone(*model.critic.qf0), clone(*model.critic.qf1)]
    parameters = [*actor.parameters(), *(p for critic in critics for p in critic.parameters())]
    agent = agent_class(
        actor=actor,
        critic=critics,
        optimizer=torch.optim.SGD(parameters, lr=RATE),
        hyperparams=HYPERPARAMS | hyperparams,
        **SPACES,
    )
    for mine, other in zip(
        agent._target_critics.networks, (model.critic_target.qf0, model.critic_target.qf1), strict=True
    ):
        mine.load_state_dict(other.state_dict())
    return agent


def weights(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def assert_same_step(found, expected):
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5 * RATE, rtol=1e-6)


def sac_actor(model):
    last = nn.Linear(64, 6)
    with torch.no_grad():
        last.weight.copy_(torch.cat([model.actor.mu.weight, model.actor.log_std.weight]))
        last.bias.copy_(torch.cat([model.actor.mu.bias, model.actor.log_std.bias]))
    body = clone(*model.actor.latent_pi)
    return nn.Sequential(*body, last)


def test_sac_update_agrees(monkeypatch):
    model = sb3_model(sb3.SAC, monkeypatch, ent_coef="auto_0.3")
    agent = ours_from(model, TorchSACAgent, sac_actor(model), initial_alpha=0.3)
    noise = np.random.default_rng(3).standard_normal((2, SIZE, 3)).astype(np.float32)
    drawn = iter(noise)
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self, *_: self.loc + self.scale * torch.from_numpy(next(drawn))
    )
    batch = random_batch()
    theirs_sees(model, batch, monkeypatch)
    before = weights(agent.actor, agent.critics)
    model.train(gradient_steps=1, batch_size=SIZE)
    agent._rng = Noise(noise)
    agent._update(as_transitions(batch))

    assert_same_step(weights(agent.critics), weights(model.critic))
    assert_same_step(weights(*agent._target_critics.networks), weights(model.critic_target))
    assert_same_step(weights(agent.actor)[:4], weights(model.actor.latent_pi))
    head = [torch.cat(pair) for pair in zip(weights(model.actor.mu), weights(model.actor.log_std), strict=True)]
    assert_same_step(weights(agent.actor)[4:], head)
    # Theirs moves the temperature with Adam, whatever the other optimisers are.
    torch.testing.assert_close(agent._extra["log_alpha"].grad, model.log_ent_coef.grad, atol=1e-5, rtol=1e-5)
    assert all((old != new).any() for old, new in zip(before, weights(agent.actor, agent.critics), strict=True))
    theirs, mine = model.logger.name_to_value, agent._measure()
    assert mine["critic_loss"] == pytest.approx(theirs["train/critic_loss"], abs=1e-5)
    assert mine["actor_loss"] == pytest.approx(theirs["train/actor_loss"], abs=1e-5)
    assert mine["alpha"] == pytest.approx(theirs["train/ent_coef"], abs=1e-6)


def test_td3_updates_agree_the_delayed_one_included(monkeypatch):
    model = sb3_model(sb3.TD3, monkeypatch, target_policy_noise=0.3, target_noise_clip=0.4)
    actor = clone(*model.actor.mu)
    agent = ours_from(model, TorchTD3Agent, actor, target_noise=0.3, target_noise_clip=0.4)
    agent._target_actor.networks[0].load_state_dict(model.actor_target.mu.state_dict())
    batch = random_batch()
    theirs_sees(model, batch, monkeypatch)
    before = weights(agent.actor)
    for update in range(2):
        torch.manual_seed(10 + update)
        noise = torch.empty(SIZE, 3).normal_().numpy()
        torch.manual_seed(10 + update)
        model.train(gradient_steps=1, batch_size=SIZE)
        agent._rng = Noise(np.stack([noise, noise]))
        agent._update(as_transitions(batch))
        agent._num_updates += 1
        assert_same_step(weights(agent.critics), weights(model.critic))
        assert_same_step(weights(*agent._target_critics.networks), weights(model.critic_target))
        assert_same_step(weights(agent.actor), weights(model.actor))
        assert_same_step(weights(*agent._target_actor.networks), weights(model.actor_target))
        assert all((old != new).any() for old, new in zip(before, weights(agent.actor), strict=True)) == (update == 1)
        mine, theirs = agent._measure(), model.logger.name_to_value
        assert mine["critic_loss"] == pytest.approx(theirs["train/critic_loss"], abs=1e-5)
    assert mine["actor_loss"] == pytest.approx(theirs["train/actor_loss"], abs=1e-5)
