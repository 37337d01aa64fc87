"""How often the printed 95 % intervals hold the truth: ``python benchmarks/intervals.py [SAMPLES]``.

Every row is a distribution of returns, every column a number of them. Samples whose values are all equal have no
interval and are left out; their share is printed where there are any.
"""

from __future__ import annotations

import sys

import numpy as np

from optix_core.evaluation import iqm, mean, stratified_bootstrap

SIZES = (3, 5, 20, 100)
KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, size=shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "half succeed": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
    "95 % succeed": lambda rng, shape: (rng.random(shape) < 0.95).astype(float),
    "500, or 1 % fall": lambda rng, shape: np.where(rng.random(shape) < 0.01, rng.uniform(100, 499, shape), 500.0),
    "500, or 20 % fall": lambda rng, shape: np.where(rng.random(shape) < 0.2, rng.uniform(100, 499, shape), 500.0),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "lognormal, sigma 1": lambda rng, shape: rng.lognormal(size=shape),
    "lognormal, sigma 1.5": lambda rng, shape: rng.lognormal(sigma=1.5, size=shape),
    "about 250, or 2 % crash": lambda rng, shape: np.where(
        rng.random(shape) < 0.02, rng.normal(-100, 50, shape), rng.normal(250, 20, shape)
    ),
}


def main(samples: int) -> None:
    """Print a table for the mean and one for the interquartile mean."""
    for statistic in (mean, iqm):
        print(f"\n| {statistic.__name__} of | " + " | ".join(f"{size} values" for size in SIZES) + " |")
        print("|---" * (len(SIZES) + 1) + "|")
        for name, draw in KINDS.items():
            rng = np.random.default_rng(0)
            truth = float(statistic(draw(rng, 1_000_000)))
            cells = []
            for size in SIZES:
                drawn = draw(rng, (samples, size))
                varied = drawn[np.ptp(drawn, axis=1) > 0]
                found = [stratified_bootstrap(values, statistic) for values in varied]
                # The truth is itself known to about a thousandth only.
                covered = [i.low - 1e-3 <= truth <= i.high + 1e-3 for i in found]  # type: ignore[operator]
                equal = 1 - len(varied) / samples
                cells.append(f"{100 * np.mean(covered):.1f} %" + (f" ({100 * equal:.0f} % equal)" if equal > 0 else ""))
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
