"""What graphs learn, and whether growth earns its place: returns of greedy policies on episodes that nothing else saw.

    uv run python benchmarks/graph_learning.py cartpole masked recall ring lunarlander [--seeds 10] [--results FILE]

Each run is written to the file as soon as it ends, and runs that it holds are not made again, so an interrupted sweep
goes on where it was. ``--show`` prints the tables of what is there. The arms of neat-python 2 (``_neat.py``) evolve a
population of 150, each genome of which plays once per generation.

| task | arms |
|---|---|
| cartpole | a graph of inputs wired to outputs that may grow; without growth; neat-python; 200,000 steps at most |
| masked | CartPole without velocities, gated neurons; 400,000 steps |
| recall | a cue to be kept for eight steps, gated neurons; 100,000 steps |
| ring | two hidden neurons, grown by gradient, at random, never; fixed layers of 2 to 16; 200,000 steps |
| lunarlander | LunarLander-v3, may grow, 2,000,000 steps; neat-python, 5,000,000, which is what a miss counts as |
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graph_tasks  # noqa: F401 - registers its tasks
import gymnasium as gym
import numpy as np
import partially_observed  # noqa: F401 - registers its tasks
from _cells import do_missing, read
from _neat import evolve

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_neuroevo import (
    GraphAgent,
    RecurrentGraphAgent,
    TopologyController,
    TrainableGRUNeuron,
    layered_graph,
)

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


def sizes(env_id: str) -> tuple[int, int]:
    """Return how many numbers an observation has, and how many outputs a graph needs."""
    env = gym.make(env_id)
    found = int(np.prod(env.observation_space.shape)), int(env.action_space.n) + 1
    env.close()
    return found


def supervised_run(
    env_id: str,
    steps: int,
    seed: int,
    *,
    grow_by: str,
    hidden: tuple[int, ...] = (),
    gated: bool = False,
    **options: Any,
) -> Row:
    """Let the loop train a graph until it stops by itself or the steps are used up, and confirm the policy it chose."""
    kind = RecurrentGraphAgent if gated else GraphAgent
    graph = layered_graph(
        *sizes(env_id), hidden_sizes=hidden, neuron=TrainableGRUNeuron() if gated else None, seed=seed
    )
    agent = kind(graph, seed=seed, hyperparams=options)
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=8, window_size=128, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = RLOptimizer(agent, pipeline, max_env_steps=steps, seed=seed, checkpoint_dir=Path(folder) / "run")
        changes = []
        if grow_by != "never":
            controller = TopologyController.for_graph(graph, run.scheduler, grow_by=grow_by, seed=seed)
            run.add_callback(controller)
            changes = controller.decisions
        run.run()
    result = run.result
    assert result is not None and result.confirmed_return is not None
    return {
        "return": result.confirmed_return["mean"],
        "steps": result.train_env_steps,
        "parameters": graph.num_parameters,
        "changes": sum(d.action != "keep" for d in changes),
        "verdict": result.verdict,
    }


def fixed_run(env_id: str, steps: int, seed: int, *, grow_by: str, hidden: tuple[int, ...], target: float) -> Row:
    """Train for so many steps at most, end at the target, and play greedily."""
    graph = layered_graph(*sizes(env_id), hidden_sizes=hidden, seed=seed)
    # Each answer is judged at once, so nothing later counts.
    agent = GraphAgent(graph, seed=seed, hyperparams={"learning_rate": 1e-2, "gamma": 0.0})
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=8, window_size=128, seed=seed)
    controller = None
    if grow_by != "never":
        controller = TopologyController.for_graph(
            graph, grow_by=grow_by, seed=seed, cooldown=4, grow_grad_threshold=0.5
        )
    done, best = 0, 0.0
    while done < steps:
        window = pipeline.collect()
        done += window.num_env_steps
        if controller is not None and len(window.episode_returns):
            controller.on_score(float(window.episode_returns.mean()))
        agent.learn(window)
        if done % (16 * 1024) == 0:
            best = max(best, played(agent, env_id, 64, seed))
            if best >= target and played(agent, env_id, 256, seed + 1) >= target:
                break
    pipeline.close()
    return {
        "return": played(agent, env_id, 512, seed + 2),
        "steps": done,
        "parameters": graph.num_parameters,
        "changes": 0 if controller is None else sum(d.action != "keep" for d in controller.decisions),
    }


def played(agent: Any, env_id: str, episodes: int, seed: int) -> float:
    """Return the mean return of a greedy policy."""
    envs = gym.make_vec(env_id, num_envs=episodes, vectorization_mode="sync")
    policy = agent.make_policy("greedy", num_envs=episodes, seed=0)
    observations, _ = envs.reset(seed=1_000_000 + 10_000 * seed)
    returns, alive = np.zeros(episodes), np.ones(episodes, bool)
    while alive.any():
        observations, rewards, terminated, truncated, _ = envs.step(policy.act(observations))
        returns += rewards * alive
        alive &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


RING_TARGET = 14.5
"""Right answers of 16."""

ARMS: dict[str, dict[str, Callable[[int], Row]]] = {
    "cartpole": {
        "wired, may grow": lambda seed: supervised_run("CartPole-v1", 200_000, seed, grow_by="gradient"),
        "wired, fixed": lambda seed: supervised_run("CartPole-v1", 200_000, seed, grow_by="never"),
        "neat-python 2": lambda seed: evolve("CartPole-v1", 200_000, seed, target=TARGETS["cartpole"]),
    },
    "masked": {
        "16 gated neurons": lambda seed: supervised_run(
            "CartPoleMasked-v1", 400_000, seed, grow_by="never", hidden=(16,), gated=True
        ),
    },
    "recall": {
        "4 gated neurons": lambda seed: supervised_run(
            "Recall-v0", 100_000, seed, grow_by="never", hidden=(4,), gated=True, learning_rate=1e-2
        ),
    },
    "ring": {
        name: (
            lambda seed, how=how, hidden=hidden: fixed_run(
                "Ring-v0", 200_000, seed, grow_by=how, hidden=(hidden,), target=RING_TARGET
            )
        )
        for name, how, hidden in [
            ("2 neurons, grown by gradient", "gradient", 2),
            ("2 neurons, grown at random", "random", 2),
            *((f"{hidden} neurons, fixed", "never", hidden) for hidden in (2, 4, 6, 8, 12, 16)),
        ]
    },
    "lunarlander": {
        "wired, may grow": lambda seed: supervised_run("LunarLander-v3", 2_000_000, seed, grow_by="gradient"),
        "neat-python 2": lambda seed: evolve("LunarLander-v3", 5_000_000, seed, target=TARGETS["lunarlander"]),
    },
}
TARGETS = {"cartpole": 475.0, "masked": 400.0, "recall": 0.95, "ring": RING_TARGET, "lunarlander": 200.0}


NOT_REACHED = {"lunarlander": 5_000_000}
"""Steps that a run counts as that did not reach the target; elsewhere those that it took."""


def counted(row: Row) -> int:
    """Return the steps that a run counts as."""
    steps: int = row["steps"]
    return steps if row["return"] >= TARGETS[row["task"]] else NOT_REACHED.get(row["task"], steps)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run."""

    task: str
    row: str
    seed: int


def table(task: str, rows: list[Row]) -> str:
    """Return a table of the runs of a task."""
    lines = [f"| {task} | runs | reached {TARGETS[task]:g} | median return | median steps | median parameters |"]
    lines.append("|---|---|---|---|---|---|")
    for arm in ARMS[task]:
        own = [row for row in rows if (row["task"], row["row"]) == (task, arm)]
        if own:
            reached = sum(row["return"] >= TARGETS[task] for row in own)
            own = [{**row, "steps": counted(row)} for row in own]
            middle = [float(np.median([row[name] for row in own])) for name in ("return", "steps", "parameters")]
            lines.append(f"| {arm} | {len(own)} | {reached} | {middle[0]:.4g} | {middle[1]:,.0f} | {middle[2]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "graph_learning.jsonl")
    parser.add_argument("--arm", help="only this one")
    parser.add_argument("--show", action="store_true", help="print tables, run nothing")
    asked = parser.parse_args()
    for task in asked.tasks:
        if not asked.show:
            arms = [arm for arm in ARMS[task] if asked.arm in (None, arm)]
            do_missing(
                (Cell(task=task, row=arm, seed=seed) for seed in range(asked.seeds) for arm in arms),
                {arm: lambda cell: ARMS[cell.task][cell.row](cell.seed) for arm in arms},
                asked.results,
            )
        print(table(task, read(asked.results)), flush=True)


if __name__ == "__main__":
    main()
