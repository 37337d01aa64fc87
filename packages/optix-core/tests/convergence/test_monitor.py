"""The monitor as a caller sees it: verdicts, stops, state, errors."""

import json
import math

import numpy as np
import pytest

from optix_core.convergence import Assessment, ConvergenceMonitor
from optix_protocol import LoopState, Verdict


def feed(monitor: ConvergenceMonitor, scores, window: int = 100) -> list[Assessment]:
    history = []
    for i, score in enumerate(scores):
        history.append(monitor.update(float(score), (i + 1) * window))
        if history[-1].should_stop:
            break
    return history


def saturating(n: int, noise: float, seed: int = 0, centre: float = 100) -> np.ndarray:
    t = np.arange(n)
    rng = np.random.default_rng(seed)
    return 100 / (1 + np.exp(-(t - centre) / (centre / 5))) + 100 * noise * rng.standard_normal(n)


def test_a_saturated_curve_is_converged_and_stops():
    last = feed(ConvergenceMonitor(), saturating(1500, 0.05))[-1]
    assert last.should_stop
    assert last.verdict is Verdict.CONVERGED
    assert last.upper_gain <= last.margin
    assert last.n_windows < 600


def test_a_constant_ceiling_after_a_rise_stops():
    scores = np.concatenate([np.linspace(20, 500, 60), np.full(600, 500.0)])
    last = feed(ConvergenceMonitor(), scores)[-1]
    assert last.verdict is Verdict.CONVERGED
    assert last.should_stop


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_curve_that_never_rises_is_no_signal_and_stops_after_its_stall_budget(noise):
    """Constant scores get as much patience as noisy ones: before the first success an agent looks like a stone."""
    scores = -200 + noise * np.random.default_rng(1).standard_normal(1000)
    last = feed(ConvergenceMonitor(budget_env_steps=100_000), scores)[-1]
    assert last.verdict is Verdict.NO_SIGNAL
    assert last.should_stop
    assert 600 <= last.n_windows <= 660
    assert "nothing was learned" in last.explanation


def test_a_steady_rise_never_stops():
    history = feed(ConvergenceMonitor(), np.arange(1000.0))
    assert history[-1].verdict is Verdict.IMPROVING
    assert not history[-1].should_stop


def test_state_survives_json_exactly():
    scores = saturating(900, 0.1)
    one, two = ConvergenceMonitor(), ConvergenceMonitor()
    feed(one, scores[:237])
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.assessment == one.assessment
    for i, score in enumerate(scores[237:]):
        assert one.update(score, (238 + i) * 100) == two.update(score, (238 + i) * 100)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_non_finite_scores_are_refused(score):
    with pytest.raises(ValueError, match="skip windows"):
        ConvergenceMonitor().update(score, 10)


def test_assessment_is_json_able_before_the_first_look():
    fields = ConvergenceMonitor().assessment.to_dict()
    assert fields["upper_gain"] is None
    assert json.loads(json.dumps(fields))["verdict"] == "UNDECIDED"


def test_early_plateau_in_a_budget_is_not_believed_unless_the_scores_are_constant():
    noisy = saturating(2000, 0.02, centre=20)
    doubting = feed(ConvergenceMonitor(budget_env_steps=200_000), noisy)
    assert doubting[800].reason == "plateau-too-early"
    assert not doubting[1700].should_stop
    trusting = feed(ConvergenceMonitor(budget_env_steps=200_000, early_plateau_fraction=0.0), noisy)
    assert trusting[-1].should_stop
    assert trusting[-1].n_windows < 400
    ceiling = np.concatenate([np.linspace(20, 500, 40), np.full(1960, 500.0)])
    assert feed(ConvergenceMonitor(budget_env_steps=200_000), ceiling)[-1].n_windows < 300


def test_a_young_plateau_waits():
    scores = np.concatenate([np.linspace(0, 100, 300), np.full(400, 100.0)])
    history = feed(ConvergenceMonitor(), scores)
    reasons = {a.reason for a in history}
    assert "plateau-too-young" in reasons
    assert history[-1].should_stop
    assert history[-1].n_windows > 240 / 0.45


def test_known_baseline_recognises_an_environment_solved_at_once():
    scores = 100 + np.random.default_rng(0).standard_normal(600)
    assert feed(ConvergenceMonitor(baseline=0.0), scores)[-1].verdict is Verdict.CONVERGED
    assert feed(ConvergenceMonitor(), scores)[-1].verdict is not Verdict.CONVERGED


def test_a_falling_score_is_degrading_and_does_not_stop():
    scores = np.concatenate([np.linspace(0, 100, 100), np.linspace(100, 50, 200)])
    last = feed(ConvergenceMonitor(), scores)[-1]
    assert last.verdict is Verdict.DEGRADING
    assert not last.should_stop


def test_a_user_margin_is_respected():
    scores = saturating(2000, 0.1)
    wide = feed(ConvergenceMonitor(margin=20.0), scores)[-1]
    narrow = feed(ConvergenceMonitor(margin_fraction=0.01), scores)[-1]
    assert wide.should_stop
    assert wide.margin == 20.0
    assert wide.n_windows < narrow.n_windows


def test_memory_is_bounded_and_the_verdict_survives_the_merging():
    monitor = ConvergenceMonitor(confirm_fraction=100.0)
    for i, score in enumerate(saturating(20_000, 0.1)):
        monitor.update(score, (i + 1) * 10)
    assert len(json.dumps(monitor.state_dict())) < 250_000
    assert monitor.assessment.n_windows == 20_000
    assert monitor.assessment.verdict is Verdict.CONVERGED


def test_explanation_carries_the_numbers_and_state_and_interval_follow():
    monitor = ConvergenceMonitor()
    assert monitor.interval == 20
    history = feed(monitor, saturating(1500, 0.05))
    assert f"{history[-1].upper_gain:.3g}" in history[-1].explanation
    assert "for the second time" in history[-1].explanation
    assert monitor.state is LoopState.DORMANT
    waiting = next(a for a in history if a.reason == "awaiting-second-pass")
    assert "to be confirmed at" in waiting.explanation
    assert not waiting.should_stop


def test_looks_fall_where_the_interval_says():
    monitor, due = ConvergenceMonitor(), 20
    for i, score in enumerate(saturating(400, 0.1), start=1):
        looked = monitor.update(score, i * 100).looked
        assert looked == (i == due)
        if looked:
            due = i + monitor.interval


def test_windows_without_an_episode_are_ignored():
    monitor = ConvergenceMonitor()
    monitor.update(1.0, 100)
    assert monitor.update(math.nan, 200, episodes=0).n_windows == 1


@pytest.mark.parametrize("bad", [{"alpha": 0.7}, {"margin_fraction": 0}, {"min_windows": 3}, {"baseline": math.nan}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError):
        ConvergenceMonitor(**bad)


def test_env_steps_must_increase():
    monitor = ConvergenceMonitor()
    monitor.update(1.0, 100)
    with pytest.raises(ValueError, match="must increase"):
        monitor.update(1.0, 100)


@pytest.mark.parametrize("budget", [100_000, 500_000, None])
@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0, 3.0])
def test_a_task_learned_within_the_first_windows_is_not_called_no_signal(tau, budget):
    """The baseline is measured in the first windows, which then hold the rise itself."""
    rng = np.random.default_rng(int(10 * tau))
    monitor = ConvergenceMonitor(budget_env_steps=budget)
    for i in range(240 if budget is None else budget // 2048):
        score = -1 + 1.77 * (1 - np.exp(-i / tau)) + 0.003 * rng.standard_normal()
        verdict = monitor.update(score, (i + 1) * 2048).verdict
        assert verdict is not Verdict.NO_SIGNAL
