"""How often healthy plateaus are suspected or rolled back, and how soon a drop is found: simulated scores.

    uv run python benchmarks/degradation.py [--plateaus 2000] [--drops 200]

A healthy run rises over 30 windows and stays for 170. A drop of a fifth comes after 70 windows on the plateau, a
collapse by 70 % after 5. Trials on fresh episodes are played as the loop plays them, at the same noise.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from optix_core.convergence import DegradationTest

HEALTHY = np.concatenate([np.linspace(0, 100, 30), np.full(170, 100.0)])
DROPS = {
    "drop of 20 %": (100, np.concatenate([np.linspace(0, 100, 30), np.full(70, 100.0), np.full(60, 80.0)])),
    "collapse by 70 %": (35, np.concatenate([np.linspace(0, 100, 30), np.full(5, 100.0), np.full(60, 30.0)])),
}


def noise(rng: np.random.Generator, num_windows: int, phi: float) -> NDArray[np.float64]:
    """Return stationary AR(1) noise of variance 1."""
    found = rng.standard_normal(num_windows)
    for i in range(1, num_windows):
        found[i] = phi * found[i - 1] + np.sqrt(1 - phi**2) * found[i]
    return found


def play(rng: np.random.Generator, levels: NDArray[np.float64], sigma: float, phi: float) -> tuple[int | None, int]:
    """Return the window of the first rollback, and how many suspicions were tried on fresh episodes."""
    test, suspicions = DegradationTest(), 0
    for window, score in enumerate(levels + sigma * noise(rng, len(levels), phi)):
        if not test.update(score).suspicious:
            continue
        suspicions += 1
        trial = None
        while trial is None or trial.replicate:
            best = levels[: window + 1].max() + sigma * rng.standard_normal(test.num_pairs)
            trial = test.confirm(best, levels[window] + sigma * rng.standard_normal(test.num_pairs))
        if trial.degraded:
            return window, suspicions
    return None, suspicions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plateaus", type=int, default=2000)
    parser.add_argument("--drops", type=int, default=200)
    arguments = parser.parse_args()
    print("| noise | sigma / R | false rollbacks | trials per healthy run | " + " | ".join(DROPS) + " |")
    print("|---|---|---|---|---|---|")
    for name, phi in (("white", 0.0), ("AR .5", 0.5)):
        for sigma in (5.0, 10.0, 20.0):
            rng = np.random.default_rng([7, int(sigma), int(10 * phi)])
            healthy = [play(rng, HEALTHY, sigma, phi) for _ in range(arguments.plateaus)]
            false = sum(window is not None for window, _ in healthy)
            cells = []
            for start, levels in DROPS.values():
                found = [play(rng, levels, sigma, phi)[0] for _ in range(arguments.drops)]
                delays = [np.inf if window is None else window - start + 1 for window in found]
                delay = f"{np.median(delays):.0f} windows, " if np.isfinite(np.median(delays)) else ""
                cells.append(f"{delay}{100 * np.mean(np.isfinite(delays)):.0f} % found")
            trials = np.mean([suspicions for _, suspicions in healthy])
            row = [name, f"{sigma / 100:g}", f"{false} of {len(healthy)}", f"{trials:.2f}", *cells]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
