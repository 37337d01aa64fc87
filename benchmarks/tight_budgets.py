"""Runs whose budget is too small, or whose first success is late: what does the verdict say, and what was reached?

    uv run python benchmarks/tight_budgets.py [--cases NAME ...] [--seeds 8]

On about half of the steps that a task needs no run should be called CONVERGED below 95 % of what the task allows. On
MountainCar-v0, with the settings of rl-baselines3-zoo, DQN sees its first success after a third of its steps: no run
should be given up before.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from optix_core import TrainConfig, TrainPlan

ZOO: dict[str, Any] = {
    "learning_rate": 4e-3,
    "batch_size": 128,
    "capacity": 10_000,
    "learning_starts": 1000,
    "gamma": 0.98,
    "updates_per_step": 0.5,
    "target_update_interval": 300,
    "epsilon_decay_steps": 24_000,
    "epsilon_end": 0.07,
    "hidden_sizes": [256, 256],
    "double_q": False,
    "window_size": 16,
}

# Name: environment, algorithm, budget, return at 95 % of what the task allows, overrides, environments side by side.
CASES: dict[str, tuple[str, str, int, float, dict[str, Any], int | None]] = {
    "cartpole-dqn": ("CartPole-v1", "dqn", 30_000, 476.0, {}, None),
    "acrobot-ppo": ("Acrobot-v1", "ppo", 40_000, -96.0, {}, None),
    "mountaincar-dqn": ("MountainCar-v0", "dqn", 120_000, -105.0, ZOO, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    print(f"{'case':16} {'seed':>4} {'steps':>8} {'verdict':12} {'confirmed':>9}")
    for case in arguments.cases:
        env_id, algorithm, budget, nearly_all, overrides, n_envs = CASES[case]
        wrong = 0
        for seed in range(arguments.seeds):
            config = TrainConfig(
                env_id=env_id,
                algorithm=algorithm,
                backend="torch",
                max_env_steps=budget,
                seed=seed,
                overrides=overrides,
                n_envs=n_envs,
            )
            with tempfile.TemporaryDirectory() as folder:
                result = TrainPlan.of(config).build(Path(folder) / "run").run()
            confirmed = result.confirmed_return["mean"]
            wrong += result.verdict == "CONVERGED" and confirmed < nearly_all
            print(f"{case:16} {seed:>4} {result.train_env_steps:>8} {result.verdict:12} {confirmed:>9.1f}", flush=True)
        print(f"{case}: {wrong} of {arguments.seeds} runs are CONVERGED below {nearly_all:g}", flush=True)


if __name__ == "__main__":
    main()
