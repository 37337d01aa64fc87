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


@pytest.mark.parametrize("score", [None, "high", 1.1e150, -1.1e150])
def test_scores_that_are_none_are_refused_and_leave_no_trace(score):
    monitor = ConvergenceMonitor()
    monitor.update(1.0, 100)
    before = monitor.state_dict()
    with pytest.raises(ValueError, match="score at 200 env steps"):
        monitor.update(score, 200)
    assert monitor.state_dict() == before
    assert monitor.update(np.float32(2.5), 200).n_windows == 2


def test_an_evaluation_before_training_is_the_first_window():
    monitor = ConvergenceMonitor()
    assert monitor.update(20.0, 0).n_windows == 1
    with pytest.raises(ValueError, match="got 0 after 0"):
        monitor.update(21.0, 0)
    assert monitor.update(21.0, 1).env_steps == 1
    with pytest.raises(ValueError, match="must increase"):
        ConvergenceMonitor().update(1.0, -1)


@pytest.mark.parametrize("steps", [None, "10", math.nan, math.inf])
def test_steps_that_are_no_number_are_refused(steps):
    with pytest.raises(ValueError, match="number of steps"):
        ConvergenceMonitor().update(1.0, steps)


@pytest.mark.parametrize("episodes", [-1, 0.5, None])
def test_episodes_that_cannot_be_are_refused(episodes):
    with pytest.raises(ValueError, match="episodes must be"):
        ConvergenceMonitor().update(1.0, 100, episodes=episodes)


def test_numpy_numbers_leave_a_state_of_plain_json():
    monitor = ConvergenceMonitor()
    for i in range(30):
        monitor.update(np.float32(i), np.int64(2048 * (i + 1)), episodes=np.int32(3))
    state = json.loads(json.dumps(monitor.state_dict(), allow_nan=False))
    other = ConvergenceMonitor()
    other.load_state_dict(state)
    assert other.state_dict() == monitor.state_dict()
    assert type(monitor.assessment.env_steps) is int


def test_a_window_without_episodes_is_no_look_even_right_after_one():
    monitor = ConvergenceMonitor()
    for i in range(20):
        found = monitor.update(float(i), (i + 1) * 100)
    assert found.looked
    ignored = monitor.update(0.0, 2100, episodes=0)
    assert (ignored.looked, ignored.env_steps, ignored.n_windows) == (False, 2000, 20)
    assert not monitor.assessment.looked


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e150, 0), (1e-150, 0), (1.0, 1e9), (1e140, 1e149), (1e-300, 0), (1e12, -1e15)]
)
def test_no_scale_or_offset_changes_a_verdict(scale, offset):
    def verdicts(a, b):
        monitor = ConvergenceMonitor(budget_env_steps=60_000)
        return [
            (a.verdict, a.should_stop)
            for a in (monitor.update(a * score + b, 100 * (i + 1)) for i, score in enumerate(plain))
        ]

    plain = (saturating(600, 0.05) / 128).tolist()
    assert verdicts(scale, offset) == verdicts(1.0, 0.0)


def test_offsets_beyond_the_resolution_of_scores_prove_nothing():
    scores = 1e18 + saturating(600, 0.05)
    assert not any(a.verdict is Verdict.CONVERGED for a in feed(ConvergenceMonitor(), scores))


def test_a_first_pass_that_the_budget_leaves_unconfirmed_is_no_verdict():
    """The budget ends after the first look that finds a plateau: the last word is that, and not CONVERGED."""
    scores = np.concatenate([np.linspace(0, 100, 60), 100 + 0.1 * np.random.default_rng(0).standard_normal(400)])
    history = feed(ConvergenceMonitor(early_plateau_fraction=0), scores)
    first = next(a for a in history if a.reason == "awaiting-second-pass")
    met = set()
    for spare in range(20):
        windows = first.n_windows + spare
        last = feed(ConvergenceMonitor(budget_env_steps=windows * 100, early_plateau_fraction=0), scores[:windows])[-1]
        met.add(last.reason)
        assert last.should_stop is (last.verdict is Verdict.CONVERGED)
        if last.reason == "budget-ends-first":
            assert last.verdict is Verdict.UNDECIDED
            assert "budget ends before a second look" in last.explanation
    assert "budget-ends-first" in met


@pytest.mark.parametrize("budget", [60_000, None])
def test_no_stop_rests_on_a_first_pass_that_was_withdrawn(budget):
    time = np.arange(1, 601)
    mean = 0.6 / (1 + np.exp(-(time - 50) / 8)) + 0.4 / (1 + np.exp(-(time - 260) / 12))
    stops = 0
    for seed in range(20):
        scores = mean + 0.1 * np.random.default_rng(seed).standard_normal(600)
        looks = [a for a in feed(ConvergenceMonitor(budget_env_steps=budget), scores) if a.looked]
        if looks[-1].should_stop and looks[-1].verdict is Verdict.CONVERGED:
            stops += 1
            assert looks[-2].reason == "awaiting-second-pass"
    assert stops >= 3


def test_windows_of_many_episodes_say_more():
    """A first window of one episode is noise where the others average sixteen."""
    converged = {1: 0, 16: 0}
    for seed in range(25):
        rng = np.random.default_rng(seed)
        scores = np.concatenate([6 * rng.standard_normal(1), rng.standard_normal(399) / 4])
        for later in converged:
            monitor = ConvergenceMonitor(budget_env_steps=40_000, early_plateau_fraction=0)
            for i, score in enumerate(scores.tolist()):
                if monitor.update(score, 100 * (i + 1), episodes=later if i else 1).should_stop:
                    break
            converged[later] += monitor.assessment.verdict is Verdict.CONVERGED
    assert converged[16] == 0
    assert converged[1] > 0, (
        "told that all windows are alike, the monitor takes such a beginning for an untrained policy"
    )


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


@pytest.mark.parametrize("state", [None, {}, [], {"curve": 3}, {"curve": {}}, "state"])
def test_what_is_no_state_is_refused_in_a_line(state):
    with pytest.raises(ValueError, match="This is no state of a ConvergenceMonitor"):
        ConvergenceMonitor().load_state_dict(state)
