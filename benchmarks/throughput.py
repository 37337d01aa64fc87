"""Training throughput of optix beside stable-baselines3, in environment steps per CPU-second.

Both sides of a group train on the same task with the same networks, minibatches and number of updates, one thread, in
turns within one process; the ratio is that of the medians. Further rows of a group show wider configurations of ours.
``--backends torch jax tf`` puts the backends beside each other. Where there is a GPU, updates as CUDA graphs are timed
beside the same updates kernel by kernel.

    python benchmarks/throughput.py [ppo] [dqn] [sac] [td3] [--repeats 5] [--steps 32768] [--backends torch jax]

Other peers need processes of their own; all take turns on one core, and the ratio is the median over turns.
``--beside`` puts this working tree beside a commit of the repository, ``--peer sbx`` puts SAC beside SBX
(stable-baselines3's algorithms in JAX), installed from its package into an environment of its own:

    python benchmarks/throughput.py ppo dqn sac --beside 7f34d7b
    python benchmarks/throughput.py sac --peer sbx --backends torch jax
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from _beside import checkout, environment_of
from _sides import Side, Timed, answer, compare, pin, python_with

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Trainer: TypeAlias = Callable[[int], int]
"""Trains for at least so many environment steps and returns how many it made."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: who trains, and in which configuration.

    Attributes:
        name: what is printed.
        num_envs: environments side by side.
        window_size: steps of each environment between two updates.
        settings: of the algorithm, by the name of its side.
    """

    name: str
    num_envs: int
    window_size: int
    settings: Mapping[str, Any]


def sb3_trainer(algorithm: str, env_id: str, case: Case) -> Trainer:
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    model = getattr(stable_baselines3, algorithm.upper())(
        "MlpPolicy", make_vec_env(env_id, n_envs=case.num_envs, seed=0), device="cpu", seed=0, **case.settings
    )

    def train(num_env_steps: int) -> int:
        before = model.num_timesteps
        model.learn(num_env_steps, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return train


def sbx_trainer(algorithm: str, env_id: str, case: Case) -> Trainer:
    import sbx
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(env_id, n_envs=case.num_envs, seed=0)
    model = getattr(sbx, algorithm.upper())("MlpPolicy", envs, seed=0, **case.settings)

    def train(num_env_steps: int) -> int:
        before = model.num_timesteps
        model.learn(num_env_steps, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return train


def optix_trainer(algorithm: str, env_id: str, case: Case, backend: str) -> Trainer:
    try:
        from optix_core.agents.backends import make_agent
    except ImportError:  # a commit of before the module moved
        from optix_core.backends import make_agent
    from optix_core.pipelines import VectorBatchPipeline

    agent = make_agent(algorithm, env_id, framework=backend, seed=0, **case.settings)
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=case.num_envs, window_size=case.window_size, seed=0)
    windows = pipeline.windows()

    def train(num_env_steps: int) -> int:
        done = 0
        while done < num_env_steps:
            window = next(windows)
            agent.learn(window)
            done += window.num_env_steps
        return done

    return train


@dataclass(frozen=True, kw_only=True)
class Group:
    """An algorithm on a task: the peer's configuration, and ours.

    Attributes:
        env_id: the task.
        peer: stable-baselines3's row.
        ours: our rows; the first has the peer's configuration.
        share: of the steps asked for, where the algorithm is slow.
    """

    env_id: str
    peer: Case
    ours: Sequence[Case]
    share: float = 1.0


def _ppo() -> Group:
    def ours(name: str, num_envs: int, minibatch_size: int) -> Case:
        settings = {"minibatch_size": minibatch_size, "num_epochs": 4, "entropy_coef": 0.0}
        return Case(name=name, num_envs=num_envs, window_size=128, settings=settings)

    peer = {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "learning_rate": 3e-4}
    return Group(
        env_id="CartPole-v1",
        peer=Case(name="stable-baselines3, 8 envs x 128, minibatch 256", num_envs=8, window_size=128, settings=peer),
        ours=(
            ours("optix, same configuration", 8, 256),
            ours("optix, 32 envs x 128, minibatch 1024", 32, 1024),
            ours("optix, 64 envs x 128, minibatch 1024", 64, 1024),
        ),
    )


def _dqn() -> Group:
    """SB3's defaults: an update with 32 transitions every 4 steps, networks of 64-64, no double Q-learning."""
    same = {
        "learning_rate": 1e-4,
        "batch_size": 32,
        "capacity": 1_000_000,
        "learning_starts": 100,
        "updates_per_step": 0.25,
        "target_update_interval": 2500,
        "double_q": False,
    }

    def ours(name: str, num_envs: int, window_size: int, **changes: Any) -> Case:
        return Case(name=name, num_envs=num_envs, window_size=window_size, settings=same | changes)

    return Group(
        env_id="CartPole-v1",
        peer=Case(name="stable-baselines3, its defaults", num_envs=1, window_size=4, settings={}),
        ours=(
            ours("optix, same configuration", 1, 4),
            ours("optix, the same with double Q-learning", 1, 4, double_q=True),
            ours("optix, 8 envs x 4, an update per 4 steps", 8, 4),
        ),
        share=0.5,
    )


def _twin_critics(learning_rate: float) -> Group:
    """SB3's defaults, but for the networks of 256-256: an update with 256 transitions after every step."""
    same = {"learning_rate": learning_rate, "learning_starts": 100}
    peer = {**same, "batch_size": 256, "policy_kwargs": {"net_arch": [256, 256]}}

    def ours(name: str, num_envs: int = 1, window_size: int = 1, **changes: Any) -> Case:
        return Case(name=name, num_envs=num_envs, window_size=window_size, settings=same | changes)

    rows = [
        ours("optix, same configuration"),
        ours("optix, an update per step, 16 at a time", 1, 16),
        ours("optix, 4 envs x 16, an update per step", 4, 16),
    ]
    if has_bf16():
        rows.append(ours("optix, products in bfloat16", precision="bf16"))
    return Group(
        env_id="Pendulum-v1",
        peer=Case(name="stable-baselines3, 256-256, batch 256", num_envs=1, window_size=1, settings=peer),
        ours=rows,
        share=0.02,
    )


def has_bf16() -> bool:
    try:
        from optix_torch._ensembles import has_bf16
    except ImportError:  # in the peer's environment
        return False
    return has_bf16()


GROUPS: Mapping[str, Callable[[], Group]] = {
    "ppo": _ppo,
    "dqn": _dqn,
    "sac": lambda: _twin_critics(3e-4),
    "td3": lambda: _twin_critics(1e-3),
}


def measure(
    algorithm: str, group: Group, *, repeats: int, num_env_steps: int, backends: Sequence[str] = ("torch",)
) -> None:
    """Train in turns and print the rates."""
    trainers = {group.peer.name: sb3_trainer(algorithm, group.env_id, group.peer)}
    for backend in backends:
        for case in group.ours:
            if backend == "torch" or "precision" not in case.settings:
                name = case.name if len(backends) == 1 else case.name.replace("optix", f"optix {backend}")
                trainers[name] = optix_trainer(algorithm, group.env_id, case, backend)
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for train in trainers.values():
        train(max(256, int(4096 * group.share)))  # warm up
    for _ in range(repeats):
        for name, train in trainers.items():
            start = time.process_time()
            steps = train(num_env_steps)
            rates[name].append(steps / (time.process_time() - start))
    reference = statistics.median(rates[group.peer.name])
    title = f"{algorithm.upper()} on {group.env_id}, steps per CPU-second (median of {repeats})"
    print(f"{title:<60}{'steps/s':>10}{'ratio':>8}")
    for name, values in rates.items():
        print(f"  {name:<58}{statistics.median(values):>10,.0f}{statistics.median(values) / reference:>7.2f}x")


SBX = "sbx-rl==0.28.0"


def measure_apart(
    algorithm: str,
    group: Group,
    *,
    commit: str | None,
    repeats: int,
    num_env_steps: int,
    backends: Sequence[str] = ("torch",),
) -> None:
    """Train in turns in processes, beside a commit or, where there is none, beside SBX, and print the rates."""

    def command(python: str, side: str, row: int) -> list[str]:
        return [python, __file__, algorithm, "--worker", side, str(row)]

    reference = commit or "SBX"
    if commit is None:
        print(f"{algorithm.upper()} on {group.env_id}, {repeats} turns of {num_env_steps:,} steps")
        sides = {"SBX": Side(command(python_with(SBX), "sbx", 0))}
        for backend in backends:
            for row, case in enumerate(group.ours[:2]):
                name = case.name.replace("optix", f"optix {backend}")
                sides[name] = Side(command(sys.executable, backend, row))
        compare(sides, reference, [num_env_steps] * repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        then = environment_of(checkout(commit, Path(folder)))
        for backend in backends:
            name = group.ours[0].name.replace("optix", backend)
            print(f"{algorithm.upper()} on {group.env_id}, {name}, {repeats} turns of {num_env_steps:,} steps")
            sides = {
                commit: Side(command(sys.executable, backend, 0), env=then),
                "now": Side(command(sys.executable, backend, 0)),
            }
            compare(sides, reference, [num_env_steps] * repeats)


def work(algorithm: str, side: str, row: int) -> None:
    """Be one side: warm up, then train so many steps as each line of standard input says."""
    pin()
    group = GROUPS[algorithm]()
    if side == "sbx":
        train = sbx_trainer(algorithm, group.env_id, group.peer)
    else:
        train = optix_trainer(algorithm, group.env_id, group.ours[row], side)
    train(max(256, int(4096 * group.share)))

    def timed(num_env_steps: int) -> Timed:
        start = time.process_time()
        steps = train(num_env_steps)
        return {"steps": steps, "cpu_s": time.process_time() - start}

    answer(timed)


def measure_cuda_graphs(algorithm: str, group: Group, *, repeats: int) -> None:
    """Print updates per second on the GPU, with and without CUDA graphs, in the widest of our configurations."""
    import torch

    from optix_core.agents.backends import make_agent
    from optix_core.pipelines import VectorBatchPipeline

    if not torch.cuda.is_available():
        print(f"{algorithm.upper()}: CUDA graphs are not measured, there is no GPU here")
        return
    case = group.ours[2]  # the widest
    rates: dict[str, list[float]] = {"CUDA graphs": [], "kernel by kernel": []}
    agents = {}
    for name in rates:
        agent = make_agent(algorithm, group.env_id, framework="torch", seed=0, device="cuda", **case.settings)
        if name == "kernel by kernel":
            agent._step._capture = None
        agents[name] = agent
    windows = VectorBatchPipeline(
        group.env_id, agents["CUDA graphs"], n_envs=case.num_envs, window_size=case.window_size, seed=0
    ).windows()
    data = [next(windows) for _ in range(8)]
    for repeat in range(repeats + 1):
        for name, agent in agents.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for window in data:
                agent.learn(window)
            torch.cuda.synchronize()
            if repeat:  # the first time warms up and captures
                rates[name].append(len(data) / (time.perf_counter() - start))
    ratio = statistics.median(rates["CUDA graphs"]) / statistics.median(rates["kernel by kernel"])
    print(
        f"{algorithm.upper()} on {torch.cuda.get_device_name()}: CUDA graphs {ratio:.2f}x as fast as kernel by kernel"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", default=[], help=f"of {', '.join(GROUPS)}; default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32768, help="environment steps per repeat and side")
    parser.add_argument("--backends", nargs="+", default=["torch"], metavar="NAME", help="of our rows")
    parser.add_argument("--beside", metavar="COMMIT", help="compare with this commit of the repository")
    parser.add_argument("--peer", choices=["sb3", "sbx"], default="sb3")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.algorithms[0], options.worker[0], int(options.worker[1]))
        return

    import torch

    torch.set_num_threads(1)
    for algorithm in options.algorithms or GROUPS:
        group = GROUPS[algorithm]()
        steps = int(options.steps * group.share)
        if options.beside or options.peer == "sbx":
            measure_apart(
                algorithm,
                group,
                commit=options.beside,
                repeats=options.repeats,
                num_env_steps=steps,
                backends=options.backends,
            )
            continue
        measure(algorithm, group, repeats=options.repeats, num_env_steps=steps, backends=options.backends)
        if algorithm in ("ppo", "sac", "td3") and "torch" in options.backends:
            measure_cuda_graphs(algorithm, group, repeats=options.repeats)


if __name__ == "__main__":
    main()
