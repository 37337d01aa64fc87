"""What actors beside the learner bring and cost.

    uv run python benchmarks/distributed.py [throughput] [sleeping] [messages] [learning] [memory]

- ``throughput``: PPO on LunarLander with 16 environments, the learner alone against 2 actors with 16 each. Steps per
  second need two free cores; steps per CPU-second (learner and actors together) do not.
- ``sleeping``: an environment that takes 2 ms of waiting per step; 8 actors against the learner alone.
- ``messages``: how long until another process sees new weights, and how many trajectories per second a ring carries.
- ``learning``: after how many steps a run of CartPole ends by itself, and its confirmed return, with and without actors
- ``memory``: by how much learner and actors grow over ``--steps`` steps of CartPole, a tenth of which warm up before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from optix_core import TrainConfig, TrainPlan, VectorBatchPipeline, make_agent
from optix_core.training.actors import ActorOptions
from optix_distributed import ActorPipeline, LocalTransport
from optix_distributed.local.board import Board
from optix_distributed.local.ring import Ring

ENVS, ROWS = 16, 128


class Sleeping(gym.Env[Any, Any]):
    """Waits 2 ms per step, as for a simulator elsewhere."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:  # noqa: ARG002
        super().reset(seed=seed)
        self._t = 0
        return self.np_random.random(4, np.float32), {}

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        self._t += 1
        return self.np_random.random(4, np.float32), float(action), self._t >= 200, False, {}


def cpu_seconds() -> float:
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


@contextlib.contextmanager
def closing(pipeline: Any) -> Iterator[Any]:
    try:
        yield pipeline
    finally:
        pipeline.close()


def train(env: Any, n_actors: int, windows: int, *, envs: int, rows: int, warm: int = 3) -> tuple[float, float]:
    """Return steps per second and per CPU-second; ``n_actors`` 0 is the learner alone."""
    name = env if isinstance(env, str) else "CartPole-v1"
    agent = make_agent("PPO", name, seed=0, hyperparams={"num_epochs": 4, "minibatch_size": 512})
    if n_actors:
        transport = LocalTransport(n_actors)
        pipeline: Any = ActorPipeline(env, transport, agent, envs_per_actor=envs // n_actors, trajectory_len=rows)
    else:
        pipeline = VectorBatchPipeline(env, agent, n_envs=envs, window_size=rows)
    steps, version = 0, 0
    with closing(pipeline):
        for number in range(warm + windows):
            if number == warm:
                wall, before_start = time.perf_counter(), cpu_seconds()
                of_actors = actor_cpu(pipeline) if n_actors else 0.0
            window = pipeline.collect()
            agent.learn(window)
            version += 1
            pipeline.policy_changed(policy_version=version, hyperparam_version=0)
            steps += window.num_env_steps if number >= warm else 0
        seconds = time.perf_counter() - wall
        cpu = cpu_seconds() - before_start + ((actor_cpu(pipeline) - of_actors) if n_actors else 0.0)
    return steps / seconds, steps / cpu


def actor_cpu(pipeline: Any) -> float:
    """Return the CPU seconds that the actors' processes have used so far."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0.0
    for pid in pipeline.transport.pids:
        if pid is not None:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


def throughput() -> None:
    for attempt in range(3):
        alone, per_cpu_alone = train("LunarLander-v3", 0, 12, envs=ENVS, rows=ROWS)
        with_two, per_cpu = train("LunarLander-v3", 2, 12, envs=2 * ENVS, rows=ROWS)
        print(
            f"LunarLander, try {attempt + 1}: alone {alone:,.0f} steps/s, {per_cpu_alone:,.0f} per CPU-s; 2 actors "
            f"{with_two:,.0f} steps/s ({with_two / alone:.2f} x), {per_cpu:,.0f} per CPU-s "
            f"({per_cpu / per_cpu_alone:.2f} x)",
            flush=True,
        )


def sleeping() -> None:
    alone, _ = train(Sleeping, 0, 6, envs=1, rows=64, warm=1)
    beside, _ = train(Sleeping, 8, 6, envs=8, rows=64, warm=1)
    print(f"2 ms per step: alone {alone:,.0f} steps/s, 8 actors {beside:,.0f} ({beside / alone:.1f} x)")


READER = """
    import sys, time
    from optix_distributed.local.board import Board
    board, have = Board.attach(sys.argv[1], int(sys.argv[2])), 0
    print("ready", flush=True)
    while not board.stopped:
        found = board.latest(have)
        if found is not None:
            have = found.number
            print(time.monotonic_ns() - found.policy_version, flush=True)
"""


def messages() -> None:
    for size in (20_000, 300_000, 5_000_000):
        board, block = Board.create(size), bytes(size)
        command = [sys.executable, "-c", textwrap.dedent(READER), str(board.path), str(size)]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        reader.stdout.readline()
        delays = []
        for _ in range(300):
            board.publish(block, policy_version=time.monotonic_ns(), hyperparam_version=0)
            delays.append(int(reader.stdout.readline()) / 1e3)
            time.sleep(0.002)
        board.stop()
        reader.wait()
        reader.stdout.close()
        low, middle, high = np.percentile(delays, [5, 50, 95])
        began = time.perf_counter()
        for _ in range(200):
            board.latest(0)
        read = (time.perf_counter() - began) / 200 * 1e6
        print(
            f"weights of {size:,} bytes: visible after {middle:,.0f} us ({low:,.0f} to {high:,.0f}), "
            f"read in {read:,.1f} us"
        )
        board.close()
    ring, piece = Ring.create(depth=2, capacity=65_536), bytes(32_768)
    began = time.perf_counter()
    for _ in range(20_000):
        ring.put([piece])
        bytes(ring.peek() or b"")
        ring.release()
    print(f"a ring carries {20_000 / (time.perf_counter() - began):,.0f} trajectories of 32 KB per second")
    ring.close()


def learning(seeds: int = 5) -> None:
    env_id, solved = "CartPole-v1", 475.0
    for n_actors in (0, 2):
        needed, returns = [], []
        for seed in range(seeds):
            actors = ActorOptions(transport="local", n_actors=n_actors) if n_actors else ActorOptions()
            plan = TrainPlan.of(TrainConfig(env_id=env_id, backend="torch", seed=seed, actors=actors))
            run = plan.build(None)
            result, pipeline = run.run(), run.pipeline
            lag = ""
            if isinstance(pipeline, ActorPipeline):
                found = pipeline.statistics.summary(pipeline.transport.health())
                lag = f", lag {found['lag_mean']:.2f} (most {found['lag_max']})"
            needed.append(result.train_env_steps)
            returns.append((result.confirmed_return or {}).get("mean", float("nan")))
            print(
                f"{env_id}, {n_actors or 'no'} actors, seed {seed}: {needed[-1]:,} steps, confirmed {returns[-1]:.1f}, "
                f"{result.verdict}{lag}",
                flush=True,
            )
        share = np.mean(np.array(returns) >= solved)
        print(f"{env_id}, {n_actors or 'no'} actors: median {int(np.median(needed)):,} steps, {share:.0%} solved")


def memory(steps: int = 1_000_000) -> None:
    agent = make_agent("PPO", "CartPole-v1", seed=0, hyperparams={"num_epochs": 1, "minibatch_size": 4096})
    transport = LocalTransport(2)
    taken, version, before = 0, 0, None
    with closing(ActorPipeline("CartPole-v1", transport, agent, envs_per_actor=64, trajectory_len=64)) as pipeline:
        while taken < 1.1 * steps:
            window = pipeline.collect()
            agent.learn(window)
            version, taken = version + 1, taken + window.num_env_steps
            pipeline.policy_changed(policy_version=version, hyperparam_version=0)
            if before is None and taken >= 0.1 * steps:
                before, taken_before = [resident_bytes(pid) for pid in (os.getpid(), *transport.pids)], taken
        after = [resident_bytes(pid) for pid in (os.getpid(), *transport.pids)]
    assert before is not None
    growth = ", ".join(f"{(b - a) / 1e6:+.2f} MB" for a, b in zip(before, after, strict=True))
    print(f"{taken - taken_before:,} steps after {taken_before:,}: learner and actors grew by {growth}")


def resident_bytes(pid: int | None) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:  # of its own, without what is shared
        lines = [line.split() for line in file if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(int(line[1]) for line in lines) * 1024


PARTS = {
    "throughput": throughput,
    "sleeping": sleeping,
    "messages": messages,
    "learning": learning,
    "memory": memory,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of memory")
    given = parser.parse_args()
    for part in given.parts or PARTS:
        if part == "memory":
            memory(given.steps)
        else:
            PARTS[part]()
