"""One training by AgileRL 2.58 as it comes, row E of ``evolution.py``: ``python _agilerl.py TASK SEED BUDGET``.

Runs in an environment of its own (``pip install agilerl==2.58 peft``) and prints one line of JSON. Four agents, PPO, 32
environments, mutations and tournament are AgileRL's defaults; environment steps are counted in the environments, those
of its evaluations included, and the training ends where the budget is used. The fittest agent of the last generation,
which AgileRL saves as its elite, plays a hundred fresh episodes as in AgileRL's own evaluations.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from agilerl.algorithms import PPO
from agilerl.models.env import GymEnvSpec
from agilerl.models.hpo import MutationSpec
from agilerl.models.training import TrainingSpec
from agilerl.training.trainer import LocalTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from point_goal import PointGoal

NUM_MEMBERS, EPISODES = 4, 100


class Plane(PointGoal):
    """The point of ``goal_on_device.py``: what a Dict says, in one vector."""

    dims = 2


def plane() -> gym.Env[Any, Any]:
    return gym.wrappers.FlattenObservation(Plane())


gym.register("SparsePoint-v0", plane, max_episode_steps=50)


class BudgetUsedError(Exception):
    """The next step would be one too many."""


class Counted(gym.Wrapper[Any, Any, Any, Any]):
    """Counts the steps of all environments together."""

    used, budget = 0, 0

    def step(self, action: Any) -> Any:
        if Counted.used >= Counted.budget:
            raise BudgetUsedError
        Counted.used += 1
        return self.env.step(action)


def train(task: str, seed: int, budget: int, elite: Path) -> None:
    """Let AgileRL train until the budget is used."""
    torch.manual_seed(seed)
    Counted.budget = budget
    trainer = LocalTrainer(
        "PPO",
        GymEnvSpec(name=task, sync=True),
        TrainingSpec(pop_size=NUM_MEMBERS, max_steps=budget),
        MutationSpec(rand_seed=seed),  # which seeds the global generators, too
        hpo=True,
    )
    trainer.env.reset(seed=seed)
    trainer.env.envs = [Counted(env) for env in trainer.env.envs]
    with contextlib.suppress(BudgetUsedError):
        trainer.train(verbose=False, save_elite=True, elite_path=str(elite))


def play(task: str, elite: Path, seed: int) -> float:
    """Return the mean return of the elite over fresh episodes."""
    agent = PPO.load(str(elite))
    agent.set_training_mode(False)
    envs = gym.make_vec(task, num_envs=EPISODES, vectorization_mode="sync")
    observations, _ = envs.reset(seed=1_000_000 + 1_000 * seed)
    returns, alive = np.zeros(EPISODES), np.ones(EPISODES, bool)
    while alive.any():
        with torch.no_grad():
            actions = agent.get_action(observations)[0]
        observations, rewards, terminated, truncated, _ = envs.step(np.asarray(actions))
        returns += rewards * alive
        alive &= ~(terminated | truncated)
    return float(returns.mean())


def main() -> None:
    task, seed, budget = sys.argv[1].rpartition(":")[2], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        elite = Path(folder) / "elite.pt"
        began = time.process_time()
        train(task, seed, budget, elite)
        trained = time.process_time() - began
        found = play(task, elite, seed)
    told = {"return": found, "train_env_steps": Counted.used, "search_env_steps": 0, "eval_env_steps": 0}
    print(json.dumps({**told, "stop_reason": "budget_env_steps", "child_cpu_s": round(trained, 1)}))


if __name__ == "__main__":
    main()
