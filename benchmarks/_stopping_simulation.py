"""Simulated learning curves: false stops, flat curves and delay, where the truth is known."""

from __future__ import annotations

import numpy as np
from _stopping_data import Array
from _stopping_rules import monitor

from optix_core.convergence import ConvergenceMonitor

NUM_WINDOWS = 1000
_TIME = np.arange(1.0, NUM_WINDOWS + 1)


def _sigmoid(centre: float, width: float) -> Array:
    return 1 / (1 + np.exp(-(_TIME - centre) / width))


RISES: dict[str, Array] = {
    "sigmoid, centre 100": _sigmoid(100, 20),
    "sigmoid, centre 300": _sigmoid(300, 60),
    "logarithmic": np.log1p(_TIME / 10) / np.log1p(NUM_WINDOWS / 10),
    "linear": _TIME / NUM_WINDOWS,
    "two stages, 60-window shelf": 0.5 * _sigmoid(40, 5) + 0.5 * _sigmoid(130, 5),
    "flat": np.zeros(NUM_WINDOWS),
}
NOISES: dict[str, tuple[float, float]] = {"white": (0.0, 0.0), "AR .5": (0.5, 0.0), "ARMA .7 .4": (0.7, 0.4)}


def noise(rng: np.random.Generator, num_curves: int, ar: float, ma: float) -> Array:
    """ARMA(1, 1) noise of unit variance, shape ``[num_curves, NUM_WINDOWS]``."""
    shocks = rng.standard_normal((num_curves, NUM_WINDOWS + 100))
    series = np.zeros_like(shocks)
    for t in range(1, shocks.shape[1]):
        series[:, t] = ar * series[:, t - 1] + shocks[:, t] + ma * shocks[:, t - 1]
    return series[:, 100:] / np.sqrt((1 + 2 * ar * ma + ma**2) / (1 - ar**2))


def rows(num_curves: int) -> list[tuple[str, str, float, str, float, float, float]]:
    """Simulate every cell.

    Returns:
        Rows of (curve, noise, sigma, budget, share of CONVERGED stops while the true mean slope is at least m/H,
        share that stops at all, median window of the stop).
    """
    table = []
    for budget_known in (True, False):
        rule = monitor(budget_known=budget_known)
        for curve_name, mean in RISES.items():
            for noise_name, (ar, ma) in NOISES.items():
                for sigma in (0.05, 0.1, 0.2):
                    rng = np.random.default_rng(0)
                    stops, false = [], 0
                    for path in mean + sigma * noise(rng, num_curves, ar, ma):
                        stop, verdict = rule(_TIME, path)
                        stops.append(stop or NUM_WINDOWS + 1)
                        false += stop is not None and verdict == "CONVERGED" and _still_rises(mean, stop, budget_known)
                    stopped = np.mean(np.array(stops) <= NUM_WINDOWS)
                    budget = "known" if budget_known else "none"
                    table.append(
                        (curve_name, noise_name, sigma, budget, false / num_curves, stopped, float(np.median(stops)))
                    )
    return table


def _still_rises(mean: Array, stop: int, budget_known: bool) -> bool:
    """Whether the true slope at ``stop`` promises a margin per horizon; a flat curve must never converge."""
    span = mean[:stop].max() - mean[0]
    if np.ptp(mean) == 0:
        return True
    slope = mean[min(stop, NUM_WINDOWS - 1)] - mean[stop - 1]
    return bool(slope * horizon_windows(stop, budget_known) >= ConvergenceMonitor().margin_fraction * span)


def horizon_windows(stop: int, budget_known: bool) -> float:
    """The horizon of the default monitor at window ``stop``."""
    left = np.log(max(NUM_WINDOWS / stop, 1.01)) if budget_known else 2.0
    return ConvergenceMonitor().horizon_fraction * stop * min(1.0, left / 2)
