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
