"""New learning curves for a test of the stopping rule on tasks that had no part in its making.

    uv run python benchmarks/fresh_curves.py [--seeds 12] [--tasks NAME ...]

Trains PPO to the end of a budget that was fixed before the first run, without stopping, and stores the scores that the
monitor would have seen (about 2,048 environment steps each) in ``benchmarks/data/fresh_curves.npz``: per task
``[seed, window, 3]`` = mean return, NaN, episodes. ``benchmarks/stopping.py`` judges the rules on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from optix_core import TrainConfig, TrainPlan, read_events
from optix_core.convergence import Assessment, ConvergenceMonitor

FILE = Path(__file__).parent / "data" / "fresh_curves.npz"

# Name: environment, budget (that of rl-baselines3-zoo, or half of it where that is a million or more), overrides.
TASKS: dict[str, tuple[str, int, dict[str, float | int]]] = {
    "pendulum": ("Pendulum-v1", 200_000, {}),
    "acrobot": ("Acrobot-v1", 500_000, {}),
    "lunarlander": ("LunarLander-v3", 500_000, {"window_size": 512}),
    "lunarlander-continuous": ("LunarLanderContinuous-v3", 500_000, {"window_size": 512}),
    "mountaincar-continuous": ("MountainCarContinuous-v0", 300_000, {}),
    "frozenlake": ("FrozenLake-v1", 200_000, {}),
    "taxi": ("Taxi-v4", 500_000, {}),
    "cartpole-low-lr": ("CartPole-v1", 400_000, {"learning_rate": 1e-4, "num_epochs": 4}),
}


class Patient(ConvergenceMonitor):
    """Judges, but never stops."""

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        return replace(super().update(score, env_steps, episodes=episodes), should_stop=False)

    @property
    def assessment(self) -> Assessment:
        return replace(super().assessment, should_stop=False)


def curve(task: str, seed: int) -> list[list[float]]:
    """Train once and return the scores ``[window][mean, NaN, episodes]``."""
    env_id, budget, overrides = TASKS[task]
    config = TrainConfig(env_id=env_id, algorithm="ppo", seed=seed, max_env_steps=budget, overrides=overrides)
    plan = TrainPlan.of(config)
    with tempfile.TemporaryDirectory() as folder:
        loop = plan.build(Path(folder) / "run")
        loop.controller.scheduler = Patient()
        loop.controller.degradation = None
        loop.confirm_episodes = 2
        loop.run()
        events, _ = read_events(Path(folder) / "run" / "events.jsonl")
    scores = [score for event in events if event["kind"] == "window" for score in event["scores"]]
    return [[score, float("nan"), episodes] for _, score, episodes in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--one", nargs=2, metavar=("TASK", "SEED"))
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(curve(arguments.one[0], int(arguments.one[1]))))
        return
    found = dict(np.load(FILE)) if FILE.exists() else {}
    for task in arguments.tasks:
        runs = []
        for seed in range(arguments.seeds):
            command = [sys.executable, __file__, "--one", task, str(seed)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs.append(np.array(json.loads(printed.strip().splitlines()[-1]), dtype=np.float32))
        length = max(len(run) for run in runs)
        padded = [np.pad(run, ((0, length - len(run)), (0, 0)), constant_values=np.nan) for run in runs]
        found[task] = np.stack(padded)
        np.savez_compressed(FILE, **found)
        print(task, found[task].shape, np.nanmean(found[task][:, -20:, 0]), flush=True)


if __name__ == "__main__":
    main()
