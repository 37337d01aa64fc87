"""Does evolution pay? Confirmed returns at equal budgets: one long run, the best of short ones, selection, ours.

    uv run python benchmarks/evolution.py run [--tasks Acrobot-v1 ...] [--rows A B C D E] [--seeds 10] [--share 1.0]
                                              [--agilerl PYTHON] [--results FILE]
    uv run python benchmarks/evolution.py report [--results FILE]
    uv run python benchmarks/evolution.py snapshots [--tasks CartPole-v1 ...] [--seeds 10] [--share 0.1]

A is one long run, B the best of five runs of a fifth of the budget (best by the return that each confirmed, measured
again on fresh episodes), C a population of four under selection alone (no hyperparameter is perturbed), D one run with
three spawns, E AgileRL with its own defaults (``_agilerl.py``; PYTHON is an interpreter that has it). All have the same
budget of environment steps, branches, races and AgileRL's evaluations included, and may end before it is used; what
ours played to select and to confirm stands beside. A to D are PPO in JAX, collected on the device where it can be.

A cell is appended to the results as it is done, and a benchmark that is started again does what is missing. ``report``
prints interquartile means, P(D > row) with its 95 % interval, and whether spawning may be on by default: P(D > A)
certainly above one half, and IQM(D) >= IQM(C), on every task. ``snapshots`` lets the last five policies of a run act as
an ensemble, beside the best single one, on common episodes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _cells import do_missing, read

from optix_core import EnsembleAgent, EnvSpec, PolicyManager, RunDirectory, TrainConfig, TrainPlan
from optix_core.evaluation import iqm, summarise
from optix_core.evaluation.rollouts import evaluate
from optix_core.evaluation.statistics import probability_of_improvement
from optix_core.loop import RunResult
from optix_core.seeding import derive_seed
from optix_core.training import population

HERE = Path(__file__).resolve().parent

BUDGETS: Mapping[str, int] = {
    "goal_on_device:SparsePoint-v0": 1_000_000,  # a sparse reward without hindsight: a plateau that deceives
    "Acrobot-v1": 1_000_000,
    "Pendulum-v1": 1_000_000,
    "CartPole-v1": 1_000_000,
    "LunarLander-v3": 1_000_000,
}
TASKS = tuple(BUDGETS)[:3]
NUM_SHORT, NUM_MEMBERS, NUM_SPAWNS = 5, 4, 3


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training."""

    task: str
    row: str
    seed: int
    share: float = 1.0

    @property
    def budget(self) -> int:
        """Environment steps."""
        return int(BUDGETS[self.task] * self.share)

    @property
    def backend(self) -> str:
        """JAX where the device has the task."""
        return "torch" if self.task == "LunarLander-v3" else "jax"

    def plan(self, *, part: int = 1, number: int = 0, **overrides: Any) -> TrainPlan:
        """Return a run of PPO with a part of the budget; runs of other numbers have other seeds."""
        seed = self.seed if number == 0 else derive_seed(self.seed, "run", number)
        return TrainPlan.of(
            TrainConfig(
                env_id=self.task,
                backend=self.backend,
                algorithm="ppo",
                seed=seed,
                max_env_steps=self.budget // part,
                overrides=overrides,
            )
        )


def outcome(results: list[RunResult], best: RunResult) -> dict[str, Any]:
    """Return what a row reached and what it cost."""
    return {
        "return": None if best.confirmed_return is None else best.confirmed_return["mean"],
        "train_env_steps": sum(result.train_env_steps for result in results),
        "search_env_steps": sum(result.search_env_steps for result in results),
        "eval_env_steps": sum(result.eval_env_steps for result in results),
        "stop_reason": best.stop_reason,
    }


def one_long(cell: Cell) -> dict[str, Any]:
    """A: all of the budget in one run."""
    result = cell.plan().build(None).run()
    return outcome([result], result)


def best_of_short(cell: Cell) -> dict[str, Any]:
    """B: the best of several runs by the return that each confirmed, measured on episodes that did not choose it."""
    runs = [cell.plan(part=NUM_SHORT, number=number).build(None) for number in range(NUM_SHORT)]
    results = [run.run() for run in runs]
    worth = [-np.inf if r.confirmed_return is None else r.confirmed_return["mean"] for r in results]
    best = int(np.argmax(worth))
    seed = derive_seed(cell.seed, "measured again")
    played = evaluate(runs[best].agent, EnvSpec.of(cell.task), episodes=100, seed=seed)
    return {**outcome(results, results[best]), "return": float(played.returns.mean())}


def selection_only(cell: Cell) -> dict[str, Any]:
    """C: members that differ by their seeds, the best of which replace the worst."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(population, "PERTURBATION", 0.0):
        result = population.train_population(cell.plan(), NUM_MEMBERS, Path(folder) / "run")
    return outcome([result], result)


def ours(cell: Cell) -> dict[str, Any]:
    """D: one run that spawns."""
    run = cell.plan(max_spawns=NUM_SPAWNS).build(None)
    result = run.run()
    manager = run._callbacks.callbacks[-1].manager
    won = [variant.number for variant in manager.variants if variant.won]
    return {**outcome([result], result), "spawns": manager.spawns_used, "won": len(won)}


def agilerl(cell: Cell, python: Path) -> dict[str, Any]:
    """E: AgileRL, in an interpreter of its own."""
    command = [str(python), str(HERE / "_agilerl.py"), cell.task, str(cell.seed), str(cell.budget)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


ROWS: Mapping[str, Callable[[Cell], dict[str, Any]]] = {
    "A": one_long,
    "B": best_of_short,
    "C": selection_only,
    "D": ours,
}


NAMES = {
    "A": "A: one long run",
    "B": "B: best of five short runs",
    "C": "C: selection only",
    "D": "D: three spawns",
    "E": "E: AgileRL 2.58",
}


def run(arguments: argparse.Namespace) -> None:
    """Do the cells that are missing, seed by seed, so that any number of them compares all rows."""
    rows = dict(ROWS)
    if arguments.agilerl is not None:
        rows["E"] = partial(agilerl, python=arguments.agilerl)
    cells = product(range(arguments.seeds), arguments.tasks, [row for row in arguments.rows if row in rows])
    do_missing(
        (Cell(task=task, row=row, seed=seed, share=arguments.share) for seed, task, row in cells),
        rows,
        arguments.results,
    )


def report(arguments: argparse.Namespace) -> None:
    """Print the table and the verdict."""
    cells = [cell for cell in read(arguments.results) if cell.get("return") is not None]
    passes = []
    for task, share in dict.fromkeys((cell["task"], cell["share"]) for cell in cells):
        mine = [cell for cell in cells if (cell["task"], cell["share"]) == (task, share)]
        returns = {row: np.array([c["return"] for c in mine if c["row"] == row]) for row in (*ROWS, "E")}
        print(
            f"\n| {task.rpartition(':')[2]}, {int(BUDGETS[task] * share):,} steps | seeds | IQM of returns | ", end=""
        )
        print("P(D > row), 95 % interval | trained | searched | played to judge |\n|---|---|---|---|---|---|---|")
        for row, values in returns.items():
            if len(values) == 0:
                continue
            better = ""
            if row != "D" and len(returns["D"]):
                p = probability_of_improvement([returns["D"]], [values])
                better = f"{p.estimate:.2f} ({p.low:.2f} to {p.high:.2f})"
            spent = [
                int(np.mean([c[name] for c in mine if c["row"] == row]))
                for name in ("train_env_steps", "search_env_steps", "eval_env_steps")
            ]
            steps = " | ".join(f"{value:,}" for value in spent)
            print(f"| {NAMES[row]} | {len(values)} | {float(iqm(values)):.1f} | {better} | {steps} |")
        if all(len(returns[row]) for row in "ACD"):
            wins = probability_of_improvement([returns["D"]], [returns["A"]]).low > 0.5
            passes.append(bool(wins and iqm(returns["D"]) >= iqm(returns["C"])))
        won = [cell["won"] for cell in mine if cell["row"] == "D"]
        print(
            f"\nOf the variants of D, {sum(won)} of {sum(c['spawns'] for c in mine if c['row'] == 'D')} won their race."
        )
    if passes:
        print(f"\nSpawning {'may be' if all(passes) else 'stays off: it does not earn to be'} on by default.")


def last_five(cell: Cell) -> dict[str, Any]:
    """Return what the last five policies of a run earn together, and the best single one, on common episodes."""
    with tempfile.TemporaryDirectory() as folder:
        plan = cell.plan()
        run = plan.build(Path(folder) / "run")
        run.run()
        with RunDirectory.open(Path(folder) / "run") as kept:
            manager = PolicyManager(kept.registry)
            for snapshot in kept.registry.list()[-5:]:
                member = plan.make_agent()
                kept.registry.load(member, snapshot.snapshot_id)
                manager.add_agent(member)
            ensemble = EnsembleAgent(manager, manager.members[-1].agent)
    found = {}
    for name, agent in (("single", run.agent), ("ensemble", ensemble)):
        played = evaluate(agent, EnvSpec.of(cell.task), episodes=100, seed=derive_seed(cell.seed, "snapshots"))
        found[name] = float(played.returns.mean())
    return found


def snapshots(arguments: argparse.Namespace) -> None:
    """Compare the ensemble of a run's last five policies with the best single one."""
    for task in arguments.tasks:
        cells = [Cell(task=task, row="snapshots", seed=s, share=arguments.share) for s in range(arguments.seeds)]
        do_missing(cells, {"snapshots": last_five}, arguments.results)
        done = [cell for cell in read(arguments.results) if cell["row"] == "snapshots" and cell["task"] == task]
        single, several = (np.array([c[name] for c in done if c["share"] == arguments.share]) for name in SIDES)
        relative = (several - single) / np.abs(single).mean()
        told = summarise(relative)
        bounds = "" if told["ci_low"] is None else f" (95 %: {told['ci_low']:+.1%} to {told['ci_high']:+.1%})"
        print(
            f"{task}, {len(single)} seeds of {int(BUDGETS[task] * arguments.share):,} steps: best single "
            f"{float(iqm(single)):.1f}, ensemble {float(iqm(several)):.1f}, difference {relative.mean():+.1%}{bounds}",
            flush=True,
        )


SIDES = ("single", "ensemble")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report", "snapshots"))
    parser.add_argument("--results", type=Path, default=HERE / "results" / "evolution.jsonl")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(BUDGETS))
    parser.add_argument("--rows", nargs="+", default=[*ROWS, "E"], choices=[*ROWS, "E"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--share", type=float, default=1.0, help="of the budget, for a first look")
    parser.add_argument("--agilerl", type=Path, metavar="PYTHON", help="an interpreter that has agilerl, for row E")
    arguments = parser.parse_args()
    {"run": run, "report": report, "snapshots": snapshots}[arguments.what](arguments)


if __name__ == "__main__":
    main()
