"""Hindsight on a goal environment with a sparse reward, beside the same agent without it, at the same steps.

    uv run python benchmarks/goals.py [none future final episode] [--algorithm sac] [--steps 8000] [--seeds 5]

The environment is ``examples/point_goal.py``: 0 at the goal, -1 elsewhere, 50 steps. A row shows, over seeds, the mean
return of 100 fresh greedy episodes of the last policy (interquartile mean, worst, best), the share of these episodes
that came to the goal, and the CPU seconds of one run. Only ``her`` differs between rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from optix_core import EnvSpec, TrainConfig, TrainPlan
from optix_core.evaluation import iqm
from optix_core.evaluation.rollouts import evaluate
from optix_core.seeding import derive_seed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

ENV_ID = "point_goal:PointGoal-v0"
SETTINGS = {"hidden_sizes": [64, 64], "batch_size": 128}
"""A small network, so that the comparison takes minutes; everything else is as ``optix train`` chooses."""


def train(algorithm: str, her: str, steps: int, seed: int) -> tuple[float, float, float]:
    """Return mean return, share of successes and CPU seconds of one run without any early end."""
    started = time.process_time()
    config = TrainConfig(
        env_id=ENV_ID, algorithm=algorithm, seed=seed, max_env_steps=steps, overrides={**SETTINGS, "her": her}
    )
    plan = TrainPlan.of(config)
    agent = plan.make_agent()
    pipeline = plan.make_pipeline(agent)
    for window in pipeline.windows():
        agent.learn(window)
        steps -= window.num_env_steps
        if steps <= 0:
            break
    played = evaluate(agent, EnvSpec.of(ENV_ID), episodes=100, seed=derive_seed(seed, "fresh")).returns
    return float(played.mean()), float((played > -50.0).mean()), time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("strategies", nargs="*", default=["none", "future"])
    parser.add_argument("--algorithm", default="sac")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{ENV_ID}, {arguments.algorithm}, {arguments.steps} steps, {arguments.seeds} seeds")
    for her in arguments.strategies:
        runs = [train(arguments.algorithm, her, arguments.steps, seed) for seed in range(arguments.seeds)]
        returns, successes, seconds = map(np.array, zip(*runs, strict=True))
        print(
            f"her={her:8} return {float(iqm(returns)):6.1f}  worst {returns.min():6.1f}  best {returns.max():6.1f}"
            f"  at the goal {successes.mean():4.0%}  CPU {np.median(seconds):.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
