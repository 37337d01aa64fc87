"""A policy that has settled is watched, and learns again when its scores fall."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from optix_core.convergence import ConvergenceMonitor, DriftTest, Watchdog
from optix_protocol import LoopState, Verdict


@pytest.mark.parametrize("settled", [12, 200])
def test_false_alarms_are_as_rare_as_was_asked_for_however_few_scores_had_settled(settled):
    rng = np.random.default_rng(0)
    waits = []
    for _ in range(80):
        test = DriftTest.of(rng.normal(size=settled), false_alarm_every=200.0)
        waits.append(next(n for n in range(1, 2_000) if test.update(rng.normal()) or n == 1_999))
    assert 120 < np.mean(waits) < 400


def test_a_fall_is_noticed_soon_and_a_rise_never():
    rng = np.random.default_rng(1)
    delays = []
    for _ in range(30):
        test = DriftTest.of(rng.normal(10, 1, 100), false_alarm_every=10_000)
        assert not any(test.update(rng.normal(13, 1)) for _ in range(200))
        delays.append(next(n for n in range(1, 1000) if test.update(rng.normal(8, 1))))
    assert np.mean(delays) < 8
    assert DriftTest.of([1.0] * 20, false_alarm_every=100).update(math.nan)


def feed(dog, level, windows, rng, start):
    for n in range(windows):
        dog.update(level(n) + rng.normal(0, 0.02), 100 * (start + n + 1))
        if dog.num_alarms:
            return start + n + 1
    return start + windows


def test_where_a_run_would_end_it_is_watched_and_a_fall_wakes_it():
    rng = np.random.default_rng(2)
    dog = Watchdog(ConvergenceMonitor())
    at = feed(dog, lambda n: 1 - math.exp(-n / 10), 200, rng, 0)
    assert dog.is_watching and dog.state is LoopState.WATCHDOG and not dog.assessment.should_stop
    assert dog.assessment.verdict is Verdict.CONVERGED
    saved = json.loads(json.dumps(dog.state_dict()))
    at = feed(dog, lambda n: 0.5, 20, rng, at)
    assert dog.num_alarms == 1 and at < 210 and dog.state is LoopState.ACTIVE
    assert "fallen from" in dog.assessment.explanation
    other = Watchdog(ConvergenceMonitor())
    other.load_state_dict(saved)
    assert other.is_watching and other.assessment == Watchdog.assessment.fget(other)
    other.update(0.0, 10**6)
    assert other.num_alarms + other.state_dict()["test"]["total"] > 0 if other.is_watching else True


def test_after_an_alarm_the_monitor_begins_anew_and_settles_again():
    rng = np.random.default_rng(3)
    dog = Watchdog(ConvergenceMonitor())
    at = feed(dog, lambda n: 1 - math.exp(-n / 10), 200, rng, 0)
    at = feed(dog, lambda n: 0.2, 20, rng, at)
    for n in range(600):
        dog.update(0.2 + 0.7 * (1 - math.exp(-n / 10)) + rng.normal(0, 0.02), 100 * (at + n + 1))
    assert dog.is_watching and dog.num_alarms == 1


@pytest.mark.parametrize("every", [0.5, math.inf])
def test_an_impossible_rate_is_refused(every):
    with pytest.raises(ValueError, match="false_alarm_every"):
        DriftTest.of([0.0] * 10, false_alarm_every=every)
