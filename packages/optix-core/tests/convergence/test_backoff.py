"""The classic scheduler: interval, states, verdicts, every default."""

import inspect
import json

import numpy as np
import pytest

from optix_core.convergence import BackoffScheduler
from optix_protocol import LoopState, Verdict


def feed(scheduler: BackoffScheduler, scores, start: int = 0):
    return [scheduler.update(float(score), start + i + 1) for i, score in enumerate(scores)]


def test_defaults():
    defaults = {name: parameter.default for name, parameter in inspect.signature(BackoffScheduler).parameters.items()}
    assert defaults == {
        "base_interval": 1,
        "backoff_factor": 2.0,
        "max_interval_episodes": 100,
        "plateau_threshold": 5,
        "dormant_threshold": 20,
        "score_smoothing": 2,
        "improvement_margin": 0.0,
        "noise_k": 2.0,
        "score_window": 20,
        "degradation_threshold": 0.95,
        "min_episodes_before_dormant": 0,
        "min_episodes_before_degradation": 5,
    }


def test_interval_doubles_up_to_its_cap_and_snaps_back():
    scheduler = BackoffScheduler(noise_k=0.0)
    scheduler.update(10.0, 1)
    intervals = []
    for i in range(9):
        scheduler.update(10.0, 2 + i)
        intervals.append(scheduler.interval)
    assert intervals == [2, 4, 8, 16, 32, 64, 100, 100, 100]
    scheduler.update(20.0, 50)
    assert scheduler.interval == 1


def test_states_follow_the_thresholds():
    scheduler = BackoffScheduler(noise_k=0.0)
    scheduler.update(0.0, 1)
    scheduler.update(10.0, 2)
    scheduler.update(10.0, 3)  # the mean of two still rises
    states = []
    for i in range(22):
        assessment = scheduler.update(10.0, 4 + i)
        states.append((scheduler.state, assessment.should_stop, assessment.verdict))
    assert states[3] == (LoopState.ACTIVE, False, Verdict.UNDECIDED)
    assert states[4] == (LoopState.COOLING, False, Verdict.UNDECIDED)
    assert states[18] == (LoopState.COOLING, False, Verdict.UNDECIDED)
    assert states[19] == (LoopState.DORMANT, True, Verdict.CONVERGED)
    assert states[20] == (LoopState.WATCHDOG, False, Verdict.CONVERGED)


def test_watchdog_wakes_on_damage_and_on_improvement():
    for score, verdict in ((1.0, Verdict.DEGRADING), (99.0, Verdict.IMPROVING)):
        scheduler = BackoffScheduler(noise_k=0.0, score_smoothing=1)
        feed(scheduler, [0.0] + [10.0] * 25)
        assert scheduler.state is LoopState.WATCHDOG
        assert scheduler.update(score, 100).verdict is verdict
        assert scheduler.state is LoopState.ACTIVE
        assert scheduler.interval == 1


def test_a_flat_curve_is_no_signal():
    last = feed(BackoffScheduler(), np.full(21, -200.0))[-1]
    assert last.should_stop
    assert last.verdict is Verdict.NO_SIGNAL


def test_improvement_within_the_noise_does_not_count():
    rng = np.random.default_rng(0)
    history = feed(BackoffScheduler(), 100 + rng.standard_normal(60))
    assert sum(a.verdict is Verdict.IMPROVING for a in history) <= 2
    assert history[30].margin > 1


def test_degradation_is_relative_to_the_absolute_best():
    scheduler = BackoffScheduler(noise_k=0.0, score_smoothing=1)
    feed(scheduler, [-100.0] * 6)
    assert scheduler.update(-104.0, 10).verdict is Verdict.UNDECIDED
    assert scheduler.update(-106.0, 11).verdict is Verdict.DEGRADING


@pytest.mark.parametrize(("algorithm", "warm_up"), [("DQN", 60), ("RainbowDQN", 60), ("SAC", 30), ("TD3", 30)])
def test_off_policy_defaults(algorithm, warm_up):
    scheduler = BackoffScheduler.for_off_policy(algorithm)
    assert scheduler.dormant_threshold == 15
    stops = [a.should_stop for a in feed(scheduler, np.full(80, 1.0))]
    assert stops.index(True) == warm_up - 1


def test_state_survives_json_exactly():
    scores = np.random.default_rng(1).standard_normal(60).cumsum()
    one, two = BackoffScheduler(), BackoffScheduler()
    feed(one, scores[:23])
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert feed(one, scores[23:], 23) == feed(two, scores[23:], 23)
    assert (one.state, one.interval) == (two.state, two.interval)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="plateau_threshold"):
        BackoffScheduler(plateau_threshold=30)
    with pytest.raises(ValueError, match="diverged"):
        BackoffScheduler().update(float("nan"), 1)


ALLOWED = [
    {"base_interval": 1, "max_interval_episodes": 1}, {"base_interval": 5, "max_interval_episodes": 5},
    {"backoff_factor": 1.0}, {"plateau_threshold": 1}, {"plateau_threshold": 20}, {"score_smoothing": 1},
    {"score_smoothing": 20}, {"improvement_margin": 0.0}, {"noise_k": 0.0}, {"degradation_threshold": 1.0},
    {"degradation_threshold": 1e-9},
]  # fmt: skip
REFUSED = [
    {"base_interval": 0}, {"base_interval": 5, "max_interval_episodes": 4}, {"backoff_factor": 0.99},
    {"plateau_threshold": 0}, {"plateau_threshold": 21}, {"score_smoothing": 0}, {"score_smoothing": 21},
    {"improvement_margin": -1e-9}, {"noise_k": -1e-9}, {"degradation_threshold": 1.01}, {"degradation_threshold": 0.0},
]  # fmt: skip


@pytest.mark.parametrize("settings", ALLOWED, ids=str)
def test_settings_at_their_limits_are_taken(settings):
    scheduler = BackoffScheduler(**settings)
    assert {name: getattr(scheduler, name) for name in settings} == settings


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_settings_beyond_their_limits_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        BackoffScheduler(**settings)


def test_every_evaluation_against_the_rule_told_slowly():
    """Interval, state, verdict and numbers, on curves that rise, rest, break and recover."""
    rng = np.random.default_rng(5)
    rises = (np.minimum(np.arange(90), 20), np.r_[np.arange(15), np.full(45, 15), np.full(10, 4), np.arange(20) + 15.0])
    met = set()
    for rise, noise, settings in (
        (rises[0], 0.3, {"dormant_threshold": 12}),
        (rises[1], 0.2, {"plateau_threshold": 3, "dormant_threshold": 8, "score_smoothing": 3, "noise_k": 1.0}),
        (rises[1], 0.2, {"dormant_threshold": 6, "min_episodes_before_dormant": 40, "improvement_margin": 0.5}),
        (-rises[0], 0.3, {"min_episodes_before_degradation": 9, "dormant_threshold": 12}),
    ):
        scheduler = BackoffScheduler(**settings)
        p = {name: getattr(scheduler, name) for name in inspect.signature(BackoffScheduler).parameters}
        scores, best, stale, interval, state, first = [], -np.inf, 0, 1.0, "ACTIVE", None
        for count, score in enumerate((50 + rise + noise * rng.standard_normal(len(rise))).tolist(), start=1):
            found = scheduler.update(score, 10 * count)
            scores = [*scores, score][-p["score_window"] :]
            level = float(np.mean(scores[-p["score_smoothing"] :]))
            first = level if first is None else first
            margin = max(p["improvement_margin"], p["noise_k"] * float(np.std(scores)))
            better = level > best + margin
            worse = not better and level < best * p["degradation_threshold"]
            worse = worse and count > p["min_episodes_before_degradation"]
            if better:
                best, stale, interval = level, 0, 1.0
            else:
                stale, interval = stale + 1, min(2 * interval, 100.0)
            if better:
                state = "ACTIVE"
            elif state in ("DORMANT", "WATCHDOG"):
                state = "ACTIVE" if worse else "WATCHDOG"
                stale, interval = (0, 1.0) if worse else (stale, interval)
            elif stale >= p["dormant_threshold"] and count >= p["min_episodes_before_dormant"]:
                state = "DORMANT"
            else:
                state = "COOLING" if stale >= p["plateau_threshold"] else "ACTIVE"
            quiet = state in ("DORMANT", "WATCHDOG")
            verdict = "IMPROVING" if better else "DEGRADING" if worse and not quiet else "UNDECIDED"
            if quiet and not better:
                verdict = "CONVERGED" if best - first > margin else "NO_SIGNAL"
            assert (found.verdict.value, found.should_stop) == (verdict, state == "DORMANT"), count
            assert (scheduler.state.value, scheduler.interval) == (state, int(interval)), count
            assert (found.n_windows, found.env_steps, found.looked) == (count, 10 * count, True)
            numbers = (found.margin, found.level, found.baseline, found.score_range)
            assert numbers == pytest.approx((margin, level, first, max(0.0, best - first)))
            met |= {verdict, state}
    assert met >= {"IMPROVING", "DEGRADING", "UNDECIDED", "CONVERGED", "NO_SIGNAL", "COOLING", "DORMANT", "WATCHDOG"}


def test_evaluations_without_an_episode_and_steps_that_stand_still():
    scheduler = BackoffScheduler()
    scheduler.update(1.0, 10)
    assert scheduler.update(5.0, 20, episodes=0).n_windows == 1
    with pytest.raises(ValueError, match="must increase"):
        scheduler.update(1.0, 10)
