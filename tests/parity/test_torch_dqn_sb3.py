"""DQN against stable-baselines3: its weights and one batch loaded into ours give the same loss and gradients."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from optix_core.data import ReplayBatch, ReplayBuffer
from optix_protocol import EpisodeData
from optix_torch import TorchDQNAgent

sb3 = pytest.importorskip("stable_baselines3")
logger = pytest.importorskip("stable_baselines3.common.logger")

SIZE = 128


def pair(**hyperparams):
    """A model of SB3 and our agent with its weights, online and target different from each other."""
    model = sb3.DQN("MlpPolicy", "CartPole-v1", batch_size=SIZE, learning_rate=1e-3, seed=0, device="cpu")
    model.set_logger(logger.Logger(None, []))
    torch.manual_seed(1)
    for parameter in model.q_net_target.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    settings = {"double_q": False, "learning_rate": 1e-3, "batch_size": SIZE, "learning_starts": 0, **hyperparams}
    agent = TorchDQNAgent.from_env(gym.make("CartPole-v1"), hyperparams=settings)
    agent.q_network.load_state_dict(model.q_net.q_net.state_dict())
    agent._target.networks[0].load_state_dict(model.q_net_target.q_net.state_dict())
    return model, agent


def batch():
    rng = np.random.default_rng(0)
    return ReplayBatch(
        observations=rng.normal(size=(SIZE, 4)).astype(np.float32),
        actions=rng.integers(0, 2, SIZE),
        rewards=(3 * rng.normal(size=SIZE)).astype(np.float32),
        next_observations=rng.normal(size=(SIZE, 4)).astype(np.float32),
        discounts=np.where(rng.random(SIZE) < 0.2, 0.0, 0.99).astype(np.float32),
        weights=np.ones(SIZE, np.float32),
        indices=np.arange(SIZE),
        next_masks=np.empty((SIZE, 0), np.bool_),
    )


def feed_sb3(model, data):
    """Let SB3's own ``train`` see this one batch; return its loss and its gradients before clipping."""
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    found = {}
    samples = ReplayBufferSamples(
        observations=torch.from_numpy(data.observations),
        actions=torch.from_numpy(data.actions)[:, None],
        next_observations=torch.from_numpy(data.next_observations),
        dones=torch.from_numpy((data.discounts == 0).astype(np.float32))[:, None],
        rewards=torch.from_numpy(data.rewards)[:, None],
    )
    model.replay_buffer.sample = lambda *args, **kwargs: samples
    clip = nn.utils.clip_grad_norm_

    def record(parameters, max_norm):
        parameters = list(parameters)
        found["gradients"] = [p.grad.clone() for p in parameters if p.grad is not None]  # the target's have none
        return clip(parameters, max_norm)

    nn.utils.clip_grad_norm_ = record
    try:
        model.train(gradient_steps=1, batch_size=SIZE)
    finally:
        nn.utils.clip_grad_norm_ = clip
    return model.logger.name_to_value["train/loss"], found["gradients"]


def test_loss_and_gradients_agree():
    (model, agent), data = pair(max_grad_norm=1e9), batch()
    expected_loss, expected = feed_sb3(model, data)
    agent._update(agent.networks.to_device(data, agent._rows))
    assert agent._measure()["loss"] == pytest.approx(expected_loss, abs=1e-5)
    found = [parameter.grad for parameter in agent.q_network.parameters()]
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.01
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_whole_update_agrees():
    """Clipping and Adam included."""
    (model, agent), data = pair(max_grad_norm=0.5), batch()
    model.max_grad_norm = 0.5
    for _ in range(3):
        feed_sb3(model, data)
        agent._update(agent.networks.to_device(data, agent._rows))
    for ours, theirs in zip(agent.q_network.parameters(), model.q_net.q_net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_memory_gives_the_same_transitions():
    """SB3's buffer with ``handle_timeout_termination`` and ours hold the same stream; compared row by row."""
    from stable_baselines3.common.buffers import ReplayBuffer as SB3Buffer

    env = gym.make("CartPole-v1")
    theirs = SB3Buffer(200, env.observation_space, env.action_space, handle_timeout_termination=True)
    shapes = {"observation_shape": (4,), "observation_dtype": np.float32, "action_shape": (), "action_dtype": np.int64}
    ours = ReplayBuffer(capacity=400, gamma=0.5, **shapes)
    rng = np.random.default_rng(0)
    T = 100
    observations = rng.normal(size=(T + 1, 1, 4)).astype(np.float32)
    actions, rewards = rng.integers(0, 2, (T, 1)), rng.normal(size=(T, 1)).astype(np.float32)
    terminated, truncated = rng.random((2, T, 1)) < 0.1
    truncated &= ~terminated
    done = terminated | truncated
    finals = rng.normal(size=(int(done.sum()), 4)).astype(np.float32)
    after = observations[1:].copy()
    after[done] = finals
    for t in range(T):
        info = [{"TimeLimit.truncated": bool(truncated[t, 0])}]
        theirs.add(observations[t], after[t], actions[t], rewards[t], done[t], info)
    ours.add(
        EpisodeData(
            observations=observations[:-1],
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            valid=np.ones((T, 1), bool),
            last_observation=observations[-1],
            final_observations=finals,
            episode_returns=np.zeros(len(finals)),
            episode_lengths=np.ones(len(finals), int),
        )
    )
    expected = theirs._get_samples(np.arange(T))
    places = {row.tobytes(): t for t, row in enumerate(expected.observations.numpy())}
    found = ours.sample(2000)
    rows = np.array([places[row.tobytes()] for row in found.observations])
    assert set(rows) == set(range(T))
    np.testing.assert_array_equal(found.next_observations, expected.next_observations.numpy()[rows])
    np.testing.assert_array_equal(found.actions, expected.actions.numpy()[rows, 0])
    np.testing.assert_array_equal(found.rewards, expected.rewards.numpy()[rows, 0])
    np.testing.assert_array_equal(found.discounts, 0.5 * (1.0 - expected.dones.numpy()[rows, 0]))
