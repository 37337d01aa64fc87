"""The decision of the meta-controller: the table of all combinations, and what its signals mean."""

import itertools

import numpy as np
import pytest

from optix_core.evolution.meta import Interval, MetaAction, MetaController, Signals, gap_of, improvement_of
from optix_protocol import Verdict

ABOVE, ACROSS, BELOW = Interval(low=1.0, high=2.0), Interval(low=-1.0, high=1.0), Interval(low=-2.0, high=-1.0)
INTERVALS = {"above": ABOVE, "across": ACROSS, "below": BELOW, "unknown": None}
CONTROLLER = MetaController(gap_threshold=0.5, gap_slope_threshold=0.5, improvement_threshold=0.5)


def decide(**signals):
    return CONTROLLER.decide(Signals(**signals)).action.value


@pytest.mark.parametrize(
    ("verdict", "gap", "gap_slope", "improvement", "with_spawns", "without_spawns"),
    [
        # A verdict that would end the run: a last variant is tried, then it ends, whatever else is the case.
        ("CONVERGED", "*", "*", "*", "spawn", "stop"),
        ("NO_SIGNAL", "*", "*", "*", "spawn", "stop"),
        # A gap that is certainly too large and certainly grows.
        ("IMPROVING", "above", "above", "*", "spawn", "no_op"),
        ("UNDECIDED", "above", "above", "*", "spawn", "no_op"),
        ("DEGRADING", "above", "above", "*", "spawn", "no_op"),
        # A falling score, once there are enough scores since the last variant.
        ("DEGRADING", "!", "!", "above", "spawn", "no_op"),
        ("DEGRADING", "!", "!", "across", "spawn", "no_op"),
        ("DEGRADING", "!", "!", "below", "spawn", "no_op"),
        ("DEGRADING", "!", "!", "unknown", "no_op", "no_op"),
        # A score that certainly stalls; one that may rise is left alone.
        ("UNDECIDED", "!", "!", "below", "spawn", "no_op"),
        ("UNDECIDED", "!", "!", "across", "no_op", "no_op"),
        ("UNDECIDED", "!", "!", "above", "no_op", "no_op"),
        ("UNDECIDED", "!", "!", "unknown", "no_op", "no_op"),
        # A run that improves is left alone.
        ("IMPROVING", "!", "!", "*", "no_op", "no_op"),
    ],
)
def test_the_table(verdict, gap, gap_slope, improvement, with_spawns, without_spawns):
    """``*`` stands for everything, ``!`` for every pair of gap and slope but (above, above)."""
    gaps = INTERVALS if gap in "*!" else [gap]
    slopes = INTERVALS if gap_slope in "*!" else [gap_slope]
    improvements = INTERVALS if improvement == "*" else [improvement]
    for g, slope, i in itertools.product(gaps, slopes, improvements):
        if gap == "!" and (g, slope) == ("above", "above"):
            continue
        signals = {
            "verdict": Verdict(verdict),
            "gap": INTERVALS[g],
            "gap_slope": INTERVALS[slope],
            "improvement": INTERVALS[i],
        }
        assert decide(**signals, spawns_left=1) == with_spawns, signals
        assert decide(**signals, spawns_left=0) == without_spawns, signals


def test_a_growing_gap_prunes_where_there_is_somebody_to_prune():
    assert decide(gap=ABOVE, gap_slope=ABOVE, num_members=1, spawns_left=1) == "prune"
    assert decide(gap=ABOVE, gap_slope=ACROSS, num_members=1) == "no_op"


@pytest.mark.parametrize("verdict", ["UNDECIDED", "IMPROVING", "DEGRADING"])
def test_late_spawns_are_made_whatever_the_verdict(verdict):
    assert decide(verdict=Verdict(verdict), is_late=True, spawns_left=1) == "spawn"
    assert decide(verdict=Verdict(verdict), is_late=True) == "no_op"


def test_decisions_say_their_numbers():
    found = CONTROLLER.decide(Signals(improvement=Interval(low=-0.01, high=0.02), spawns_left=1))
    assert found.action is MetaAction.SPAWN
    assert "-0.01 to 0.02" in found.why
    assert "0.5" in found.why


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e5])
def test_the_gap_is_measured_in_spreads_so_that_a_mean_near_zero_changes_nothing(offset):
    rng = np.random.default_rng(0)
    scores, gaps = rng.normal(0, 2, 40), 3.0 + rng.normal(0, 0.1, 40)
    gap, slope = gap_of(scores + offset, gaps)
    assert (gap.low + gap.high) / 2 == pytest.approx(gaps.mean() / scores.std(ddof=1), abs=1e-3)
    assert gap.high - gap.low < 0.1
    assert slope.low < 0 < slope.high


def test_the_gap_is_known_although_it_grows():
    rng = np.random.default_rng(0)
    gap, slope = gap_of(rng.normal(0, 1, 40), np.linspace(1, 3, 40) + rng.normal(0, 0.1, 40))
    assert gap.low > 1.8
    assert slope.low > 1.8


def test_improvement_is_a_fraction_of_the_range():
    rng = np.random.default_rng(0)
    rising = improvement_of(np.linspace(0, 10, 40) + rng.normal(0, 0.1, 40), 100.0)
    assert rising.low < 0.1 < rising.high
    flat = improvement_of(rng.normal(0, 1, 40), 100.0)
    assert flat.low < 0 < flat.high < 0.05
    assert improvement_of([1.0] * 5, 1.0) is None
    assert improvement_of([1.0] * 40, 0.0) is None
