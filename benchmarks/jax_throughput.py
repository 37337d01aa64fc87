"""PPO that is compiled as a whole: optix-jax, with its loop and journal, beside rejax.

rejax is installed from its package, with the release of gymnax that it was written for, into an environment of its own.
Both sides train CartPole in a process each, with the same networks, environments, minibatches and epochs, in turns and
on the same core; the ratio of steps per CPU-second is the median over turns, since a shared machine changes its pace.
Ours counts everything that a run does while it trains: the verdict, the journal, snapshots and saved states. Then many
seeds at once; what needs a GPU runs where JAX sees one.

    python benchmarks/jax_throughput.py [--steps 1000000] [--repeats 5] [--seeds 16]

A GPU compares with purejaxrl there: 83 k steps/s with 1 seed, 14.7 M with 256, 40.7 M with 2048 (H200, CartPole).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from _sides import Side, Timed, answer, compare, pin, python_with

ENV_ID = "CartPole-v1"
CASES: dict[str, dict[str, int]] = {
    "64 envs x 64, 16 minibatches, 4 epochs": {"envs": 64, "steps": 64, "minibatches": 16, "epochs": 4},
    "32 envs x 64, 8 minibatches, 10 epochs": {"envs": 32, "steps": 64, "minibatches": 8, "epochs": 10},
    "4 envs x 128, 4 minibatches, 4 epochs (purejaxrl's)": {"envs": 4, "steps": 128, "minibatches": 4, "epochs": 4},
}
PEER = ("rejax==0.1.3", "gymnax==0.0.9")
GPU_PEER = {1: 83e3, 256: 14.7e6, 2048: 40.7e6}
"""Steps per second of purejaxrl on an H200, 4 environments x 128, by the number of seeds."""


def rejax_trainer(case: dict[str, int], num_steps: int) -> Callable[[int], Timed]:
    import jax
    from rejax import PPO

    algorithm = PPO.create(
        env=ENV_ID,
        num_envs=case["envs"],
        num_steps=case["steps"],
        num_minibatches=case["minibatches"],
        num_epochs=case["epochs"],
        learning_rate=1e-3,
        max_grad_norm=0.5,
        total_timesteps=num_steps,
        eval_freq=num_steps,
        skip_initial_evaluation=True,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    ).replace(eval_callback=lambda *_: ())
    train = jax.jit(lambda key: algorithm.train(key)).lower(jax.random.PRNGKey(0)).compile()

    def timed(seed: int) -> Timed:
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(train(jax.random.PRNGKey(seed)))
        return {"steps": num_steps, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}

    return timed


def optix_trainer(case: dict[str, int], num_steps: int) -> Callable[[int], Timed]:
    from optix_core.convergence import Assessment, ConvergenceMonitor
    from optix_core.loop import RLOptimizer
    from optix_jax import FlaxPPOAgent
    from optix_jax.environments import GymnaxEnvironment
    from optix_jax.pipeline import FusedPipeline
    from optix_protocol import LoopCallback

    class NeverStops(ConvergenceMonitor):
        """Judges as always; a benchmark needs the steps that were asked for."""

        @property
        def assessment(self) -> Assessment:
            return replace(super().assessment, should_stop=False)

    class Clock(LoopCallback):
        def on_loop_start(self) -> None:
            self.start = time.perf_counter(), time.process_time()

        def on_episode_end(self, episode_id: int, eval_metrics: Any) -> None:  # noqa: ARG002
            self.end = time.perf_counter(), time.process_time()

    env = GymnaxEnvironment(ENV_ID)
    batch = case["envs"] * case["steps"]

    def train(seed: int, budget: int) -> Timed:
        settings = {
            "learning_rate": 1e-3,
            "num_epochs": case["epochs"],
            "minibatch_size": batch // case["minibatches"],
        }
        agent = FlaxPPOAgent.from_spaces(env.observation_space, env.action_space, seed=seed, hyperparams=settings)
        pipeline = FusedPipeline(env, agent, n_envs=case["envs"], window_size=case["steps"])
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            result = RLOptimizer(
                agent,
                pipeline,
                scheduler=NeverStops(budget_env_steps=budget),
                max_env_steps=budget,
                callbacks=clock,
                checkpoint_dir=Path(folder) / "run",
            ).run()
        wall, cpu = (end - start for start, end in zip(clock.start, clock.end, strict=True))
        return {"steps": result.train_env_steps, "wall_s": wall, "cpu_s": cpu}

    train(0, 16 * batch)
    return lambda seed: train(seed, num_steps)


def worker(side: str, case: dict[str, int], num_steps: int) -> None:
    """Compile, then train once for every line on standard input."""
    pin()
    answer({"rejax": rejax_trainer, "optix": optix_trainer}[side](case, num_steps))


def measure(name: str, case: dict[str, int], num_steps: int, repeats: int) -> None:
    batch = case["envs"] * case["steps"]
    num_steps = num_steps // batch * batch
    pythons = {"rejax": python_with(*PEER), "optix": sys.executable}
    sides = {
        side: Side([python, __file__, "--worker", side, json.dumps(case), "--steps", str(num_steps)])
        for side, python in pythons.items()
    }
    print(f"{name}, {num_steps:,} steps, {repeats} times each")
    compare(sides, "rejax", range(repeats))


def many_seeds(num_seeds: int, *, device: str, windows_each: int = 10) -> float:
    """Train many seeds side by side, as ``optix train --num-seeds`` does, and return their steps per second."""
    from optix_jax import FlaxPPOAgent
    from optix_jax.environments import GymnaxEnvironment
    from optix_jax.seeds import FusedSeeds

    case = CASES["4 envs x 128, 4 minibatches, 4 epochs (purejaxrl's)"]
    env = GymnaxEnvironment(ENV_ID)
    settings = {"learning_rate": 2.5e-4, "num_epochs": case["epochs"], "minibatch_size": 128}
    agents = [
        FlaxPPOAgent.from_spaces(
            env.observation_space, env.action_space, seed=seed, hyperparams=settings, device=device
        )
        for seed in range(num_seeds)
    ]
    group = FusedSeeds(env, agents, range(num_seeds), num_envs=case["envs"], num_steps=case["steps"])
    group.learn(group.collect())
    start, steps = time.perf_counter(), 0
    for _ in range(windows_each):
        windows = group.collect()
        group.learn(windows)
        steps += sum(window.num_env_steps for window in windows)
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=16, help="seeds at once on the CPU")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], json.loads(options.worker[1]), options.steps)
        return
    for name, case in CASES.items():
        measure(name, case, options.steps, options.repeats)
    print(f"{options.seeds} seeds at once, CPU: {many_seeds(options.seeds, device='cpu'):,.0f} steps/s in all")
    import jax

    if jax.default_backend() != "gpu":
        print("GPU: skipped, JAX sees none here")
        return
    for num_seeds, peer in GPU_PEER.items():
        speed = many_seeds(num_seeds, device="cuda")
        print(f"{num_seeds} seeds at once, GPU: {speed:,.0f} steps/s in all, {speed / peer:.2f} x purejaxrl on an H200")


if __name__ == "__main__":
    main()
