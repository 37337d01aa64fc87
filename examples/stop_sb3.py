"""The convergence monitor alone, stopping a stable-baselines3 run: one callback of ten lines.

uv run python examples/stop_sb3.py
"""

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from optix_core import Assessment, ConvergenceMonitor

BUDGET = 100_000


class StopWhenConverged(BaseCallback):
    """Scores every rollout by the episodes that ended since the last, and stops when little is left to gain."""

    def __init__(self, monitor: ConvergenceMonitor) -> None:
        super().__init__()
        self.monitor, self.returns, self.stop = monitor, [], False

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return not self.stop

    def _on_rollout_end(self) -> None:
        if self.returns:
            found = self.monitor.update(np.mean(self.returns), self.num_timesteps, episodes=len(self.returns))
            self.stop, self.returns = found.should_stop, []


def main(budget: int = BUDGET, seed: int = 0) -> Assessment:
    torch.set_num_threads(1)  # small networks: more threads only wait for each other
    monitor = ConvergenceMonitor(budget_env_steps=budget)
    envs = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    settings = {"n_steps": 64, "batch_size": 256, "gamma": 0.98, "learning_rate": 1e-3}
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    model.learn(budget, callback=StopWhenConverged(monitor))
    return monitor.assessment


if __name__ == "__main__":
    found = main()
    print(f"{found.verdict} after {found.env_steps} of {BUDGET} steps. {found.explanation}")
