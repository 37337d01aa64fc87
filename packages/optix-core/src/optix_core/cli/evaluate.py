"""``optix eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optix_core.checkpoints import RunDirectory


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to play.")] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; a fresh one by default.")] = None,
    allow_import: Annotated[str | None, typer.Option(help="Module of the run's environment, if it has one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play fresh episodes with the best policy of a run, greedily."""
    import secrets

    import numpy as np

    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import facts, make_console, print_json, shown_path
    from optix_core.cli.runs import find_run
    from optix_core.evaluation.rollouts import evaluate as play
    from optix_core.evaluation.statistics import summarise
    from optix_core.reporting.text import number
    from optix_core.seeding import derive_seed
    from optix_core.training import TrainPlan

    seed = secrets.randbits(31) if seed is None else seed
    with RunDirectory.open(find_run(run)) as directory:
        plan = TrainPlan.from_dict(directory.read_run(), allow_import=allow_import)
        agent = plan.make_agent()
        snapshot_id, reported = best_snapshot(directory)
        directory.registry.load(agent, snapshot_id)
    outcome = play(agent, plan.env_spec, episodes=episodes, seed=derive_seed(seed, "eval"))
    summary = summarise(outcome.returns)
    if json:
        spread = {
            "std": float(np.std(outcome.returns, ddof=1)) if episodes > 1 else 0.0,
            "min": float(outcome.returns.min()),
            "max": float(outcome.returns.max()),
            "mean_episode_length": float(outcome.lengths.mean()),
        }
        about = {"env_id": plan.env_id, "run": shown_path(directory.path), "snapshot": snapshot_id, "seed": seed}
        print_json({**about, **summary, **spread, "eval_env_steps": outcome.num_env_steps, "reported": reported})
        return
    from rich.text import Text

    interval = f"95 % interval {number(summary['ci_low'])} to {number(summary['ci_high'])}"
    lines: dict[str, str | Text] = {
        "mean return": Text.assemble((number(summary["mean"]), "bold"), f"  ({interval})"),
        "IQM": number(summary["iqm"]),
        "range": f"{number(float(outcome.returns.min()))} to {number(float(outcome.returns.max()))}",
        "episodes": f"{episodes}, {number(float(outcome.lengths.mean()))} steps each on average",
        "run reported": f"{number(reported['mean'])}  ({_agreement(summary, reported)})" if reported else "nothing yet",
        "policy": f"snapshot {snapshot_id} of {shown_path(directory.path)}",
        "repeat with": f"--seed {seed} --episodes {episodes}",
    }
    make_console().print(facts(lines))


def best_snapshot(directory: RunDirectory) -> tuple[int, dict[str, Any] | None]:
    """Return the number of the policy that the run ended with and the return that it reported for it.

    A run without a result has its highest score so far as the best and no report.

    Raises:
        RunDirectoryError: the run kept no policy.
    """
    from optix_core.errors import RunDirectoryError

    result = directory.read_result()
    chosen = result.get("best_snapshot") if result else None
    if result and isinstance(chosen, dict) and isinstance(chosen.get("id"), int):
        return chosen["id"], result.get("confirmed_return")
    best = directory.registry.best
    if best is None:
        raise RunDirectoryError(f"{str(directory.path)!a} has kept no policy yet: train longer.")
    return best.snapshot_id, None


def _agreement(now: Any, reported: dict[str, Any]) -> str:
    """Say whether the difference of the two means is within what both intervals allow."""
    half_widths = [(s["ci_high"] - s["ci_low"]) / 2 for s in (now, reported)]
    allowed = float(sum(width**2 for width in half_widths) ** 0.5)
    difference = now["mean"] - reported["mean"]
    if abs(difference) <= allowed + 1e-9 * abs(reported["mean"]):
        return "this evaluation agrees"
    return f"this evaluation is {'better' if difference > 0 else 'worse'} by more than the intervals allow"
