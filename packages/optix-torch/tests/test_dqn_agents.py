"""DQN and Rainbow: what they learn from, how they explore, what they leave alone."""

import functools
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core import ReturnEvaluator
from optix_core.data import PrioritizedReplayBuffer, ReplayBuffer
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory
from optix_core.loop.counters import RunCounters
from optix_core.pipelines import VectorBatchPipeline
from optix_core.policies import policy_from_tree
from optix_protocol import HyperparamSet
from optix_protocol.testing import random_window
from optix_torch import TorchDQNAgent, TorchRainbowDQNAgent
from optix_torch.algorithms.dqn import dqn_loss
from optix_torch.algorithms.rainbow import categorical_loss, project
from optix_torch.dueling import DuelingRunner
from optix_torch.networks import Noise, NoisyLinear

AGENTS = {"dqn": TorchDQNAgent, "rainbow": TorchRainbowDQNAgent}
BOX, ACTIONS = spaces.Box(-1, 1, (3,)), spaces.Discrete(4, start=2)
QUICK = {"learning_starts": 20, "updates_per_step": 0.5, "batch_size": 16, "hidden_sizes": [16, 16]}
window = functools.partial(random_window, BOX, ACTIONS, num_steps=32, num_envs=2, reset_rows=False)


@pytest.fixture(params=AGENTS)
def name(request):
    return request.param


def make(name, observation_space=BOX, action_space=ACTIONS, *, seed=0, **hyperparams):
    return AGENTS[name].from_spaces(observation_space, action_space, seed=seed, hyperparams=QUICK | hyperparams)


def cartpole(name, *, num_windows=10, **hyperparams):
    agent = AGENTS[name].from_env(gym.make("CartPole-v1"), hyperparams=QUICK | hyperparams)
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=8, seed=0)
    for _ in range(num_windows):
        agent.learn(pipeline.collect())
    return agent, pipeline


# ---- the mathematics --------------------------------------------------------------------------------------------


def test_dqn_gradient_is_that_of_autograd():
    torch.manual_seed(0)
    q = (3 * torch.randn(50, 4)).requires_grad_()
    actions, targets, weights = torch.randint(0, 4, (50,)), torch.randn(50), torch.rand(50)
    loss = dqn_loss(q.detach(), actions, targets, weights)
    chosen = q.gather(1, actions[:, None]).squeeze(1)
    expected = (weights * nn.functional.smooth_l1_loss(chosen, targets, reduction="none")).mean()
    expected.backward()
    torch.testing.assert_close(loss.loss, expected.detach())
    torch.testing.assert_close(loss.d_q, q.grad)
    torch.testing.assert_close(loss.errors, (chosen - targets).detach())


def test_rainbow_gradient_is_that_of_autograd():
    torch.manual_seed(0)
    logits = torch.randn(30, 4, 11).requires_grad_()
    actions, weights = torch.randint(0, 4, (30,)), torch.rand(30)
    targets = torch.rand(30, 11).softmax(1)
    targets[0] = torch.eye(11)[3]
    loss = categorical_loss(logits.detach(), actions, targets, weights)
    chosen = logits[torch.arange(30), actions].log_softmax(1)
    expected = (weights * -(targets * chosen).sum(1)).mean()
    expected.backward()
    torch.testing.assert_close(loss.loss, expected.detach())
    torch.testing.assert_close(loss.d_logits, logits.grad)
    divergences = nn.functional.kl_div(chosen.detach(), targets, reduction="none").sum(1)
    torch.testing.assert_close(loss.divergences, divergences, atol=1e-6, rtol=1e-5)


def projected_slowly(probs, rewards, discounts, v_min, v_max):
    """Algorithm 1 of Bellemare et al. 2017, atom by atom in float64."""
    num_atoms = probs.shape[1]
    step = (v_max - v_min) / (num_atoms - 1)
    found = np.zeros(probs.shape)
    for row in range(len(probs)):
        for atom in range(num_atoms):
            value = rewards[row] + discounts[row] * (v_min + atom * step)
            place = (min(max(value, v_min), v_max) - v_min) / step
            below = min(int(np.floor(place)), num_atoms - 2)
            found[row, below] += probs[row, atom] * (below + 1 - place)
            found[row, below + 1] += probs[row, atom] * (place - below)
    return found


@pytest.mark.parametrize(("v_min", "v_max", "num_atoms"), [(-10.0, 10.0, 51), (0.0, 100.0, 21), (-1.0, 2.0, 2)])
def test_projection_agrees_with_a_float64_loop(v_min, v_max, num_atoms):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(num_atoms), 200).astype(np.float32)
    rewards = rng.normal(0, 0.3 * (v_max - v_min), 200).astype(np.float32)
    discounts = rng.choice([0.0, 0.5, 0.99, 1.0], 200).astype(np.float32)
    rewards[:20] = 0.0  # with discount 1 nothing moves: every value falls on an atom
    support = torch.linspace(v_min, v_max, num_atoms)
    arrays = (torch.from_numpy(array) for array in (probs, rewards, discounts))
    found = project(*arrays, support, v_min, v_max).numpy()
    np.testing.assert_allclose(found, projected_slowly(probs, rewards, discounts, v_min, v_max), atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)


def test_double_q_takes_the_online_choice_and_the_target_value():
    agent = make("dqn")
    observations = torch.randn(64, 3)
    with torch.no_grad():
        for parameter in agent._target.networks[0].parameters():
            parameter.add_(torch.randn_like(parameter))
        online, target = agent.q_network(observations), agent._target.networks[0](observations)
    expected = {True: target.gather(1, online.argmax(1, keepdim=True)).squeeze(1), False: target.max(1).values}
    assert (expected[True] != expected[False]).any()
    for double_q in (True, False):
        agent.set_hyperparams(HyperparamSet(params={"double_q": double_q, "learning_rate": 0.0}))
        batch = agent.networks.to_device(_batch(observations.numpy()), agent._rows)
        agent._update(batch._replace(rewards=torch.zeros(64), discounts=torch.ones(64)))
        torch.testing.assert_close(agent._latest[2], expected[double_q])


def _batch(observations):
    agent = make("dqn")
    agent.learn(window())
    batch = agent.replay.sample(len(observations))
    return batch._replace(observations=observations, next_observations=observations)


# ---- noise ------------------------------------------------------------------------------------------------------


def test_noisy_layer_is_the_linear_layer_of_its_noisy_weights():
    layer = NoisyLinear(5, 7, std_init=0.5, generator=torch.Generator().manual_seed(0))
    noise = Noise(layer)
    x = torch.randn(9, 5)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))  # silent at first
    noise.draw(np.random.default_rng(0))
    weight, bias = layer.arrays()
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() @ weight + bias, rtol=1e-5, atol=1e-6)
    sigma = (weight.T - layer.weight.detach().numpy()) / layer.weight_sigma.detach().numpy()
    np.testing.assert_allclose(sigma, np.outer(layer.noise_out, layer.noise_in), rtol=1e-4, atol=1e-5)


def test_noise_has_the_moments_of_its_definition():
    noise = Noise(NoisyLinear(500, 500, std_init=0.5, generator=torch.Generator()))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(50):
        noise.draw(rng)
        drawn.append(noise.vector.numpy().copy())
    drawn = np.concatenate(drawn)
    assert abs(drawn.mean()) < 0.02
    assert np.square(drawn).mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)  # E[|x|] of a standard normal x


def test_rainbow_explores_by_noise_and_is_greedy_without():
    agent, pipeline = cartpole("rainbow", learning_starts=500)
    observations = np.zeros((1, 4), np.float32)
    before = agent._behaviour.outputs(observations).copy()
    agent.learn(pipeline.collect())  # nothing yet: only the noise is new
    assert (agent._behaviour.outputs(observations) != before).any()
    sampling = agent.make_policy("sample", num_envs=1, seed=0)
    outputs = {sampling.outputs(observations).tobytes() for _ in range(5)}
    greedy = agent.make_policy("greedy", num_envs=1, seed=0)
    assert len(outputs) == 5
    assert len({greedy.outputs(observations).tobytes() for _ in range(5)}) == 1


# ---- acting -----------------------------------------------------------------------------------------------------


def test_acts_at_random_until_learning_starts(name):
    agent = make(name, learning_starts=60)
    same = np.zeros((4000, 3), np.float32)
    np.testing.assert_allclose(np.bincount(agent.act(same), minlength=6)[2:], 1000, atol=120)
    agent.learn(window())
    agent.learn(window(seed=1))
    if name == "rainbow":
        assert len(set(agent.act(same))) == 1  # one noise for the whole batch


@pytest.mark.parametrize("length", [1, 3])
def test_short_episodes_fill_the_memory_with_their_ends_and_learning_starts_all_the_same(name, length):
    agent = make(name, capacity=200, learning_starts=190)
    for seed in range(6):  # 64 transitions each, and as many final observations where an episode is one step
        assert agent.is_warming_up is (seed < 3)
        data = window(seed=seed)
        ends = np.zeros(data.rewards.shape, bool)
        ends[length - 1 :: length] = True
        agent.learn(
            replace(
                data,
                truncated=ends,
                terminated=np.zeros_like(ends),
                final_observations=np.zeros((int(ends.sum()), 3), np.float32),
                episode_returns=np.zeros(int(ends.sum())),
                episode_lengths=np.full(int(ends.sum()), length),
            )
        )
    assert agent._num_updates == 4 * 64 * 0.5


def test_acting_by_other_weights_for_a_while_copies_no_memory(name, tmp_path, monkeypatch):
    agent, pipeline = cartpole(name)
    agent.save_weights(tmp_path / "early")
    for _ in range(5):
        agent.learn(pipeline.collect())
    twin, other = cartpole(name, num_windows=15)
    monkeypatch.setattr(ReplayBuffer, "state", lambda self: pytest.fail("the memory was copied"))
    arena = Arena(agent, lambda num_envs: gym.make_vec("CartPole-v1", num_envs, vectorization_mode="sync"))
    laboratory = Laboratory(
        agent=agent, pipeline=pipeline, arena=arena, evaluator=ReturnEvaluator(), counters=RunCounters()
    )
    laboratory.paired_returns(2, 0, lambda: agent.load_weights(tmp_path / "early"))
    monkeypatch.undo()
    for _ in range(3):  # and nobody can tell afterwards
        assert agent.learn(pipeline.collect()) == twin.learn(other.collect())


def test_epsilon_falls_on_a_straight_line_and_says_how_often_to_explore():
    agent = make("dqn", epsilon_start=0.9, epsilon_end=0.1, epsilon_decay_steps=128)
    agent.learn(window())
    assert agent._head.epsilon == pytest.approx(0.5)
    same = np.zeros((4000, 3), np.float32)
    greedy = agent.make_policy("greedy", num_envs=1, seed=0).act(same[:1])[0]
    assert (agent.act(same) == greedy).mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.03)
    for seed in (1, 2):
        agent.learn(window(seed=seed))
    assert agent._head.epsilon == pytest.approx(0.1)


def test_takes_single_observations_images_and_whole_numbers(name):
    for space in (BOX, spaces.Discrete(5), spaces.Box(0, 255, (4, 40, 40), np.uint8), spaces.Box(-1, 1, (2, 2))):
        agent = make(name, space)
        assert agent.act(space.sample()) in ACTIONS
        assert agent.act(np.stack([space.sample()] * 3)).shape == (3,)
        assert agent.replay.state()["observations"].dtype == (np.float32 if space.dtype == np.float64 else space.dtype)


def test_learns_from_images_that_stay_bytes(name):
    space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    agent = make(name, space, spaces.Discrete(2), learning_starts=4, batch_size=4)
    rng = np.random.default_rng(0)
    data = replace(
        window(num_steps=8, num_envs=1, ends=0.0),
        observations=rng.integers(0, 256, (8, 1, 1, 36, 36), np.uint8),
        actions=rng.integers(0, 2, (8, 1)),
        terminated=np.zeros((8, 1), bool),
        last_observation=rng.integers(0, 256, (1, 1, 36, 36), np.uint8),
        final_observations=np.zeros((0, 1, 36, 36), np.uint8),
        episode_returns=np.zeros(0),
        episode_lengths=np.zeros(0, int),
    )
    before = agent._weights()
    assert np.isfinite(list(agent.learn(data).values())).all()
    assert any((before[key] != value).any() for key, value in agent._weights().items())
    assert agent.host_policy() is None


def test_exported_numpy_policy_is_the_same_policy(name):
    agent, _ = cartpole(name)
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    own, exported = agent.make_policy("greedy", num_envs=200, seed=0), policy_from_tree(agent.host_policy())
    values = own._head.values(own.outputs(observations))
    np.testing.assert_allclose(exported._head.values(exported.outputs(observations)), values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(exported.act(observations), own.act(observations))


@pytest.mark.parametrize("hidden_sizes", [[16], [24, 16], [8, 24, 16]])
def test_the_chain_of_a_rainbow_network_is_the_network_with_its_gradients(hidden_sizes):
    agent = make("rainbow", hidden_sizes=hidden_sizes)
    runner = agent._runner.chosen
    assert isinstance(runner, DuelingRunner)
    agent._noise.draw(np.random.default_rng(0))
    runner.refresh()
    x, upstream = torch.randn(50, 3), torch.randn(50, 4 * 51)
    expected = agent.q_network(x)
    torch.testing.assert_close(runner.forward(x), expected, rtol=1e-4, atol=1e-5)
    by_hand, by_autograd = [], []
    for backward, found in ((runner.backward, by_hand), (expected.backward, by_autograd)):
        agent._parameters.gradient.zero_()
        backward(upstream.clone())
        found.extend(parameter.grad.clone() for parameter in agent.q_network.parameters())
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# ---- when it learns ---------------------------------------------------------------------------------------------


def test_updates_follow_environment_steps_exactly(name):
    agent = make(name, learning_starts=1, updates_per_step=0.3)
    for seed in range(5):
        agent.learn(window(num_steps=3, num_envs=1, seed=seed))
    assert (
        agent._num_updates == 4
    )  # of 4.5; Rainbow's first window holds one transition of three steps, which is enough


def test_the_target_follows_only_every_interval():
    agent = make("dqn", target_update_interval=16, learning_starts=1, updates_per_step=0.25)
    target = agent._target.parameters.vector
    first = target.clone()
    agent.learn(window(num_steps=30))
    assert agent._num_updates == 15
    assert torch.equal(target, first)
    agent.learn(window(num_steps=2, seed=1))
    assert agent._num_updates == 16
    assert torch.equal(target, agent._parameters.vector)


def test_priorities_are_used_where_asked_for():
    assert type(make("dqn").replay) is ReplayBuffer
    agent = make("dqn", per_alpha=0.6, n_step=3)
    assert isinstance(agent.replay, PrioritizedReplayBuffer)
    agent.learn(window())
    assert len(set(agent.replay.state()["priorities"])) > 10
    agent.set_hyperparams(HyperparamSet(params={"per_beta": 1.0, "gamma": 0.5}))
    agent.learn(window(seed=1))
    assert (agent.replay.beta, agent.replay.gamma) == (1.0, 0.5)


def test_weights_that_are_loaded_become_the_target_too(name, tmp_path):
    trained, _ = cartpole(name)
    trained.save_weights(tmp_path / "weights")
    agent = AGENTS[name].from_env(gym.make("CartPole-v1"), hyperparams=QUICK, seed=9)
    agent.load_weights(tmp_path / "weights")
    assert torch.equal(agent._target.parameters.vector, trained._parameters.vector)


def test_resumes_bit_for_bit_in_the_middle_of_n_steps(name):
    agent, pipeline = cartpole(name, n_step=4, per_alpha=0.5, capacity=100)
    windows = [pipeline.collect() for _ in range(5)]
    twin = AGENTS[name].from_env(
        gym.make("CartPole-v1"), hyperparams=QUICK | {"n_step": 4, "per_alpha": 0.5, "capacity": 100}, seed=5
    )
    twin.restore_training_state(agent.training_state())
    for window in windows:
        assert agent.learn(window) == twin.learn(window)
        observations = window.observations[0]
        np.testing.assert_array_equal(agent.act(observations), twin.act(observations))


def test_own_network_and_optimiser(name):
    outputs = 2 if name == "dqn" else 2 * 51
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    options = {} if name == "dqn" else {"action_space": spaces.Discrete(2)}
    agent = AGENTS[name](q_network=network, optimizer=optimizer, hyperparams={"learning_starts": 10}, **options)
    assert agent.get_hyperparams().params["learning_rate"] == 0.05
    before = network[0].weight.detach().clone()
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=16, seed=0)
    for _ in range(3):
        agent.learn(pipeline.collect())
    assert (network[0].weight != before).any()


def test_what_cannot_work_is_said_in_one_line():
    with pytest.raises(ValueError, match="v_min must be below v_max"):
        make("rainbow", v_min=3.0, v_max=3.0)
    with pytest.raises(ValueError, match="n_step is fixed"):
        make("dqn").set_hyperparams(HyperparamSet(params={"n_step": 2}))
    with pytest.raises(ValueError, match="another number"):
        TorchDQNAgent(q_network=nn.Linear(3, 3), action_space=ACTIONS)


def test_a_memory_that_is_full_before_learning_starts_is_refused():
    with pytest.raises(ValueError, match="never reached"):
        TorchDQNAgent.from_spaces(
            spaces.Box(-1, 1, (3,)), spaces.Discrete(2), hyperparams={"capacity": 100, "learning_starts": 100}
        )


def test_a_memory_of_ones_own_is_used_from_its_first_row_on(name):
    memory = ReplayBuffer(
        capacity=50, observation_shape=(3,), observation_dtype=np.float32, action_shape=(), action_dtype=np.int64
    )
    assert AGENTS[name].from_spaces(BOX, ACTIONS, replay=memory).replay is memory
