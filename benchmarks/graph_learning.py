"""What graphs learn, and whether growth earns its place: returns of greedy policies on episodes that nothing else saw.

    uv run python benchmarks/graph_learning.py cartpole masked recall ring lunarlander [--seeds 10] [--results FILE]

Each run is written to the file as soon as it ends, and runs that it holds are not made again, so an interrupted sweep
goes on where it was. ``--show`` prints the tables of what is there. ``neat`` (neat-python 2 on LunarLander-v3 and
CartPole-v1, population 150, each genome played once per generation) needs ``pip install neat-python gymnasium[box2d]``.

| task | arms |
|---|---|
| cartpole | a graph of inputs wired to outputs that may grow; the same without growth; 200,000 steps at most |
| masked | CartPole without velocities, gated neurons; 400,000 steps |
| recall | a cue to be kept for eight steps, gated neurons; 100,000 steps |
| ring | two hidden neurons, grown by gradient, at random, never; fixed layers of 2 to 16; 200,000 steps |
| lunarlander | LunarLander-v3, may grow; 2,000,000 steps |
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graph_tasks  # noqa: F401 - registers its tasks
import gymnasium as gym
import numpy as np
import partially_observed  # noqa: F401 - registers its tasks

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_neuroevo import (
    GraphAgent,
    RecurrentGraphAgent,
    TopologyController,
    TrainableGRUNeuron,
    layered_graph,
)

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
    started = time.process_time()
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
        "cpu_s": time.process_time() - started,
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
    started, done, best = time.process_time(), 0, 0.0
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
        "cpu_s": time.process_time() - started,
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
    },
}
TARGETS = {"cartpole": 475.0, "masked": 400.0, "recall": 0.95, "ring": RING_TARGET, "lunarlander": 200.0}


def table(task: str, rows: list[Row]) -> str:
    """Return a table of the runs of a task."""
    lines = [f"| {task} | runs | reached {TARGETS[task]:g} | median return | median steps | median parameters |"]
    lines.append("|---|---|---|---|---|---|")
    for arm in ARMS[task]:
        own = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
        if own:
            reached = sum(row["return"] >= TARGETS[task] for row in own)
            middle = [float(np.median([row[name] for row in own])) for name in ("return", "steps", "parameters")]
            lines.append(f"| {arm} | {len(own)} | {reached} | {middle[0]:.4g} | {middle[1]:,.0f} | {middle[2]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("graph_learning.jsonl"))
    parser.add_argument("--arm", help="only this one")
    parser.add_argument("--show", action="store_true", help="print tables, run nothing")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    known = {(row["task"], row["arm"], row["seed"]) for row in rows}
    for task in asked.tasks:
        for seed in range(asked.seeds):
            for arm, run in ARMS[task].items():
                if asked.show or (task, arm, seed) in known or asked.arm not in (None, arm):
                    continue
                row = {"task": task, "arm": arm, "seed": seed, **run(seed)}
                rows.append(row)
                with asked.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        print(table(task, rows), flush=True)


if __name__ == "__main__":
    main()
