"""Does a trial search survive? Workers and their masters are killed while it runs; the trials must come out the same.

    python benchmarks/search_kills.py [--kills 50] [--trials 20] [--seed 0]

A search with two workers is held twice: undisturbed, and with SIGKILL to a random process of it after random pauses,
one of its workers or, in a third of the cases, the master, which is then started again. Prints how many trials differ,
how many are left running, and how much was trained again after a kill, in seconds of training. The agent is a toy whose
windows take a hundredth of a second, so that what is measured is the search.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np

from optix_core import TrialOrchestrator, VectorBatchPipeline
from optix_protocol import HyperparamSet

WINDOW_S = 0.01
NUM_WINDOWS = 200
STATE_INTERVAL_S = 0.5
SPACE = {"rate": (0.0, 1.0), "depth": ("int", 1, 4)}


class Still(gym.Env[Any, Any]):
    """Episodes of four steps, whose return is the action and a little noise."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-10.0, 10.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del options
        super().reset(seed=seed)
        self.left = 4
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        reward = (float(action[0]) + 0.02 * self.np_random.standard_normal()) / 4
        return np.zeros(1, np.float32), reward, self.left == 0, False, {}


class Toy:
    """Rises to what its hyperparameters are worth, and writes a line for every window that it learns from."""

    is_on_policy = True

    def __init__(self, params: dict[str, Any], log: str) -> None:
        self.params, self.log, self.learned = params, log, 0

    def act(self, observation: Any) -> Any:
        worth = 1 - 4 * (self.params["rate"] - 0.8) ** 2 - 0.1 * (self.params["depth"] - 2) ** 2
        return np.full((*np.asarray(observation).shape[:-1], 1), worth * min(1.0, self.learned / 100))

    def learn(self, episode_data: Any) -> dict[str, float]:
        del episode_data
        time.sleep(WINDOW_S)
        self.learned += 1
        with open(self.log, "a") as file:  # short lines are appended whole
            file.write(f"{self.params['rate']:.12f} {self.params['depth']} {self.learned}\n")
        return {"loss": 1.0}

    def get_hyperparams(self) -> HyperparamSet:
        return HyperparamSet(params=dict(self.params))

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        self.params.update(hyperparams.params)

    def training_state(self) -> dict[str, Any]:
        return {"learned": self.learned}

    def restore_training_state(self, state: Any) -> None:
        self.learned = int(state["learned"])

    def save_weights(self, path: Any) -> None:
        with open(path, "wb") as file:
            np.save(file, np.array([self.learned]))

    def load_weights(self, path: Any) -> None:
        self.learned = int(np.load(path)[0])


def search(folder: Path, trials: int) -> TrialOrchestrator:
    log = str(folder / "windows.log")
    return TrialOrchestrator(
        lambda params: Toy(params, log),
        lambda: VectorBatchPipeline(Still, n_envs=4, window_size=4),
        SPACE,
        n_trials=trials,
        trial_steps=16 * NUM_WINDOWS,
        directory=folder / "trials",
        workers=2,
        run_options={"state_interval_s": STATE_INTERVAL_S, "confirm_fraction": 1e6},
    )


def told(study: Any) -> list[Any]:
    return [(t.number, t.state.name, t.params, t.value, dict(t.intermediate_values)) for t in study.trials]


def workers_of(master: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(master)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def disturb(folder: Path, trials: int, kills: int, rng: np.random.Generator) -> Counter[str]:
    """Run the search until it has ended, killing its processes on the way; return who was killed how often."""
    command = [sys.executable, __file__, "--master", str(folder), "--trials", str(trials)]
    killed: Counter[str] = Counter()
    master = subprocess.Popen(command)
    while True:
        try:
            code = master.wait(timeout=rng.uniform(0.5, 4.0))
            if code == 0:
                return killed
            if code != -signal.SIGKILL:
                raise SystemExit(f"The search failed with exit code {code}.")
            master = subprocess.Popen(command)
        except subprocess.TimeoutExpired:
            workers = workers_of(master.pid)
            if killed.total() == kills or not workers:
                continue
            victim = master.pid if rng.random() < 1 / 3 else int(rng.choice(workers))
            os.kill(victim, signal.SIGKILL)
            killed["master" if victim == master.pid else "worker"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--master", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.master is not None:
        search(arguments.master, arguments.trials).run()
        return
    with TemporaryDirectory() as calm, TemporaryDirectory() as torn:
        undisturbed = search(Path(calm), arguments.trials)
        undisturbed.run()
        killed = disturb(Path(torn), arguments.trials, arguments.kills, np.random.default_rng(arguments.seed))
        study = search(Path(torn), arguments.trials).study
        states = Counter(trial.state.name for trial in study.trials)
        differ = sum(a != b for a, b in zip(told(undisturbed.study), told(study), strict=True))
        windows = (Path(torn) / "windows.log").read_text().splitlines()
        twice = len(windows) - len(set(windows))
        print(f"kills: {killed['worker']} of workers, {killed['master']} of masters")
        print(f"trials: {len(study.trials)}, {dict(states)}; {differ} differ from those of the undisturbed search")
        each = twice * WINDOW_S / max(1, killed.total())
        print(f"trained again: {twice} of {len(windows)} windows, {each:.2f} s of training for each kill")
        print(f"(states are written every {STATE_INTERVAL_S} s)")


if __name__ == "__main__":
    main()
