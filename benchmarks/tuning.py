"""Does tuning pay? Confirmed returns at equal total environment steps, tuned and untuned, with good and bad settings.

    python benchmarks/tuning.py run [--envs CartPole-v1 ...] [--rows default auto spsa ...] [--factors 1 10 0.1]
                                    [--seeds 10] [--share 1.0] [--results FILE]
    python benchmarks/tuning.py report [--results FILE]
    python benchmarks/tuning.py planted [--seeds 100]

A cell is one training, or one search: a task, a row, a factor on the default learning rate, a seed. Every cell is
appended to FILE as it is done, and a benchmark that is started again does what is missing. Steps of experiments, and of
all trials and members, count for the budget. What is tuned is the learning rate, from 1e-5 to 1e-1. Environments that
are pure functions (all but LunarLander) train on the device by the JAX backend, compiled once per process: minutes
instead of hours, by the same algorithm.

``report`` prints interquartile means with 95 % intervals of the mean, and for each factor how much of the gap between
the default setting and the bad one is recovered, and which cells are missing. ``planted`` lets every tuner look for an
optimum that is known, from scores whose noise hides a single difference, in 100 windows.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from _cells import do_missing, read

from optix_core import (
    AdaptiveOptimizer,
    BackoffOptimizer,
    MomentumOptimizer,
    PBTOptimizer,
    SPSAOptimizer,
    TrainConfig,
    TrainPlan,
)
from optix_core.evaluation import summarise
from optix_core.search.plans import search_plan
from optix_protocol import EvalMetrics, HyperparamSet

BUDGETS: Mapping[str, int] = {
    "CartPole-v1": 300_000,
    "Acrobot-v1": 400_000,
    "LunarLander-v3": 1_000_000,
    "Pendulum-v1": 300_000,
}
"""Environment steps, those of experiments included."""

RANGE = {"learning_rate": (1e-5, 1e-1)}
LOGGED = {"learning_rate": ("log_float", 1e-5, 1e-1)}
"""What is tuned: wide enough for ten times the default and a tenth of it."""

NUM_TRIALS = 20

UNWATCHED = {"confirm_fraction": 1e6, "stall_fraction": 1.0}
"""Settings of a monitor that never ends a run before its budget."""

ON_THE_HOST = ("LunarLander-v3",)
"""Tasks without a pure version, which the torch backend trains."""

CONFIRM_EPISODES = 30

RESULTS = Path(__file__).with_name("data") / "tuning.jsonl"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training."""

    env_id: str
    row: str
    factor: float
    seed: int
    share: float = 1.0

    def plan(self, **changed: Any) -> TrainPlan:
        """Return the run with its default settings, the learning rate times the factor, and what is changed."""
        budget = int(BUDGETS[self.env_id] * self.share)
        backend = "torch" if self.env_id in ON_THE_HOST else "jax"
        config = TrainConfig(env_id=self.env_id, backend=backend, algorithm="ppo", seed=self.seed, max_env_steps=budget)
        rate = TrainPlan.of(config).make_agent().get_hyperparams()["learning_rate"]
        overrides = {"learning_rate": rate * self.factor, **changed}
        return TrainPlan.of(TrainConfig(**{**vars(config), "overrides": overrides}))


def alone(cell: Cell, optimizer: Any = None, **changed: Any) -> dict[str, Any]:
    """Train by one run, with a tuner or without."""
    loop = cell.plan(**changed).build(None, optimizer=optimizer)
    result = loop.run()
    confirmed = result.confirmed_return
    return {
        "return": None if confirmed is None else confirmed["mean"],
        "train_env_steps": result.train_env_steps,
        "search_env_steps": result.search_env_steps,
        "eval_env_steps": result.eval_env_steps,
        "stop_reason": result.stop_reason,
        "learning_rate": loop.agent.get_hyperparams()["learning_rate"],
        "experiments": getattr(loop.optimizer, "num_probes", 0),
    }


def handed_over(kind: Callable[..., Any]) -> Callable[[Cell], dict[str, Any]]:
    """Return a row that hands a tuner to the loop."""
    return lambda cell: alone(cell, kind(RANGE, {"learning_rate"}, seed=cell.seed))


def population(cell: Cell, size: int = 4, **options: Any) -> dict[str, Any]:
    """Train a population within the same steps."""
    from optix_core.training.population import train_population

    with TemporaryDirectory() as folder:
        result = train_population(cell.plan(), size, Path(folder) / "run", **options)
    confirmed = result.confirmed_return
    return {
        "return": None if confirmed is None else confirmed["mean"],
        "train_env_steps": result.train_env_steps,
        "search_env_steps": 0,
        "eval_env_steps": result.eval_env_steps,
        "stop_reason": result.stop_reason,
    }


def search(cell: Cell, **options: Any) -> dict[str, Any]:
    """Search with trials that share the steps; its result is the policy of the best trial, on fresh episodes."""
    import optuna

    plan = cell.plan(**options.pop("settings", UNWATCHED))
    plan = replace(plan, max_env_steps=(plan.max_env_steps or 0) // NUM_TRIALS)
    orchestrator = search_plan(
        plan, LOGGED, n_trials=NUM_TRIALS, run_options={"confirm_episodes": CONFIRM_EPISODES}, **options
    )
    orchestrator.run()
    best = orchestrator.best_trials(1)[0]
    pruned = sum(trial.state is optuna.trial.TrialState.PRUNED for trial in orchestrator.study.trials)
    return {
        "return": best.user_attrs["confirmed"],
        "train_env_steps": best.user_attrs["train_env_steps"],
        "search_env_steps": orchestrator.train_env_steps - best.user_attrs["train_env_steps"],
        "eval_env_steps": orchestrator.eval_env_steps,
        "learning_rate": orchestrator.params_of(best)["learning_rate"],
        "pruned": pruned,
    }


def random_sampler(seed: int) -> Any:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def median_pruner() -> Any:
    """Prune by the median, not before a third of a trial."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=5, n_warmup_steps=7)


ROWS: Mapping[str, Callable[[Cell], dict[str, Any]]] = {
    "default": alone,
    "longer": lambda cell: alone(cell, **UNWATCHED),  # the default setting, to the last step of the budget
    "adaptive_kl": lambda cell: alone(cell, adaptive_kl=0.01),  # the algorithm adapts its step size itself, at no cost
    "auto": lambda cell: alone(cell, "auto"),
    "spsa": handed_over(SPSAOptimizer),
    "momentum": handed_over(MomentumOptimizer),
    "backoff": handed_over(BackoffOptimizer),
    "pbt-online": handed_over(PBTOptimizer),
    "adaptive": handed_over(AdaptiveOptimizer),
    "selection": lambda cell: population(cell, perturbation=0.0),
    "population": population,
    "random": lambda cell: search(cell, sampler=random_sampler),
    "tpe": search,
    "tpe+median": lambda cell: search(cell, pruner=median_pruner()),
    "tpe+monitor": lambda cell: search(cell, settings={}),
}
"""Every way of training. A row that is added here is run and reported like the others."""

AT_THE_DEFAULT = ("random", "tpe", "tpe+median", "tpe+monitor")
"""Searches, which look at the whole range whatever the default is."""

NOT_AT_FIRST = ("momentum", "backoff", "pbt-online")
"""Rows that are run where they are asked for."""


def cells_of(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells that are asked for, seed by seed, so that any number of them compares all rows."""
    for seed, env_id, factor, row in product(range(arguments.seeds), arguments.envs, arguments.factors, arguments.rows):
        if factor == 1 or row not in AT_THE_DEFAULT:
            yield Cell(env_id=env_id, row=row, factor=factor, seed=seed, share=arguments.share)


def run(arguments: argparse.Namespace) -> None:
    """Do the cells that are missing."""
    do_missing(cells_of(arguments), ROWS, arguments.results)


def report(arguments: argparse.Namespace) -> None:
    """Print the table, and which cells are missing."""
    cells = [cell for cell in read(arguments.results) if cell["return"] is not None]
    for env_id, share in dict.fromkeys((cell["env_id"], cell["share"]) for cell in cells):
        rows = [c for c in cells if (c["env_id"], c["share"]) == (env_id, share)]
        good = returns(rows, "default", 1.0)
        print(f"\n{env_id}, {int(BUDGETS[env_id] * share):,} steps\n")
        print("| learning rate | row | seeds | IQM | 95 % of the mean | gap recovered | steps for search |")
        print("|---|---|---|---|---|---|---|")
        for factor in sorted({c["factor"] for c in rows}):
            bad = returns(rows, "default", factor)
            for row in (row for row in ROWS if returns(rows, row, factor)):
                mine = returns(rows, row, factor)
                told = summarise(np.array(list(mine.values()))) if len(mine) > 1 else {"iqm": next(iter(mine.values()))}
                interval = f"{told['ci_low']:.1f} to {told['ci_high']:.1f}" if len(mine) > 1 else ""
                closed = recovered(mine, bad, good) if factor != 1 and row != "default" else ""
                print(
                    f"| x {factor:g} | {row} | {len(mine)} | {told['iqm']:.1f} | {interval} | {closed} "
                    f"| {searched(rows, row, factor):.0%} |"
                )
    wanted = list(cells_of(arguments))
    done = {tuple(cell.get(name) for name in vars(wanted[0])) for cell in read(arguments.results)}
    missing = Counter((cell.env_id, cell.row) for cell in wanted if tuple(vars(cell).values()) not in done)
    print(f"\nmissing: {missing.total()} of {len(wanted)} cells")
    for env_id in arguments.envs:
        named = ", ".join(f"{row} {number}" for (of, row), number in missing.items() if of == env_id)
        print(f"{env_id}: {named or 'none'}")


def returns(cells: list[dict[str, Any]], row: str, factor: float) -> dict[int, float]:
    """Return the confirmed return of every seed."""
    return {c["seed"]: c["return"] for c in cells if (c["row"], c["factor"]) == (row, factor)}


def recovered(mine: Mapping[int, float], bad: Mapping[int, float], good: Mapping[int, float]) -> str:
    """Return which share of the gap between the bad setting and the good one is closed, on common seeds."""
    seeds = mine.keys() & bad.keys() & good.keys()
    gap = sum(good[seed] - bad[seed] for seed in seeds)
    return f"{sum(mine[seed] - bad[seed] for seed in seeds) / gap:.0%}" if gap > 0 else "no gap"


def searched(cells: list[dict[str, Any]], row: str, factor: float) -> float:
    """Return the share of all steps that experiments took."""
    mine = [c for c in cells if (c["row"], c["factor"]) == (row, factor)]
    search = sum(c["search_env_steps"] for c in mine)
    return search / (search + sum(c["train_env_steps"] for c in mine))


def planted(arguments: argparse.Namespace) -> None:
    """Let every tuner look for 0.8, the optimum of 1 - 4 (x - 0.8)^2, under noise of 0.05."""
    print("tuner       gate  start  within 0.05  SD of the error  worse than the start  within, credit shifted by one")
    for kind in (SPSAOptimizer, MomentumOptimizer, BackoffOptimizer, PBTOptimizer, AdaptiveOptimizer):
        for gate in (False, True):
            for start in (0.5, 0.7, 0.9):
                found = [look_for_it(kind, start, seed, gate=gate) - 0.8 for seed in range(arguments.seeds)]
                shifted = [look_for_it(kind, start, seed, gate=gate, lag=1) - 0.8 for seed in range(arguments.seeds)]
                errors = np.array(found)
                worse = int((abs(errors) > abs(start - 0.8) + 1e-9).sum())
                print(
                    f"{kind.name:<11} {'on' if gate else 'off':<5} {start:>5} {within(errors):>12} "
                    f"{errors.std():>16.3f} {worse:>21} {within(np.array(shifted)):>30}"
                )


def within(errors: np.ndarray[Any, Any]) -> int:
    return int((abs(errors) <= 0.05).sum())


def look_for_it(kind: Callable[..., Any], start: float, seed: int, *, gate: bool, lag: int = 0) -> float:
    """Return where a tuner ends after 100 windows; with ``lag`` scores go to values that were set later."""
    tuner, rng = kind({"x": (0.0, 1.0)}, gate=gate, seed=seed), np.random.default_rng(seed)
    past = [start] * (lag + 1)
    for _ in range(100):
        score = 1 - 4 * (past[-1 - lag] - 0.8) ** 2 + 0.05 * rng.standard_normal()
        values = tuner.suggest(HyperparamSet(params={"x": past[-1]}), EvalMetrics(primary_score=score))
        past.append(values["x"])
    return float(tuner.values["x"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report", "planted"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--envs", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument(
        "--rows", nargs="+", default=[row for row in ROWS if row not in NOT_AT_FIRST], choices=list(ROWS)
    )
    parser.add_argument("--factors", nargs="+", type=float, default=[1.0, 10.0, 0.1])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--share", type=float, default=1.0, help="of the budget, for a first look")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (100 if arguments.what == "planted" else 10)
    {"run": run, "report": report, "planted": planted}[arguments.what](arguments)


if __name__ == "__main__":
    main()
