"""What rounds teach and what further episodes are worth, against exact formulas."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from optix_core.evaluation._contest import Contest
from optix_core.evaluation.smoothing import Belief


def contest(mean, covariance, *, episode_variance=1.0):
    return Contest(Belief(mean=np.array(mean), covariance=np.array(covariance)), episode_variance, seed=0)


def test_expected_gain_is_the_value_of_information_of_two_normal_policies():
    rivals = contest([1.0, 0.8], [[0.5, 0.0], [0.0, 0.3]])
    episodes = 10
    # Each mean moves with variance v^2 / (v + s^2 / n); the difference of the means is normal.
    spread = math.sqrt(sum(v**2 / (v + 1 / episodes) for v in (0.5, 0.3)))
    u = -0.2 / spread
    exact = spread * (math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) + u * ndtr(u))
    assert rivals.expected_gain([0, 1], episodes) == pytest.approx(exact, rel=0.15)


def test_nothing_can_be_gained_by_what_is_already_known():
    assert contest([1.0, 0.8], np.zeros((2, 2))).expected_gain([0, 1], 100) == 0
    assert contest([9.0, 0.0], 0.1 * np.eye(2)).expected_gain([0, 1], 100) < 1e-6


def test_an_update_is_the_conditional_normal():
    rivals = contest([0.0, 0.0, 0.0], [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    rivals._rest.add(1e6, 10**6)  # the variance of an episode is known to be 1
    returns = np.array([[2.0, 0.0, 2.0, 0.0], [-2.0, 0.0, 0.0, -2.0]])  # means 1 and -1, no shared seed effect
    rivals.observe([0, 2], returns)
    noise = rivals._rest.value / 4
    # The seeds' variance is estimated as 0, so each player is updated by its own mean, and 1 follows 0.
    gain = 1 / (1 + noise)
    np.testing.assert_allclose(rivals.belief.mean, [gain, 0.5 * gain, -gain], rtol=1e-3)
    assert rivals.belief.covariance[2, 2] == pytest.approx(1 - gain, rel=1e-3)


def test_what_all_players_owe_to_the_seeds_does_not_blur_the_comparison():
    rng = np.random.default_rng(0)
    seeds = 100 * rng.normal(size=20)
    returns = np.array([seeds + 1, seeds]) + 0.5 * rng.normal(size=(2, 20))
    rivals = contest([0.0, 0.0], 4 * np.eye(2), episode_variance=1e4)
    rivals._rest, rivals._seeds = type(rivals._rest)(0.25), type(rivals._seeds)(1e4)
    rivals.observe([0, 1], returns)
    difference = rivals.belief.mean[0] - rivals.belief.mean[1]
    covariance = rivals.belief.covariance
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert difference == pytest.approx(1, abs=3 * error)
    assert error < 0.3  # against 30 if the seeds' part were taken for noise


def test_both_variances_are_those_of_a_two_way_analysis():
    returns = np.array([[3.0, 8.0, 1.0, 6.0], [1.0, 9.0, 2.0, 4.0], [2.0, 4.0, 0.0, 5.0]])
    rivals = contest(np.zeros(3), np.eye(3), episode_variance=2.0)
    rivals.observe([0, 1, 2], returns)
    players, episodes = returns.shape
    squares = sum(
        (returns[p, e] - returns[p].mean() - returns[:, e].mean() + returns.mean()) ** 2
        for p in range(players)
        for e in range(episodes)
    )
    freedom = (players - 1) * (episodes - 1)
    assert rivals._rest.value == pytest.approx((4 * 2.0 + squares) / (4 + freedom))
    between = sum((returns[:, e].mean() - returns.mean()) ** 2 for e in range(episodes)) / (episodes - 1)
    shared = between - squares / freedom / players
    assert shared > 0
    assert rivals._seeds.value == pytest.approx(shared * (episodes - 1) / (4 + episodes - 1))
    assert rivals.episode_std == pytest.approx(math.sqrt(rivals._rest.value + rivals._seeds.value))


def test_a_round_invites_more_players_the_more_is_open():
    close = contest(np.zeros(8), np.eye(8))
    decided = contest(np.arange(8.0), 0.2 * np.eye(8))
    assert len(close.best_round(160, min_episodes=4)) > len(decided.best_round(160, min_episodes=4)) == 2
    assert decided.best_round(160, min_episodes=4) == [7, 6]


def test_equals_keep_their_order():
    assert contest([1.0, 2.0, 2.0, 0.0], np.eye(4)).ranking() == [1, 2, 0, 3]
