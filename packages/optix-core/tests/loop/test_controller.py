"""The memory of a run, without a run: when policies are kept, how often it may go back, and what it ends with."""

from dataclasses import replace

import numpy as np
import pytest

from optix_core import Budget, Progress
from optix_core.convergence import ConvergenceMonitor
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop.controller import MAX_ROLLBACKS, MAX_ROLLBACKS_WITHOUT_GAIN, LoopController
from optix_protocol import EpisodeData, EvalMetrics, LoopState, Verdict


@pytest.fixture
def controller():
    def make(**budget):
        limits = Budget(**{"max_env_steps": 1000, **budget})
        return LoopController(scheduler=ConvergenceMonitor(), evaluator=ReturnEvaluator(), budget=limits)

    return make


def at(controller, steps, level=None):
    controller.progress = replace(controller.progress, num_env_steps=steps, window_env_steps=10)
    if level is not None:
        for _ in range(200):
            controller._smoother.update(level)
    return controller


def found(controller, monkeypatch, verdict, should_stop=False):
    usual = controller.scheduler.assessment
    seen = replace(usual, verdict=verdict, should_stop=should_stop, explanation="Little is left.")
    monkeypatch.setattr(type(controller.scheduler), "assessment", property(lambda self: seen))
    return controller


def test_policies_are_kept_two_percent_of_the_budget_apart(controller):
    memory = at(controller(), 100)
    assert not memory.snapshot_due()  # nothing has a score yet
    assert at(memory, 100, level=5.0).snapshot_due()
    memory.snapshot_taken(5.0, pool_floor=-1.0)
    assert [at(memory, steps).snapshot_due() for steps in (119, 120, 500)] == [False, True, True]
    endless = at(controller(max_env_steps=None), 1010, level=5.0)
    endless.snapshot_taken(5.0, pool_floor=-1.0)
    assert [at(endless, steps).snapshot_due() for steps in (1030, 1031)] == [False, True]


def test_policies_below_what_the_full_pool_takes_are_not_kept(controller):
    memory = at(controller(), 100, level=5.0)
    for floor, due in ((4.9, True), (memory.level, True), (5.1, False)):
        memory.counters.pool_floor = floor
        assert memory.snapshot_due() is due


def test_a_new_best_allows_going_back_again_but_not_for_ever(controller):
    memory = at(controller(), 100)
    assert memory.snapshot_taken(1.0, pool_floor=0.0)

    def can_roll_back():
        return memory.evidence(has_snapshot=True).can_roll_back

    assert not memory.evidence(has_snapshot=False).can_roll_back
    for _ in range(MAX_ROLLBACKS_WITHOUT_GAIN):
        assert can_roll_back()
        memory.rolled_back()
    assert not can_roll_back()
    assert not memory.snapshot_taken(1.0, pool_floor=0.0) and not can_roll_back()  # as good is no gain
    assert memory.snapshot_taken(1.1, pool_floor=0.0) and can_roll_back()
    while memory.counters.rollbacks < MAX_ROLLBACKS:
        memory.snapshot_taken(memory.counters.best_level + 1, pool_floor=0.0)
        assert can_roll_back()
        memory.rolled_back()
    memory.snapshot_taken(memory.counters.best_level + 1, pool_floor=0.0)
    assert memory.counters.rollbacks_without_gain == 0 and not can_roll_back()


def test_what_the_greedy_policy_has_learned_is_believed_until_the_run_is_twice_as_long(controller, monkeypatch):
    memory = found(at(controller(max_env_steps=10_000), 100), monkeypatch, Verdict.NO_SIGNAL, should_stop=True)
    assert memory.ends_without_signal() and memory.assessment.should_stop
    memory.note_greedy_learning("It has learned greedily.")
    for steps, believed in ((100, True), (199, True), (200, False)):
        at(memory, steps)
        assert (memory.assessment.verdict is Verdict.UNDECIDED) is believed
        assert memory.ends_without_signal() is not believed
        assert (memory.assessment.explanation == "It has learned greedily.") is believed
    assert at(memory, 150).state is LoopState.ACTIVE


def test_a_run_ends_without_signal_only_at_its_end(controller, monkeypatch):
    memory = found(at(controller(), 500), monkeypatch, Verdict.NO_SIGNAL)
    assert not memory.ends_without_signal()
    assert at(memory, 1000).ends_without_signal()
    assert not found(memory, monkeypatch, Verdict.UNDECIDED).ends_without_signal()


def test_a_first_look_that_nothing_confirmed_is_no_verdict_at_the_end(controller, monkeypatch):
    memory = found(at(controller(), 500), monkeypatch, Verdict.CONVERGED)
    assert memory.evidence().verdict is Verdict.CONVERGED
    assert at(memory, 1000).evidence().verdict is Verdict.UNDECIDED  # the budget ends it
    assert memory.closing_assessment.explanation == "Little is left, but the run ended first."
    confirmed = found(memory, monkeypatch, Verdict.CONVERGED, should_stop=True)
    assert confirmed.evidence().verdict is confirmed.closing_assessment.verdict is Verdict.CONVERGED


def test_counting_on_keeps_steps_and_episodes(controller):
    memory = controller()
    memory.continue_from(400, 30)
    assert memory.progress == Progress(num_env_steps=400, num_episodes=30)


def window_of(returns, version=3):
    """One environment, two steps for each episode."""
    num_steps = 2 * len(returns)
    ends = np.arange(num_steps) % 2 == 1
    zeros, no = np.zeros((num_steps, 1), np.float32), np.zeros((num_steps, 1), bool)
    return EpisodeData(
        observations=zeros[..., None],
        actions=zeros,
        rewards=zeros,
        terminated=ends[:, None],
        truncated=no,
        valid=~no,
        last_observation=np.zeros((1, 1), np.float32),
        final_observations=np.zeros((len(returns), 1), np.float32),
        episode_returns=np.array(returns, float),
        episode_lengths=np.full(len(returns), 2),
        policy_version=version,
    )


def test_a_window_is_counted_scored_in_pieces_and_remembered(controller):
    memory = controller(max_env_steps=None)
    memory.score_window_env_steps = 4
    memory.continue_from(100, 10)
    seen = memory.observe(window_of([1.0, 2.0, 3.0, 4.0]), {}, elapsed_s=2.0)
    assert memory.progress == Progress(
        num_windows=1, num_env_steps=108, num_episodes=14, elapsed_s=2.0, window_env_steps=8
    )
    assert (seen.metrics.primary_score, seen.metrics.episode_id) == (2.5, 14)
    assert seen.scores == [(104, 1.5, 2), (108, 3.5, 2)]
    (point,) = memory.history.points(keep=set())
    assert (point.policy_version, point.num_env_steps, point.score, point.episodes) == (3, 108, 2.5, 4)
    assert memory.observe(window_of([5.0]), {}, elapsed_s=3.0, is_evidence=False).scores == []


def test_where_validation_drives_the_score_training_is_no_evidence(controller):
    memory = controller(max_env_steps=None)
    memory.score_window_env_steps = 4
    unseen = memory.observe(window_of([1.0, 2.0, 3.0, 4.0]), {}, elapsed_s=0.0, validate_only=True)
    assert unseen.metrics is None and unseen.scores == [] and not memory.history.points(keep=set())
    measured = EvalMetrics(primary_score=9.0)
    seen = memory.observe(window_of([1.0] * 4), {}, elapsed_s=0.0, validation=measured, validate_only=True)
    assert seen.metrics.primary_score == 9.0 and seen.scores == [(16, 9.0, 4)]


def test_warming_up_is_one_score_when_learning_has_begun(controller):
    memory = controller(max_env_steps=None)
    for _ in range(2):
        assert memory.observe(window_of([1.0, 3.0]), {}, elapsed_s=0.0, warming_up=True).scores == []
    assert not memory.history.points(keep=set())
    assert memory.observe(window_of([8.0]), {}, elapsed_s=0.0, is_evidence=False).scores == []
    seen = memory.observe(window_of([7.0]), {}, elapsed_s=0.0)
    assert seen.scores == [(10, 2.0, 4), (12, 7.0, 1)]
