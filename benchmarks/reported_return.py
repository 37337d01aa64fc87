"""Is the return that a run reports true? Each is held against 1,000 fresh episodes of the same policy.

    uv run python benchmarks/reported_return.py [--runs 10] [--tasks CartPole-v1 LunarLander-v3@500000]

Three counts per task. *Covered*: the mean of the 1,000 episodes lies in the interval that the run reported (95 % are
expected). *Compatible*: 0 lies in the 95 % interval of the difference of the two means (95 % expected). *Inside*: the
reported mean lies in the 95 % interval of the 1,000 episodes; since the report is a mean of 100 episodes and itself
uncertain, about 45 % are expected where returns vary, and 100 % where they do not.
"""

from __future__ import annotations

import argparse
from math import hypot

from returns import parse

from optix_core import TrainConfig, TrainPlan
from optix_core.evaluation import evaluate, summarise

EPISODES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", default=["CartPole-v1", "LunarLander-v3@500000"])
    arguments = parser.parse_args()
    for task in arguments.tasks:
        env_id, algorithm, budget = parse(task)
        covered = compatible = inside = 0
        bias = []
        for seed in range(arguments.runs):
            plan = TrainPlan.of(
                TrainConfig(env_id=env_id, algorithm=algorithm or "auto", max_env_steps=budget, seed=seed)
            )
            loop = plan.build(None)
            reported = loop.run().confirmed_return
            assert reported is not None
            played = evaluate(loop.agent, plan.env_spec, episodes=EPISODES, seed=10_000 + seed)
            truth = summarise(played.returns)
            half_widths = [(s["ci_high"] - s["ci_low"]) / 2 for s in (reported, truth)]
            difference = reported["mean"] - truth["mean"]
            covered += reported["ci_low"] - 1e-9 <= truth["mean"] <= reported["ci_high"] + 1e-9
            inside += truth["ci_low"] - 1e-9 <= reported["mean"] <= truth["ci_high"] + 1e-9
            compatible += abs(difference) <= hypot(*half_widths) + 1e-9
            spread = float(played.returns.std(ddof=1))
            bias.append(difference / spread if spread > 0 else 0.0)
            print(
                f"  {task} seed {seed}: reported {reported['mean']:.1f} [{reported['ci_low']:.1f}, "
                f"{reported['ci_high']:.1f}], {EPISODES} episodes {truth['mean']:.1f} [{truth['ci_low']:.1f}, "
                f"{truth['ci_high']:.1f}]",
                flush=True,
            )
        print(
            f"{task}: covered {covered}/{arguments.runs}, compatible {compatible}/{arguments.runs}, inside "
            f"{inside}/{arguments.runs}, mean difference {sum(bias) / len(bias):+.3f} SD of an episode",
            flush=True,
        )


if __name__ == "__main__":
    main()
