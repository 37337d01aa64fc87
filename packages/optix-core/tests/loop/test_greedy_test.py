"""A run does not end as NO_SIGNAL while its greedy policy beats the one that training began with."""

import dataclasses
import shutil
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline, read_events
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop.greedy_test import compare_with_untrained
from optix_core.reporting import render_story, replay_decisions


@pytest.fixture
def shy_agent(skill_agent):
    """Its skill shows when it acts greedily; in training it acts like a beginner."""

    class Shy(skill_agent):
        def act(self, observation):
            return np.zeros((*np.asarray(observation).shape[:-1], 1))

        def make_policy(self, mode, *, num_envs, seed):
            skill = self.skill if mode == "greedy" else 0.0
            return SimpleNamespace(
                act=lambda observations: np.full((len(observations), 1), skill), reset=lambda dones=None: None
            )

    return Shy


def test_what_exploring_hides_is_not_called_no_signal(loop, shy_agent, events, entries):
    result = loop(agent=shy_agent(lambda k: min(1.0, k / 50))).run()
    assert (result.verdict, result.stop_reason) == ("UNDECIDED", "budget_env_steps")
    assert "acting greedily" in result.why
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.1)
    (test,) = events("greedy_test")  # believed until the run is twice as long
    assert test["learned"]
    assert test["gain"] == pytest.approx(1.0, abs=0.1)
    assert not replay_decisions(entries()).mismatches
    (incidents,) = (section for section in render_story(entries()) if section.title == "Incidents")
    assert any("acting greedily" in cell for row in incidents.table.rows for cell in row)


def test_nothing_learned_is_no_signal_after_one_comparison(loop, shy_agent, events):
    result = loop(agent=shy_agent(lambda k: 0.0)).run()
    assert (result.verdict, result.stop_reason) == ("NO_SIGNAL", "no_signal")
    (test,) = events("greedy_test")
    assert not test["learned"]


def test_a_policy_that_got_worse_has_not_learned(loop, shy_agent):
    assert loop(agent=shy_agent(lambda k: -min(1.0, k / 50))).run().verdict == "NO_SIGNAL"


def test_a_budget_that_ends_first_does_not_hide_it_either(loop, shy_agent, events):
    result = loop(agent=shy_agent(lambda k: min(1.0, k / 20)), max_env_steps=None, max_episodes=2000).run()
    assert (result.verdict, result.stop_reason) == ("UNDECIDED", "budget_episodes")
    assert [test["learned"] for test in events("greedy_test")] == [True]


def test_it_is_asked_again_when_the_run_is_twice_as_long(loop, shy_agent, events):
    def forgets(k):
        return 1.0 if k < 1000 else 0.0

    result = loop(agent=shy_agent(lambda k: float(k > 0) * forgets(k)), max_env_steps=None, max_episodes=60_000).run()
    first, second = events("greedy_test")
    assert first["learned"]
    assert not second["learned"]
    assert result.verdict == "NO_SIGNAL"


def test_training_goes_on_with_the_weights_that_it_had(loop, shy_agent):
    agent = shy_agent(lambda k: min(1.0, k / 50))
    seen = []

    def curve(k):
        seen.append(agent.skill)
        return min(1.0, k / 50)

    agent.curve = curve
    loop(agent=agent).run()
    assert all(later >= earlier for earlier, later in pairwise(seen))


def test_a_damaged_untrained_policy_ends_the_run_as_before(skill_env, shy_agent, tmp_path):
    class Vandal(shy_agent):
        def learn(self, episode_data):
            if self.learned == 30:
                weights = tmp_path / "run/untrained/snapshots/1/weights.bin"
                while not weights.exists():  # it is written in the background
                    time.sleep(0.01)
                weights.write_bytes(b"?")
            return super().learn(episode_data)

    agent = Vandal(lambda k: min(1.0, k / 50))
    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.05), agent, n_envs=10, window_size=4)
    optimizer = RLOptimizer(agent, pipeline, max_env_steps=40 * 400, checkpoint_dir=tmp_path / "run")
    assert optimizer.run().verdict == "NO_SIGNAL"
    found, _ = read_events(tmp_path / "run/events.jsonl")
    assert [e["message"] for e in found if e["kind"] == "error" and "untrained" in e["message"]]


def test_a_run_without_an_untrained_policy_ends_as_before(skill_env, shy_agent, tmp_path):
    class Tidy(shy_agent):
        def learn(self, episode_data):
            shutil.rmtree(tmp_path / "run/untrained", ignore_errors=True)
            return super().learn(episode_data)

    agent = Tidy(lambda k: min(1.0, k / 50))
    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.05), agent, n_envs=10, window_size=4)
    optimizer = RLOptimizer(agent, pipeline, max_env_steps=40 * 400, checkpoint_dir=tmp_path / "run")
    assert optimizer.run().verdict == "NO_SIGNAL"


def test_a_run_from_before_untrained_policies_were_kept_takes_no_other_for_one(loop, shy_agent, events, tmp_path):
    def curve(k):
        return float(k > 0)

    loop(agent=shy_agent(curve), max_env_steps=40 * 20).run()
    shutil.rmtree(tmp_path / "run/untrained")
    result = loop(agent=shy_agent(curve), max_env_steps=40 * 400, resume=True).run()
    assert result.verdict == "NO_SIGNAL"
    assert not (tmp_path / "run/untrained").exists()
    assert events("greedy_test")[1:] == []


def test_weights_that_do_not_fit_end_the_run_as_before(loop, shy_agent, events):
    class Picky(shy_agent):
        def load_weights(self, path):
            skill = self.skill
            super().load_weights(path)
            if self.skill == 0.0 and skill > 0.0:
                raise ValueError("no fit")

    result = loop(agent=Picky(lambda k: min(1.0, k / 50))).run()
    assert (result.verdict, result.stop_reason) == ("NO_SIGNAL", "no_signal")
    (error,) = events("error")
    assert "no fit" in error["message"]


def test_an_environment_in_which_the_untrained_policy_cannot_be_played_ends_the_run_as_before(
    loop, shy_agent, skill_env, events
):
    class Trap(skill_env):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, (float("nan") if action.item() < 0 else reward), *rest

    agent = shy_agent(lambda k: -1.0 if k == 0 else 0.0)
    optimizer = loop(agent=agent)
    optimizer.pipeline = VectorBatchPipeline(lambda: Trap(noise=0.05), agent, n_envs=10, window_size=4)
    result = optimizer.run()
    assert (result.verdict, result.stop_reason) == ("NO_SIGNAL", "no_signal")
    assert result.confirmed_return is not None
    (error,) = events("error")
    assert "NaN" in error["message"]


class Unmoved(ReturnEvaluator):
    """A score that is not the return."""

    def score(self, episode_data, train_diagnostics):
        found = super().score(episode_data, train_diagnostics)
        return found and dataclasses.replace(found, primary_score=0.0)


def test_a_score_of_the_users_own_is_not_judged_by_returns(loop, shy_agent, events):
    result = loop(agent=shy_agent(lambda k: min(1.0, k / 50)), evaluator=Unmoved()).run()
    assert result.verdict == "NO_SIGNAL"
    assert events("greedy_test") == []


def test_a_validation_score_is_not_judged_by_returns_in_training_environments(loop, shy_agent, skill_env, events):
    class Elsewhere(skill_env):
        def step(self, action):
            return super().step(np.zeros(1))

    agent = shy_agent(lambda k: min(1.0, k / 50))
    validation = VectorBatchPipeline(lambda: Elsewhere(noise=0.05), agent, n_envs=2, window_size=4, mode="greedy")
    assert loop(agent=agent, val_pipeline=validation).run().verdict == "NO_SIGNAL"
    assert events("greedy_test") == []


def test_an_agent_that_cannot_act_greedily_is_not_asked_to(loop, skill_agent, events, tmp_path):
    assert loop(agent=skill_agent(lambda k: 0.0)).run().verdict == "NO_SIGNAL"
    assert events("greedy_test") == []
    assert not (tmp_path / "run/untrained").exists()


def test_the_comparison_is_paired():
    seeds = np.linspace(-100.0, 100.0, 20)
    assert compare_with_untrained(seeds, seeds + np.tile([0.5, 1.5], 10)).learned
    assert not compare_with_untrained(seeds, seeds[::-1] + 1.0).learned
    same = compare_with_untrained(seeds, seeds)
    assert (same.learned, same.gain, same.p_value) == (False, 0.0, 1.0)
