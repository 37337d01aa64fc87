"""A population in one program beside its members' single runs: the same results, and how much faster.

    python benchmarks/jax_population.py [--members 32] [--updates 50]

Members of CartPole differ by learning rate, discount, clipping, entropy and epochs. First the parameters are compared
after ten updates, with members that take turns (as on a CPU) and with members that are mapped into one program (as on
an accelerator). Then CPU-seconds: one process that trains all members, against a process for each, from the start of
Python to the last update. Both begin with an empty cache of compiled code, which single runs share: only the first
compiles.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

NUM_ENVS, NUM_STEPS = 8, 32
COMPARED_AFTER = 10


def hyperparams(member: int) -> dict[str, Any]:
    rng = np.random.default_rng(member)
    return {
        "learning_rate": float(10 ** rng.uniform(-4, -2)),
        "gamma": float(rng.uniform(0.95, 0.999)),
        "clip_range": float(rng.uniform(0.1, 0.3)),
        "entropy_coef": float(rng.uniform(0.0, 0.02)),
        "num_epochs": int(rng.integers(2, 7)),
        "minibatch_size": 64,
    }


def make_agent(member: int) -> Any:
    from optix_jax import FlaxPPOAgent
    from optix_jax.environments import pure_environment

    env = pure_environment("CartPole-v1")
    assert env is not None
    return FlaxPPOAgent.from_spaces(
        env.observation_space, env.action_space, seed=member, hyperparams=hyperparams(member)
    )


def train_alone(member: int, updates: int) -> dict[str, np.ndarray]:
    from optix_jax.environments import pure_environment
    from optix_jax.pipeline import FusedPipeline

    agent = make_agent(member)
    env = pure_environment("CartPole-v1")
    pipeline = FusedPipeline(env, agent, n_envs=NUM_ENVS, window_size=NUM_STEPS, updates_per_window=1, seed=member)
    for _ in range(updates):
        agent.learn(pipeline.collect())
    return dict(agent.networks.weights())


def train_together(members: int, updates: int, lanes: int | None = None) -> list[dict[str, np.ndarray]]:
    from optix_jax.environments import pure_environment
    from optix_jax.members import FusedMembers

    env = pure_environment("CartPole-v1")
    assert env is not None
    group = FusedMembers(
        env,
        [make_agent(member) for member in range(members)],
        range(members),
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        updates_per_window=1,
        lanes=lanes,
    )
    for _ in range(updates):
        group.learn(group.collect())
    return [dict(group.weights(position)) for position in range(members)]


def differences(ones: Sequence[Any], others: Sequence[Any]) -> np.ndarray:
    """Return the largest difference of each member's parameters."""
    pairs = zip(ones, others, strict=True)
    return np.array([max(float(np.abs(one[name] - other[name]).max()) for name in one) for one, other in pairs])


def cpu_seconds(*calls: Sequence[str]) -> float:
    """Run this script once for each call, all with one cache that is empty at first; return their CPU-seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with TemporaryDirectory() as cache:
        for call in calls:
            variables = {**os.environ, "OPTIX_JAX_CACHE": cache, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, __file__, *call], env=variables, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    members, updates = arguments.members, arguments.updates
    if arguments.only is not None:
        if arguments.only < 0:
            train_together(members, updates)
        else:
            train_alone(arguments.only, updates)
        return
    alone = [train_alone(member, COMPARED_AFTER) for member in range(members)]
    rates = np.array([hyperparams(member)["learning_rate"] for member in range(members)])
    for words, lanes in (("taking turns", 1), ("mapped into one program", members)):
        found = differences(alone, train_together(members, COMPARED_AFTER, lanes))
        far = found > 1e-4
        note = f"; the others have learning rates from {rates[far].min():.1e} on" if far.any() else ""
        print(
            f"{members} members {words}: after {COMPARED_AFTER} updates parameters differ by {np.median(found):.1e} in "
            f"the median and {found.max():.1e} at most, {int((~far).sum())} members by less than 1e-4{note}"
        )
    length = ("--members", str(members), "--updates", str(updates))
    together = cpu_seconds((*length, "--only=-1"))
    apart = cpu_seconds(*((*length, "--only", str(member)) for member in range(members)))
    steps = members * updates * NUM_ENVS * NUM_STEPS
    print(f"{steps:,} member-steps: {together:.1f} CPU-seconds together, {apart:.1f} in {members} single runs")
    print(f"member-steps per CPU-second: {steps / together:,.0f} and {steps / apart:,.0f}, {apart / together:.1f} x")


if __name__ == "__main__":
    main()
