"""An optimum is planted at 0.8: every tuner finds it, from scores whose noise hides a single difference."""

import json
import math

import numpy as np
import pytest

from optix_core import AdaptiveOptimizer, BackoffOptimizer, MomentumOptimizer, PBTOptimizer, SPSAOptimizer
from optix_protocol import EvalMetrics, HyperparamSet

TUNERS = [SPSAOptimizer, MomentumOptimizer, BackoffOptimizer, PBTOptimizer, AdaptiveOptimizer]
STARTS = (0.5, 0.7, 0.9)
OPTIMUM, NOISE, NUM_WINDOWS = 0.8, 0.05, 100

every_tuner = pytest.mark.parametrize("kind", TUNERS)


def earned(rate):
    return 1 - 4 * (rate - OPTIMUM) ** 2


def tune(tuner, start, seed, *, scale=1.0, lag=0, slope=0.0, windows=NUM_WINDOWS):
    """Follow a tuner; return the values that it holds for the best and all that it set.

    With ``lag`` every score is credited to values that were set so many windows later.
    """
    rng, rate, past = np.random.default_rng(seed), start, [start] * (lag + 1)
    for window in range(windows):
        score = scale * (earned(past[-1 - lag]) + slope * window + NOISE * rng.standard_normal())
        rate = tuner.suggest(HyperparamSet(params={"rate": rate}), EvalMetrics(primary_score=score))["rate"]
        past.append(rate)
    return tuner.values["rate"], past


def make(kind, seed=0, **changes):
    return kind({"rate": (0.0, 1.0)}, **{"gate": False, "seed": seed, **changes})


@every_tuner
@pytest.mark.parametrize("start", STARTS)
def test_it_is_found_within_a_hundred_windows(kind, start):
    found = [tune(make(kind, seed), start, seed)[0] for seed in range(100)]
    assert (np.abs(np.array(found) - OPTIMUM) <= 0.05).sum() >= 95


@every_tuner
@pytest.mark.parametrize("start", STARTS)
def test_with_the_gate_it_is_never_worse_than_at_the_start(kind, start):
    found = [tune(make(kind, seed, gate=True), start, seed)[0] for seed in range(100)]
    worse = [earned(start) - earned(rate) for rate in found if earned(rate) < earned(start) - 1e-12]
    assert len(worse) <= 1 and max(worse, default=0.0) < NOISE  # 95 % is not certainty
    assert np.mean([earned(rate) for rate in found]) > earned(start)


@every_tuner
def test_a_credit_that_is_shifted_by_one_window_would_be_noticed(kind):
    """The first test fails if a score goes to the values that the next window was collected with."""
    found = [tune(make(kind, seed), 0.7, seed, lag=1)[0] for seed in range(60)]
    assert (np.abs(np.array(found) - OPTIMUM) <= 0.05).mean() < 0.8


@every_tuner
@pytest.mark.parametrize("gate", [False, True])
def test_multiplying_all_rewards_changes_nothing(kind, gate):
    for seed in range(5):
        _, plain = tune(make(kind, seed, gate=gate), 0.5, seed)
        _, large = tune(make(kind, seed, gate=gate), 0.5, seed, scale=300.0)
        np.testing.assert_allclose(plain, large, rtol=1e-9)


@every_tuner
def test_a_score_that_rises_by_itself_does_not_lead_astray(kind):
    """Each window earns as much more than the last as the whole way to the optimum is worth."""
    found = [tune(make(kind, seed), 0.5, seed, slope=0.36)[0] for seed in range(20)]
    assert np.median(np.abs(np.array(found) - OPTIMUM)) <= 0.1


@every_tuner
def test_it_goes_on_exactly_where_it_was(kind):
    whole, _ = make(kind, 3), None
    _, past = tune(whole, 0.5, 3)
    rng, rate, again = np.random.default_rng(3), 0.5, [0.5]
    tuner = make(kind, 3)
    for window in range(NUM_WINDOWS):
        if window % 7 == 3:  # killed, and read back from a file
            state = json.loads(json.dumps(tuner.state_dict()))
            tuner = make(kind, 3)
            tuner.load_state_dict(state)
        score = earned(rate) + NOISE * rng.standard_normal()
        rate = tuner.suggest(HyperparamSet(params={"rate": rate}), EvalMetrics(primary_score=score))["rate"]
        again.append(rate)
    assert again == past
    assert tuner.num_probes == whole.num_probes > 5


@every_tuner
def test_two_seeds_are_two_trajectories(kind):
    if kind is not BackoffOptimizer:  # which draws nothing
        assert tune(make(kind, 1), 0.5, 0)[1] != tune(make(kind, 2), 0.5, 0)[1]
    assert tune(make(kind, 1), 0.5, 0)[1] == tune(make(kind, 1), 0.5, 0)[1]


@every_tuner
@pytest.mark.parametrize("gate", [False, True])
def test_nan_is_the_worst_of_scores(kind, gate):
    """Everything above 0.6 breaks the learner: the tuner stays below, and is not thrown off by it."""
    tuner, rate = make(kind, gate=gate), 0.5
    for _ in range(80):
        score = math.nan if rate > 0.6 else rate
        rate = tuner.suggest(HyperparamSet(params={"rate": rate}), EvalMetrics(primary_score=score))["rate"]
    assert 0.45 <= tuner.values["rate"] <= 0.62


@every_tuner
def test_side_by_side_it_is_found_too_and_moves_only_on_evidence(kind):
    """As the laboratory asks: all places at once, scored on common seeds that matter more than the values do."""
    for gate in (False, True):
        tuner, values, rng = make(kind, gate=gate), {"rate": 0.5}, np.random.default_rng(0)
        metrics = EvalMetrics(primary_score=0.0)
        for _ in range(25):
            places = tuner.plan(HyperparamSet(params=values), metrics)
            assert places[0] == values
            seeds = 10 * rng.standard_normal(8)
            samples = [earned(p["rate"]) + seeds + NOISE * rng.standard_normal(8) for p in places]
            values = dict(tuner.conclude(samples))
            assert not tuner.is_probing()
        assert values["rate"] == pytest.approx(OPTIMUM, abs=0.08), gate
        assert tuner.num_probes == 25 and len(tuner.take_findings()) == 25 and not tuner.take_findings()


@every_tuner
def test_what_found_nothing_leaves_the_values_as_they_are_to_the_last_bit(kind):
    tuner, rate = kind({"rate": (1e-5, 1e-1)}, {"rate"}), 0.001 * 3
    metrics = EvalMetrics(primary_score=0.0)
    for _ in range(3):
        places = tuner.plan(HyperparamSet(params={"rate": rate}), metrics)
        assert dict(tuner.conclude([np.zeros(4)] * len(places))) == {"rate": rate}
    turns = kind({"rate": (1e-5, 1e-1)}, {"rate"})
    seen = set()
    for _ in range(40):
        held = dict(turns.suggest(HyperparamSet(params={"rate": rate}), metrics))["rate"]
        seen.add(held)
        rate = held
    assert turns.values == {"rate": 0.001 * 3} and 0.001 * 3 in seen and len(seen) > 2


@every_tuner
def test_values_that_nobody_asked_for_end_the_experiment_in_hand(kind):
    """A rollback, say, brought them back: the probe gets no credit, and another experiment begins there."""
    tuner, rate = make(kind), 0.5
    while not tuner.is_probing():
        rate = tuner.suggest(HyperparamSet(params={"rate": rate}), EvalMetrics(primary_score=0.0))["rate"]
    held = tuner.num_probes
    asked = tuner.suggest(HyperparamSet(params={"rate": 0.25}), EvalMetrics(primary_score=100.0))
    assert tuner.values == {"rate": 0.25} and asked["rate"] != 0.25 and tuner.is_probing()
    assert tuner.num_probes == held
