"""The statistical promises of the monitor, by seeded simulation where the truth is known."""

import numpy as np
import pytest

from optix_core.convergence import ConvergenceMonitor
from optix_core.convergence.statistics import trend_bounds
from optix_protocol import Verdict

NUM_WINDOWS = 1000
TIME = np.arange(1.0, NUM_WINDOWS + 1)
NOISES = {"white": (0.0, 0.0), "ar": (0.5, 0.0), "arma": (0.7, 0.4)}


def sigmoid(centre: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(TIME - centre) / width))


RISES = {
    "sigmoid": sigmoid(300, 60),
    "logarithmic": np.log1p(TIME / 10) / np.log1p(100),
    "linear": TIME / NUM_WINDOWS,
}


def noisy(mean: np.ndarray, kind: str, sigma: float, num_curves: int, seed: int = 0) -> np.ndarray:
    ar, ma = NOISES[kind]
    shocks = np.random.default_rng(seed).standard_normal((num_curves, len(mean) + 100))
    series = np.zeros_like(shocks)
    for t in range(1, shocks.shape[1]):
        series[:, t] = ar * series[:, t - 1] + shocks[:, t] + ma * shocks[:, t - 1]
    scale = np.sqrt((1 + 2 * ar * ma + ma**2) / (1 - ar**2))
    return mean + sigma * series[:, 100:] / scale


def run(scores: np.ndarray, budget: int | None) -> tuple[int | None, list[Verdict]]:
    """Returns the window of the stop and the verdicts of all looks until then."""
    monitor, verdicts = ConvergenceMonitor(budget_env_steps=budget), []
    for i, score in enumerate(scores.tolist(), start=1):
        assessment = monitor.update(score, i)
        if assessment.looked:
            verdicts.append(assessment.verdict)
        if assessment.should_stop:
            return i, verdicts
    return None, verdicts


def still_rises(mean: np.ndarray, stop: int, budget: int | None) -> bool:
    """True mean slope at the stop is at least margin / horizon."""
    left = 2.0 if budget is None else np.log(max(budget / stop, 1.01))
    horizon = 0.25 * stop * min(1.0, left / 2)
    slope = mean[min(stop, NUM_WINDOWS - 1)] - mean[stop - 1]
    return slope * horizon >= 0.05 * (mean[stop - 1] - mean[0])


@pytest.mark.parametrize("budget", [NUM_WINDOWS, None])
@pytest.mark.parametrize("kind", ["white", "ar", "arma"])
@pytest.mark.parametrize("rise", RISES)
@pytest.mark.parametrize("curves_per_sigma", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_false_stops_while_the_score_still_rises(rise, kind, budget, curves_per_sigma):
    mean, false, num_curves = RISES[rise], 0, 0
    for sigma in (0.05, 0.1, 0.2):
        for scores in noisy(mean, kind, sigma, curves_per_sigma):
            stop, verdicts = run(scores, budget)
            num_curves += 1
            false += stop is not None and verdicts[-1] is Verdict.CONVERGED and still_rises(mean, stop, budget)
    assert false / num_curves <= 0.02


@pytest.mark.parametrize("kind", ["white", "ar", "arma"])
def test_flat_curves_are_not_called_converged(kind):
    curves = noisy(np.zeros(400), kind, 1.0, 100)
    converged = [Verdict.CONVERGED in run(scores, 400)[1] for scores in curves]
    assert np.mean(converged) <= 0.03


@pytest.mark.parametrize("kind", ["white", "ar"])
def test_a_shelf_of_sixty_windows_is_not_the_end(kind):
    mean = 0.5 * sigmoid(40, 5) + 0.5 * sigmoid(130, 5)
    for budget in (NUM_WINDOWS, None):
        stops = [run(scores, budget)[0] for scores in noisy(mean, kind, 0.05, 25)]
        assert np.mean([stop is not None and stop < 140 for stop in stops]) <= 0.01


@pytest.mark.parametrize(("kind", "sigma", "most"), [("white", 0.05, 200), ("ar", 0.1, 450)])
def test_delay_after_a_sigmoid_is_short(kind, sigma, most):
    mean = sigmoid(100, 20)
    reached = int(np.argmax(mean >= 0.95))
    stops = [run(scores, NUM_WINDOWS)[0] or NUM_WINDOWS for scores in noisy(mean, kind, sigma, 30)]
    assert np.median(stops) - reached <= most


def test_slope_bounds_keep_their_level_on_autocorrelated_scores():
    x = np.arange(200.0)
    for kind, most in (("white", 0.07), ("ar", 0.07), ("arma", 0.1)):
        missed = [trend_bounds(x, y, 0.05).upper < 0 for y in noisy(np.zeros(200), kind, 1.0, 500)]
        assert np.mean(missed) <= most


@pytest.mark.parametrize("budget", [NUM_WINDOWS, None])
def test_verdicts_do_not_depend_on_the_scale_of_the_score(budget):
    curve = noisy(sigmoid(100, 20), "ar", 0.1, 1)[0]
    plain, scaled, shifted = run(curve, budget), run(300 * curve, budget), run(curve - 200, budget)
    assert plain == scaled
    assert plain == shifted


def test_sampling_density_hardly_moves_the_stop():
    dense = noisy(np.interp(np.arange(3000) / 3, np.arange(1000), sigmoid(100, 20)), "white", 0.05 * 3**0.5, 20)
    stops = {1: [], 3: []}
    for scores in dense:
        for thinning, found in stops.items():
            windows = scores.reshape(-1, thinning).mean(axis=1)
            monitor = ConvergenceMonitor(budget_env_steps=3000)
            for i, score in enumerate(windows, start=1):
                if monitor.update(score, i * thinning).should_stop:
                    found.append(i * thinning)
                    break
    assert len(stops[1]) == len(stops[3]) == 20
    assert 0.8 < np.median(stops[1]) / np.median(stops[3]) < 1.25
