"""CPU time until a run has ended by itself with a policy that solves CartPole, beside stable-baselines3.

    uv run python benchmarks/self_stop.py [--seeds 20] [--contenders optix ...]

Ours is ``optix train CartPole-v1``: it stops by its own verdict, chooses among the policies it kept, and confirms the
choice on 100 fresh episodes; all of that is on its bill. Theirs is PPO with EvalCallback and
StopTrainingOnNoModelImprovement, which stops by patience; its best model is tested on 100 fresh episodes that are
not on its bill. Two settings of theirs: the defaults, and what rl-baselines3-zoo tuned for CartPole.

Every run has a process of its own, one thread, and reports its CPU seconds without the imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from statistics import mean, median

SOLVED = 475.0
CAP = 500_000


def ours(seed: int) -> dict[str, float]:
    from optix_core import TrainConfig, TrainPlan

    plan = TrainPlan.of(TrainConfig(env_id="CartPole-v1", seed=seed))
    started = time.process_time()
    result = plan.build(None).run()
    cpu_s = time.process_time() - started
    return {
        "cpu_s": cpu_s,
        "steps": result.train_env_steps,
        "return": result.confirmed_return["mean"],
        "converged": result.verdict == "CONVERGED",
    }


def theirs(seed: int, tuned: bool) -> dict[str, float]:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnNoModelImprovement
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    n_envs = 8 if tuned else 1
    settings = (
        {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "learning_rate": 1e-3}
        if tuned
        else {}
    )
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        environments = make_vec_env("CartPole-v1", n_envs=n_envs, seed=seed)
        patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=3, min_evals=5)
        evaluation = EvalCallback(
            make_vec_env("CartPole-v1", seed=1_000_000 + seed),
            eval_freq=(2_500 if tuned else 10_000) // n_envs,
            n_eval_episodes=5,
            callback_after_eval=patience,
            best_model_save_path=folder,
            verbose=0,
        )
        model = PPO("MlpPolicy", environments, seed=seed, device="cpu", **settings)
        model.learn(CAP, callback=evaluation)
        cpu_s = time.process_time() - started
        best = PPO.load(f"{folder}/best_model", device="cpu")
    returns, _ = evaluate_policy(
        best, make_vec_env("CartPole-v1", seed=2_000_000 + seed), n_eval_episodes=100, return_episode_rewards=True
    )
    return {"cpu_s": cpu_s, "steps": model.num_timesteps, "return": mean(returns), "converged": False}


CONTENDERS = {
    "optix": ours,
    "SB3, defaults": lambda seed: theirs(seed, tuned=False),
    "SB3, tuned by rl-zoo": lambda seed: theirs(seed, tuned=True),
}


def measure(name: str, seed: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, str(seed)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(printed.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"))
    arguments = parser.parse_args()
    if arguments.one:
        name, seed = arguments.one
        print(json.dumps(CONTENDERS[name](int(seed))))
        return
    runs = {name: [] for name in arguments.contenders}
    for seed in range(arguments.seeds):  # interleaved, so that a busy machine slows all of them alike
        for name, found in runs.items():
            found.append(run := measure(name, seed))
            print(
                f"{name}, seed {seed}: {run['return']:.1f} after {run['steps']:,} steps, {run['cpu_s']:.1f} s",
                flush=True,
            )
    print(f"{'CartPole-v1':22} {'solved':>8} {'CPU s, median':>14} {'mean':>7} {'steps, median':>14} {'ratio':>7}")
    base = median(run["cpu_s"] for run in runs[arguments.contenders[0]])
    for name, found in runs.items():
        seconds = [run["cpu_s"] for run in found]
        solved = sum(run["return"] >= SOLVED for run in found)
        steps = median(run["steps"] for run in found)
        print(
            f"{name:22} {solved:>4}/{len(found):<3} {median(seconds):>14.1f} {mean(seconds):>7.1f} {steps:>14,.0f} "
            f"{median(seconds) / base:>6.1f}x"
        )
    if "optix" in runs:
        print(f"optix runs that ended as CONVERGED: {sum(run['converged'] for run in runs['optix'])}/{arguments.seeds}")


if __name__ == "__main__":
    main()
