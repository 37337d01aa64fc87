"""PPO of every framework takes the log-probabilities of whoever acted for those of the behaviour, where it is told."""

from dataclasses import replace

import numpy as np
import pytest

from optix_core import VectorBatchPipeline, make_agent

SETTINGS = {"num_epochs": 1, "minibatch_size": 10_000, "learning_rate": 1e-9, "hidden_sizes": (8,)}


def learner(framework):
    return make_agent("PPO", "CartPole-v1", framework=framework, hyperparams=SETTINGS, seed=0)


@pytest.mark.parametrize("framework", ["torch", "jax", "tf"])
def test_the_ratio_is_that_of_the_behaviour(framework):
    """At the first step nothing has been learned: the ratio is the policy's probability over the behaviour's."""
    window = VectorBatchPipeline("CartPole-v1", learner(framework), n_envs=2, window_size=30, seed=0).collect()
    rows = window.observations.reshape(60, 4)
    own = learner(framework).action_distribution(rows).log_probs
    own = np.take_along_axis(own, window.actions.reshape(60, 1).astype(np.int64), 1).reshape(30, 2)
    behaviour = own + np.random.default_rng(0).normal(0, 0.5, own.shape).astype(np.float32)
    log_ratio = window.flat(own - behaviour).astype(np.float64)
    told = learner(framework).learn(replace(window, behaviour_log_probs=behaviour))
    assert told["approx_kl"] == pytest.approx((np.exp(log_ratio) - 1 - log_ratio).mean(), rel=1e-3)
    assert told["clip_fraction"] == pytest.approx((np.abs(np.exp(log_ratio) - 1) > 0.2).mean(), abs=1e-6)
    assert learner(framework).learn(window)["approx_kl"] == pytest.approx(0.0, abs=1e-6)


# ---- V-trace ---------------------------------------------------------------------------------------------------------


def lagged(framework, algorithm, env_id, shift):
    """Learn once from a window whose actions were ``exp(shift)`` times as probable for whoever acted."""
    hyperparams = {"learning_rate": 1e-9, "normalize_advantage": False, "hidden_sizes": (8,), "entropy_coef": 0.0}
    if algorithm == "ppo":
        hyperparams |= {"num_epochs": 1, "minibatch_size": 10_000}
    agent = make_agent(algorithm, env_id, framework=framework, hyperparams=hyperparams, seed=0)
    window = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=30, seed=0).collect()
    own = agent.action_distribution(window.observations.reshape(60, -1))
    if own.log_probs is not None:
        log_probs = np.take_along_axis(own.log_probs, window.actions.reshape(60, 1).astype(np.int64), 1)
    else:
        scale = 2.0  # Pendulum's torque reaches from -2 to 2
        z = (window.actions.reshape(60, 1) - own.mean) / own.std
        log_probs = -0.5 * z**2 - np.log(own.std / scale) - 0.5 * np.log(2 * np.pi)
    agent.correct_lag()
    behaviour = log_probs.reshape(30, 2) + np.float32(shift)
    return agent.learn(replace(window, behaviour_log_probs=behaviour))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_v_trace_weighs_what_another_policy_did(framework, algorithm, env_id):
    """Actions twice as probable for the actor count half; those that it found less probable count once, no more."""
    own, rarer, likelier = (lagged(framework, algorithm, env_id, shift) for shift in (0.0, -3.0, 12.0))
    assert rarer["policy_loss"] == pytest.approx(own["policy_loss"], rel=1e-3, abs=1e-6)
    assert rarer["value_loss"] == pytest.approx(own["value_loss"], rel=1e-3)
    assert abs(likelier["policy_loss"]) < 1e-3 * max(abs(own["policy_loss"]), 0.01)
    assert likelier["value_loss"] < 1e-3 * own["value_loss"]  # the values stay as they are
    if algorithm == "ppo":
        assert likelier["approx_kl"] == pytest.approx(0.0, abs=1e-6)  # its ratio is to its own policy


def test_a_memory_is_corrected_too():
    agent = make_agent("recurrent_ppo", "CartPole-v1", hyperparams={"hidden_sizes": (8,), "cell_size": 8}, seed=0)
    window = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=30, seed=0).collect()
    agent.correct_lag()
    found = agent.learn(replace(window, behaviour_log_probs=np.full((30, 2), 12.0)))
    assert found["value_loss"] < 1e-3
