"""How often is the true gain over the horizon above the monitor's bound? Coverage per family of curves.

    uv run python benchmarks/gain_bound.py [--curves 20] [--write-docs]

The bound says what would be gained if the present trend went on. Where a curve bends upwards the trend does not
go on, and no rule that sees scores alone can know. Simulated curves of 600 windows whose mean is known: at every look
until the stop, the true gain of the mean over the horizon is compared with the bound; and after a CONVERGED stop,
the true gain over another quarter of the steps with the margin (5 % of the range) and with twice that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from _stopping_data import Array

from optix_core.convergence import ConvergenceMonitor
from optix_protocol import Verdict

NUM_WINDOWS = 600
STEPS = 2048
TIME = np.arange(1.0, 4 * NUM_WINDOWS + 1)


def _sigmoid(centre: float, width: float) -> Array:
    return 1 / (1 + np.exp(-(TIME - centre) / width))


FAMILIES: dict[str, Array] = {
    "flat after 60 windows": np.minimum(TIME / 60, 1.0),
    "power law 1 - t^-.5": 1 - TIME**-0.5,
    "logarithmic": np.log1p(TIME / 10) / np.log1p(NUM_WINDOWS / 10),
    "linear": TIME / NUM_WINDOWS,
    "sigmoid, centre 100": _sigmoid(100, 15),
    "sigmoid, centre 300": _sigmoid(300, 40),
    "two stages, shelf 100 to 250 at .6": 0.6 * _sigmoid(50, 8) + 0.4 * _sigmoid(300, 10),
    "two stages, shelf 60 to 400 at .8": 0.8 * _sigmoid(40, 6) + 0.2 * _sigmoid(430, 10),
}
NOISES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "normal, .1": lambda mean, rng: mean + 0.1 * rng.standard_normal(len(mean)),
    "t with 3 degrees of freedom, .1": lambda mean, rng: mean + 0.1 / 3**0.5 * rng.standard_t(3, len(mean)),
    "success of 5 episodes": lambda mean, rng: rng.binomial(5, np.clip(mean, 0, 1)) / 5,
}


def measure(mean: Array, noise: Callable[[Array, np.random.Generator], Array], num_curves: int, budget: bool) -> Array:
    """Returns counts: looks, looks whose bound was exceeded, CONVERGED stops, of these above 5 % and above 10 %."""
    counts = np.zeros(5, int)
    for seed in range(num_curves):
        scores = noise(mean[:NUM_WINDOWS], np.random.default_rng(seed))
        monitor = ConvergenceMonitor(budget_env_steps=NUM_WINDOWS * STEPS if budget else None)
        for i, score in enumerate(scores.tolist()):
            found = monitor.update(score, (i + 1) * STEPS)
            if found.looked:
                end = min(i + round(found.horizon_env_steps / STEPS), len(mean) - 1)
                counts[:2] += 1, mean[end] - mean[i] > found.upper_gain + 1e-12
            if found.should_stop:
                if found.verdict is Verdict.CONVERGED:
                    gain = mean[i : i + (i + 1) // 4 + 1].max() - mean[i]
                    counts[2:] += 1, gain > found.margin, gain > 2 * found.margin
                break
    return counts


def table(num_curves: int) -> str:
    lines = [
        f"{num_curves} curves of {NUM_WINDOWS} windows per cell.",
        "",
        "| curve | noise | budget | looks covered | CONVERGED | true gain above 5 % | above 10 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, mean in FAMILIES.items():
        for budget in (True, False):
            for name, noise in NOISES.items():
                looks, missed, stops, above, far = measure(mean, noise, num_curves, budget)
                lines.append(
                    f"| {family} | {name} | {'known' if budget else 'none'} | {100 * (1 - missed / looks):.0f} % "
                    f"| {100 * stops / num_curves:.0f} % | {above} of {stops} | {far} of {stops} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=20, help="per cell")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/convergence.md")
    options = parser.parse_args()
    text = table(options.curves)
    print(text)
    if options.write_docs:
        from stopping import write_section

        write_section("coverage", text)


if __name__ == "__main__":
    main()
