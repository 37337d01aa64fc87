"""The pure part of PPO: loss, update, and what does not compile anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from optix_jax import FlaxPPOAgent
from optix_jax._learned import Batch
from optix_jax.algorithms import ppo
from optix_jax.algorithms.ppo_update import Settings, ppo_loss, ppo_update
from optix_jax.algorithms.ppo_update import _shuffled as shuffled
from optix_protocol import HyperparamSet
from optix_protocol.testing import random_window

SPACES = spaces.Box(-1, 1, (3,)), spaces.Discrete(4)


def make_agent(**hyperparams):
    return FlaxPPOAgent.from_spaces(*SPACES, seed=3, hyperparams={"hidden_sizes": [8], **hyperparams})


def make_batch(rows, rng, agent):
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    actions = rng.integers(0, 4, rows)
    log_probs, _, values = agent.model.judge(agent.networks.train_state.params, observations, actions)
    shifted = np.asarray(log_probs) + rng.normal(0, 0.2, rows).astype(np.float32)
    old = np.asarray(values) + rng.normal(0, 0.2, rows).astype(np.float32)
    advantages, returns = rng.normal(size=(2, rows)).astype(np.float32)
    return Batch(observations, actions, shifted, old, advantages, returns)


def num_steps(state):
    return int(state.opt_state.count)


def make_window(seed=0):
    return random_window(*SPACES, num_steps=8, num_envs=4, seed=seed)


@pytest.mark.parametrize("clip_range_value", [None, 0.1])
def test_loss_is_the_formula(clip_range_value):
    agent, rng = make_agent(clip_range_value=clip_range_value), np.random.default_rng(0)
    batch = make_batch(64, rng, agent)
    params = agent.networks.train_state.params
    loss, terms = ppo_loss(agent.model, params, batch, Settings.of(agent.hyperparams))

    log_probs, entropies, values = (np.float64(x) for x in agent.model.judge(params, *batch[:2]))
    ratio = np.exp(log_probs - batch.log_probs)
    policy = -np.minimum(ratio * batch.advantages, np.clip(ratio, 0.8, 1.2) * batch.advantages).mean()
    if clip_range_value is not None:
        values = batch.values + np.clip(values - batch.values, -0.1, 0.1)
    value = ((values - batch.returns) ** 2).mean()
    assert float(terms.policy_loss) == pytest.approx(policy, rel=1e-4, abs=1e-6)
    assert float(terms.value_loss) == pytest.approx(value, rel=1e-5)
    assert float(loss) == pytest.approx(policy - 0.01 * entropies.mean() + 0.5 * value, rel=1e-4)
    assert float(terms.clip_fraction) == pytest.approx((np.abs(ratio - 1) > 0.2).mean())


def test_rows_that_fill_up_change_nothing():
    agent, rng = make_agent(), np.random.default_rng(1)
    batch = make_batch(50, rng, agent)
    filled = jax.tree.map(
        lambda a: np.concatenate([a, np.full((14, *a.shape[1:]), 0 if a.dtype.kind == "i" else 7.0, a.dtype)]), batch
    )
    state, settings = agent.networks.train_state, Settings.of(agent.hyperparams)
    key = jax.random.PRNGKey(0)
    exact, _ = ppo_update(agent.model, state, batch, 50, settings, key, minibatch_size=64)
    padded, means = ppo_update(agent.model, state, filled, jnp.int32(50), settings, key, minibatch_size=64)
    assert np.isfinite(float(means.value_loss))
    for a, b in zip(jax.tree.leaves(exact.params), jax.tree.leaves(padded.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("rows", "size", "steps"), [(64, 16, 4), (50, 16, 4), (49, 16, 4), (16, 64, 1), (7, 1, 7)])
def test_every_epoch_takes_every_row_once(rows, size, steps):
    agent, rng = make_agent(num_epochs=3), np.random.default_rng(2)
    batch = make_batch(64, rng, agent)
    state, means = ppo_update(
        agent.model,
        agent.networks.train_state,
        batch,
        jnp.int32(rows),
        Settings.of(agent.hyperparams)._replace(max_grad_norm=np.float32(1e-12)),  # so that nothing moves
        jax.random.PRNGKey(0),
        minibatch_size=size,
    )
    assert num_steps(state) == 3 * steps
    if rows % steps == 0:  # minibatches of one size: the mean of their means is the mean over all rows
        first = jax.tree.map(lambda array: array[:rows], batch)
        _, whole = ppo_loss(agent.model, state.params, first, Settings.of(agent.hyperparams))
        assert float(means.value_loss) == pytest.approx(float(whole.value_loss), rel=1e-3)


def test_target_kl_stops_the_update():
    agent, rng = make_agent(num_epochs=10, learning_rate=0.05), np.random.default_rng(3)
    batch = make_batch(64, rng, agent)
    args = (agent.model, agent.networks.train_state, batch, 64)
    settings, key = Settings.of(agent.hyperparams), jax.random.PRNGKey(0)
    free, _ = ppo_update(*args, settings, key, minibatch_size=16)
    held, _ = ppo_update(*args, settings._replace(target_kl=np.float32(0.05)), key, minibatch_size=16)
    assert num_steps(free) == 40
    assert 0 < num_steps(held) < 40


def test_adaptive_kl_moves_the_learning_rate():
    agent, rng = make_agent(num_epochs=1, learning_rate=0.003), np.random.default_rng(4)
    batch, key = make_batch(64, rng, agent), jax.random.PRNGKey(0)
    for target, factor in ((1e-6, 1 / 1.5), (100.0, 1.5)):
        settings = Settings.of(agent.hyperparams)._replace(adaptive_kl=np.float32(target))
        state, _ = ppo_update(agent.model, agent.networks.train_state, batch, 64, settings, key, minibatch_size=64)
        assert float(state.learning_rate) == pytest.approx(0.003 * factor, rel=1e-5)


def test_a_hundred_hyperparameter_changes_compile_nothing():
    agent, rng = make_agent(num_epochs=1, minibatch_size=16), np.random.default_rng(5)
    agent.learn(make_window())
    before = ppo.update.num_traces
    for _ in range(100):
        agent.set_hyperparams(
            HyperparamSet(
                params={
                    "learning_rate": float(10 ** rng.uniform(-5, -2)),
                    "clip_range": float(rng.uniform(0.05, 0.4)),
                    "entropy_coef": float(rng.uniform(0, 0.1)),
                    "value_coef": float(rng.uniform(0.1, 1)),
                    "gamma": float(rng.uniform(0.9, 1)),
                    "gae_lambda": float(rng.uniform(0.8, 1)),
                    "num_epochs": int(rng.integers(1, 5)),
                    "max_grad_norm": float(rng.uniform(0.1, 10)),
                    "normalize_advantage": bool(rng.integers(2)),
                }
            )
        )
        agent.learn(make_window(seed=int(rng.integers(1000))))  # nor does another number of valid rows or ends
    assert ppo.update.num_traces == before


def test_hyperparameters_reach_the_update():
    def learned(**changes):
        agent = make_agent(num_epochs=1, minibatch_size=16)
        agent.set_hyperparams(HyperparamSet(params=changes))
        agent.learn(make_window(seed=6))
        return np.concatenate([leaf.ravel() for leaf in agent.networks.weights().values()])

    usual = learned()
    changes = {
        "learning_rate": 1e-2,
        "clip_range": 0.001,
        "entropy_coef": 1.0,
        "value_coef": 5.0,
        "gamma": 0.5,
        "gae_lambda": 0.1,
        "num_epochs": 2,
        "max_grad_norm": 1e-3,
        "normalize_advantage": False,
        "clip_range_value": 1e-4,
        "minibatch_size": 8,
    }
    for name, value in changes.items():
        far = {"num_epochs": 3, "learning_rate": 3e-3}  # clipping matters only to policies that have moved
        assert not np.array_equal(learned(**far), learned(**{**far, name: value})), name
    assert np.array_equal(usual, learned())


@pytest.mark.parametrize(("total", "rows"), [(64, 64), (50, 50), (50, 37), (1, 1), (20_000, 19_000)])
def test_orders_are_permutations_with_the_filling_behind(total, rows):
    orders = [np.asarray(shuffled(jax.random.PRNGKey(i), total, jnp.int32(rows))) for i in range(3)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(total))
        assert np.array_equal(np.sort(order[:rows]), np.arange(rows))
    if rows > 30:
        assert not np.array_equal(orders[0], orders[1])
        assert abs(np.corrcoef(orders[0][:rows], np.arange(rows))[0, 1]) < 0.5


def test_every_row_comes_first_equally_often():
    first = jax.vmap(lambda key: shuffled(key, 8, 8)[0])(jax.random.split(jax.random.PRNGKey(0), 8000))
    counts = np.bincount(np.asarray(first), minlength=8)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
