"""The statistics under the monitor, against numbers worked out by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from optix_core.convergence.statistics import (
    batch_means,
    long_run_variance,
    smooth,
    student_t_quantile,
    trend_bounds,
    variance_of_falls,
)


def test_the_quantile_is_that_of_student():
    for probability, degrees in ((0.95, 4), (0.9924, 18), (0.99, 1)):
        assert student_t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees))


def test_batch_means_leave_the_oldest_out_and_weigh_within_a_batch():
    assert batch_means([9, 1, 2, 3, 4], 2).tolist() == [1.5, 3.5]
    assert batch_means([9, 1, 2, 3, 4], 2, [5, 3, 1, 1, 3]).tolist() == [1.25, 3.75]
    assert batch_means([0.1] * 7, 1, [3, 1, 2, 7, 1, 1, 5]).tolist() == [0.1]
    assert batch_means([1.0, 2.0], 2).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="1 values cannot fill 2 batches"):
        batch_means([1.0], 2)


def test_long_run_variance_by_hand():
    # batches (1, 3), (5, 7), (3, 5): means 2, 6, 4; L = 2: 2 * ((16 + 4) / 2) / 2 = 10
    assert long_run_variance([1, 3, 5, 7, 3, 5], 3) == pytest.approx(10)
    # weights 1, 1, 2 of single values: ((4 / 2) + (9 / 1.5)) / 2 = 4
    assert long_run_variance([0, 2, 5], 3, [1, 1, 2]) == pytest.approx(4)
    assert long_run_variance([3.0], 5) == 0
    assert long_run_variance([3.0, 3.0, 3.0], 5) == 0
    assert long_run_variance([1.0, 3.0], 5) == pytest.approx(2), "fewer values than batches"


def test_long_run_variance_of_an_episode_does_not_depend_on_how_windows_are_cut():
    rng = np.random.default_rng(0)
    episodes = 3 * rng.standard_normal(24_000)
    fine, coarse = episodes.reshape(-1, 2).mean(axis=1), episodes.reshape(-1, 12).mean(axis=1)
    of_fine = long_run_variance(fine, 400, np.full(len(fine), 2))
    of_coarse = long_run_variance(coarse, 400, np.full(len(coarse), 12))
    assert of_fine == pytest.approx(9, rel=0.2)
    assert of_coarse == pytest.approx(of_fine, rel=0.02)


def test_falls_measure_noise_on_any_rise():
    noise = np.random.default_rng(1).standard_normal(20_000)
    assert variance_of_falls(noise) == pytest.approx(1, rel=0.05)
    assert variance_of_falls(noise / 2, None, np.full(len(noise), 4)) == pytest.approx(1, rel=0.05)
    assert variance_of_falls([0, 10, 20, 19]) == pytest.approx(1 / 3), "one fall of 1 in three differences"
    assert variance_of_falls([5, 3], None, [1, 3]) == pytest.approx(2 * 4 / (1 + 1 / 3))
    # batches (4, 6), (1, 3), (7, 9): means 5, 2, 8, one fall of 3 in two differences; L = 2: 2 * 9 / 2
    assert variance_of_falls([4, 6, 1, 3, 7, 9], 3) == pytest.approx(9)
    assert variance_of_falls([9, 1], 5) == pytest.approx(64), "fewer values than batches"
    assert variance_of_falls([5.0]) == 0
    assert variance_of_falls([1, 2, 3]) == 0


def test_smooth_is_a_weighted_moving_average():
    assert smooth([1, 2, 6], 2).tolist() == [1.5, 4.0]
    assert smooth([1, 2, 6], 2, [1, 1, 3]).tolist() == [1.5, 5.0]
    assert smooth([1, 2, 6], 1, [1, 1, 3]).tolist() == [1.0, 2.0, 6.0]
    assert set(smooth([0.1] * 9, 4, range(1, 10))) == {0.1}


def test_trend_bounds_are_the_widest_of_two_regressions():
    rng = np.random.default_rng(2)
    x = np.cumsum(rng.integers(1, 9, 60)).astype(float)
    y = 0.3 * x + rng.standard_normal(60)
    found = trend_bounds(x, y, 0.02)
    bounds = []
    for count in (10, 20):
        fit = stats.linregress(x.reshape(count, -1).mean(axis=1), y.reshape(count, -1).mean(axis=1))
        half = stats.t.ppf(0.98, count - 2) * fit.stderr
        bounds += [(fit.slope - half, fit.slope + half)]
    assert found.lower == pytest.approx(min(low for low, _ in bounds))
    assert found.upper == pytest.approx(max(high for _, high in bounds))
    assert found.slope == pytest.approx(fit.slope)
    assert found.level == pytest.approx(y.mean())
    assert trend_bounds(x[:10], y[:10], 0.02).level == pytest.approx(y[:10].mean()), "ten windows are enough"
    with pytest.raises(ValueError, match="9 windows are too few for a trend, 10 are needed"):
        trend_bounds(x[:9], y[:9], 0.02)
