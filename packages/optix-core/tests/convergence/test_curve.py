"""Bounded storage: what is merged is still the mean over all episodes."""

import json

import numpy as np
import pytest

from optix_core.convergence._curve import Curve


def filled(num_windows: int, capacity: int = 8) -> tuple[Curve, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_windows)
    scores, episodes = rng.standard_normal(num_windows), rng.integers(1, 9, num_windows).astype(float)
    curve = Curve(capacity=capacity)
    for i in range(num_windows):
        curve.append(10 * (i + 1), scores[i], episodes[i])
    return curve, scores, episodes


@pytest.mark.parametrize("num_windows", [1, 7, 8, 9, 10, 16, 17, 18, 40, 67])
def test_a_slot_holds_the_mean_over_the_episodes_of_its_windows(num_windows):
    curve, scores, episodes = filled(num_windows)
    per_slot = 1
    while num_windows > 8 * per_slot:
        per_slot *= 2
    # the merging waits until a window does not fit any more
    for size in (per_slot, per_slot // 2):
        if size and num_windows // size == len(curve.scores):
            per_slot = size
            break
    whole = num_windows // per_slot * per_slot
    s, w = scores[:whole].reshape(-1, per_slot), episodes[:whole].reshape(-1, per_slot)
    np.testing.assert_allclose(curve.scores, (s * w).sum(axis=1) / w.sum(axis=1))
    np.testing.assert_array_equal(curve.episodes, w.sum(axis=1))
    np.testing.assert_array_equal(curve.steps, 10.0 * per_slot * np.arange(1, whole // per_slot + 1))
    assert curve.num_windows == num_windows
    assert len(curve.scores) <= 8


def test_equal_scores_stay_exactly_equal():
    curve = Curve(capacity=4)
    for i in range(37):
        curve.append(i + 1, 0.1, 1 + i % 3)
    assert set(curve.scores) == {0.1}


def test_state_survives_json_in_the_middle_of_a_slot():
    one, _, _ = filled(19)
    two = Curve(capacity=8)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for curve in (one, two):
        for i in range(20, 60):
            curve.append(10 * i, i**0.5, i % 4 + 1)
    assert one.state_dict() == two.state_dict()


def test_a_state_of_the_first_release_counts_one_episode_a_window():
    state = {
        "capacity": 8, "steps": [20.0, 40.0], "scores": [1.0, 2.0], "per_slot": 2, "open_sum": 5.0, "open_count": 1,
        "num_windows": 5,
    }  # fmt: skip
    curve = Curve(capacity=8)
    curve.load_state_dict(state)
    curve.append(60, 7.0)
    np.testing.assert_array_equal(curve.scores, [1.0, 2.0, 6.0])
    np.testing.assert_array_equal(curve.episodes, [2.0, 2.0, 2.0])


@pytest.mark.parametrize("capacity", [3, 2, 0, 5])
def test_odd_and_tiny_capacities_are_refused(capacity):
    with pytest.raises(ValueError, match="even number"):
        Curve(capacity=capacity)
    with pytest.raises(ValueError, match="holds 4 windows, the state 8"):
        Curve(capacity=4).load_state_dict(Curve(capacity=8).state_dict())
