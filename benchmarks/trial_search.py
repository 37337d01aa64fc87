"""What searches promise and what they save: do fresh trainings reach the interval, do trials that end early lose?

    python benchmarks/trial_search.py run [--envs CartPole-v1 ...] [--rows reproduces watched unwatched] [--seeds 10]
    python benchmarks/trial_search.py report

A cell is a search: a task, a row, a seed. Cells are kept, and gone on with, as in ``benchmarks/tuning.py``; trials
train on the device by the JAX backend. ``reproduces`` is a search of 10 trials for learning rate, epochs, entropy and
clipping, whose three best race. Then the winner is trained five times on seeds that the search has not seen. The report
says how often the mean of the five lies in the 95 % prediction interval for a training that the search had reported,
and how far it is from what was reported, in SDs of a training. ``watched`` and ``unwatched`` are searches of the same
trials with and without a monitor that may end them; the report says which steps that saves, and what the best trial
loses. "usual" are trials with the budget of ``optix train``, as those of ``optix tune`` are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _cells import do_missing, read

from optix_core import TrainConfig, TrainPlan
from optix_core.search.plans import search_plan
from optix_core.seeding import derive_seed

BUDGETS: Mapping[str, int] = {"CartPole-v1": 100_000, "Acrobot-v1": 150_000, "Pendulum-v1": 150_000}
"""Environment steps of each training."""

SPACE = {
    "learning_rate": ("log_float", 1e-4, 1e-2),
    "num_epochs": ("int", 2, 12),
    "entropy_coef": (0.0, 0.02),
    "clip_range": (0.1, 0.3),
}
NUM_TRIALS = 10
NUM_FRESH = 5
UNWATCHED = {"confirm_fraction": 1e6, "stall_fraction": 1.0}
RESULTS = Path(__file__).with_name("data") / "trial_search.jsonl"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search."""

    env_id: str
    row: str
    seed: int

    def plan(self, *, usual: bool = False, **overrides: Any) -> TrainPlan:
        """Return what its trials are variants of; with ``usual`` they may take the steps of a usual run."""
        return TrainPlan.of(
            TrainConfig(
                env_id=self.env_id,
                backend="jax",
                algorithm="ppo",
                seed=self.seed,
                max_env_steps=None if usual else BUDGETS[self.env_id],
                overrides=overrides,
            )
        )


def reproduces(cell: Cell) -> dict[str, Any]:
    """Search with a race, then train the winner again."""
    plan = cell.plan()
    orchestrator = search_plan(plan, SPACE, n_trials=NUM_TRIALS, finalists=3)
    params, _ = orchestrator.run()
    race = orchestrator.race
    assert race is not None
    fresh = []
    for number in range(NUM_FRESH):
        seed = derive_seed(cell.seed, "benchmark", number)
        result = replace(plan, seed=seed, hyperparams={**plan.hyperparams, **params}).build(None).run()
        assert result.confirmed_return is not None
        fresh.append(result.confirmed_return["mean"])
    return {
        "best_score": orchestrator.best_trials(1)[0].value,
        "mean": race.mean,
        "low": race.low,
        "high": race.high,
        "spread": race.spread,
        "fresh": fresh,
        "train_env_steps": orchestrator.train_env_steps,
        "eval_env_steps": orchestrator.eval_env_steps,
    }


def ended(cell: Cell, **settings: Any) -> dict[str, Any]:
    """Search without a race."""
    orchestrator = search_plan(cell.plan(**settings), SPACE, n_trials=NUM_TRIALS)
    _, best = orchestrator.run()
    return {
        "best_score": best,
        "train_env_steps": orchestrator.train_env_steps,
        "eval_env_steps": orchestrator.eval_env_steps,
    }


ROWS: Mapping[str, Callable[[Cell], dict[str, Any]]] = {
    "reproduces": reproduces,
    "watched": ended,
    "unwatched": lambda cell: ended(cell, **UNWATCHED),
    "watched, usual": lambda cell: ended(cell, usual=True),
    "unwatched, usual": lambda cell: ended(cell, usual=True, **UNWATCHED),
}


def report(cells: list[dict[str, Any]]) -> None:
    """Print both tables."""
    print("task           searches  in the interval  bias in SD of a training  the same of the best trial's score")
    for env_id in BUDGETS:
        mine = [cell for cell in cells if (cell["env_id"], cell["row"]) == (env_id, "reproduces")]
        if mine:
            inside = sum(cell["low"] <= np.mean(cell["fresh"]) <= cell["high"] for cell in mine)
            spread = np.sqrt(np.mean([np.var(cell["fresh"], ddof=1) for cell in mine])) or np.nan
            bias = np.mean([cell["mean"] - np.mean(cell["fresh"]) for cell in mine]) / spread
            naive = np.mean([cell["best_score"] - np.mean(cell["fresh"]) for cell in mine]) / spread
            print(f"{env_id:<14} {len(mine):>8} {inside:>16} {bias:>25.2f} {naive:>36.2f}")
    print("\ntask           trials  searches  steps saved  best trial: with the monitor, without, lost")
    for env_id, length in product(BUDGETS, ("", ", usual")):
        watched, unwatched = (
            {cell["seed"]: cell for cell in cells if (cell["env_id"], cell["row"]) == (env_id, row + length)}
            for row in ("watched", "unwatched")
        )
        seeds = sorted(watched.keys() & unwatched.keys())
        if seeds:
            with_it, without = ([row[seed] for seed in seeds] for row in (watched, unwatched))
            saved = 1 - sum(c["train_env_steps"] for c in with_it) / sum(c["train_env_steps"] for c in without)
            means = [float(np.mean([c["best_score"] for c in row])) for row in (with_it, without)]
            lost = (means[1] - means[0]) / abs(means[1])
            kind = "usual" if length else "short"
            print(
                f"{env_id:<14} {kind:<6} {len(seeds):>9} {saved:>12.0%} {means[0]:>29.1f} {means[1]:>8.1f} {lost:>6.1%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--envs", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "report":
        report(read(arguments.results))
        return
    cells = (
        Cell(env_id=env_id, row=row, seed=seed)
        for seed in range(arguments.seeds)
        for row in arguments.rows
        for env_id in arguments.envs
    )
    do_missing(cells, ROWS, arguments.results)


if __name__ == "__main__":
    main()
