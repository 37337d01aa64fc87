"""The laboratory goes other ways from an exact state, and nobody can tell afterwards."""

import gymnasium as gym
import numpy as np
import pytest

from optix_core import ReturnEvaluator, VectorBatchPipeline
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory, Variant
from optix_core.loop.counters import RunCounters


@pytest.fixture
def learner(skill_agent):
    class Learner(skill_agent):
        """Learns in place, at a rate that can be changed, with random numbers for learning and exploring."""

        def __init__(self):
            super().__init__(lambda k: 0.0, rate=0.05)
            self.momentum, self.rng = np.zeros(3), np.random.default_rng(0)

        def act(self, observation):
            return super().act(observation) + 0.01 * self.rng.standard_normal()

        def learn(self, episode_data):
            if self.params["rate"] > 10:
                return {"loss": np.nan}
            self.learned += 1
            self.momentum += self.rng.standard_normal(3) * episode_data.rewards.std()
            self.skill += self.params["rate"] * (1.0 - self.skill + 0.01 * self.momentum.sum())
            return {"loss": float(self.skill)}

        def training_state(self):  # as careless as can be: nothing is copied
            rng = self.rng.bit_generator.state
            return {**vars(self), "rng": rng, "curve": None}

        def restore_training_state(self, state):
            self.rng.bit_generator.state = state["rng"]
            vars(self).update({name: state[name] for name in ("params", "learned", "skill", "momentum")})

    return Learner


@pytest.fixture
def at_work(learner, skill_env):
    """Return a laboratory in the middle of a run, and the window that the agent would learn from next."""

    def make(*, with_arena=True, evaluator=None):
        agent = learner()
        pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.3), agent, n_envs=5, window_size=6, seed=2)
        for _ in range(4):
            agent.learn(pipeline.collect())
        window = pipeline.collect()
        arena = Arena(agent, pipeline.make_eval_env if with_arena else lambda _: None)
        counters = RunCounters(policy_version=4, hyperparam_version=1)
        laboratory = Laboratory(
            agent=agent, pipeline=pipeline, arena=arena, evaluator=evaluator or ReturnEvaluator(), counters=counters
        )
        return laboratory, window

    return make


RATES = [Variant(), Variant(hyperparams={"rate": 0.5}), Variant(hyperparams={"rate": 0.0}), Variant()]


def compare(laboratory, window, variants=RATES, **changes):
    return laboratory.compare(variants, **{"window": window, "num_windows": 3, "episodes": 6, "seed": 7, **changes})


def test_nobody_can_tell_afterwards(at_work):
    laboratory, window = at_work()
    untouched, same_window = at_work()
    assert laboratory.can_branch
    compare(laboratory, window)
    for lab, seen in ((laboratory, window), (untouched, same_window)):
        lab.agent.learn(seen)
    for _ in range(5):
        ours, theirs = laboratory.pipeline.collect(), untouched.pipeline.collect()
        for name in ("observations", "actions", "rewards", "terminated", "episode_returns"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert laboratory.agent.learn(ours) == untouched.agent.learn(theirs)
    ours, theirs = laboratory.agent.training_state(), untouched.agent.training_state()
    np.testing.assert_equal(ours, theirs)
    window = laboratory.pipeline.collect()
    assert (window.policy_version, window.hyperparam_version) == (4, 1)  # as the run stamps them


def test_branches_are_paired_and_one_without_changes_is_the_runs_own_future(at_work):
    laboratory, window = at_work()
    base, fast, still, again = compare(laboratory, window)
    np.testing.assert_array_equal(base.samples, again.samples)
    assert base.samples.shape == (6,)
    assert (fast.samples > base.samples).all() and (still.samples < base.samples).all()  # pair by pair: common seeds
    future, window = at_work()
    for _ in range(2):
        future.agent.learn(window)
        window = future.pipeline.collect()
    future.agent.learn(window)
    np.testing.assert_array_equal(base.samples, future.arena.returns(6, 7))


def test_what_it_costs_is_on_the_bill_of_the_search_and_not_of_the_evaluation(at_work):
    laboratory, window = at_work()
    outcomes = compare(laboratory, window)
    played = 6 * 4
    assert [outcome.num_env_steps for outcome in outcomes] == [2 * 30 + played] * 4
    assert laboratory.counters.search_env_steps == 4 * (60 + played)
    assert laboratory.arena.num_env_steps == 0


def test_without_a_place_to_play_the_windows_decide(at_work):
    laboratory, window = at_work(with_arena=False)
    base, fast, *_ = compare(laboratory, window, episodes=0)
    assert base.samples.shape == (3,)
    assert fast.samples[-1] > base.samples[-1]


def test_a_branch_may_begin_other_episodes(at_work):
    laboratory, window = at_work()
    same, one, other, one_again = compare(
        laboratory, window, [Variant(), Variant(seed=1), Variant(seed=2), Variant(seed=1)], episodes=0
    )
    np.testing.assert_array_equal(one.samples, one_again.samples)
    assert not np.array_equal(one.samples, other.samples) and not np.array_equal(one.samples, same.samples)
    untouched, _ = at_work()
    np.testing.assert_array_equal(laboratory.pipeline.collect().rewards, untouched.pipeline.collect().rewards)


def test_a_branch_that_breaks_is_told_of_and_costs_the_others_nothing(at_work):
    laboratory, window = at_work()
    base, broken, again = compare(laboratory, window, [Variant(), Variant(hyperparams={"rate": 11.0}), Variant()])
    assert np.isnan(broken.samples).all() and "loss" in broken.damage
    np.testing.assert_array_equal(base.samples, again.samples)
    with pytest.raises(ValueError, match="unknown"):  # the agent's own complaint, with everything put back
        compare(laboratory, window, [Variant(hyperparams={"pace": 1.0})])
    np.testing.assert_array_equal(compare(laboratory, window, [Variant()])[0].samples, base.samples)


def test_it_knows_what_cannot_be_brought_back(at_work, skill_env, skill_agent):
    laboratory, _ = at_work()
    laboratory.agent = skill_agent()
    assert not laboratory.can_branch

    laboratory, _ = at_work()
    rememberers = VectorBatchPipeline(
        lambda: gym.wrappers.NormalizeReward(skill_env()), laboratory.agent, n_envs=2, window_size=4
    )
    rememberers.collect()
    laboratory.pipeline = rememberers
    assert not laboratory.can_branch


def test_weights_alone_are_lent_where_there_is_no_exact_state(skill_agent, tmp_path):
    agent = skill_agent(lambda k: k)
    laboratory = Laboratory(agent=agent, pipeline=None, arena=None, evaluator=ReturnEvaluator(), counters=RunCounters())
    agent.save_weights(tmp_path / "early")
    agent.learn(None)
    with laboratory.borrowed(lambda: agent.load_weights(tmp_path / "early")):
        assert agent.skill == 0
    assert agent.skill == 1
