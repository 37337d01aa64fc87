"""Training throughput of optix PPO beside stable-baselines3, in environment steps per CPU-second.

Both train on CartPole-v1 with the same networks (64-64 tanh, separate), the same minibatches and epochs, one thread,
in turns within one process; the ratio is that of the medians.

    python benchmarks/throughput.py [--repeats 5] [--steps 32768]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration of both sides: SB3 keeps its usual width, ours may be wider."""

    name: str
    num_envs: int
    num_steps: int
    minibatch_size: int
    num_epochs: int = 4


SB3 = Case(name="stable-baselines3, 8 envs x 128, minibatch 256", num_envs=8, num_steps=128, minibatch_size=256)
OURS = (
    Case(name="optix, same configuration", num_envs=8, num_steps=128, minibatch_size=256),
    Case(name="optix, 32 envs x 128, minibatch 1024", num_envs=32, num_steps=128, minibatch_size=1024),
    Case(name="optix, 64 envs x 128, minibatch 1024", num_envs=64, num_steps=128, minibatch_size=1024),
)


def sb3_trainer(case: Case) -> Callable[[int], int]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=case.num_envs, seed=0),
        n_steps=case.num_steps,
        batch_size=case.minibatch_size,
        n_epochs=case.num_epochs,
        learning_rate=3e-4,
        device="cpu",
        seed=0,
    )

    def train(num_env_steps: int) -> int:
        before = model.num_timesteps
        model.learn(num_env_steps, reset_num_timesteps=False)
        return model.num_timesteps - before

    return train


def optix_trainer(case: Case) -> Callable[[int], int]:
    from optix_core.backends import make_agent
    from optix_core.pipelines import VectorBatchPipeline

    settings = {"minibatch_size": case.minibatch_size, "num_epochs": case.num_epochs, "entropy_coef": 0.0}
    agent = make_agent("ppo", "CartPole-v1", framework="torch", seed=0, **settings)
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=case.num_envs, window_size=case.num_steps, seed=0)
    windows = pipeline.windows()

    def train(num_env_steps: int) -> int:
        done = 0
        while done < num_env_steps:
            window = next(windows)
            agent.learn(window)
            done += window.num_env_steps
        return done

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32768, help="environment steps per repeat and side")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    trainers = {SB3.name: sb3_trainer(SB3)} | {case.name: optix_trainer(case) for case in OURS}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for train in trainers.values():
        train(4096)  # warm up
    for _ in range(options.repeats):
        for name, train in trainers.items():
            start = time.process_time()
            steps = train(options.steps)
            rates[name].append(steps / (time.process_time() - start))
    reference = statistics.median(rates[SB3.name])
    print(
        f"{'environment steps per CPU-second (median of ' + str(options.repeats) + ')':<52}{'steps/s':>10}{'ratio':>8}"
    )
    for name, values in rates.items():
        print(f"{name:<52}{statistics.median(values):>10,.0f}{statistics.median(values) / reference:>7.2f}x")


if __name__ == "__main__":
    main()
