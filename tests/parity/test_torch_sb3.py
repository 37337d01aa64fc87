"""PPO against stable-baselines3: its weights and one batch loaded into ours give the same loss and gradients."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from optix_core.data import compute_gae
from optix_torch import TorchGaussianPPOAgent, TorchPPOAgent
from optix_torch.algorithms.ppo import Batch, ppo_loss

sb3 = pytest.importorskip("stable_baselines3")

SIZE = 256
AGENTS = {"CartPole-v1": TorchPPOAgent, "Pendulum-v1": TorchGaussianPPOAgent}
ACTION_DTYPES = {"CartPole-v1": torch.int64, "Pendulum-v1": torch.float32}


def sb3_model(env_id, **options):
    return sb3.PPO("MlpPolicy", env_id, n_steps=SIZE, batch_size=SIZE, n_epochs=1, seed=0, device="cpu", **options)


def copy_of(model, agent_class, **hyperparams):
    """Return our agent with the weights of SB3's policy."""
    policy = model.policy
    actor = nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
    critic = nn.Sequential(*policy.mlp_extractor.value_net, policy.value_net)
    agent = agent_class(actor=_clone(actor), critic=_clone(critic), hyperparams=hyperparams)
    if agent_class is TorchGaussianPPOAgent:
        agent.networks.extra["log_std"].data.copy_(policy.log_std.data)
    return agent


def _clone(network):
    layers = [
        nn.Linear(layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else nn.Tanh()
        for layer in network
    ]
    clone = nn.Sequential(*layers)
    clone.load_state_dict(network.state_dict())
    return clone


def sb3_gradients(model, data, clip_range_value, entropy_coef):
    """The loss of ``stable_baselines3.PPO.train``, with its own ``evaluate_actions``."""
    policy = model.policy
    values, log_probs, entropy = policy.evaluate_actions(data.observations, data.actions)
    values = values.flatten()
    ratio = torch.exp(log_probs - data.log_probs)
    policy_loss = -torch.min(data.advantages * ratio, data.advantages * torch.clamp(ratio, 0.8, 1.2)).mean()
    if clip_range_value is not None:
        values = data.values + torch.clamp(values - data.values, -clip_range_value, clip_range_value)
    value_loss = nn.functional.mse_loss(data.returns, values)
    loss = policy_loss - entropy_coef * entropy.mean() + 0.5 * value_loss
    policy.zero_grad()
    loss.backward()
    linears = [layer for layer in [*policy.mlp_extractor.policy_net, policy.action_net] if isinstance(layer, nn.Linear)]
    linears += [layer for layer in [*policy.mlp_extractor.value_net, policy.value_net] if isinstance(layer, nn.Linear)]
    gradients = [gradient for layer in linears for gradient in (layer.weight.grad, layer.bias.grad)]
    if hasattr(policy, "log_std"):
        gradients.append(policy.log_std.grad)
    return loss.item(), gradients


@pytest.mark.parametrize("clip_range_value", [None, 0.2])
@pytest.mark.parametrize(
    ("env_id", "agent_class"), [("CartPole-v1", TorchPPOAgent), ("Pendulum-v1", TorchGaussianPPOAgent)]
)
def test_loss_and_gradients_agree(env_id, agent_class, clip_range_value):
    torch.manual_seed(0)
    model = sb3_model(env_id)
    agent = copy_of(model, AGENTS[env_id], entropy_coef=0.02, clip_range_value=clip_range_value)
    observations = torch.randn(SIZE, *model.observation_space.shape)
    with torch.no_grad():
        actions, values, log_probs = model.policy(observations)
    data = Batch(
        observations=observations,
        actions=actions,
        log_probs=log_probs + 0.2 * torch.randn(SIZE),
        values=values.flatten() + 0.3 * torch.randn(SIZE),
        advantages=torch.randn(SIZE),
        returns=torch.randn(SIZE),
    )
    expected_loss, expected = sb3_gradients(model, data, clip_range_value, 0.02)

    judged = agent._distribution.evaluate(agent.networks.actor.forward(data.observations), data.actions)
    found_values = agent.networks.critic.forward(data.observations)
    loss = ppo_loss(judged.log_probs, judged.entropies, found_values.squeeze(1), data, agent.hyperparams)
    agent.networks.parameters.gradient.zero_()
    agent.networks.actor.backward(judged.backward(loss.d_log_prob, loss.d_entropy))
    agent.networks.critic.backward(loss.d_value.unsqueeze(1))
    found = [parameter.grad for module in (agent.actor, agent.critic) for parameter in module.parameters()]
    found += [parameter.grad for parameter in agent.networks.extra.values()]

    total = loss.policy - 0.02 * loss.entropy + 0.5 * loss.value
    assert total.item() == pytest.approx(expected_loss, abs=1e-5)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("env_id", AGENTS)
def test_one_whole_update_agrees(env_id):
    """One full-batch step: advantages' normalisation, gradient clipping and Adam included."""
    model = sb3_model(env_id, ent_coef=0.01, learning_rate=1e-3)
    settings = {"entropy_coef": 0.01, "learning_rate": 1e-3, "num_epochs": 1, "minibatch_size": SIZE}
    agent = copy_of(model, AGENTS[env_id], **settings)
    _, callback = model._setup_learn(SIZE)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, SIZE)
    buffer = model.rollout_buffer
    observations, actions = buffer.observations.copy(), buffer.actions.copy()
    advantages = torch.from_numpy(buffer.advantages.flatten())
    batch = Batch(
        observations=torch.from_numpy(observations.reshape(SIZE, -1)),
        actions=torch.from_numpy(actions.reshape(SIZE, -1)).to(
            torch.int64 if env_id == "CartPole-v1" else torch.float32
        ),
        log_probs=torch.from_numpy(buffer.log_probs.flatten()),
        values=torch.from_numpy(buffer.values.flatten()),
        advantages=(advantages - advantages.mean()) / (advantages.std() + 1e-8),
        returns=torch.from_numpy(buffer.returns.flatten()),
        masks=torch.empty(SIZE, 0, dtype=torch.bool),
    )
    agent._optimize(batch, len(batch.returns))
    model.train()
    theirs = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    theirs += [*model.policy.mlp_extractor.value_net, model.policy.value_net]
    expected = [layer.weight for layer in theirs if isinstance(layer, nn.Linear)]
    found = [layer.weight for layer in [*agent.actor, *agent.critic] if isinstance(layer, nn.Linear)]
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_advantages_agree_with_the_rollout_buffer():
    from stable_baselines3.common.buffers import RolloutBuffer

    rng = np.random.default_rng(0)
    T, N = 64, 4
    env = gym.make("CartPole-v1")
    buffer = RolloutBuffer(T, env.observation_space, env.action_space, gae_lambda=0.9, gamma=0.97, n_envs=N)
    rewards, values = rng.normal(size=(2, T, N)).astype(np.float32)
    terminated = rng.random((T, N)) < 0.1
    buffer.rewards, buffer.values = rewards.copy(), values.copy()
    buffer.episode_starts = np.concatenate([np.zeros((1, N)), terminated[:-1]]).astype(np.float32)
    last_values = rng.normal(size=N).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.from_numpy(last_values), terminated[-1].astype(np.float32))
    next_values = np.concatenate([values[1:], last_values[None]])
    nothing = np.zeros((T, N), bool)
    found, _ = compute_gae(rewards, values, next_values, terminated, nothing, gamma=0.97, gae_lambda=0.9)
    np.testing.assert_allclose(found, buffer.advantages, atol=1e-5)
