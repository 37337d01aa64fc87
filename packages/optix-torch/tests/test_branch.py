"""Branches of a training PPO agent: independent of the parent, reproducible among themselves."""

import gymnasium
import numpy as np
import pytest

from optix_core import ReturnEvaluator, VectorBatchPipeline, branch
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory, Variant
from optix_core.loop.counters import RunCounters
from optix_protocol import HyperparamSet
from optix_torch import TorchDQNAgent, TorchPPOAgent


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


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_the_laboratory_puts_a_learner_back_with_its_memory_and_its_environments(algorithm):
    options = {"dqn": {"learning_starts": 64, "capacity": 1000}, "ppo": {"num_epochs": 2}}[algorithm]
    states, rewards = [], []
    for experiments in (0, 2):
        agent = {"ppo": TorchPPOAgent, "dqn": TorchDQNAgent}[algorithm].from_env(
            gymnasium.make("CartPole-v1"), seed=0, hyperparams=options
        )
        pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=16, seed=5)
        arena = Arena(agent, pipeline.make_eval_env)
        laboratory = Laboratory(
            agent=agent, pipeline=pipeline, arena=arena, evaluator=ReturnEvaluator(), counters=RunCounters()
        )
        for _ in range(4):
            agent.learn(pipeline.collect())
        window = pipeline.collect()
        assert laboratory.can_branch
        for seed in range(experiments):
            slow, fast, again = laboratory.compare(
                [Variant(hyperparams={"learning_rate": rate}) for rate in (1e-5, 1e-1, 1e-5)],
                window=window, num_windows=3, episodes=3, seed=seed,
            )  # fmt: skip
            np.testing.assert_array_equal(slow.samples, again.samples)
            assert not np.array_equal(slow.samples, fast.samples)
        agent.learn(window)
        rewards.append(np.concatenate([_learned_from(agent, pipeline).observations for _ in range(6)]))
        state = agent.training_state()
        state.pop(
            "replay", None
        )  # rows that nothing reads may hold what a branch wrote; the updates above read the rest
        states.append(state)
        pipeline.close()
        arena.close()
    np.testing.assert_equal(states[0], states[1])
    np.testing.assert_array_equal(rewards[0], rewards[1])


def _learned_from(agent, pipeline):
    window = pipeline.collect()
    agent.learn(window)
    return window
