"""Damages the policy in the middle of real training, and sees whether the loop notices and recovers.

    uv run python benchmarks/damage.py [--env CartPole-v1] [--seeds 10] [--at 60000] [--scale 3.0]

Normal noise with ``scale`` times the standard deviation of each weight array is added to the weights once, at the first
window after ``at`` environment steps; optimiser and statistics stay. A row says how long it took until the loop went
back to its best policy, and what the run ended with. The same seeds without damage are the control: a rollback there is
a false one.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from optix_core import RLOptimizer, TrainConfig, TrainPlan, read_events
from optix_protocol import EpisodeData


class Damage:
    """Replaces ``agent.learn`` by itself: spoils the weights once, after a number of environment steps."""

    def __init__(self, agent: Any, at: int, scale: float, seed: int) -> None:
        self._agent, self._learn = agent, agent.learn
        self._at, self._scale, self._rng = at, scale, np.random.default_rng(seed)
        self._num_env_steps = 0
        self.when: int | None = None
        agent.learn = self

    def __call__(self, episode_data: EpisodeData) -> dict[str, float]:
        diagnostics = self._learn(episode_data)
        self._num_env_steps += episode_data.num_env_steps
        if self.when is None and self._num_env_steps >= self._at:
            self.when = self._num_env_steps
            state = self._agent.training_state()
            noisy = {
                name: (array + self._scale * array.std() * self._rng.standard_normal(array.shape)).astype(array.dtype)
                for name, array in state["weights"].items()
            }
            self._agent.restore_training_state({**state, "weights": noisy})
        return diagnostics


def run(env_id: str, seed: int, at: int | None, scale: float, folder: Path) -> dict[str, Any]:
    plan = TrainPlan.of(TrainConfig(env_id=env_id, seed=seed))
    loop: RLOptimizer = plan.build(folder)
    damage = Damage(loop.agent, at, scale, seed) if at is not None else None
    result = loop.run()
    assert result.confirmed_return is not None
    events, _ = read_events(folder / "events.jsonl")
    position, rollbacks, lowest = 0, [], math.inf
    for event in events:
        if event["kind"] == "window":
            position = event["evidence"]["num_env_steps"]
            if damage and damage.when is not None and position > damage.when:
                lowest = min([lowest, *(score for _, score, _ in event["scores"])])
        elif event["kind"] == "rollback":
            rollbacks.append(position)
    when = damage.when if damage else None
    after = [steps - when for steps in rollbacks if when is not None and steps > when]
    return {
        "rollbacks": len(rollbacks),
        "damaged_at": when,
        "lowest": lowest,
        "delay": after[0] if after else None,
        "false": len(rollbacks) - len(after),
        "verdict": result.verdict,
        "return": result.confirmed_return["mean"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--at", type=int, default=60_000)
    parser.add_argument("--scale", type=float, default=3.0)
    arguments = parser.parse_args()
    headings = ("seed", "damaged at", "lowest score after it", "rolled back after", "verdict, return")
    print("| " + " | ".join((*headings, "without damage: rollbacks, return")) + " |")
    print("|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            hurt = run(arguments.env, seed, arguments.at, arguments.scale, Path(folder) / "hurt")
            control = run(arguments.env, seed, None, 0.0, Path(folder) / "control")
        delay = "never" if hurt["delay"] is None else f"{hurt['delay']} steps"
        ending = f"{hurt['verdict']}, {hurt['return']:.1f}"
        row = (seed, hurt["damaged_at"], f"{hurt['lowest']:.0f}", delay, ending)
        print("| " + " | ".join(map(str, row)) + f" | {control['false']}, {control['return']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
