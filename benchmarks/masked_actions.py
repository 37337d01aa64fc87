"""Masked PPO and DQN beside the same agents without masks: what is played, and what is learned, in a million steps.

    uv run python benchmarks/masked_actions.py [torch jax tf] [--algorithms ppo dqn] [--steps 1000000] [--kept FILE]

The environment has 32 actions, of which three are allowed at a time (:class:`PaidAtTheEnd`). An episode is ten choices,
and what they were worth is paid after the last of them; what is forbidden ends it, unpaid. Both agents see the same
observation, which shows what is allowed. One heeds the mask in ``info["action_mask"]``; the other is never told, and
would have to find ten allowed actions in a row before there is anything to learn from.

A row shows how many actions were played that the mask forbade (as the environment saw it) in training and in 200 fresh
greedy episodes afterwards, the mean return of these (chance among what is allowed gets about 5.0, the best choice about
7.5) and the share in which the best allowed action was chosen in 8 of 10 steps. Rows that are done stand in the file of
``--kept`` and are not done again, so that the table can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from optix_core import EnvSpec, VectorBatchPipeline, make_agent
from optix_core.evaluation.rollouts import evaluate
from optix_core.seeding import derive_seed
from optix_core.testing.masked import MaskedChoice

NUM_ENVS = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"minibatch_size": 512, "num_epochs": 4, "learning_rate": 1e-3},
    "dqn": {"batch_size": 128, "updates_per_step": 1 / 16, "learning_rate": 1e-3, "n_step": 3, "capacity": 100_000},
}
WINDOWS = {"ppo": 32, "dqn": 8}
"""Rows of a window, by algorithm."""


class PaidAtTheEnd(MaskedChoice):
    """Ten choices, paid after the last of them; time and what is due are shown, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(num_actions=32, num_allowed=3, **options)
        size = self.observation_space.shape[0] + 2
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,))
        self._due = 0.0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._due = 0.0
        return super().reset(**options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._due += float(self._worths[int(action)])
        observation, _, over, cut, info = super().step(action)
        pay = self._due if over and not info["forbidden"] else 0.0
        return observation, pay, over, cut, info

    def _shown(self) -> Any:
        state = [self._t / self._length, self._due / self._length]
        return np.concatenate([super()._shown(), state]).astype(np.float32)


def row(framework: str, algorithm: str, masked: bool, steps: int, seed: int) -> dict[str, float]:
    """Train one agent to the end of the budget and return what the table shows of it."""
    started = time.process_time()
    make = partial(PaidAtTheEnd, tell="info" if masked else None)
    agent = make_agent(
        algorithm, make, framework=framework, seed=seed, hyperparams={"hidden_sizes": [64], **SETTINGS[algorithm]}
    )
    pipeline = VectorBatchPipeline(
        make, agent, n_envs=NUM_ENVS, window_size=WINDOWS[algorithm], seed=derive_seed(seed, "env")
    )
    played = forbidden = 0
    while played < steps:
        window = pipeline.collect()
        agent.learn(window)
        played += window.num_env_steps
        forbidden += int(np.nansum(window.episode_infos.get("forbidden", 0.0)))
    fresh = evaluate(agent, EnvSpec.of(make), episodes=200, seed=derive_seed(seed, "fresh"))
    return {
        "steps": played,
        "forbidden": forbidden,
        "greedy_forbidden": int(fresh.infos["forbidden"].sum()),
        "return": float(fresh.returns.mean()),
        "solved": float(fresh.infos["is_success"].mean()),
        "cpu_s": time.process_time() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", default=["torch", "jax", "tf"])
    parser.add_argument("--algorithms", nargs="*", default=["ppo", "dqn"])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="JSON file of the rows that are done")
    arguments = parser.parse_args()
    kept = json.loads(arguments.kept.read_text()) if arguments.kept and arguments.kept.exists() else {}
    print("| | masks | steps | forbidden: in training | greedily | return | solved | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for framework in arguments.frameworks:
        for algorithm in arguments.algorithms:
            for masked in (True, False):
                name = f"{framework} {algorithm} {'masked' if masked else 'plain'} {arguments.steps} {arguments.seed}"
                if name not in kept:
                    kept[name] = row(framework, algorithm, masked, arguments.steps, arguments.seed)
                    if arguments.kept:
                        arguments.kept.write_text(json.dumps(kept, indent=1))
                found = kept[name]
                print(
                    f"| {framework} {algorithm.upper()} | {'yes' if masked else 'no'} | {found['steps']:,} "
                    f"| {found['forbidden']:,} | {found['greedy_forbidden']} of 200 | {found['return']:.2f} "
                    f"| {found['solved']:.0%} | {found['cpu_s']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
