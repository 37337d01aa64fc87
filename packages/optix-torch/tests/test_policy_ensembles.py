"""Ensembles of torch's agents: valid actions, and a primary agent that learns from what the ensemble really did."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from optix_core import BatchPipeline, CheckpointRegistry, EnsembleAgent, PolicyManager, RLOptimizer, VectorBatchPipeline
from optix_torch import (
    TorchAgent,
    TorchDQNAgent,
    TorchGaussianPPOAgent,
    TorchPPOAgent,
    TorchRecurrentPPOAgent,
    TorchSACAgent,
    TorchTD3Agent,
)

SMALL = {"hidden_sizes": (16,)}


def make(kind, env, seed=0, **hyperparams):
    return kind.from_env(env, seed=seed, hyperparams={**SMALL, **hyperparams})


@pytest.fixture
def ensemble(tmp_path):
    def of(*agents, weights=None):
        manager = PolicyManager(CheckpointRegistry(tmp_path / str(id(agents)), 4))
        for agent, weight in zip(agents, weights or [1.0] * len(agents), strict=True):
            manager.add_agent(agent, weight=weight)
        return EnsembleAgent(manager, agents[0])

    return of


def sharpened(agent, towards):
    """Let an agent want one action and no other."""
    with torch.no_grad():
        agent.actor[-1].weight.zero_()
        agent.actor[-1].bias.copy_(torch.tensor(towards))
    return agent


def act_all(agent, env, num_steps):
    """Step an environment by sampled actions, every one of them checked; return them."""
    policy = agent.make_policy("sample", num_envs=1, seed=0)
    observation, _ = env.reset(seed=0)
    taken = []
    for _ in range(num_steps):
        action = policy.act(observation[None])[0]
        valid = env.action_space.dtype.type(action) if env.action_space.shape == () else action
        assert env.action_space.contains(valid), action
        taken.append(valid)
        observation, _, over, late, _ = env.step(valid)
        if over or late:
            observation, _ = env.reset()
    return np.array(taken)


def test_members_of_another_task_are_refused(ensemble):
    cart_pole, pendulum = gym.make("CartPole-v1"), gym.make("Pendulum-v1")
    ppo = make(TorchPPOAgent, cart_pole)
    with pytest.raises(ValueError, match=r"observations \(6,\)"):
        ensemble(ppo, make(TorchPPOAgent, gym.make("Acrobot-v1")))
    with pytest.raises(ValueError, match="other tasks"):
        ensemble(ppo, make(TorchSACAgent, pendulum))
    with pytest.raises(ValueError, match="3 discrete actions from 0"):
        ensemble(ppo, TorchPPOAgent.from_env((cart_pole.observation_space, gym.spaces.Discrete(3))))
    with pytest.raises(ValueError, match="before tanh"):  # their means are not of one kind
        ensemble(make(TorchGaussianPPOAgent, pendulum), make(TorchSACAgent, pendulum))
    ensemble(ppo, make(TorchDQNAgent, cart_pole))


CASES = [
    ("CartPole-v1", TorchPPOAgent, {}),
    ("CartPole-v1", TorchDQNAgent, {"learning_starts": 0}),
    ("Pendulum-v1", TorchSACAgent, {"learning_starts": 0}),
    ("Pendulum-v1", TorchTD3Agent, {"learning_starts": 0}),
    ("Pendulum-v1", TorchGaussianPPOAgent, {}),
]


@pytest.mark.parametrize(("env_id", "kind", "settings"), CASES)
@pytest.mark.parametrize("num_steps", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_every_action_is_valid(ensemble, env_id, kind, settings, num_steps):
    env = gym.make(env_id)
    agents = [make(kind, env, seed, **settings) for seed in range(3)]
    both = ensemble(*agents, weights=[0.2, 0.5, 3.0])
    act_all(both, env, num_steps)
    window = VectorBatchPipeline(env_id, both, n_envs=2, window_size=32).collect()  # acts and learns like any agent
    assert all(np.isfinite(value) for value in both.learn(window).values())


def test_hostile_members_on_discrete_actions(ensemble):
    env = gym.make("CartPole-v1")
    left = sharpened(make(TorchPPOAgent, env, 0), [50.0, -50.0])
    right = sharpened(make(TorchPPOAgent, env, 1), [-50.0, 50.0])
    taken = act_all(ensemble(left, right), env, 1_000)
    assert 0.4 < taken.mean() < 0.6
    assert act_all(ensemble(left, right, weights=[3.0, 1.0]), env, 1_000).mean() < 0.01


def test_hostile_members_on_continuous_actions(ensemble):
    """Between full left and full right lies doing nothing, which neither wants."""
    env = gym.make("Pendulum-v1")
    left = sharpened(make(TorchSACAgent, env, 0, learning_starts=0), [-3.0, -6.0])
    right = sharpened(make(TorchSACAgent, env, 1, learning_starts=0), [3.0, -6.0])
    taken = act_all(ensemble(left, right), env, 1_000)
    assert (np.abs(taken) > 1.8).all()


def test_the_critic_decides_between_members_that_disagree(ensemble):
    env = gym.make("Pendulum-v1")
    left = sharpened(make(TorchSACAgent, env, 0, learning_starts=0), [-3.0, -6.0])
    right = sharpened(make(TorchSACAgent, env, 1, learning_starts=0), [3.0, -6.0])
    both = ensemble(left, right)
    observations = np.stack([env.observation_space.sample() for _ in range(64)])
    values = [left.action_values(observations, np.full((64, 1), 2 * math.tanh(a), np.float32)) for a in (-3.0, 3.0)]
    chosen = both.make_policy("greedy", num_envs=64, seed=0).act(observations)[:, 0]
    assert np.array_equal(chosen > 0, values[1] > values[0])


def reference(agent, both, window):
    """PPO's diagnostics at the first step, slowly: its ratio is ours now over the ensemble's then."""
    ours, theirs = [], []
    for t in range(window.num_steps):
        for n in np.flatnonzero(window.valid[t]):
            observation, action = window.observations[t, n], window.actions[t, n]
            members = [m.agent.action_distribution(observation[None]) for m in both.manager.members]
            own = agent.action_distribution(observation[None])
            if own.log_probs is not None:
                ours.append(float(own.log_probs[0, action]))
                joint = [
                    sum(w * float(d.log_probs[0, a]) for w, d in zip(both.manager.weights, members, strict=True))
                    for a in range(own.log_probs.shape[1])
                ]
                theirs.append(joint[action] - math.log(sum(math.exp(x) for x in joint)))
                continue
            # Members of the same spread, whose means lie close together: they agree.
            scale = 2.0  # of Pendulum's range
            mean = sum(w * float(d.mean[0, 0]) for w, d in zip(both.manager.weights, members, strict=True)) / scale
            std = math.sqrt(
                sum(w * float(d.std[0, 0]) ** 2 for w, d in zip(both.manager.weights, members, strict=True))
            )
            std /= scale
            a, own_mean, own_std = float(action[0]) / scale, float(own.mean[0, 0]) / scale, float(own.std[0, 0]) / scale

            def log_density(x, m, s):
                return -0.5 * ((x - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)

            def below(x, mean=mean, std=std):
                return 0.5 * math.erfc(-(x - mean) / std / math.sqrt(2))

            ours.append(log_density(a, own_mean, own_std))
            theirs.append(log_density(a, mean, std) - math.log(below(1.0) - below(-1.0)))
    log_ratio = np.array(ours) - np.array(theirs)
    ratio = np.exp(log_ratio)
    return {"approx_kl": (ratio - 1 - log_ratio).mean(), "clip_fraction": (np.abs(ratio - 1) > 0.2).mean()}, theirs


@pytest.mark.parametrize(("env_id", "kind"), [("CartPole-v1", TorchPPOAgent), ("Pendulum-v1", TorchGaussianPPOAgent)])
def test_the_primary_agent_learns_with_the_behaviour_of_the_ensemble(ensemble, env_id, kind):
    env = gym.make(env_id)
    settings = {"num_epochs": 1, "minibatch_size": 10_000, "learning_rate": 1e-9}
    primary, other = make(kind, env, 0, **settings), make(kind, env, 1, **settings)
    if kind is TorchPPOAgent:  # far from each other
        sharpened(other, [1.0, -1.0])
    both = ensemble(primary, other, weights=[1.0, 2.0])
    window = VectorBatchPipeline(env_id, both, n_envs=4, window_size=40, seed=0).collect()
    expected, behaviour = reference(primary, both, window)
    assert window.flat(both.behaviour_log_probs(window)) == pytest.approx(behaviour, abs=2e-5)
    found = both.learn(window)
    assert found["approx_kl"] == pytest.approx(expected["approx_kl"], rel=1e-3, abs=1e-6)
    assert found["clip_fraction"] == pytest.approx(expected["clip_fraction"], abs=1e-6)
    assert expected["approx_kl"] > 1e-4  # an agent that takes the actions for its own finds 0
    if kind is TorchPPOAgent:
        assert expected["approx_kl"] > 0.05


def test_it_trains_saves_and_comes_back(ensemble, tmp_path):
    env = gym.make("CartPole-v1")
    both = ensemble(make(TorchPPOAgent, env, 0), make(TorchPPOAgent, env, 1), weights=[1.0, 0.5])
    observations = np.stack([env.observation_space.sample() for _ in range(32)]).clip(-3, 3)
    path = tmp_path / "weights.safetensors"
    both.save_weights(path)
    before = both.action_distribution(observations).log_probs
    run = RLOptimizer(
        both, BatchPipeline(env, both, window_size=128), max_env_steps=1_000, checkpoint_dir=tmp_path / "run"
    )
    assert run.run().train_env_steps > 800
    other = ensemble(make(TorchPPOAgent, env, 7), make(TorchPPOAgent, env, 8))
    other.load_weights(path)
    assert np.array_equal(other.action_distribution(observations).log_probs, before)
    assert other.manager.weights == pytest.approx((2 / 3, 1 / 3))
    make(TorchPPOAgent, env).save_weights(path)
    with pytest.raises(ValueError, match="no ensemble"):
        other.load_weights(path)


def test_training_goes_on_exactly_from_its_state(ensemble):
    def begin():
        env = gym.make("CartPole-v1")
        both = ensemble(make(TorchPPOAgent, env, 0), make(TorchPPOAgent, env, 1))
        return both, VectorBatchPipeline("CartPole-v1", both, n_envs=2, window_size=32, seed=0)

    (ours, here), (theirs, there) = begin(), begin()
    for _ in range(2):
        ours.learn(here.collect())
    theirs.restore_training_state(ours.training_state())
    there.restore_pipeline_state(here.pipeline_state())
    for _ in range(2):
        windows = here.collect(), there.collect()
        assert np.array_equal(windows[0].actions, windows[1].actions)
        assert ours.learn(windows[0]) == theirs.learn(windows[1])


def test_what_cannot_be_joined_is_refused_with_the_reason(ensemble):
    env = gym.make("CartPole-v1")
    with pytest.raises(ValueError, match="PPO"):
        ensemble(make(TorchAgent, env, 0), make(TorchPPOAgent, env, 1))
    with pytest.raises(ValueError, match="memory"):
        ensemble(make(TorchPPOAgent, env, 0), TorchRecurrentPPOAgent.from_env(env))


@pytest.mark.parametrize(
    ("env_id", "kind", "is_hostile"),
    [
        ("CartPole-v1", TorchPPOAgent, False),
        ("CartPole-v1", TorchDQNAgent, False),
        ("Pendulum-v1", TorchGaussianPPOAgent, False),
        ("Pendulum-v1", TorchGaussianPPOAgent, True),
        ("Pendulum-v1", TorchSACAgent, False),
    ],
)
def test_an_ensemble_is_one_onnx_model(ensemble, tmp_path, env_id, kind, is_hostile):
    onnxruntime = pytest.importorskip("onnxruntime")
    env = gym.make(env_id)
    agents = [make(kind, env, seed) for seed in range(3)]
    if is_hostile:
        sharpened(agents[0], [-0.9])
        sharpened(agents[1], [0.9])
    both = ensemble(*agents, weights=[0.2, 0.5, 0.4])
    both.export_onnx(tmp_path / "ensemble.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "ensemble.onnx")
    observations = np.stack([env.observation_space.sample() for _ in range(64)]).clip(-3, 3)
    (actions,) = session.run(["action"], {"observation": observations})
    expected = both.make_policy("greedy", num_envs=64, seed=0).act(observations)
    assert actions == pytest.approx(expected, abs=1e-5)
