"""Races: equal members hardly ever replace the incumbent, clearly better ones mostly do, hopeless ones end early."""

import math

import numpy as np
import pytest

from optix_core.evolution.race import ALPHA, RacePlan, plan_race, run_race, upper_bound


def races(advantage, *, num_races=1000, plan=None, seed=0, draw=None):
    """Hold races of members with a constant advantage, in standard deviations of the paired difference."""
    rng = np.random.default_rng(seed)
    draw = draw or (lambda size: rng.standard_normal(size))
    plan = plan or RacePlan(windows=12)

    def play(episodes, number, is_variant):
        return draw(episodes) / math.sqrt(2) + advantage * is_variant

    return [run_race(plan, lambda _: None, play) for _ in range(num_races)]


def test_equal_members_replace_the_incumbent_in_at_most_five_percent():
    won = np.mean([race.won for race in races(0.0)])
    assert won <= ALPHA


def test_members_better_by_half_a_standard_deviation_replace_it_in_eighty_percent():
    assert np.mean([race.won for race in races(0.5)]) >= 0.8


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_score_changes_nothing(scale):
    def decided(scale):
        rng = np.random.default_rng(3)
        return [race.won for race in races(0.4 * scale, num_races=40, draw=lambda n: scale * rng.standard_normal(n))]

    assert decided(scale) == decided(1.0)


def test_seldom_successes_keep_the_level():
    """Sparse returns of 0 and 1, as on a deceptive task."""
    rng = np.random.default_rng(1)
    won = [race.won for race in races(0.0, draw=lambda n: (rng.random(n) < 0.1).astype(float))]
    assert np.mean(won) <= ALPHA


def test_equal_returns_do_not_win():
    assert not any(race.won for race in races(0.0, num_races=3, draw=lambda n: np.full(n, 500.0)))


def test_a_hopeless_variant_ends_after_its_first_screening():
    (race,) = races(-5.0, num_races=1)
    assert not race.won
    assert race.rounds == 1
    assert race.upper < 0
    assert "cannot win" in race.why


def test_a_broken_variant_loses():
    race = run_race(RacePlan(windows=3), lambda _: "learn() reported loss as NaN.", lambda *_: np.zeros(1))
    assert not race.won
    assert "NaN" in race.why


def test_the_upper_bound_covers():
    rng = np.random.default_rng(0)
    missed = sum(upper_bound(rng.standard_normal(12) + 0.3, np.zeros(12)) < 0.3 for _ in range(4000))
    assert missed / 4000 == pytest.approx(ALPHA, abs=0.012)


@pytest.mark.parametrize("length", [1, 30, 500])
@pytest.mark.parametrize("steps", [100, 3_000, 15_000, 200_000, math.inf])
def test_a_race_never_costs_more_than_it_may(steps, length):
    plan = plan_race(steps, window_env_steps=512, episode_length=length)
    if plan is None:
        assert steps < 2 * 512 or steps - 512 < 12 * length
        return
    assert plan.windows * 512 + plan.num_episodes * length <= steps
    assert sum(plan.windows_of(i) for i in range(plan.rounds)) == plan.windows
    assert all(plan.windows_of(i) >= 1 for i in range(plan.rounds))
