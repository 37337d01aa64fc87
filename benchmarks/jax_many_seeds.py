"""Seeds side by side beside their single runs: the same networks at first, the same distribution of returns later.

Every seed of CartPole is trained twice by PPO, mapped into one program with all others and alone. After ten updates the
parameters are compared one by one. Rounding errors grow from there as in any chaotic system, so after all updates only
the returns can be compared: by quantiles over seeds and by the Kolmogorov-Smirnov test.

    python benchmarks/jax_many_seeds.py [--seeds 256] [--updates 100]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from scipy import stats

from optix_jax import FlaxPPOAgent
from optix_jax.environments import GymnaxEnvironment
from optix_jax.pipeline import FusedPipeline
from optix_jax.seeds import FusedSeeds
from optix_protocol import EpisodeData

ENV = GymnaxEnvironment("CartPole-v1")
NUM_ENVS, NUM_STEPS = 8, 32
SETTINGS = {"learning_rate": 1e-3, "num_epochs": 4, "minibatch_size": 64}
EARLY, LATE = 10, 20
"""Updates until the networks are compared, and windows at the end whose returns are."""

Weights = dict[str, np.ndarray]


def make_agent(seed: int) -> FlaxPPOAgent:
    return FlaxPPOAgent.from_spaces(ENV.observation_space, ENV.action_space, seed=seed, hyperparams=SETTINGS)


def mean_return(windows: Sequence[EpisodeData]) -> float:
    """Mean over the episodes that ended; one that is longer than all windows counts as far as it got."""
    returns = np.concatenate([window.episode_returns for window in windows])
    return float(returns.mean()) if len(returns) else float(NUM_STEPS * len(windows))


def side_by_side(seeds: Sequence[int], updates: int) -> tuple[list[Weights], list[float]]:
    agents = [make_agent(seed) for seed in seeds]
    group = FusedSeeds(
        ENV, agents, seeds, num_envs=NUM_ENVS, num_steps=NUM_STEPS, updates_per_window=1, lanes=len(seeds)
    )
    weights: list[Weights] = []
    late: list[list[EpisodeData]] = [[] for _ in seeds]
    for update in range(1, updates + 1):
        windows = group.collect()
        group.learn(windows)
        if update == EARLY:
            weights = [dict(group.weights(position)) for position in range(len(seeds))]
        if update > updates - LATE:
            for kept, window in zip(late, windows, strict=True):
                kept.append(window)
    return weights, [mean_return(kept) for kept in late]


def alone(seed: int, updates: int) -> tuple[Weights, float]:
    agent = make_agent(seed)
    pipeline = FusedPipeline(ENV, agent, n_envs=NUM_ENVS, window_size=NUM_STEPS, updates_per_window=1, seed=seed)
    weights: Weights = {}
    late: list[EpisodeData] = []
    for update in range(1, updates + 1):
        window = pipeline.collect()
        agent.learn(window)
        if update == EARLY:
            weights = agent.networks.weights()
        if update > updates - LATE:
            late.append(window)
    return weights, mean_return(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--updates", type=int, default=100)
    options = parser.parse_args()
    updates = max(options.updates, EARLY + LATE)
    seeds = range(options.seeds)
    together, returns = side_by_side(seeds, updates)
    singles = [alone(seed, updates) for seed in seeds]
    apart = [
        max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
        for ours, (theirs, _) in zip(together, singles, strict=True)
    ]
    print(f"{len(seeds)} seeds, {EARLY} updates: parameters differ by {max(apart):.1e} at most")
    print(f"after {updates} updates, mean return of the last {LATE} windows over seeds:")
    for name, values in (("side by side", returns), ("alone", [value for _, value in singles])):
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(f"  {name:<13} mean {np.mean(values):6.1f}   10 % {low:6.1f}   median {middle:6.1f}   90 % {high:6.1f}")
    test = stats.ks_2samp(returns, [value for _, value in singles])
    print(f"  Kolmogorov-Smirnov: distance {test.statistic:.3f}, p = {test.pvalue:.2f}")


if __name__ == "__main__":
    main()
