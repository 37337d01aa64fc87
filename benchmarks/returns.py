"""Confirmed returns of self-ended runs, several seeds each, optionally beside stable-baselines3 at the same steps.

    uv run python benchmarks/returns.py CartPole-v1 Acrobot-v1:ppo Pendulum-v1:ppo@200000 [--seeds 5] [--sb3]
    uv run python benchmarks/returns.py CartPoleMasked-v1:recurrent_ppo CartPoleMasked-v1:ppo@300000
        [--backend jax] [--results runs.jsonl]

With ``--results`` every run is written to a file as soon as it ends, and runs that the file holds are not made again.

A task is ENV_ID[:ALGORITHM][@MAX_ENV_STEPS]; what is left out is chosen as ``optix train`` would. The number of a run
is the mean of its 100 confirmation episodes (greedy, seeds that nothing else has seen); a row shows the interquartile
mean over runs with its 95 % bootstrap interval. SB3 trains for the steps that our run of that seed took, with the
hyperparameters that rl-baselines3-zoo tuned, and its last policy plays 100 fresh greedy episodes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import partially_observed  # noqa: F401 - registers its tasks

from optix_core.evaluation import iqm, stratified_bootstrap

ZOO: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {
        "CartPole-v1": {
            "n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
            "learning_rate": 1e-3,
        },
        "Acrobot-v1": {"n_envs": 16, "n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4, "normalize": True},
        "Pendulum-v1": {
            "n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "learning_rate": 1e-3,
            "use_sde": True, "sde_sample_freq": 4,
        },
        "LunarLander-v3": {
            "n_envs": 16, "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4,
            "ent_coef": 0.01,
        },
    },
    "dqn": {
        "CartPole-v1": {
            "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000,
            "gamma": 0.99, "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
            "exploration_fraction": 0.16, "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
        },
    },
    "sac": {
        "Pendulum-v1": {"learning_rate": 1e-3},
        # The zoo waits for 10,000 steps before it learns, in runs ten times as long; here it need not (SB3's 100).
        "LunarLanderContinuous-v3": {"learning_rate": 7.3e-4, "tau": 0.01, "policy_kwargs": {"net_arch": [400, 300]}},
        "HalfCheetah-v5": {},
    },
    "td3": {"Pendulum-v1": {"learning_rate": 1e-3, "gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000}},
}  # fmt: skip


def ours(task: str, seed: int, backend: str | None) -> dict[str, Any]:
    from optix_core import TrainConfig, TrainPlan

    env_id, algorithm, budget = parse(task)
    config = TrainConfig(env_id=env_id, backend=backend, algorithm=algorithm or "auto", max_env_steps=budget, seed=seed)
    plan = TrainPlan.of(config)
    started = time.process_time()
    result = plan.build(None).run()
    assert result.confirmed_return is not None
    return {
        "return": result.confirmed_return["mean"],
        "steps": result.train_env_steps,
        "eval_steps": result.eval_env_steps,
        "cpu_s": time.process_time() - started,
        "verdict": result.verdict,
        "algorithm": plan.algorithm,
    }


def theirs(env_id: str, algorithm: str, steps: int, seed: int) -> dict[str, Any]:
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization

    torch.set_num_threads(1)
    settings = dict(ZOO.get(algorithm, {}).get(env_id, {}))
    environments: Any = make_vec_env(env_id, n_envs=settings.pop("n_envs", 1), seed=seed)
    fresh: Any = make_vec_env(env_id, seed=1_000_000 + seed)
    if settings.pop("normalize", False):
        environments = VecNormalize(environments)
        fresh = VecNormalize(fresh, training=False, norm_reward=False)
    started = time.process_time()
    model = getattr(sb3, algorithm.upper())("MlpPolicy", environments, seed=seed, device="cpu", **settings)
    model.learn(steps)
    cpu_s = time.process_time() - started
    if isinstance(environments, VecNormalize):
        sync_envs_normalization(environments, fresh)
    returns, _ = evaluate_policy(model, fresh, n_eval_episodes=100, return_episode_rewards=True, warn=False)
    return {"return": float(np.mean(returns)), "steps": model.num_timesteps, "cpu_s": cpu_s}


def parse(task: str) -> tuple[str, str | None, int | None]:
    head, _, budget = task.partition("@")
    env_id, _, algorithm = head.partition(":")
    return env_id, algorithm or None, int(budget) if budget else None


def child(results: Path | None, *arguments: object) -> dict[str, Any]:
    """Run one training in a process of its own, unless ``results`` holds it already."""
    key = json.dumps(arguments)
    known = results.read_text(encoding="utf-8").splitlines() if results is not None and results.exists() else []
    for entry in map(json.loads, known):
        if entry["key"] == key:
            return entry["run"]
    command = [sys.executable, __file__, "-", "--one", key]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    run = json.loads(done.stdout.strip().splitlines()[-1])
    if results is not None:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "run": run}) + "\n")
    return run


def row(name: str, runs: list[dict[str, Any]]) -> None:
    returns = np.array([run["return"] for run in runs])
    interval = stratified_bootstrap(returns, iqm)
    verdicts = ", ".join(f"{count} {v}" for v, count in Counter(r["verdict"] for r in runs if "verdict" in r).items())
    print(
        f"{name:34} {float(iqm(returns)):>8.1f}  [{float(interval.low):.1f}, {float(interval.high):.1f}]"
        f"  worst {returns.min():.1f}  best {returns.max():.1f}  steps {np.median([r['steps'] for r in runs]):,.0f}"
        f"  CPU {np.median([r['cpu_s'] for r in runs]):.1f} s  {verdicts}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sb3", action="store_true")
    parser.add_argument("--backend", help="of our runs; torch where it is installed")
    parser.add_argument("--results", type=Path, help="file of single runs to go on with")
    parser.add_argument("--one")
    arguments = parser.parse_args()
    if arguments.one:
        kind, *rest = json.loads(arguments.one)
        print(json.dumps({"ours": ours, "theirs": theirs}[kind](*rest)))
        return
    for task in arguments.tasks:
        runs = [child(arguments.results, "ours", task, seed, arguments.backend) for seed in range(arguments.seeds)]
        row(f"{task} ({runs[0]['algorithm']})", runs)
        if arguments.sb3:
            env_id, algorithm = parse(task)[0], runs[0]["algorithm"]
            peers = [child(arguments.results, "theirs", env_id, algorithm, r["steps"], s) for s, r in enumerate(runs)]
            row("  stable-baselines3", peers)


if __name__ == "__main__":
    main()
