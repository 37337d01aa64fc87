"""Branches of a training PPO agent: independent of the parent, reproducible among themselves."""

import gymnasium
import numpy as np

from optix_core import VectorBatchPipeline, branch
from optix_protocol import HyperparamSet
from optix_torch import TorchPPOAgent


def make_agent(seed):
    return TorchPPOAgent.from_env(gymnasium.make("CartPole-v1"), seed=seed, hyperparams={"num_epochs": 2})


def train(agent, *, num_windows):
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=32, seed=5)
    for number, window in zip(range(1, num_windows + 1), pipeline.windows(), strict=False):
        agent.learn(window)
        pipeline.policy_changed(policy_version=number, hyperparam_version=0)
    pipeline.close()


def test_a_branch_trained_otherwise_leaves_its_parent_untouched_and_equal_branches_stay_equal():
    parent = make_agent(0)
    train(parent, num_windows=3)
    state = parent.training_state()
    before = branch(state)

    def sibling(seed, **changed):
        agent = make_agent(seed)
        agent.restore_training_state(branch(state))
        agent.set_hyperparams(HyperparamSet(params=changed))
        train(agent, num_windows=3)
        return agent.training_state()

    first, other, second = sibling(1), sibling(2, learning_rate=3e-3), sibling(3)
    np.testing.assert_equal(first, second)
    assert not np.array_equal(first["weights"]["actor.0.weight"], other["weights"]["actor.0.weight"])
    np.testing.assert_equal(state, before)
    np.testing.assert_equal(parent.training_state(), before)
