"""The monitor as a caller sees it: verdicts, stops, state, errors."""

import json
import math

import numpy as np
import pytest

from optix_core.convergence import Assessment, ConvergenceMonitor
from optix_protocol import Verdict


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


def test_a_curve_that_never_rises_is_no_signal_and_stops_after_its_stall_budget():
    last = feed(ConvergenceMonitor(budget_env_steps=100_000), np.full(1000, -200.0))[-1]
    assert last.verdict is Verdict.NO_SIGNAL
    assert last.should_stop
    assert 300 <= last.n_windows <= 340
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
