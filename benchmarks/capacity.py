"""How many actors one learner can feed on: a plan from message sizes and rates, and a simulation that checks it.

    uv run python benchmarks/capacity.py [--env-steps-per-s 20000] [--learner-steps-per-s 1e6] [--network-gbit 10]

What a trajectory takes is measured on its message; rates are arguments. The plan compares what actors send with what
the network and the learner take. The simulation lets trajectories queue, with actors that stall now and then, and says
how old their policies are when they are learned from. Everything but the sizes is arithmetic: no cluster is needed.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from gymnasium import spaces

from optix_distributed.codec import Origin, encode, size_of
from optix_protocol.testing import random_window


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is sent, in bytes.

    Attributes:
        name: of the environment.
        per_step: of a trajectory, per environment step.
        weights: of a policy.
    """

    name: str
    per_step: float
    weights: int


def measured(
    name: str, observations: spaces.Box, actions: spaces.Space, weights: int, *, N: int = 16, T: int = 128
) -> Task:
    window = random_window(observations, actions, num_steps=T, num_envs=N, seed=0)
    message = size_of(encode(window, Origin(actor=0, incarnation=0, sequence=0)))
    return Task(name=name, per_step=(message + 4 * N * T) / (N * T), weights=weights)  # and log-probabilities


def tasks() -> list[Task]:
    def mlp(*sizes: int) -> int:
        return sum(4 * (a + 1) * b for a, b in pairwise(sizes))

    def vector(size: int) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (size,), np.float32)

    pictures = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    return [
        measured("LunarLander, 64 x 64", vector(8), spaces.Discrete(4), mlp(8, 64, 64, 4)),
        measured("Humanoid, 256 x 256", vector(376), spaces.Box(-1.0, 1.0, (17,), np.float32), mlp(376, 256, 256, 17)),
        measured("Atari, Nature CNN", pictures, spaces.Discrete(6), 6_800_000, N=4, T=16),
    ]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Rates of a cluster.

    Attributes:
        env_steps: of one node's actors per second.
        learner_steps: that the learner can learn from per second.
        network: bytes per second into and out of the learner's machine.
        window: environment steps of an update.
    """

    env_steps: float
    learner_steps: float
    network: float
    window: int = 16_384


def plan(task: Task, cluster: Cluster, nodes: int) -> tuple[float, str, float]:
    """Return steps per second, what limits them, and megabytes per second over the learner's network.

    Every update is sent to every node once.
    """
    per_step = task.per_step + task.weights * nodes / cluster.window
    limits = {
        "actors": nodes * cluster.env_steps,
        "learner": cluster.learner_steps,
        "network": cluster.network / per_step,
    }
    limit = min(limits, key=lambda name: limits[name])
    return limits[limit], limit, limits[limit] * per_step / 1e6


def simulate(cluster: Cluster, nodes: int, *, seconds: float = 10.0, seed: int = 0) -> tuple[float, float, int]:
    """Return steps per second, and mean and largest lag in updates, where trajectories queue.

    A node collects an eighth of a window after the other by the weights that are newest when it begins, and waits while
    two of its trajectories are on their way. One in a hundred takes ten times as long. The learner takes eight at once.
    """
    rng, part = np.random.default_rng(seed), cluster.window // 8
    version, taken, is_busy, now = 0, 0, False, 0.0
    lags: list[int] = []
    queue: deque[tuple[int, int]] = deque()
    on_way, held = [0] * nodes, set()
    events: list[tuple[float, int, int]] = []  # when, which node (-1: the learner), by which policy

    def begin(node: int) -> None:
        length = 10.0 if rng.random() < 0.01 else rng.uniform(0.8, 1.2)
        heapq.heappush(events, (now + length * part / cluster.env_steps, node, version))

    for node in range(nodes):
        begin(node)
    while events and now < seconds:
        now, node, policy = heapq.heappop(events)
        if node < 0:
            version, is_busy = version + 1, False
        else:
            queue.append((node, policy))
            on_way[node] += 1
            if on_way[node] < 2:
                begin(node)
            else:
                held.add(node)
        if not is_busy and len(queue) >= 8:
            is_busy, taken = True, taken + 8 * part
            heapq.heappush(events, (now + 8 * part / cluster.learner_steps, -1, 0))
            for sender, acted in [queue.popleft() for _ in range(8)]:
                lags.append(version - acted)
                on_way[sender] -= 1
                if sender in held:
                    held.remove(sender)
                    begin(sender)
    return taken / now, float(np.mean(lags or [0])), max(lags, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-steps-per-s", type=float, default=20_000, help="of one node's actors")
    parser.add_argument("--learner-steps-per-s", type=float, default=1_000_000)
    parser.add_argument("--network-gbit", type=float, default=10.0, help="of the learner's machine")
    given = parser.parse_args()
    cluster = Cluster(
        env_steps=given.env_steps_per_s,
        learner_steps=given.learner_steps_per_s,
        network=given.network_gbit / 8 * 1e9,
    )
    print("| task | bytes per step | weights | nodes | steps/s | limited by | MB/s at the learner |")
    print("|---|---|---|---|---|---|---|")
    for task in tasks():
        for nodes in (1, 10, 50, 100, 300):
            steps, limit, megabytes = plan(task, cluster, nodes)
            sizes = f"{task.per_step:,.0f} | {task.weights / 1e3:,.0f} KB"
            print(f"| {task.name} | {sizes} | {nodes} | {steps:,.0f} | {limit} | {megabytes:,.0f} |")
    print("\n| nodes | steps/s, simulated | lag, mean | largest |")
    print("|---|---|---|---|")
    for nodes in (10, 50, 100, 300):
        steps, mean, most = simulate(cluster, nodes)
        print(f"| {nodes} | {steps:,.0f} | {mean:.1f} | {most} |")


if __name__ == "__main__":
    main()
