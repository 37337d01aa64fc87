"""The agents around the mathematics: users' networks, optimisers, subclasses, the compilation cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from gymnasium import spaces

from optix_core.agents import specs
from optix_core.errors import ConfigError
from optix_core.policies import policy_from_tree
from optix_jax import FlaxAgent, FlaxEvaluator, FlaxGaussianPPOAgent, FlaxPPOAgent, _compilation
from optix_protocol import EpisodeData, HyperparamSet
from optix_protocol.testing import random_window

BOX, DISCRETE = spaces.Box(-1, 1, (3,)), spaces.Discrete(4)

window = functools.partial(random_window, BOX, DISCRETE, num_steps=8, num_envs=4)


class LinenNet(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(nn.relu(nn.Dense(8)(x)))


class NnxNet(nnx.Module):
    def __init__(self, width, seed):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(3, 8, rngs=rngs)
        self.last = nnx.Linear(8, width, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


@pytest.mark.parametrize("nets", [lambda: (LinenNet(4), LinenNet(1)), lambda: (NnxNet(4, 0), NnxNet(1, 1))])
def test_users_own_networks(nets, tmp_path):
    actor, critic = nets()

    def make(seed):
        return FlaxPPOAgent(actor=actor, critic=critic, observation_space=BOX, action_space=DISCRETE, seed=seed)

    agent, rows = make(0), np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    before = agent.action_distribution(rows).log_probs
    assert before.shape == (5, 4)
    agent.learn(window())
    after = agent.action_distribution(rows).log_probs
    assert not np.allclose(before, after)
    assert agent.host_policy() is None
    agent.save_weights(tmp_path / "weights")
    other = make(1)
    other.learn(window(seed=1))
    other.load_weights(tmp_path / "weights")
    assert np.array_equal(other.action_distribution(rows).log_probs, after)


def test_the_numpy_policy_is_the_network():
    agent = FlaxPPOAgent.from_spaces(BOX, DISCRETE, seed=1)
    agent.learn(window())
    rows = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    outputs = agent.model.actor(agent.networks.train_state.params["actor"], jnp.asarray(rows))
    np.testing.assert_allclose(agent.networks.act(rows), outputs, atol=1e-5)
    host = policy_from_tree(agent.host_policy(), mode="greedy")
    assert np.array_equal(host.act(rows), np.asarray(outputs).argmax(1))


def test_gaussian_actions_span_the_range():
    space = spaces.Box(np.array([0.0, -10.0], np.float32), np.array([4.0, 10.0], np.float32))
    agent = FlaxGaussianPPOAgent.from_spaces(BOX, space, seed=0)
    found = agent.action_distribution(np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(found.mean, [[2.0, 0.0]], atol=0.2)
    np.testing.assert_allclose(found.std, [[2.0, 10.0]])
    with pytest.raises(ConfigError, match="Box"):
        FlaxGaussianPPOAgent.from_spaces(BOX, DISCRETE)


def test_users_optimiser():
    def make(optimizer, **hyperparams):
        return FlaxPPOAgent(
            actor=LinenNet(4),
            critic=LinenNet(1),
            optimizer=optimizer,
            observation_space=BOX,
            action_space=DISCRETE,
            hyperparams={"num_epochs": 1, **hyperparams},
        )

    def moved(agent):
        before = agent.networks.weights()
        agent.learn(window())
        return sum(np.abs(after - before[name]).sum() for name, after in agent.networks.weights().items())

    adam = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    assert moved(make(adam, learning_rate=1e-3)) > 20 * moved(make(adam, learning_rate=1e-5)) > 0
    fixed = make(optax.sgd(0.1))
    assert moved(fixed) > 0
    with pytest.raises(ConfigError, match="inject_hyperparams"):
        fixed.set_hyperparams(HyperparamSet(params={"learning_rate": 0.5}))


def test_what_does_not_fit():
    nets = {"actor": LinenNet(4), "critic": LinenNet(1)}
    with pytest.raises(ConfigError, match="action_space"):
        FlaxPPOAgent(**nets, observation_space=BOX)
    with pytest.raises(ConfigError, match="observation_space"):
        FlaxPPOAgent(**nets, action_space=DISCRETE)
    with pytest.raises(ConfigError, match="actor must return"):
        FlaxPPOAgent(**nets, observation_space=BOX, action_space=spaces.Discrete(3))
    with pytest.raises(ConfigError, match="no flax module"):
        FlaxPPOAgent(actor=print, critic=LinenNet(1), observation_space=BOX, action_space=DISCRETE)
    with pytest.raises(ConfigError, match="no device"):
        FlaxPPOAgent.from_spaces(BOX, DISCRETE, device="abacus")


class Imitator(FlaxAgent):
    """Pulls the policy towards action 2, whatever is earned."""

    @staticmethod
    def loss(model, params, batch, weights, hyperparams):
        log_probs, _, _ = model.judge(params, batch.observations, jnp.full_like(batch.actions, 2))
        loss = -jnp.sum(weights * log_probs)
        return loss, {"imitation": loss}


def test_a_subclass_with_a_loss_of_its_own():
    agent = Imitator.from_spaces(BOX, DISCRETE, hyperparams={"learning_rate": 0.02})
    losses = [agent.learn(window(seed=i))["imitation"] for i in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    rows = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    assert np.array_equal(agent.make_policy("greedy", num_envs=9, seed=0).act(rows), np.full(9, 2))


def test_networks_that_share_a_layer_are_refused_in_a_line():
    actor, critic = NnxNet(2, 0), NnxNet(1, 1)
    critic.first = actor.first
    with pytest.raises(ValueError, match="Two networks share a layer"):
        FlaxPPOAgent(actor=actor, critic=critic, observation_space=BOX, action_space=spaces.Discrete(2))


@pytest.mark.parametrize("critic", [None, LinenNet(1)])
def test_policy_gradient_follows_the_reward(critic):
    agent = FlaxAgent(
        actor=LinenNet(4),
        critic=critic,
        observation_space=BOX,
        action_space=DISCRETE,
        hyperparams={"learning_rate": 0.02},
    )
    assert set(agent.get_hyperparams().params) <= set(specs.A2C)
    rng = np.random.default_rng(0)
    for _ in range(60):
        observations = rng.normal(size=(16, 8, 3)).astype(np.float32)
        actions = agent.act(observations.reshape(-1, 3)).reshape(16, 8)
        agent.learn(_one_step_episodes(observations, actions, (actions == 1).astype(np.float32)))
    rows = rng.normal(size=(200, 3)).astype(np.float32)
    assert (agent.act(rows) == 1).mean() > 0.8


def _one_step_episodes(observations, actions, rewards):
    ended = np.ones(rewards.shape, bool)
    return EpisodeData(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=ended,
        truncated=~ended,
        valid=ended,
        last_observation=observations[0],
        final_observations=observations.reshape(-1, 3),
        episode_returns=rewards.reshape(-1).astype(np.float64),
        episode_lengths=np.ones(rewards.size, np.int64),
    )


def test_compiled_code_is_kept_only_where_that_is_safe(tmp_path, monkeypatch):
    use = _compilation.use_persistent_cache.__wrapped__
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("OPTIX_JAX_CACHE", "off")
        assert use() is None
        monkeypatch.setenv("OPTIX_JAX_CACHE", str(tmp_path / "cache"))
        assert use().is_relative_to(tmp_path / "cache")
        jax.config.update("jax_compilation_cache_dir", None)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("OPTIX_JAX_CACHE", str(tmp_path / "file"))  # no directory can be made there
        assert use() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_import_is_cheap():
    import subprocess
    import sys

    code = "import sys, optix_jax, optix_jax.backend as b; b.create().algorithms(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluator_by_a_goal_of_ones_own():
    def share_of_positive(rewards, terminated, truncated, valid):
        del terminated, truncated
        return jnp.sum((rewards > 0) & valid) / valid.sum()

    seen = window()
    found = FlaxEvaluator(share_of_positive).score(seen, {"loss": 0.5, "kl": float("nan")})
    assert found.primary_score == pytest.approx((seen.rewards > 0)[seen.valid].mean())
    assert found.metrics["train/loss"] == 0.5 and "train/kl" not in found.metrics
    assert FlaxEvaluator(lambda *_: jnp.nan).score(seen, {}) is None
    assert FlaxEvaluator().score(seen, {}).primary_score == seen.episode_returns.mean()
